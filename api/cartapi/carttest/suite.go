package carttest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Subject is a cart under test, and what the shop around it would do. Carts are in EUR and go to DE with the option
// "standard" for 4.90.
type Subject struct {
	Cart     cartapi.Cart
	Fill     func(t *testing.T, lines ...cartapi.Line) (cartapi.ID, cartapi.Owner)      // a guest's cart
	SetPrice func(t *testing.T, sku string, price money.Amount)                         // as the catalog would
	SetPromo func(t *testing.T, cart cartapi.ID, o cartapi.Owner, code string, n int64) // a tenth off, n uses in all
}

// Suite is what every Cart does.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	eur := func(minor int64) money.Amount { return money.Of(minor, "EUR") }
	a, b := cartapi.Line{SKU: "A", Quantity: 3, UnitPrice: eur(333)}, cartapi.Line{SKU: "B", Quantity: 1, UnitPrice: eur(1001)} // 20.00
	freeze := func(cart cartapi.ID, o cartapi.Owner, expected int64) cartapi.FreezeRequest {
		checkout := ids.New[ids.ID]("chk")
		return cartapi.FreezeRequest{
			Key: string(checkout), Checkout: checkout, Cart: cart, Owner: o, Address: cartapi.Address{Country: "DE", Postcode: "10115"},
			ShippingOption: "standard", Expected: eur(expected),
		}
	}
	state := func(t *testing.T, s Subject, cart cartapi.ID, o cartapi.Owner) cartapi.View {
		t.Helper()
		v, err := s.Cart.Cart(t.Context(), cartapi.CartRequest{ID: cart, Owner: o})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	wantCode := func(t *testing.T, err error, kind errs.Kind, code string) {
		t.Helper()
		if !errs.Is(err, kind) || !errs.Has(err, code) {
			t.Errorf("want %s %s, got %v", kind, code, err)
		}
	}

	t.Run("a cart is seen by its owner alone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a, b)
		v := state(t, s, cart, owner)
		if v.State != "active" || len(v.Lines) != 2 || v.Subtotal != eur(2000) || v.Total != eur(2000) || v.Lines[0].Total != eur(999) {
			t.Errorf("got %+v", v)
		}
		for _, o := range []cartapi.Owner{{}, {User: "usr_1"}, {Token: "guess"}} {
			_, err := s.Cart.Cart(t.Context(), cartapi.CartRequest{ID: cart, Owner: o})
			wantCode(t, err, errs.NotFound, "not_found")
			_, err = s.Cart.Freeze(t.Context(), freeze(cart, o, 2490))
			wantCode(t, err, errs.NotFound, "not_found")
		}
	})

	t.Run("freezing locks and prices", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a, b)
		r := freeze(cart, owner, 2490)
		f, err := s.Cart.Freeze(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if f.Cart != cart || f.Total != eur(2490) || f.Shipping != eur(490) || f.Subtotal != eur(2000) || !f.Discount.IsZero() || len(f.Lines) != 2 {
			t.Errorf("got %+v", f)
		}
		v := state(t, s, cart, owner)
		if v.State != "locked" || v.Version != f.Version {
			t.Errorf("got %+v, frozen at %d", v, f.Version)
		}
		again, err := s.Cart.Freeze(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, again); d != "" {
			t.Errorf("the key again: %s", d)
		}
		_, err = s.Cart.Freeze(t.Context(), freeze(cart, owner, 2490))
		wantCode(t, err, errs.Conflict, "cart_locked")
		r.Key += "x"
		if again, err = s.Cart.Freeze(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, again); d != "" {
			t.Errorf("the same checkout again: %s", d)
		}
	})

	t.Run("the first answer stays, whatever became of the cart", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		r := freeze(cart, owner, 999+490)
		f, err := s.Cart.Freeze(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Cart.Complete(t.Context(), cartapi.CompleteRequest{Checkout: r.Checkout, Cart: cart, Order: "ord_1"}); err != nil {
			t.Fatal(err)
		}
		again, err := s.Cart.Freeze(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, again); d != "" {
			t.Error(d)
		}
		r.Expected = eur(1)
		_, err = s.Cart.Freeze(t.Context(), r)
		wantCode(t, err, errs.Conflict, "key_reused")
	})

	t.Run("another total than expected is refused with the cart", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a, b)
		s.SetPrice(t, "B", eur(1101))
		r := freeze(cart, owner, 2490)
		_, err := s.Cart.Freeze(t.Context(), r)
		wantCode(t, err, errs.Conflict, "cart_changed")
		var v cartapi.View
		if !errs.DetailsInto(err, &v) || v.ID != cart || v.Total != eur(2100) || v.State != "active" {
			t.Errorf("details: %+v", v)
		}
		r.Expected = eur(2590) // an error is not the key's answer
		if f, err := s.Cart.Freeze(t.Context(), r); err != nil || f.Total != eur(2590) {
			t.Errorf("with the new total: %+v %v", f, err)
		}
	})

	t.Run("what can't be frozen", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		r := freeze(cart, owner, 999+490)
		r.ShippingOption = "balloon"
		_, err := s.Cart.Freeze(t.Context(), r)
		wantCode(t, err, errs.Invalid, "unknown_shipping_option")
		r = freeze(cart, owner, 999+490)
		r.Address.Country = "AQ"
		_, err = s.Cart.Freeze(t.Context(), r)
		wantCode(t, err, errs.Invalid, "no_shipping_zone")
		empty, owner := s.Fill(t)
		_, err = s.Cart.Freeze(t.Context(), freeze(empty, owner, 490))
		wantCode(t, err, errs.Invalid, "cart_empty")
	})

	t.Run("unlocking gives the cart back once", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		r := freeze(cart, owner, 999+490)
		if _, err := s.Cart.Freeze(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			checkout ids.ID
			want     bool
		}{{"chk_other", false}, {r.Checkout, true}, {r.Checkout, false}} {
			u, err := s.Cart.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: c.checkout, Cart: cart})
			if err != nil || u.Unlocked != c.want {
				t.Errorf("%s: %v %v", c.checkout, u, err)
			}
		}
		if v := state(t, s, cart, owner); v.State != "active" {
			t.Errorf("got %+v", v)
		}
		if _, err := s.Cart.Freeze(t.Context(), freeze(cart, owner, 999+490)); err != nil {
			t.Errorf("another checkout: %v", err)
		}
	})

	t.Run("completing ends the cart", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		r := freeze(cart, owner, 999+490)
		if _, err := s.Cart.Freeze(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		done := cartapi.CompleteRequest{Checkout: r.Checkout, Cart: cart, Order: "ord_1"}
		for range 2 {
			if c, err := s.Cart.Complete(t.Context(), done); err != nil || c.Cart != cart {
				t.Errorf("got %v %v", c, err)
			}
		}
		if v := state(t, s, cart, owner); v.State != "completed" {
			t.Errorf("got %+v", v)
		}
		if u, err := s.Cart.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: r.Checkout, Cart: cart}); err != nil || u.Unlocked {
			t.Errorf("unlocked what was bought: %v %v", u, err)
		}
		_, err := s.Cart.Freeze(t.Context(), freeze(cart, owner, 999+490))
		wantCode(t, err, errs.Conflict, "cart_completed")
		done.Order = "ord_2"
		_, err = s.Cart.Complete(t.Context(), done)
		wantCode(t, err, errs.Conflict, "cart_completed")
		done.Cart = "crt_none"
		_, err = s.Cart.Complete(t.Context(), done)
		wantCode(t, err, errs.NotFound, "not_found")
	})

	t.Run("a promo code is counted with its checkout", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		first, owner := s.Fill(t, a, b)
		s.SetPromo(t, first, owner, "ONCE", 1)
		second, other := s.Fill(t, a, b)
		s.SetPromo(t, second, other, "ONCE", 1)
		r1, r2 := freeze(first, owner, 1800+490), freeze(second, other, 1800+490)
		f, err := s.Cart.Freeze(t.Context(), r1)
		if err != nil {
			t.Fatal(err)
		}
		if f.Promo != "ONCE" || f.Discount != eur(200) || f.Lines[0].Discount.Minor+f.Lines[1].Discount.Minor != 200 {
			t.Errorf("got %+v", f)
		}
		if _, err := s.Cart.Freeze(t.Context(), r2); err != nil {
			t.Fatal(err)
		}
		redeem := func(r cartapi.FreezeRequest, key string) error {
			got, err := s.Cart.Redeem(t.Context(), cartapi.RedeemRequest{Key: key, Checkout: r.Checkout, Cart: r.Cart})
			if err == nil && got.Code != "ONCE" {
				t.Errorf("redeemed %q", got.Code)
			}
			return err
		}
		for _, key := range []string{"r1", "r1", "r1 again"} {
			if err := redeem(r1, key); err != nil {
				t.Fatal(err)
			}
		}
		r1.Key += "x"
		if f, err = s.Cart.Freeze(t.Context(), r1); err != nil || f.Promo != "ONCE" {
			t.Errorf("frozen again after the last use was ours: %+v %v", f, err)
		}
		wantCode(t, redeem(r2, "r2"), errs.Conflict, "promo_exhausted")
		wantCode(t, redeem(freeze(first, owner, 1), "r3"), errs.Conflict, "cart_not_held")
		if _, err := s.Cart.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: r1.Checkout, Cart: first}); err != nil {
			t.Fatal(err)
		}
		if err := redeem(r2, "r2"); err != nil {
			t.Errorf("after the use was given back: %v", err)
		}
	})

	t.Run("a cart without a code has nothing to redeem", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		r := freeze(cart, owner, 999+490)
		if _, err := s.Cart.Freeze(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Cart.Redeem(t.Context(), cartapi.RedeemRequest{Key: "k", Checkout: r.Checkout, Cart: cart}); err != nil || got.Code != "" {
			t.Errorf("got %v %v", got, err)
		}
	})

	t.Run("of many checkouts one gets the cart", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		cart, owner := s.Fill(t, a)
		var won atomic.Int64
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				switch _, err := s.Cart.Freeze(t.Context(), freeze(cart, owner, 999+490)); {
				case err == nil:
					won.Add(1)
				case !errs.Has(err, "cart_locked"):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("%d checkouts hold the cart", won.Load())
		}
	})

	t.Run("redemptions never pass the limit", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		const buyers, uses = 12, 5
		requests := make([]cartapi.FreezeRequest, buyers)
		for i := range requests {
			cart, owner := s.Fill(t, a, b)
			s.SetPromo(t, cart, owner, "FEW", uses)
			requests[i] = freeze(cart, owner, 1800+490)
			if _, err := s.Cart.Freeze(t.Context(), requests[i]); err != nil {
				t.Fatal(err)
			}
		}
		var won atomic.Int64
		var all sync.WaitGroup
		for i, r := range requests {
			all.Go(func() {
				switch _, err := s.Cart.Redeem(t.Context(), cartapi.RedeemRequest{Key: fmt.Sprint(i), Checkout: r.Checkout, Cart: r.Cart}); {
				case err == nil:
					won.Add(1)
				case !errs.Has(err, "promo_exhausted"):
					t.Error(err)
				}
			})
		}
		all.Wait()
		if won.Load() != uses {
			t.Errorf("%d of %d uses", won.Load(), uses)
		}
	})
}
