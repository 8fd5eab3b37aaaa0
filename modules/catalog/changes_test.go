package catalog

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// told are the events that nobody has looked at yet, as this test reads them.
func (b bench) told(t *testing.T) []catalogapi.ProductsChanged {
	t.Helper()
	all := []catalogapi.ProductsChanged{}
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		all = all[:0]
		var rows []struct{ Name, Key, Payload string }
		if err := tx.Select(t.Context(), &rows, `SELECT o.name, o.key, o.payload::text AS payload FROM catalog.outbox o ORDER BY o.id`); err != nil {
			return err
		}
		for _, r := range rows {
			var e catalogapi.ProductsChanged
			if err := json.Unmarshal([]byte(r.Payload), &e); err != nil {
				return err
			}
			if r.Name != e.EventName() || r.Key != e.EventKey() {
				t.Errorf("%s of %s, want %s of %s", r.Name, r.Key, e.EventName(), e.EventKey())
			}
			all = append(all, e)
		}
		_, err := tx.Exec(t.Context(), `DELETE FROM catalog.outbox`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestChangesAreTold goes by everything that changes what shoppers see, and by what does not.
func TestChangesAreTold(t *testing.T) {
	t.Parallel()
	b := setup(t)
	row := func(external, name string, price int64) catalogapi.ImportRow {
		return catalogapi.ImportRow{Line: 1, ExternalID: external, Name: name, Category: "Cups", Price: money.Of(price, "EUR"), Stock: 9}
	}
	imports := func(dry bool, rows ...catalogapi.ImportRow) func() error {
		return func() error {
			for i := range rows {
				rows[i].Line = int64(i) + 1
			}
			r, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: rows, DryRun: dry})
			if err == nil && len(r.Errors) > 0 {
				err = fmt.Errorf("%v", r.Errors)
			}
			return err
		}
	}
	ask := func(status int, method, path, body string) func() error {
		return func() error {
			w, _ := b.request(t, method, strings.ReplaceAll(path, "{mug}", string(b.product(t, "mug"))), body, "Authorization", merchant, "Idempotency-Key", ids.New[string]("key"))
			if w.Code != status {
				return fmt.Errorf("%d %s, want %d", w.Code, w.Body, status)
			}
			return nil
		}
	}
	rates := func(version int64) func() error {
		return func() error {
			e := reviewsapi.RatingChanged{Product: ids.ID(b.product(t, "mug")), Count: version, Sum: 5 * version, Version: version}
			return b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return b.onRatingChanged(t.Context(), tx, e) })
		}
	}
	passes := func(d time.Duration) func() error {
		return func() error {
			b.clock.Advance(d)
			_, err := b.Reprice(t.Context())
			return err
		}
	}
	many := make([]catalogapi.ImportRow, catalogapi.MaxChanged+1)
	for i := range many {
		many[i] = row(fmt.Sprintf("many-%03d", i), fmt.Sprintf("Plate %03d", i), 100)
	}
	sale := fmt.Sprintf(`{"prices":[{"sku":"1","price":{"amount":900,"currency":"EUR"},"sale":{"amount":500,"currency":"EUR"},"sale_from":%q,"sale_to":%q}]}`,
		b.Now().Add(time.Hour).Format(time.RFC3339), b.Now().Add(2*time.Hour).Format(time.RFC3339))
	const none, all = "", "all"
	for _, step := range []struct {
		what       string
		do         func() error
		want       string // slugs of the products told of, all, or none
		categories bool
	}{
		{"a dry run", imports(true, row("1", "Mug", 900)), none, false},
		{"an import", imports(false, row("1", "Mug", 900), row("2", "Cup", 700)), "cup mug", true},
		{"the same again", imports(false, row("1", "Mug", 900), row("2", "Cup", 700)), none, false},
		{"a price of it changes", imports(false, row("1", "Mug", 900), row("2", "Cup", 600)), "cup", false},
		{"a large import", imports(false, many...), all, false},
		{"a product by hand", ask(201, "POST", "/v1/admin/products", `{"name":"Pot","category":"cups","sku":"POT","price":{"amount":1,"currency":"EUR"}}`), "pot", false},
		{"one that is refused", ask(409, "POST", "/v1/admin/products", `{"name":"Pot","category":"cups","sku":"POT","price":{"amount":1,"currency":"EUR"}}`), none, false},
		{"another price", ask(200, "PATCH", "/v1/admin/products/{mug}", `{"price":{"amount":950,"currency":"EUR"}}`), "mug", false},
		{"a sale to come", ask(200, "PATCH", "/v1/admin/products/{mug}", sale), "mug", false},
		{"nothing happens", passes(time.Minute), none, false},
		{"the sale begins", passes(time.Hour), "mug", false},
		{"the sale ends", passes(time.Hour), "mug", false},
		{"a rating", rates(2), "mug", false},
		{"an old rating", rates(1), none, false},
		{"stock comes", ask(201, "POST", "/v1/admin/stock-adjustments", `{"sku":"1","delta":3,"reason":"found"}`), none, false},
		{"a product goes", ask(200, "PATCH", "/v1/admin/products/{mug}", `{"archived":true}`), "mug", false},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		want := []catalogapi.ProductsChanged{}
		if step.want != none {
			e := catalogapi.ProductsChanged{Products: []catalogapi.ProductID{}, Categories: step.categories}
			for _, slug := range strings.Fields(step.want) {
				if slug != all {
					e.Products = append(e.Products, b.product(t, slug))
				}
			}
			slices.Sort(e.Products)
			want = append(want, e)
		}
		if diff := cmp.Diff(want, b.told(t)); diff != "" {
			t.Errorf("%s tells (-want +got):\n%s", step.what, diff)
		}
	}
}

// product is the id of a product, archived or not.
func (b bench) product(t *testing.T, slug string) (id catalogapi.ProductID) {
	t.Helper()
	if err := b.DB.Get(t.Context(), &id, `SELECT p.id FROM catalog.products p WHERE p.slug = $1`, slug); err != nil {
		t.Fatalf("product %s: %v", slug, err)
	}
	return id
}

// TestAnotherInstanceForgetsToo: what one instance changes, another that kept the categories hears of.
func TestAnotherInstanceForgetsToo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 1, "A")
	other := setupOn(t, b.DB)
	seen := func() int { return len(other.get(t, "/v1/categories")["data"].([]any)) }
	was := seen()
	row := catalogapi.ImportRow{Line: 1, ExternalID: "Z", Name: "Zebra", Category: "Animals", Price: money.Of(1, "EUR")}
	if r, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{row}}); err != nil || r.Created != 1 {
		t.Fatalf("%v %v", r, err)
	}
	if seen() != was {
		t.Fatal("nothing is kept: this test shows nothing")
	}
	for _, e := range b.told(t) {
		other.onProductsChanged(t.Context(), e)
	}
	if seen() != was+1 {
		t.Errorf("%d categories after one more than %d", seen(), was)
	}
}
