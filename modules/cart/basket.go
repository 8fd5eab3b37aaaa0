package cart

import (
	"slices"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// States of a cart.
const (
	active    = "active"
	locked    = "locked"    // a checkout holds it
	completed = "completed" // bought
)

// What a refresh may find.
const (
	priceChanged = "price_changed"
	unavailable  = "unavailable"
	qtyReduced   = "qty_reduced"
)

const (
	maxLines    = 100
	maxQuantity = 999
)

// basket is a cart with its lines as the database has them.
type basket struct {
	ID       cartapi.ID `db:"id"`
	Currency string     `db:"currency"`
	State    string     `db:"state"`
	Version  int64      `db:"version"`
	LockedBy ids.ID     `db:"locked_by"`
	Promo    promo
	Lines    []line
}

// promo is a promo code. Its zero value is none.
type promo struct {
	Code     string    `db:"code"`
	Kind     string    `db:"kind"`
	Value    int64     `db:"value"`
	Currency string    `db:"promo_currency"`
	From     time.Time `db:"valid_from"`
	Until    time.Time `db:"valid_until"`
	Limit    int64     `db:"usage_limit"`
	Used     int64     `db:"used"`
	Redeemed bool      `db:"redeemed"` // by the checkout that holds the cart
}

// line is a SKU in a basket, with what the catalog last said of it.
type line struct {
	ID            ids.ID    `db:"line_id"`
	SKU           string    `db:"sku"`
	Product       ids.ID    `db:"product_id"`
	Name          string    `db:"name"`
	Image         string    `db:"image"`
	TaxClass      string    `db:"tax_class"`
	WeightGrams   int64     `db:"weight_grams"`
	UnitPrice     int64     `db:"unit_price"`
	Quantity      int64     `db:"quantity"`
	Available     int64     `db:"available"`
	Change        string    `db:"change"`
	ChangeVersion int64     `db:"change_version"`
	RefreshedAt   time.Time `db:"refreshed_at"`
}

// editable says why a shopper may not change the cart now; expected is the version they saw, 0 for any.
func (b *basket) editable(expected int64) error {
	switch b.State {
	case locked:
		return errs.Conflictf("cart_locked", "a checkout holds the cart")
	case completed:
		return errs.Conflictf("cart_completed", "the cart has been bought")
	}
	if expected != 0 && expected != b.Version {
		return errs.New(errs.PreconditionFailed, "", "the cart has changed: it is at version %d", b.Version)
	}
	return nil
}

// find is the line of a SKU, nil without one.
func (b *basket) find(sku string) *line {
	i := slices.IndexFunc(b.Lines, func(l line) bool { return l.SKU == sku })
	if i < 0 {
		return nil
	}
	return &b.Lines[i]
}

// clone is a copy whose lines can be changed without changing b's: a transaction may run twice.
func (b *basket) clone() *basket {
	c := *b
	c.Lines = slices.Clone(b.Lines)
	return &c
}

func (b *basket) skus() []string {
	all := make([]string, len(b.Lines))
	for i, l := range b.Lines {
		all[i] = l.SKU
	}
	return all
}

// stale says whether a line was last seen before a time.
func (b *basket) stale(before time.Time) bool {
	return slices.ContainsFunc(b.Lines, func(l line) bool { return l.RefreshedAt.Before(before) })
}

// refresh takes over what the catalog says now of every line. A line that is sold out stays, with nothing available: the
// shopper decides what becomes of it. It says whether the shopper should look again, in which case the cart is at its next
// version; a mere change of how many there are is none. holding is for a checkout that has reserved the goods: what is
// available then no longer counts them.
func (b *basket) refresh(offers []catalogapi.Offer, now time.Time, holding bool) bool {
	bySKU := make(map[string]catalogapi.Offer, len(offers))
	for _, o := range offers {
		bySKU[o.SKU] = o
	}
	next, changed := b.Version+1, false
	for i := range b.Lines {
		l := &b.Lines[i]
		before := *l
		l.RefreshedAt = now
		change := ""
		if o, ok := bySKU[l.SKU]; ok {
			l.take(o)
			if l.UnitPrice != before.UnitPrice {
				change = priceChanged
			}
			if !holding && l.Available > 0 && l.Quantity > l.Available {
				l.Quantity, change = l.Available, qtyReduced
			}
		} else {
			l.Available = 0
		}
		if l.Available <= 0 && before.Available > 0 && !(holding && bySKU[l.SKU].SKU != "") {
			change = unavailable
		}
		if change != "" {
			l.Change, l.ChangeVersion, changed = change, next, true
		}
	}
	if changed {
		b.Version = next
	}
	return changed
}

// take is what a line remembers of an offer.
func (l *line) take(o catalogapi.Offer) {
	l.Product, l.Name, l.Image = ids.ID(o.Product), o.Name, o.Image
	l.TaxClass, l.WeightGrams = o.TaxClass, o.WeightGrams
	l.UnitPrice, l.Available = o.Price.Minor, max(o.Available, 0)
}

// soldOut says whether a line can't be had as the last refresh left it.
func (b *basket) soldOut() bool {
	return slices.ContainsFunc(b.Lines, func(l line) bool { return l.Available < l.Quantity })
}

// place is where goods go, as far as tax depends on it.
type place struct{ country, region string }

// price prices the basket as it would be delivered to a place. Shipping is taxed at the standard rate.
func (b *basket) price(t taxTable, to place, ship money.Amount, now time.Time, taxIncluded bool) (prices, error) {
	items := make([]item, len(b.Lines))
	for i, l := range b.Lines {
		items[i] = item{money.Of(l.UnitPrice, b.Currency), l.Quantity, t.rate(to.country, to.region, l.TaxClass, now)}
	}
	d := delivery{ship, t.rate(to.country, to.region, standardClass, now)}
	return price(b.Currency, items, b.Promo.discount(b.Currency, now), d, taxIncluded)
}

func (b *basket) weight() (grams, count int64) {
	for _, l := range b.Lines {
		grams += l.WeightGrams * l.Quantity
		count += l.Quantity
	}
	return grams, count
}

// view is the cart as its owner sees it.
func (b *basket) view(p prices, now time.Time) cartapi.View {
	v := cartapi.View{
		ID: b.ID, Version: b.Version, State: b.State, Currency: b.Currency,
		Lines: make([]cartapi.Line, len(b.Lines)), Changes: []cartapi.Change{},
		Subtotal: p.Subtotal, Discount: p.Discount, Tax: p.Tax, Total: p.Total,
	}
	if b.Promo.refusal(b.Currency, now) == nil {
		v.Promo = b.Promo.Code
	}
	for i, l := range b.Lines {
		v.Lines[i] = cartapi.Line{
			ID: l.ID, SKU: l.SKU, Product: l.Product, Name: l.Name, Image: l.Image, Quantity: l.Quantity,
			UnitPrice: money.Of(l.UnitPrice, b.Currency), Total: p.Lines[i].Full, Available: l.Available,
		}
		if l.Change != "" && l.ChangeVersion == b.Version {
			v.Changes = append(v.Changes, cartapi.Change{Line: l.ID, SKU: l.SKU, Code: l.Change})
		}
	}
	return v
}

// refusal says why a code gives nothing on a cart now; nil if it does, or if there is no code. What a checkout has redeemed
// stays good for it.
func (p promo) refusal(currency string, now time.Time) error {
	switch {
	case p.Code == "" || p.Redeemed:
		return nil
	case now.Before(p.From):
		return errs.Invalidf("promo_not_yet_valid", "the promo code is not valid yet").WithField("/code", "out_of_range")
	case !now.Before(p.Until):
		return errs.Invalidf("promo_expired", "the promo code has expired").WithField("/code", "out_of_range")
	case p.Kind == "amount" && p.Currency != currency:
		return errs.Invalidf("promo_currency", "the promo code is for carts in another currency").WithField("/code", "out_of_range")
	case p.Used >= p.Limit:
		return errs.Conflictf("promo_exhausted", "the promo code has been used up")
	}
	return nil
}

// discount is what the code gives now: nothing if it is refused.
func (p promo) discount(currency string, now time.Time) discount {
	switch {
	case p.refusal(currency, now) != nil:
		return discount{}
	case p.Kind == "percent":
		return discount{Percent: money.Rate(p.Value)}
	case p.Kind == "amount":
		return discount{Amount: money.Of(p.Value, currency)}
	}
	return discount{}
}
