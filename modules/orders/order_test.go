package orders

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func states() []state {
	return []state{pendingPayment, placed, partiallyFulfilled, fulfilled, completed, cancelled, expired}
}

func TestEveryMoveOfAnOrderIsAllowedOrRefused(t *testing.T) {
	t.Parallel()
	legal := map[state][]state{
		pendingPayment:     {placed, cancelled, expired},
		placed:             {partiallyFulfilled, fulfilled, cancelled},
		partiallyFulfilled: {fulfilled},
		fulfilled:          {completed},
	}
	for _, from := range states() {
		for _, to := range states() {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				o := &order{State: from}
				err := o.moveTo(to, "system", "why", noon)
				if slices.Contains(legal[from], to) {
					if err != nil || o.State != to || len(o.History.V) != 1 || o.History.V[0].State != string(to) || o.History.V[0].Actor != "system" {
						t.Errorf("got %v, state %s, history %v", err, o.State, o.History.V)
					}
					return
				}
				var d struct {
					State   state
					Allowed []state
				}
				if !errs.Is(err, errs.Conflict) || !errs.Has(err, "illegal_transition") || !errs.DetailsInto(err, &d) {
					t.Fatalf("got %v", err)
				}
				if d.State != from || !slices.Equal(d.Allowed, legal[from]) {
					t.Errorf("the refusal says %+v", d)
				}
				if o.State != from || len(o.History.V) != 0 {
					t.Error("a refused move left a trace")
				}
			})
		}
	}
}

// example is a placed order of three mugs at 10.00, a line of one tea at 0.99 and 4.90 for delivery, all paid.
func example() *order {
	o := &order{ID: "ord_x", State: placed, Currency: "EUR", PricesIncludeTax: true, Total: 3000 + 99 + 490, Shipping: 490, Captured: 3589, PlacedAt: &noon}
	o.Lines.V = []line{
		{SKU: "mug", Quantity: 3, UnitPrice: 1000, Total: 3000},
		{SKU: "tea", Quantity: 1, UnitPrice: 99, Total: 99},
	}
	return o
}

func of(sku string, n int64) []shippingapi.Line { return []shippingapi.Line{{SKU: sku, Quantity: n}} }

func TestShipmentsMoveAnOrder(t *testing.T) {
	t.Parallel()
	o := example()
	steps := []struct {
		what       string
		do         func() error
		state      state
		fulfilment string
	}{
		{"two mugs leave", func() error { return o.ship(of("mug", 2), "", noon) }, partiallyFulfilled, "partially_fulfilled"},
		{"and arrive", func() error { return o.deliver(of("mug", 2), noon) }, partiallyFulfilled, "partially_fulfilled"},
		{"the third leaves", func() error { return o.ship(of("mug", 1), "", noon) }, partiallyFulfilled, "partially_fulfilled"},
		{"the tea leaves", func() error { return o.ship(of("tea", 1), "", noon) }, fulfilled, "fulfilled"},
		{"the tea arrives", func() error { return o.deliver(of("tea", 1), noon) }, fulfilled, "fulfilled"},
		{"the third arrives", func() error { return o.deliver(of("mug", 1), noon) }, completed, "delivered"},
	}
	for _, s := range steps {
		if err := s.do(); err != nil || o.State != s.state || o.fulfilmentStatus() != s.fulfilment {
			t.Fatalf("%s: %v, %s, %s", s.what, err, o.State, o.fulfilmentStatus())
		}
	}
	if err := o.ship(of("mug", 1), "", noon); !errs.Has(err, "illegal_transition") {
		t.Errorf("one more leaves: %v", err)
	}
	if err := example().ship(of("mug", 4), "", noon); !errs.Has(err, "not_in_order") {
		t.Errorf("too many leave: %v", err)
	}
}

func TestCancellingTheRestOfAShippedOrderFulfilsIt(t *testing.T) {
	t.Parallel()
	o := example()
	if err := o.ship(of("mug", 3), "", noon); err != nil {
		t.Fatal(err)
	}
	if err := o.deliver(of("mug", 3), noon); err != nil {
		t.Fatal(err)
	}
	p, err := o.plan(nil, true, nil)
	if err != nil || p.Whole || p.Refund != 99 {
		t.Fatalf("planned %+v, %v", p, err)
	}
	if err := o.cancel(p, p.Refund, "admin", "no tea", noon); err != nil || o.State != completed {
		t.Errorf("%v, %s", err, o.State)
	}
}

func TestPlanOfACancellation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		what   string
		change func(*order)
		want   []shippingapi.Line
		staff  bool
		others []planned
		refund int64
		whole  bool
		code   string
	}{
		{what: "all", refund: 3589, whole: true},
		{what: "all by name", want: append(of("mug", 3), of("tea", 1)...), refund: 3589, whole: true},
		{what: "a mug", want: of("mug", 1), refund: 1000},
		{what: "the tea, delivery stays paid", want: of("tea", 1), refund: 99},
		{what: "the rest beside a mug under way", others: []planned{{Lines: of("mug", 1), Refund: 1000}}, refund: 2589, whole: true},
		{what: "more than there is", want: of("mug", 4), code: "not_in_order"},
		{what: "more than others left", want: of("mug", 3), others: []planned{{Lines: of("mug", 1)}}, code: "not_in_order"},
		{what: "nothing", want: of("mug", 0), refund: 0},
		{what: "less than nothing", want: of("mug", -1), code: "not_in_order"},
		{what: "a shipped order by its customer", change: func(o *order) { o.State, o.Lines.V[0].Shipped = partiallyFulfilled, 1 }, code: "illegal_transition"},
		{what: "the unshipped rest by staff", change: func(o *order) { o.State, o.Lines.V[0].Shipped = partiallyFulfilled, 1 }, staff: true, refund: 2099},
		{what: "an unpaid order", change: func(o *order) { o.State = pendingPayment }, code: "illegal_transition"},
		{what: "a cancelled order", change: func(o *order) { o.State = cancelled }, staff: true, code: "illegal_transition"},
		{what: "net prices give their tax back too", change: func(o *order) { o.PricesIncludeTax, o.Lines.V[0].Tax = false, 570 }, want: of("mug", 2), refund: 2380},
	} {
		t.Run(c.what, func(t *testing.T) {
			o := example()
			if c.change != nil {
				c.change(o)
			}
			before, _ := json.Marshal(o.Lines.V)
			p, err := o.plan(c.want, c.staff, c.others)
			if c.code != "" {
				if !errs.Has(err, c.code) {
					t.Errorf("got %v, want %s", err, c.code)
				}
				return
			}
			if err != nil || p.Refund != c.refund || p.Whole != c.whole {
				t.Errorf("planned %+v, %v", p, err)
			}
			if after, _ := json.Marshal(o.Lines.V); string(after) != string(before) {
				t.Error("planning changed the order")
			}
		})
	}
}

// Refunds by parts in any order add up to what was paid: T16.
func TestPartsOfAnOrderAddUpToIt(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := &order{ID: "ord_x", State: placed, Currency: "EUR", PricesIncludeTax: rapid.Bool().Draw(t, "gross"), PlacedAt: &noon}
		o.Shipping = rapid.Int64Range(0, 2000).Draw(t, "shipping")
		o.Total = o.Shipping
		var pieces []string
		for i := range rapid.IntRange(1, 5).Draw(t, "lines") {
			l := line{SKU: fmt.Sprint("s", i), Quantity: rapid.Int64Range(1, 9).Draw(t, "quantity"), Total: rapid.Int64Range(0, 100_000).Draw(t, "total"), Tax: rapid.Int64Range(0, 9_000).Draw(t, "tax")}
			o.Lines.V = append(o.Lines.V, l)
			o.Total += l.Total
			if !o.PricesIncludeTax {
				o.Total += l.Tax
			}
			for range l.Quantity {
				pieces = append(pieces, l.SKU)
			}
		}
		o.Captured = o.Total
		for _, sku := range rapid.Permutation(pieces).Draw(t, "order") {
			p, err := o.plan(of(sku, 1), false, nil)
			if err != nil || p.Refund < 0 {
				t.Fatalf("planned %+v, %v", p, err)
			}
			if err := o.cancel(p, p.Refund, "customer", "", noon); err != nil {
				t.Fatal(err)
			}
			if o.Refunded > o.Captured {
				t.Fatalf("refunded %d of %d", o.Refunded, o.Captured)
			}
		}
		if o.State != cancelled || o.Refunded != o.Total || o.Total > 0 && o.paymentStatus() != "refunded" {
			t.Fatalf("%s, %s, refunded %d of %d", o.State, o.paymentStatus(), o.Refunded, o.Total)
		}
	})
}

func TestPaymentStatusFollowsFromTheAmounts(t *testing.T) {
	t.Parallel()
	for want, o := range map[string]order{
		"pending":            {State: pendingPayment, Total: 10},
		"authorised":         {State: placed, Total: 10, PlacedAt: &noon},
		"paid":               {State: placed, Total: 10, Captured: 10, PlacedAt: &noon},
		"partially_refunded": {State: placed, Total: 10, Captured: 10, Refunded: 3, PlacedAt: &noon},
		"refunded":           {State: cancelled, Total: 10, Captured: 10, Refunded: 10, PlacedAt: &noon},
		"voided":             {State: expired, Total: 10},
	} {
		if got := o.paymentStatus(); got != want {
			t.Errorf("%+v is %s, want %s", o, got, want)
		}
	}
}

func TestNumbersAreReadable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		n := newNumber()
		if len(n) != 11 || n[:2] != "B-" || n[6] != '-' || seen[n] {
			t.Fatalf("number %q", n)
		}
		seen[n] = true
	}
}

func TestCardNumbersAreFound(t *testing.T) {
	t.Parallel()
	for text, card := range map[string]bool{
		"4111111111111111":                     true,
		"tok_4111111111111111":                 true,
		"pay with 4111 1111 1111 1111 please":  true,
		"4111-1111-1111-1111":                  true,
		"378282246310005":                      true,
		"6304000000000000":                     true, // Maestro, 16 digits
		"4222222222222":                        true, // 13 digits
		"00004111111111111111":                 true, // hidden in a longer number
		"4111111111111112":                     false,
		"tok_approve":                          false,
		"550e8400-e29b-41d4-a716-446655440000": false,
		"10115":                                false,
		"+43 1 23456":                          false,
	} {
		if got := holdsCard(text); got != card {
			t.Errorf("%q: %v, want %v", text, got, card)
		}
	}
	if err := refuseCards(map[string]string{"/shipping_address/phone": "+4915112345678"}); err != nil {
		t.Errorf("a phone number: %v", err)
	}
}

func TestViewShowsMoneyInTheOrdersCurrency(t *testing.T) {
	t.Parallel()
	v := example().view()
	if v.Total != money.Of(3589, "EUR") || v.Lines[0].UnitPrice != money.Of(1000, "EUR") || v.History == nil {
		t.Errorf("got %+v", v)
	}
}
