// Package catalog knows what the shop sells: products and their variants, categories, prices, pictures and search, and the
// stock behind them, promised to checkouts and orders so that none is sold twice. It does not price a basket, tax it, or know
// what an order is: carts and orders ask it, and it hears what became of an order's goods.
package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Module is the catalog module.
type Module struct {
	DB      *pg.DB
	Cursors web.Cursors
	Log     *slog.Logger
	Metrics *metrics
	Now     func() time.Time
	Config  Config

	cache cache `wire:"-"`
}

// Config is the block "catalog" of the settings.
type Config struct {
	// Currency is what prices are shown in where a product has several. Default EUR.
	Currency string `yaml:"currency"`
	// DemoProducts is the size of the demo catalogue. Default 2000.
	DemoProducts int `yaml:"demo_products" min:"0" max:"1000000"`
	// SweepEvery is how often lapsed reservations are freed and sales begun or ended. Default 1s.
	SweepEvery time.Duration `yaml:"sweep_every" min:"10ms"`
	// CheckEvery is how often the stock is added up and compared with its ledger. Default 1h.
	CheckEvery time.Duration `yaml:"check_every" min:"1s"`
	// CacheFor is how long categories and facet counts may be old; prices and stock never are. Default 3s.
	CacheFor time.Duration `yaml:"cache_for" max:"1m"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config {
	return Config{
		Currency: "EUR", DemoProducts: catalogapi.DemoProducts,
		SweepEvery: time.Second, CheckEvery: time.Hour, CacheFor: 3 * time.Second,
	}
}

// Validate says what to change.
func (c Config) Validate() error {
	if _, ok := money.Digits(c.Currency); !ok {
		return fmt.Errorf("currency must be an ISO 4217 code such as EUR")
	}
	return nil
}

var _ catalogapi.Catalog = (*Module)(nil)

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { catalogapi.Mount(s, m) }

// Run frees lapsed reservations, begins and ends sales, and from time to time adds up the stock, until ctx ends.
func (m *Module) Run(ctx context.Context) {
	var work sync.WaitGroup
	work.Go(func() {
		every(ctx, m.Config.SweepEvery, func() {
			if _, err := m.Sweep(ctx); err != nil {
				m.Log.Error("free lapsed reservations", "err", err)
			}
			if _, err := m.Reprice(ctx); err != nil {
				m.Log.Error("begin and end sales", "err", err)
			}
		})
	})
	work.Go(func() {
		// The first check comes soon after a start: what the process before knew must not be forgotten for an hour.
		wait := time.NewTimer(min(firstCheck, m.Config.CheckEvery))
		defer wait.Stop()
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		m.checkStock(ctx)
		every(ctx, m.Config.CheckEvery, func() { m.checkStock(ctx) })
	})
	work.Wait()
}

const firstCheck = time.Minute

// checkStock tells the log and the metrics what CheckStock found.
func (m *Module) checkStock(ctx context.Context) {
	wrong, err := m.CheckStock(ctx)
	if err != nil {
		if ctx.Err() == nil {
			m.Log.Error("check stock", "err", err)
		}
		return
	}
	for _, w := range wrong {
		m.Log.Error("stock does not add up", "sku", w.SKU, "location", w.Location, "on_hand", w.OnHand, "moved", w.Moved,
			"reserved", w.Reserved, "promised", w.Promised)
	}
	m.Metrics.mismatches.Set(float64(len(wrong)))
	m.Metrics.checked.SetToCurrentTime()
}

func every(ctx context.Context, d time.Duration, f func()) {
	t := time.NewTicker(d)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f()
		}
	}
}

// Offers: see catalogapi.
func (m *Module) Offers(ctx context.Context, r catalogapi.OffersRequest) (catalogapi.Offers, error) {
	rows, err := offers(ctx, m.DB, m.Now(), r.SKUs, r.Currency)
	if err != nil {
		return catalogapi.Offers{}, fmt.Errorf("offers: %w", err)
	}
	out := catalogapi.Offers{Offers: make([]catalogapi.Offer, len(rows))}
	for i, o := range rows {
		out.Offers[i] = catalogapi.Offer{
			SKU: o.SKU, Product: o.Product, Name: o.Name, Price: money.Of(o.Price, r.Currency), TaxClass: o.TaxClass,
			WeightGrams: o.WeightGrams, Available: o.Available, Image: imageURL(o.Image),
		}
		if o.Variant != "" {
			out.Offers[i].Name += ", " + o.Variant
		}
	}
	return out, nil
}

// Products: see catalogapi.
func (m *Module) Products(ctx context.Context, r catalogapi.ProductsRequest) (catalogapi.Products, error) {
	rows, err := cardsByID(ctx, m.DB, m.Now(), r.IDs)
	if err != nil {
		return catalogapi.Products{}, fmt.Errorf("products: %w", err)
	}
	out := catalogapi.Products{Products: make([]catalogapi.ProductCard, len(rows))}
	for i, c := range rows {
		out.Products[i] = catalogapi.ProductCard{
			ID: c.ID, Slug: c.Slug, Name: c.Name, Brand: c.Brand, Price: money.Of(c.Price, c.Currency), Image: imageURL(c.Image),
			Rating: catalogapi.Rating{AverageHundredths: c.Rating, Count: c.RatingCount},
		}
	}
	return out, nil
}

// Product: see catalogapi.
func (m *Module) Product(ctx context.Context, r catalogapi.ProductRequest) (catalogapi.Product, error) {
	rows, err := productPage(ctx, m.DB, m.Now(), r.Ref)
	if err != nil {
		return catalogapi.Product{}, fmt.Errorf("product: %w", err)
	}
	if len(rows) == 0 {
		return catalogapi.Product{}, errs.NotFoundf("There is no such product.")
	}
	return productOf(rows), nil
}

// productOf makes a product of its variants' rows, of which there is at least one.
func productOf(rows []pageRow) catalogapi.Product {
	head := rows[0]
	p := catalogapi.Product{
		ID: head.ID, Slug: head.Slug, Name: head.Name, Brand: head.Brand, Description: head.Description, Category: head.Category,
		Images:   make([]catalogapi.Image, 0, 2),
		Variants: make([]catalogapi.Variant, len(rows)),
		Rating:   catalogapi.Rating{AverageHundredths: head.Rating, Count: head.RatingCount},
		Version:  head.Version,
	}
	for _, i := range head.Images.V {
		p.Images = append(p.Images, catalogapi.Image{URL: imageURL(i[0]), Alt: i[1]})
	}
	for i, v := range rows {
		if v.Options.V == nil {
			v.Options.V = []catalogapi.Option{}
		}
		p.Variants[i] = catalogapi.Variant{
			SKU: v.SKU, Name: v.Variant, Options: v.Options.V, Price: money.Of(v.Price, v.Currency),
			ListPrice: money.Of(v.ListPrice, v.Currency), Available: v.Available, WeightGrams: v.WeightGrams,
		}
	}
	return p
}

func settings(e *host.Env) (Config, error) { return config.Decode(e.Settings, "catalog", Defaults()) }
