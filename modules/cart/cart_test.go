package cart

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/cartapi/carttest"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
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

// bundle is a cart on a database of its own beside a catalog and shipping in memory, and what a test does to them.
type bundle struct {
	*Module
	contract cartapi.Cart // as orders calls it
	catalog  *catalogtest.Fake
	shipping *shippingtest.Fake
	clock    *shoptest.Clock
	server   http.Handler
}

func setup(t testing.TB) *bundle {
	t.Helper()
	b := &bundle{catalog: catalogtest.NewFake(), shipping: &shippingtest.Fake{}, clock: shoptest.NewClock()}
	b.catalog.Clock = b.clock.Now
	b.Module = &Module{
		DB: shoptest.DB(t, "cart"), Catalog: b.catalog, Shipping: b.shipping, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: b.clock.Now, Config: Defaults(),
	}
	contract := rpc.NewServer("cart")
	b.Serve(contract)
	b.contract = cartapi.Dial(rpc.Local("orders", contract))
	router := web.NewRouter()
	b.Routes(router.Module("cart", b.DB))
	server, err := web.NewServer(web.Config{Router: router, Verify: func(_ context.Context, token string) (auth.Identity, error) {
		return auth.Identity{User: ids.ID(token)}, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	b.server = server.Handler()
	return b
}

// answer is a response of the public face.
type answer struct {
	code int
	etag string
	body []byte
}

func (a answer) into(t testing.TB, v any) {
	t.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%d %s: %v", a.code, a.body, err)
	}
}

// problem is the code of a refusal.
func (a answer) problem() string {
	var p struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(a.body, &p)
	return fmt.Sprintf("%d %s", a.code, p.Code)
}

func (b *bundle) send(t testing.TB, method, path, body string, headers ...string) answer {
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
	return answer{w.Code, w.Header().Get("ETag"), w.Body.Bytes()}
}

// guest is a guest with a cart.
type guest struct {
	*bundle
	id    cartapi.ID
	token string
}

func (b *bundle) guest(t testing.TB) guest {
	t.Helper()
	a := b.send(t, "POST", "/v1/carts", `{"currency":"EUR"}`)
	var c struct {
		ID    cartapi.ID `json:"id"`
		Token string     `json:"token"`
	}
	if a.into(t, &c); a.code != 201 || a.etag != `"1"` || c.Token == "" {
		t.Fatalf("%d %s", a.code, a.body)
	}
	return guest{b, c.ID, c.Token}
}

func (g guest) owner() cartapi.Owner { return cartapi.Owner{Token: g.token} }

// do sends a request about the guest's cart.
func (g guest) do(t testing.TB, method, path, body string, headers ...string) answer {
	t.Helper()
	return g.send(t, method, "/v1/carts/"+string(g.id)+path, body, append([]string{"X-Cart-Token", g.token}, headers...)...)
}

// ok is do for what must succeed with the cart.
func (g guest) ok(t testing.TB, method, path, body string, headers ...string) cartapi.View {
	t.Helper()
	a := g.do(t, method, path, body, headers...)
	var v cartapi.View
	if a.into(t, &v); a.code != 200 || a.etag != web.ETag(v.Version) {
		t.Fatalf("%s %s: %d %s %s", method, path, a.code, a.etag, a.body)
	}
	return v
}

func (g guest) add(t testing.TB, sku string, n int64) cartapi.View {
	t.Helper()
	return g.ok(t, "POST", "/items", fmt.Sprintf(`{"sku":%q,"quantity":%d}`, sku, n))
}

func (g guest) get(t testing.TB) cartapi.View { t.Helper(); return g.ok(t, "GET", "", "") }

// freeze is a checkout of the guest's cart to Germany by the cheapest way.
func (g guest) freeze(checkout ids.ID, expected int64) cartapi.FreezeRequest {
	return cartapi.FreezeRequest{
		Key: string(ids.New[ids.ID]("key")), Checkout: checkout, Cart: g.id, Owner: g.owner(),
		Address: cartapi.Address{Country: "DE", Postcode: "10115"}, ShippingOption: "standard", Expected: eur(expected),
	}
}

func TestModuleKeepsTheContract(t *testing.T) {
	carttest.Suite(t, func(t *testing.T) carttest.Subject {
		b := setup(t)
		return carttest.Subject{
			Cart: b.contract,
			Fill: func(t *testing.T, lines ...cartapi.Line) (cartapi.ID, cartapi.Owner) {
				g := b.guest(t)
				for _, l := range lines {
					if o, err := b.catalog.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{l.SKU}, Currency: "EUR"}); err != nil || len(o.Offers) == 0 {
						b.catalog.Add(l.SKU, "Product "+l.SKU, l.UnitPrice, 1000)
					}
					g.add(t, l.SKU, l.Quantity)
				}
				return g.id, g.owner()
			},
			SetPrice: func(t *testing.T, sku string, price money.Amount) { b.catalog.SetPrice(sku, price) },
			SetPromo: func(t *testing.T, cart cartapi.ID, o cartapi.Owner, code string, n int64) {
				b.promo(t, promo{Code: code, Kind: "percent", Value: 1000, Limit: n})
				guest{b, cart, o.Token}.ok(t, "POST", "/promo-codes", `{"code":"`+code+`"}`)
			},
		}
	})
}

// promo makes a promo code that is valid for an hour, unless it says otherwise.
func (b *bundle) promo(t testing.TB, p promo) {
	t.Helper()
	if p.From.IsZero() {
		p.From, p.Until = b.clock.Now(), b.clock.Now().Add(time.Hour)
	}
	if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return insertPromo(t.Context(), tx, p) }); err != nil {
		t.Fatal(err)
	}
}

func TestTheMainFlow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1290), 10)
	g := b.guest(t)
	v := g.add(t, "MUG", 1)
	if v.Version != 2 || len(v.Lines) != 1 || v.Lines[0].Quantity != 1 || v.Lines[0].Available != 10 || v.Lines[0].Name != "Mug" ||
		v.Lines[0].UnitPrice != eur(1290) || v.Lines[0].Total != eur(1290) || v.Tax != eur(206) || v.Total != eur(1290) {
		t.Fatalf("got %+v", v)
	}
	if v = g.add(t, "MUG", 2); v.Lines[0].Quantity != 3 || v.Total != eur(3870) || len(v.Lines) != 1 {
		t.Errorf("the same SKU adds up: %+v", v)
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Errorf("what was answered is what is there: %s", d)
	}
	line := "/items/" + string(v.Lines[0].ID)
	v = g.ok(t, "PATCH", line, `{"quantity":2}`, "If-Match", web.ETag(v.Version))
	if v.Lines[0].Quantity != 2 || v.Total != eur(2580) || v.Version != 4 {
		t.Errorf("changed: %+v", v)
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Error(d)
	}
	a := g.do(t, "POST", "/shipping-quotes", `{"address":{"name":"A","line1":"B 1","city":"Berlin","postcode":"10115","country":"DE"}}`)
	var quotes struct {
		Data []shippingQuote `json:"data"`
	}
	a.into(t, &quotes)
	if a.code != 200 || len(quotes.Data) != 2 || quotes.Data[0].ID != "standard" || quotes.Data[0].Total != eur(2580+490) {
		t.Fatalf("%d %s", a.code, a.body)
	}
	f, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", quotes.Data[0].Total.Minor))
	if err != nil {
		t.Fatal(err)
	}
	if f.Tax != eur(412+78) || f.ShippingTax != eur(78) || f.ShippingTaxRate != 1900 || f.Lines[0].TaxRate != 1900 || !f.PricesIncludeTax {
		t.Errorf("frozen: %+v", f)
	}
	v = g.get(t)
	for _, c := range [][3]string{
		{"POST", "/items", `{"sku":"MUG","quantity":1}`}, {"PATCH", line, `{"quantity":1}`}, {"DELETE", line, ""},
		{"POST", "/promo-codes", `{"code":"X"}`}, {"DELETE", "/promo-codes/X", ""},
	} {
		if got := g.do(t, c[0], c[1], c[2], "If-Match", web.ETag(v.Version)).problem(); got != "409 cart_locked" {
			t.Errorf("%s %s of a locked cart: %s", c[0], c[1], got)
		}
	}
	if _, err := b.contract.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: "chk_1", Cart: g.id}); err != nil {
		t.Fatal(err)
	}
	if v = g.ok(t, "DELETE", line, "", "If-Match", web.ETag(g.get(t).Version)); len(v.Lines) != 0 || !v.Total.IsZero() {
		t.Errorf("removed: %+v", v)
	}
	if got := g.do(t, "POST", "/shipping-quotes", `{"address":{"country":"DE"}}`).problem(); got != "422 cart_empty" {
		t.Errorf("quotes for nothing: %s", got)
	}
}

func TestCartsBelongToSomebody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1290), 10)
	g := b.guest(t)
	v := g.add(t, "MUG", 1)
	a := b.send(t, "POST", "/v1/carts", `{}`, "Authorization", "Bearer usr_1")
	var mine struct{ ID, Token, Currency string }
	if a.into(t, &mine); a.code != 201 || mine.Token != "" || mine.Currency != "EUR" {
		t.Fatalf("a user's cart: %d %s", a.code, a.body)
	}
	line := "/items/" + string(v.Lines[0].ID)
	for _, cart := range []string{string(g.id), mine.ID, "crt_none"} {
		for _, c := range [][3]string{
			{"GET", "", ""}, {"POST", "/items", `{"sku":"MUG","quantity":1}`}, {"PATCH", line, `{"quantity":1}`}, {"DELETE", line, ""},
			{"POST", "/promo-codes", `{"code":"X"}`}, {"DELETE", "/promo-codes/X", ""}, {"POST", "/shipping-quotes", `{"address":{"country":"DE"}}`},
		} {
			for _, h := range [][]string{{"X-Cart-Token", "guess"}, {"Authorization", "Bearer usr_2"}, {}} {
				if got := b.send(t, c[0], "/v1/carts/"+cart+c[1], c[2], append(h, "If-Match", `"1"`)...).problem(); got != "404 not_found" {
					t.Errorf("%s %s %v: %s", c[0], c[1], h, got)
				}
			}
		}
	}
	if a := b.send(t, "POST", "/v1/carts/"+mine.ID+"/items", `{"sku":"MUG","quantity":1}`, "Authorization", "Bearer usr_1"); a.code != 200 {
		t.Errorf("the owner: %d %s", a.code, a.body)
	}
	var stored []byte
	if err := b.DB.Get(t.Context(), &stored, `SELECT token_hash FROM cart.carts WHERE id = $1`, g.id); err != nil || strings.Contains(string(stored), g.token) {
		t.Errorf("the token is kept: %q %v", stored, err)
	}
}

func TestWhatACartRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1290), 5)
	b.catalog.Add("PIN", "Pin", eur(1), 10_000)
	g := b.guest(t)
	g.add(t, "MUG", 4)
	v := g.add(t, "PIN", 990)
	mug, current := "/items/"+string(v.Lines[0].ID), web.ETag(v.Version)
	for _, c := range []struct {
		name, method, path, body, match, want string
	}{
		{"an unknown SKU", "POST", "/items", `{"sku":"CUP","quantity":1}`, "", "422 unknown_sku"},
		{"nothing", "POST", "/items", `{"sku":"MUG","quantity":0}`, "", "422 validation_failed"},
		{"less than nothing", "POST", "/items", `{"sku":"MUG","quantity":-1}`, "", "422 validation_failed"},
		{"more than there is", "POST", "/items", `{"sku":"MUG","quantity":2}`, "", "409 insufficient_stock"},
		{"more than a cart holds", "POST", "/items", `{"sku":"PIN","quantity":10}`, "", "422 quantity_too_large"},
		{"an old version", "POST", "/items", `{"sku":"MUG","quantity":1}`, `"1"`, "412 precondition_failed"},
		{"a change without a version", "PATCH", mug, `{"quantity":1}`, "", "428 precondition_required"},
		{"a change of an old version", "PATCH", mug, `{"quantity":1}`, `"1"`, "412 precondition_failed"},
		{"a removal without a version", "DELETE", mug, "", "", "428 precondition_required"},
		{"a removal of an old version", "DELETE", mug, "", `"1"`, "412 precondition_failed"},
		{"a change to more than there is", "PATCH", mug, `{"quantity":6}`, current, "409 insufficient_stock"},
		{"a change of no line", "PATCH", "/items/cln_none", `{"quantity":1}`, current, "404 not_found"},
		{"delivery to nowhere", "POST", "/shipping-quotes", `{"address":{"country":"AQ"}}`, "", "422 no_shipping_zone"},
		{"an unknown field", "POST", "/items", `{"sku":"MUG","quantity":1,"price":1}`, "", "422 validation_failed"},
	} {
		h := []string{}
		if c.match != "" {
			h = []string{"If-Match", c.match}
		}
		if got := g.do(t, c.method, c.path, c.body, h...); got.problem() != c.want {
			t.Errorf("%s: %s %s", c.name, got.problem(), got.body)
		}
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Errorf("a refusal changed the cart: %s", d)
	}
	if got := b.send(t, "POST", "/v1/carts", `{"currency":"JPY"}`).problem(); got != "422 unknown_currency" {
		t.Errorf("a currency we do not sell in: %s", got)
	}
	a := g.do(t, "POST", "/items", `{"sku":"MUG","quantity":2}`)
	if want := `"requested":6,"available":5`; !strings.Contains(string(a.body), want) {
		t.Errorf("details of insufficient_stock: %s", a.body)
	}
}

func TestACartHoldsAHundredLines(t *testing.T) {
	t.Parallel()
	b := setup(t)
	g := b.guest(t)
	for i := range maxLines + 1 {
		sku := fmt.Sprintf("S%d", i)
		b.catalog.Add(sku, sku, eur(100), 5)
		if i < maxLines {
			g.add(t, sku, 1)
		} else if got := g.do(t, "POST", "/items", `{"sku":"`+sku+`","quantity":1}`).problem(); got != "422 cart_full" {
			t.Errorf("line %d: %s", i+1, got)
		}
	}
	if v := g.add(t, "S0", 1); len(v.Lines) != maxLines {
		t.Errorf("%d lines", len(v.Lines))
	}
}

func TestAddingWithAKeyAddsOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1290), 10)
	g := b.guest(t)
	for range 3 {
		if v := g.ok(t, "POST", "/items", `{"sku":"MUG","quantity":2}`, "Idempotency-Key", "one"); v.Lines[0].Quantity != 2 {
			t.Errorf("got %+v", v)
		}
	}
}

func TestManyAddAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	const hands = 8
	for i := range hands {
		b.catalog.Add(fmt.Sprintf("S%d", i%4), "", eur(100), 100)
	}
	g := b.guest(t)
	var all sync.WaitGroup
	for i := range hands {
		all.Go(func() {
			for range 5 {
				v := g.add(t, fmt.Sprintf("S%d", i%4), 1)
				var n int64
				for _, l := range v.Lines {
					n += l.Quantity
				}
				if n != v.Version-1 { // each version is one piece more
					t.Errorf("version %d holds %d pieces", v.Version, n)
				}
			}
		})
	}
	all.Wait()
	if v := g.get(t); v.Version != 1+hands*5 || v.Total != eur(hands*5*100) {
		t.Errorf("got %+v", v)
	}
}

func TestPromoCodes(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := b.clock.Now()
	b.catalog.Add("MUG", "Mug", eur(1000), 10)
	if err := b.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.Seed(t.Context()); err != nil {
		t.Errorf("seeding twice: %v", err)
	}
	b.promo(t, promo{Code: "LATER", Kind: "percent", Value: 500, From: now.Add(time.Hour), Until: now.Add(2 * time.Hour), Limit: 1})
	b.promo(t, promo{Code: "DOLLAR", Kind: "amount", Value: 500, Currency: "USD", Limit: 1})
	b.promo(t, promo{Code: "FIVER", Kind: "amount", Value: 500, Currency: "EUR", Limit: 1})
	g := b.guest(t)
	g.add(t, "MUG", 1)
	for code, want := range map[string]string{
		"NOPE": "422 unknown_promo_code", "SUMMER20": "422 promo_expired", "FIRST100": "409 promo_exhausted",
		"LATER": "422 promo_not_yet_valid", "DOLLAR": "422 promo_currency",
	} {
		if got := g.do(t, "POST", "/promo-codes", `{"code":"`+code+`"}`).problem(); got != want {
			t.Errorf("%s: %s", code, got)
		}
	}
	if v := g.ok(t, "POST", "/promo-codes", `{"code":" welcome10 "}`); v.Promo != "WELCOME10" || v.Discount != eur(100) || v.Total != eur(900) || v.Tax != eur(144) {
		t.Errorf("got %+v", v)
	}
	if v := g.ok(t, "POST", "/promo-codes", `{"code":"FIVER"}`); v.Promo != "FIVER" || v.Total != eur(500) {
		t.Errorf("one code replaces another: %+v", v)
	}
	b.clock.Advance(time.Hour)
	if v := g.get(t); v.Promo != "" || v.Total != eur(1000) {
		t.Errorf("a code that has expired in the cart: %+v", v)
	}
	if got := g.do(t, "DELETE", "/promo-codes/WELCOME10", "").problem(); got != "404 not_found" {
		t.Errorf("removing another code: %s", got)
	}
	if v := g.ok(t, "DELETE", "/promo-codes/fiver", ""); v.Promo != "" || v.Total != eur(1000) {
		t.Errorf("removed: %+v", v)
	}
}

func TestACartIsRefreshedWhenItIsOld(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 10)
	b.catalog.Add("CUP", "Cup", eur(500), 10)
	gone := b.catalog.Add("PIN", "Pin", eur(100), 10)
	b.catalog.Add("HAT", "Hat", eur(2000), 10)
	g := b.guest(t)
	for _, sku := range []string{"MUG", "CUP", "PIN", "HAT"} {
		g.add(t, sku, 3)
	}
	before := g.get(t)
	b.catalog.SetPrice("MUG", eur(1100))
	b.catalog.SetStock("CUP", 2)
	b.catalog.Archive(gone)
	b.catalog.SetStock("HAT", 9)
	b.clock.Advance(b.Config.RefreshAfter - time.Second)
	if d := cmp.Diff(before, g.get(t)); d != "" {
		t.Errorf("before five minutes: %s", d)
	}
	b.clock.Advance(2 * time.Second)
	v := g.get(t)
	changes := map[string]string{}
	for _, c := range v.Changes {
		changes[c.SKU] = c.Code
	}
	if d := cmp.Diff(map[string]string{"MUG": priceChanged, "CUP": qtyReduced, "PIN": unavailable}, changes); d != "" {
		t.Error(d)
	}
	if v.Version != before.Version+1 || v.Total != eur(3300+1000+300+6000) || v.Lines[3].Available != 9 {
		t.Errorf("got %+v", v)
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Errorf("a version looks the same however often it is read: %s", d)
	}
	if got := g.do(t, "PATCH", "/items/"+string(v.Lines[0].ID), `{"quantity":1}`, "If-Match", web.ETag(before.Version)).problem(); got != "412 precondition_failed" {
		t.Errorf("a change of what the shopper has not seen: %s", got)
	}
	b.catalog.Fail = func(string) error { return errors.New("down") }
	b.clock.Advance(time.Hour)
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Errorf("while the catalog is down: %s", d)
	}
}

func TestAddingTellsOfANewPrice(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 10)
	g := b.guest(t)
	g.add(t, "MUG", 1)
	b.catalog.SetPrice("MUG", eur(1100))
	v := g.add(t, "MUG", 1)
	if v.Total != eur(2200) || len(v.Changes) != 1 || v.Changes[0].Code != priceChanged {
		t.Errorf("got %+v", v)
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Error(d)
	}
}

func TestACheckoutSeesTheCatalogAsItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 10)
	g := b.guest(t)
	g.add(t, "MUG", 3)
	b.catalog.SetStock("MUG", 2)
	_, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 3490))
	var v cartapi.View
	if !errs.Has(err, "cart_changed") || !errs.DetailsInto(err, &v) || len(v.Changes) != 1 || v.Changes[0].Code != qtyReduced || v.Lines[0].Quantity != 2 {
		t.Fatalf("fewer than wanted: %v %+v", err, v)
	}
	if d := cmp.Diff(v, g.get(t)); d != "" {
		t.Errorf("the shopper sees what the checkout saw: %s", d)
	}
	if _, err = b.contract.Freeze(t.Context(), g.freeze("chk_1", 2490)); err != nil {
		t.Fatalf("as the shopper now sees it: %v", err)
	}
	// The checkout has reserved the goods, so the catalog has none left: they are still ours.
	b.catalog.SetStock("MUG", 0)
	if _, err = b.contract.Freeze(t.Context(), g.freeze("chk_1", 2490)); err != nil {
		t.Errorf("frozen again by the checkout that holds it: %v", err)
	}
	b.catalog.SetPrice("MUG", eur(900))
	_, err = b.contract.Freeze(t.Context(), g.freeze("chk_1", 2490))
	if !errs.Has(err, "cart_changed") || !errs.DetailsInto(err, &v) || v.Total != eur(1800) || v.Lines[0].Quantity != 2 {
		t.Errorf("the price fell meanwhile: %v %+v", err, v)
	}
	if f, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 2290)); err != nil || f.Total != eur(2290) {
		t.Errorf("at the new price: %v %v", f, err)
	}
	b.shipping.SetPrice("standard", 590)
	if _, err = b.contract.Freeze(t.Context(), g.freeze("chk_1", 2290)); !errs.Has(err, "cart_changed") {
		t.Errorf("delivery costs more now: %v", err)
	}
}

func TestSoldOutCannotBeBought(t *testing.T) {
	t.Parallel()
	b := setup(t)
	gone := b.catalog.Add("MUG", "Mug", eur(1000), 10)
	g := b.guest(t)
	g.add(t, "MUG", 1)
	b.catalog.SetStock("MUG", 0)
	for range 2 {
		_, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 1490))
		var v cartapi.View
		if !errs.Has(err, "cart_changed") || !errs.DetailsInto(err, &v) || len(v.Changes) != 1 || v.Changes[0].Code != unavailable {
			t.Errorf("sold out: %v %+v", err, v)
		}
	}
	b.catalog.SetStock("MUG", 1)
	if _, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 1490)); err != nil {
		t.Errorf("back in stock: %v", err)
	}
	b.catalog.Archive(gone)
	if _, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 1490)); !errs.Has(err, "cart_changed") {
		t.Errorf("no longer sold: %v", err)
	}
}

// T4: whatever a shopper adds while the checkout begins is either in what was frozen or refused.
func TestAddingAgainstFreezing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 1_000_000)
	for round := range 15 {
		g := b.guest(t)
		g.add(t, "MUG", 1)
		var added atomic.Int64
		var frozen cartapi.Frozen
		var err error
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				switch a := g.do(t, "POST", "/items", `{"sku":"MUG","quantity":1}`); {
				case a.code == 200:
					added.Add(1)
				case a.problem() != "409 cart_locked":
					t.Errorf("adding: %s", a.body)
				}
			})
		}
		all.Go(func() { // the shopper's own page counted on one more
			for expected := range int64(3) {
				if frozen, err = b.contract.Freeze(t.Context(), g.freeze("chk_1", (expected+1)*1000+490)); err == nil || !errs.Has(err, "cart_changed") {
					return
				}
			}
		})
		all.Wait()
		if err != nil {
			if !errs.Has(err, "cart_changed") {
				t.Errorf("round %d: %v", round, err)
			}
			continue
		}
		v := g.get(t)
		if v.State != locked || v.Version != frozen.Version || v.Lines[0].Quantity != frozen.Lines[0].Quantity || v.Lines[0].Quantity != 1+added.Load() {
			t.Errorf("round %d: the shopper has %d (%d added), the order %d", round, v.Lines[0].Quantity, added.Load(), frozen.Lines[0].Quantity)
		}
	}
}

func TestCartsExpire(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 100)
	guests, held, used := b.guest(t), b.guest(t), b.guest(t)
	var user struct{ ID cartapi.ID }
	b.send(t, "POST", "/v1/carts", `{}`, "Authorization", "Bearer usr_1").into(t, &user)
	held.add(t, "MUG", 1)
	if _, err := b.contract.Freeze(t.Context(), held.freeze("chk_1", 1490)); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(20 * 24 * time.Hour)
	used.add(t, "MUG", 1)
	b.clock.Advance(10*24*time.Hour + time.Second)
	if got := guests.do(t, "GET", "", "").problem(); got != "404 not_found" {
		t.Errorf("an expired cart: %s", got)
	}
	if got := guests.do(t, "POST", "/items", `{"sku":"MUG","quantity":1}`).problem(); got != "404 not_found" {
		t.Errorf("adding to an expired cart: %s", got)
	}
	if n, err := b.sweep(t.Context()); err != nil || n != 1 {
		t.Errorf("swept %d: %v", n, err)
	}
	used.get(t)
	if v := held.get(t); v.State != locked {
		t.Errorf("a held cart: %+v", v)
	}
	if _, err := b.contract.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: "chk_1", Cart: held.id}); err != nil {
		t.Fatal(err)
	}
	if v := held.get(t); v.State != active {
		t.Errorf("given back, it is there for another day: %+v", v)
	}
	b.clock.Advance(60 * 24 * time.Hour)
	if n, err := b.sweep(t.Context()); err != nil || n != 3 {
		t.Errorf("swept %d: %v", n, err)
	}
}

func TestOnlyOrdersMayFreeze(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := t.Context()
	_, freeze := b.Freeze(ctx, cartapi.FreezeRequest{})
	_, redeem := b.Redeem(ctx, cartapi.RedeemRequest{})
	_, unlock := b.Unlock(ctx, cartapi.UnlockRequest{})
	_, complete := b.Complete(ctx, cartapi.CompleteRequest{})
	_, read := b.Cart(ctx, cartapi.CartRequest{})
	for i, err := range []error{freeze, redeem, unlock, complete, read} {
		if !errs.Is(err, errs.Forbidden) {
			t.Errorf("method %d: %v", i, err)
		}
	}
}

// The busiest writes of the shop are told in round trips, BEGIN and COMMIT included, so that one more is a decision.
func TestRoundTripsOfTheBusyPaths(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.catalog.Add("MUG", "Mug", eur(1000), 100)
	least := map[string]int64{} // a connection's first use of a statement also prepares it
	for range 4 {
		g := b.guest(t)
		g.add(t, "MUG", 1)
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"read", func() error { g.get(t); return nil }},
			{"add an item", func() error { g.add(t, "MUG", 1); return nil }},
			{"freeze", func() error {
				_, err := b.contract.Freeze(t.Context(), g.freeze("chk_1", 2490))
				return err
			}},
			{"unlock", func() error {
				_, err := b.contract.Unlock(t.Context(), cartapi.UnlockRequest{Checkout: "chk_1", Cart: g.id})
				return err
			}},
			{"complete", func() error {
				_, err := b.contract.Complete(t.Context(), cartapi.CompleteRequest{Checkout: "chk_1", Cart: g.id, Order: "ord_1"})
				return err
			}},
		} {
			before, _ := b.DB.Counts()
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			after, _ := b.DB.Counts()
			if n, seen := least[step.name]; !seen || after-before < n {
				least[step.name] = after - before
			}
		}
	}
	if d := cmp.Diff(map[string]int64{"read": 1, "add an item": 4, "freeze": 5, "unlock": 3, "complete": 3}, least); d != "" {
		t.Error(d)
	}
}

func BenchmarkAddItem(b *testing.B) {
	s := setup(b)
	s.catalog.Add("MUG", "Mug", eur(1000), 1_000_000_000)
	b.RunParallel(func(p *testing.PB) {
		g := s.guest(b)
		for i := 0; p.Next(); i++ {
			if i%500 == 499 {
				g = s.guest(b)
			}
			g.add(b, "MUG", 1)
		}
	})
}
