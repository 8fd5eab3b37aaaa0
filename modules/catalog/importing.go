package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Import: see catalogapi. A batch is one transaction of a fixed number of statements: what is there is read, the differences
// are found here, and only these are written. A dry run does all of it and rolls back.
func (m *Module) Import(ctx context.Context, r catalogapi.ImportRequest) (catalogapi.ImportResult, error) {
	if err := auth.RequireModule(ctx, "shop"); err != nil { // the command line
		return catalogapi.ImportResult{}, err
	}
	if len(r.Rows) > catalogapi.MaxImportRows {
		return catalogapi.ImportResult{}, errs.Invalidf("too_many_rows", "a batch has at most %d rows", catalogapi.MaxImportRows)
	}
	b := batch{m: m, now: m.Now()}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		b.begin(r.Rows)
		if err := b.run(ctx, tx); err != nil {
			return err
		}
		if r.DryRun {
			return errDry
		}
		if ids := b.shown(); len(ids)+len(b.fresh) > 0 {
			return changed(ctx, tx, len(b.fresh) > 0, ids...)
		}
		return nil
	})
	if err != nil && !errors.Is(err, errDry) {
		return catalogapi.ImportResult{}, fmt.Errorf("import: %w", err)
	}
	if !r.DryRun && b.result.Created+b.result.Updated > 0 {
		m.cache.forget()
	}
	slices.SortStableFunc(b.result.Errors, func(x, y catalogapi.RowError) int { return int(x.Line - y.Line) })
	return b.result, nil
}

var errDry = errors.New("dry run")

// batch is one import under way. A transaction may be run again, so begin starts it afresh.
type batch struct {
	m      *Module
	now    time.Time
	result catalogapi.ImportResult

	rows     []*importRow
	products map[string]*importProduct // by external id
	tree     *tree
	fresh    []category
}

// importRow is a row of the file and what there is of its variant.
type importRow struct {
	catalogapi.ImportRow
	product *importProduct
	picture blob

	known    bool // the SKU is there
	weight   int64
	list     int64 // its list price in the row's currency, −1 without one
	onHand   int64
	reserved int64
	changed  bool
	failed   bool
}

// importProduct is what there is of a row's product, and what it becomes.
type importProduct struct {
	known   bool
	was     productWrite
	to      productWrite
	row     *importRow // the first to tell of it
	next    int64      // position of the next variant
	skus    []string
	changed bool // in its own columns
	touched bool // in a variant
}

func (b *batch) begin(rows []catalogapi.ImportRow) {
	b.result = catalogapi.ImportResult{Errors: []catalogapi.RowError{}}
	b.rows, b.products, b.fresh = b.rows[:0], map[string]*importProduct{}, nil
	seen := map[string]int64{}
	for _, r := range rows {
		if r.SKU == "" {
			r.SKU = r.ExternalID
		}
		r.Name, r.Brand, r.Category = strings.TrimSpace(r.Name), strings.TrimSpace(r.Brand), strings.TrimSpace(r.Category)
		row := &importRow{ImportRow: r, list: -1}
		if e := r.Problem(); e.Code != "" {
			b.result.Errors = append(b.result.Errors, e)
			continue
		}
		if line, twice := seen[r.SKU]; twice {
			b.refuse(row, "sku", "repeated", fmt.Sprintf("the SKU is that of line %d", line))
			continue
		}
		seen[r.SKU] = r.Line
		if len(r.Image) > 0 {
			picture, err := newBlob(r.Image)
			if err != nil {
				b.refuse(row, "image", errs.CodeOf(err), err.Error())
				continue
			}
			row.picture = picture
		}
		p := b.products[r.ExternalID]
		if p == nil {
			p = &importProduct{row: row}
			b.products[r.ExternalID] = p
		} else if first := p.row; r.Name != first.Name || r.Brand != first.Brand || r.Category != first.Category ||
			r.Description != first.Description || r.Price.Currency != first.Price.Currency {
			b.refuse(row, "external_id", "contradicts", fmt.Sprintf("another variant of the product on line %d has another name, brand, category, "+
				"description or currency", first.Line))
			continue
		}
		row.product = p
		b.rows = append(b.rows, row)
	}
}

func (b *batch) refuse(row *importRow, column, code, message string) {
	row.failed = true
	b.result.Errors = append(b.result.Errors, catalogapi.RowError{Line: row.Line, Column: column, Code: code, Message: message})
}

func (b *batch) run(ctx context.Context, tx *pg.Tx) error {
	if len(b.rows) == 0 {
		return nil
	}
	for _, step := range []func(context.Context, *pg.Tx) error{
		func(ctx context.Context, tx *pg.Tx) error { return lockCatalogue(ctx, tx) },
		b.readProducts, b.readVariants, b.lockLevels, b.placeInTree, b.compare, b.writeProducts, b.writeVariants,
	} {
		if err := step(ctx, tx); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) readProducts(ctx context.Context, tx *pg.Tx) error {
	external := make([]string, 0, len(b.products))
	for id := range b.products {
		external = append(external, id)
	}
	var rows []struct {
		ID          catalogapi.ProductID
		ExternalID  string `db:"external_id"`
		Slug        string
		Name        string
		Brand       string
		Category    string
		Description string
		TaxClass    string `db:"tax_class"`
		Image       string
		Currency    string
		Next        int64
		SKUs        string `db:"skus"`
	}
	err := tx.Select(ctx, &rows, `
		SELECT p.id, p.external_id, p.slug, p.name, p.brand, p.category, p.description, p.tax_class, p.image, p.currency,
			(SELECT coalesce(max(v.position), -1) + 1 FROM catalog.variants v WHERE v.product = p.id) AS next,
			(SELECT coalesce(string_agg(v.sku, ' '), '') FROM catalog.variants v WHERE v.product = p.id) AS skus
		FROM catalog.products p WHERE p.external_id = ANY ($1)`, pg.Array(external))
	if err != nil {
		return fmt.Errorf("read products: %w", err)
	}
	for _, r := range rows {
		p := b.products[r.ExternalID]
		p.known, p.next, p.skus = true, r.Next, []string{r.SKUs}
		p.was = productWrite{ID: r.ID, ExternalID: r.ExternalID, Slug: r.Slug, Name: r.Name, Brand: r.Brand, Category: r.Category,
			Description: r.Description, TaxClass: r.TaxClass, Image: r.Image, Currency: r.Currency}
	}
	return nil
}

func (b *batch) readVariants(ctx context.Context, tx *pg.Tx) error {
	bySKU := make(map[string]*importRow, len(b.rows))
	skus, currencies := make([]string, len(b.rows)), make([]string, len(b.rows))
	for i, r := range b.rows {
		bySKU[r.SKU] = r
		skus[i], currencies[i] = r.SKU, r.Price.Currency
	}
	var rows []struct {
		SKU      string
		Product  catalogapi.ProductID
		Weight   int64
		List     int64
		OnHand   int64 `db:"on_hand"`
		Reserved int64
	}
	err := tx.Select(ctx, &rows, `
		SELECT v.sku, v.product, v.weight_grams AS weight, coalesce(pr.list_minor, -1) AS list, l.on_hand, l.reserved
		FROM unnest($1::text[], $2::text[]) AS n (sku, currency)
		JOIN catalog.variants v ON v.sku = n.sku
		JOIN catalog.levels l ON l.sku = v.sku AND l.location = 'main'
		LEFT JOIN catalog.prices pr ON pr.sku = v.sku AND pr.currency = n.currency`, pg.Array(skus), pg.Array(currencies))
	if err != nil {
		return fmt.Errorf("read variants: %w", err)
	}
	for _, v := range rows {
		r := bySKU[v.SKU]
		r.known, r.weight, r.list, r.onHand, r.reserved = true, v.Weight, v.List, v.OnHand, v.Reserved
		if v.Product != r.product.was.ID {
			b.refuse(r, "sku", "taken", "the SKU belongs to another product")
		}
	}
	return nil
}

// lockLevels takes the levels that will change, in order, and reads them again: orders go on while an import runs.
func (b *batch) lockLevels(ctx context.Context, tx *pg.Tx) error {
	bySKU := map[string]*importRow{}
	var skus []string
	for _, r := range b.rows {
		if r.known && !r.failed && r.Stock != r.onHand {
			bySKU[r.SKU] = r
			skus = append(skus, r.SKU)
		}
	}
	if len(skus) == 0 {
		return nil
	}
	var rows []struct {
		SKU      string
		OnHand   int64 `db:"on_hand"`
		Reserved int64
	}
	err := tx.Select(ctx, &rows, `
		SELECT l.sku, l.on_hand, l.reserved FROM catalog.levels l WHERE l.sku = ANY ($1) AND l.location = 'main' ORDER BY l.sku FOR UPDATE`,
		pg.Array(skus))
	if err != nil {
		return fmt.Errorf("lock levels: %w", err)
	}
	for _, l := range rows {
		r := bySKU[l.SKU]
		r.onHand, r.reserved = l.OnHand, l.Reserved
		if r.Stock < l.Reserved {
			b.refuse(r, "stock", "below_reserved", fmt.Sprintf("%d units are promised to orders, so there must be at least as many", l.Reserved))
		}
	}
	return nil
}

// placeInTree finds the rows' categories by the slug of their names and makes those that are new, at the top of the tree.
func (b *batch) placeInTree(ctx context.Context, tx *pg.Tx) error {
	all, err := allCategories(ctx, tx)
	if err != nil {
		return fmt.Errorf("read categories: %w", err)
	}
	b.tree = newTree(all)
	for _, r := range b.rows {
		slug := slugify(r.Category)
		if _, ok := b.tree.bySlug[slug]; ok || r.failed {
			continue
		}
		c := category{ID: ids.Derived[string]("cat", "category", slug), Slug: slug, Name: r.Category, Path: slug, Position: int64(len(all))}
		all = append(all, c)
		b.fresh = append(b.fresh, c)
		b.tree = newTree(all)
	}
	return insertCategories(ctx, tx, b.fresh)
}

// compare decides what each row changes.
func (b *batch) compare(ctx context.Context, tx *pg.Tx) error {
	var created []*importProduct
	for _, r := range b.rows {
		if r.failed {
			continue
		}
		p := r.product
		if p.to.ID == "" { // the first good row of the product
			c := b.tree.bySlug[slugify(r.Category)]
			p.to = p.was
			p.to.Name, p.to.Brand, p.to.Category, p.to.Description = r.Name, r.Brand, c.ID, r.Description
			p.to.Trail = b.tree.trail(c.ID)
			if !p.known {
				p.to.ID, p.to.ExternalID, p.to.TaxClass, p.to.Created = ids.New[catalogapi.ProductID]("prd"), r.ExternalID, "standard", b.now
				p.to.Currency, p.to.Price = r.Price.Currency, r.Price.Minor
				created = append(created, p)
			} else if r.Price.Currency == b.m.Config.Currency {
				p.to.Currency = r.Price.Currency
			}
		}
		if r.picture.Name != "" && p.to.Image != r.picture.Name {
			p.to.Image = r.picture.Name
		}
		p.changed = p.known && p.to.contentDiffers(p.was)
		r.changed = !r.known || r.weight != r.WeightGrams || r.list != r.Price.Minor || r.onHand != r.Stock
		p.touched = p.touched || r.changed
		if !r.known {
			p.skus = append(p.skus, r.SKU)
		}
		switch {
		case !p.known:
			b.result.Created++
		case r.changed || p.changed:
			b.result.Updated++
		default:
			b.result.Unchanged++
		}
	}
	return nameSlugs(ctx, tx, created)
}

func (p productWrite) contentDiffers(was productWrite) bool {
	return p.Name != was.Name || p.Brand != was.Brand || p.Category != was.Category || p.Description != was.Description ||
		p.Image != was.Image || p.Currency != was.Currency
}

// nameSlugs gives new products their names in addresses: the name alone where that is free, else with the end of the id.
func nameSlugs(ctx context.Context, tx *pg.Tx, created []*importProduct) error {
	slugs := make([]string, len(created))
	for i, p := range created {
		slugs[i] = slugify(p.to.Name)
	}
	var taken []string
	if err := tx.Select(ctx, &taken, `SELECT p.slug FROM catalog.products p WHERE p.slug = ANY ($1)`, pg.Array(slugs)); err != nil {
		return fmt.Errorf("read slugs: %w", err)
	}
	used := map[string]bool{}
	for _, s := range taken {
		used[s] = true
	}
	for i, p := range created {
		p.to.Slug = slugs[i]
		if used[slugs[i]] {
			// Derived, so that a file imported into an empty shop gets the same addresses again.
			of := p.to.ExternalID
			if of == "" {
				of = string(p.to.ID) // made by hand: nothing else tells it from its namesakes
			}
			id := ids.Derived[string]("slug", slugs[i], of)
			p.to.Slug += "-" + id[len(id)-8:]
		}
		used[p.to.Slug] = true
	}
	return nil
}

// shown are the products that look different after the batch.
func (b *batch) shown() (all []catalogapi.ProductID) {
	for _, p := range b.products {
		if p.to.ID != "" && (!p.known || p.changed || p.touched) {
			all = append(all, p.to.ID)
		}
	}
	slices.Sort(all)
	return all
}

func (b *batch) writeProducts(ctx context.Context, tx *pg.Tx) error {
	var created, changed []productWrite
	var touched []catalogapi.ProductID
	var images []imageWrite
	for _, r := range b.rows {
		p := r.product
		if r.failed || p.to.ID == "" || p.row == nil {
			continue
		}
		p.row = nil // once a product
		p.to.Keywords = strings.Join(append(p.skus, p.to.ExternalID), " ")
		switch {
		case !p.known:
			created = append(created, p.to)
		case p.changed:
			changed = append(changed, p.to)
		case p.touched:
			touched = append(touched, p.to.ID)
		}
		if p.to.Image != p.was.Image {
			images = append(images, imageWrite{Product: p.to.ID, Name: p.to.Image, Alt: p.to.Name})
		}
	}
	if len(created) > 0 {
		if err := insertProducts(ctx, tx, created); err != nil {
			return err
		}
	}
	if err := updateProducts(ctx, tx, changed); err != nil {
		return err
	}
	if err := touchProducts(ctx, tx, touched); err != nil {
		return err
	}
	for _, r := range b.rows {
		if !r.failed && r.picture.Name != "" && r.product.was.Image != r.picture.Name {
			if err := insertBlob(ctx, tx, r.picture); err != nil {
				return err
			}
		}
	}
	return putImages(ctx, tx, images)
}

func (b *batch) writeVariants(ctx context.Context, tx *pg.Tx) error {
	var (
		variants []variantWrite
		prices   []priceWrite
		levels   []change
		moves    []change
		heavier  []string
		grams    []int64
		products []catalogapi.ProductID
	)
	for _, r := range b.rows {
		if r.failed {
			continue
		}
		p := r.product
		if !r.known {
			v := variantWrite{SKU: r.SKU, Product: p.to.ID, WeightGrams: r.WeightGrams, Position: p.next}
			if p.next > 0 {
				v.Name = r.SKU // the file has no better name for what makes the variants different
			}
			p.next++
			variants = append(variants, v)
			levels = append(levels, change{SKU: r.SKU, OnHand: r.Stock})
		} else {
			if r.weight != r.WeightGrams {
				heavier, grams = append(heavier, r.SKU), append(grams, r.WeightGrams)
			}
			if r.onHand != r.Stock {
				moves = append(moves, change{SKU: r.SKU, OnHand: r.Stock - r.onHand})
			}
		}
		if r.list != r.Price.Minor {
			prices = append(prices, priceWrite{SKU: r.SKU, Currency: r.Price.Currency, List: r.Price.Minor, Sale: -1})
		}
		if !r.known || r.list != r.Price.Minor || p.to.Currency != p.was.Currency {
			products = append(products, p.to.ID)
		}
	}
	if err := insertVariants(ctx, tx, variants); err != nil {
		return err
	}
	if err := updateWeights(ctx, tx, heavier, grams); err != nil {
		return err
	}
	if err := putPrices(ctx, tx, b.now, prices); err != nil {
		return err
	}
	if err := reprice(ctx, tx, b.now, products); err != nil {
		return err
	}
	reference := ids.New[ids.ID]("imp")
	if err := insertLevels(ctx, tx, reference, "import", b.now, levels); err != nil {
		return err
	}
	if len(moves) == 0 {
		return nil
	}
	if err := addMovements(ctx, tx, reference, "import", b.now, moves); err != nil {
		return fmt.Errorf("book stock: %w", err)
	}
	return b.m.settle(ctx, tx, sumChanges(moves))
}
