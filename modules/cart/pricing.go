package cart

import "github.com/banyan-shop/banyan/platform/money"

// item is what pricing needs to know of a line.
type item struct {
	Unit     money.Amount
	Quantity int64
	Rate     money.Rate
}

// discount is a promo code in force. Its zero value takes nothing off.
type discount struct {
	Percent money.Rate   // of the goods
	Amount  money.Amount // or this much, at most the goods
}

// delivery is shipping, a taxed line like any other. Its zero value is no delivery yet.
type delivery struct {
	Price money.Amount
	Rate  money.Rate
}

// prices is a basket priced. Every amount is rounded already: Total is the sum of the parts that are stored and shown.
type prices struct {
	Lines       []linePrice
	Subtotal    money.Amount // Σ unit × quantity
	Discount    money.Amount // Σ of the lines' shares
	Shipping    money.Amount
	ShippingTax money.Amount
	Tax         money.Amount // Σ of the lines' and of shipping
	Total       money.Amount // Σ line totals + shipping, + tax where prices exclude it
}

// linePrice is a line priced.
type linePrice struct {
	Full     money.Amount // unit × quantity
	Discount money.Amount
	Total    money.Amount // full − discount
	Tax      money.Amount // inside or on top of Total
}

// price is the only place that makes a total of a basket. The discount is spread over the lines by the largest remainder, so
// that its parts sum to it; tax is rounded once a line, on what is paid for the line. Codes: amount_too_large,
// currency_mismatch.
func price(currency string, items []item, off discount, ship delivery, taxIncluded bool) (prices, error) {
	tax := money.Amount.TaxAdded
	if taxIncluded {
		tax = money.Amount.TaxIncluded
	}
	zero := money.Of(0, currency)
	p := prices{Lines: make([]linePrice, len(items)), Subtotal: zero, Discount: zero, Shipping: zero, ShippingTax: zero, Tax: zero, Total: zero}
	add := func(sum *money.Amount, a money.Amount, err error) error {
		if err == nil {
			*sum, err = sum.Add(a)
		}
		return err
	}
	weights := make([]int64, len(items))
	for i, it := range items {
		full, err := it.Unit.Times(it.Quantity)
		if err := add(&p.Subtotal, full, err); err != nil {
			return prices{}, err
		}
		p.Lines[i].Full, weights[i] = full, full.Minor
	}
	p.Discount = off.of(p.Subtotal)
	for i, share := range p.Discount.Spread(weights) {
		l := &p.Lines[i]
		var err error
		l.Discount = share
		if l.Total, err = l.Full.Sub(share); err != nil {
			return prices{}, err
		}
		l.Tax = tax(l.Total, items[i].Rate)
		if err := add(&p.Total, l.Total, add(&p.Tax, l.Tax, nil)); err != nil {
			return prices{}, err
		}
	}
	if ship.Price != (money.Amount{}) {
		p.Shipping, p.ShippingTax = ship.Price, tax(ship.Price, ship.Rate)
		if err := add(&p.Total, p.Shipping, add(&p.Tax, p.ShippingTax, nil)); err != nil {
			return prices{}, err
		}
	}
	if !taxIncluded {
		if err := add(&p.Total, p.Tax, nil); err != nil {
			return prices{}, err
		}
	}
	return p, nil
}

// of is what the discount takes off a subtotal: never more than all of it.
func (d discount) of(subtotal money.Amount) money.Amount {
	off := subtotal.Part(d.Percent)
	if !d.Amount.IsZero() {
		off = d.Amount
	}
	if off.Minor > subtotal.Minor {
		return subtotal
	}
	return off
}
