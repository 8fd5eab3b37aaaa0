package cart

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes declares the cart's public face. All are public: who the cart belongs to is in the SQL, for guests by X-Cart-Token.
func (m *Module) Routes(r *web.Router) {
	for _, p := range [...][3]string{
		{"cart_changed", "The cart is not as the shopper saw it", "A price, a promo code, the way to deliver or what is available has changed; details is the cart as it is now. Show it, and check out again with its total."},
		{"cart_not_held", "The checkout does not hold the cart", "The checkout has ended and given the cart back. Start a new one."},
		{"unknown_shipping_option", "There is no such way to deliver", "Ask for the cart's shipping quotes and send the id of one of them; ids depend on the address."},
		{"cart_completed", "The cart has been bought", "The cart became an order and stays as it is. Make a new one."},
		{"cart_empty", "The cart is empty", "Put something into the cart first."},
		{"cart_full", "The cart is full", "A cart holds at most 100 different articles."},
		{"cart_locked", "A checkout holds the cart", "While it is paid for, a cart can't change. It is given back if the checkout ends without an order."},
		{"promo_currency", "The promo code is for another currency", "The code takes off an amount in a currency that is not the cart's."},
		{"promo_exhausted", "The promo code has been used up", "The code could be used a number of times, and has been."},
		{"promo_expired", "The promo code has expired", "The time in which the code could be used is over."},
		{"promo_not_yet_valid", "The promo code is not valid yet", "The time in which the code can be used has not begun."},
		{"quantity_too_large", "The quantity is too large", "A cart holds at most 999 of an article."},
		{"unknown_promo_code", "There is no such promo code", "Codes are not case-sensitive."},
		{"unknown_sku", "There is no such article", "The SKU is unknown, no longer sold, or has no price in the cart's currency."},
	} {
		r.Problem(p[0], p[1], p[2])
	}
	r.Tag("cart", "What a shopper means to buy, priced. A guest's cart is opened by its token.")
	route := func(id, summary string) web.Route { return web.Route{ID: id, Summary: summary, Tag: "cart"} }
	keyed := func(id, summary string) web.Route {
		d := route(id, summary)
		d.Idempotency = web.Keyed
		return d
	}
	// Not keyed: a stored answer would keep the guest's token readable, and a second empty cart harms nobody.
	create := route("createCart", "Make a cart")
	create.Status = 201
	web.Post(r, "/v1/carts", web.Public, create, m.createCart)
	web.Get(r, "/v1/carts/{id}", web.Public, route("getCart", "Read a cart"), m.getCart)
	web.Post(r, "/v1/carts/{id}/items", web.Public, keyed("addCartItem", "Put a SKU into a cart; the same SKU adds up"), m.addItem)
	web.Patch(r, "/v1/carts/{id}/items/{line}", web.Public, route("changeCartItem", "Change a line's quantity; 0 removes it"), m.changeItem)
	web.Delete(r, "/v1/carts/{id}/items/{line}", web.Public, route("removeCartItem", "Remove a line"), m.removeItem)
	web.Post(r, "/v1/carts/{id}/promo-codes", web.Public, keyed("addCartPromoCode", "Use a promo code; it replaces another"), m.addPromo)
	web.Delete(r, "/v1/carts/{id}/promo-codes/{code}", web.Public, route("removeCartPromoCode", "Stop using a promo code"), m.removePromo)
	web.Post(r, "/v1/carts/{id}/shipping-quotes", web.Public, route("quoteCartShipping", "Ways to deliver, and what the order costs with each"), m.quoteShipping)
}

// Ref names a cart and, for guests, shows that it is theirs. It is exported because huma reads embedded fields of exported
// types alone.
type Ref struct {
	ID    string `path:"id" maxLength:"40" doc:"The cart's id"`
	Token string `header:"X-Cart-Token" maxLength:"100" doc:"The token of a guest's cart"`
}

func (r Ref) cart() cartapi.ID { return cartapi.ID(r.ID) }

// Target is the cart a request is to change, or to price.
type Target struct {
	Ref
	IfMatch string `header:"If-Match" maxLength:"40" doc:"The version the client has seen"`
}

type cartReply = web.Reply[cartapi.View]

func reply(v cartapi.View) *cartReply { return &cartReply{ETag: web.ETag(v.Version), Body: v} }

type createInput struct {
	Body struct {
		Currency string `json:"currency,omitempty" maxLength:"3" doc:"ISO 4217; the shop's first one by default" example:"EUR"`
	}
}

// created is a new cart with its token, which is shown this once.
type created struct {
	cartapi.View
	Token string `json:"token,omitempty" doc:"Secret of a guest's cart, to be sent as X-Cart-Token; shown this once"`
}

func (m *Module) createCart(ctx context.Context, in *createInput) (*web.Reply[created], error) {
	currency := in.Body.Currency
	if currency == "" {
		currency = m.Config.Currencies[0]
	}
	if !slices.Contains(m.Config.Currencies, currency) {
		return nil, errs.Invalidf("unknown_currency", "the shop does not sell in this currency").WithField("/currency", "out_of_range")
	}
	b := &basket{ID: ids.New[cartapi.ID]("crt"), Currency: currency, State: active, Version: 1}
	o, token := callerOf(ctx, ""), ""
	if o.user == nil {
		token = newToken()
		o.tokenHash = hashToken(token)
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return insertCart(ctx, tx, b, o, m.Now(), m.expiry(o)) })
	if err != nil {
		return nil, fmt.Errorf("create cart: %w", err)
	}
	v, err := m.view(ctx, b)
	if err != nil {
		return nil, err
	}
	return &web.Reply[created]{Status: 201, ETag: web.ETag(v.Version), Location: "/v1/carts/" + string(b.ID), Body: created{v, token}}, nil
}

// newToken is 128 bits from the system's generator.
func newToken() string {
	var bits [16]byte
	rand.Read(bits[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(bits[:])
}

type getInput struct{ Ref }

func (m *Module) getCart(ctx context.Context, in *getInput) (*cartReply, error) {
	b, err := m.current(ctx, in.cart(), callerOf(ctx, in.Token))
	if err != nil {
		return nil, err
	}
	v, err := m.view(ctx, b)
	if err != nil {
		return nil, err
	}
	return reply(v), nil
}

type addItemInput struct {
	Target
	Body struct {
		SKU      string `json:"sku" minLength:"1" maxLength:"100" example:"DEMO-0001-BLK"`
		Quantity int64  `json:"quantity" minimum:"1" maximum:"999" example:"2"`
	}
}

// addItem is the most frequent write of the shop: one read of the cart, one question to the catalog, and a transaction of one
// statement (two with an Idempotency-Key). The answer is priced from what was read, unless somebody changed the cart between.
func (m *Module) addItem(ctx context.Context, in *addItemInput) (*cartReply, error) {
	o, sku, n := callerOf(ctx, in.Token), in.Body.SKU, in.Body.Quantity
	expected, err := web.IfMatch(in.IfMatch, false)
	if err != nil {
		return nil, err
	}
	read, err := loadCart(ctx, m.DB, in.cart(), o, m.Now())
	if err != nil {
		return nil, err
	}
	if err := read.editable(expected); err != nil {
		return nil, err
	}
	offered, err := m.offered(ctx, read.Currency, sku)
	if err != nil {
		return nil, err
	}
	t, err := m.taxes(ctx)
	if err != nil {
		return nil, err
	}
	var answer cartapi.View
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		now := m.Now()
		got, err := addToLine(ctx, tx, read, o, expected, offered, n, now, m.expiry(o))
		if pg.NoRows(err) {
			return m.moved(ctx, tx, read, o, expected)
		}
		if pg.IsCheck(err, "lines_quantity") {
			return tooMany()
		}
		if err != nil {
			return fmt.Errorf("add to cart %s: %w", read.ID, err)
		}
		b := read.clone()
		if got.Version == read.Version+1 {
			b.Version = got.Version
			b.add(offered, got)
		} else if b, err = loadCart(ctx, tx, read.ID, o, now); err != nil {
			return err
		}
		if got.Quantity > offered.Available {
			return tooFew(sku, got.Quantity, offered.Available)
		}
		if len(b.Lines) > maxLines {
			return errs.Invalidf("cart_full", "a cart holds at most %d different articles", maxLines)
		}
		if answer, err = m.viewWith(t, b); err != nil {
			return err
		}
		return web.SaveReply(ctx, tx, 200, web.ETag(answer.Version), answer)
	})
	if err != nil {
		return nil, err
	}
	return reply(answer), nil
}

// add is what addToLine did, to b.
func (b *basket) add(offered line, got added) {
	l := b.find(offered.SKU)
	if l == nil {
		b.Lines = append(b.Lines, offered)
		l = &b.Lines[len(b.Lines)-1]
	} else {
		offered.ID = l.ID
		*l = offered
	}
	l.Quantity, l.Change, l.ChangeVersion = got.Quantity, got.Change, got.ChangeVersion
}

// offered asks the catalog for one SKU and gives it as a line of no quantity yet.
func (m *Module) offered(ctx context.Context, currency, sku string) (line, error) {
	offers, err := m.Catalog.Offers(ctx, catalogapi.OffersRequest{SKUs: []string{sku}, Currency: currency})
	if err != nil {
		return line{}, fmt.Errorf("ask for an offer: %w", err)
	}
	if len(offers.Offers) == 0 {
		return line{}, errs.Invalidf("unknown_sku", "there is no such article in this currency").WithField("/sku", "unknown")
	}
	l := line{ID: ids.New[ids.ID]("cln"), SKU: sku, RefreshedAt: m.Now()}
	l.take(offers.Offers[0])
	return l, nil
}

// moved explains why a write found the cart no longer as it was read.
func (m *Module) moved(ctx context.Context, q pg.Queryer, read *basket, o owner, expected int64) error {
	b, err := loadCart(ctx, q, read.ID, o, m.Now())
	if err != nil {
		return err
	}
	if expected == 0 {
		expected = read.Version
	}
	if err := b.editable(expected); err != nil {
		return err
	}
	return errs.Unavailablef("the cart was busy, try again")
}

func tooMany() error {
	return errs.Invalidf("quantity_too_large", "a cart holds at most %d of an article", maxQuantity).WithField("/quantity", "out_of_range")
}

// tooFew carries what there is, in the words the catalog uses for it.
func tooFew(sku string, requested, available int64) error {
	return errs.Conflictf("insufficient_stock", "there are not as many").
		WithDetails(catalogapi.Shortages{Lines: []catalogapi.Shortage{{SKU: sku, Requested: requested, Available: available}}})
}

type changeItemInput struct {
	Target
	Line string `path:"line" maxLength:"40"`
	Body struct {
		Quantity int64 `json:"quantity" minimum:"0" maximum:"999"`
	}
}

func (m *Module) changeItem(ctx context.Context, in *changeItemInput) (*cartReply, error) {
	return m.setLine(ctx, in.Target, ids.ID(in.Line), in.Body.Quantity)
}

type removeItemInput struct {
	Target
	Line string `path:"line" maxLength:"40"`
}

func (m *Module) removeItem(ctx context.Context, in *removeItemInput) (*cartReply, error) {
	return m.setLine(ctx, in.Target, ids.ID(in.Line), 0)
}

// setLine gives a line another quantity. It needs the version the client saw: a quantity is an answer to what was shown.
func (m *Module) setLine(ctx context.Context, to Target, id ids.ID, quantity int64) (*cartReply, error) {
	expected, err := web.IfMatch(to.IfMatch, true)
	if err != nil {
		return nil, err
	}
	o := callerOf(ctx, to.Token)
	b, err := loadCart(ctx, m.DB, to.cart(), o, m.Now())
	if err != nil {
		return nil, err
	}
	if err := b.editable(expected); err != nil {
		return nil, err
	}
	at := slices.IndexFunc(b.Lines, func(l line) bool { return l.ID == id })
	if at < 0 {
		return nil, errs.NotFoundf("no such line in the cart")
	}
	next := b.clone()
	next.Version++
	l := &next.Lines[at]
	if l.Quantity = quantity; quantity > 0 {
		now, err := m.offered(ctx, b.Currency, l.SKU)
		if errs.Has(err, "unknown_sku") || err == nil && now.Available < quantity {
			return nil, tooFew(l.SKU, quantity, now.Available)
		}
		if err != nil {
			return nil, err
		}
		now.ID, now.Quantity = l.ID, quantity
		if now.UnitPrice != l.UnitPrice {
			now.Change, now.ChangeVersion = priceChanged, next.Version
		}
		*l = now
	}
	changed := *l
	if quantity == 0 {
		next.Lines = slices.Delete(next.Lines, at, at+1)
	}
	return m.write(ctx, b, next, o, expected, func(tx *pg.Tx) (bool, error) {
		return setQuantity(ctx, tx, b, changed, m.Now(), m.expiry(o))
	})
}

// write runs one conditional write that makes next of b, and answers with next.
func (m *Module) write(ctx context.Context, b, next *basket, o owner, expected int64, do func(*pg.Tx) (bool, error)) (*cartReply, error) {
	v, err := m.view(ctx, next)
	if err != nil {
		return nil, err
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		done, err := do(tx)
		if err != nil {
			return fmt.Errorf("change cart %s: %w", b.ID, err)
		}
		if !done {
			return m.moved(ctx, tx, b, o, expected)
		}
		return web.SaveReply(ctx, tx, 200, web.ETag(v.Version), v)
	})
	if err != nil {
		return nil, err
	}
	return reply(v), nil
}

type promoInput struct {
	Target
	Body struct {
		Code string `json:"code" minLength:"1" maxLength:"50" example:"WELCOME10"`
	}
}

func (m *Module) addPromo(ctx context.Context, in *promoInput) (*cartReply, error) {
	return m.setCode(ctx, in.Target, func(b *basket) (promo, error) {
		p, err := loadPromo(ctx, m.DB, strings.ToUpper(strings.TrimSpace(in.Body.Code)))
		if pg.NoRows(err) {
			return p, errs.Invalidf("unknown_promo_code", "there is no such promo code").WithField("/code", "unknown")
		}
		if err != nil {
			return p, fmt.Errorf("load promo code: %w", err)
		}
		return p, p.refusal(b.Currency, m.Now())
	})
}

type removePromoInput struct {
	Target
	Code string `path:"code" maxLength:"50"`
}

func (m *Module) removePromo(ctx context.Context, in *removePromoInput) (*cartReply, error) {
	return m.setCode(ctx, in.Target, func(b *basket) (promo, error) {
		if b.Promo.Code == "" || b.Promo.Code != strings.ToUpper(in.Code) {
			return promo{}, errs.NotFoundf("the cart has no such promo code")
		}
		return promo{}, nil
	})
}

// setCode gives the cart the promo code that choose returns for it.
func (m *Module) setCode(ctx context.Context, to Target, choose func(*basket) (promo, error)) (*cartReply, error) {
	expected, err := web.IfMatch(to.IfMatch, false)
	if err != nil {
		return nil, err
	}
	o := callerOf(ctx, to.Token)
	b, err := m.current(ctx, to.cart(), o)
	if err != nil {
		return nil, err
	}
	if err := b.editable(expected); err != nil {
		return nil, err
	}
	next := b.clone()
	next.Version++
	if next.Promo, err = choose(b); err != nil {
		return nil, err
	}
	return m.write(ctx, b, next, o, expected, func(tx *pg.Tx) (bool, error) {
		return setPromo(ctx, tx, b, next.Promo.Code, m.expiry(o))
	})
}

type quoteInput struct {
	Target
	Body struct {
		Address quoteAddress `json:"address"`
	}
}

// quoteAddress is an address as customers give it. Prices depend on country, region and postcode; the rest is let in so that
// a client can send the address it has, and is not kept.
type quoteAddress struct {
	Name     string `json:"name,omitempty" maxLength:"200" example:"Gina Guest"`
	Company  string `json:"company,omitempty" maxLength:"200"`
	Line1    string `json:"line1,omitempty" maxLength:"200" example:"Hauptstr. 1"`
	Line2    string `json:"line2,omitempty" maxLength:"200"`
	City     string `json:"city,omitempty" maxLength:"200" example:"Berlin"`
	Region   string `json:"region,omitempty" maxLength:"100"`
	Postcode string `json:"postcode,omitempty" maxLength:"20" example:"10115"`
	Country  string `json:"country" pattern:"^[A-Z]{2}$" doc:"ISO 3166 alpha-2" example:"DE"`
	Phone    string `json:"phone,omitempty" maxLength:"50"`
}

// shippingQuote is a way to deliver, and the whole order with it.
type shippingQuote struct {
	ID        string       `json:"id"`
	Carrier   string       `json:"carrier"`
	Service   string       `json:"service"`
	Price     money.Amount `json:"price"`
	Total     money.Amount `json:"total" doc:"What the order would cost with this option, tax included"`
	Estimated bool         `json:"estimated" doc:"The carrier did not answer; this is the shop's own rate"`
}

func (m *Module) quoteShipping(ctx context.Context, in *quoteInput) (*web.Reply[web.Page[shippingQuote]], error) {
	expected, err := web.IfMatch(in.IfMatch, false)
	if err != nil {
		return nil, err
	}
	b, err := m.current(ctx, in.cart(), callerOf(ctx, in.Token))
	if err != nil {
		return nil, err
	}
	if expected != 0 && expected != b.Version {
		return nil, errs.New(errs.PreconditionFailed, "", "the cart has changed: it is at version %d", b.Version)
	}
	if len(b.Lines) == 0 {
		return nil, errs.Invalidf("cart_empty", "there is nothing in the cart")
	}
	t, err := m.taxes(ctx)
	if err != nil {
		return nil, err
	}
	a := in.Body.Address
	options, err := m.options(ctx, t, b, cartapi.Address{Country: a.Country, Region: a.Region, Postcode: a.Postcode})
	if err != nil {
		return nil, err
	}
	page := web.Page[shippingQuote]{Data: make([]shippingQuote, len(options))}
	for i, o := range options {
		page.Data[i] = shippingQuote{o.ID, o.Carrier, o.Service, o.Price, o.prices.Total, o.Estimated}
	}
	return &web.Reply[web.Page[shippingQuote]]{Body: page}, nil
}
