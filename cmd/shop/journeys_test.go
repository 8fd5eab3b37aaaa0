package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
)

// A journey is a shopper's way through the shop over HTTP. It comes to the same end whatever dies on the way: a request that
// got no answer is sent again with the same Idempotency-Key, as a careful client does. Where a journey needs time to pass or
// something to go wrong beside the shop, it changes the database itself.
type journey struct {
	name string
	want string // the state of its order in the end
	run  func(ctx context.Context, b *buyer) error
}

// journeys go by every step of the checkout, of cancellations and of the events between modules.
var journeys = []journey{
	{"an approved card of a customer", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.login, b.fill(2, 1), b.quote, b.fromBook, b.buy("tok_approve"))
	}},
	{"a promo code", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.promo, b.quote, b.buy("tok_approve"))
	}},
	{"a declined card and another", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.refusedBy("tok_decline", "payment_declined"), b.buy("tok_approve"))
	}},
	{"a price that has changed", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.oldPrice, b.refusedBy("tok_approve", "cart_changed"), b.quote, b.buy("tok_approve"))
	}},
	{"3-D Secure", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.challenged, b.confirm, b.approve, b.confirm, b.reach("placed"))
	}},
	{"an answer of the provider that is lost", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.buy("tok_timeout"))
	}},
	{"an answer of the provider that comes late, twice", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.buy("tok_late_webhook"))
	}},
	{"a slow provider that fails to capture at first", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.buy("tok_slow"))
	}},
	{"an order cancelled", "cancelled", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(2, 1), b.quote, b.buy("tok_approve"), b.cancel(0))
	}},
	{"an order cancelled in part", "placed", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(3), b.promo, b.quote, b.buy("tok_approve"), b.cancel(1), b.cancel(1))
	}},
	{"3-D Secure abandoned", "expired", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.promo, b.quote, b.challenged, b.timePasses)
	}},
	{"a declined card and no other", "expired", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(1), b.quote, b.refusedBy("tok_decline", "payment_declined"), b.timePasses)
	}},
	{"goods stolen after the payment", "cancelled", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(2), b.quote, b.challenged, b.steal, b.approve, b.confirm, b.reach("failed"))
	}},
	{"goods stolen after the money was taken", "cancelled", func(ctx context.Context, b *buyer) error {
		return inTurn(ctx, b.fill(2), b.promo, b.quote, b.challenged, b.steal, b.takeMoney, b.confirm, b.reach("failed"))
	}},
}

// troubles make the first capture of tok_slow fail, and twice the confirmation of the one customer's order: statements for the
// database of the module. Sequences count them, since they are not rolled back with what failed.
var troubles = map[string]string{
	"payments": `
CREATE SCHEMA IF NOT EXISTS trouble;
GRANT USAGE ON SCHEMA trouble TO PUBLIC;
CREATE SEQUENCE trouble.captures;
CREATE FUNCTION trouble.capture() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	IF NEW.kind = 'capture' AND (SELECT token FROM payments.simulator_intents WHERE id = NEW.intent) = 'tok_slow' AND nextval('trouble.captures') = 1 THEN
		RAISE EXCEPTION 'the provider is out of order';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER trouble BEFORE INSERT ON payments.simulator_ledger FOR EACH ROW EXECUTE FUNCTION trouble.capture();`,
	"notifications": `
CREATE SCHEMA IF NOT EXISTS trouble;
GRANT USAGE ON SCHEMA trouble TO PUBLIC;
CREATE SEQUENCE trouble.messages;
CREATE FUNCTION trouble.message() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
	IF nextval('trouble.messages') <= 2 THEN
		RAISE EXCEPTION 'no more messages today';
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER trouble BEFORE INSERT ON notifications.messages FOR EACH ROW
	WHEN (NEW.template = 'order_confirmation' AND NEW.data->>'customer' <> '') EXECUTE FUNCTION trouble.message();`,
}

// databases are where the data of each module is, as superuser: all in one, or each in its own.
type databases func(module string) *sql.DB

// buyer is the client of one journey, and keeps its journal.
type buyer struct {
	journey journey
	url     string
	client  *http.Client
	of      databases
	skus    []string // its own, in which nobody else deals

	header                       http.Header
	cart, option, checkout, next string
	address                      string // in the customer's address book
	total                        json.RawMessage
	order                        string
	keys                         int // used so far

	journal []entry
}

// entry is a request that has its final answer.
type entry struct {
	method, path, key string
	body              any
	tries             int // of all but the last nobody knows what became
	reply             reply
}

type reply struct {
	status int
	raw    []byte
	told
}

// told is what the shop's answers are read for.
type told struct {
	ID          string
	State       string
	Token       string
	Code        string
	AccessToken string `json:"access_token"`
	OrderID     string `json:"order_id"`
	OrderToken  string `json:"order_token"`
	NextAction  struct {
		URL string
	} `json:"next_action"`
	Data []struct {
		ID    string
		Total json.RawMessage
	}
	Lines []struct {
		SKU       string
		Quantity  int64
		Cancelled int64
	}
}

type act = func(context.Context) error

func inTurn(ctx context.Context, acts ...act) error {
	for _, a := range acts {
		if err := a(ctx); err != nil {
			return err
		}
	}
	return nil
}

// send sends a request until it has a final answer, and notes that.
func (b *buyer) send(ctx context.Context, method, path, key string, body any) (reply, error) {
	e := entry{method: method, path: path, key: key, body: body}
	err := until(ctx, method+" "+path, func() (bool, error) {
		e.tries++
		r, ok, err := b.once(ctx, e)
		e.reply = r
		return ok, err
	})
	b.journal = append(b.journal, e)
	return e.reply, err
}

// once sends a request one time. Not ok: it has to be sent again, to hear what became of it or because somebody is at it.
func (b *buyer) once(ctx context.Context, e entry) (r reply, ok bool, err error) {
	var body io.Reader
	if e.body != nil {
		raw, err := json.Marshal(e.body)
		if err != nil {
			return r, false, err
		}
		body = bytes.NewReader(raw)
	}
	url := e.path
	if strings.HasPrefix(url, "/") {
		url = b.url + url
	}
	q, err := http.NewRequestWithContext(ctx, e.method, url, body)
	if err != nil {
		return r, false, err
	}
	q.Header = b.header.Clone()
	q.Header.Set("Content-Type", "application/json")
	if e.key != "" {
		q.Header.Set("Idempotency-Key", e.key)
	}
	res, err := b.client.Do(q)
	if err != nil {
		return r, false, nil //nolint:nilerr // nobody knows what became of it
	}
	defer res.Body.Close()
	r.status = res.StatusCode
	if r.raw, err = io.ReadAll(res.Body); err != nil {
		return r, false, nil //nolint:nilerr // the same
	}
	if err := json.Unmarshal(r.raw, &r.told); err != nil && r.status < 500 {
		return r, false, fmt.Errorf("%s %s: %d %s: %w", e.method, e.path, r.status, r.raw, err)
	}
	busy := r.Code == "checkout_in_progress" || r.Code == "request_in_progress"
	return r, r.status < 500 && !busy, nil
}

// must is send for what can only go well.
func (b *buyer) must(ctx context.Context, method, path, key string, body any) (reply, error) {
	r, err := b.send(ctx, method, path, key, body)
	if err == nil && r.status/100 != 2 {
		err = fmt.Errorf("%s %s: %d %s", method, path, r.status, r.raw)
	}
	return r, err
}

// again sends every request that had a key once more, long after: the answer must be the one it got, or, where the first said
// that there was more to come, of the same checkout.
func (b *buyer) again(ctx context.Context) error {
	for _, e := range b.journal {
		if e.key == "" {
			continue
		}
		r, err := b.send(ctx, e.method, e.path, e.key, e.body)
		if err != nil {
			return err
		}
		same := r.status == e.reply.status && r.Code == e.reply.Code && r.ID == e.reply.ID
		switch e.reply.status {
		case http.StatusAccepted:
			same = r.ID == e.reply.ID
		case http.StatusCreated:
			if e.path == "/v1/checkouts" {
				same = bytes.Equal(r.raw, e.reply.raw)
			}
		}
		if !same {
			return fmt.Errorf("%s %s with key %s said %d %s, and again %d %s", e.method, e.path, e.key, e.reply.status, e.reply.raw, r.status, r.raw)
		}
	}
	return nil
}

func (b *buyer) login(ctx context.Context) error {
	r, err := b.must(ctx, "POST", "/v1/auth/login", "", map[string]string{"email": usersapi.DemoShopper, "password": usersapi.DemoShopperPassword})
	b.header.Set("Authorization", "Bearer "+r.AccessToken)
	return err
}

// fill makes a cart with that many of each of its SKUs.
func (b *buyer) fill(quantities ...int) act {
	return func(ctx context.Context) error {
		r, err := b.must(ctx, "POST", "/v1/carts", "", map[string]string{"currency": "EUR"})
		if err != nil {
			return err
		}
		if b.cart = r.ID; r.Token != "" {
			b.header.Set("X-Cart-Token", r.Token)
		}
		for i, n := range quantities { // without a key: a repeat may add up, which the quote then shows
			if _, err := b.must(ctx, "POST", "/v1/carts/"+b.cart+"/items", "", map[string]any{"sku": b.skus[i], "quantity": n}); err != nil {
				return err
			}
		}
		return nil
	}
}

func (b *buyer) promo(ctx context.Context) error {
	_, err := b.must(ctx, "POST", "/v1/carts/"+b.cart+"/promo-codes", "", map[string]string{"code": "WELCOME10"})
	return err
}

// fromBook has the order sent to an address of the customer's book.
func (b *buyer) fromBook(ctx context.Context) error {
	r, err := b.must(ctx, "POST", "/v1/me/addresses", b.cart+"/address", shipTo)
	b.address = r.ID
	return err
}

var shipTo = map[string]string{"name": "Eve", "line1": "Main 1", "city": "Berlin", "postcode": "10115", "country": "DE"}

func (b *buyer) quote(ctx context.Context) error {
	r, err := b.must(ctx, "POST", "/v1/carts/"+b.cart+"/shipping-quotes", "", map[string]any{"address": shipTo})
	if err != nil {
		return err
	}
	if len(r.Data) == 0 {
		return fmt.Errorf("no way to deliver: %s", r.raw)
	}
	b.option, b.total = r.Data[0].ID, r.Data[0].Total
	return nil
}

// oldPrice is what the shopper remembers.
func (b *buyer) oldPrice(context.Context) error {
	b.total = json.RawMessage(`{"amount": 1, "currency": "EUR"}`)
	return nil
}

// pay begins a checkout, or pays a declined one again, with a key of its own.
func (b *buyer) pay(ctx context.Context, token string) (reply, error) {
	b.keys++
	body := map[string]any{
		"cart_id": b.cart, "email": "eve@example.com", "shipping_address": shipTo, "shipping_option": b.option,
		"expected_total": b.total, "payment": map[string]string{"provider": "simulator", "token": token},
	}
	if b.address != "" {
		delete(body, "shipping_address")
		body["shipping_address_id"] = b.address
	}
	r, err := b.send(ctx, "POST", "/v1/checkouts", fmt.Sprintf("%s/%d", b.cart, b.keys), body)
	if err == nil && r.status/100 == 2 {
		b.checkout = r.ID
	}
	return r, err
}

// buy pays and follows the checkout until the order is placed.
func (b *buyer) buy(token string) act {
	return func(ctx context.Context) error {
		r, err := b.pay(ctx, token)
		if err != nil {
			return err
		}
		if r.status != http.StatusCreated && r.status != http.StatusAccepted {
			return fmt.Errorf("pay with %s: %d %s", token, r.status, r.raw)
		}
		return b.reach("placed")(ctx)
	}
}

func (b *buyer) refusedBy(token, code string) act {
	return func(ctx context.Context) error {
		r, err := b.pay(ctx, token)
		if err == nil && r.Code != code {
			err = fmt.Errorf("pay with %s: %d %s, want %s", token, r.status, r.raw, code)
		}
		return err
	}
}

// challenged pays with a card that wants 3-D Secure.
func (b *buyer) challenged(ctx context.Context) error {
	r, err := b.pay(ctx, "tok_3ds")
	if err != nil {
		return err
	}
	if r.status != http.StatusAccepted {
		return fmt.Errorf("pay with 3-D Secure: %d %s", r.status, r.raw)
	}
	return b.reach("action_required")(ctx)
}

// reach follows the checkout until it is in a state.
func (b *buyer) reach(state string) act {
	return func(ctx context.Context) error {
		return until(ctx, "the checkout to be "+state, func() (bool, error) {
			r, err := b.must(ctx, "GET", "/v1/checkouts/"+b.checkout+"?wait=2s", "", nil)
			if err != nil {
				return false, err
			}
			b.next = r.NextAction.URL
			if r.OrderID != "" {
				b.order = r.OrderID
			}
			if r.OrderToken != "" {
				b.header.Set("X-Order-Token", r.OrderToken)
			}
			return r.State == state, nil
		})
	}
}

// approve is what the shopper does at the bank.
func (b *buyer) approve(ctx context.Context) error {
	_, err := b.must(ctx, "POST", b.next, "", map[string]string{"outcome": "approve"})
	return err
}

// confirm asks for a look at the payment, whatever that comes to.
func (b *buyer) confirm(ctx context.Context) error {
	_, err := b.must(ctx, "POST", "/v1/checkouts/"+b.checkout+"/confirm", "", nil)
	return err
}

// cancel cancels n of the first SKU, or all for 0, and waits until that is done.
func (b *buyer) cancel(n int64) act {
	return func(ctx context.Context) error {
		b.keys++
		body := map[string]any{"reason": "changed my mind"}
		if n > 0 {
			body["lines"] = []map[string]any{{"sku": b.skus[0], "quantity": n}}
		}
		before, err := b.cancelled(ctx)
		if err != nil {
			return err
		}
		if _, err := b.must(ctx, "POST", "/v1/orders/"+b.order+"/cancellations", fmt.Sprintf("%s/%d", b.cart, b.keys), body); err != nil {
			return err
		}
		return until(ctx, "the cancellation", func() (bool, error) {
			now, err := b.cancelled(ctx)
			return now >= before+max(n, 1), err
		})
	}
}

// cancelled is how many of the order's first SKU are.
func (b *buyer) cancelled(ctx context.Context) (int64, error) {
	r, err := b.must(ctx, "GET", "/v1/orders/"+b.order, "", nil)
	for _, l := range r.Lines {
		if l.SKU == b.skus[0] {
			return l.Cancelled, err
		}
	}
	return 0, err
}

// timePasses lets the deadline of the checkout go by. Whoever holds the checkout writes it as it was before, hence again.
func (b *buyer) timePasses(ctx context.Context) error {
	return until(ctx, "the checkout to expire", func() (expired bool, err error) {
		if _, err = b.of("orders").ExecContext(ctx, `
			UPDATE orders.checkouts SET deadline = now() - interval '1 minute', next_at = CASE WHEN lease_until > now() THEN next_at ELSE now() END
			WHERE cart = $1 AND state IN ('action_required', 'payment_failed')`, b.cart); err != nil {
			return false, err
		}
		err = b.of("orders").QueryRowContext(ctx, `SELECT order_id, state = 'expired' FROM orders.checkouts WHERE cart = $1`, b.cart).Scan(&b.order, &expired)
		return expired, err
	})
}

// steal takes the goods that are promised to the checkout off the shelf, and all others of them but those of orders that stand.
func (b *buyer) steal(ctx context.Context) error {
	n, err := b.of("catalog").ExecContext(ctx, `
		WITH gone AS (
			DELETE FROM catalog.reservations WHERE checkout = $1 RETURNING sku, quantity),
		empty AS (
			UPDATE catalog.levels AS l SET on_hand = kept.n, reserved = kept.n
			FROM gone g CROSS JOIN LATERAL (
				SELECT coalesce(sum(a.quantity - a.shipped - a.cancelled), 0) AS n FROM catalog.allocations a WHERE a.sku = g.sku) AS kept
			WHERE l.sku = g.sku RETURNING l.sku, l.location, l.on_hand)
		INSERT INTO catalog.movements (reference, sku, location, delta, reason, moved_at)
		SELECT 'thief ' || $1, e.sku, e.location, e.on_hand - (SELECT sum(m.delta) FROM catalog.movements m WHERE m.sku = e.sku), 'stolen', now() FROM empty e`, b.checkout)
	if err != nil {
		return fmt.Errorf("steal: %w", err)
	}
	if rows, err := n.RowsAffected(); err != nil || rows == 0 {
		return fmt.Errorf("nothing to steal: %w", err)
	}
	return nil
}

// takeMoney is a capture that was made, booked and forgotten to be told.
func (b *buyer) takeMoney(ctx context.Context) error {
	_, err := b.of("payments").ExecContext(ctx, `
		WITH p AS (
			UPDATE payments.payments SET state = 'captured', captured = amount, capture_claimed = amount
			WHERE checkout = $1 RETURNING id, amount, currency),
		i AS (
			UPDATE payments.simulator_intents AS i SET state = 'captured', captured = i.amount FROM p WHERE i.key = p.id RETURNING i.id, i.amount),
		l AS (
			INSERT INTO payments.simulator_ledger (key, intent, kind, amount, at) SELECT $1, id, 'capture', amount, now() FROM i),
		c AS (
			INSERT INTO payments.commands (key, payment, kind, amount, state, created_at, done_at)
			SELECT $1, id, 'capture', amount, 'done', now(), now() FROM p RETURNING key)
		INSERT INTO payments.entries (command, account, payment, amount, currency, at)
		SELECT c.key, a.account, p.id, a.sign * p.amount, p.currency, now()
		FROM p, c, (VALUES ('provider', 1), ('sales', -1)) AS a (account, sign)`, b.checkout)
	return err
}

// until asks again and again whether something has come to pass.
func until(ctx context.Context, what string, done func() (bool, error)) error {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		ok, err := done()
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
