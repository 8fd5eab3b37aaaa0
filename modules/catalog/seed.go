package catalog

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// demoEpoch is when the first demo product was made; each next one is an hour younger.
var demoEpoch = time.Date(2025, 1, 1, 8, 0, 0, 0, time.UTC)

const seedChunk = 500

// Seed makes the demo catalogue, or what is missing of it. See host.Seeder.
func (m *Module) Seed(ctx context.Context) error {
	for from := 1; from <= m.Config.DemoProducts; from += seedChunk {
		to := min(from+seedChunk-1, m.Config.DemoProducts)
		err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return m.seedChunk(ctx, tx, from, to) })
		if err != nil {
			return fmt.Errorf("seed products %d to %d: %w", from, to, err)
		}
	}
	m.cache.forget()
	return nil
}

// seedChunk makes those of the products that are not there yet.
func (m *Module) seedChunk(ctx context.Context, tx *pg.Tx, from, to int) error {
	if err := lockCatalogue(ctx, tx); err != nil {
		return err
	}
	wanted := make([]catalogapi.ProductID, 0, to-from+1)
	for n := from; n <= to; n++ {
		wanted = append(wanted, catalogapi.DemoProductID(n))
	}
	var there []catalogapi.ProductID
	if err := tx.Select(ctx, &there, `SELECT p.id FROM catalog.products p WHERE p.id = ANY ($1)`, pg.Array(wanted)); err != nil {
		return err
	}
	if len(there) == len(wanted) {
		return nil
	}
	known := make(map[catalogapi.ProductID]bool, len(there))
	for _, id := range there {
		known[id] = true
	}
	tree := demoTree()
	if err := insertCategories(ctx, tx, tree.all); err != nil {
		return err
	}

	var (
		products []productWrite
		variants []variantWrite
		prices   []priceWrite
		levels   []change
		images   []imageWrite
		fresh    []catalogapi.ProductID
	)
	for n := from; n <= to; n++ {
		id := catalogapi.DemoProductID(n)
		if known[id] {
			continue
		}
		d := demoProduct(n)
		category := tree.bySlug[d.dept.slug].ID
		keywords, price := make([]string, 0, 4), int64(0)
		for i, v := range d.variants {
			keywords = append(keywords, v.sku)
			variants = append(variants, variantWrite{SKU: v.sku, Product: id, Name: v.name, WeightGrams: v.grams, Position: int64(i),
				Options: pg.JSON[[]catalogapi.Option]{V: v.options}})
			if cost := v.cost(); i == 0 || cost < price {
				price = cost
			}
			prices = append(prices, priceWrite{SKU: v.sku, Currency: "EUR", List: v.list, Sale: v.sale})
			levels = append(levels, change{SKU: v.sku, OnHand: v.stock})
			for _, o := range v.options {
				keywords = append(keywords, o.Value)
			}
		}
		products = append(products, productWrite{ID: id, Slug: slugify(d.name), Name: d.name, Brand: d.brand, Category: category,
			Trail: tree.trail(category), Description: d.description, TaxClass: "standard", Image: demoImageName(n), Currency: "EUR", Price: price,
			Created: demoEpoch.Add(time.Duration(n) * time.Hour), Keywords: strings.Join(keywords, " ")})
		images = append(images, imageWrite{Product: id, Name: demoImageName(n), Alt: d.name})
		fresh = append(fresh, id)
	}
	if err := insertProducts(ctx, tx, products); err != nil {
		return err
	}
	if err := insertVariants(ctx, tx, variants); err != nil {
		return err
	}
	if err := putPrices(ctx, tx, demoEpoch, prices); err != nil {
		return err
	}
	if err := putImages(ctx, tx, images); err != nil {
		return err
	}
	if err := insertLevels(ctx, tx, ids.ID("demo"), "first stock", m.Now(), levels); err != nil {
		return err
	}
	if err := reprice(ctx, tx, m.Now(), fresh); err != nil {
		return err
	}
	return changed(ctx, tx, true, fresh...)
}

func demoTree() *tree {
	all := make([]category, len(departments))
	for i, d := range departments {
		all[i] = category{ID: ids.Derived[string]("cat", "category", d.slug), Slug: d.slug, Name: d.name, Path: d.slug, Position: int64(i)}
		if d.parent != "" {
			all[i].Parent = ids.Derived[string]("cat", "category", d.parent)
			all[i].Path = d.parent + "/" + d.slug
		}
	}
	return newTree(all)
}
