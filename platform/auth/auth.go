// Package auth knows who is calling: it makes and checks access tokens for people, internal tokens for modules, the keys
// both are signed with, and carries the resulting Identity in ctx. It stores nothing and knows no password, no role's
// meaning and no route: users keeps accounts and keys, platform/web guards routes, each module guards its contract.
package auth

import (
	"context"
	"slices"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Identity is who a request is made for. The zero Identity is an anonymous shopper.
type Identity struct {
	User    ids.ID   // "" when not signed in
	Session ids.ID   // the login it came by
	Roles   []string // customer, support, merchant, admin
	Scopes  []string // permissions such as catalog:write
	Module  string   // the calling module: "" for a request from outside, else the caller of a contract
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

// SignedIn says whether a user is behind the request.
func (i Identity) SignedIn() bool { return i.User != "" }

// Has says whether the identity holds the permission.
func (i Identity) Has(scope string) bool { return slices.Contains(i.Scopes, scope) }

// HasRole says whether the identity has the role.
func (i Identity) HasRole(role string) bool { return slices.Contains(i.Roles, role) }

// RequireModule is nil when one of the modules is calling, else errs.Forbidden. Contract methods that act on money, stock or
// other people's data begin with it.
func RequireModule(ctx context.Context, modules ...string) error {
	if m := From(ctx).Module; m != "" && slices.Contains(modules, m) {
		return nil
	}
	return errs.New(errs.Forbidden, "", "this caller may not do that")
}
