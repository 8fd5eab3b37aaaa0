// Package cartapi is what other modules may ask of the cart: a basket, priced, frozen for a checkout and given back.
package cartapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// ID names a cart: crt_….
type ID ids.ID

// Cart keeps baskets. It is the only place that prices one.
type Cart interface {
	// Cart is a basket as its owner sees it. May be repeated. Codes: not_found, also for somebody else's.
	Cart(ctx context.Context, r CartRequest) (View, error)

	// Freeze locks a cart for a checkout and prices it for good: lines, discount, shipping and tax at this moment. A cart the
	// same checkout has locked is priced again. Repeat it with the same Key. Codes: not_found, cart_changed (conflict; details
	// are the new View) when the total is not the expected one or a line can't be had, cart_locked (conflict) by another
	// checkout, cart_completed (conflict), cart_empty (invalid), unknown_shipping_option (invalid), no_shipping_zone (invalid).
	Freeze(ctx context.Context, r FreezeRequest) (Frozen, error)

	// Redeem counts one use of the frozen cart's promo code; nothing happens for a cart without one. Repeat it with the same
	// Key. Codes: promo_exhausted (conflict), cart_not_held (conflict) when the checkout does not hold the cart.
	Redeem(ctx context.Context, r RedeemRequest) (Redeemed, error)

	// Unlock gives a cart back to its owner and undoes Redeem of that checkout. May be repeated; nothing happens if the
	// checkout does not hold the cart.
	Unlock(ctx context.Context, r UnlockRequest) (Unlocked, error)

	// Complete ends a cart whose order is placed. May be repeated. Codes: not_found, cart_completed (conflict) with another order.
	Complete(ctx context.Context, r CompleteRequest) (Completed, error)
}

// Owner is who asks: a user, or a guest by the cart's token.
type Owner struct {
	User  ids.ID `json:"user"`
	Token string `json:"token"`
}

// CartRequest asks for a cart.
type CartRequest struct {
	ID    ID    `json:"id"`
	Owner Owner `json:"owner"`
}

// View is a cart as its owner sees it. Amounts include tax where the shop's prices do.
type View struct {
	ID       ID           `json:"id"`
	Version  int64        `json:"version"`
	State    string       `json:"state"` // active, locked, completed
	Currency string       `json:"currency"`
	Lines    []Line       `json:"lines"`
	Promo    string       `json:"promo"`    // code in force, ""
	Subtotal money.Amount `json:"subtotal"` // Σ lines before discount
	Discount money.Amount `json:"discount"` // positive
	Tax      money.Amount `json:"tax"`      // of the goods
	Total    money.Amount `json:"total"`    // of the goods; shipping comes with the address
	Changes  []Change     `json:"changes"`  // what is not as it was when the shopper last looked
}

// Line is a SKU in a cart.
type Line struct {
	ID        ids.ID       `json:"id"`
	SKU       string       `json:"sku"`
	Product   ids.ID       `json:"product"`
	Name      string       `json:"name"`
	Image     string       `json:"image"`
	Quantity  int64        `json:"quantity"`
	UnitPrice money.Amount `json:"unit_price"`
	Total     money.Amount `json:"total"`
	Available int64        `json:"available"`
}

// Change is something about a line that the shopper should see.
type Change struct {
	Line ids.ID `json:"line"`
	SKU  string `json:"sku"`
	Code string `json:"code"` // price_changed, unavailable, qty_reduced
}

// Address is where an order goes, as far as prices depend on it.
type Address struct {
	Country  string `json:"country"`
	Region   string `json:"region"`
	Postcode string `json:"postcode"`
}

// FreezeRequest locks Cart for Checkout at Expected, the total the shopper agreed to.
type FreezeRequest struct {
	Key            string       `json:"key"`
	Checkout       ids.ID       `json:"checkout"`
	Cart           ID           `json:"cart"`
	Owner          Owner        `json:"owner"`
	Address        Address      `json:"address"`
	ShippingOption string       `json:"shipping_option"`
	Expected       money.Amount `json:"expected"`
}

// Frozen is a cart priced for an order. Total = Σ line totals + shipping (+ tax where prices exclude it).
type Frozen struct {
	Cart             ID           `json:"cart"`
	Version          int64        `json:"version"`
	Lines            []FrozenLine `json:"lines"`
	Promo            string       `json:"promo"`
	Carrier          string       `json:"carrier"`
	Service          string       `json:"service"`
	PricesIncludeTax bool         `json:"prices_include_tax"`
	Subtotal         money.Amount `json:"subtotal"` // Σ unit × quantity
	Discount         money.Amount `json:"discount"` // positive
	Shipping         money.Amount `json:"shipping"`
	ShippingTax      money.Amount `json:"shipping_tax"`
	ShippingTaxRate  money.Rate   `json:"shipping_tax_rate"`
	Tax              money.Amount `json:"tax"` // of goods and shipping
	Total            money.Amount `json:"total"`
}

// FrozenLine is a line of an order to be.
type FrozenLine struct {
	SKU       string       `json:"sku"`
	Product   ids.ID       `json:"product"`
	Name      string       `json:"name"`
	Quantity  int64        `json:"quantity"`
	UnitPrice money.Amount `json:"unit_price"`
	Discount  money.Amount `json:"discount"` // this line's share, positive
	TaxRate   money.Rate   `json:"tax_rate"`
	Tax       money.Amount `json:"tax"`
	Total     money.Amount `json:"total"` // unit × quantity − discount, as prices are quoted
}

// RedeemRequest counts the promo code of the cart that Checkout holds.
type RedeemRequest struct {
	Key      string `json:"key"`
	Checkout ids.ID `json:"checkout"`
	Cart     ID     `json:"cart"`
}

// Redeemed names the code that was counted, "" without one.
type Redeemed struct {
	Code string `json:"code"`
}

// UnlockRequest ends Checkout's hold on Cart.
type UnlockRequest struct {
	Checkout ids.ID `json:"checkout"`
	Cart     ID     `json:"cart"`
}

// Unlocked says whether the checkout held the cart.
type Unlocked struct {
	Unlocked bool `json:"unlocked"`
}

// CompleteRequest ends Cart as bought with Order.
type CompleteRequest struct {
	Checkout ids.ID `json:"checkout"`
	Cart     ID     `json:"cart"`
	Order    ids.ID `json:"order"`
}

// Completed is the answer of Complete.
type Completed struct {
	Cart ID `json:"cart"`
}
