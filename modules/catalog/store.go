package catalog

import (
	"context"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/pg"
)

// currentPrice is what pr costs at $1.
const currentPrice = `CASE WHEN pr.sale_minor IS NOT NULL AND pr.sale_from <= $1 AND $1 < pr.sale_to THEN pr.sale_minor ELSE pr.list_minor END`

// cardColumns are a product p as lists show it at $1. The price in its row is the price until price_until; past it, until the
// row is repriced, the variants are asked, so that what is shown is never old.
const cardColumns = `p.id, p.slug, p.name, p.brand, p.image, p.currency, p.rating, p.rating_count, p.created_at, p.price AS price_key,
	CASE WHEN p.price_until > $1 THEN p.price ELSE (
		SELECT min(` + currentPrice + `) FROM catalog.variants v JOIN catalog.prices pr ON pr.sku = v.sku AND pr.currency = p.currency
		WHERE v.product = p.id) END AS price`

type card struct {
	ID          catalogapi.ProductID
	Slug        string
	Name        string
	Brand       string
	Image       string
	Currency    string
	Rating      int64
	RatingCount int64     `db:"rating_count"`
	CreatedAt   time.Time `db:"created_at"`
	PriceKey    int64     `db:"price_key"` // what the row is sorted by
	Price       int64
	Score       int64 // relevance, where a search sorts by it
}

// listed is the array $2, of a length the server can't see: for each number of elements it would else think of a cheaper plan, and
// plan at every execution.
const listed = `(SELECT $2::text[])::text[]`

func cardsByID(ctx context.Context, q pg.Queryer, now time.Time, ids []catalogapi.ProductID) (rows []card, err error) {
	err = q.Select(ctx, &rows, `SELECT `+cardColumns+`
		FROM catalog.products p WHERE p.id = ANY (`+listed+`) AND p.archived_at IS NULL`, now, pg.Array(ids))
	return rows, err
}

type offer struct {
	SKU         string
	Product     catalogapi.ProductID
	Name        string
	Variant     string
	Price       int64
	TaxClass    string `db:"tax_class"`
	WeightGrams int64  `db:"weight_grams"`
	Available   int64
	Image       string
}

func offers(ctx context.Context, q pg.Queryer, now time.Time, skus []string, currency string) (rows []offer, err error) {
	err = q.Select(ctx, &rows, `
		SELECT v.sku, v.product, p.name, v.name AS variant, `+currentPrice+` AS price, p.tax_class, v.weight_grams,
			l.on_hand - l.reserved AS available, p.image
		FROM catalog.variants v
		JOIN catalog.products p ON p.id = v.product AND p.archived_at IS NULL
		JOIN catalog.prices pr ON pr.sku = v.sku AND pr.currency = $3
		JOIN catalog.levels l ON l.sku = v.sku AND l.location = 'main'
		WHERE v.sku = ANY (`+listed+`)`, now, pg.Array(skus), currency)
	return rows, err
}

// pageRow is one variant of a product, with the product beside it.
type pageRow struct {
	ID          catalogapi.ProductID
	Slug        string
	Name        string
	Brand       string
	Description string
	Category    string
	Currency    string
	Rating      int64
	RatingCount int64 `db:"rating_count"`
	Version     int64
	Images      pg.JSON[[][2]string] // name, alt
	SKU         string
	Variant     string
	Options     pg.JSON[[]catalogapi.Option]
	WeightGrams int64 `db:"weight_grams"`
	Price       int64
	ListPrice   int64 `db:"list_price"`
	Available   int64
}

const pageByID = pageSQL + ` WHERE p.id = $2 AND p.archived_at IS NULL ORDER BY v.position`
const pageBySlug = pageSQL + ` WHERE p.slug = $2 AND p.archived_at IS NULL ORDER BY v.position`

const pageSQL = `
	SELECT p.id, p.slug, p.name, p.brand, p.description, c.slug AS category, p.currency, p.rating, p.rating_count, p.version,
		CASE WHEN v.position = 0 THEN (
			SELECT json_agg(json_build_array(i.name, i.alt) ORDER BY i.position) FROM catalog.images i WHERE i.product = p.id) END AS images,
		v.sku, v.name AS variant, v.options, v.weight_grams, pr.list_minor AS list_price, ` + currentPrice + ` AS price,
		l.on_hand - l.reserved AS available
	FROM catalog.products p
	JOIN catalog.categories c ON c.id = p.category
	JOIN catalog.variants v ON v.product = p.id
	JOIN catalog.prices pr ON pr.sku = v.sku AND pr.currency = p.currency
	JOIN catalog.levels l ON l.sku = v.sku AND l.location = 'main'`

// productPage is a product by id or slug, a row a variant; a slug never has the underscore of an id.
func productPage(ctx context.Context, q pg.Queryer, now time.Time, ref string) (rows []pageRow, err error) {
	statement := pageBySlug
	if strings.Contains(ref, "_") {
		statement = pageByID
	}
	err = q.Select(ctx, &rows, statement, now, ref)
	return rows, err
}

type category struct {
	ID       string
	Parent   string
	Slug     string
	Name     string
	Path     string
	Position int64
}

func allCategories(ctx context.Context, q pg.Queryer) (rows []category, err error) {
	err = q.Select(ctx, &rows, `
		SELECT c.id, coalesce(c.parent, '') AS parent, c.slug, c.name, c.path, c.position FROM catalog.categories c ORDER BY c.path`)
	return rows, err
}
