package orders

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// bought is an order of Ann's: two mugs and a tea, 41.90.
func bought(t *testing.T, b *bundle) string {
	t.Helper()
	k := b.basket(cartapi.Owner{User: ann})
	a := b.checkout(k, string(k.id), "tok_approve")
	if a.status != http.StatusCreated {
		t.Fatalf("checkout: %d %s", a.status, a.raw)
	}
	return a.text("order_id")
}

func lines(sku string, n int) map[string]any {
	return map[string]any{"lines": []map[string]any{{"sku": sku, "quantity": n}}}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.SetStock("mug", 100)
	b.catalog.SetStock("tea", 100)
	cancel := func(order, key string, as ids.ID, body any) answer {
		path := "/v1/orders/" + order + "/cancellations"
		if as == staff {
			path = "/v1/admin/orders/" + order + "/cancellations"
		}
		return b.do("POST", path, call{as: as, key: key, body: body})
	}
	refund := func(a answer) int64 {
		r, _ := a.body["refund"].(map[string]any)
		n, _ := r["amount"].(float64)
		return int64(n)
	}

	t.Run("an empty body cancels and refunds all", func(t *testing.T) {
		id := bought(t, b)
		a := cancel(id, "all", ann, nil)
		if a.status != http.StatusCreated || a.text("state") != "done" || refund(a) != 4190 {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		if o := b.stored(id); o.State != cancelled || o.paymentStatus() != "refunded" || o.History.V[len(o.History.V)-1].Actor != "customer" {
			t.Errorf("%s, %s, %v", o.State, o.paymentStatus(), o.History.V)
		}
		again := cancel(id, "all", ann, nil)
		if again.raw != a.raw || again.status != a.status || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("again: %d %s", again.status, again.raw)
		}
		if other := cancel(id, "all", ann, lines("mug", 1)); other.text("code") != "idempotency_key_reused" {
			t.Errorf("another body: %d %s", other.status, other.raw)
		}
		if more := cancel(id, "more", ann, nil); more.status != http.StatusConflict || more.text("code") != "illegal_transition" {
			t.Errorf("once more: %d %s", more.status, more.raw)
		}
	})
	t.Run("in parts, the last takes the remainder", func(t *testing.T) {
		id := bought(t, b)
		for i, want := range []int64{1500, 700, 1500 + 490} {
			a := cancel(id, fmt.Sprint("part", i), ann, lines([]string{"mug", "tea", "mug"}[i], 1))
			if a.status != http.StatusCreated || refund(a) != want {
				t.Fatalf("part %d: %d %s", i, a.status, a.raw)
			}
		}
		if o := b.stored(id); o.State != cancelled || o.Refunded != 4190 {
			t.Errorf("%s, refunded %d", o.State, o.Refunded)
		}
	})
	t.Run("the provider fails the second of three refunds: partial, nothing claimed", func(t *testing.T) {
		id := bought(t, b)
		n := 0
		b.calls.before = func(method string) error {
			if method == "Refund" {
				if n++; n == 2 {
					return errs.New(errs.Declined, "refund_declined", "the provider refused the refund")
				}
			}
			return nil
		}
		states := []string{}
		for i := range 3 {
			a := cancel(id, fmt.Sprint("one", i), staff, lines([]string{"mug", "tea", "mug"}[i], 1))
			states = append(states, a.text("state"))
		}
		if fmt.Sprint(states) != "[done pending done]" {
			t.Errorf("the cancellations are %v", states)
		}
		o := b.stored(id)
		if o.State != placed || o.paymentStatus() != "partially_refunded" || o.Refunded != 1500+1990 {
			t.Errorf("%s, %s, refunded %d", o.State, o.paymentStatus(), o.Refunded)
		}
		b.calls.before = nil
		b.work() // later the provider is in a better mood
		if o := b.stored(id); o.State != cancelled || o.Refunded != 4190 {
			t.Errorf("later: %s, refunded %d", o.State, o.Refunded)
		}
	})
	t.Run("a refund that keeps failing needs attention", func(t *testing.T) {
		id := bought(t, b)
		b.calls.before = func(method string) error {
			if method == "Refund" {
				return errs.Unavailablef("not now")
			}
			return nil
		}
		if a := cancel(id, "moody", ann, nil); a.status != http.StatusCreated || a.text("state") != "pending" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.work()
		if n := b.count(`SELECT count(*) FROM orders.cancellations WHERE attention AND order_id = $1`, id); n != 1 {
			t.Error("nobody is asked to look")
		}
		list := b.do("GET", "/v1/admin/cancellations", call{as: staff})
		if data, _ := list.body["data"].([]any); len(data) != 1 || data[0].(map[string]any)["order_id"] != id {
			t.Errorf("needing attention: %d %s", list.status, list.raw)
		}
		b.calls.before = nil
		b.work()
		if o := b.stored(id); o.State != cancelled {
			t.Errorf("later: %s", o.State)
		}
	})
	t.Run("shipping was faster", func(t *testing.T) {
		id := bought(t, b)
		b.shipping.Place(ids.ID(id), ann, b.stored(id).ordered())
		b.shipping.Ship(ids.ID(id))
		a := cancel(id, "late", ann, nil)
		if a.status != http.StatusConflict || a.text("code") != "already_shipped" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		if again := cancel(id, "late", ann, nil); again.status != http.StatusConflict || again.text("code") != "already_shipped" {
			t.Errorf("again: %d %s", again.status, again.raw)
		}
		if o := b.stored(id); o.State != placed || o.Refunded != 0 {
			t.Errorf("%s, refunded %d", o.State, o.Refunded)
		}
	})
	t.Run("what is only held is given back, not refunded", func(t *testing.T) {
		b.calls.before = func(method string) error {
			if method == "Capture" {
				return errs.Unavailablef("not now")
			}
			return nil
		}
		id := bought(t, b)
		b.calls.before = nil
		if a := cancel(id, "held", ann, nil); a.status != http.StatusCreated || a.text("state") != "done" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.work() // the capture that waited finds nothing to take
		if o := b.stored(id); o.State != cancelled || o.paymentStatus() != "voided" || o.Captured != 0 {
			t.Errorf("%s, %s, captured %d", o.State, o.paymentStatus(), o.Captured)
		}
		p, err := b.payments.ByOrder(t.Context(), paymentsapi.ByOrderRequest{Orders: []ids.ID{ids.ID(id)}})
		if err != nil || p.Payments[0].State != paymentsapi.Voided {
			t.Errorf("%+v, %v", p, err)
		}
	})
	t.Run("only its owner and staff", func(t *testing.T) {
		id := bought(t, b)
		if a := cancel(id, "stranger", "usr_stranger", nil); a.status != http.StatusNotFound {
			t.Errorf("a stranger: %d", a.status)
		}
		if a := b.do("POST", "/v1/orders/"+id+"/cancellations", call{key: "nobody"}); a.status != http.StatusNotFound {
			t.Errorf("nobody: %d", a.status)
		}
		if a := b.do("POST", "/v1/admin/orders/"+id+"/cancellations", call{as: ann, key: "admin"}); a.status != http.StatusForbidden {
			t.Errorf("a customer as staff: %d", a.status)
		}
		if a := b.do("POST", "/v1/orders/"+id+"/cancellations", call{as: ann}); a.status != http.StatusPreconditionRequired {
			t.Errorf("without a key: %d", a.status)
		}
		if a := cancel(id, "zero", ann, lines("mug", 0)); a.status != http.StatusUnprocessableEntity {
			t.Errorf("no pieces: %d", a.status)
		}
		if a := cancel(id, "gone", staff, map[string]any{"reason": "broken", "restock": false}); a.status != http.StatusCreated {
			t.Errorf("staff: %d %s", a.status, a.raw)
		}
		var payload []byte
		err := b.DB.Get(t.Context(), &payload, `SELECT payload FROM orders.outbox WHERE key = $1 AND name = 'orders.order_cancelled.v1'`, id)
		var e ordersapi.OrderCancelled
		if err != nil || json.Unmarshal(payload, &e) != nil || e.Restock || !e.Allocated || !e.Whole || e.Reason != "broken" {
			t.Errorf("told %+v, %v", e, err)
		}
	})
	b.sound()
}

// T9: cancellations that come at once never give back more than was paid.
func TestCancellationsAtOnceNeverExceedWhatWasPaid(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := bought(t, b)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			body := any(nil)
			if i%3 != 0 {
				body = lines([]string{"mug", "tea"}[i%2], 1)
			}
			b.do("POST", "/v1/orders/"+id+"/cancellations", call{as: ann, key: fmt.Sprint(i), body: body})
		})
	}
	wg.Wait()
	b.work()
	if o := b.stored(id); o.State != cancelled || o.Refunded != o.Captured {
		t.Errorf("%s, refunded %d of %d", o.State, o.Refunded, o.Captured)
	}
	b.sound()
}

func TestParcelsMoveTheOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := bought(t, b)
	hear := func(f func(tx *pg.Tx) error) {
		t.Helper()
		if err := b.DB.InTx(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	hear(func(tx *pg.Tx) error {
		return b.onShipmentShipped(t.Context(), tx, shippingapi.ShipmentShipped{Order: ids.ID(id), Lines: of("mug", 2)})
	})
	if o := b.stored(id); o.State != partiallyFulfilled {
		t.Errorf("after a parcel: %s", o.State)
	}
	if a := b.do("POST", "/v1/orders/"+id+"/cancellations", call{as: ann, key: "late"}); a.status != http.StatusConflict {
		t.Errorf("cancelled by its customer: %d", a.status)
	}
	hear(func(tx *pg.Tx) error {
		return b.onShipmentShipped(t.Context(), tx, shippingapi.ShipmentShipped{Order: ids.ID(id), Lines: of("tea", 1)})
	})
	for _, l := range []string{"mug", "tea"} {
		hear(func(tx *pg.Tx) error {
			return b.onShipmentDelivered(t.Context(), tx, shippingapi.ShipmentDelivered{Order: ids.ID(id), Lines: of(l, map[string]int64{"mug": 2, "tea": 1}[l])})
		})
	}
	a := b.do("GET", "/v1/orders/"+id, call{as: ann})
	if a.text("state") != "completed" || a.text("fulfilment_status") != "delivered" || a.text("payment_status") != "paid" {
		t.Errorf("at the end: %s", a.raw)
	}
}
