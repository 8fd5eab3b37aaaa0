package cart

import (
	"context"
	"errors"
	"fmt"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// errMoved says that the cart changed between reading and locking it.
var errMoved = errors.New("the cart changed while it was priced")

// freezeTries is how often a cart that its owner keeps changing is priced again before the checkout is told to.
const freezeTries = 3

// Freeze prices a cart at this moment and locks it for the checkout.
func (m *Module) Freeze(ctx context.Context, r cartapi.FreezeRequest) (cartapi.Frozen, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return cartapi.Frozen{}, err
	}
	if r.Checkout == "" {
		return cartapi.Frozen{}, errs.Invalidf("", "a cart is frozen for a checkout").WithField("/checkout", "required")
	}
	for range freezeTries {
		frozen, err := m.freeze(ctx, r)
		if !errors.Is(err, errMoved) {
			return frozen, err
		}
	}
	b, err := loadCart(ctx, m.DB, r.Cart, ownerOf(r.Owner), m.Now())
	if err != nil {
		return cartapi.Frozen{}, err
	}
	return cartapi.Frozen{}, m.changed(ctx, b)
}

// freeze reads, asks catalog and shipping, and only then opens the transaction, whose one update is conditional on the version
// that was priced: what is added meanwhile is not lost, and not sold unseen. A refusal too goes through Once, since a repeat
// must give the first answer whatever became of the cart since.
func (m *Module) freeze(ctx context.Context, r cartapi.FreezeRequest) (cartapi.Frozen, error) {
	read, err := loadCart(ctx, m.DB, r.Cart, ownerOf(r.Owner), m.Now())
	if err != nil && !errs.Is(err, errs.NotFound) {
		return cartapi.Frozen{}, err
	}
	refusal, refreshed := err, (*basket)(nil)
	var frozen cartapi.Frozen
	if refusal == nil {
		refreshed = read.clone()
		frozen, refusal = m.offer(ctx, refreshed, r)
	}
	frozen, err = pg.Once(ctx, m.DB, pg.Operation{Key: r.Key, Method: "cart.Freeze", Request: r}, func(tx *pg.Tx) (cartapi.Frozen, error) {
		if refusal != nil {
			return cartapi.Frozen{}, refusal
		}
		f, err := frozen, error(nil)
		if f.Version, err = lockCart(ctx, tx, read, r.Checkout); pg.NoRows(err) {
			return cartapi.Frozen{}, errMoved
		}
		return f, err
	})
	if !errs.Has(err, "cart_changed") {
		return frozen, err
	}
	// The shopper is to see what the checkout saw, or the next try would fail like this one.
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		saved, err := saveRefresh(ctx, tx, refreshed, read.Version, r.Checkout)
		if err == nil && !saved {
			return errMoved
		}
		return err
	})
	if err != nil {
		return cartapi.Frozen{}, err
	}
	return cartapi.Frozen{}, m.changed(ctx, refreshed)
}

// offer brings b up to date and prices it for the request, or says why it can't be bought like this.
func (m *Module) offer(ctx context.Context, b *basket, r cartapi.FreezeRequest) (cartapi.Frozen, error) {
	holding := b.State == locked && b.LockedBy == r.Checkout
	if !holding {
		if err := b.editable(0); err != nil {
			return cartapi.Frozen{}, err
		}
	}
	if len(b.Lines) == 0 {
		return cartapi.Frozen{}, errs.Invalidf("cart_empty", "there is nothing in the cart")
	}
	offers, err := m.Catalog.Offers(ctx, catalogapi.OffersRequest{SKUs: b.skus(), Currency: b.Currency})
	if err != nil {
		return cartapi.Frozen{}, fmt.Errorf("price cart %s: %w", b.ID, err)
	}
	changed := errs.Conflictf("cart_changed", "the cart is not as the shopper saw it")
	b.refresh(offers.Offers, m.Now(), holding)
	if len(offers.Offers) < len(b.Lines) || !holding && b.soldOut() {
		return cartapi.Frozen{}, changed
	}
	t, err := m.taxes(ctx)
	if err != nil {
		return cartapi.Frozen{}, err
	}
	options, err := m.options(ctx, t, b, r.Address)
	if err != nil {
		return cartapi.Frozen{}, err
	}
	for _, o := range options {
		if o.ID != r.ShippingOption {
			continue
		}
		if o.prices.Total != r.Expected {
			return cartapi.Frozen{}, changed
		}
		return m.frozen(b, t, o, r.Address), nil
	}
	return cartapi.Frozen{}, errs.Invalidf("unknown_shipping_option", "there is no such way to deliver").WithField("/shipping_option", "unknown")
}

// quoted is a way to deliver and what the order would cost with it.
type quoted struct {
	shippingapi.Option
	prices prices
}

// options are the ways to deliver a basket, each with the whole order priced.
func (m *Module) options(ctx context.Context, t taxTable, b *basket, to cartapi.Address) ([]quoted, error) {
	now, included, there := m.Now(), m.Config.Tax.PricesIncludeTax, place{to.Country, to.Region}
	goods, err := b.price(t, there, money.Amount{}, now, included)
	if err != nil {
		return nil, err
	}
	after, err := goods.Subtotal.Sub(goods.Discount)
	if err != nil {
		return nil, err
	}
	grams, count := b.weight()
	quotes, err := m.Shipping.Quote(ctx, shippingapi.QuoteRequest{
		Country: to.Country, Region: to.Region, Postcode: to.Postcode, Subtotal: after, WeightGrams: grams, Items: count,
	})
	if err != nil {
		return nil, fmt.Errorf("quote shipping of cart %s: %w", b.ID, err)
	}
	all := make([]quoted, len(quotes.Options))
	for i, o := range quotes.Options {
		p, err := b.price(t, there, o.Price, now, included)
		if err != nil {
			return nil, err
		}
		all[i] = quoted{o, p}
	}
	return all, nil
}

func (m *Module) frozen(b *basket, t taxTable, o quoted, to cartapi.Address) cartapi.Frozen {
	now, p := m.Now(), o.prices
	f := cartapi.Frozen{
		Cart: b.ID, Lines: make([]cartapi.FrozenLine, len(b.Lines)), Carrier: o.Carrier, Service: o.Service,
		PricesIncludeTax: m.Config.Tax.PricesIncludeTax, Subtotal: p.Subtotal, Discount: p.Discount, Shipping: p.Shipping,
		ShippingTax: p.ShippingTax, ShippingTaxRate: t.rate(to.Country, to.Region, standardClass, now), Tax: p.Tax, Total: p.Total,
	}
	if b.Promo.refusal(b.Currency, now) == nil {
		f.Promo = b.Promo.Code
	}
	for i, l := range b.Lines {
		f.Lines[i] = cartapi.FrozenLine{
			SKU: l.SKU, Product: l.Product, Name: l.Name, Quantity: l.Quantity, UnitPrice: money.Of(l.UnitPrice, b.Currency),
			Discount: p.Lines[i].Discount, TaxRate: t.rate(to.Country, to.Region, l.TaxClass, now), Tax: p.Lines[i].Tax,
			Total: p.Lines[i].Total,
		}
	}
	return f
}

// changed is the refusal that carries the cart as it is now.
func (m *Module) changed(ctx context.Context, b *basket) error {
	v, err := m.view(ctx, b)
	if err != nil {
		return err
	}
	return errs.Conflictf("cart_changed", "the cart is not as the shopper saw it").WithDetails(v)
}

// Redeem counts one use of the code of the cart that the checkout holds.
func (m *Module) Redeem(ctx context.Context, r cartapi.RedeemRequest) (cartapi.Redeemed, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return cartapi.Redeemed{}, err
	}
	return pg.Once(ctx, m.DB, pg.Operation{Key: r.Key, Method: "cart.Redeem", Request: r}, func(tx *pg.Tx) (cartapi.Redeemed, error) {
		found, err := redeem(ctx, tx, r.Cart, r.Checkout, m.Now())
		switch {
		case err != nil:
			return cartapi.Redeemed{}, fmt.Errorf("redeem code of cart %s: %w", r.Cart, err)
		case !found.Held:
			return cartapi.Redeemed{}, errs.Conflictf("cart_not_held", "the checkout does not hold the cart")
		case found.Code != "" && !found.Before && !found.Redeemed:
			return cartapi.Redeemed{}, errs.Conflictf("promo_exhausted", "the promo code has been used up")
		}
		return cartapi.Redeemed{Code: found.Code}, nil
	})
}

// Unlock gives a cart back and undoes Redeem.
func (m *Module) Unlock(ctx context.Context, r cartapi.UnlockRequest) (cartapi.Unlocked, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return cartapi.Unlocked{}, err
	}
	var held bool
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		var err error
		held, err = unlock(ctx, tx, r.Cart, r.Checkout, m.Now().AddDate(0, 0, 1)) // a day at least to look at it again
		return err
	})
	if err != nil {
		return cartapi.Unlocked{}, fmt.Errorf("unlock cart %s: %w", r.Cart, err)
	}
	return cartapi.Unlocked{Unlocked: held}, nil
}

// Complete ends a cart that was bought. OrderPlaced does the same, should this call never come.
func (m *Module) Complete(ctx context.Context, r cartapi.CompleteRequest) (cartapi.Completed, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return cartapi.Completed{}, err
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return completeOnce(ctx, tx, r.Cart, r.Order) })
	if err != nil {
		return cartapi.Completed{}, fmt.Errorf("complete cart %s: %w", r.Cart, err)
	}
	return cartapi.Completed{Cart: r.Cart}, nil
}

// completeOnce completes a cart, and is content if that order has completed it before. A cart becomes one order.
func completeOnce(ctx context.Context, tx *pg.Tx, cart cartapi.ID, order ids.ID) error {
	done, err := complete(ctx, tx, cart, order)
	if err != nil || done {
		return err
	}
	was, err := orderOf(ctx, tx, cart)
	switch {
	case pg.NoRows(err):
		return errs.NotFoundf("no such cart")
	case err != nil:
		return err
	case was != order:
		return errs.Conflictf("cart_completed", "the cart has been bought with another order")
	}
	return nil
}
