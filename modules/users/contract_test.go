package users

import (
	"context"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/api/usersapi/userstest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

func TestModulePassesTheSuite(t *testing.T) {
	t.Parallel()
	userstest.Suite(t, func(t *testing.T) userstest.Subject {
		b := setup(t)
		return userstest.Subject{
			Users: b.Module, As: func(caller string) context.Context { return auth.WithCaller(t.Context(), caller) },
			AddAddress: func(t *testing.T, user usersapi.ID, a usersapi.Address) ids.ID {
				a, err := b.addAddress(t.Context(), ids.ID(user), a)
				if err != nil {
					t.Fatal(err)
				}
				return a.ID
			},
			AskReset: func(t *testing.T, email string) (mail ids.ID) {
				if err := b.askReset(t.Context(), email); err != nil {
					t.Fatal(err)
				}
				if err := b.DB.Get(t.Context(), &mail, `SELECT id FROM users.mails ORDER BY id DESC LIMIT 1`); err != nil {
					t.Fatal(err)
				}
				return mail
			},
			Reset: func(t *testing.T, token string) {
				if err := b.reset(t.Context(), token, "another fine password"); err != nil {
					t.Fatal(err)
				}
			},
			MakeKey: func(t *testing.T, user usersapi.ID, scopes []string, expires time.Time) (ids.ID, string) {
				var until *time.Time
				if !expires.IsZero() {
					until = &expires
				}
				return b.makeKey(t, user, scopes, until)
			},
			RevokeKey: func(t *testing.T, user usersapi.ID, id ids.ID) {
				if err := b.revokeAPIKey(t.Context(), user, id); err != nil {
					t.Fatal(err)
				}
			},
			LogOut: func(t *testing.T, user usersapi.ID) {
				ctx := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID(user)})
				if _, err := b.postLogoutEverywhere(ctx, nil); err != nil {
					t.Fatal(err)
				}
			},
			Now: b.clock.Now, Pass: b.clock.Advance,
		}
	})
}

func TestOnlyNotificationsAskWhomToWriteTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, caller := range []string{"", "orders", "storefront"} {
		ctx := auth.WithCaller(t.Context(), caller)
		if _, err := b.Contact(ctx, usersapi.ContactRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("contact by %q: %v", caller, err)
		}
		if _, err := b.MailLink(ctx, usersapi.MailLinkRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("link by %q: %v", caller, err)
		}
	}
}
