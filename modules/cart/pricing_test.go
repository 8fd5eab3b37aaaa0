package cart

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

func eur(minor int64) money.Amount { return money.Of(minor, "EUR") }

func TestPrice(t *testing.T) {
	t.Parallel()
	three := []item{{eur(333), 3, 1900}, {eur(1001), 1, 700}} // 9.99 and 10.01
	for _, c := range []struct {
		name     string
		items    []item
		off      discount
		ship     delivery
		included bool
		want     prices
	}{
		{
			"an empty basket costs nothing", nil, discount{Percent: 1000}, delivery{}, true,
			prices{Subtotal: eur(0), Discount: eur(0), Shipping: eur(0), ShippingTax: eur(0), Tax: eur(0), Total: eur(0)},
		},
		{
			"tax is inside", three, discount{}, delivery{eur(490), 1900}, true,
			prices{
				Lines:    []linePrice{{eur(999), eur(0), eur(999), eur(160)}, {eur(1001), eur(0), eur(1001), eur(65)}},
				Subtotal: eur(2000), Discount: eur(0), Shipping: eur(490), ShippingTax: eur(78), Tax: eur(303), Total: eur(2490),
			},
		},
		{
			"tax is on top", three, discount{}, delivery{eur(490), 1900}, false,
			prices{
				Lines:    []linePrice{{eur(999), eur(0), eur(999), eur(190)}, {eur(1001), eur(0), eur(1001), eur(70)}},
				Subtotal: eur(2000), Discount: eur(0), Shipping: eur(490), ShippingTax: eur(93), Tax: eur(353), Total: eur(2843),
			},
		},
		{
			"a discount is spread to the cent, shipping is not part of it", three, discount{Percent: 1000}, delivery{eur(490), 1900}, true,
			prices{
				Lines:    []linePrice{{eur(999), eur(100), eur(899), eur(144)}, {eur(1001), eur(100), eur(901), eur(59)}},
				Subtotal: eur(2000), Discount: eur(200), Shipping: eur(490), ShippingTax: eur(78), Tax: eur(281), Total: eur(2290),
			},
		},
		{
			"an amount takes off at most the goods", three, discount{Amount: eur(5000)}, delivery{eur(490), 0}, true,
			prices{
				Lines:    []linePrice{{eur(999), eur(999), eur(0), eur(0)}, {eur(1001), eur(1001), eur(0), eur(0)}},
				Subtotal: eur(2000), Discount: eur(2000), Shipping: eur(490), ShippingTax: eur(0), Tax: eur(0), Total: eur(490),
			},
		},
	} {
		got, err := price("EUR", c.items, c.off, c.ship, c.included)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !slices.Equal(got.Lines, c.want.Lines) {
			t.Errorf("%s: lines %v", c.name, got.Lines)
		}
		got.Lines, c.want.Lines = nil, nil
		if !same(got, c.want) {
			t.Errorf("%s:\n got %v\nwant %v", c.name, got, c.want)
		}
	}
}

func same(a, b prices) bool {
	return a.Subtotal == b.Subtotal && a.Discount == b.Discount && a.Shipping == b.Shipping && a.ShippingTax == b.ShippingTax &&
		a.Tax == b.Tax && a.Total == b.Total
}

func TestPriceRefusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	for _, items := range [][]item{
		{{eur(1 << 60), 999, 1900}},
		{{eur(1 << 62), 1, 1900}, {eur(1 << 62), 1, 1900}},
	} {
		if _, err := price("EUR", items, discount{}, delivery{}, true); !errs.Has(err, "amount_too_large") {
			t.Errorf("%v: %v", items, err)
		}
	}
	if _, err := price("EUR", []item{{money.Of(1, "USD"), 1, 0}}, discount{}, delivery{}, true); !errs.Has(err, "currency_mismatch") {
		t.Errorf("another currency: %v", err)
	}
}

// T16: what is shown adds up to the total, and giving an order back piece by piece gives back all of it.
func TestPartsSumToTheTotal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		currency := rapid.SampledFrom([]string{"EUR", "JPY", "KWD"}).Draw(t, "currency")
		amount := func(limit int64, name string) money.Amount {
			return money.Of(rapid.Int64Range(0, limit).Draw(t, name), currency)
		}
		rate := rapid.SampledFrom([]money.Rate{0, 1, 250, 700, 810, 1900, 2550, 10000})
		var items []item
		for range rapid.IntRange(0, 8).Draw(t, "lines") {
			items = append(items, item{amount(2_000_000, "unit"), rapid.Int64Range(1, maxQuantity).Draw(t, "quantity"), rate.Draw(t, "rate")})
		}
		off := discount{Percent: money.Rate(rapid.Int64Range(0, 10000).Draw(t, "percent"))}
		if rapid.Bool().Draw(t, "by amount") {
			off = discount{Amount: amount(5_000_000, "off")}
		}
		included := rapid.Bool().Draw(t, "tax included")
		p, err := price(currency, items, off, delivery{amount(100_000, "shipping"), rate.Draw(t, "shipping rate")}, included)
		if err != nil {
			t.Fatal(err)
		}
		var full, discounts, totals, taxes, refunds int64
		for i, l := range p.Lines {
			if l.Full.Minor != items[i].Unit.Minor*items[i].Quantity || l.Total.Minor != l.Full.Minor-l.Discount.Minor {
				t.Errorf("line %d: %+v", i, l)
			}
			if l.Discount.Minor < 0 || l.Total.Minor < 0 || l.Tax.Minor < 0 || included && l.Tax.Minor > l.Total.Minor {
				t.Errorf("line %d is out of bounds: %+v", i, l)
			}
			full, discounts, totals, taxes = full+l.Full.Minor, discounts+l.Discount.Minor, totals+l.Total.Minor, taxes+l.Tax.Minor
			paid := l.Total.Minor
			if !included {
				paid += l.Tax.Minor
			}
			for _, part := range money.Of(paid, currency).Spread(ones(items[i].Quantity)) { // a refund a piece
				if part.Minor < 0 {
					t.Errorf("a refund of %d", part.Minor)
				}
				refunds += part.Minor
			}
		}
		refunds += p.Shipping.Minor
		total := totals + p.Shipping.Minor
		if !included {
			total += taxes + p.ShippingTax.Minor
			refunds += p.ShippingTax.Minor
		}
		if p.Subtotal.Minor != full || p.Discount.Minor != discounts || p.Tax.Minor != taxes+p.ShippingTax.Minor || p.Total.Minor != total {
			t.Errorf("parts do not sum: %+v", p)
		}
		if refunds != p.Total.Minor {
			t.Errorf("refunds of all parts are %d of %d", refunds, p.Total.Minor)
		}
		if p.Discount.Minor > p.Subtotal.Minor {
			t.Errorf("discount %d of %d", p.Discount.Minor, p.Subtotal.Minor)
		}
	})
}

func ones(n int64) []int64 {
	w := make([]int64, n)
	for i := range w {
		w[i] = 1
	}
	return w
}

func TestTaxRates(t *testing.T) {
	t.Parallel()
	day := func(s string) time.Time {
		d, err := time.Parse(time.DateOnly, s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	table := taxTable{
		{"DE", "", "standard"}:  {{day("2027-01-01"), 2000}, {day("2020-01-01"), 1900}},
		{"DE", "", "reduced"}:   {{day("2020-01-01"), 700}},
		{"DE", "XX", "reduced"}: {{day("2020-01-01"), 500}},
		{"US", "", "standard"}:  {{day("2020-01-01"), 0}},
	}
	for _, c := range []struct {
		country, region, class, now string
		want                        money.Rate
	}{
		{"DE", "", "standard", "2026-12-31", 1900},
		{"DE", "", "standard", "2027-01-01", 2000},
		{"DE", "BY", "reduced", "2026-01-01", 700},
		{"DE", "XX", "reduced", "2026-01-01", 500},
		{"DE", "", "wine", "2026-01-01", 1900},
		{"DE", "", "", "2026-01-01", 1900},
		{"DE", "", "standard", "2019-12-31", 0},
		{"US", "CA", "standard", "2026-01-01", 0},
		{"JP", "", "standard", "2026-01-01", 0},
	} {
		if got := table.rate(c.country, c.region, c.class, day(c.now)); got != c.want {
			t.Errorf("%v: %d", c, got)
		}
	}
}
