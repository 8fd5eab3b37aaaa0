package userstest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Subject is users under test, and what people do there.
type Subject struct {
	Users usersapi.Users
	// As is the context of a call by a module, or by the command line, which is "shop".
	As func(caller string) context.Context
	// AddAddress puts an address into a user's book.
	AddAddress func(t *testing.T, user usersapi.ID, a usersapi.Address) ids.ID
	// AskReset asks for a mail to set a new password, for an address that may be nobody's.
	AskReset func(t *testing.T, email string) (mail ids.ID)
	// Reset uses the link of such a mail.
	Reset func(t *testing.T, token string)
	// MakeKey makes an API key for a user who holds the scopes; a zero expires is never.
	MakeKey func(t *testing.T, user usersapi.ID, scopes []string, expires time.Time) (id ids.ID, key string)
	// RevokeKey ends an API key of a user.
	RevokeKey func(t *testing.T, user usersapi.ID, id ids.ID)
	// LogOut ends all sessions of a user.
	LogOut func(t *testing.T, user usersapi.ID)
	// Now is the clock of the users, and Pass lets time pass on it.
	Now  func() time.Time
	Pass func(time.Duration)
}

// Suite is what all users do.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	createAs := func(t *testing.T, s Subject, email, name, role string) usersapi.User {
		t.Helper()
		u, err := s.Users.Create(s.As("shop"), usersapi.CreateRequest{
			Key: ids.New[string]("key"), Email: email, Password: "a fine long password", Name: name, Role: role,
		})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	create := func(t *testing.T, s Subject, email, name string) usersapi.User {
		t.Helper()
		return createAs(t, s, email, name, "customer")
	}
	verify := func(s Subject, key string) (usersapi.APIKey, error) {
		return s.Users.VerifyKey(s.As("host"), usersapi.VerifyKeyRequest{Hash: auth.HashAPIKey(key)})
	}

	t.Run("a user is made once an address and can be written to", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		made := create(t, s, "Ann@example.com", "")
		if made.ID == "" || made.Name != "Ann" {
			t.Errorf("made %+v", made)
		}
		if again := create(t, s, "ann@EXAMPLE.com", "Ann Other"); again.ID != made.ID || again.Email != made.Email || again.Name != "Ann Other" {
			t.Errorf("again %+v", again)
		}
		c, err := s.Users.Contact(s.As("notifications"), usersapi.ContactRequest{User: ids.ID(made.ID)})
		if err != nil || c.Email != "Ann@example.com" || c.Name != "Ann Other" || c.Locale == "" {
			t.Errorf("contact %+v, %v", c, err)
		}
		if _, err := s.Users.Contact(s.As("notifications"), usersapi.ContactRequest{User: "usr_none"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("contact of nobody: %v", err)
		}
	})
	t.Run("an account that can't be is refused", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		for _, r := range []usersapi.CreateRequest{
			{Email: "ann@example.com", Password: "a fine long password", Role: "queen"},
			{Email: "ann", Password: "a fine long password", Role: "customer"},
			{Email: "ann@example.com", Password: "short", Role: "customer"},
		} {
			if _, err := s.Users.Create(s.As("shop"), r); !errs.Is(err, errs.Invalid) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("an address is found by its owner alone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		ann, bob := create(t, s, "ann@example.com", "Ann"), create(t, s, "bob@example.com", "Bob")
		want := usersapi.Address{Name: "Ann", Line1: "Lindenweg 1", City: "Berlin", Postcode: "10115", Country: "DE"}
		want.ID = s.AddAddress(t, ann.ID, want)
		if got, err := s.Users.Address(s.As("orders"), usersapi.AddressRequest{User: ids.ID(ann.ID), ID: want.ID}); err != nil || got != want {
			t.Errorf("got %+v, %v", got, err)
		}
		for _, r := range []usersapi.AddressRequest{{User: ids.ID(bob.ID), ID: want.ID}, {ID: want.ID}, {User: ids.ID(ann.ID), ID: "adr_none"}} {
			if _, err := s.Users.Address(s.As("orders"), r); !errs.Is(err, errs.NotFound) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("a mail's link is told until it is used, and never for an address nobody has", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		create(t, s, "ann@example.com", "Ann")
		of := func(mail ids.ID) (usersapi.MailLink, error) {
			return s.Users.MailLink(s.As("notifications"), usersapi.MailLinkRequest{Mail: mail})
		}
		mail := s.AskReset(t, "ANN@example.com")
		var l usersapi.MailLink
		for range 2 {
			got, err := of(mail)
			if err != nil || got.Email != "ann@example.com" || got.Name != "Ann" || got.Token == "" {
				t.Fatalf("got %+v, %v", got, err)
			}
			l = got
		}
		s.Reset(t, l.Token)
		for _, id := range []ids.ID{mail, s.AskReset(t, "nobody@example.com"), "mal_none"} {
			if got, err := of(id); !errs.Is(err, errs.NotFound) {
				t.Errorf("%s: %+v, %v", id, got, err)
			}
		}
	})
	t.Run("the keys are a JWKS document", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		k, err := s.Users.Keys(s.As("orders"), usersapi.KeysRequest{})
		var doc struct{ Keys []json.RawMessage }
		if err != nil || json.Unmarshal([]byte(k.JWKS), &doc) != nil || doc.Keys == nil {
			t.Errorf("got %s, %v", k.JWKS, err)
		}
	})
	t.Run("who was logged out everywhere is told for as long as a token lives", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		ann, bob := create(t, s, "ann@example.com", "Ann"), create(t, s, "bob@example.com", "Bob")
		ended := func() []usersapi.Ended {
			t.Helper()
			k, err := s.Users.Keys(s.As("host"), usersapi.KeysRequest{})
			if err != nil {
				t.Fatal(err)
			}
			return k.Ended
		}
		if got := ended(); len(got) != 0 {
			t.Errorf("before anybody was: %+v", got)
		}
		s.LogOut(t, ann.ID)
		at := s.Now()
		if got := ended(); len(got) != 1 || got[0].User != ids.ID(ann.ID) || got[0].NotBefore.Sub(at).Abs() > time.Second {
			t.Errorf("got %+v, want %s at %s", got, ann.ID, at)
		}
		s.Pass(2 * time.Minute)
		createAs(t, s, "bob@example.com", "Bob", "support") // another role
		if got := ended(); len(got) != 2 || !slices.ContainsFunc(got, func(e usersapi.Ended) bool { return e.User == ids.ID(bob.ID) }) {
			t.Errorf("after a change of role: %+v", got)
		}
		s.Pass(auth.MaxAccessTTL)
		if got := ended(); len(got) != 1 || got[0].User != ids.ID(bob.ID) {
			t.Errorf("when Ann's tokens have expired: %+v", got)
		}
	})
	t.Run("an API key is known by its hash until it ends", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		ann := createAs(t, s, "ann@example.com", "Ann", "merchant")
		id, key := s.MakeKey(t, ann.ID, []string{"catalog:write", "stock:write"}, time.Time{})
		for range 2 {
			got, err := verify(s, key)
			if err != nil || got.ID != id || got.Owner != ann.ID || !got.ExpiresAt.IsZero() || !slices.Equal(got.Scopes, []string{"catalog:write", "stock:write"}) {
				t.Fatalf("got %+v, %v", got, err)
			}
		}
		for _, other := range []string{"", key[:12], key[:12] + auth.NewAPIKey()[12:], key[:len(key)-1], key + "0", strings.ToUpper(key), auth.HashAPIKey(key), auth.NewAPIKey()} {
			if got, err := verify(s, other); !errs.Is(err, errs.NotFound) {
				t.Errorf("%s: %+v, %v", other, got, err)
			}
		}
		for _, hash := range []string{"", key, "' OR 1=1 --", strings.Repeat("A", 1<<16)} {
			if got, err := s.Users.VerifyKey(s.As("host"), usersapi.VerifyKeyRequest{Hash: hash}); !errs.Is(err, errs.NotFound) {
				t.Errorf("hash %.20s: %+v, %v", hash, got, err)
			}
		}
		s.RevokeKey(t, ann.ID, id)
		if got, err := verify(s, key); !errs.Is(err, errs.NotFound) {
			t.Errorf("revoked: %+v, %v", got, err)
		}
	})
	t.Run("an API key expires", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		ann := createAs(t, s, "ann@example.com", "Ann", "merchant")
		until := s.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
		_, key := s.MakeKey(t, ann.ID, []string{"stock:write"}, until)
		s.Pass(time.Hour - time.Second)
		if got, err := verify(s, key); err != nil || !got.ExpiresAt.Equal(until) {
			t.Errorf("a second before: %+v, %v", got, err)
		}
		s.Pass(time.Second)
		if got, err := verify(s, key); !errs.Is(err, errs.NotFound) {
			t.Errorf("when it is time: %+v, %v", got, err)
		}
	})
	t.Run("an API key loses what its owner loses, and gains nothing", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		ann := createAs(t, s, "ann@example.com", "Ann", "merchant")
		_, key := s.MakeKey(t, ann.ID, []string{"orders:read_all", "stock:write"}, time.Time{})
		for _, step := range []struct {
			role string
			want []string
		}{{"support", []string{"orders:read_all"}}, {"customer", nil}, {"admin", []string{"orders:read_all", "stock:write"}}} {
			createAs(t, s, "ann@example.com", "Ann", step.role)
			if got, err := verify(s, key); err != nil || !slices.Equal(got.Scopes, step.want) {
				t.Errorf("of a %s: %+v, %v, want %v", step.role, got, err, step.want)
			}
		}
	})
}
