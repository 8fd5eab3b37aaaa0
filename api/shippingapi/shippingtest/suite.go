package shippingtest

import (
	"context"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Subject is a shipping under test, and what the shop around it would do.
type Subject struct {
	Shipping shippingapi.Shipping
	Place    func(t *testing.T, order, customer ids.ID, lines []shippingapi.Line) // it hears of a placed order
	Ship     func(t *testing.T, order ids.ID)                                     // its pending parcels leave
}

// Suite is what every Shipping does. It must deliver to DE in EUR, and not to AQ.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	one := func(sku string, n int64) []shippingapi.Line { return []shippingapi.Line{{SKU: sku, Quantity: n}} }
	two := []shippingapi.Line{{SKU: "A", Quantity: 2}, {SKU: "B", Quantity: 1}}
	newOrder := func() ids.ID { return ids.New[ids.ID]("ord") }
	shipments := func(t *testing.T, ctx context.Context, s Subject, orders ...ids.ID) []shippingapi.Shipment {
		t.Helper()
		got, err := s.Shipping.Shipments(ctx, shippingapi.ShipmentsRequest{Orders: orders})
		if err != nil {
			t.Fatal(err)
		}
		return got.Shipments
	}
	quote := shippingapi.QuoteRequest{Country: "DE", Postcode: "10115", Subtotal: money.Of(1000, "EUR"), WeightGrams: 500, Items: 1}

	t.Run("quotes come cheapest first and have stable ids", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		first, err := s.Shipping.Quote(t.Context(), quote)
		if err != nil {
			t.Fatal(err)
		}
		if len(first.Options) == 0 {
			t.Fatal("nobody delivers")
		}
		if !slices.IsSortedFunc(first.Options, func(a, b shippingapi.Option) int { return int(a.Price.Minor - b.Price.Minor) }) {
			t.Errorf("not cheapest first: %v", first.Options)
		}
		for _, o := range first.Options {
			if o.ID == "" || o.Carrier == "" || o.Service == "" || o.Price.Currency != "EUR" || o.Price.Minor < 0 {
				t.Errorf("an option is incomplete: %+v", o)
			}
		}
		again, err := s.Shipping.Quote(t.Context(), quote)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(first, again); d != "" {
			t.Error(d)
		}
	})

	t.Run("where nobody delivers there is no zone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		r := quote
		r.Country = "AQ"
		if _, err := s.Shipping.Quote(t.Context(), r); !errs.Has(err, "no_shipping_zone") || !errs.Is(err, errs.Invalid) {
			t.Errorf("got %v", err)
		}
	})

	t.Run("a placed order waits in one pending shipment", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		all := shipments(t, t.Context(), s, order, newOrder())
		if len(all) != 1 || all[0].Status != "pending" || all[0].Order != order || all[0].CreatedAt.IsZero() {
			t.Fatalf("got %+v", all)
		}
		if d := cmp.Diff(two, all[0].Lines); d != "" {
			t.Error(d)
		}
	})

	t.Run("cancelling takes lines out, once a key", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		r := shippingapi.CancelLinesRequest{Key: "k1", Order: order, Ordered: two, Lines: one("A", 1)}
		want := shippingapi.CancelledLines{Left: []shippingapi.Line{{SKU: "A", Quantity: 1}, {SKU: "B", Quantity: 1}}}
		for range 2 {
			got, err := s.Shipping.CancelLines(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		}
		if d := cmp.Diff(want.Left, shipments(t, t.Context(), s, order)[0].Lines); d != "" {
			t.Error(d)
		}
		r.Lines = one("B", 1)
		if _, err := s.Shipping.CancelLines(t.Context(), r); !errs.Has(err, "key_reused") {
			t.Errorf("another request under the same key: %v", err)
		}
	})

	t.Run("a wholly cancelled order has a cancelled shipment", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		got, err := s.Shipping.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: order, Ordered: two, Lines: two})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Left) != 0 {
			t.Errorf("left: %v", got.Left)
		}
		if all := shipments(t, t.Context(), s, order); len(all) != 1 || all[0].Status != "cancelled" || len(all[0].Lines) != 0 {
			t.Errorf("got %+v", all)
		}
	})

	t.Run("a cancellation may come before the order's own event", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		_, err := s.Shipping.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: order, Ordered: two, Lines: one("A", 2)})
		if err != nil {
			t.Fatal(err)
		}
		s.Place(t, order, "", two)
		all := shipments(t, t.Context(), s, order)
		if len(all) != 1 {
			t.Fatalf("got %+v", all)
		}
		if d := cmp.Diff(one("B", 1), all[0].Lines); d != "" {
			t.Error(d)
		}
	})

	t.Run("all lines are cancelled or none", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		for i, lines := range [][]shippingapi.Line{
			{{SKU: "A", Quantity: 1}, {SKU: "B", Quantity: 2}},
			{{SKU: "A", Quantity: 1}, {SKU: "A", Quantity: 1}, {SKU: "A", Quantity: 1}},
			{{SKU: "B", Quantity: 1}, {SKU: "C", Quantity: 1}},
		} {
			_, err := s.Shipping.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: string(rune('a' + i)), Order: order, Ordered: two, Lines: lines})
			if !errs.Has(err, "already_shipped") || !errs.Is(err, errs.Conflict) {
				t.Errorf("%v: got %v", lines, err)
			}
		}
		if d := cmp.Diff(two, shipments(t, t.Context(), s, order)[0].Lines); d != "" {
			t.Error(d)
		}
	})

	t.Run("quantities are positive", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		for _, n := range []int64{0, -1} {
			_, err := s.Shipping.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: order, Ordered: two, Lines: one("A", n)})
			if !errs.Is(err, errs.Invalid) {
				t.Errorf("%d: got %v", n, err)
			}
		}
	})

	t.Run("what has left can't be cancelled", func(t *testing.T) {
		t.Parallel()
		s, order := setup(t), newOrder()
		s.Place(t, order, "", two)
		s.Ship(t, order)
		_, err := s.Shipping.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: order, Ordered: two, Lines: one("A", 1)})
		if !errs.Has(err, "already_shipped") {
			t.Errorf("got %v", err)
		}
		all := shipments(t, t.Context(), s, order)
		if len(all) != 1 || all[0].Status != "shipped" || len(all[0].Events) == 0 {
			t.Errorf("got %+v", all)
		}
	})
}
