// Package userstest has a Fake of users in memory, and the Suite that both the Fake and the module pass. Only tests import it.
package userstest

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Fake is users in memory. Its zero value is empty and works. It does not look at who calls.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Contact"; what it returns is the method's error.
	Fail func(method string) error

	mu    sync.Mutex
	users []usersapi.User
	book  map[usersapi.AddressRequest]usersapi.Address
	links map[ids.ID]usersapi.MailLink
}

var _ usersapi.Users = (*Fake)(nil)

// PutUser adds a user, or replaces the one with that id.
func (f *Fake) PutUser(u usersapi.User) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.users = slices.DeleteFunc(f.users, func(old usersapi.User) bool { return old.ID == u.ID })
	f.users = append(f.users, u)
}

// PutAddress adds an entry to a user's address book and returns its id.
func (f *Fake) PutAddress(user ids.ID, a usersapi.Address) ids.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.book == nil {
		f.book = map[usersapi.AddressRequest]usersapi.Address{}
	}
	a.ID = ids.New[ids.ID]("adr")
	f.book[usersapi.AddressRequest{User: user, ID: a.ID}] = a
	return a.ID
}

// PutMail adds a mail that users want sent and returns its id.
func (f *Fake) PutMail(l usersapi.MailLink) ids.ID {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.links == nil {
		f.links = map[ids.ID]usersapi.MailLink{}
	}
	id := ids.New[ids.ID]("mal")
	f.links[id] = l
	return id
}

// UseToken uses a mail's link up.
func (f *Fake) UseToken(token string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, l := range f.links {
		if l.Token == token {
			delete(f.links, id)
		}
	}
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.Fail != nil {
		return f.Fail(method)
	}
	return nil
}

// Keys: see usersapi. The fake signs nothing.
func (f *Fake) Keys(context.Context, usersapi.KeysRequest) (usersapi.Keys, error) {
	defer f.mu.Unlock()
	return usersapi.Keys{JWKS: `{"keys":[]}`}, f.enter("Keys")
}

// Address: see usersapi.
func (f *Fake) Address(_ context.Context, r usersapi.AddressRequest) (usersapi.Address, error) {
	defer f.mu.Unlock()
	if err := f.enter("Address"); err != nil {
		return usersapi.Address{}, err
	}
	a, ok := f.book[r]
	if !ok {
		return usersapi.Address{}, errs.NotFoundf("no such address")
	}
	return a, nil
}

// Contact: see usersapi.
func (f *Fake) Contact(_ context.Context, r usersapi.ContactRequest) (usersapi.Contact, error) {
	defer f.mu.Unlock()
	if err := f.enter("Contact"); err != nil {
		return usersapi.Contact{}, err
	}
	for _, u := range f.users {
		if ids.ID(u.ID) == r.User {
			return usersapi.Contact{Email: u.Email, Name: u.Name, Locale: "en"}, nil
		}
	}
	return usersapi.Contact{}, errs.NotFoundf("no such user")
}

// MailLink: see usersapi.
func (f *Fake) MailLink(_ context.Context, r usersapi.MailLinkRequest) (usersapi.MailLink, error) {
	defer f.mu.Unlock()
	if err := f.enter("MailLink"); err != nil {
		return usersapi.MailLink{}, err
	}
	l, ok := f.links[r.Mail]
	if !ok {
		return usersapi.MailLink{}, errs.NotFoundf("no such mail")
	}
	return l, nil
}

// Create: see usersapi. The fake knows no passwords but short ones.
func (f *Fake) Create(_ context.Context, r usersapi.CreateRequest) (usersapi.User, error) {
	defer f.mu.Unlock()
	if err := f.enter("Create"); err != nil {
		return usersapi.User{}, err
	}
	name, domain, ok := strings.Cut(r.Email, "@")
	if !slices.Contains([]string{"customer", "support", "merchant", "admin"}, r.Role) {
		return usersapi.User{}, errs.Invalidf("unknown_role", "the role is customer, support, merchant or admin")
	}
	if !ok || name == "" || domain == "" || len(r.Password) < 8 {
		return usersapi.User{}, errs.Invalidf("validation_failed", "the account's details are not valid")
	}
	u := usersapi.User{ID: ids.New[usersapi.ID]("usr"), Email: r.Email, Name: r.Name}
	if u.Name == "" {
		u.Name = name
	}
	for i, old := range f.users {
		if strings.EqualFold(old.Email, r.Email) {
			u.ID, u.Email = old.ID, old.Email
			f.users[i] = u
			return u, nil
		}
	}
	f.users = append(f.users, u)
	return u, nil
}
