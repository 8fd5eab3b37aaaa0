package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// actor is somebody who calls. Who he is comes from his token alone.
type actor struct {
	name   string
	person string   // whose access token he sends; "" for none
	scopes []string // what the role is for, said here again so that a change of it is seen
	stale  bool     // his token is none: whatever it says, he is refused where tokens are read
	guest  bool     // he sends the right token of the guest's cart and order
	wrong  bool     // he sends a guest's tokens that are wrong
	claims bool     // he claims to be the owner and an admin, in every header but the one that counts
}

var actors = []actor{
	{name: "anonymous"},
	{name: "anonymous who claims much", claims: true},
	{name: "the owner", person: "owner"},
	{name: "another customer", person: "other"},
	{name: "another customer who claims much", person: "other", claims: true},
	{name: "another customer with the guest's token", person: "other", guest: true},
	{name: "the guest", guest: true},
	{name: "a guest with wrong tokens", wrong: true},
	{name: "support", person: "support", scopes: []string{"orders:read_all", "catalog:read_all"}},
	{name: "merchant", person: "merchant", scopes: []string{"catalog:read_all", "catalog:write", "stock:write", "orders:read_all", "orders:write", "shipments:write", "reviews:moderate"}},
	{name: "admin", person: "admin", scopes: []string{"catalog:read_all", "catalog:write", "stock:write", "orders:read_all", "orders:write", "shipments:write", "reviews:moderate", "users:write"}},
	{name: "the owner, logged out everywhere", person: "revoked", stale: true},
	{name: "an admin of yesterday", person: "expired", stale: true},
	{name: "an admin unsigned", person: "forged", stale: true},
}

// may is what must come of a call: the row's status, or 401, 403, 404.
func (a actor) may(r row, permission, owner string) int {
	ignores := slices.Contains(ignoresToken, r.id)
	signedIn := a.person != "" && !a.stale
	switch {
	case a.stale && !ignores:
		return 401
	case permission != "public" && !signedIn:
		return 401
	case permission != "public" && permission != "signed_in" && !slices.Contains(a.scopes, permission):
		return 403
	case r.needs != "" && !slices.Contains(a.scopes, r.needs):
		return 403
	}
	owns := signedIn && (a.person == owner) || owner == "guest" && a.guest
	switch r.kind {
	case ofCart, ofOrder, ofCheckout:
		if !owns {
			return 404
		}
	case ofParcels:
		if !owns && (!slices.Contains(a.scopes, "shipments:write") || owner == "nobody") {
			return 404
		}
	case ofEntry:
		if !owns || owner == "guest" {
			return 404
		}
	case ofAll, ofStaff:
		if owner == "nobody" {
			return 404
		}
	}
	return r.status
}

// speaks is the call made by the actor. to is the estate whose things it names.
func (a actor) speaks(w *world, c call, to *estate) call {
	c.token = w.tokens[a.person]
	if a.guest || a.wrong {
		g := to
		if to.owner != "guest" {
			g = w.of("guest") // the guest calls with what he has
			g.cart()
			g.bought()
		}
		cartToken, orderToken := g.cartToken, g.orderToken
		if a.wrong {
			cartToken, orderToken = "AAAAAAAAAAAAAAAAAAAAAA", orderToken[:len(orderToken)-4]+"AAAA"
			if to.order != "" { // a true token, but of another order, or one that is over
				orderToken = w.orderTokenOf(to.order, time.Now().Add(-time.Minute))
			}
		}
		c = c.with("X-Cart-Token", cartToken).with("X-Order-Token", orderToken)
	}
	if a.claims {
		for k, v := range map[string]string{
			"X-User-Id": w.users["owner"], "X-User": w.users["owner"], "X-Roles": "admin", "X-Scopes": "orders:read_all orders:write", "X-Module": "orders",
			"X-Forwarded-User": w.users["admin"], "X-Forwarded-For": "127.0.0.1", "X-Real-Ip": "127.0.0.1", "X-Internal-Token": w.sign(claims{"typ": "mod+jwt"}, nil),
			"Connection": "X-User-Id, X-Roles, Authorization", "X-Original-Url": "/v1/admin/orders", "X-Rewrite-Url": "/healthz", "Cookie": "session=" + w.tokens["admin"],
		} {
			c = c.with(k, v)
		}
	}
	return c
}

// TestAuthorisation is every route × everybody × everybody's things. What is refused changes nothing; what is allowed works.
func TestAuthorisation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"users.login_delays": "false"})
	byID := w.known()
	calls, refusals := 0, 0
	for _, rt := range w.doc.routes {
		r := byID[rt.ID]
		owners := []string{"owner"}
		switch r.kind {
		case ofCart, ofOrder, ofCheckout, ofParcels, ofEntry, ofStaff:
			owners = []string{"owner", "other", "guest", "nobody"}
		case ofAll:
			owners = []string{"owner", "nobody"}
		}
		t.Run(rt.ID, func(t *testing.T) {
			w.t = t
			type attempt struct {
				actor
				owner string
				want  int
				call
			}
			var refused, allowed []attempt
			for _, owner := range owners {
				for _, a := range actors {
					if want := a.may(r, rt.Permission, owner); want == r.status {
						allowed = append(allowed, attempt{a, owner, want, call{}})
					} else {
						to := w.of(owner)
						refused = append(refused, attempt{a, owner, want, a.speaks(w, r.make(w, to), to)})
					}
				}
			}
			w.quiet()
			before := w.sum()
			for _, a := range refused {
				got := w.send(a.call)
				if why := fmt.Sprintf("%s, things of %s", a.name, a.owner); got.status != a.want {
					t.Errorf("%s: want %d: %s", why, a.want, got)
				} else {
					w.tellsNothing(why, got)
				}
			}
			w.unchanged("a refused "+rt.ID, before)
			for _, a := range allowed {
				to := w.of(a.owner)
				if r.spends {
					to = w.fresh(a.owner)
				}
				if got := w.send(a.speaks(w, r.make(w, to), to)); got.status != a.want {
					t.Errorf("%s, things of %s: want %d: %s", a.name, a.owner, a.want, got)
				}
				if r.leaves {
					w.tokens[a.person] = w.login(a.person)
				}
			}
			calls, refusals = calls+len(refused)+len(allowed), refusals+len(refused)
		})
		w.t = t
	}
	if calls < 1000 {
		t.Errorf("only %d calls", calls)
	}
	t.Logf("%d calls of %d routes by %d actors, %d refused", calls, len(rows), len(actors), refusals)
}

// TestDeclaredPermissions lets nobody open a route by the way: what is public, and what staff may do, is told here.
func TestDeclaredPermissions(t *testing.T) {
	t.Parallel()
	settings, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, rt := range host.Routes(shop(settings)).Routes() {
		staff := strings.HasPrefix(rt.Path, "/v1/admin/")
		if open := rt.Permission == "public" || rt.Permission == "signed_in"; staff == open {
			t.Errorf("%s %s is for %s", rt.Method, rt.Path, rt.Permission)
		}
	}
}
