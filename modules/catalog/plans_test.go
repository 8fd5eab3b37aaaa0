package catalog

import (
	"context"
	"errors"
	"fmt"
	"math"
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
	of := demoTree().subtree
	words := search{words: "granite & studio:*", max: math.MaxInt64}
	filtered := search{words: "granite:*", categories: of([]string{"tents"}), brands: []string{"Tarn"}, max: 50_000}
	noWords := search{categories: of([]string{"tents"}), brands: []string{"Tarn"}, max: 50_000}
	reads := map[string]func(ctx context.Context, q pg.Queryer) error{
		"page by id": func(ctx context.Context, q pg.Queryer) error {
			_, err := productPage(ctx, q, now, string(catalogapi.DemoProductID(9)))
			return err
		},
		"page by slug": func(ctx context.Context, q pg.Queryer) error {
			_, err := productPage(ctx, q, now, slugify(demoProduct(9).name))
			return err
		},
		"offers": func(ctx context.Context, q pg.Queryer) error {
			rows, err := offers(ctx, q, now, []string{demoProduct(1).variants[0].sku, demoProduct(2).variants[0].sku}, "EUR")
			if err == nil && len(rows) != 2 {
				return fmt.Errorf("%d offers", len(rows))
			}
			return err
		},
		"products": func(ctx context.Context, q pg.Queryer) error {
			_, err := cardsByID(ctx, q, now, []catalogapi.ProductID{catalogapi.DemoProductID(1), catalogapi.DemoProductID(2)})
			return err
		},
		"facets of words": func(ctx context.Context, q pg.Queryer) error { _, err := facets(ctx, q, words); return err },
		"total of words":  func(ctx context.Context, q pg.Queryer) error { _, err := total(ctx, q, words); return err },
	}
	for name, by := range sortings {
		middle := position{ID: "prd_m", Time: "2025-02-01T00:00:00Z", Name: "M", Value: 5000}
		for page, at := range map[string]position{"first": by.first, "later": middle} {
			for rows, limit := range map[string]int64{"few": 20, "many": 100} {
				suffix := " by " + name + ", " + page + " page, " + rows
				if name != "relevance" {
					reads["list"+suffix] = func(ctx context.Context, q pg.Queryer) error {
						_, err := list(ctx, q, by, now, at, limit, nil)
						return err
					}
					reads["category"+suffix] = func(ctx context.Context, q pg.Queryer) error {
						_, err := list(ctx, q, by, now, at, limit, of([]string{"outdoor"}))
						return err
					}
					reads["filter"+suffix] = func(ctx context.Context, q pg.Queryer) error {
						_, err := find(ctx, q, noWords, by, now, at, limit)
						return err
					}
				}
				reads["search"+suffix] = func(ctx context.Context, q pg.Queryer) error {
					_, err := find(ctx, q, words, by, now, at, limit)
					return err
				}
				reads["filtered search"+suffix] = func(ctx context.Context, q pg.Queryer) error {
					_, err := find(ctx, q, filtered, by, now, at, limit)
					return err
				}
			}
		}
	}
	for name, read := range reads {
		// Ten times, so that the server has settled on a plan, and counted by the server itself.
		var scans []struct {
			Table string
			N     int64
		}
		err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
			for range 10 {
				if err := read(t.Context(), tx); err != nil {
					return err
				}
			}
			return tx.Select(t.Context(), &scans, `
				SELECT s.relname AS table, s.seq_scan AS n FROM pg_catalog.pg_stat_xact_user_tables s
				WHERE s.schemaname = 'catalog' AND s.relname <> 'categories' AND s.seq_scan > 0`)
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, s := range scans {
			t.Errorf("%s reads all of %s, %d times of 10", name, s.Table, s.N)
		}
	}

	if n := b.get(t, "/v1/search?q=granite+studio&include=total")["total"].(float64); n == 0 {
		t.Error("nothing found")
	}
}

// Statements that shoppers run by the thousand a second are planned once and not at every execution: planning takes longer.
func TestPlansAreKept(t *testing.T) {
	t.Parallel()
	b := seeded(t, 2000)
	shoptest.Exec(t, `ANALYZE catalog.products; ANALYZE catalog.variants; ANALYZE catalog.prices; ANALYZE catalog.levels; ANALYZE catalog.images`)
	now := b.Now()
	words := search{words: "running & shoe:*", max: math.MaxInt64}
	var planned []string
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		for i := range 12 {
			var errs [10]error
			_, errs[0] = productPage(t.Context(), tx, now, slugify(demoProduct(i+1).name))
			_, errs[1] = list(t.Context(), tx, sortings["newest"], now, sortings["newest"].first, 20, nil)
			_, errs[2] = list(t.Context(), tx, sortings["price"], now, sortings["price"].first, 20, nil)
			_, errs[3] = list(t.Context(), tx, sortings["newest"], now, sortings["newest"].first, 20, demoTree().subtree([]string{"outdoor"}))
			_, errs[4] = find(t.Context(), tx, words, sortings["relevance"], now, sortings["relevance"].first, 20)
			_, errs[5] = facets(t.Context(), tx, words)
			_, errs[6] = offers(t.Context(), tx, now, []string{demoProduct(i + 1).variants[0].sku}, "EUR")
			_, errs[7] = cardsByID(t.Context(), tx, now, []catalogapi.ProductID{catalogapi.DemoProductID(i + 1)})
			_, errs[8] = list(t.Context(), tx, sortings["price"], now, sortings["price"].first, 20, demoTree().subtree([]string{"tents"}))
			_, errs[9] = list(t.Context(), tx, sortings["name"], now, sortings["name"].first, 20, demoTree().subtree([]string{"home"}))
			if err := errors.Join(errs[:]...); err != nil {
				return err
			}
		}
		return tx.Select(t.Context(), &planned, `
			SELECT s.statement FROM pg_catalog.pg_prepared_statements s WHERE s.custom_plans > 5 AND s.statement LIKE '%catalog.products p%'`)
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range planned {
		t.Errorf("planned at every execution:\n%s", statement)
	}
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
