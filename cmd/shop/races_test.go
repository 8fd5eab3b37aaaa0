package main

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// races are what must come out right however requests, events and processes meet. Those of one module are its own tests'; these go
// through the whole shop. That every event heard is told and has a schema is TestEveryEventHasAPublisherAndAHearer; that a crash
// changes nothing of it all is the crash tests'.
var races = []struct {
	name string
	run  func(*market)
}{
	{"T1 many want the last ten", (*market).theLastTen},
	{"T2 one article twice", (*market).oneArticleTwice},
	{"T3 stock is what its ledger says", (*market).stockAddsUp},
	{"T4 a cart filled as it is bought", (*market).filledWhileBought},
	{"T5 goods vanish after the payment", (*market).goodsVanish},
	{"T6 confirmation and webhook meet", (*market).confirmedAndTold},
	{"T7 who loses takes nothing from who wins", (*market).oneCartManyAttempts},
	{"T8 the second of three refunds fails", (*market).aRefundFails},
	{"T9 cancellations at once", (*market).cancelledAtOnce},
	{"T10 no mail of what did not happen", (*market).noMailOfNothing},
}

// TestRaces runs each race in one process, through the wire and all out. A shop sees all races at once, each with articles of its own.
func TestRaces(t *testing.T) {
	t.Parallel()
	for _, placement := range []string{"one", "wire", "split"} {
		t.Run(placement, func(t *testing.T) {
			t.Parallel()
			r := bootAll(t, placement, time.Now, map[string]string{
				"secret": worldSecret, "orders.poll": "50ms", "payments.poll": "50ms", "payments.late_webhook": "200ms", "notifications.poll": "50ms", "users.login_delays": "false",
			})
			r.refundsAtOnce = true
			for _, race := range races {
				t.Run(race.name, func(t *testing.T) {
					t.Parallel()
					race.run(newMarket(t, r))
				})
			}
		})
	}
}

// market is one race in a shop.
type market struct {
	*world
	r   *running
	ctx context.Context //nolint:containedctx // of all that the race's shoppers do

	mu  sync.Mutex
	dbs map[string]*sql.DB // by module, once asked for
}

func newMarket(t *testing.T, r *running) *market {
	t.Helper()
	secret, err := auth.ParseSecret(worldSecret)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, errors.New("two minutes have passed"))
	t.Cleanup(cancel)
	m := &market{world: &world{t: t, h: r.front, secret: secret, tokens: map[string]string{}}, r: r, ctx: ctx}
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, usersapi.DemoAdmin, usersapi.DemoAdminPassword)
	m.tokens["admin"] = m.must(m.send(call{method: "POST", target: "/v1/auth/login", body: body}), 200).text("access_token")
	return m
}

// db is the database of a module, as superuser.
func (m *market) db(module string) *sql.DB {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if db := m.dbs[module]; db != nil {
		return db
	}
	h := m.r.Host(module)
	db, err := pg.OpenAdmin(m.ctx, cmp.Or(h.Plan.DatabaseURL(module).Reveal(), h.Settings.DatabaseURL.Reveal()))
	if err != nil {
		m.t.Error(err) // shoppers ask too, who are no tests
		return nil
	}
	m.t.Cleanup(func() { db.Close() })
	if m.dbs == nil {
		m.dbs = map[string]*sql.DB{}
	}
	m.dbs[module] = db
	return db
}

func (m *market) number(db *sql.DB, query string, args ...any) (n int64) {
	m.t.Helper()
	if err := db.QueryRowContext(m.ctx, query, args...).Scan(&n); err != nil {
		m.t.Fatalf("%s: %v", query, err)
	}
	return n
}

// comes waits until a number is the one wanted.
func (m *market) comes(want int64, what string, db *sql.DB, query string, args ...any) {
	m.t.Helper()
	var n int64
	err := until(m.ctx, what, func() (bool, error) {
		err := db.QueryRowContext(m.ctx, query, args...).Scan(&n)
		return n == want, err
	})
	if err != nil {
		m.t.Errorf("%s is %d, not %d: %v", what, n, want, err)
	}
}

// article is a new SKU with so many on hand, for 12.00 EUR.
func (m *market) article(stock int) string {
	m.t.Helper()
	sku := strings.ToUpper(string(ids.New[ids.ID]("sku"))[20:])
	body := fmt.Sprintf(`{"name":"Thing %s","category":"tents","sku":%q,"price":{"amount":1200,"currency":"EUR"},"stock":%d}`, sku, sku, stock)
	m.must(m.send(call{method: "POST", target: "/v1/admin/products", token: m.tokens["admin"], body: body}), 201)
	return sku
}

func (m *market) shopper(skus ...string) *buyer {
	return &buyer{url: m.h.URL(), client: &http.Client{Timeout: 40 * time.Second}, header: http.Header{}, skus: skus, of: m.db}
}

// does ends the race when a shopper can't go on.
func (m *market) does(acts ...act) {
	m.t.Helper()
	if err := inTurn(m.ctx, acts...); err != nil {
		m.t.Fatal(err)
	}
}

// atOnce does things at the same moment, as near as can be.
func (m *market) atOnce(n int, do func(i int) error) {
	m.t.Helper()
	var all sync.WaitGroup
	start := make(chan struct{})
	failed := make([]error, n)
	for i := range n {
		all.Go(func() { <-start; failed[i] = do(i) })
	}
	close(start)
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		m.t.Fatal(err)
	}
}

// outcome pays and says what became of it in the end: "placed", or why not.
func (b *buyer) outcome(ctx context.Context, token string) (string, error) {
	r, err := b.pay(ctx, token)
	if err != nil || r.status/100 != 2 {
		return r.Code, err
	}
	state := r.State
	err = until(ctx, "the checkout to end", func() (bool, error) {
		if state != "pending" {
			return true, nil
		}
		r, err := b.must(ctx, "GET", "/v1/checkouts/"+b.checkout+"?wait=2s", "", nil)
		state = r.State
		return false, err
	})
	if err == nil && state == "placed" {
		err = b.reach("placed")(ctx)
	}
	return state, err
}

// theLastTen is T1: 64 want one each of ten. Ten get one.
func (m *market) theLastTen() {
	const buyers, stock = 64, 10
	sku := m.article(stock)
	all := make([]*buyer, buyers)
	m.atOnce(buyers, func(i int) error {
		all[i] = m.shopper(sku)
		return inTurn(m.ctx, all[i].fill(1), all[i].quote)
	})
	var mu sync.Mutex
	outcomes := map[string]int{}
	m.atOnce(buyers, func(i int) error {
		o, err := all[i].outcome(m.ctx, "tok_approve")
		mu.Lock()
		defer mu.Unlock()
		outcomes[o]++
		return err
	})
	if outcomes["placed"] != stock || outcomes["placed"]+outcomes["cart_changed"]+outcomes["insufficient_stock"]+outcomes["failed"] != buyers {
		m.t.Errorf("of %d shoppers, want %d placed and all others told that there is no more: %v", buyers, stock, outcomes)
	}
	m.t.Logf("%d shoppers: %v", buyers, outcomes)
	goods := m.db("catalog")
	m.comes(0, "what can still be had", goods, `SELECT sum(on_hand - reserved) FROM catalog.levels WHERE sku = $1`, sku)
	m.comes(stock, "what is promised to orders", goods, `SELECT coalesce(sum(quantity - cancelled), 0) FROM catalog.allocations WHERE sku = $1`, sku)
	if n := m.number(goods, `SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); n > 0 {
		m.t.Errorf("%d deadlocks", n)
	}
	paid := m.db("payments")
	for _, b := range all {
		if b.order == "" && b.checkout != "" {
			m.comes(0, "what is held of a shopper who got nothing", paid, `SELECT count(*) FROM payments.payments WHERE checkout = $1 AND state IN ('authorised', 'captured')`, b.checkout)
		}
	}
}

// oneArticleTwice is T2: two lines of an article, in one call or by two requests, never come to more than there is.
func (m *market) oneArticleTwice() {
	sku := m.article(10)
	goods := catalogapi.Dial(m.r.Host("orders").Dialer("orders"))
	line := catalogapi.Quantity{SKU: sku, Quantity: 6}
	_, err := goods.Reserve(m.ctx, catalogapi.ReserveRequest{Key: string(ids.New[ids.ID]("key")), Checkout: ids.New[ids.ID]("chk"),
		Lines: []catalogapi.Quantity{line, line}, Until: time.Now().Add(time.Minute)})
	var short catalogapi.Shortages
	if !errs.Has(err, "insufficient_stock") || !errs.DetailsInto(err, &short) || len(short.Lines) != 1 || short.Lines[0].Requested != 12 {
		m.t.Errorf("two lines of six out of ten: %v, %+v", err, short)
	}
	b := m.shopper(sku)
	m.does(b.fill())
	var mu sync.Mutex
	statuses := map[int]int{}
	m.atOnce(2, func(int) error {
		again := *b
		r, err := again.send(m.ctx, "POST", "/v1/carts/"+b.cart+"/items", "", map[string]any{"sku": sku, "quantity": 6})
		mu.Lock()
		defer mu.Unlock()
		statuses[r.status]++
		return err
	})
	r, err := b.must(m.ctx, "GET", "/v1/carts/"+b.cart, "", nil)
	if err != nil || len(r.Lines) != 1 || r.Lines[0].Quantity != 6 || statuses[200] != 1 || statuses[409] != 1 {
		m.t.Errorf("six and six of ten: %v, then %s, %v", statuses, r.raw, err)
	}
	m.comes(0, "what is promised", m.db("catalog"), `SELECT sum(reserved) FROM catalog.levels WHERE sku = $1`, sku)
}

// stockAddsUp is T3: whatever shoppers and the shopkeeper do in whatever order, levels are what the ledger and the promises say, and
// orders have what they were promised.
func (m *market) stockAddsUp() {
	skus := []string{m.article(30), m.article(30)}
	orders := m.db("orders")
	ship := func(b *buyer) act {
		return func(ctx context.Context) error {
			var parcel string
			err := until(ctx, "a parcel", func() (bool, error) {
				r, err := b.must(ctx, "GET", "/v1/orders/"+b.order+"/shipments", "", nil)
				if len(r.Data) > 0 {
					parcel = r.Data[0].ID
				}
				return parcel != "", err
			})
			if err != nil {
				return err
			}
			keeper := *b
			keeper.header = http.Header{"Authorization": {"Bearer " + m.tokens["admin"]}}
			_, err = keeper.must(ctx, "POST", "/v1/admin/shipments/"+parcel+"/events", b.cart+"/shipped", map[string]string{"status": "shipped", "tracking_number": "T"})
			return err
		}
	}
	adjust := func(sku string, by int) act {
		return func(ctx context.Context) error {
			keeper := m.shopper()
			keeper.header.Set("Authorization", "Bearer "+m.tokens["admin"])
			_, err := keeper.must(ctx, "POST", "/v1/admin/stock-adjustments", string(ids.New[ids.ID]("key")), map[string]any{"sku": sku, "delta": by, "reason": "counted"})
			return err
		}
	}
	const shoppers = 10
	m.atOnce(shoppers, func(i int) error {
		dice := rand.New(rand.NewPCG(7, uint64(i)))
		for range 2 {
			b := m.shopper(skus[dice.IntN(2)], skus[0])
			begin := []act{b.fill(1 + dice.IntN(2)), b.quote}
			way := [][]act{
				{b.buy("tok_approve"), ship(b)},
				{b.buy("tok_approve"), b.cancel(0)},
				{b.buy("tok_approve"), adjust(b.skus[0], 1), b.cancel(1)},
				{b.challenged, b.timePasses},
				{b.refusedBy("tok_decline", "payment_declined"), adjust(b.skus[0], -1), b.timePasses},
				{b.challenged, b.approve, b.confirm, b.reach("placed")},
			}[(i+dice.IntN(2))%6]
			if err := inTurn(m.ctx, append(begin, way...)...); err != nil {
				return fmt.Errorf("shopper %d: %w", i, err)
			}
		}
		return nil
	})
	goods := m.db("catalog")
	m.comes(0, "what is promised to checkouts that are over", goods, `SELECT count(*) FROM catalog.reservations WHERE sku IN ($1, $2)`, skus[0], skus[1])
	for _, sku := range skus {
		m.comes(m.number(orders, `
			SELECT coalesce(sum(l.quantity - coalesce(l.cancelled, 0)), 0) FROM orders.orders o, jsonb_to_recordset(o.lines) AS l (sku text, quantity bigint, cancelled bigint)
			WHERE o.placed_at IS NOT NULL AND l.sku = $1`, sku),
			"what orders have", goods, `SELECT coalesce(sum(quantity - cancelled), 0) FROM catalog.allocations WHERE sku = $1`, sku)
	}
	for _, i := range invariants {
		if !strings.HasPrefix(i.what, "I3: stock is the sum") {
			continue
		}
		if n := m.number(goods, `SELECT count(*) FROM (`+i.query+`) AS wrong`); n > 0 {
			m.t.Errorf("%s: not so for %d", i.what, n)
		}
		return
	}
	m.t.Error("the invariant of stock has another name now")
}

// filledWhileBought is T4: what a shopper adds while he buys is in what he was quoted, or refused.
func (m *market) filledWhileBought() {
	sku := m.article(1000)
	carts, seen := m.db("cart"), map[string]int{}
	for round := range 6 {
		b := m.shopper(sku)
		m.does(b.fill(1), b.quote)
		outcome, added := "", 0
		m.atOnce(2, func(i int) (err error) {
			if i == 0 {
				outcome, err = b.outcome(m.ctx, "tok_approve")
				return err
			}
			if round%2 == 1 { // an addition takes less time than a checkout, so let it begin late
				err := until(m.ctx, "the checkout to have the cart", func() (begun bool, err error) {
					err = carts.QueryRowContext(m.ctx, `SELECT state <> 'active' FROM cart.carts WHERE id = $1`, b.cart).Scan(&begun)
					return begun, err
				})
				if err != nil {
					return err
				}
			}
			other := *b
			r, err := other.send(m.ctx, "POST", "/v1/carts/"+b.cart+"/items", "", map[string]any{"sku": sku, "quantity": 1})
			added = r.status
			return err
		})
		seen[fmt.Sprintf("%s, %d", outcome, added)]++
		switch {
		case outcome == "placed" && added == 409:
			o, err := b.must(m.ctx, "GET", "/v1/orders/"+b.order, "", nil)
			var paid struct{ Total json.RawMessage }
			if err != nil || json.Unmarshal(o.raw, &paid) != nil || !bytes.Equal(paid.Total, b.total) || len(o.Lines) != 1 || o.Lines[0].Quantity != 1 {
				m.t.Errorf("quoted %s, and got %s, %v", b.total, o.raw, err)
			}
		case outcome == "cart_changed" && added == 200:
		default:
			m.t.Errorf("the order: %s, the addition: %d", outcome, added)
		}
	}
	if seen["placed, 409"] < 3 {
		m.t.Errorf("the checkout never came first: %v", seen)
	}
}

// goodsVanish is T5: when there is nothing left after the payment, the payment is given back, the shopper is told, and nothing waits.
func (m *market) goodsVanish() {
	orders, paid := m.db("orders"), m.db("payments")
	for _, taken := range []bool{false, true} { // the money is held, or was taken already
		b := m.shopper(m.article(5))
		m.does(b.fill(2), b.quote, b.challenged, b.steal)
		if taken {
			m.does(b.takeMoney)
		} else {
			m.does(b.approve)
		}
		m.does(b.confirm, b.reach("failed"))
		r, err := b.must(m.ctx, "GET", "/v1/checkouts/"+b.checkout, "", nil)
		if err != nil || !strings.Contains(string(r.raw), `"code":"out_of_stock"`) {
			m.t.Errorf("the shopper is told %s, %v", r.raw, err)
		}
		m.comes(1, "orders cancelled", orders, `SELECT count(*) FROM orders.orders WHERE id = $1 AND state = 'cancelled'`, b.order)
		m.comes(0, "checkouts that wait", orders, `SELECT count(*) FROM orders.checkouts WHERE cart = $1 AND next_at IS NOT NULL`, b.cart)
		m.comes(0, "money that is kept", paid, `
			SELECT sum(CASE WHEN i.state = 'voided' THEN 0 WHEN i.state = 'captured' THEN i.captured - i.refunded ELSE i.amount END)
			FROM payments.payments p JOIN payments.simulator_intents i ON i.key = p.id WHERE p.checkout = $1`, b.checkout)
		r, err = b.must(m.ctx, "GET", "/v1/carts/"+b.cart, "", nil)
		if err != nil || r.State != "active" {
			m.t.Errorf("the cart is %s, %v", r.raw, err)
		}
	}
}

// confirmedAndTold is T6: the shopper comes back three times while the provider tells three times. There is one order, paid once.
func (m *market) confirmedAndTold() {
	sku := m.article(50)
	orders, paid := m.db("orders"), m.db("payments")
	for range 3 {
		b := m.shopper(sku)
		m.does(b.fill(1), b.quote, b.challenged, b.approve)
		intent := b.next[strings.LastIndex(b.next, "/")+1:]
		var key string
		if err := paid.QueryRowContext(m.ctx, `SELECT key FROM payments.simulator_intents WHERE id = $1`, intent).Scan(&key); err != nil {
			m.t.Fatal(err)
		}
		hook := m.webhook(fmt.Sprintf(`{"id":%q,"type":"intent.changed","data":{"intent":%q,"key":%q,"state":"authorised"}}`, ids.New[ids.ID]("whk"), intent, key))
		m.atOnce(6, func(i int) error {
			if i%2 == 0 {
				if a := m.send(hook); a.status != 200 {
					return errors.New(a.String())
				}
				return nil
			}
			other := *b
			return other.confirm(m.ctx)
		})
		m.does(b.reach("placed"))
		m.comes(1, "orders of the cart", orders, `SELECT count(*) FROM orders.orders WHERE cart = $1`, b.cart)
		m.comes(1, "captures", paid, `SELECT count(*) FROM payments.simulator_ledger WHERE intent = $1 AND kind = 'capture'`, intent)
		m.comes(0, "other bookings", paid, `SELECT count(*) FROM payments.simulator_ledger WHERE intent = $1 AND kind NOT IN ('capture', 'authorise', 'authorize')`, intent)
		m.comes(0, "checkouts that wait", orders, `SELECT count(*) FROM orders.checkouts WHERE cart = $1 AND next_at IS NOT NULL`, b.cart)
	}
}

// oneCartManyAttempts is T7: of the attempts to buy one cart one succeeds, and those that fail give back nothing of it.
func (m *market) oneCartManyAttempts() {
	sku := m.article(50)
	orders, paid := m.db("orders"), m.db("payments")
	for range 3 {
		b := m.shopper(sku)
		m.does(b.fill(1), b.quote)
		const attempts = 4
		outcomes := make([]string, attempts)
		m.atOnce(attempts, func(i int) (err error) {
			other := *b
			other.keys = 10 * i
			outcomes[i], err = other.outcome(m.ctx, "tok_approve")
			return err
		})
		placed := 0
		for _, o := range outcomes {
			switch o {
			case "placed":
				placed++
			case "cart_locked", "cart_completed":
			default:
				m.t.Errorf("an attempt came to %q", o)
			}
		}
		if placed == 0 {
			m.t.Errorf("nobody got the cart: %v", outcomes)
		}
		m.comes(1, "orders that stand", orders, `SELECT count(*) FROM orders.orders WHERE cart = $1 AND state = 'placed'`, b.cart)
		m.comes(0, "checkouts that wait", orders, `SELECT count(*) FROM orders.checkouts WHERE cart = $1 AND next_at IS NOT NULL`, b.cart)
		var order string
		if err := orders.QueryRowContext(m.ctx, `SELECT id FROM orders.orders WHERE cart = $1 AND state = 'placed'`, b.cart).Scan(&order); err != nil {
			m.t.Fatal(err)
		}
		m.comes(1, "payments captured whole", paid, `SELECT count(*) FROM payments.payments WHERE order_id = $1 AND state = 'captured' AND captured = amount AND refunded = 0`, order)
	}
}

// aRefundFails is T8: the provider fails the second of three refunds. What it did not do is not booked, is done later, and once.
func (m *market) aRefundFails() {
	b := m.shopper(m.article(10))
	m.does(b.fill(3), b.quote, b.buy("tok_approve"))
	orders, paid := m.db("orders"), m.db("payments")
	m.comes(1, "payments captured", paid, `SELECT count(*) FROM payments.payments WHERE order_id = $1 AND captured = amount`, b.order)
	if _, err := paid.ExecContext(m.ctx, `
		CREATE SCHEMA moody;
		GRANT USAGE ON SCHEMA moody TO PUBLIC;
		CREATE SEQUENCE moody.refunds;
		CREATE FUNCTION moody.refund() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
		BEGIN
			IF nextval('moody.refunds') = 2 THEN
				RAISE EXCEPTION 'not in the mood';
			END IF;
			RETURN NEW;
		END $$`); err != nil {
		m.t.Fatal(err)
	}
	if _, err := paid.ExecContext(m.ctx, `
		CREATE TRIGGER moody BEFORE INSERT ON payments.simulator_ledger FOR EACH ROW
		WHEN (NEW.kind = 'refund' AND NEW.intent = `+pg.Literal(m.intentOf(paid, b.order))+`) EXECUTE FUNCTION moody.refund()`); err != nil {
		m.t.Fatal(err)
	}
	for _, n := range []int{0, -1} {
		body := map[string]any{"reason": "none", "lines": []map[string]any{{"sku": b.skus[0], "quantity": n}}}
		if r, err := b.send(m.ctx, "POST", "/v1/orders/"+b.order+"/cancellations", fmt.Sprint(b.cart, n), body); err != nil || r.status != 422 {
			m.t.Errorf("%d cancelled: %d %s, %v", n, r.status, r.raw, err)
		}
	}
	for i := range 3 {
		body := map[string]any{"reason": "none", "lines": []map[string]any{{"sku": b.skus[0], "quantity": 1}}}
		r, err := b.must(m.ctx, "POST", "/v1/orders/"+b.order+"/cancellations", fmt.Sprint(b.cart, "/one/", i), body)
		if err != nil || r.State != "done" && r.State != "pending" {
			m.t.Errorf("cancellation %d: %s, %v", i, r.raw, err)
		}
		// Whatever has been done of it by now, nothing more is booked than the provider gave back.
		if n := m.number(paid, `SELECT count(*) FROM payments.payments p JOIN payments.simulator_intents i ON i.key = p.id WHERE p.order_id = $1 AND p.refunded > i.refunded`, b.order); n > 0 {
			m.t.Error("more is booked than was given back")
		}
	}
	m.comes(3, "cancellations done", orders, `SELECT count(*) FROM orders.cancellations WHERE order_id = $1 AND state = 'done'`, b.order)
	m.comes(3, "refunds", paid, `SELECT count(*) FROM payments.simulator_ledger WHERE kind = 'refund' AND intent = $1`, m.intentOf(paid, b.order))
	m.comes(1, "payments given back whole, and nothing claimed", paid, `SELECT count(*) FROM payments.payments WHERE order_id = $1 AND refunded = captured AND refund_claimed = refunded`, b.order)
	m.comes(1, "orders cancelled", orders, `SELECT count(*) FROM orders.orders WHERE id = $1 AND state = 'cancelled' AND refunded = captured`, b.order)
	if n := m.number(paid, `SELECT last_value FROM moody.refunds`); n < 4 {
		m.t.Errorf("the provider was asked %d times: it never failed", n)
	}
}

func (m *market) intentOf(paid *sql.DB, order string) (intent string) {
	m.t.Helper()
	err := paid.QueryRowContext(m.ctx, `
		SELECT i.id FROM payments.simulator_intents i JOIN payments.payments p ON p.id = i.key WHERE p.order_id = $1 AND p.captured > 0`, order).Scan(&intent)
	if err != nil {
		m.t.Fatal(err)
	}
	return intent
}

// cancelledAtOnce is T9: cancellations that meet give back what was paid, and no cent more.
func (m *market) cancelledAtOnce() {
	b := m.shopper(m.article(10))
	m.does(b.fill(4), b.quote, b.buy("tok_approve"))
	m.atOnce(9, func(i int) error {
		other := *b
		body := map[string]any{"reason": "changed my mind"}
		if i%3 != 0 {
			body["lines"] = []map[string]any{{"sku": b.skus[0], "quantity": 1 + i%2}}
		}
		r, err := other.send(m.ctx, "POST", "/v1/orders/"+b.order+"/cancellations", fmt.Sprint(b.cart, "/", i), body)
		if err == nil && r.status != 201 && r.status != 409 && r.status != 422 {
			err = fmt.Errorf("cancellation %d: %d %s", i, r.status, r.raw)
		}
		return err
	})
	orders, paid := m.db("orders"), m.db("payments")
	m.comes(0, "cancellations that wait", orders, `SELECT count(*) FROM orders.cancellations WHERE order_id = $1 AND next_at IS NOT NULL`, b.order)
	m.comes(1, "orders cancelled and paid back", orders, `SELECT count(*) FROM orders.orders WHERE id = $1 AND state = 'cancelled' AND captured > 0 AND refunded = captured`, b.order)
	m.comes(0, "what the provider gave back, less what it took", paid, `
		SELECT sum(CASE kind WHEN 'refund' THEN amount WHEN 'capture' THEN -amount ELSE 0 END) FROM payments.simulator_ledger WHERE intent = $1`, m.intentOf(paid, b.order))
	m.comes(0, "what the order still has", m.db("catalog"), `SELECT sum(quantity - cancelled) FROM catalog.allocations WHERE order_id = $1`, b.order)
}

// noMailOfNothing is T10: an order that came to nothing, or whose transaction did, thanks nobody; the next one does.
func (m *market) noMailOfNothing() {
	orders, mails := m.db("orders"), m.db("notifications")
	var never []string
	b := m.shopper(m.article(5))
	m.does(b.fill(1), b.quote, b.oldPrice, b.refusedBy("tok_approve", "cart_changed"), b.quote, b.refusedBy("tok_decline", "payment_declined"))
	var begun string
	if err := orders.QueryRowContext(m.ctx, `SELECT order_id FROM orders.checkouts WHERE cart = $1 AND state = 'payment_failed'`, b.cart).Scan(&begun); err != nil {
		m.t.Fatal(err)
	}
	never = append(never, begun)

	me := m.shopper()
	m.does(me.login)
	who, err := me.must(m.ctx, "GET", "/v1/me", "", nil)
	if err != nil {
		m.t.Fatal(err)
	}
	publish := func(end error) string {
		placed := ordersapi.OrderPlaced{
			Order: ids.New[ordersapi.ID]("ord"), Number: "R-1", Cart: ids.New[ids.ID]("crt"), Customer: ids.ID(who.ID), Country: "DE",
			Lines: []ordersapi.PlacedLine{}, Shipping: money.Of(0, "EUR"), Tax: money.Of(0, "EUR"), Total: money.Of(0, "EUR"), PlacedAt: time.Now().UTC(),
		}
		err := m.r.Host("orders").DB("orders").InTx(m.ctx, func(tx *pg.Tx) error { return errors.Join(events.Publish(m.ctx, tx, placed), end) })
		if !errors.Is(err, end) {
			m.t.Fatal(err)
		}
		return string(placed.Order)
	}
	no := errors.New("no")
	for range 3 {
		never = append(never, publish(no))
	}
	const thanks = `SELECT count(*) FROM notifications.messages WHERE template = 'order_confirmation' AND recipient = 'order:' || $1`
	m.comes(1, "mails of an order that was committed after them", mails, thanks, publish(nil))
	for _, order := range never {
		if n := m.number(mails, thanks, order); n > 0 {
			m.t.Errorf("%d mails of %s, which is no order", n, order)
		}
	}
	m.does(b.buy("tok_approve"))
	m.comes(1, "mails of the order, when it is placed", mails, thanks, b.order)
}
