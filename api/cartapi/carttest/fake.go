// Package carttest holds a cart in memory for the tests of those who call it, and the suite that it passes together with the
// real one. It keeps the rules of the contract, not those of the shop around it: no tax, no catalog, and delivery for a price
// an option.
package carttest

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Fake is a cart in memory. It delivers within DE and AT: "standard" for 4.90 and "express" for 9.90 of any currency. Its
// zero value works.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Freeze"; what it returns is the method's error.
	Fail func(method string) error

	mu          sync.Mutex
	carts       map[cartapi.ID]*basket
	promos      map[string]*promo
	redemptions map[ids.ID]string
	operations  map[string]operation
}

var _ cartapi.Cart = (*Fake)(nil)

type basket struct {
	view     cartapi.View
	owner    cartapi.Owner
	lockedBy ids.ID
	order    ids.ID
}

type promo struct {
	percent money.Rate
	left    int64
}

type operation struct {
	request string
	result  json.RawMessage
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.carts == nil {
		f.carts, f.promos = map[cartapi.ID]*basket{}, map[string]*promo{}
		f.redemptions, f.operations = map[ids.ID]string{}, map[string]operation{}
	}
	if f.Fail != nil && method != "" {
		return f.Fail(method)
	}
	return nil
}

// Add makes a cart with lines: SKU, quantity and unit price count. An owner without user and token is given a token.
func (f *Fake) Add(owner cartapi.Owner, currency string, lines ...cartapi.Line) (cartapi.ID, cartapi.Owner) {
	_ = f.enter("")
	defer f.mu.Unlock()
	if owner == (cartapi.Owner{}) {
		owner.Token = string(ids.New[ids.ID]("tok"))
	}
	id := ids.New[cartapi.ID]("crt")
	b := &basket{owner: owner, view: cartapi.View{ID: id, Version: 1, State: "active", Currency: currency, Lines: []cartapi.Line{}, Changes: []cartapi.Change{}}}
	for _, l := range lines {
		l.ID = ids.New[ids.ID]("cln")
		b.view.Lines = append(b.view.Lines, l)
	}
	f.carts[id] = b
	return id, owner
}

// SetPrice changes what a SKU costs in every cart, as the catalog would.
func (f *Fake) SetPrice(sku string, price money.Amount) {
	_ = f.enter("")
	defer f.mu.Unlock()
	for _, b := range f.carts {
		for i := range b.view.Lines {
			if b.view.Lines[i].SKU == sku {
				b.view.Lines[i].UnitPrice = price
				b.view.Version++
			}
		}
	}
}

// SetPromo puts a promo code into a cart: percent off, and so many uses left. Carts share a code's uses.
func (f *Fake) SetPromo(cart cartapi.ID, code string, percent money.Rate, uses int64) {
	_ = f.enter("")
	defer f.mu.Unlock()
	if f.promos[code] == nil {
		f.promos[code] = &promo{percent, uses}
	}
	f.carts[cart].view.Promo = code
	f.carts[cart].view.Version++
}

// State tells what became of a cart.
func (f *Fake) State(cart cartapi.ID) (state string, order ids.ID) {
	_ = f.enter("")
	defer f.mu.Unlock()
	if b := f.carts[cart]; b != nil {
		return b.view.State, b.order
	}
	return "", ""
}

func (f *Fake) find(id cartapi.ID, o cartapi.Owner) (*basket, error) {
	b := f.carts[id]
	if b == nil || !(o.User != "" && o.User == b.owner.User || o.Token != "" && o.Token == b.owner.Token) {
		return nil, errs.NotFoundf("no such cart")
	}
	return b, nil
}

// Cart is a basket as its owner sees it.
func (f *Fake) Cart(_ context.Context, r cartapi.CartRequest) (cartapi.View, error) {
	err := f.enter("Cart")
	defer f.mu.Unlock()
	if err != nil {
		return cartapi.View{}, err
	}
	b, err := f.find(r.ID, r.Owner)
	if err != nil {
		return cartapi.View{}, err
	}
	return f.show(b), nil
}

// show prices a basket; prices in tests are small.
func (f *Fake) show(b *basket) cartapi.View {
	v := b.view
	v.Lines = append([]cartapi.Line{}, v.Lines...)
	v.Subtotal, v.Tax = money.Of(0, v.Currency), money.Of(0, v.Currency)
	for i := range v.Lines {
		l := &v.Lines[i]
		l.Total = money.Of(l.UnitPrice.Minor*l.Quantity, v.Currency)
		v.Subtotal.Minor += l.Total.Minor
	}
	v.Discount = money.Of(0, v.Currency)
	if p := f.promos[v.Promo]; p != nil && (p.left > 0 || f.redemptions[b.lockedBy] != "") {
		v.Discount = v.Subtotal.Part(p.percent)
	}
	v.Total = money.Of(v.Subtotal.Minor-v.Discount.Minor, v.Currency)
	return v
}

// Freeze locks a cart for a checkout.
func (f *Fake) Freeze(_ context.Context, r cartapi.FreezeRequest) (cartapi.Frozen, error) {
	err := f.enter("Freeze")
	defer f.mu.Unlock()
	if err != nil {
		return cartapi.Frozen{}, err
	}
	return once(f, "Freeze", r.Key, r, func() (cartapi.Frozen, error) {
		b, err := f.find(r.Cart, r.Owner)
		if err != nil {
			return cartapi.Frozen{}, err
		}
		switch {
		case b.view.State == "completed":
			return cartapi.Frozen{}, errs.Conflictf("cart_completed", "the cart has been bought")
		case b.view.State == "locked" && b.lockedBy != r.Checkout:
			return cartapi.Frozen{}, errs.Conflictf("cart_locked", "a checkout holds the cart")
		case len(b.view.Lines) == 0:
			return cartapi.Frozen{}, errs.Invalidf("cart_empty", "there is nothing in the cart")
		case r.Address.Country != "DE" && r.Address.Country != "AT":
			return cartapi.Frozen{}, errs.Invalidf("no_shipping_zone", "the shop does not deliver there")
		}
		shipping, ok := map[string]int64{"standard": 490, "express": 990}[r.ShippingOption]
		if !ok {
			return cartapi.Frozen{}, errs.Invalidf("unknown_shipping_option", "there is no such way to deliver")
		}
		v := f.show(b)
		zero := money.Of(0, v.Currency)
		out := cartapi.Frozen{
			Cart: v.ID, Carrier: "Fake Post", Service: r.ShippingOption, PricesIncludeTax: true, Subtotal: v.Subtotal, Discount: v.Discount,
			Shipping: money.Of(shipping, v.Currency), ShippingTax: zero, Tax: zero, Total: money.Of(v.Total.Minor+shipping, v.Currency),
		}
		if !v.Discount.IsZero() {
			out.Promo = v.Promo
		}
		if out.Total != r.Expected {
			return cartapi.Frozen{}, errs.Conflictf("cart_changed", "the cart is not as the shopper saw it").WithDetails(v)
		}
		weights := make([]int64, len(v.Lines))
		for i, l := range v.Lines {
			weights[i] = l.Total.Minor
		}
		for i, share := range v.Discount.Spread(weights) {
			l := v.Lines[i]
			out.Lines = append(out.Lines, cartapi.FrozenLine{
				SKU: l.SKU, Product: l.Product, Name: l.Name, Quantity: l.Quantity, UnitPrice: l.UnitPrice, Discount: share, Tax: zero,
				Total: money.Of(l.Total.Minor-share.Minor, v.Currency),
			})
		}
		if b.view.State == "active" {
			b.view.State, b.lockedBy = "locked", r.Checkout
			b.view.Version++
		}
		out.Version = b.view.Version
		return out, nil
	})
}

// Redeem counts one use of the frozen cart's code.
func (f *Fake) Redeem(_ context.Context, r cartapi.RedeemRequest) (cartapi.Redeemed, error) {
	err := f.enter("Redeem")
	defer f.mu.Unlock()
	if err != nil {
		return cartapi.Redeemed{}, err
	}
	return once(f, "Redeem", r.Key, r, func() (cartapi.Redeemed, error) {
		b := f.carts[r.Cart]
		if b == nil || b.view.State != "locked" || b.lockedBy != r.Checkout {
			return cartapi.Redeemed{}, errs.Conflictf("cart_not_held", "the checkout does not hold the cart")
		}
		p := f.promos[b.view.Promo]
		if p == nil || f.redemptions[r.Checkout] != "" {
			return cartapi.Redeemed{Code: b.view.Promo}, nil
		}
		if p.left == 0 {
			return cartapi.Redeemed{}, errs.Conflictf("promo_exhausted", "the promo code has been used up")
		}
		p.left--
		f.redemptions[r.Checkout] = b.view.Promo
		return cartapi.Redeemed{Code: b.view.Promo}, nil
	})
}

// Unlock gives a cart back.
func (f *Fake) Unlock(_ context.Context, r cartapi.UnlockRequest) (cartapi.Unlocked, error) {
	err := f.enter("Unlock")
	defer f.mu.Unlock()
	if err != nil {
		return cartapi.Unlocked{}, err
	}
	b := f.carts[r.Cart]
	if b == nil || b.view.State != "locked" || b.lockedBy != r.Checkout {
		return cartapi.Unlocked{}, nil
	}
	if p := f.promos[f.redemptions[r.Checkout]]; p != nil {
		p.left++
		delete(f.redemptions, r.Checkout)
	}
	b.view.State, b.lockedBy = "active", ""
	b.view.Version++
	return cartapi.Unlocked{Unlocked: true}, nil
}

// Complete ends a cart.
func (f *Fake) Complete(_ context.Context, r cartapi.CompleteRequest) (cartapi.Completed, error) {
	err := f.enter("Complete")
	defer f.mu.Unlock()
	if err != nil {
		return cartapi.Completed{}, err
	}
	b := f.carts[r.Cart]
	switch {
	case b == nil:
		return cartapi.Completed{}, errs.NotFoundf("no such cart")
	case b.view.State == "completed" && b.order != r.Order:
		return cartapi.Completed{}, errs.Conflictf("cart_completed", "the cart has been bought with another order")
	case b.view.State != "completed":
		b.view.State, b.order = "completed", r.Order
		b.view.Version++
	}
	return cartapi.Completed{Cart: r.Cart}, nil
}

// once gives the first answer of a key again.
func once[Res any](f *Fake, method, key string, request any, do func() (Res, error)) (Res, error) {
	var res Res
	asked, err := json.Marshal(request)
	if err != nil {
		return res, err
	}
	if done, ok := f.operations[method+key]; ok {
		if done.request != string(asked) {
			return res, errs.Conflictf("key_reused", "the key was used before with another request")
		}
		return res, json.Unmarshal(done.result, &res)
	}
	if res, err = do(); err != nil {
		return res, err
	}
	result, err := json.Marshal(res)
	if err != nil {
		return res, err
	}
	f.operations[method+key] = operation{string(asked), result}
	return res, nil
}
