package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/cartapi/carttest"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/paymentsapi/paymentstest"
	"github.com/banyan-shop/banyan/api/shippingapi/shippingtest"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// bundle is a module among fakes, behind its routes.
type bundle struct {
	*Module
	t        testing.TB
	clock    *shoptest.Clock
	catalog  *catalogtest.Fake
	cart     *carttest.Fake
	payments *paymentstest.Fake
	shipping *shippingtest.Fake
	face     http.Handler
	calls    *calls
}

// calls lets a test step in before and after each call of another module.
type calls struct {
	before, after func(method string) error
}

func (c *calls) around(method string, call func() error) error {
	if c.before != nil {
		if err := c.before(method); err != nil {
			return err
		}
	}
	if err := call(); err != nil {
		return err
	}
	if c.after != nil {
		return c.after(method)
	}
	return nil
}

type watchedPayments struct {
	paymentsapi.Payments
	c *calls
}

func (w watchedPayments) Authorize(ctx context.Context, r paymentsapi.AuthorizeRequest) (p paymentsapi.Payment, err error) {
	err = w.c.around("Authorize", func() error { p, err = w.Payments.Authorize(ctx, r); return err })
	return p, err
}
func (w watchedPayments) Payment(ctx context.Context, r paymentsapi.PaymentRequest) (p paymentsapi.Payment, err error) {
	err = w.c.around("Payment", func() error { p, err = w.Payments.Payment(ctx, r); return err })
	return p, err
}
func (w watchedPayments) Capture(ctx context.Context, r paymentsapi.CaptureRequest) (p paymentsapi.Payment, err error) {
	err = w.c.around("Capture", func() error { p, err = w.Payments.Capture(ctx, r); return err })
	return p, err
}
func (w watchedPayments) Void(ctx context.Context, r paymentsapi.VoidRequest) (p paymentsapi.Payment, err error) {
	err = w.c.around("Void", func() error { p, err = w.Payments.Void(ctx, r); return err })
	return p, err
}
func (w watchedPayments) Refund(ctx context.Context, r paymentsapi.RefundRequest) (p paymentsapi.Payment, err error) {
	err = w.c.around("Refund", func() error { p, err = w.Payments.Refund(ctx, r); return err })
	return p, err
}

type watchedCatalog struct {
	catalogapi.Catalog
	c *calls
}

func (w watchedCatalog) Reserve(ctx context.Context, r catalogapi.ReserveRequest) (a catalogapi.Reservation, err error) {
	err = w.c.around("Reserve", func() error { a, err = w.Catalog.Reserve(ctx, r); return err })
	return a, err
}
func (w watchedCatalog) Allocate(ctx context.Context, r catalogapi.AllocateRequest) (a catalogapi.Allocation, err error) {
	err = w.c.around("Allocate", func() error { a, err = w.Catalog.Allocate(ctx, r); return err })
	return a, err
}
func (w watchedCatalog) Release(ctx context.Context, r catalogapi.ReleaseRequest) (a catalogapi.Released, err error) {
	err = w.c.around("Release", func() error { a, err = w.Catalog.Release(ctx, r); return err })
	return a, err
}

// carts is cartapi.Cart by another name: embedded under its own it would hide its method Cart.
type carts interface{ cartapi.Cart }

type watchedCart struct {
	carts
	c *calls
}

func (w watchedCart) Freeze(ctx context.Context, r cartapi.FreezeRequest) (a cartapi.Frozen, err error) {
	err = w.c.around("Freeze", func() error { a, err = w.carts.Freeze(ctx, r); return err })
	return a, err
}
func (w watchedCart) Complete(ctx context.Context, r cartapi.CompleteRequest) (a cartapi.Completed, err error) {
	err = w.c.around("Complete", func() error { a, err = w.carts.Complete(ctx, r); return err })
	return a, err
}

// book is an address book with one entry.
type book struct{ usersapi.Users }

const (
	ann   = ids.ID("usr_00000000000000000000000ann")
	home  = ids.ID("adr_0000000000000000000000home")
	staff = ids.ID("usr_000000000000000000000staff")
)

func (book) Address(_ context.Context, r usersapi.AddressRequest) (usersapi.Address, error) {
	if r.User != ann || r.ID != home {
		return usersapi.Address{}, errs.NotFoundf("no such address")
	}
	return usersapi.Address{ID: home, Name: "Ann", Line1: "Lindenweg 1", City: "Berlin", Postcode: "10115", Country: "DE"}, nil
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return setupWith(t, shoptest.DB(t, "orders"))
}

func setupWith(t testing.TB, db *pg.DB) *bundle {
	t.Helper()
	b := &bundle{
		t: t, clock: shoptest.NewClock(), cart: &carttest.Fake{}, payments: paymentstest.New(), shipping: &shippingtest.Fake{}, calls: &calls{},
	}
	b.catalog = &catalogtest.Fake{Clock: b.clock.Now}
	c := Defaults()
	c.Poll, c.ReplyWithin, c.Lease = 20*time.Millisecond, 2*time.Second, 30*time.Second
	secret := auth.NewSecret()
	b.Module = &Module{
		DB: db, Users: book{}, Catalog: watchedCatalog{b.catalog, b.calls}, Shipping: b.shipping, Cart: watchedCart{b.cart, b.calls},
		Payments: watchedPayments{b.payments, b.calls}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: b.clock.Now, Secret: secret,
		Cursors: web.NewCursors(secret.Derive("cursors")), Config: c, Signals: NewSignals(), Metrics: newMetrics(nil),
	}
	r := web.NewRouter()
	b.Routes(r.Module("orders", b.DB))
	s, err := web.NewServer(web.Config{Router: r, Log: b.Log, Verify: func(_ context.Context, token string) (auth.Identity, error) {
		switch id := ids.ID(token); id {
		case staff:
			return auth.Identity{User: staff, Roles: []string{"admin"}, Scopes: []string{"orders:read_all", "orders:write"}}, nil
		default:
			return auth.Identity{User: id}, nil
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.face = s.Handler()
	b.catalog.Add("mug", "Mug", money.Of(1500, "EUR"), 10)
	b.catalog.Add("tea", "Tea", money.Of(700, "EUR"), 10)
	return b
}

// call is a request as somebody: a user's id, or a guest by X-Cart-Token.
type call struct {
	as         ids.ID
	cartToken  string
	orderToken string
	key        string
	body       any
}

type answer struct {
	status int
	header http.Header
	raw    string
	body   map[string]any
}

func (a answer) text(field string) string { s, _ := a.body[field].(string); return s }

func (b *bundle) do(method, path string, c call) answer {
	b.t.Helper()
	var body io.Reader
	if c.body != nil {
		j, err := json.Marshal(c.body)
		if err != nil {
			b.t.Fatal(err)
		}
		body = bytes.NewReader(j)
	}
	r := httptest.NewRequest(method, path, body)
	for name, value := range map[string]string{"X-Cart-Token": c.cartToken, "X-Order-Token": c.orderToken, "Idempotency-Key": c.key} {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	if c.as != "" {
		r.Header.Set("Authorization", "Bearer "+string(c.as))
	}
	if c.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	b.face.ServeHTTP(w, r)
	a := answer{status: w.Code, header: w.Header(), raw: w.Body.String()}
	if len(a.raw) > 0 {
		if err := json.Unmarshal(w.Body.Bytes(), &a.body); err != nil {
			b.t.Fatalf("%s %s: %v in %s", method, path, err, a.raw)
		}
	}
	return a
}

// basket is a cart with two mugs and a tea: 37.00, and 41.90 delivered.
type basket struct {
	id    cartapi.ID
	owner cartapi.Owner
	total int64
}

func (b *bundle) basket(owner cartapi.Owner) basket {
	id, o := b.cart.Add(owner, "EUR",
		cartapi.Line{SKU: "mug", Name: "Mug", Quantity: 2, UnitPrice: money.Of(1500, "EUR")},
		cartapi.Line{SKU: "tea", Name: "Tea", Quantity: 1, UnitPrice: money.Of(700, "EUR")})
	return basket{id, o, 4190}
}

func (b *bundle) guestBasket() basket { return b.basket(cartapi.Owner{}) }

// order is the body of a checkout.
func (k basket) order(token string) map[string]any {
	body := map[string]any{
		"cart_id": k.id, "shipping_option": "standard", "expected_total": money.Of(k.total, "EUR"),
		"shipping_address": map[string]any{"name": "Gus", "line1": "Am Ufer 3", "city": "Wien", "postcode": "1010", "country": "AT"},
		"payment":          map[string]any{"provider": "simulator", "token": token},
	}
	if k.owner.User == "" {
		body["email"] = "gus@example.com"
	}
	return body
}

func (b *bundle) checkout(k basket, key, token string) answer {
	b.t.Helper()
	return b.do("POST", "/v1/checkouts", call{as: k.owner.User, cartToken: k.owner.Token, key: key, body: k.order(token)})
}

// lapse ends all leases, as time does after a crash.
func (b *bundle) lapse() {
	b.t.Helper()
	b.exec(`UPDATE orders.checkouts SET lease_until = now() - interval '1 second', next_at = now() WHERE lease_until IS NOT NULL`)
	b.exec(`UPDATE orders.cancellations SET lease_until = now() - interval '1 second', next_at = now() WHERE lease_until IS NOT NULL`)
}

// work looks at everything that is open, due or not, until nothing moves.
func (b *bundle) work() {
	b.t.Helper()
	for range 30 {
		b.exec(`UPDATE orders.checkouts SET next_at = now() WHERE next_at IS NOT NULL AND lease_until IS NULL AND step NOT IN ('hold', 'confirm')`)
		b.exec(`UPDATE orders.cancellations SET next_at = now() WHERE next_at IS NOT NULL AND lease_until IS NULL`)
		work, err := b.due(b.t.Context(), 16)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(work) == 0 {
			return
		}
		for _, f := range work {
			f()
		}
	}
}

// lookAtAll makes every open saga due, the waiting ones too, and works.
func (b *bundle) lookAtAll() {
	b.t.Helper()
	b.exec(`UPDATE orders.checkouts SET next_at = now() WHERE next_at IS NOT NULL AND lease_until IS NULL`)
	b.work()
}

func (b *bundle) exec(query string) {
	b.t.Helper()
	err := b.DB.InTx(b.t.Context(), func(tx *pg.Tx) error { _, err := tx.Exec(b.t.Context(), query); return err })
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bundle) count(query string, args ...any) (n int64) {
	b.t.Helper()
	if err := b.DB.Get(b.t.Context(), &n, query, args...); err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (b *bundle) stored(id string) *order {
	b.t.Helper()
	o, err := findOrder(b.t.Context(), b.DB, ordersapi.ID(id))
	if err != nil {
		b.t.Fatal(err)
	}
	return o
}

func (b *bundle) wantStock(sku string, onHand, reserved int64) {
	b.t.Helper()
	if h, r := b.catalog.Stock(sku); h != onHand || r != reserved {
		b.t.Errorf("%s: on hand %d, reserved %d; want %d and %d", sku, h, r, onHand, reserved)
	}
}

func (b *bundle) wantCart(k basket, state string) {
	b.t.Helper()
	if s, _ := b.cart.State(k.id); s != state {
		b.t.Errorf("the cart is %s, want %s", s, state)
	}
}

// sound checks what must hold whatever happened, once everything has settled.
func (b *bundle) sound() {
	b.t.Helper()
	if n := b.count(`SELECT count(*) FROM orders.checkouts WHERE next_at IS NOT NULL AND step NOT IN ('hold', 'confirm')`); n != 0 {
		b.t.Errorf("%d checkouts are still under way", n)
	}
	placedOrders := b.count(`SELECT count(*) FROM orders.orders WHERE placed_at IS NOT NULL`)
	if n := b.count(`SELECT count(*) FROM orders.outbox WHERE name = 'orders.order_placed.v1'`); n != placedOrders {
		b.t.Errorf("%d orders were placed and %d told of", placedOrders, n)
	}
	byCheckout := map[ids.ID]int{}
	for _, p := range b.payments.All() {
		switch p.State {
		case paymentsapi.Captured, paymentsapi.Refunded:
			byCheckout[p.Checkout]++
			o, err := findOrder(b.t.Context(), b.DB, ordersapi.ID(p.Order))
			if err != nil {
				b.t.Errorf("payment %s took money for no order: %v", p.ID, err)
				continue
			}
			if p.Captured.Minor != o.Total || p.Refunded.Minor != o.Refunded {
				b.t.Errorf("order %s of %d: payment has %d captured, %d refunded; the order says %d", o.ID, o.Total, p.Captured.Minor, p.Refunded.Minor, o.Refunded)
			}
		case paymentsapi.Authorised, paymentsapi.Unknown:
			b.t.Errorf("payment %s is left %s", p.ID, p.State)
		}
	}
	for id, n := range byCheckout {
		if n > 1 {
			b.t.Errorf("checkout %s was charged %d times", id, n)
		}
	}
}

func TestCheckout(t *testing.T) {
	t.Parallel()

	t.Run("a guest buys a cart in one request", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		a := b.checkout(k, "one", "tok_approve")
		if a.status != http.StatusCreated || a.text("state") != "placed" || a.text("order_token") == "" {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		o := b.stored(a.text("order_id"))
		if o.State != placed || o.Total != 4190 || o.Captured != 4190 || o.paymentStatus() != "paid" || o.fulfilmentStatus() != "unfulfilled" {
			t.Errorf("order is %s, %s, %s, %d of %d captured", o.State, o.paymentStatus(), o.fulfilmentStatus(), o.Captured, o.Total)
		}
		b.wantStock("mug", 10, 2)
		b.wantStock("tea", 10, 1)
		b.wantCart(k, "completed")
		if n := b.count(`SELECT count(*) FROM orders.checkouts WHERE secrets IS NOT NULL AND octet_length(secrets) > 0`); n != 0 {
			t.Error("a token outlived its payment")
		}
		again := b.checkout(k, "one", "tok_approve")
		if again.status != a.status || again.raw != a.raw || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("repeated: %d %s, replayed %q; first %s", again.status, again.raw, again.header.Get("Idempotent-Replayed"), a.raw)
		}
		other := b.checkout(k, "one", "tok_decline")
		if other.status != http.StatusUnprocessableEntity || other.text("code") != "idempotency_key_reused" {
			t.Errorf("another body with the same key: %d %s", other.status, other.raw)
		}
		b.sound()

		got := b.do("GET", "/v1/orders/"+a.text("order_id"), call{orderToken: a.text("order_token")})
		if got.status != http.StatusOK || got.text("state") != "placed" {
			t.Errorf("the guest's order: %d %s", got.status, got.raw)
		}
		if got := b.do("GET", "/v1/orders/"+a.text("order_id"), call{as: ann}); got.status != http.StatusNotFound {
			t.Errorf("a stranger's look at it: %d", got.status)
		}
	})

	t.Run("a customer buys with an address of the book", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.basket(cartapi.Owner{User: ann})
		body := k.order("tok_approve")
		delete(body, "shipping_address")
		body["shipping_address_id"] = home
		a := b.do("POST", "/v1/checkouts", call{as: ann, key: "k", body: body})
		if a.status != http.StatusCreated || a.text("order_token") != "" {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		list := b.do("GET", "/v1/orders", call{as: ann})
		if data := list.body["data"].([]any); len(data) != 1 || data[0].(map[string]any)["id"] != a.text("order_id") {
			t.Errorf("my orders: %s", list.raw)
		}
		if data := b.do("GET", "/v1/orders", call{as: staff}).body["data"].([]any); len(data) != 0 {
			t.Error("another's list shows it")
		}
	})

	t.Run("a declined card holds the goods, and a new card with a new key buys them with the same order", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		no := b.checkout(k, "first", "tok_decline")
		if no.status != http.StatusPaymentRequired || no.text("code") != "payment_declined" {
			t.Fatalf("got %d %s", no.status, no.raw)
		}
		b.wantStock("mug", 10, 2)
		b.wantCart(k, "locked")
		if n := b.count(`SELECT count(*) FROM orders.outbox WHERE name = 'orders.payment_declined.v1'`); n != 1 {
			t.Errorf("told of %d declines", n)
		}
		yes := b.checkout(k, "second", "tok_approve")
		if yes.status != http.StatusCreated {
			t.Fatalf("second card: %d %s", yes.status, yes.raw)
		}
		if n := b.count(`SELECT count(*) FROM orders.orders`); n != 1 {
			t.Errorf("%d orders", n)
		}
		if n := b.count(`SELECT count(*) FROM orders.orders o JOIN orders.outbox e ON e.name = 'orders.order_placed.v1' AND e.payload->>'number' = o.number`); n != 1 {
			t.Error("the event tells another number than the order's")
		}
		if n := b.count(`SELECT count(*) FROM orders.orders WHERE (history->0->>'at')::timestamptz = created_at`); n != 1 {
			t.Error("the history does not begin with the order")
		}
		if replay := b.checkout(k, "first", "tok_decline"); replay.status != http.StatusPaymentRequired || replay.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the first key again: %d %s", replay.status, replay.raw)
		}
		if replay := b.checkout(k, "second", "tok_approve"); replay.raw != yes.raw {
			t.Errorf("the second key again: %s, first %s", replay.raw, yes.raw)
		}
		b.wantStock("mug", 10, 2)
		b.sound()
	})

	t.Run("a declined checkout expires and gives everything back", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		b.cart.SetPromo(k.id, "TENTH", 1000, 1)
		k.total = 4190 - 370
		no := b.checkout(k, "first", "tok_decline")
		if no.status != http.StatusPaymentRequired {
			t.Fatalf("got %d %s", no.status, no.raw)
		}
		b.lookAtAll()
		b.wantCart(k, "locked")
		b.clock.Advance(10*time.Minute + time.Second)
		b.lookAtAll()
		b.wantCart(k, "active")
		b.wantStock("mug", 10, 0)
		if a := b.checkout(k, "later", "tok_approve"); a.status != http.StatusCreated { // the code's only use came back
			t.Errorf("a later checkout: %d %s", a.status, a.raw)
		}
		if n := b.count(`SELECT count(*) FROM orders.orders WHERE state = 'expired'`); n != 1 {
			t.Errorf("%d orders expired", n)
		}
		if replay := b.checkout(k, "first", "tok_decline"); replay.status != http.StatusPaymentRequired {
			t.Errorf("the first key again: %d %s", replay.status, replay.raw)
		}
		b.sound()
	})

	t.Run("the shopper approves by 3-D Secure and confirms", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		a := b.checkout(k, "one", "tok_3ds")
		next, _ := a.body["next_action"].(map[string]any)
		if a.status != http.StatusAccepted || a.text("state") != "action_required" || next["type"] != "redirect" || next["url"] == "" {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		path := "/v1/checkouts/" + a.text("id")
		if early := b.do("POST", path+"/confirm", call{cartToken: k.owner.Token}); early.status != http.StatusOK || early.text("state") != "action_required" {
			t.Fatalf("confirmed too early: %d %s", early.status, early.raw)
		}
		b.payments.Confirm(b.payments.All()[0].ID, true)
		if foreign := b.do("POST", path+"/confirm", call{as: ann}); foreign.status != http.StatusNotFound {
			t.Errorf("a stranger confirms: %d", foreign.status)
		}
		done := b.do("POST", path+"/confirm", call{orderToken: a.text("order_token")})
		if done.status != http.StatusOK || done.text("state") != "placed" || done.text("order_id") == "" {
			t.Fatalf("confirmed: %d %s", done.status, done.raw)
		}
		if again := b.checkout(k, "one", "tok_3ds"); again.raw != a.raw || again.status != a.status {
			t.Errorf("the key again: %d %s", again.status, again.raw)
		}
		b.sound()
	})

	t.Run("the shopper refuses by 3-D Secure and pays with another card", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		a := b.checkout(k, "one", "tok_3ds")
		b.payments.Confirm(b.payments.All()[0].ID, false)
		path := "/v1/checkouts/" + a.text("id")
		if no := b.do("POST", path+"/confirm", call{cartToken: k.owner.Token}); no.text("state") != "payment_failed" {
			t.Fatalf("refused: %s", no.raw)
		}
		if yes := b.checkout(k, "two", "tok_approve"); yes.status != http.StatusCreated || yes.text("id") != a.text("id") {
			t.Fatalf("another card: %d %s", yes.status, yes.raw)
		}
		b.sound()
	})

	t.Run("an abandoned 3-D Secure is cancelled at the provider before its goods are given to others", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		b.checkout(k, "one", "tok_3ds")
		b.clock.Advance(29 * time.Minute)
		b.wantStock("mug", 10, 2)
		b.clock.Advance(2 * time.Minute)
		released := false
		b.calls.before = func(method string) error {
			if method == "Release" {
				released = true
				if s := b.payments.All()[0].State; s != paymentsapi.Voided {
					t.Errorf("goods released while the payment was %s", s)
				}
			}
			return nil
		}
		b.lookAtAll()
		if !released || b.payments.All()[0].State != paymentsapi.Voided {
			t.Errorf("released %v, payment %s", released, b.payments.All()[0].State)
		}
		b.wantCart(k, "active")
		b.wantStock("mug", 10, 0)
		b.sound()
	})

	t.Run("a shopper who approves as the time ends gets the order after all", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		a := b.checkout(k, "one", "tok_3ds")
		b.clock.Advance(31 * time.Minute)
		b.calls.before = func(method string) error {
			if method == "Void" { // approved between our question and our cancellation, which finds the money there
				b.payments.Confirm(b.payments.All()[0].ID, true)
				b.Module.Payments = lateVoid{b.Module.Payments, b.payments}
			}
			return nil
		}
		b.Module.Payments = lateVoid{b.Module.Payments, b.payments}
		b.lookAtAll()
		got := b.do("GET", "/v1/checkouts/"+a.text("id"), call{cartToken: k.owner.Token})
		if got.text("state") != "placed" {
			t.Errorf("the checkout is %s", got.raw)
		}
		b.sound()
	})

	t.Run("a provider that says nothing is asked until it has told", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		if a := b.checkout(k, "one", "tok_timeout"); a.status != http.StatusCreated {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		b.sound()
	})

	t.Run("an answer lost between the modules is found by its key", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		lost := false
		b.calls.after = func(method string) error {
			if method == "Authorize" && !lost {
				lost = true
				return errs.New(errs.NoAnswer, "", "no answer")
			}
			return nil
		}
		b.ReplyNow()
		if a := b.checkout(k, "one", "tok_approve"); a.status != http.StatusAccepted || a.text("state") != "pending" {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		b.work()
		if a := b.checkout(k, "one", "tok_approve"); a.status != http.StatusCreated {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		if n := len(b.payments.All()); n != 1 {
			t.Errorf("%d payments", n)
		}
		b.sound()
	})

	t.Run("a webhook that comes late ends a checkout that waits", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		a := b.checkout(k, "one", "tok_3ds")
		p := b.payments.All()[0]
		b.payments.Confirm(p.ID, true)
		err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
			return b.onPaymentChanged(t.Context(), tx, paymentsapi.PaymentChanged{Payment: p.ID, Checkout: p.Checkout, Order: p.Order, State: paymentsapi.Authorised})
		})
		if err != nil {
			t.Fatal(err)
		}
		b.work()
		if got := b.do("GET", "/v1/checkouts/"+a.text("id"), call{cartToken: k.owner.Token}); got.text("state") != "placed" {
			t.Errorf("the checkout is %s", got.raw)
		}
		b.sound()
	})
}

// ReplyNow answers 202 at once where it would have waited.
func (b *bundle) ReplyNow() { b.Config.ReplyWithin = 50 * time.Millisecond }

// lateVoid is a provider that can't cancel what the shopper has approved.
type lateVoid struct {
	paymentsapi.Payments
	fake *paymentstest.Fake
}

func (l lateVoid) Void(ctx context.Context, r paymentsapi.VoidRequest) (paymentsapi.Payment, error) {
	l.fake.Confirm(r.ID, true)
	return l.Payments.Payment(ctx, paymentsapi.PaymentRequest{ID: r.ID})
}

func TestCheckoutRefusals(t *testing.T) {
	t.Parallel()
	b := setup(t)

	t.Run("a changed price", func(t *testing.T) {
		k := b.guestBasket()
		b.cart.SetPrice("mug", money.Of(1600, "EUR"))
		a := b.checkout(k, "price", "tok_approve")
		if a.status != http.StatusConflict || a.text("code") != "cart_changed" || a.body["details"] == nil {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.wantCart(k, "active")
		if again := b.checkout(k, "price", "tok_approve"); again.status != http.StatusConflict || again.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("again: %d %s", again.status, again.raw)
		}
		k.total += 200
		if a := b.checkout(k, "price-2", "tok_approve"); a.status != http.StatusCreated {
			t.Errorf("at the new price: %d %s", a.status, a.raw)
		}
		b.cart.SetPrice("mug", money.Of(1500, "EUR"))
	})
	t.Run("too little stock", func(t *testing.T) {
		k := b.guestBasket()
		_, reserved := b.catalog.Stock("tea")
		b.catalog.SetStock("mug", 1)
		a := b.checkout(k, "stock", "tok_approve")
		if a.status != http.StatusConflict || a.text("code") != "insufficient_stock" || a.body["details"] == nil {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.wantCart(k, "active")
		b.wantStock("tea", 10, reserved)
		b.catalog.SetStock("mug", 20)
	})
	t.Run("an exhausted promo code gives the goods back", func(t *testing.T) {
		k := b.guestBasket()
		_, reserved := b.catalog.Stock("mug")
		b.cart.SetPromo(k.id, "LAST", 1000, 1)
		k.total = 4190 - 370
		b.calls.after = func(method string) error {
			if method != "Freeze" {
				return nil
			}
			other := b.guestBasket() // another is faster
			b.cart.SetPromo(other.id, "LAST", 1000, 1)
			_, err := b.cart.Freeze(t.Context(), cartapi.FreezeRequest{Key: "f", Checkout: "other", Cart: other.id, Owner: other.owner,
				Address: cartapi.Address{Country: "DE"}, ShippingOption: "standard", Expected: money.Of(k.total, "EUR")})
			if err == nil {
				_, err = b.cart.Redeem(t.Context(), cartapi.RedeemRequest{Key: "r", Checkout: "other", Cart: other.id})
			}
			return err
		}
		a := b.checkout(k, "promo", "tok_approve")
		b.calls.after = nil
		if a.status != http.StatusConflict || a.text("code") != "promo_exhausted" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.wantCart(k, "active")
		b.wantStock("mug", 20, reserved)
	})
	t.Run("a wrong shipping option may be mended under the same key", func(t *testing.T) {
		k := b.guestBasket()
		body := k.order("tok_approve")
		body["shipping_option"] = "by pigeon"
		c := call{cartToken: k.owner.Token, key: "mend", body: body}
		if a := b.do("POST", "/v1/checkouts", c); a.status != http.StatusUnprocessableEntity || a.text("code") != "unknown_shipping_option" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		if a := b.checkout(k, "mend", "tok_approve"); a.status != http.StatusCreated {
			t.Errorf("mended: %d %s", a.status, a.raw)
		}
	})
	t.Run("a stranger's cart, and nothing is kept of the try", func(t *testing.T) {
		k := b.guestBasket()
		before := b.count(`SELECT (SELECT count(*) FROM orders.checkouts) + (SELECT count(*) FROM orders.checkout_keys)`)
		mine := k.owner
		k.owner.Token = "guess"
		if a := b.checkout(k, "stranger", "tok_approve"); a.status != http.StatusNotFound {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		if n := b.count(`SELECT (SELECT count(*) FROM orders.checkouts) + (SELECT count(*) FROM orders.checkout_keys)`); n != before {
			t.Errorf("%d rows more", n-before)
		}
		k.owner = mine
		if a := b.checkout(k, "owner", "tok_approve"); a.status != http.StatusCreated {
			t.Errorf("its owner: %d %s", a.status, a.raw)
		}
	})
	t.Run("a second device is told which checkout runs", func(t *testing.T) {
		k := b.guestBasket()
		first := b.checkout(k, "device-1", "tok_3ds")
		a := b.checkout(k, "device-2", "tok_approve")
		details, _ := a.body["details"].(map[string]any)
		if a.status != http.StatusConflict || a.text("code") != "checkout_in_progress" || details["id"] != first.text("id") {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		k.owner.Token = "another guest"
		if a := b.checkout(k, "device-3", "tok_approve"); a.status != http.StatusConflict || a.body["details"] != nil {
			t.Errorf("a stranger: %d %s", a.status, a.raw)
		}
	})
	t.Run("an unknown payment token", func(t *testing.T) {
		k := b.guestBasket()
		if a := b.checkout(k, "token", "tok_nonsense"); a.status != http.StatusUnprocessableEntity {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		if a := b.checkout(k, "token-2", "tok_approve"); a.status != http.StatusCreated {
			t.Errorf("with a good one: %d %s", a.status, a.raw)
		}
	})
	for _, c := range []struct{ name, field, code string }{
		{"a guest without an e-mail", "email", "validation_failed"},
		{"no address", "shipping_address", "validation_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := b.guestBasket()
			body := k.order("tok_approve")
			delete(body, c.field)
			a := b.do("POST", "/v1/checkouts", call{cartToken: k.owner.Token, key: c.field, body: body})
			if a.status != http.StatusUnprocessableEntity || a.text("code") != c.code {
				t.Errorf("got %d %s", a.status, a.raw)
			}
			b.wantCart(k, "active")
		})
	}
	t.Run("no Idempotency-Key", func(t *testing.T) {
		k := b.guestBasket()
		if a := b.checkout(k, "", "tok_approve"); a.status != http.StatusPreconditionRequired {
			t.Errorf("got %d %s", a.status, a.raw)
		}
	})
	t.Run("a card number in any field", func(t *testing.T) {
		k := b.guestBasket()
		before := b.count(`SELECT count(*) FROM orders.checkouts`)
		for _, number := range []string{"4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011000990139424"} {
			for _, field := range []string{"token", "email", "shipping_option", "name", "line1", "line2", "city", "region", "phone"} {
				body := k.order("tok_approve")
				switch field {
				case "token":
					body["payment"].(map[string]any)["token"] = number
				case "email", "shipping_option":
					body[field] = number
				default:
					body["shipping_address"].(map[string]any)[field] = "my " + number
				}
				a := b.do("POST", "/v1/checkouts", call{cartToken: k.owner.Token, key: fmt.Sprint(field, number[:4]), body: body})
				if a.status != http.StatusUnprocessableEntity || a.text("code") != "card_number_refused" || bytes.Contains([]byte(a.raw), []byte(number)) {
					t.Errorf("%s in %s: %d %s", number, field, a.status, a.raw)
				}
			}
		}
		if n := b.count(`SELECT count(*) FROM orders.checkouts`); n != before {
			t.Errorf("%d were stored", n-before)
		}
	})
}

func TestPaidButOutOfStock(t *testing.T) {
	t.Parallel()
	for _, captured := range []bool{false, true} {
		t.Run(fmt.Sprintf("captured already is %v", captured), func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			k := b.guestBasket()
			a := b.checkout(k, "one", "tok_3ds")
			b.clock.Advance(time.Minute)
			p := b.payments.All()[0]
			b.payments.Confirm(p.ID, true)
			if captured { // as a method that takes money at once does
				_, err := b.payments.Capture(t.Context(), paymentsapi.CaptureRequest{Key: "at once", ID: p.ID, Amount: p.Amount})
				if err != nil {
					t.Fatal(err)
				}
			}
			if _, err := b.catalog.Release(t.Context(), catalogapi.ReleaseRequest{Checkout: p.Checkout}); err != nil {
				t.Fatal(err)
			}
			b.catalog.SetStock("mug", 1)
			fails := 2 // the provider is moody about giving back, too
			b.calls.before = func(method string) error {
				if (method == "Void" || method == "Refund") && fails > 0 {
					fails--
					return errs.Unavailablef("not now")
				}
				return nil
			}
			b.lookAtAll()
			b.work()
			got := b.do("GET", "/v1/checkouts/"+a.text("id"), call{cartToken: k.owner.Token})
			failure, _ := got.body["failure"].(map[string]any)
			if got.text("state") != "failed" || failure["code"] != "out_of_stock" {
				t.Fatalf("the checkout is %s", got.raw)
			}
			want := paymentsapi.Voided
			if captured {
				want = paymentsapi.Refunded
			}
			if s := b.payments.All()[0].State; s != want {
				t.Errorf("the payment is %s, want %s", s, want)
			}
			if o := b.stored(got.text("order_id")); o.State != cancelled {
				t.Errorf("the order is %s", o.State)
			}
			var e ordersapi.OrderCancelled
			var payload []byte
			if err := b.DB.Get(t.Context(), &payload, `SELECT payload FROM orders.outbox WHERE name = 'orders.order_cancelled.v1'`); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(payload, &e); err != nil || e.Allocated || !e.Whole || e.Reason != "out_of_stock" {
				t.Errorf("told %+v, %v", e, err)
			}
			b.wantCart(k, "active")
			b.wantStock("mug", 1, 0)
			b.sound()
		})
	}
	t.Run("the request itself is told 409", func(t *testing.T) {
		t.Parallel()
		b := setup(t)
		k := b.guestBasket()
		b.calls.after = func(method string) error {
			if method == "Authorize" {
				b.clock.Advance(16 * time.Minute) // the reservation lapses
				b.catalog.SetStock("mug", 1)
			}
			return nil
		}
		a := b.checkout(k, "one", "tok_approve")
		if a.status != http.StatusConflict || a.text("code") != "out_of_stock" {
			t.Errorf("got %d %s", a.status, a.raw)
		}
		b.sound()
	})
}

func TestTheSameKeyAtOnceMakesOneOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := b.guestBasket()
	answers := make(chan answer, 16)
	var wg sync.WaitGroup
	for range cap(answers) {
		wg.Go(func() { answers <- b.checkout(k, "one", "tok_approve") })
	}
	wg.Wait()
	close(answers)
	first, rest := "", 0
	for a := range answers {
		switch {
		case a.status == http.StatusCreated && (first == "" || a.raw == first):
			first = a.raw
		case a.status == http.StatusConflict && a.text("code") == "checkout_in_progress" && a.header.Get("Retry-After") != "":
			rest++
		default:
			t.Errorf("got %d %s", a.status, a.raw)
		}
	}
	if n := b.count(`SELECT count(*) FROM orders.orders`); n != 1 || first == "" {
		t.Errorf("%d orders, %d told to wait", n, rest)
	}
	b.sound()
}

func TestALongPollIsAnsweredWhenTheCheckoutMoves(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := b.guestBasket()
	a := b.checkout(k, "one", "tok_3ds")
	path := "/v1/checkouts/" + a.text("id")
	polled := make(chan answer)
	go func() { polled <- b.do("GET", path+"?wait=20s", call{cartToken: k.owner.Token}) }()
	shoptest.WaitFor(t, "the poll to wait", func() bool {
		b.Signals.mu.Lock()
		defer b.Signals.mu.Unlock()
		return len(b.Signals.waiting) == 1
	})
	b.payments.Confirm(b.payments.All()[0].ID, true)
	b.lookAtAll()
	if got := <-polled; got.status != http.StatusOK || got.text("state") != "placed" {
		t.Errorf("got %d %s", got.status, got.raw)
	}
	if got := b.do("GET", path+"?wait=soon", call{cartToken: k.owner.Token}); got.status != http.StatusUnprocessableEntity {
		t.Errorf("a wait of nonsense: %d", got.status)
	}
}

func TestTheWorkerTakesUpWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := b.guestBasket()
	a := b.checkout(k, "one", "tok_3ds")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); b.Run(ctx) }()
	p := b.payments.All()[0]
	b.payments.Confirm(p.ID, true)
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		return b.onPaymentChanged(t.Context(), tx, paymentsapi.PaymentChanged{Payment: p.ID, Checkout: p.Checkout})
	})
	if err != nil {
		t.Fatal(err)
	}
	got := b.do("GET", "/v1/checkouts/"+a.text("id")+"?wait=20s", call{cartToken: k.owner.Token})
	if got.text("state") != "placed" {
		t.Errorf("got %s", got.raw)
	}
	stop()
	<-ended
	b.sound()
}

func TestAdminsListOrdersPageByPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.SetStock("mug", 100)
	for i := range 5 {
		k := b.basket(cartapi.Owner{User: ann})
		if a := b.checkout(k, fmt.Sprint(i), "tok_approve"); a.status != http.StatusCreated {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
	}
	for _, path := range []string{"/v1/admin/orders?state=placed&limit=2", "/v1/admin/orders?limit=2", "/v1/orders?limit=2"} {
		as := staff
		if path == "/v1/orders?limit=2" {
			as = ann
		}
		seen, cursor := map[string]bool{}, ""
		for pages := 1; ; pages++ {
			a := b.do("GET", path+"&cursor="+cursor, call{as: as})
			if a.status != http.StatusOK {
				t.Fatalf("%s: %d %s", path, a.status, a.raw)
			}
			for _, o := range a.body["data"].([]any) {
				seen[o.(map[string]any)["id"].(string)] = true
			}
			if cursor = a.text("next_cursor"); cursor == "" || pages == 9 {
				break
			}
		}
		if len(seen) != 5 {
			t.Errorf("%s: %d orders on all pages", path, len(seen))
		}
	}
	if a := b.do("GET", "/v1/admin/orders", call{as: ann}); a.status != http.StatusForbidden {
		t.Errorf("a customer lists all orders: %d", a.status)
	}
}

func TestCaptureThatFailsDoesNotFailTheOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k := b.guestBasket()
	down := true
	b.calls.before = func(method string) error {
		if down && (method == "Capture" || method == "Complete") {
			return errs.Unavailablef("not now")
		}
		return nil
	}
	a := b.checkout(k, "one", "tok_approve")
	if a.status != http.StatusCreated {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	if o := b.stored(a.text("order_id")); o.paymentStatus() != "authorised" {
		t.Errorf("payment status %s", o.paymentStatus())
	}
	b.work()
	list := b.do("GET", "/v1/admin/checkouts?state=needs_attention", call{as: staff})
	if data, _ := list.body["data"].([]any); len(data) != 1 || data[0].(map[string]any)["id"] != a.text("id") {
		t.Errorf("needing attention: %s", list.raw)
	}
	if list := b.do("GET", "/v1/admin/checkouts?state=needs_attention", call{as: ann}); list.status != http.StatusForbidden {
		t.Errorf("a customer sees them: %d", list.status)
	}
	down = false
	b.work()
	if o := b.stored(a.text("order_id")); o.paymentStatus() != "paid" {
		t.Errorf("payment status %s", o.paymentStatus())
	}
	if n := b.count(`SELECT count(*) FROM orders.checkouts WHERE attention`); n != 0 {
		t.Error("it still needs attention")
	}
	b.sound()
}
