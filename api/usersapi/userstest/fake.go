// Package userstest has a Fake of users in memory, and the Suite that both the Fake and the module pass. Only tests import it.
package userstest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Fake is users in memory. Its zero value is empty and works. It does not look at who calls.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Contact"; what it returns is the method's error.
	Fail func(method string) error
	Now  func() time.Time // nil: time.Now

	mu    sync.Mutex
	users []usersapi.User
	roles map[usersapi.ID]string
	ended []usersapi.Ended
	keys  map[string]usersapi.APIKey // by hash
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

// MakeKey makes an API key for a user and returns its id and the key itself. A zero expires is never.
func (f *Fake) MakeKey(owner usersapi.ID, scopes []string, expires time.Time) (ids.ID, string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.keys == nil {
		f.keys = map[string]usersapi.APIKey{}
	}
	key := auth.NewAPIKey()
	k := usersapi.APIKey{ID: ids.New[ids.ID]("key"), Owner: owner, Scopes: scopes, ExpiresAt: expires}
	f.keys[auth.HashAPIKey(key)] = k
	return k.ID, key
}

// RevokeKey ends an API key.
func (f *Fake) RevokeKey(id ids.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.keys, func(_ string, k usersapi.APIKey) bool { return k.ID == id })
}

// EndSessions logs a user out everywhere.
func (f *Fake) EndSessions(user usersapi.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, usersapi.Ended{User: ids.ID(user), NotBefore: f.now()})
}

func (f *Fake) now() time.Time {
	if f.Now == nil {
		return time.Now().UTC()
	}
	return f.Now().UTC()
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
	if err := f.enter("Keys"); err != nil {
		return usersapi.Keys{}, err
	}
	recent := []usersapi.Ended{}
	for _, e := range f.ended {
		if f.now().Sub(e.NotBefore) < auth.MaxAccessTTL+time.Minute {
			recent = append(recent, e)
		}
	}
	return usersapi.Keys{JWKS: `{"keys":[]}`, Ended: recent}, nil
}

// scopes are some of what each role may do.
var scopes = map[string][]string{
	"support":  {"catalog:read_all", "orders:read_all"},
	"merchant": {"catalog:read_all", "catalog:write", "orders:read_all", "stock:write"},
	"admin":    {"catalog:read_all", "catalog:write", "orders:read_all", "stock:write", "users:write"},
}

// VerifyKey: see usersapi.
func (f *Fake) VerifyKey(_ context.Context, r usersapi.VerifyKeyRequest) (usersapi.APIKey, error) {
	defer f.mu.Unlock()
	if err := f.enter("VerifyKey"); err != nil {
		return usersapi.APIKey{}, err
	}
	k, ok := f.keys[r.Hash]
	if !ok || !k.ExpiresAt.IsZero() && !f.now().Before(k.ExpiresAt) {
		return usersapi.APIKey{}, errs.NotFoundf("no such API key")
	}
	k.Scopes = slices.DeleteFunc(slices.Clone(k.Scopes), func(s string) bool { return !slices.Contains(scopes[f.roles[k.Owner]], s) })
	return k, nil
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
	if f.roles == nil {
		f.roles = map[usersapi.ID]string{}
	}
	for i, old := range f.users {
		if strings.EqualFold(old.Email, r.Email) {
			u.ID, u.Email = old.ID, old.Email
			f.users[i], f.roles[u.ID] = u, r.Role
			f.ended = append(f.ended, usersapi.Ended{User: ids.ID(u.ID), NotBefore: f.now()})
			return u, nil
		}
	}
	f.users, f.roles[u.ID] = append(f.users, u), r.Role
	return u, nil
}
