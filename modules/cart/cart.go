// Package cart keeps baskets, of guests and of users, and is the only place that prices one: promo codes and tax rates are its
// own, goods come from catalog and delivery from shipping. A checkout freezes a cart, and gives it back or completes it. It
// holds no stock and moves no money.
package cart

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Module is the cart.
type Module struct {
	DB       *pg.DB
	Catalog  catalogapi.Catalog
	Shipping shippingapi.Shipping
	Log      *slog.Logger
	Now      func() time.Time
	Config   Config

	rates taxRates `wire:"-"`
}

var _ cartapi.Cart = (*Module)(nil)

// Config is the block "cart" of the settings.
type Config struct {
	// HomeCountry is whose tax a cart shows before an address is known. Default DE.
	HomeCountry string `yaml:"home_country"`
	// Currencies a cart may have; the first is that of a cart which names none. Default EUR, GBP, USD, CHF.
	Currencies []string `yaml:"currencies"`
	// Tax says how prices are meant.
	Tax TaxConfig `yaml:"tax"`
	// RefreshAfter is how old what a cart knows of its goods may be when it is read. Default 5m.
	RefreshAfter time.Duration `yaml:"refresh_after" min:"0s"`
	// GuestDays and UserDays are how long an untouched cart is kept. Defaults 30 and 90.
	GuestDays int `yaml:"guest_days" min:"1"`
	UserDays  int `yaml:"user_days" min:"1"`
}

// TaxConfig says how prices are meant.
type TaxConfig struct {
	// PricesIncludeTax is true where the catalog quotes gross prices. Default true.
	PricesIncludeTax bool `yaml:"prices_include_tax"`
}

// Defaults are the settings of a shop that says nothing.
func Defaults() Config {
	return Config{
		HomeCountry: "DE", Currencies: []string{"EUR", "GBP", "USD", "CHF"}, Tax: TaxConfig{PricesIncludeTax: true},
		RefreshAfter: 5 * time.Minute, GuestDays: 30, UserDays: 90,
	}
}

// Validate says what is wrong with the settings.
func (c *Config) Validate() error {
	if len(c.HomeCountry) != 2 {
		return config.Bad("home_country", "must be a country's two letters, such as DE")
	}
	if len(c.Currencies) == 0 {
		return config.Bad("currencies", "must name at least one currency, such as EUR")
	}
	for _, code := range c.Currencies {
		if _, ok := money.Digits(code); !ok {
			return config.Bad("currencies", "must be ISO 4217 codes, such as EUR: %s is none", code)
		}
	}
	return nil
}

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { cartapi.Mount(s, m) }

// Subscribe hears nothing: the checkout completes its cart itself, and goes on until it has.
func (m *Module) Subscribe(*events.Subscriptions) {}

// Cart is a basket as its owner sees it, refreshed if it is old.
func (m *Module) Cart(ctx context.Context, r cartapi.CartRequest) (cartapi.View, error) {
	if err := auth.RequireModule(ctx, "orders", "storefront"); err != nil {
		return cartapi.View{}, err
	}
	b, err := m.current(ctx, r.ID, ownerOf(r.Owner))
	if err != nil {
		return cartapi.View{}, err
	}
	return m.view(ctx, b)
}

// current reads a cart, and brings it up to date with the catalog when something in it is older than Config.RefreshAfter. A
// cart that a checkout holds stays as it was frozen. While the catalog does not answer, the cart is shown as it was.
func (m *Module) current(ctx context.Context, id cartapi.ID, o owner) (*basket, error) {
	now := m.Now()
	b, err := loadCart(ctx, m.DB, id, o, now)
	if err != nil || b.State != active || !b.stale(now.Add(-m.Config.RefreshAfter)) {
		return b, err
	}
	offers, err := m.Catalog.Offers(ctx, catalogapi.OffersRequest{SKUs: b.skus(), Currency: b.Currency})
	if err != nil {
		m.Log.WarnContext(ctx, "cart not refreshed", "cart", id, "err", err)
		return b, nil
	}
	fresh := b.clone()
	fresh.refresh(offers.Offers, now, false)
	saved := false
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		saved, err = saveRefresh(ctx, tx, fresh, b.Version, "")
		return err
	})
	if err != nil {
		return nil, err
	}
	if !saved { // changed meanwhile: what is there now is newer than what we have
		return loadCart(ctx, m.DB, id, o, now)
	}
	return fresh, nil
}

// view prices a basket for its owner, at the shop's home since no address is known yet.
func (m *Module) view(ctx context.Context, b *basket) (cartapi.View, error) {
	t, err := m.taxes(ctx)
	if err != nil {
		return cartapi.View{}, err
	}
	return m.viewWith(t, b)
}

// viewWith is view for use in a transaction, which must not wait for the tax rates.
func (m *Module) viewWith(t taxTable, b *basket) (cartapi.View, error) {
	now := m.Now()
	p, err := b.price(t, place{country: m.Config.HomeCountry}, money.Amount{}, now, m.Config.Tax.PricesIncludeTax)
	if err != nil {
		return cartapi.View{}, err
	}
	return b.view(p, now), nil
}

// ownerOf is an owner as the SQL compares it.
func ownerOf(o cartapi.Owner) owner {
	var known owner
	if o.User != "" {
		user := string(o.User)
		known.user = &user
	}
	if o.Token != "" {
		known.tokenHash = hashToken(o.Token)
	}
	return known
}

// hashToken is what is kept of a guest's token: it has 128 bits of its own, so a plain hash can't be searched back.
func hashToken(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// callerOf is who sent a request: the user, or the guest by the token of the cart.
func callerOf(ctx context.Context, token string) owner {
	return ownerOf(cartapi.Owner{User: auth.From(ctx).User, Token: token})
}

// expiry is when a cart of that owner ends if nobody touches it.
func (m *Module) expiry(o owner) time.Time {
	days := m.Config.GuestDays
	if o.user != nil {
		days = m.Config.UserDays
	}
	return m.Now().AddDate(0, 0, days)
}
