package userstest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/api/usersapi/userstest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	userstest.Suite(t, func(*testing.T) userstest.Subject {
		clock := shoptest.NewClock()
		f := &userstest.Fake{Now: clock.Now}
		return userstest.Subject{
			Users: f, As: func(string) context.Context { return context.Background() },
			AddAddress: func(_ *testing.T, user usersapi.ID, a usersapi.Address) ids.ID { return f.PutAddress(ids.ID(user), a) },
			AskReset: func(_ *testing.T, email string) ids.ID {
				if !strings.EqualFold(email, "ann@example.com") {
					return ids.New[ids.ID]("mal")
				}
				return f.PutMail(usersapi.MailLink{Email: "ann@example.com", Name: "Ann", Token: "token"})
			},
			Reset: func(_ *testing.T, token string) { f.UseToken(token) },
			MakeKey: func(_ *testing.T, u usersapi.ID, scopes []string, ex time.Time) (ids.ID, string) {
				return f.MakeKey(u, scopes, ex)
			},
			RevokeKey: func(_ *testing.T, _ usersapi.ID, id ids.ID) { f.RevokeKey(id) },
			LogOut:    func(_ *testing.T, user usersapi.ID) { f.EndSessions(user) },
			Now:       clock.Now, Pass: clock.Advance,
		}
	})
}

func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	rpctest.Complete(t, "users", usersapi.Dial, usersapi.Mount)
}
