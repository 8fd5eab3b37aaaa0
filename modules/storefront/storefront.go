// Package storefront composes the answers that need several modules: the product page, the cart, the order page, the account
// home. It owns no data and decides nothing. A part that does not answer in time is named in "unavailable"; only the part a page
// is about must be there. A product page may show its product and its shipping estimate as they were a while ago, and names them in
// "stale"; reviews are shown as they are or not at all.
package storefront

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Module is the storefront module.
type Module struct {
	Catalog  catalogapi.Catalog
	Cart     cartapi.Cart
	Shipping shippingapi.Shipping
	Payments paymentsapi.Payments
	Orders   ordersapi.Orders
	Reviews  reviewsapi.Reviews
	Log      *slog.Logger
	Config   Config
}

// Config is the block "storefront" of the settings.
type Config struct {
	// Country is where the shipping estimate of a product page goes. Default DE.
	Country string `yaml:"country"`
	// PartTimeout is how long a page waits for a part it can do without. Default 800ms.
	PartTimeout time.Duration `yaml:"part_timeout" min:"1ms"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config { return Config{Country: "DE", PartTimeout: 800 * time.Millisecond} }

// Serve answers nothing: nobody asks the storefront.
func (m *Module) Serve(*rpc.Server) {}

// Subscribe hears nothing: pages are composed of what is true now.
func (m *Module) Subscribe(*events.Subscriptions) {}

// parts runs the optional parts of a page at the same time, a deadline each, and names those that failed, in order.
func (m *Module) parts(ctx context.Context, page string, all ...part) []string {
	failed := make([]bool, len(all))
	var g errgroup.Group
	for i, p := range all {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, m.Config.PartTimeout)
			defer cancel()
			if err := p.load(ctx); err != nil {
				m.Log.WarnContext(ctx, "a part is missing", "page", page, "part", p.name, "err", err)
				failed[i] = true
			}
			return nil
		})
	}
	_ = g.Wait() // the parts give no error
	missing := []string{}
	for i, p := range all {
		if failed[i] {
			missing = append(missing, p.name)
		}
	}
	return missing
}

// part is a piece of a page that it can do without.
type part struct {
	name string
	load func(context.Context) error
}

// productPage is all a product page shows. Codes: not_found.
func (m *Module) productPage(ctx context.Context, ref string) (productPage, error) {
	allowed, oldProduct := rpc.AllowStale(ctx)
	p, err := m.Catalog.Product(allowed, catalogapi.ProductRequest{Ref: ref})
	if err != nil {
		return productPage{}, err
	}
	var summaries reviewsapi.Summaries
	var recent reviewsapi.List
	var quotes shippingapi.Quotes
	var oldQuotes *rpc.Stale
	missing := m.parts(ctx, "product",
		part{"reviews", func(ctx context.Context) (err error) {
			if summaries, err = m.Reviews.Summaries(ctx, reviewsapi.SummariesRequest{Products: []ids.ID{ids.ID(p.ID)}}); err != nil {
				return err
			}
			if len(summaries.Summaries) == 1 && summaries.Summaries[0].Count > 0 {
				recent, err = m.Reviews.Recent(ctx, reviewsapi.RecentRequest{Product: ids.ID(p.ID), Limit: 5})
			}
			return err
		}},
		part{"shipping", func(ctx context.Context) (err error) {
			if len(p.Variants) == 0 {
				return nil
			}
			v := p.Variants[0]
			ctx, oldQuotes = rpc.AllowStale(ctx)
			quotes, err = m.Shipping.Quote(ctx, shippingapi.QuoteRequest{
				Country: m.Config.Country, Subtotal: v.Price, WeightGrams: v.WeightGrams, Items: 1,
			})
			return err
		}},
	)
	return newProductPage(p, summaries, recent, quotes, missing, m.stale(ctx, "product", old{"product", oldProduct}, old{"shipping", oldQuotes})), nil
}

// old is a part that may be shown as it was.
type old struct {
	name  string
	stale *rpc.Stale // nil: it was not asked for
}

// stale names the parts that are shown as they were, in order.
func (m *Module) stale(ctx context.Context, page string, parts ...old) []string {
	var names []string
	for _, p := range parts {
		if p.stale == nil || p.stale.Since().IsZero() {
			continue
		}
		m.Log.WarnContext(ctx, "a part is old", "page", page, "part", p.name, "since", p.stale.Since())
		names = append(names, p.name)
	}
	return names
}

// orderPage is an order with its payments and parcels, as its owner sees it. Codes: not_found.
func (m *Module) orderPage(ctx context.Context, r ordersapi.OrderRequest) (orderPage, error) {
	o, err := m.Orders.Order(ctx, r)
	if err != nil {
		return orderPage{}, err
	}
	of := []ids.ID{ids.ID(o.ID)}
	var payments paymentsapi.List
	var shipments shippingapi.Shipments
	missing := m.parts(ctx, "order",
		part{"payments", func(ctx context.Context) (err error) {
			payments, err = m.Payments.ByOrder(ctx, paymentsapi.ByOrderRequest{Orders: of})
			return err
		}},
		part{"shipments", func(ctx context.Context) (err error) {
			shipments, err = m.Shipping.Shipments(ctx, shippingapi.ShipmentsRequest{Orders: of})
			return err
		}},
	)
	return newOrderPage(o, payments, shipments, missing), nil
}

// cartPage is a cart with cards of what is in it. Codes: not_found.
func (m *Module) cartPage(ctx context.Context, r cartapi.CartRequest) (cartPage, error) {
	c, err := m.Cart.Cart(ctx, r)
	if err != nil {
		return cartPage{}, err
	}
	var cards catalogapi.Products
	missing := m.parts(ctx, "cart", part{"products", func(ctx context.Context) (err error) {
		var of []catalogapi.ProductID
		for _, l := range c.Lines {
			of = append(of, catalogapi.ProductID(l.Product))
		}
		if len(of) > 0 {
			cards, err = m.Catalog.Products(ctx, catalogapi.ProductsRequest{IDs: of})
		}
		return err
	}})
	return newCartPage(c, cards, missing), nil
}

// accountPage is what a customer sees first: the newest orders and where their parcels are.
func (m *Module) accountPage(ctx context.Context, user ids.ID) (accountPage, error) {
	var orders ordersapi.List
	var shipments shippingapi.Shipments
	missing := m.parts(ctx, "account", part{"orders", func(ctx context.Context) (err error) {
		orders, err = m.Orders.Recent(ctx, ordersapi.RecentRequest{User: user, Limit: 10})
		return err
	}})
	if len(orders.Orders) > 0 {
		missing = append(missing, m.parts(ctx, "account", part{"shipments", func(ctx context.Context) (err error) {
			of := make([]ids.ID, len(orders.Orders))
			for i, o := range orders.Orders {
				of[i] = ids.ID(o.ID)
			}
			shipments, err = m.Shipping.Shipments(ctx, shippingapi.ShipmentsRequest{Orders: of})
			return err
		}})...)
	}
	return newAccountPage(orders, shipments, missing), nil
}
