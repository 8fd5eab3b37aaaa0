package catalog

import (
	"math"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// T17: with 100,000 products no list, page or search reads a table from end to end, whichever plan the server has settled on.
func TestPlansOfALargeCatalogue(t *testing.T) {
	if testing.Short() {
		t.Log("without -short: 100,000 products")
		return
	}
	t.Parallel()
	b := setup(t)
	b.Config.DemoProducts = 2000
	if err := b.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	multiply(t)

	now := b.Now()
	none, tents, brand := pg.Array([]string{}), pg.Array(demoTree().subtree([]string{"tents"})), pg.Array([]string{"Tarn"})
	outdoor := pg.Array(demoTree().subtree([]string{"outdoor"}))
	type statement struct {
		sql  string
		args []any
	}
	statements := map[string]statement{
		"page by id":      {`EXPLAIN ` + pageByID, []any{now, string(catalogapi.DemoProductID(9))}},
		"page by slug":    {`EXPLAIN ` + pageBySlug, []any{now, slugify(demoProduct(9).name)}},
		"facets of words": {`EXPLAIN ` + facetsOfWords, []any{none, none, int64(0), int64(math.MaxInt64), "granite & studio:*"}},
		"total of words":  {`EXPLAIN ` + totalOfWords, []any{"granite & studio:*", none, none, int64(0), int64(math.MaxInt64)}},

		"newest":   {`EXPLAIN ` + listNewest, []any{now, "2025-02-01T00:00:00Z", "~", int64(21)}},
		"name":     {`EXPLAIN ` + listName, []any{now, "M", "", int64(21)}},
		"cheapest": {`EXPLAIN ` + listCheapest, []any{now, int64(5000), "", int64(21)}},
		"dearest":  {`EXPLAIN ` + listDearest, []any{now, int64(5000), "~", int64(21)}},
		"best":     {`EXPLAIN ` + listBest, []any{now, int64(400), "~", int64(21)}},

		"newest of a category":   {`EXPLAIN ` + categoryNewest, []any{now, "2025-02-01T00:00:00Z", "~", int64(21), outdoor}},
		"name of a category":     {`EXPLAIN ` + categoryName, []any{now, "M", "", int64(21), outdoor}},
		"cheapest of a category": {`EXPLAIN ` + categoryCheapest, []any{now, int64(5000), "", int64(21), outdoor}},
		"dearest of a category":  {`EXPLAIN ` + categoryDearest, []any{now, int64(5000), "~", int64(21), outdoor}},
		"best of a category":     {`EXPLAIN ` + categoryBest, []any{now, int64(400), "~", int64(21), outdoor}},

		"relevance":       {`EXPLAIN ` + searchSQL + bestMatch, []any{now, int64(math.MaxInt64), "~", int64(21), "granite & studio:*", none, none, int64(0), int64(math.MaxInt64)}},
		"words, filtered": {`EXPLAIN ` + searchSQL + cheapestFirst, []any{now, int64(-1), "", int64(21), "granite & studio:*", tents, brand, int64(0), int64(50_000)}},
		"no words":        {`EXPLAIN ` + filterSQL + newestFirst, []any{now, "infinity", "~", int64(21), tents, brand, int64(0), int64(50_000)}},
	}
	for name, s := range statements {
		for _, mode := range []string{"force_custom_plan", "force_generic_plan"} {
			plan := b.explain(t, mode, s.sql, s.args...)
			if strings.Contains(plan, "Seq Scan on products") || strings.Contains(plan, "Seq Scan on variants") || strings.Contains(plan, "Seq Scan on prices") ||
				strings.Contains(plan, "Seq Scan on levels") || strings.Contains(plan, "Seq Scan on images") {
				t.Errorf("%s, %s:\n%s", name, mode, plan)
			}
		}
	}

	// And what comes of it is complete: a facet of all is what the table holds.
	all := b.get(t, "/v1/search?facets=category&q=granite+studio&include=total")
	if n := all["total"].(float64); n == 0 {
		t.Errorf("nothing found: %v", all)
	}
}

// explain is the plan of a statement; modes are PostgreSQL's plan_cache_mode.
func (b bench) explain(t testing.TB, mode, statement string, args ...any) string {
	t.Helper()
	var lines []string
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT set_config('plan_cache_mode', $1, true)`, mode); err != nil {
			return err
		}
		return tx.Select(t.Context(), &lines, statement, args...)
	})
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return strings.Join(lines, "\n")
}

// multiply adds 49 copies of every product, as a superuser: it takes longer than a module's statement may.
func multiply(t testing.TB) {
	t.Helper()
	for _, s := range []string{
		`INSERT INTO catalog.products (id, slug, name, brand, category, description, image, currency, price, rating_count, rating_sum, created_at, search)
				SELECT p.id || '-' || g, p.slug || '-' || g, p.name || ' ' || g, p.brand, p.category, p.description, p.image, p.currency, p.price + g,
					g, g * (1 + g % 5), p.created_at + g * interval '1 second', p.search
				FROM catalog.products p, generate_series(1, 49) AS g`,
		`INSERT INTO catalog.variants (sku, product, name, options, weight_grams, position)
				SELECT v.sku || '-' || g, v.product || '-' || g, v.name, v.options, v.weight_grams, v.position FROM catalog.variants v, generate_series(1, 49) AS g`,
		`INSERT INTO catalog.prices (sku, currency, list_minor, sale_minor)
				SELECT p.sku || '-' || g, p.currency, p.list_minor, p.sale_minor FROM catalog.prices p, generate_series(1, 49) AS g`,
		`INSERT INTO catalog.levels (sku, location, on_hand) SELECT l.sku || '-' || g, l.location, l.on_hand FROM catalog.levels l, generate_series(1, 49) AS g`,
		`ANALYZE catalog.products; ANALYZE catalog.variants; ANALYZE catalog.prices; ANALYZE catalog.levels; ANALYZE catalog.images`,
	} {
		shoptest.Exec(t, s)
	}
}
