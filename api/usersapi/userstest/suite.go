package userstest

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/banyan-shop/banyan/api/usersapi"
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
}

// Suite is what all users do.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	create := func(t *testing.T, s Subject, email, name string) usersapi.User {
		t.Helper()
		u, err := s.Users.Create(s.As("shop"), usersapi.CreateRequest{
			Key: ids.New[string]("key"), Email: email, Password: "a fine long password", Name: name, Role: "customer",
		})
		if err != nil {
			t.Fatal(err)
		}
		return u
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
}
