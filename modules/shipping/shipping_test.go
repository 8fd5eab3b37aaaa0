package shipping

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/shippingapi/shippingtest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// bundle is shipping on a database of its own, and what a test does to it.
type bundle struct {
	*Module
	contract shippingapi.Shipping // as orders calls it
	clock    *shoptest.Clock
	server   http.Handler
}

func setup(t *testing.T) *bundle {
	t.Helper()
	clock := shoptest.NewClock()
	m := &Module{
		DB: shoptest.DB(t, "shipping"), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: clock.Now,
		Answers: answers(), Config: Defaults(),
	}
	contract := rpc.NewServer("shipping")
	m.Serve(contract)
	router := web.NewRouter()
	m.Routes(router.Module("shipping", m.DB))
	server, err := web.NewServer(web.Config{Router: router, Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	return &bundle{m, shippingapi.Dial(rpc.Local("orders", contract)), clock, server.Handler()}
}

// verify takes "admin" and any other token for a person of that name.
func verify(_ context.Context, token string) (auth.Identity, error) {
	id := auth.Identity{User: ids.ID(token)}
	if token == "admin" {
		id.Scopes = []string{write}
	}
	return id, nil
}

func (b *bundle) place(t *testing.T, order, customer ids.ID, lines []shippingapi.Line) {
	t.Helper()
	e := ordersapi.OrderPlaced{Order: ordersapi.ID(order), Customer: customer, Carrier: "Banyan Post", Service: "Standard", PlacedAt: b.clock.Now()}
	for _, l := range lines {
		e.Lines = append(e.Lines, ordersapi.PlacedLine{SKU: l.SKU, Quantity: l.Quantity})
	}
	if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return b.onOrderPlaced(t.Context(), tx, e) }); err != nil {
		t.Fatal(err)
	}
}

func (b *bundle) tell(t *testing.T, id shippingapi.ShipmentID, status, number string, at time.Time) error {
	t.Helper()
	return b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := b.track(t.Context(), tx, id, trackingEvent{shippingapi.TrackingEvent{Status: status, OccurredAt: at}, number})
		return err
	})
}

func (b *bundle) shipments(t *testing.T, order ids.ID) []shippingapi.Shipment {
	t.Helper()
	all, err := b.contract.Shipments(t.Context(), shippingapi.ShipmentsRequest{Orders: []ids.ID{order}})
	if err != nil {
		t.Fatal(err)
	}
	return all.Shipments
}

// published lists the names of the events in the outbox.
func (b *bundle) published(t *testing.T) []string {
	t.Helper()
	names := []string{}
	if err := b.DB.Select(t.Context(), &names, `SELECT name FROM shipping.outbox ORDER BY occurred_at, name`); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

// do sends a request and gives the status and the body.
func (b *bundle) do(t *testing.T, method, path, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	b.server.ServeHTTP(w, r)
	var answer map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Code, answer
}

func lines(of ...any) []shippingapi.Line {
	var all []shippingapi.Line
	for i := 0; i < len(of); i += 2 {
		all = append(all, shippingapi.Line{SKU: of[i].(string), Quantity: int64(of[i+1].(int))})
	}
	return all
}

func newOrder() ids.ID { return ids.New[ids.ID]("ord") }

func TestModuleKeepsTheContract(t *testing.T) {
	shippingtest.Suite(t, func(t *testing.T) shippingtest.Subject {
		b := setup(t)
		return shippingtest.Subject{
			Shipping: b.contract, Place: b.place,
			Ship: func(t *testing.T, order ids.ID) {
				for _, s := range b.shipments(t, order) {
					if err := b.tell(t, s.ID, shipped, "", b.clock.Now()); err != nil {
						t.Fatal(err)
					}
				}
			},
		}
	})
}

func TestOnlyOrdersMayCancel(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, err := b.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: newOrder(), Ordered: lines("A", 1), Lines: lines("A", 1)})
	if !errs.Is(err, errs.Forbidden) {
		t.Errorf("a stranger: %v", err)
	}
}

func TestOrderPlacedIsRecordedOnce(t *testing.T) {
	t.Parallel()
	b, order := setup(t), newOrder()
	b.place(t, order, "usr_1", lines("A", 1, "A", 2, "B", 1))
	b.place(t, order, "usr_1", lines("A", 1, "A", 2, "B", 1))
	all := b.shipments(t, order)
	if len(all) != 1 {
		t.Fatalf("got %+v", all)
	}
	if d := cmp.Diff(lines("A", 3, "B", 1), all[0].Lines); d != "" {
		t.Error(d)
	}
}

func TestAnOrderIsSplitIntoParcels(t *testing.T) {
	t.Parallel()
	b, order := setup(t), newOrder()
	b.place(t, order, "usr_1", lines("A", 3, "B", 1))
	path := "/v1/admin/orders/" + string(order) + "/shipments"

	code, first := b.do(t, "POST", path, `{"lines":[{"sku":"A","quantity":2}]}`, "Authorization", "Bearer admin", "Idempotency-Key", "1")
	if code != 201 || first["status"] != pending {
		t.Fatalf("%d %v", code, first)
	}
	if code, again := b.do(t, "POST", path, `{"lines":[{"sku":"A","quantity":2}]}`, "Authorization", "Bearer admin", "Idempotency-Key", "1"); code != 201 || again["id"] != first["id"] {
		t.Errorf("the key again: %d %v", code, again)
	}
	if code, p := b.do(t, "POST", path, `{"lines":[{"sku":"A","quantity":2}]}`, "Authorization", "Bearer admin", "Idempotency-Key", "2"); code != 409 || p["code"] != "nothing_to_ship" {
		t.Errorf("more than is left: %d %v", code, p)
	}
	if code, p := b.do(t, "POST", path, `{"lines":[{"sku":"A","quantity":0}]}`, "Authorization", "Bearer admin", "Idempotency-Key", "3"); code != 422 {
		t.Errorf("none: %d %v", code, p)
	}
	code, rest := b.do(t, "POST", path, `{}`, "Authorization", "Bearer admin", "Idempotency-Key", "4")
	if code != 201 || rest["id"] == first["id"] {
		t.Fatalf("the rest: %d %v", code, rest)
	}
	all := b.shipments(t, order)
	if len(all) != 2 {
		t.Fatalf("got %+v", all)
	}
	held := map[string]int64{}
	for _, s := range all {
		for _, l := range s.Lines {
			held[l.SKU] += l.Quantity
		}
	}
	if d := cmp.Diff(map[string]int64{"A": 3, "B": 1}, held); d != "" {
		t.Error(d)
	}
	if code, p := b.do(t, "POST", path, `{}`, "Authorization", "Bearer admin", "Idempotency-Key", "5"); code != 409 || p["code"] != "nothing_to_ship" {
		t.Errorf("when all is in parcels: %d %v", code, p)
	}
	if code, _ := b.do(t, "POST", path, `{}`, "Authorization", "Bearer admin"); code != 428 {
		t.Errorf("without a key: %d", code)
	}
	if code, _ := b.do(t, "POST", path, `{}`, "Authorization", "Bearer usr_1", "Idempotency-Key", "6"); code != 403 {
		t.Errorf("a customer: %d", code)
	}
	if code, _ := b.do(t, "POST", "/v1/admin/orders/"+string(newOrder())+"/shipments", `{}`, "Authorization", "Bearer admin", "Idempotency-Key", "7"); code != 404 {
		t.Errorf("an unknown order: %d", code)
	}
}

func TestTrackingEventsArePublishedOnce(t *testing.T) {
	t.Parallel()
	b, order := setup(t), newOrder()
	b.place(t, order, "usr_1", lines("A", 2))
	path := "/v1/admin/shipments/" + string(b.shipments(t, order)[0].ID) + "/events"

	for i, e := range []struct {
		body, status string
		published    []string
	}{
		{`{"status":"shipped","tracking_number":"T1","occurred_at":"2026-03-04T08:00:00Z"}`, shipped, []string{"shipping.shipment_shipped.v1"}},
		{`{"status":"shipped","tracking_number":"T1","occurred_at":"2026-03-04T08:00:00Z"}`, shipped, []string{"shipping.shipment_shipped.v1"}},
		{`{"status":"delivered","message":"at the door"}`, delivered, []string{"shipping.shipment_delivered.v1", "shipping.shipment_shipped.v1"}},
		{`{"status":"in_transit","occurred_at":"2026-03-04T09:00:00Z"}`, delivered, []string{"shipping.shipment_delivered.v1", "shipping.shipment_shipped.v1"}},
		{`{"status":"delivered","message":"and again"}`, delivered, []string{"shipping.shipment_delivered.v1", "shipping.shipment_shipped.v1"}},
	} {
		code, got := b.do(t, "POST", path, e.body, "Authorization", "Bearer admin")
		if code != 201 || got["status"] != e.status || got["tracking_number"] != "T1" {
			t.Fatalf("event %d: %d %v", i, code, got)
		}
		if d := cmp.Diff(e.published, b.published(t)); d != "" {
			t.Errorf("after event %d: %s", i, d)
		}
	}
	if got := b.shipments(t, order)[0].Events; len(got) != 4 || got[1].Status != inTransit {
		t.Errorf("the history: %+v", got)
	}
	for _, bad := range []string{"pending", "cancelled", "lost"} {
		if code, p := b.do(t, "POST", path, `{"status":"`+bad+`"}`, "Authorization", "Bearer admin"); code != 422 || p["code"] != "unknown_status" {
			t.Errorf("%s: %d %v", bad, code, p)
		}
	}
	if code, _ := b.do(t, "POST", "/v1/admin/shipments/shp_none/events", `{"status":"shipped"}`, "Authorization", "Bearer admin"); code != 404 {
		t.Errorf("an unknown shipment: %d", code)
	}
}

func TestWhoSeesShipments(t *testing.T) {
	t.Parallel()
	b, mine, guests := setup(t), newOrder(), newOrder()
	b.place(t, mine, "usr_1", lines("A", 1))
	b.place(t, guests, "", lines("A", 1))
	token := func(order ids.ID, d time.Duration) string {
		return ordersapi.SealOrderToken(b.Secret, ordersapi.ID(order), b.clock.Now().Add(d))
	}
	for _, c := range []struct {
		name          string
		order         ids.ID
		header, value string
		want          int
	}{
		{"the customer", mine, "Authorization", "Bearer usr_1", 200},
		{"another customer", mine, "Authorization", "Bearer usr_2", 404},
		{"a customer, of a guest's order", guests, "Authorization", "Bearer usr_1", 404},
		{"nobody", guests, "X-Nothing", "", 404},
		{"the guest", guests, "X-Order-Token", token(guests, time.Hour), 200},
		{"the guest, late", guests, "X-Order-Token", token(guests, -time.Second), 404},
		{"a guest of another order", guests, "X-Order-Token", token(mine, time.Hour), 404},
		{"a forged token", guests, "X-Order-Token", token(guests, time.Hour) + "x", 404},
		{"the warehouse", guests, "Authorization", "Bearer admin", 200},
	} {
		code, body := b.do(t, "GET", "/v1/orders/"+string(c.order)+"/shipments", "", c.header, c.value)
		if code != c.want {
			t.Errorf("%s: %d %v", c.name, code, body)
		}
		if data, _ := body["data"].([]any); c.want == 200 && len(data) != 1 {
			t.Errorf("%s: %v", c.name, body)
		}
	}
}

// T20: however the events of several parcels come in, late, twice or in reverse, the end is the same.
func TestShuffledTrackingEventsEndTheSame(t *testing.T) {
	t.Parallel()
	const parcels, shuffles = 3, 5
	type told struct {
		parcel int
		status string
		number string
		at     int
	}
	var story []told
	for p := range parcels {
		for i, status := range []string{shipped, inTransit, outForDelivery, delivered} {
			story = append(story, told{p, status, fmt.Sprintf("T%d-%d", p, i/2), i})
		}
	}
	story = append(story, told{2, returned, "", 9})
	b := setup(t)
	var want []shippingapi.Shipment
	for round := range shuffles {
		order := newOrder()
		b.place(t, order, "usr_1", lines("A", parcels))
		for range parcels - 1 {
			if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
				_, err := b.split(t.Context(), tx, order, lines("A", 1))
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		at := b.shipments(t, order)
		if len(at) != parcels {
			t.Fatalf("got %+v", at)
		}
		before := len(b.published(t))
		events := slices.Clone(story)
		if round > 0 {
			events = append(events, events[:3]...)
			rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		}
		var all sync.WaitGroup
		for _, half := range [][]told{events[:len(events)/2], events[len(events)/2:]} {
			all.Go(func() {
				for _, e := range half {
					if err := b.tell(t, at[e.parcel].ID, e.status, e.number, b.clock.Now().Add(time.Duration(e.at)*time.Hour)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		got := b.shipments(t, order)
		for i := range got {
			got[i].ID, got[i].Order = "", ""
		}
		if round == 0 {
			want = got
			if got[0].Status != delivered || got[2].Status != returned || got[0].TrackingNumber != "T0-1" {
				t.Fatalf("got %+v", got)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("round %d: %s", round, d)
		}
		if n := len(b.published(t)) - before; n != 2*parcels {
			t.Errorf("round %d published %d events", round, n)
		}
		left, err := leftToShip(t.Context(), b.DB, order)
		if err != nil || !left.empty() {
			t.Errorf("left to ship: %v %v", left, err)
		}
	}
}

// Of a cancellation and a parcel that leaves at the same moment one wins, and what is shipped and cancelled is never more
// than what was ordered.
func TestCancellingAgainstShipping(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 20 {
		order := newOrder()
		b.place(t, order, "usr_1", lines("A", 2, "B", 1))
		id := b.shipments(t, order)[0].ID
		var cancelErr, shipErr error
		var both sync.WaitGroup
		both.Go(func() {
			_, cancelErr = b.contract.CancelLines(t.Context(), shippingapi.CancelLinesRequest{
				Key: fmt.Sprint(i), Order: order, Ordered: lines("A", 2, "B", 1), Lines: lines("A", 2, "B", 1),
			})
		})
		both.Go(func() { shipErr = b.tell(t, id, shipped, "", b.clock.Now()) })
		both.Wait()
		switch {
		case cancelErr == nil && errs.Has(shipErr, "shipment_cancelled"):
		case shipErr == nil && errs.Has(cancelErr, "already_shipped"):
		default:
			t.Errorf("cancel: %v, ship: %v", cancelErr, shipErr)
		}
	}
}

func TestCancellingTakesFromWhatIsInNoParcelFirst(t *testing.T) {
	t.Parallel()
	b, order := setup(t), newOrder()
	b.place(t, order, "usr_1", lines("A", 5))
	if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := b.split(t.Context(), tx, order, lines("A", 2))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	_, err := b.contract.CancelLines(t.Context(), shippingapi.CancelLinesRequest{Key: "k", Order: order, Ordered: lines("A", 5), Lines: lines("A", 4)})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, s := range b.shipments(t, order) {
		n := 0
		for _, l := range s.Lines {
			n += int(l.Quantity)
		}
		got[s.Status] += n
	}
	if d := cmp.Diff(map[string]int{cancelled: 0, pending: 1}, got); d != "" {
		t.Error(d)
	}
}

func TestZones(t *testing.T) {
	t.Parallel()
	shop := &rates{places: map[string][]place{
		"DE": {{Zone: "de"}, {Zone: "sylt", From: "25980", To: "25999"}, {Zone: "islands", From: "25", To: "26"}, {Zone: "by", Region: "BY"}},
		"GB": {{Zone: "gb"}, {Zone: "ni", From: "BT", To: "BT"}, {Zone: "orkney", From: "KW15", To: "KW17"}},
	}}
	for _, c := range []struct{ country, region, postcode, want string }{
		{"DE", "", "", "de"}, {"de", "", "10115", "de"}, {"DE", "by", "80331", "by"},
		{"DE", "", "25980", "sylt"}, {"DE", "", "25999", "sylt"}, {"DE", "", "25979", "islands"}, {"DE", "", "26999", "islands"},
		{"DE", "", "27000", "de"}, {"DE", "BY", "25990", "sylt"},
		{"GB", "", "bt1 1aa", "ni"}, {"GB", "", "KW1 1AA", "gb"}, {"GB", "", "KW15 1AA", "orkney"}, {"GB", "", "KW17 9ZZ", "orkney"},
		{"GB", "", "KW18 1AA", "gb"}, {"FR", "", "75001", ""},
	} {
		got, ok := shop.zone(c.country, c.region, c.postcode)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%v: %q", c, got)
		}
	}
}

func TestBands(t *testing.T) {
	t.Parallel()
	bands := map[string][]band{"EUR": {{From: 0, To: 1000, Price: 490}, {From: 1000, To: 5000, Price: 690}}}
	for _, c := range []struct {
		name            string
		basis           string
		free            int64
		grams, subtotal int64
		want            int64 // −1: not offered
	}{
		{"flat is the first band", "flat", 0, 4000, 4000, 490},
		{"a weight below the border", "weight", 0, 999, 1, 490},
		{"a weight on the border belongs above", "weight", 0, 1000, 1, 690},
		{"the last gram", "weight", 0, 4999, 1, 690},
		{"too heavy", "weight", 0, 5000, 1, -1},
		{"too heavy is not free either", "weight", 100, 5000, 100, -1},
		{"a price on the border", "price", 0, 9999, 1000, 690},
		{"below free", "weight", 3000, 1, 2999, 490},
		{"free from here on", "weight", 3000, 1, 3000, 0},
	} {
		s := service{Basis: c.basis, bands: bands, free: map[string]int64{}}
		if c.free > 0 {
			s.free["EUR"] = c.free
		}
		got, ok := s.price(shippingapi.QuoteRequest{WeightGrams: c.grams, Subtotal: money.Of(c.subtotal, "EUR")})
		if ok != (c.want >= 0) || ok && got != money.Of(c.want, "EUR") {
			t.Errorf("%s: %v %v", c.name, got, ok)
		}
		if _, ok := s.price(shippingapi.QuoteRequest{WeightGrams: c.grams, Subtotal: money.Of(c.subtotal, "JPY")}); ok {
			t.Errorf("%s: offered in a currency without a price", c.name)
		}
	}
}

func TestTheTableDeliversToOurMarkets(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for country, currencies := range map[string][]string{
		"DE": {"EUR"}, "AT": {"EUR"}, "FR": {"EUR"}, "CH": {"CHF", "EUR"}, "GB": {"GBP", "EUR"}, "US": {"USD"},
	} {
		for _, currency := range currencies {
			for _, grams := range []int64{0, 2000, 31500, 900_000} {
				q, err := b.Quote(t.Context(), shippingapi.QuoteRequest{Country: country, Subtotal: money.Of(100, currency), WeightGrams: grams, Items: 1})
				if err != nil || len(q.Options) == 0 || q.Options[0].Price.Minor <= 0 {
					t.Errorf("%s %s %d g: %v %v", country, currency, grams, q, err)
				}
			}
		}
	}
	q, err := b.Quote(t.Context(), shippingapi.QuoteRequest{Country: "DE", Subtotal: money.Of(5000, "EUR"), Items: 1})
	if err != nil || q.Options[0].ID != "de-standard" || !q.Options[0].Price.IsZero() {
		t.Errorf("free above: %v %v", q, err)
	}
}

func TestRatesAreReadAgain(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := shippingapi.QuoteRequest{Country: "DE", Subtotal: money.Of(100, "EUR"), Items: 1}
	price := func() int64 {
		q, err := b.Quote(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return q.Options[0].Price.Minor
	}
	if got := price(); got != 490 {
		t.Fatalf("got %d", got)
	}
	if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE shipping.bands SET price = 500 WHERE service_id = 'de-standard' AND from_value = 0`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if got := price(); got != 490 {
		t.Errorf("before the table is old: %d", got)
	}
	b.clock.Advance(b.Config.Refresh)
	if got := price(); got != 500 {
		t.Errorf("after it: %d", got)
	}
}

func TestCarrierRates(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Config.CarrierTimeout = 20 * time.Millisecond
	asked, broken := 0, error(nil)
	b.Carrier = Simulator{Before: func(ctx context.Context, _ Parcel) error {
		asked++
		if errors.Is(broken, context.DeadlineExceeded) {
			<-ctx.Done()
			return ctx.Err()
		}
		return broken
	}}
	express := func(grams int64) shippingapi.Option {
		t.Helper()
		q, err := b.Quote(t.Context(), shippingapi.QuoteRequest{Country: "DE", Postcode: "10115", Subtotal: money.Of(100, "EUR"), WeightGrams: grams, Items: 1})
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range q.Options {
			if o.ID == "de-express" {
				return o
			}
		}
		t.Fatalf("no express in %v", q)
		return shippingapi.Option{}
	}
	if o := express(1500); o.Price.Minor != 990+198 || o.Estimated || asked != 1 {
		t.Errorf("the carrier's rate: %v, asked %d times", o, asked)
	}
	broken = errors.New("down")
	if o := express(1500); o.Price.Minor != 990+198 || o.Estimated || asked != 1 {
		t.Errorf("the same parcel again: %v, asked %d times", o, asked)
	}
	if o := express(500); o.Price.Minor != 990 || !o.Estimated || asked != 2 {
		t.Errorf("while the carrier fails: %v, asked %d times", o, asked)
	}
	broken = context.DeadlineExceeded
	if o := express(500); o.Price.Minor != 990 || !o.Estimated || asked != 3 {
		t.Errorf("while the carrier is slow: %v, asked %d times", o, asked)
	}
	broken = nil
	if o := express(500); o.Price.Minor != 1089 || o.Estimated || asked != 4 {
		t.Errorf("an estimate is not kept: %v, asked %d times", o, asked)
	}
	b.clock.Advance(b.Config.CarrierCache)
	if express(1500); asked != 5 {
		t.Errorf("after a quarter of an hour: asked %d times", asked)
	}
}
