package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

// What merchants do by hand: create, change, archive, and correct the stock.

// adjust adds to what is on hand and says why in the ledger.
func (m *Module) adjust(ctx context.Context, sku string, delta int64, reason string) (level levelBody, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		var rows []levelBody
		err := tx.Select(ctx, &rows, `
			WITH moved AS (
				INSERT INTO catalog.movements (reference, sku, location, delta, reason, moved_at)
				SELECT $1, l.sku, l.location, $3, $4, $5 FROM catalog.levels l WHERE l.sku = $2 AND l.location = 'main')
			UPDATE catalog.levels SET on_hand = on_hand + $3 WHERE sku = $2 AND location = 'main' AND on_hand + $3 >= reserved
			RETURNING sku, location, on_hand, reserved`, ids.New[ids.ID]("adj"), sku, delta, reason, m.Now())
		if err != nil {
			return fmt.Errorf("adjust stock of %s: %w", sku, err)
		}
		if len(rows) == 0 {
			rows, err = levelsAfter(ctx, tx, sku, "", 1)
			if err != nil {
				return err
			}
			if len(rows) == 0 {
				return errs.NotFoundf("There is no such SKU.")
			}
			return errs.Conflictf("insufficient_stock", "What is promised to orders can't be taken away.").WithDetails(catalogapi.Shortages{
				Lines: []catalogapi.Shortage{{SKU: sku, Requested: -delta, Available: rows[0].OnHand - rows[0].Reserved}}})
		}
		level = rows[0]
		return web.SaveReply(ctx, tx, 201, "", level)
	})
	return level, err
}

// levelsAfter are the levels of one SKU, or of all after one.
func levelsAfter(ctx context.Context, q pg.Queryer, sku, after string, limit int64) ([]levelBody, error) {
	rows := []levelBody{}
	var err error
	if sku != "" {
		err = q.Select(ctx, &rows, `
			SELECT l.sku, l.location, l.on_hand, l.reserved FROM catalog.levels l WHERE l.sku = $1 ORDER BY l.location`, sku)
		return rows, err
	}
	err = q.Select(ctx, &rows, `
		SELECT l.sku, l.location, l.on_hand, l.reserved FROM catalog.levels l WHERE l.sku > $1 ORDER BY l.sku LIMIT $2`, after, limit)
	return rows, err
}

func (m *Module) create(ctx context.Context, in *createInput) (out productBody, err error) {
	if err := checkPrice(in.Body.Price, "/price"); err != nil {
		return out, err
	}
	b := in.Body
	if b.TaxClass == "" {
		b.TaxClass = "standard"
	}
	now := m.Now()
	p := productWrite{ID: ids.New[catalogapi.ProductID]("prd"), Name: b.Name, Brand: b.Brand, Description: b.Description,
		TaxClass: b.TaxClass, Currency: b.Price.Currency, Price: b.Price.Minor, Created: now, Keywords: b.SKU}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := lockCatalogue(ctx, tx); err != nil {
			return err
		}
		if err := m.place(ctx, tx, &p, b.Category); err != nil {
			return err
		}
		named := &importProduct{to: p}
		if err := nameSlugs(ctx, tx, []*importProduct{named}); err != nil {
			return err
		}
		p.Slug = named.to.Slug
		if err := insertProducts(ctx, tx, []productWrite{p}); err != nil {
			return err
		}
		if err := insertVariants(ctx, tx, []variantWrite{{SKU: b.SKU, Product: p.ID, WeightGrams: b.WeightGrams}}); pg.IsUnique(err, "variants_pkey") {
			return errs.Conflictf("sku_taken", "Another product has this SKU.").WithField("/sku", "taken")
		} else if err != nil {
			return err
		}
		if err := putPrices(ctx, tx, now, []priceWrite{{SKU: b.SKU, Currency: b.Price.Currency, List: b.Price.Minor, Sale: -1}}); err != nil {
			return err
		}
		if err := insertLevels(ctx, tx, ids.ID(p.ID), "first stock", now, []change{{SKU: b.SKU, OnHand: b.Stock}}); err != nil {
			return err
		}
		if err := reprice(ctx, tx, now, []catalogapi.ProductID{p.ID}); err != nil {
			return err
		}
		if err := changed(ctx, tx, false, p.ID); err != nil {
			return err
		}
		if out, err = m.anyProduct(ctx, tx, string(p.ID)); err != nil {
			return err
		}
		return web.SaveReply(ctx, tx, 201, out.etag(), out)
	})
	if err == nil {
		m.cache.forget()
	}
	return out, err
}

// place puts a product into the category of a slug.
func (m *Module) place(ctx context.Context, tx *pg.Tx, p *productWrite, slug string) error {
	all, err := allCategories(ctx, tx)
	if err != nil {
		return err
	}
	tree := newTree(all)
	c, ok := tree.bySlug[slug]
	if !ok {
		return errs.Invalidf("unknown_category", "There is no category of that slug.").WithField("/category", "unknown")
	}
	p.Category, p.Trail = c.ID, tree.trail(c.ID)
	return nil
}

func checkPrice(a money.Amount, pointer string) error {
	if _, ok := money.Digits(a.Currency); !ok {
		return errs.Invalidf("unknown_currency", "The currency is not an ISO 4217 code.").WithField(pointer+"/currency", "unknown")
	}
	if a.Minor < 0 {
		return errs.Invalidf("out_of_range", "A price is not negative.").WithField(pointer+"/amount", "out_of_range")
	}
	return nil
}

// editable is a product as it is before a change.
type editable struct {
	ID          catalogapi.ProductID
	ExternalID  string `db:"external_id"`
	Name        string
	Brand       string
	Category    string // slug
	Description string
	TaxClass    string `db:"tax_class"`
	Image       string
	Currency    string
	Version     int64
	Archived    bool
	SKUs        pg.JSON[[]string] `db:"skus"`
	Keywords    string
}

func (m *Module) update(ctx context.Context, in *updateInput, version int64) (out productBody, err error) {
	b, now := in.Body, m.Now()
	if b.Price != nil {
		if err := checkPrice(*b.Price, "/price"); err != nil {
			return out, err
		}
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		var was editable
		err := tx.Get(ctx, &was, `
			SELECT p.id, coalesce(p.external_id, '') AS external_id, p.name, p.brand, c.slug AS category, p.description, p.tax_class,
				p.image, p.currency, p.version, p.archived_at IS NOT NULL AS archived,
				(SELECT json_agg(v.sku ORDER BY v.position) FROM catalog.variants v WHERE v.product = p.id) AS skus,
				(SELECT coalesce(string_agg(v.sku || ' ' || v.name, ' '), '') FROM catalog.variants v WHERE v.product = p.id) AS keywords
			FROM catalog.products p JOIN catalog.categories c ON c.id = p.category WHERE p.id = $1 FOR UPDATE OF p`, in.ID)
		switch {
		case pg.NoRows(err):
			return errs.NotFoundf("There is no such product.")
		case err != nil:
			return fmt.Errorf("read product %s: %w", in.ID, err)
		case version != 0 && version != was.Version:
			return errs.New(errs.PreconditionFailed, "", "The product has changed since.")
		}
		p := productWrite{ID: was.ID, ExternalID: was.ExternalID, Name: or(b.Name, was.Name), Brand: or(b.Brand, was.Brand),
			Description: or(b.Description, was.Description), TaxClass: was.TaxClass, Image: was.Image, Currency: was.Currency,
			Keywords: was.Keywords + " " + was.ExternalID}
		if err := m.place(ctx, tx, &p, or(b.Category, was.Category)); err != nil {
			return err
		}
		prices, err := newPrices(in, was)
		if err != nil {
			return err
		}
		if err := putPrices(ctx, tx, now, prices); err != nil {
			return err
		}
		if err := updateProducts(ctx, tx, []productWrite{p}); err != nil {
			return err
		}
		if err := reprice(ctx, tx, now, []catalogapi.ProductID{p.ID}); err != nil {
			return err
		}
		if b.Archived != nil && *b.Archived != was.Archived {
			if err := archive(ctx, tx, p.ID, *b.Archived, now); err != nil {
				return err
			}
		}
		if err := changed(ctx, tx, false, p.ID); err != nil {
			return err
		}
		out, err = m.anyProduct(ctx, tx, string(p.ID))
		return err
	})
	if err == nil {
		m.cache.forget()
	}
	return out, err
}

// newPrices are the prices a change asks for: one for all variants, and those of single ones. They are in the product's currency.
func newPrices(in *updateInput, was editable) (prices []priceWrite, err error) {
	wrong := func(pointer string) error {
		return errs.Invalidf("currency_mismatch", "The product is priced in another currency.").WithField(pointer+"/currency", "mismatch")
	}
	if p := in.Body.Price; p != nil {
		if p.Currency != was.Currency {
			return nil, wrong("/price")
		}
		for _, sku := range was.SKUs.V {
			prices = append(prices, priceWrite{SKU: sku, Currency: p.Currency, List: p.Minor, Sale: -1, EndSale: true})
		}
	}
	for i, p := range in.Body.Prices {
		at := fmt.Sprintf("/prices/%d", i)
		if !contains(was.SKUs.V, p.SKU) || in.Body.Price != nil {
			return nil, errs.Invalidf("", "Name each variant of this product once, or give one price for all.").WithField(at+"/sku", "unknown")
		}
		for _, other := range prices {
			if other.SKU == p.SKU {
				return nil, errs.Invalidf("", "A variant is named twice.").WithField(at+"/sku", "repeated")
			}
		}
		if err := checkPrice(p.Price, at+"/price"); err != nil {
			return nil, err
		}
		if p.Price.Currency != was.Currency || p.Sale != nil && p.Sale.Currency != was.Currency {
			return nil, wrong(at + "/price")
		}
		w := priceWrite{SKU: p.SKU, Currency: p.Price.Currency, List: p.Price.Minor, Sale: -1, EndSale: true}
		if p.Sale != nil {
			if err := checkPrice(*p.Sale, at+"/sale"); err != nil {
				return nil, err
			}
			if p.SaleFrom != nil && p.SaleTo != nil && !p.SaleFrom.Before(*p.SaleTo) {
				return nil, errs.Invalidf("", "A sale ends after it begins.").WithField(at+"/sale_to", "out_of_range")
			}
			w.Sale, w.SaleFrom, w.SaleTo = p.Sale.Minor, moment(p.SaleFrom), moment(p.SaleTo)
		}
		prices = append(prices, w)
	}
	return prices, nil
}

func moment(t *time.Time) string {
	if t == nil {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func archive(ctx context.Context, tx *pg.Tx, id catalogapi.ProductID, archived bool, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE catalog.products SET archived_at = CASE WHEN $2 THEN $3::timestamptz END WHERE id = $1`, id, archived, now)
	return err
}

// anyProduct is a product by id or slug, archived or not, as merchants see it.
func (m *Module) anyProduct(ctx context.Context, q pg.Queryer, ref string) (productBody, error) {
	var id struct {
		ID       string
		Archived bool
	}
	err := q.Get(ctx, &id, `SELECT p.id, p.archived_at IS NOT NULL AS archived FROM catalog.products p WHERE p.id = $1 OR p.slug = $1`, ref)
	if pg.NoRows(err) {
		return productBody{}, errs.NotFoundf("There is no such product.")
	} else if err != nil {
		return productBody{}, fmt.Errorf("product %s: %w", ref, err)
	}
	var rows []pageRow
	if err := q.Select(ctx, &rows, pageSQL+` WHERE p.id = $2 ORDER BY v.position`, m.Now(), id.ID); err != nil {
		return productBody{}, fmt.Errorf("product %s: %w", ref, err)
	}
	if len(rows) == 0 {
		return productBody{}, errs.Conflictf("no_price", "The product has no price in its currency.")
	}
	b := bodyOf(productOf(rows))
	b.Archived = id.Archived
	return b, nil
}
