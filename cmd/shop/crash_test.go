package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// TestACrashAnywhereOfTheShopIsSurvived has all modules in one process. It first lets each journey go by itself and notes which
// failpoints it comes by; then it has the process kill itself there with SIGKILL, at one place after another in a shop that is started
// again each time, and looks at everything that may not be otherwise. Failpoints are found in the source: a new one is tested without
// being named here, and one that no journey comes by fails the test.
func TestACrashAnywhereOfTheShopIsSurvived(t *testing.T) {
	if testing.Short() {
		t.Skip("nearly a hundred deaths")
	}
	t.Parallel()
	places := failpoints(t, "../../modules", "../../platform")
	if len(places) < 60 {
		t.Fatalf("only %d failpoints found in the source", len(places))
	}
	binary, seeded := mortalShop(t), seededDatabase(t, 60)
	enumerate(t, 3, places, func(t *testing.T) *district { return openWhole(t, binary, seeded) })
}

// TestACrashAnywhereOfASplitShopIsSurvived is the same where every module is in a process and a database of its own. A caller is killed
// at its own failpoints; whoever is called, before it has done its work and after, when only the answer is missing.
func TestACrashAnywhereOfASplitShopIsSurvived(t *testing.T) {
	if testing.Short() {
		t.Skip("twenty processes and more than a hundred deaths")
	}
	t.Parallel()
	places := failpoints(t, "../../modules", "../../platform")
	for _, call := range checkoutCalls {
		places = append(places, "rpc."+call+".before", "rpc."+call+".after")
	}
	binary, seeds := mortalShop(t), seededDatabases(t)
	enumerate(t, 2, places, func(t *testing.T) *district { return openDistrict(t, binary, seeds) })
}

// checkoutCalls are what the steps of a checkout and what follows from it ask of other modules.
var checkoutCalls = []string{
	"users.Address", "users.Contact", "orders.Contact", "catalog.Offers", "catalog.Reserve", "catalog.Extend", "catalog.Release", "catalog.Allocate",
	"shipping.Quote", "shipping.CancelLines", "cart.Freeze", "cart.Redeem", "cart.Unlock", "cart.Complete",
	"payments.Authorize", "payments.Payment", "payments.Capture", "payments.Void", "payments.Refund",
}

// mortalShop is a shop that has failpoints, and the other tags of this test.
func mortalShop(t *testing.T) (binary string) {
	t.Helper()
	tags := "failpoints"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags += "," + s.Value
			}
		}
	}
	binary = filepath.Join(t.TempDir(), "shop")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", tags, "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	return binary
}

// sendBuyers lets shoppers go their ways, all at once, and comes back with the last.
func sendBuyers(ctx context.Context, of databases, url string, ways []journey) ([]*buyer, error) {
	var skus []string
	rows, err := of("catalog").QueryContext(ctx, `SELECT sku FROM catalog.levels WHERE on_hand - reserved >= 20 ORDER BY sku LIMIT $1`, len(ways)+1)
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		var sku string
		if err := rows.Scan(&sku); err != nil {
			return nil, err
		}
		skus = append(skus, sku)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	if len(skus) <= len(ways) {
		return nil, fmt.Errorf("only %d articles", len(skus))
	}
	// A connection each time: one that was kept may belong to a shop that is dead, which would cost a try.
	client := &http.Client{Timeout: 40 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	buyers := make([]*buyer, len(ways))
	failed := make([]error, len(ways))
	var going sync.WaitGroup
	for i, j := range ways {
		b := &buyer{journey: j, url: url, client: client, of: of, header: http.Header{}, skus: []string{skus[i+1], skus[0]}}
		buyers[i] = b
		going.Go(func() {
			if err := j.run(ctx, b); err != nil {
				failed[i] = fmt.Errorf("%s: %w", j.name, err)
			}
		})
	}
	going.Wait()
	return buyers, errors.Join(failed...)
}

// onOneProcessor is the environment of shops that run by the dozen: with more, they wake each other up more than they work. They are
// processes of their own and so run at once all the same.
func onOneProcessor() []string { return append(os.Environ(), "GOMAXPROCS=1") }

// crashSecret is every shop's, since it opens the signing keys of the seeded database.
const crashSecret = "the-secret-of-shops-that-are-killed-over-and-over"

// deserted returns when nobody of the shop is connected to a database.
func deserted(ctx context.Context, db *sql.DB) error {
	return until(ctx, "the connections of the dead", func() (gone bool, err error) {
		err = db.QueryRowContext(ctx, `SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND usename LIKE 'shop\_%'`).Scan(&gone)
		return gone, err
	})
}

// passTime lets the time go by that the long leases of the dead last: those of events on their way, of webhooks, of mails and of
// requests with a key.
func passTime(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `
		DO $$
		DECLARE s text;
		BEGIN
			FOR s IN SELECT table_schema FROM information_schema.tables WHERE table_name = 'outbox' LOOP
				EXECUTE format('UPDATE %I.outbox SET lease_until = now() WHERE lease_until > now()', s);
				EXECUTE format('UPDATE %I.retry SET next_at = now()', s);
				EXECUTE format('UPDATE %I.idempotency_keys SET claimed_until = now() WHERE status IS NULL', s);
			END LOOP;
			IF to_regclass('payments.hooks') IS NOT NULL THEN
				UPDATE payments.hooks SET next_at = now() WHERE processed_at IS NULL;
				UPDATE payments.simulator_webhooks SET due_at = now() WHERE sent_at IS NULL;
			END IF;
			IF to_regclass('notifications.messages') IS NOT NULL THEN
				UPDATE notifications.messages SET next_at = now() WHERE state = 'pending';
			END IF;
		END $$`)
	return err
}

// drained says whether nothing is left to be done for these modules, in one look at all of it.
func drained(ctx context.Context, db *sql.DB, modules ...string) (bool, error) {
	var left int
	err := db.QueryRowContext(ctx, leftOf(works, modules...)).Scan(&left)
	return left == 0, err
}

// leftOf is a query for how many events and works are left of these modules.
func leftOf(works map[string][]string, modules ...string) string {
	var counts []string
	for _, m := range modules {
		counts = append(counts, `(SELECT count(*) FROM `+m+`.outbox WHERE sent_at IS NULL)`, `(SELECT count(*) FROM `+m+`.retry WHERE parked_at IS NULL)`)
		for _, work := range works[m] {
			counts = append(counts, `(SELECT count(*) FROM `+work+`)`)
		}
	}
	return `SELECT ` + strings.Join(counts, " + ")
}

// works are what modules do by and by, beside events.
var works = map[string][]string{
	"orders":        {`orders.checkouts WHERE next_at IS NOT NULL`, `orders.cancellations WHERE next_at IS NOT NULL`},
	"notifications": {`notifications.messages WHERE state = 'pending'`},
	"payments":      {`payments.hooks WHERE processed_at IS NULL`, `payments.simulator_webhooks WHERE sent_at IS NULL`},
}

// schemas are those of the modules that tell or hear events.
var schemas = []string{"users", "catalog", "shipping", "cart", "payments", "orders", "notifications", "reviews"}

// inspect compares what the database holds with what shoppers were told, and with itself.
func inspect(t *testing.T, db *sql.DB, buyers []*buyer) {
	t.Helper()
	for _, b := range buyers {
		var state string
		if err := db.QueryRowContext(t.Context(), `SELECT state FROM orders.orders WHERE id = $1`, b.order).Scan(&state); err != nil || state != b.journey.want {
			t.Errorf("I1: %s: the order %s is %q, %v", b.journey.name, b.order, state, err)
		}
	}
	queries := append(slices.Clone(invariants), eventsInvariant())
	for _, i := range queries {
		rows, err := db.QueryContext(t.Context(), `SELECT wrong::text FROM (`+i.query+`) AS wrong`)
		if err != nil {
			t.Fatalf("%s: %v", i.what, err)
		}
		for rows.Next() {
			var wrong string
			if err := rows.Scan(&wrong); err != nil {
				t.Fatal(err)
			}
			t.Errorf("%s: not so for %s", i.what, wrong)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			t.Fatalf("%s: %v", i.what, err)
		}
	}
	var orders int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM orders.orders`).Scan(&orders); err != nil || orders != len(buyers) {
		t.Errorf("I1: %d orders of %d shoppers: %v", orders, len(buyers), err)
	}
}

// invariant is a query for what contradicts it.
type invariant struct{ what, query string }

var invariants = []invariant{
	{"I2: an order is captured once at most, and only orders are", `
		SELECT p.order_id, count(*) FROM payments.simulator_ledger l
		JOIN payments.simulator_intents i ON i.id = l.intent LEFT JOIN payments.payments p ON p.id = i.key
		WHERE l.kind = 'capture' GROUP BY p.order_id HAVING count(*) > 1 OR p.order_id IS NULL`},
	{"I2: the provider has taken and given back what the order says, and nothing is held", `
		SELECT o.id, o.state, o.total, o.captured, o.refunded, i.captured, i.refunded, i.held FROM orders.orders o
		CROSS JOIN LATERAL (
			SELECT coalesce(sum(s.captured), 0) AS captured, coalesce(sum(s.refunded), 0) AS refunded,
				count(*) FILTER (WHERE s.state NOT IN ('captured', 'failed', 'voided')) AS held
			FROM payments.payments p JOIN payments.simulator_intents s ON s.key = p.id WHERE p.order_id = o.id) AS i
		WHERE i.captured <> o.captured OR i.refunded <> o.refunded OR i.held > 0
			OR i.captured - i.refunded <> CASE WHEN o.state IN ('expired', 'cancelled') THEN 0
				ELSE o.total - (SELECT coalesce(sum(c.refund), 0) FROM orders.cancellations c WHERE c.order_id = o.id AND c.state = 'done') END`},
	{"I2: every authorisation is known", `
		SELECT i.id, i.state FROM payments.simulator_intents i
		WHERE i.state <> 'voided' AND NOT EXISTS (SELECT 1 FROM payments.payments p WHERE p.id = i.key)`},
	{"I2: a payment is what the provider says", `
		SELECT p.id, p.state, i.state, p.captured, i.captured, p.refunded, i.refunded
		FROM payments.payments p JOIN payments.simulator_intents i ON i.key = p.id
		WHERE p.captured <> i.captured OR p.refunded <> i.refunded OR p.capture_claimed <> p.captured OR p.refund_claimed <> p.refunded
			OR p.state <> CASE WHEN i.refunded > 0 THEN 'refunded' ELSE i.state END`},
	{"I2: no command waits", `SELECT key, kind, state FROM payments.commands WHERE state = 'initiated'`},
	{"I3: stock is the sum of its movements and promises, and never below nothing", `
		SELECT l.* FROM catalog.levels l
		WHERE l.on_hand <> (SELECT coalesce(sum(m.delta), 0) FROM catalog.movements m WHERE m.sku = l.sku AND m.location = l.location)
			OR l.reserved <> (SELECT coalesce(sum(r.quantity), 0) FROM catalog.reservations r WHERE r.sku = l.sku)
				+ (SELECT coalesce(sum(a.quantity - a.shipped - a.cancelled), 0) FROM catalog.allocations a WHERE a.sku = l.sku)
			OR l.reserved < 0 OR l.on_hand < l.reserved`},
	{"I3: nothing is promised to a checkout that is over", `SELECT * FROM catalog.reservations`},
	{"I3: an order that stands has its goods, and no other has", `
		WITH due AS (
			SELECT o.id, l.sku, l.quantity - coalesce(l.cancelled, 0) AS n
			FROM orders.orders o, jsonb_to_recordset(o.lines) AS l (sku text, quantity bigint, cancelled bigint) WHERE o.placed_at IS NOT NULL),
		has AS (
			SELECT a.order_id AS id, a.sku, a.quantity - a.cancelled AS n FROM catalog.allocations a)
		SELECT id, sku, due.n AS due, has.n AS has FROM due FULL JOIN has USING (id, sku) WHERE coalesce(due.n, 0) <> coalesce(has.n, 0)`},
	{"I4: the books are in balance", `SELECT currency, sum(amount) FROM payments.entries GROUP BY currency HAVING sum(amount) <> 0`},
	{"I4: the books say what the provider says", `
		SELECT e.n, i.n FROM (SELECT coalesce(sum(amount), 0) AS n FROM payments.entries WHERE account = 'provider') AS e,
			(SELECT coalesce(sum(captured - refunded), 0) AS n FROM payments.simulator_intents) AS i WHERE e.n <> i.n`},
	{"I5: a placed order has a parcel, unless it was cancelled before, and a confirmation; another has neither", `
		SELECT o.id, o.state, s.n AS parcels, m.n AS confirmations FROM orders.orders o
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM shipping.shipments s WHERE s.order_id = o.id) AS s
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM notifications.messages m WHERE m.template = 'order_confirmation' AND m.data->>'order' = o.id) AS m
		WHERE s.n > 1 OR s.n <> (o.placed_at IS NOT NULL)::int AND o.state <> 'cancelled' OR m.n <> (o.placed_at IS NOT NULL)::int`},
	{"I5: parcels hold what was ordered less what was cancelled", `
		WITH due AS (
			SELECT o.id, l.sku, l.quantity - coalesce(l.cancelled, 0) AS n
			FROM orders.orders o, jsonb_to_recordset(o.lines) AS l (sku text, quantity bigint, cancelled bigint) WHERE o.placed_at IS NOT NULL),
		held AS (
			SELECT s.order_id AS id, l.sku, l.quantity AS n FROM shipping.shipments s JOIN shipping.shipment_lines l ON l.shipment_id = s.id)
		SELECT id, sku, due.n AS due, held.n AS held FROM due FULL JOIN held USING (id, sku) WHERE coalesce(due.n, 0) <> coalesce(held.n, 0)`},
	{"I5: a cancellation is told once", `
		SELECT o.id, c.n AS cancellations, m.n AS told FROM orders.orders o
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders.cancellations c WHERE c.order_id = o.id AND c.state = 'done') AS c
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM notifications.messages m WHERE m.template = 'order_cancelled' AND m.data->>'order' = o.id) AS m
		WHERE m.n <> c.n + (o.state = 'cancelled' AND o.placed_at IS NULL)::int`},
	{"I5: what a customer bought is known once", `
		SELECT o.customer, l.product FROM orders.orders o, jsonb_to_recordset(o.lines) AS l (product text)
		WHERE o.placed_at IS NOT NULL AND o.customer <> ''
			AND (SELECT count(*) FROM reviews.purchases p WHERE p.customer = o.customer AND p.product = l.product) <> 1`},
	{"I5: each placed order is told of once", `
		SELECT o.id, o.state, (SELECT count(*) FROM orders.outbox e WHERE e.key = o.id AND e.name LIKE 'orders.order_placed.%') AS told FROM orders.orders o
		WHERE (SELECT count(*) FROM orders.outbox e WHERE e.key = o.id AND e.name LIKE 'orders.order_placed.%') <> (o.placed_at IS NOT NULL)::int`},
	{"I6: no checkout is open or needs anybody", `
		SELECT id, state, step, attention, last_error FROM orders.checkouts
		WHERE next_at IS NOT NULL OR attention OR step <> 'done' OR secrets IS NOT NULL OR state NOT IN ('placed', 'expired', 'failed')`},
	{"I6: no cancellation is open or needs anybody", `SELECT id, state, attention, last_error FROM orders.cancellations WHERE state <> 'done' OR attention`},
	{"no cart is locked, and a bought one is completed", `
		SELECT c.id, c.state, o.id FROM cart.carts c LEFT JOIN orders.orders o ON o.cart = c.id AND o.placed_at IS NOT NULL
		WHERE c.state <> CASE WHEN o.id IS NULL THEN 'active' ELSE 'completed' END`},
	{"a promo code was used by placed orders alone", `
		SELECT p.code, p.used, r.n, o.n FROM cart.promo_codes p
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM cart.redemptions r WHERE r.code = p.code) AS r
		CROSS JOIN LATERAL (SELECT count(*) AS n FROM orders.orders o WHERE o.promo = p.code AND o.placed_at IS NOT NULL) AS o
		WHERE p.used - CASE p.code WHEN 'FIRST100' THEN 100 ELSE 0 END <> r.n OR r.n <> o.n`},
	{"every message has gone out", `SELECT id, template, state, error FROM notifications.messages WHERE state <> 'sent'`},
}

// eventsInvariant finds an event that somebody who hears it has not handled, and what is parked. That none was handled twice is
// the inbox's primary key.
func eventsInvariant() invariant {
	var told, heard, hearers, parked []string
	for _, s := range schemas {
		told = append(told, `SELECT id, name FROM `+s+`.outbox`)
		heard = append(heard, `SELECT '`+s+`.' || consumer AS consumer, event_id FROM `+s+`.inbox`)
		parked = append(parked, `SELECT event_id, consumer || ' has parked it: ' || error FROM `+s+`.retry`)
	}
	for _, m := range modules {
		for _, s := range events.Collect(m.Name, m.Nil.Subscribe) {
			if !s.Broadcast {
				hearers = append(hearers, `('`+s.Event+`', '`+s.Module+"."+s.Consumer+`')`)
			}
		}
	}
	return invariant{"I5: each event was handled once by each who hears it", `
		WITH told AS (` + strings.Join(told, " UNION ALL ") + `),
		heard AS (` + strings.Join(heard, " UNION ALL ") + `),
		hearers (name, consumer) AS (VALUES ` + strings.Join(hearers, ", ") + `)
		SELECT t.id, t.name || ' was not handled by ' || h.consumer FROM told t JOIN hearers h USING (name)
		WHERE NOT EXISTS (SELECT 1 FROM heard x WHERE x.event_id = t.id AND x.consumer = h.consumer)
		UNION ALL ` + strings.Join(parked, " UNION ALL ")}
}

// seededDatabase is the URL of a database with a little demo data, to be cloned.
func seededDatabase(t *testing.T, products int) string {
	t.Helper()
	settings, err := config.Load(config.Options{Flags: map[string]string{
		"listen": "127.0.0.1:0", "ops_listen": "", "database_url": shoptest.URL(t), "data_dir": t.TempDir(), "secret": crashSecret,
		"pool.max": "2", "catalog.demo_products": strconv.Itoa(products),
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := shop(settings)
	o.Development, o.Log = true, slog.New(slog.DiscardHandler)
	h, err := host.Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Idle(t.Context()); err != nil {
		t.Error(err)
	}
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return shoptest.URL(t)
}

// freeAddress is below the ports that the system gives to outgoing connections, so that nobody takes it while a shop is dead.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := "127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// postOffice is a mail server that remembers the ids of what it took.
type postOffice struct {
	address string

	mu  sync.Mutex
	ids map[string]int
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	p := &postOffice{ids: map[string]int{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = l.Addr().String()
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return letters{p}, nil }))
	s.Domain, s.ErrorLog = "localhost", discard{}
	go s.Serve(l) //nolint:errcheck // it ends with the test
	t.Cleanup(func() { s.Close() })
	return p
}

// compare wants every message that counts as sent to have come, once or, after a crash, twice.
func (p *postOffice) compare(t *testing.T, db *sql.DB) {
	t.Helper()
	p.mu.Lock()
	came := maps.Clone(p.ids)
	p.mu.Unlock()
	rows, err := db.QueryContext(t.Context(), `SELECT id FROM notifications.messages`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			t.Fatal(err)
		}
		if n := came["<"+id+"@banyan>"]; n < 1 || n > 2 {
			t.Errorf("I5: the mail of message %s came %d times", id, n)
		}
		delete(came, "<"+id+"@banyan>")
	}
	if err := rows.Err(); err != nil || len(came) > 0 {
		t.Errorf("I5: mails that nobody kept: %v, %v", came, err)
	}
}

type letters struct{ to *postOffice }

func (letters) Mail(string, *smtp.MailOptions) error { return nil }
func (letters) Rcpt(string, *smtp.RcptOptions) error { return nil }
func (letters) Reset()                               {}
func (letters) Logout() error                        { return nil }

func (l letters) Data(r io.Reader) error {
	m, err := mail.ReadMessage(r)
	if err != nil {
		return err
	}
	l.to.mu.Lock()
	defer l.to.mu.Unlock()
	l.to.ids[m.Header.Get("Message-ID")]++
	return nil
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

// failpoints are the names that are literals in failpoint.Hit("…") and hit("…"), and those that save composes of the place it is
// given.
func failpoints(t *testing.T, roots ...string) []string {
	t.Helper()
	var names, places, moments []string
	look := func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		switch arg := call.Args[0].(type) {
		case *ast.BasicLit:
			if f.Sel.Name == "Hit" || f.Sel.Name == "hit" {
				names = append(names, unquote(t, arg))
			}
		case *ast.BinaryExpr:
			if moment, ok := arg.Y.(*ast.BasicLit); ok && f.Sel.Name == "hit" {
				moments = append(moments, unquote(t, moment))
			}
		}
		if f.Sel.Name == "save" && len(call.Args) == 6 {
			if place, ok := call.Args[4].(*ast.BasicLit); ok {
				places = append(places, unquote(t, place))
			}
		}
		return true
	}
	for _, root := range roots {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && d.Name() == "testdata":
				return filepath.SkipDir
			case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
				return nil
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(file, look)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(places) == 0 || len(moments) == 0 {
		t.Fatalf("places %v and moments %v: has save changed?", places, moments)
	}
	for _, place := range places {
		for _, moment := range moments {
			names = append(names, place+moment)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func unquote(t *testing.T, l *ast.BasicLit) string {
	t.Helper()
	s, err := strconv.Unquote(l.Value)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
