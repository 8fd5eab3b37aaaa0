package rpc_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// card is what a shelf says of a SKU.
type card struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

// The owner tolerates old cards, and no old prices.
var (
	cardOf  = rpc.NewMethod[levelRequest, card]("stock.Card", rpc.Idempotent, rpc.StaleFor(10*time.Minute))
	priceOf = rpc.NewMethod[levelRequest, card]("stock.Price", rpc.Idempotent)
)

// shelf answers both with the SKU's name and the user's, or with what fails.
type shelf struct{ fails atomic.Pointer[errs.Error] }

func (s *shelf) card(ctx context.Context, r levelRequest) (card, error) {
	if e := s.fails.Load(); e != nil {
		return card{}, e
	}
	return card{Name: r.SKU + " for " + string(auth.From(ctx).User), Tags: []string{"new"}}, nil
}

func (s *shelf) mount(server *rpc.Server) {
	cardOf.Handle(server, s.card)
	priceOf.Handle(server, s.card)
}

// shelved is a shelf in each placement, and a connection of orders to it.
func shelved(t *testing.T, check func(t *testing.T, s *shelf, w *rpc.Wiring, c *rpc.Conn)) {
	t.Helper()
	for _, placement := range []string{"one", "wire", "remote"} {
		t.Run(placement, func(t *testing.T) {
			t.Parallel()
			o := rpc.Options{Log: quiet, Tokens: tokens(t)}
			s := &shelf{}
			switch placement {
			case "wire":
				o.Placement = rpc.Wire
			case "remote":
				callee := rpc.NewWiring(o)
				s.mount(callee.Server("stock"))
				server := httptest.NewServer(callee.Handler())
				t.Cleanup(server.Close)
				o.Remotes = map[string]rpc.Remote{"stock": {Base: server.URL}}
			}
			w := rpc.NewWiring(o)
			if placement != "remote" {
				s.mount(w.Server("stock"))
			}
			if err := w.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = w.Stop(context.Background()) })
			check(t, s, w, w.Dialer("orders").Conn("stock"))
		})
	}
}

func TestAnOldAnswerInPlaceOfNone(t *testing.T) {
	t.Parallel()
	shelved(t, func(t *testing.T, s *shelf, w *rpc.Wiring, c *rpc.Conn) {
		ann := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_ann"), Roles: []string{"customer"}})
		before := time.Now()
		ctx, old := rpc.AllowStale(ann)
		fresh, err := cardOf.Call(ctx, c, levelRequest{SKU: "mug"})
		if err != nil || fresh.Name != "mug for usr_ann" || !old.Since().IsZero() {
			t.Fatalf("fresh: %+v, %v, old since %v", fresh, err, old.Since())
		}
		fresh.Tags[0] = "scribbled on by its reader"
		if _, err := priceOf.Call(ctx, c, levelRequest{SKU: "mug"}); err != nil {
			t.Fatal(err)
		}

		for _, e := range []*errs.Error{errs.NotFoundf("gone"), errs.New(errs.Forbidden, "", "no"), errs.New(errs.Internal, "", "oh")} {
			s.fails.Store(e)
			if got, _, err := stale(ann, cardOf, c, "mug"); !errs.Is(err, e.Kind) {
				t.Errorf("a callee that says %s: %+v, %v", e.Kind, got, err)
			}
		}
		for _, kind := range []errs.Kind{errs.Unavailable, errs.NoAnswer} {
			s.fails.Store(errs.New(kind, "", "away"))
			ctx, old := rpc.AllowStale(ann)
			if got, err := cardOf.Call(ctx, c, levelRequest{SKU: "mug"}); err != nil || got.Name != "mug for usr_ann" || got.Tags[0] != "new" {
				t.Errorf("%s: %+v, %v", kind, got, err)
			}
			if at := old.Since(); at.Before(before) || at.After(time.Now()) {
				t.Errorf("%s: old since %v", kind, at)
			}
		}
		if text := gathered(t, w); !strings.Contains(text, `banyan_rpc_stale_total{caller="orders",method="stock.Card"} 2`) {
			t.Errorf("two old answers are not counted in\n%s", text)
		}

		s.fails.Store(errs.Unavailablef("away"))
		bob := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_bob"), Roles: []string{"customer"}})
		admin := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_ann"), Roles: []string{"admin"}})
		scoped := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_ann"), Roles: []string{"customer"}, Scopes: []string{"customer"}})
		swapped := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_ann"), Scopes: []string{"customer"}})
		for name, call := range map[string]func() (card, *rpc.Stale, error){
			"a scope of the role's name": func() (card, *rpc.Stale, error) { return stale(swapped, cardOf, c, "mug") },
			"who did not allow it": func() (card, *rpc.Stale, error) {
				got, err := cardOf.Call(ann, c, levelRequest{SKU: "mug"})
				return got, nil, err
			},
			"a method that does not tolerate it": func() (card, *rpc.Stale, error) { return stale(ann, priceOf, c, "mug") },
			"another request":                    func() (card, *rpc.Stale, error) { return stale(ann, cardOf, c, "cup") },
			"another user":                       func() (card, *rpc.Stale, error) { return stale(bob, cardOf, c, "mug") },
			"nobody signed in":                   func() (card, *rpc.Stale, error) { return stale(t.Context(), cardOf, c, "mug") },
			"another role":                       func() (card, *rpc.Stale, error) { return stale(admin, cardOf, c, "mug") },
			"another scope":                      func() (card, *rpc.Stale, error) { return stale(scoped, cardOf, c, "mug") },
			"another caller": func() (card, *rpc.Stale, error) {
				return stale(ann, cardOf, w.Dialer("cart").Conn("stock"), "mug")
			},
			"a caller that has gone": func() (card, *rpc.Stale, error) {
				gone, cancel := context.WithCancel(ann)
				cancel()
				return stale(gone, cardOf, c, "mug")
			},
		} {
			if got, old, err := call(); !errs.Is(err, errs.Unavailable) || got.Name != "" || old != nil && !old.Since().IsZero() {
				t.Errorf("%s got %+v, %v", name, got, err)
			}
		}
	})
}

func stale(ctx context.Context, m *rpc.Method[levelRequest, card], c *rpc.Conn, sku string) (card, *rpc.Stale, error) {
	ctx, old := rpc.AllowStale(ctx)
	got, err := m.Call(ctx, c, levelRequest{SKU: sku})
	return got, old, err
}

func TestAnAnswerCanBeTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{}
		w := rpc.NewWiring(rpc.Options{Log: quiet})
		s.mount(w.Server("stock"))
		c := w.Dialer("orders").Conn("stock")
		if _, _, err := stale(t.Context(), cardOf, c, "mug"); err != nil {
			t.Fatal(err)
		}
		s.fails.Store(errs.Unavailablef("away"))
		time.Sleep(10 * time.Minute) // of this bubble's clock
		if _, old, err := stale(t.Context(), cardOf, c, "mug"); err != nil || time.Since(old.Since()) != 10*time.Minute {
			t.Errorf("after ten minutes: %v, since %v", err, old.Since())
		}
		time.Sleep(time.Nanosecond)
		if _, _, err := stale(t.Context(), cardOf, c, "mug"); !errs.Is(err, errs.Unavailable) {
			t.Errorf("after more: %v", err)
		}
	})
}

// TestThePermissionEndsAtTheCallee has orders allow an old answer to itself while it asks the cart, which prices with the stock.
func TestThePermissionEndsAtTheCallee(t *testing.T) {
	t.Parallel()
	s := &shelf{}
	w := rpc.NewWiring(rpc.Options{Log: quiet})
	s.mount(w.Server("stock"))
	toStock := w.Dialer("cart").Conn("stock")
	priced := rpc.NewMethod[levelRequest, card]("cart.Priced", rpc.Idempotent)
	priced.Handle(w.Server("cart"), func(ctx context.Context, r levelRequest) (card, error) { return cardOf.Call(ctx, toStock, r) })
	toCart := w.Dialer("orders").Conn("cart")

	if _, _, err := stale(t.Context(), cardOf, toStock, "mug"); err != nil { // the cart has an old answer it might be given
		t.Fatal(err)
	}
	if _, _, err := stale(auth.WithCaller(t.Context(), "orders"), cardOf, toStock, "mug"); err != nil { // for orders as well
		t.Fatal(err)
	}
	s.fails.Store(errs.Unavailablef("away"))
	if _, _, err := stale(t.Context(), cardOf, toStock, "mug"); err != nil {
		t.Fatalf("the old answer is not there: %v", err)
	}
	if got, old, err := stale(t.Context(), priced, toCart, "mug"); !errs.Is(err, errs.Unavailable) || !old.Since().IsZero() {
		t.Errorf("the cart priced with an old answer that only its caller allowed: %+v, %v", got, err)
	}
}

func TestOnlyReadsGiveOldAnswers(t *testing.T) {
	t.Parallel()
	s := rpc.NewServer("stock")
	rpc.NewMethod[reserveRequest, reservation]("stock.Reserve", rpc.IdempotentByKey, rpc.StaleFor(time.Minute)).Handle(s, nil)
	cardOf.Handle(s, nil)
	if err := s.Check(); err == nil || !strings.Contains(err.Error(), "stock.Reserve gives old answers, so it must be a read") || strings.Contains(err.Error(), "stock.Card") {
		t.Errorf("got %v", err)
	}
	if got := s.Methods()[1].StaleFor; got != 10*time.Minute {
		t.Errorf("the method's info says %v", got)
	}
}
