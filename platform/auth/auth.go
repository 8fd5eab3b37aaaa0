// Package auth knows who is calling: it makes and checks access tokens for people, API keys for programs, internal tokens for
// modules, the keys both tokens are signed with, and carries the resulting Identity in ctx. It stores nothing but a copy of
// public keys and knows no password, no role's meaning and no route: users keeps accounts and keys, platform/web guards
// routes, each module guards its contract.
package auth

import (
	"context"
	"slices"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Identity is who a request is made for. The zero Identity is an anonymous shopper. An API key is nobody: it has scopes and no
// User, so that it never acts on what belongs to the person who made it, such as a cart.
type Identity struct {
	User    ids.ID   // "" when not signed in
	Key     ids.ID   // the API key it came by, "" for none; then User, Session and Roles are empty
	Session ids.ID   // the login it came by
	Roles   []string // customer, support, merchant, admin
	Scopes  []string // permissions such as catalog:write
	Module  string   // the calling module: "" for a request from outside, else the caller of a contract, or Gateway
}

type identityKey struct{}

// From is the identity in ctx. Only this package can put one there.
func From(ctx context.Context) Identity {
	if id, ok := ctx.Value(identityKey{}).(*Identity); ok {
		return *id
	}
	return Identity{}
}

// WithIdentity puts an identity that has been verified into ctx. Only platform/web, after checking a token, and
// platform/rpc, between caller and callee, may call it: whoever can call it can be anybody. Modules are refused by the
// linter.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, &id)
}

// SignedIn says whether a user is behind the request. An API key is not signed in.
func (i Identity) SignedIn() bool { return i.User != "" }

// Anonymous says whether neither a user nor an API key is behind the request.
func (i Identity) Anonymous() bool { return i.User == "" && i.Key == "" }

// Has says whether the identity holds the permission.
func (i Identity) Has(scope string) bool { return slices.Contains(i.Scopes, scope) }

// HasRole says whether the identity has the role.
func (i Identity) HasRole(role string) bool { return slices.Contains(i.Roles, role) }

// RequireModule is nil when one of the modules is calling, else errs.Forbidden. Contract methods that act on money, stock or
// other people's data begin with it. The gateway is no module, whatever modules says: it speaks for strangers.
func RequireModule(ctx context.Context, modules ...string) error {
	if m := From(ctx).Module; m != "" && m != Gateway && slices.Contains(modules, m) {
		return nil
	}
	return errs.New(errs.Forbidden, "", "this caller may not do that")
}
