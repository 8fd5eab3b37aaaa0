package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// The writes of the catalogue, each one statement for many rows: imports, the admin's edits and the demo data share them.

// lockCatalogue makes those who create products and categories wait for one another, so that what they looked up (a free slug, a
// category's name) still holds when they write. Shoppers never wait for it.
func lockCatalogue(ctx context.Context, tx *pg.Tx) error {
	_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtext('catalog.products'))`)
	return err
}

// searchVector is what products are found by; n holds folded texts. The words of a name stand in it as they are, too, so that
// one that is still being typed ("runni") is found although its stem ("run") is shorter.
const searchVector = `setweight(to_tsvector('pg_catalog.english', n.title) || to_tsvector('pg_catalog.simple', n.title), 'A') || setweight(to_tsvector('pg_catalog.english', n.tags), 'B')
	|| setweight(to_tsvector('pg_catalog.english', n.body), 'D')`

// productWrite is a product to be created, or what an existing one becomes.
type productWrite struct {
	ID          catalogapi.ProductID
	ExternalID  string // "" for none
	Slug        string
	Name        string
	Brand       string
	Category    string // id
	Trail       string // names of the category and those above
	Description string
	TaxClass    string
	Image       string
	Currency    string
	Price       int64 // what it costs at first; reprice then has nothing to correct
	Created     time.Time
	Keywords    string // found by these too, such as SKUs and colours
}

func insertProducts(ctx context.Context, tx *pg.Tx, all []productWrite) error {
	c, prices := newColumns(len(all)), make([]int64, len(all))
	for i, p := range all {
		prices[i] = p.Price
		c.set(i, string(p.ID), p.ExternalID, p.Slug, p.Name, p.Brand, p.Category, p.Description, p.TaxClass, p.Image, p.Currency,
			p.Created.UTC().Format(time.RFC3339Nano), fold(p.Name), fold(p.Brand+" "+p.Trail+p.Keywords), fold(p.Description))
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.products (id, external_id, slug, name, brand, category, description, tax_class, image, currency, price,
			created_at, search)
		SELECT n.id, nullif(n.external_id, ''), n.slug, n.name, n.brand, n.category, n.description, n.tax_class, n.image, n.currency, n.price,
			n.created_at, `+searchVector+`
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
			$11::timestamptz[], $12::text[], $13::text[], $14::text[], $15::bigint[])
			AS n (id, external_id, slug, name, brand, category, description, tax_class, image, currency, created_at, title, tags, body, price)`,
		append(c.args(), pg.Array(prices))...)
	if err != nil {
		return fmt.Errorf("insert products: %w", err)
	}
	return nil
}

func updateProducts(ctx context.Context, tx *pg.Tx, all []productWrite) error {
	if len(all) == 0 {
		return nil
	}
	c := newColumns(len(all))
	for i, p := range all {
		c.set(i, string(p.ID), p.Name, p.Brand, p.Category, p.Description, p.TaxClass, p.Image, p.Currency,
			fold(p.Name), fold(p.Brand+" "+p.Trail+p.Keywords), fold(p.Description))
	}
	_, err := tx.Exec(ctx, `
		UPDATE catalog.products AS p SET name = n.name, brand = n.brand, category = n.category, description = n.description,
			tax_class = n.tax_class, image = n.image, currency = n.currency, version = p.version + 1, search = `+searchVector+`
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
			$10::text[], $11::text[]) AS n (id, name, brand, category, description, tax_class, image, currency, title, tags, body)
		WHERE p.id = n.id`, c.args()...)
	if err != nil {
		return fmt.Errorf("update products: %w", err)
	}
	return nil
}

// touchProducts gives products whose variants or prices have changed a new version.
func touchProducts(ctx context.Context, tx *pg.Tx, ids []catalogapi.ProductID) error {
	if len(ids) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE catalog.products SET version = version + 1 WHERE id = ANY ($1)`, pg.Array(ids))
	return err
}

// variantWrite is a variant to be created.
type variantWrite struct {
	SKU         string
	Product     catalogapi.ProductID
	Name        string
	Options     pg.JSON[[]catalogapi.Option]
	WeightGrams int64
	Position    int64
}

func insertVariants(ctx context.Context, tx *pg.Tx, all []variantWrite) error {
	if len(all) == 0 {
		return nil
	}
	texts := [4][]string{}
	var weights, positions []int64
	for _, v := range all {
		if v.Options.V == nil {
			v.Options.V = []catalogapi.Option{}
		}
		options, err := v.Options.Value()
		if err != nil {
			return fmt.Errorf("options of %s: %w", v.SKU, err)
		}
		for i, s := range []string{v.SKU, string(v.Product), v.Name, options.(string)} {
			texts[i] = append(texts[i], s)
		}
		weights, positions = append(weights, v.WeightGrams), append(positions, v.Position)
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.variants (sku, product, name, options, weight_grams, position)
		SELECT n.sku, n.product, n.name, n.options, n.weight_grams, n.position
		FROM unnest($1::text[], $2::text[], $3::text[], $4::jsonb[], $5::bigint[], $6::bigint[])
			AS n (sku, product, name, options, weight_grams, position)`,
		pg.Array(texts[0]), pg.Array(texts[1]), pg.Array(texts[2]), pg.Array(texts[3]), pg.Array(weights), pg.Array(positions))
	if err != nil {
		return fmt.Errorf("insert variants: %w", err)
	}
	return nil
}

func updateWeights(ctx context.Context, tx *pg.Tx, skus []string, grams []int64) error {
	if len(skus) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		UPDATE catalog.variants AS v SET weight_grams = n.grams FROM unnest($1::text[], $2::bigint[]) AS n (sku, grams) WHERE v.sku = n.sku`,
		pg.Array(skus), pg.Array(grams))
	if err != nil {
		return fmt.Errorf("update weights: %w", err)
	}
	return nil
}

// priceWrite is what a SKU costs from now on. Without a sale (Sale < 0) one that is set already stays, unless EndSale.
type priceWrite struct {
	SKU, Currency    string
	List, Sale       int64
	SaleFrom, SaleTo string // "" for open
	EndSale          bool
}

func putPrices(ctx context.Context, tx *pg.Tx, now time.Time, all []priceWrite) error {
	if len(all) == 0 {
		return nil
	}
	c := newColumns(len(all))
	list, sale, end := make([]int64, len(all)), make([]int64, len(all)), make([]bool, len(all))
	for i, p := range all {
		from, to := "-infinity", "infinity"
		if p.SaleFrom != "" {
			from = p.SaleFrom
		}
		if p.SaleTo != "" {
			to = p.SaleTo
		}
		c.set(i, p.SKU, p.Currency, from, to)
		list[i], sale[i], end[i] = p.List, p.Sale, p.EndSale
	}
	_, err := tx.Exec(ctx, `
		WITH new AS (
			SELECT n.sku, n.currency, n.sale_from, n.sale_to, n.list, n.sale, n.ends
			FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[], $5::bigint[], $6::bigint[], $7::bool[])
				AS n (sku, currency, sale_from, sale_to, list, sale, ends)),
		written AS (
			INSERT INTO catalog.prices AS p (sku, currency, list_minor, sale_minor, sale_from, sale_to)
			SELECT n.sku, n.currency, n.list,
				CASE WHEN n.sale >= 0 THEN n.sale WHEN n.ends THEN NULL ELSE o.sale_minor END,
				CASE WHEN n.sale >= 0 OR n.ends OR o.sku IS NULL THEN n.sale_from ELSE o.sale_from END,
				CASE WHEN n.sale >= 0 OR n.ends OR o.sku IS NULL THEN n.sale_to ELSE o.sale_to END
			FROM new n LEFT JOIN catalog.prices o ON o.sku = n.sku AND o.currency = n.currency
			ON CONFLICT (sku, currency) DO UPDATE SET list_minor = EXCLUDED.list_minor, sale_minor = EXCLUDED.sale_minor,
				sale_from = EXCLUDED.sale_from, sale_to = EXCLUDED.sale_to
			RETURNING p.sku, p.currency, p.list_minor, p.sale_minor, p.sale_from, p.sale_to)
		INSERT INTO catalog.price_history AS h (sku, currency, changed_at, list_minor, sale_minor, sale_from, sale_to)
		SELECT w.sku, w.currency, $8, w.list_minor, w.sale_minor, w.sale_from, w.sale_to FROM written w
		ON CONFLICT (sku, currency, changed_at) DO UPDATE SET list_minor = EXCLUDED.list_minor, sale_minor = EXCLUDED.sale_minor,
			sale_from = EXCLUDED.sale_from, sale_to = EXCLUDED.sale_to`,
		append(c.args(), pg.Array(list), pg.Array(sale), pg.Array(end), now)...)
	if err != nil {
		return fmt.Errorf("write prices: %w", err)
	}
	return nil
}

const repriceSQL = `
	UPDATE catalog.products AS p SET price = s.price, price_until = s.until
	FROM (
		SELECT v.product, min(` + currentPrice + `) AS price,
			min(CASE WHEN pr.sale_minor IS NULL THEN 'infinity' WHEN $1 < pr.sale_from THEN pr.sale_from
				WHEN $1 < pr.sale_to THEN pr.sale_to ELSE 'infinity' END) AS until
		FROM catalog.products q
		JOIN catalog.variants v ON v.product = q.id
		JOIN catalog.prices pr ON pr.sku = v.sku AND pr.currency = q.currency
		WHERE q.id = ANY ($2) GROUP BY v.product) s
	WHERE p.id = s.product AND (p.price <> s.price OR p.price_until <> s.until)`

// reprice brings the prices in the products' own rows up to date.
func reprice(ctx context.Context, tx *pg.Tx, now time.Time, ids []catalogapi.ProductID) error {
	if len(ids) == 0 {
		return nil
	}
	if _, err := tx.Exec(ctx, repriceSQL, now, pg.Array(ids)); err != nil {
		return fmt.Errorf("reprice: %w", err)
	}
	return nil
}

// Reprice begins and ends the sales whose time has come and returns how many products that touched. Until it has run, lists
// show the right price and sort by the old one.
func (m *Module) Reprice(ctx context.Context) (int, error) {
	for done := 0; ; {
		var due []catalogapi.ProductID
		now := m.Now()
		err := m.DB.Select(ctx, &due, `SELECT p.id FROM catalog.products p WHERE p.price_until < 'infinity' AND p.price_until <= $1 LIMIT 500`, now)
		if err != nil || len(due) == 0 {
			return done, err
		}
		err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
			var locked []catalogapi.ProductID
			err := tx.Select(ctx, &locked, `SELECT p.id FROM catalog.products p WHERE p.id = ANY ($1) ORDER BY p.id FOR UPDATE`, pg.Array(due))
			if err != nil {
				return err
			}
			if err := reprice(ctx, tx, now, locked); err != nil || len(locked) == 0 {
				return err
			}
			return changed(ctx, tx, false, locked...)
		})
		if err != nil {
			return done, err
		}
		done += len(due)
		if len(due) < 500 || ctx.Err() != nil {
			return done, nil
		}
	}
}

// insertLevels gives new SKUs their first stock, booked under the reference.
func insertLevels(ctx context.Context, tx *pg.Tx, reference ids.ID, reason string, now time.Time, levels []change) error {
	if len(levels) == 0 {
		return nil
	}
	skus, onHand := make([]string, len(levels)), make([]int64, len(levels))
	for i, l := range levels {
		skus[i], onHand[i] = l.SKU, l.OnHand
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.levels (sku, location, on_hand) SELECT n.sku, 'main', n.on_hand FROM unnest($1::text[], $2::bigint[]) AS n (sku, on_hand)`,
		pg.Array(skus), pg.Array(onHand))
	if err != nil {
		return fmt.Errorf("insert levels: %w", err)
	}
	if err := addMovements(ctx, tx, reference, reason, now, levels); err != nil {
		return fmt.Errorf("book first stock: %w", err)
	}
	return nil
}

// imageWrite is a picture of a product.
type imageWrite struct {
	Product  catalogapi.ProductID
	Position int64
	Name     string
	Alt      string
}

func putImages(ctx context.Context, tx *pg.Tx, all []imageWrite) error {
	if len(all) == 0 {
		return nil
	}
	c, positions := newColumns(len(all)), make([]int64, len(all))
	for i, p := range all {
		c.set(i, string(p.Product), p.Name, p.Alt)
		positions[i] = p.Position
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.images (product, name, alt, position)
		SELECT n.product, n.name, n.alt, n.position FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS n (product, name, alt, position)
		ON CONFLICT (product, position) DO UPDATE SET name = EXCLUDED.name, alt = EXCLUDED.alt`, append(c.args(), pg.Array(positions))...)
	if err != nil {
		return fmt.Errorf("write images: %w", err)
	}
	return nil
}

func insertBlob(ctx context.Context, tx *pg.Tx, b blob) error {
	_, err := tx.Exec(ctx, `INSERT INTO catalog.blobs (name, content_type, bytes) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING`,
		b.Name, b.ContentType, b.Bytes)
	if err != nil {
		return fmt.Errorf("store picture: %w", err)
	}
	return nil
}

func insertCategories(ctx context.Context, tx *pg.Tx, all []category) error {
	if len(all) == 0 {
		return nil
	}
	c, positions := newColumns(len(all)), make([]int64, len(all))
	for i, n := range all {
		c.set(i, n.ID, n.Parent, n.Slug, n.Name, n.Path)
		positions[i] = n.Position
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.categories (id, parent, slug, name, path, position)
		SELECT n.id, nullif(n.parent, ''), n.slug, n.name, n.path, n.position
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[]) AS n (id, parent, slug, name, path, position)
		ON CONFLICT DO NOTHING`, append(c.args(), pg.Array(positions))...)
	if err != nil {
		return fmt.Errorf("insert categories: %w", err)
	}
	return nil
}

// textColumns turns rows into the arrays that unnest takes.
type textColumns struct {
	rows int
	cols [][]string
}

func newColumns(rows int) *textColumns { return &textColumns{rows: rows} }

func (c *textColumns) set(row int, values ...string) {
	if c.cols == nil {
		c.cols = make([][]string, len(values))
		for i := range c.cols {
			c.cols[i] = make([]string, c.rows)
		}
	}
	for i, v := range values {
		c.cols[i][row] = v
	}
}

func (c *textColumns) args() []any {
	out := make([]any, len(c.cols))
	for i, col := range c.cols {
		out[i] = pg.Array(col)
	}
	return out
}
