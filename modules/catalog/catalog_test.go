package catalog

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
)

func seeded(t testing.TB, products int) bench {
	t.Helper()
	b := setup(t)
	b.Config.DemoProducts = products
	if err := b.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b bench) count(t testing.TB, query string) (n int) {
	t.Helper()
	if err := b.DB.Get(t.Context(), &n, query); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSeed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Config.DemoProducts = 700
	for range 2 {
		if err := b.Seed(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := b.count(t, `SELECT count(*) FROM catalog.products`); n != 700 {
			t.Errorf("%d products", n)
		}
		if n := b.count(t, `SELECT count(*) FROM catalog.categories`); n != 20 {
			t.Errorf("%d categories", n)
		}
	}
	b.addsUp(t)
	p, err := b.Product(t.Context(), catalogapi.ProductRequest{Ref: string(catalogapi.DemoProductID(1))})
	if err != nil || !strings.HasPrefix(p.Variants[0].SKU, "DEMO-0001-") || p.Images[0].URL != "/v1/images/demo-0001.svg" {
		t.Errorf("first product: %+v, %v", p, err)
	}
	for n := range 3000 {
		d := demoProduct(n + 1)
		if d.name == "" || len(d.variants) == 0 || len(d.description) < 100 {
			t.Fatalf("demo product %d is %+v", n+1, d)
		}
	}
}

func names(out map[string]any) (all []string) {
	for _, p := range out["data"].([]any) {
		all = append(all, p.(map[string]any)["id"].(string))
	}
	return all
}

// Every sort, with and without filters, shows every product once, in the order it promises.
func TestPagesAreCompleteAndWithoutRepeats(t *testing.T) {
	t.Parallel()
	b := seeded(t, 300)
	amount := func(p map[string]any) float64 { return p["price"].(map[string]any)["amount"].(float64) }
	orders := map[string]func(x, y map[string]any) bool{
		"price":  func(x, y map[string]any) bool { return amount(x) <= amount(y) },
		"-price": func(x, y map[string]any) bool { return amount(x) >= amount(y) },
	}
	totals := map[string]int{
		"": b.count(t, `SELECT count(*) FROM catalog.products`),
		"&filter[category]=outdoor": b.count(t, `SELECT count(*) FROM catalog.products p JOIN catalog.categories c ON c.id = p.category
			WHERE c.path LIKE 'outdoor/%'`),
		"&filter[category]=tents":                         b.count(t, `SELECT count(*) FROM catalog.products p JOIN catalog.categories c ON c.id = p.category WHERE c.slug = 'tents'`),
		"&filter[category]=tents&filter[category]=knives": b.count(t, `SELECT count(*) FROM catalog.products p JOIN catalog.categories c ON c.id = p.category WHERE c.slug IN ('tents', 'knives')`),
		"&filter[category]=nothing":                       0,
	}
	for path, sorts := range map[string][]string{
		"/v1/products?": {"", "newest", "name", "price", "-price", "rating"},
		"/v1/search?":   {"", "name", "-price", "rating"},
	} {
		for _, sort := range sorts {
			for filter, want := range totals {
				t.Run(path+sort+filter, func(t *testing.T) {
					t.Parallel()
					var seen []string
					var last map[string]any
					cursor := ""
					for {
						at := path + "limit=37" + filter + cursor
						if sort != "" {
							at += "&sort=" + sort
						}
						out := b.get(t, at)
						for _, p := range out["data"].([]any) {
							p := p.(map[string]any)
							if less := orders[sort]; less != nil && last != nil && !less(last, p) {
								t.Fatalf("%v comes before %v", last, p)
							}
							last = p
						}
						seen = append(seen, names(out)...)
						next, ok := out["next_cursor"].(string)
						if !ok {
							break
						}
						cursor = "&cursor=" + url.QueryEscape(next)
					}
					slices.Sort(seen)
					if n := len(slices.Compact(seen)); len(seen) != want || n != want {
						t.Errorf("%d products, %d of them different, want %d", len(seen), n, want)
					}
				})
			}
		}
	}
}

func TestSearch(t *testing.T) {
	t.Parallel()
	b := setup(t)
	price := func(n int64) catalogapi.ImportRow {
		r := catalogapi.ImportRow{}
		r.Price.Minor, r.Price.Currency = n, "EUR"
		return r
	}
	add := func(id, name, brand, category, description string, cents int64) {
		r := price(cents)
		r.Line, r.ExternalID, r.Name, r.Brand, r.Category, r.Description, r.Stock = 2, id, name, brand, category, description, 3
		if res, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{r}}); err != nil || len(res.Errors) > 0 {
			t.Fatal(err, res.Errors)
		}
	}
	add("1", "Running Shoes", "Tarn", "Shoes", "Light and quick.", 9900)
	add("2", "Trail Boots", "Tarn", "Shoes", "For running on paths, and shoes for the mud.", 14900)
	add("3", "Café Müller Cup", "Kestrel", "Cups", "Holds coffee.", 1200)
	add("4", "Reading Lamp", "Kestrel", "Lamps", "Also lights your shoes.", 4500)
	found := func(query string) (ids []string) {
		t.Helper()
		for _, p := range b.get(t, "/v1/search?"+query)["data"].([]any) {
			ids = append(ids, p.(map[string]any)["slug"].(string))
		}
		return ids
	}
	for query, want := range map[string][]string{
		"q=running+shoes":               {"running-shoes", "trail-boots"}, // the name counts for more
		"q=run":                         {"running-shoes", "trail-boots"}, // stems, and unfinished words
		"q=RUNNI":                       {"running-shoes"},
		"q=cafe+muller":                 {"cafe-muller-cup"}, // without marks
		"q=caf%C3%A9":                   {"cafe-muller-cup"},
		"q=kestrel&sort=price":          {"cafe-muller-cup", "reading-lamp"},
		"q=shoes&filter[brand]=Kestrel": {"reading-lamp"},
		"q=shoes&filter[category]=shoes&sort=-price":                                 {"trail-boots", "running-shoes"},
		"q=shoes&filter[min_price]=4500&filter[max_price]=9900&sort=price":           {"reading-lamp", "running-shoes"},
		"filter[brand]=Tarn&sort=price":                                              {"running-shoes", "trail-boots"},
		"filter[brand]=Tarn&filter[brand]=Kestrel&filter[max_price]=5000&sort=price": {"cafe-muller-cup", "reading-lamp"},
		"q=%27%3A*%26%21%7C%28":                                                      {"reading-lamp", "cafe-muller-cup", "trail-boots", "running-shoes"}, // no word at all
		"q=unicorn":                                                                  nil,
		"q=the":                                                                      nil,
	} {
		got := found(query)
		if query == "q=%27%3A*%26%21%7C%28" { // all were made in one instant, so the newest are in order of id
			slices.Sort(got)
			slices.Sort(want)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", query, d)
		}
	}

	// Each facet is counted without its own filter.
	counts := func(query string) map[string]map[string]float64 {
		out := map[string]map[string]float64{}
		for facet, values := range b.get(t, "/v1/search?facets=category,brand&"+query)["facets"].(map[string]any) {
			out[facet] = map[string]float64{}
			for _, v := range values.([]any) {
				v := v.(map[string]any)
				out[facet][v["value"].(string)] = v["count"].(float64)
			}
		}
		return out
	}
	for query, want := range map[string]map[string]map[string]float64{
		"q=shoes":                                      {"category": {"shoes": 2, "lamps": 1}, "brand": {"Tarn": 2, "Kestrel": 1}},
		"q=shoes&filter[brand]=Kestrel":                {"category": {"lamps": 1}, "brand": {"Tarn": 2, "Kestrel": 1}},
		"q=shoes&filter[category]=shoes":               {"category": {"shoes": 2, "lamps": 1}, "brand": {"Tarn": 2}},
		"filter[brand]=Kestrel&filter[min_price]=2000": {"category": {"lamps": 1}, "brand": {"Tarn": 2, "Kestrel": 1}},
		"": {"category": {"shoes": 2, "lamps": 1, "cups": 1}, "brand": {"Tarn": 2, "Kestrel": 2}},
	} {
		if d := cmp.Diff(want, counts(query)); d != "" {
			t.Errorf("facets of %s (-want +got):\n%s", query, d)
		}
	}
	if out := b.get(t, "/v1/search?q=shoes&include=total"); out["total"] != 3.0 {
		t.Errorf("total %v", out["total"])
	}
	if out := b.get(t, "/v1/search?q=shoes"); out["total"] != nil || out["facets"] != nil {
		t.Errorf("what nobody asked for: %v", out)
	}
	for _, path := range []string{"/v1/search?sort=hidden", "/v1/search?facets=price", "/v1/products?sort=relevance", "/v1/products?cursor=abc", "/v1/search?colour=red",
		"/v1/products?limit=101"} {
		if w, _ := b.request(t, "GET", path, ""); w.Code != 422 {
			t.Errorf("GET %s: %d, want 422", path, w.Code)
		}
	}
}

func TestFacetsCountWhatIsBelowACategory(t *testing.T) {
	t.Parallel()
	b := seeded(t, 300)
	out := b.get(t, "/v1/search?facets=category")
	counts := map[string]float64{}
	for _, v := range out["facets"].(map[string]any)["category"].([]any) {
		counts[v.(map[string]any)["value"].(string)] = v.(map[string]any)["count"].(float64)
	}
	if counts["outdoor"] != counts["tents"]+counts["sleeping-bags"]+counts["backpacks"] || counts["tents"] != 20 {
		t.Errorf("counts %v", counts)
	}
	// A cursor is good for its own search alone.
	out = b.get(t, "/v1/search?q=tent&limit=5")
	w, _ := b.request(t, "GET", "/v1/search?q=lamp&limit=5&cursor="+out["next_cursor"].(string), "")
	if w.Code != 422 {
		t.Errorf("a cursor of another search: %d", w.Code)
	}
}

func TestProductPage(t *testing.T) {
	t.Parallel()
	b := seeded(t, 30)
	out := b.get(t, "/v1/products/"+string(catalogapi.DemoProductID(7)))
	slug := out["slug"].(string)
	if again := b.get(t, "/v1/products/"+slug); !cmp.Equal(again, out) {
		t.Errorf("by slug it is another: %s", cmp.Diff(out, again))
	}
	variant := out["variants"].([]any)[0].(map[string]any)
	sku, available := variant["sku"].(string), variant["available"].(float64)
	tag := func() string {
		w, _ := b.request(t, "GET", "/v1/products/"+slug, "")
		return w.Header().Get("ETag")
	}
	before := tag()
	if w, _ := b.request(t, "GET", "/v1/products/"+slug, "", "If-None-Match", before); w.Code != 304 {
		t.Errorf("asked again: %d", w.Code)
	}
	if err := b.hold("k", "chk_1", catalogapi.Quantity{SKU: sku, Quantity: 2}); err != nil {
		t.Fatal(err)
	}
	if w, out := b.request(t, "GET", "/v1/products/"+slug, "", "If-None-Match", before); w.Code != 200 ||
		out["variants"].([]any)[0].(map[string]any)["available"] != available-2 {
		t.Errorf("after a reservation: %d %v", w.Code, out)
	}
	if w, _ := b.request(t, "GET", "/v1/products/nothing", ""); w.Code != 404 {
		t.Errorf("an unknown product: %d", w.Code)
	}
}

func TestPictures(t *testing.T) {
	t.Parallel()
	b := setup(t)
	w, _ := b.request(t, "GET", "/v1/images/demo-0012.svg", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "image/svg+xml" || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	for n := range len(departments) * 3 {
		var any struct{ XMLName xml.Name }
		if err := xml.Unmarshal(drawDemo(n+1), &any); err != nil || any.XMLName.Local != "svg" {
			t.Errorf("picture %d is no SVG: %v", n+1, err)
		}
	}
	if first, _ := b.request(t, "GET", "/v1/images/demo-0012.svg", "", "If-None-Match", w.Header().Get("ETag")); first.Code != 304 {
		t.Errorf("asked again: %d", first.Code)
	}
	for _, name := range []string{"demo-12.svg", "demo-0000.svg", "nothing.png", "demo-0001.png"} {
		if w, _ := b.request(t, "GET", "/v1/images/"+name, ""); w.Code != 404 {
			t.Errorf("%s: %d", name, w.Code)
		}
	}
}

// A sale begins and ends on time: at once where prices are shown, soon after where they are sorted by.
func TestSalesBeginAndEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 5, "A", "B")
	p := b.get(t, "/v1/products/thing-a")
	from, to := b.Now().Add(time.Hour), b.Now().Add(2*time.Hour)
	body := fmt.Sprintf(`{"prices":[{"sku":"A","price":{"amount":200,"currency":"EUR"},"sale":{"amount":50,"currency":"EUR"},"sale_from":%q,"sale_to":%q}]}`,
		from.Format(time.RFC3339), to.Format(time.RFC3339))
	if w, _ := b.request(t, "PATCH", "/v1/admin/products/"+p["id"].(string), body, "Authorization", merchant); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	shown := func() [3]float64 {
		card := float64(0)
		for _, c := range b.get(t, "/v1/products")["data"].([]any) {
			if c.(map[string]any)["slug"] == "thing-a" {
				card = c.(map[string]any)["price"].(map[string]any)["amount"].(float64)
			}
		}
		page := b.get(t, "/v1/products/thing-a")["variants"].([]any)[0].(map[string]any)["price"].(map[string]any)["amount"].(float64)
		offers, err := b.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{"A"}, Currency: "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		return [3]float64{card, page, float64(offers.Offers[0].Price.Minor)}
	}
	cheapest := func() any { return b.get(t, "/v1/products?sort=price")["data"].([]any)[0].(map[string]any)["slug"] }
	for _, at := range []struct {
		advance  time.Duration
		price    float64
		cheapest string
	}{{0, 200, "thing-b"}, {time.Hour, 50, "thing-a"}, {time.Hour, 200, "thing-b"}} {
		b.clock.Advance(at.advance)
		if got, want := shown(), [3]float64{at.price, at.price, at.price}; got != want {
			t.Errorf("at %s: list, page and offer say %v, want %v", b.Now(), got, at.price)
		}
		if _, err := b.Reprice(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := cheapest(); got != at.cheapest {
			t.Errorf("at %s: cheapest is %v, want %s", b.Now(), got, at.cheapest)
		}
	}
	if n := b.count(t, `SELECT count(*) FROM catalog.price_history h WHERE h.sku = 'A'`); n < 1 {
		t.Error("no price history")
	}
}

func TestMerchantsEdit(t *testing.T) {
	t.Parallel()
	b := seeded(t, 20)
	as := func(key string) []string { return []string{"Authorization", merchant, "Idempotency-Key", key} }
	create := `{"name":"Tarn Kettle","brand":"Tarn","category":"cookware","sku":"KETTLE","price":{"amount":4900,"currency":"EUR"},"stock":4}`
	w, made := b.request(t, "POST", "/v1/admin/products", create, as("k1")...)
	if w.Code != 201 || made["slug"] != "tarn-kettle" || w.Header().Get("Location") != "/v1/products/"+made["id"].(string) {
		t.Fatalf("create: %d %s", w.Code, w.Body)
	}
	if again, out := b.request(t, "POST", "/v1/admin/products", create, as("k1")...); again.Code != 201 || out["id"] != made["id"] {
		t.Errorf("the repeat: %d %s", again.Code, again.Body)
	}
	if w, out := b.request(t, "POST", "/v1/admin/products", create, as("k2")...); w.Code != 409 || out["code"] != "sku_taken" {
		t.Errorf("the SKU again: %d %s", w.Code, w.Body)
	}
	path, etag := "/v1/admin/products/"+made["id"].(string), w.Header().Get("ETag")
	w, changed := b.request(t, "PATCH", path, `{"name":"Tarn Teapot","price":{"amount":3900,"currency":"EUR"}}`, "Authorization", merchant, "If-Match", etag)
	if w.Code != 200 || changed["name"] != "Tarn Teapot" || changed["price"].(map[string]any)["amount"] != 3900.0 {
		t.Fatalf("change: %d %s", w.Code, w.Body)
	}
	if w, _ := b.request(t, "PATCH", path, `{"name":"Too late"}`, "Authorization", merchant, "If-Match", etag); w.Code != 412 {
		t.Errorf("a stale change: %d", w.Code)
	}
	if n := len(b.get(t, "/v1/search?q=teapot")["data"].([]any)); n != 1 {
		t.Errorf("the new name is found %d times", n)
	}
	if w, _ := b.request(t, "PATCH", path, `{"archived":true}`, "Authorization", merchant); w.Code != 200 {
		t.Errorf("archive: %d %s", w.Code, w.Body)
	}
	if w, _ := b.request(t, "GET", "/v1/products/tarn-kettle", ""); w.Code != 404 {
		t.Errorf("an archived product: %d", w.Code)
	}
	if w, out := b.request(t, "GET", path, "", "Authorization", merchant); w.Code != 200 || out["archived"] != true {
		t.Errorf("an archived product for a merchant: %d %s", w.Code, w.Body)
	}
	if out, err := b.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{"KETTLE"}, Currency: "EUR"}); err != nil || len(out.Offers) != 0 {
		t.Errorf("an archived product is offered: %v %v", out, err)
	}
	for body, status := range map[string]int{
		`{"category":"nowhere"}`: 422, `{"price":{"amount":-1,"currency":"EUR"}}`: 422, `{"price":{"amount":1,"currency":"USD"}}`: 422,
		`{"prices":[{"sku":"OTHER","price":{"amount":1,"currency":"EUR"}}]}`: 422, `{"rating":5}`: 422,
	} {
		if w, _ := b.request(t, "PATCH", path, body, "Authorization", merchant); w.Code != status {
			t.Errorf("%s: %d %s", body, w.Code, w.Body)
		}
	}
	if w, _ := b.request(t, "PATCH", path, `{"name":"x"}`, "Authorization", "Bearer catalog:read_all"); w.Code != 403 {
		t.Errorf("without permission: %d", w.Code)
	}
	if w, _ := b.request(t, "PATCH", "/v1/admin/products/prd_none", `{"name":"x"}`, "Authorization", merchant); w.Code != 404 {
		t.Errorf("an unknown product: %d", w.Code)
	}
}

func TestMerchantsAdjustStock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 5, "A", "B", "C")
	if err := b.hold("k", "chk_1", catalogapi.Quantity{SKU: "A", Quantity: 4}); err != nil {
		t.Fatal(err)
	}
	adjust := func(key, body string) (int, map[string]any) {
		w, out := b.request(t, "POST", "/v1/admin/stock-adjustments", body, "Authorization", merchant, "Idempotency-Key", key)
		return w.Code, out
	}
	for range 2 {
		if code, out := adjust("k1", `{"sku":"A","delta":3,"reason":"found behind the shelf"}`); code != 201 || out["on_hand"] != 8.0 || out["reserved"] != 4.0 {
			t.Errorf("add: %d %v", code, out)
		}
	}
	if code, out := adjust("k2", `{"sku":"A","delta":-5,"reason":"broken"}`); code != 409 || out["code"] != "insufficient_stock" {
		t.Errorf("take what is promised: %d %v", code, out)
	}
	if code, _ := adjust("k3", `{"sku":"none","delta":1,"reason":"count"}`); code != 404 {
		t.Errorf("unknown SKU: %d", code)
	}
	if code, _ := adjust("k4", `{"sku":"A","delta":0,"reason":"count"}`); code != 422 {
		t.Errorf("nothing: %d", code)
	}
	w, out := b.request(t, "GET", "/v1/admin/stock-levels?sku=A", "", "Authorization", merchant)
	want := []any{map[string]any{"sku": "A", "location": "main", "on_hand": 8.0, "reserved": 4.0}}
	if d := cmp.Diff(want, out["data"]); w.Code != 200 || d != "" {
		t.Errorf("levels: %d\n%s", w.Code, d)
	}
	w, out = b.request(t, "GET", "/v1/admin/stock-levels?limit=2", "", "Authorization", merchant)
	if w.Code != 200 || len(out["data"].([]any)) != 2 {
		t.Errorf("first levels: %d %v", w.Code, out)
	}
	w, out = b.request(t, "GET", "/v1/admin/stock-levels?limit=2&cursor="+out["next_cursor"].(string), "", "Authorization", merchant)
	if w.Code != 200 || len(out["data"].([]any)) != 1 || out["next_cursor"] != nil {
		t.Errorf("last levels: %d %v", w.Code, out)
	}
	b.addsUp(t)
}

func TestCategories(t *testing.T) {
	t.Parallel()
	b := seeded(t, 20)
	out := b.get(t, "/v1/categories")
	text, _ := json.Marshal(out["data"].([]any)[0])
	if len(out["data"].([]any)) != 5 || !strings.Contains(string(text), `"path":"outdoor/tents"`) {
		t.Errorf("categories: %v", out)
	}
}

// However much is asked for, the number of statements is the same.
func TestStatementsDoNotGrow(t *testing.T) {
	t.Parallel()
	b := seeded(t, 300)
	var products []catalogapi.ProductID
	var skus []string
	for n := range 200 {
		products = append(products, catalogapi.DemoProductID(n+1))
		skus = append(skus, demoProduct(n + 1).variants[0].sku)
	}
	get := func(path string) func(int) error {
		return func(n int) error { b.get(t, fmt.Sprintf(path, min(n, 100))); return nil }
	}
	stock := 0
	for name, call := range map[string]struct {
		statements int64
		do         func(n int) error
	}{
		"offers": {1, func(n int) error {
			out, err := b.Offers(t.Context(), catalogapi.OffersRequest{SKUs: skus[:n], Currency: "EUR"})
			if err == nil && len(out.Offers) != n {
				return fmt.Errorf("%d offers", len(out.Offers))
			}
			return err
		}},
		"products": {1, func(n int) error {
			out, err := b.Products(t.Context(), catalogapi.ProductsRequest{IDs: products[:n]})
			if err == nil && len(out.Products) != n {
				return fmt.Errorf("%d products", len(out.Products))
			}
			return err
		}},
		"product": {1, func(n int) error {
			_, err := b.Product(t.Context(), catalogapi.ProductRequest{Ref: string(products[n-1])})
			return err
		}},
		"list":          {1, get("/v1/products?limit=%d")},
		"category list": {1, get("/v1/products?limit=%d&filter[category]=outdoor")},
		"search":        {1, get("/v1/search?q=made&limit=%d")},
		"facets":        {2, get("/v1/search?q=made&facets=category,brand&filter[min_price]=%d")},
		// BEGIN, the reservation with its stock, the stored answer, COMMIT
		"reserve": {4, func(n int) error {
			stock++
			var lines []catalogapi.Quantity
			for _, sku := range skus[:min(n, maxLines)] {
				lines = append(lines, catalogapi.Quantity{SKU: sku, Quantity: 1})
			}
			if err := b.hold(fmt.Sprint("k", stock), "chk_statements", lines...); err != nil && !errs.Has(err, "insufficient_stock") {
				return err
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			free := func() {
				if _, err := b.orders.Release(context.Background(), catalogapi.ReleaseRequest{Checkout: "chk_statements"}); err != nil {
					t.Fatal(err)
				}
			}
			for i, n := range []int{1, 200, 2, 100, 1, 20, 200} { // the first calls prepare
				if name == "reserve" {
					free()
				}
				before, _ := b.DB.Counts()
				if err := call.do(n); err != nil {
					t.Fatal(err)
				}
				after, _ := b.DB.Counts()
				if i > 3 && after-before > call.statements {
					t.Errorf("%d rows took %d statements, want %d", n, after-before, call.statements)
				}
			}
		})
	}
}

func TestChangesOfOneProcessAreSeenAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 1, "A")
	if n := len(b.get(t, "/v1/categories")["data"].([]any)); n != 1 {
		t.Fatalf("%d categories", n)
	}
	res, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{{Line: 1, ExternalID: "Z", Name: "Zebra", Category: "Animals",
		Price: catalogapi.Offer{}.Price}}})
	if err != nil || len(res.Errors) != 1 {
		t.Fatalf("a row without currency: %v %v", res, err)
	}
	row := catalogapi.ImportRow{Line: 1, ExternalID: "Z", Name: "Zebra", Category: "Animals"}
	row.Price.Currency = "EUR"
	if res, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{row}}); err != nil || res.Created != 1 {
		t.Fatalf("%v %v", res, err)
	}
	if n := len(b.get(t, "/v1/categories")["data"].([]any)); n != 2 {
		t.Errorf("%d categories after one more", n)
	}
}
