package shipping

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

// Quote lists the ways to deliver, cheapest first. It reads no database: the table of rates is in memory.
func (m *Module) Quote(ctx context.Context, r shippingapi.QuoteRequest) (shippingapi.Quotes, error) {
	rates, err := m.rates(ctx)
	if err != nil {
		return shippingapi.Quotes{}, err
	}
	zone, ok := rates.zone(r.Country, r.Region, r.Postcode)
	if !ok {
		return shippingapi.Quotes{}, errs.Invalidf("no_shipping_zone", "the shop does not deliver there").WithField("/address/country", "out_of_range")
	}
	options := []shippingapi.Option{}
	for _, s := range rates.services[zone] {
		price, ok := s.price(r)
		if !ok {
			continue
		}
		o := shippingapi.Option{ID: s.ID, Carrier: s.Carrier, Service: s.Service, Price: price}
		if s.Live && m.Carrier != nil && !price.IsZero() {
			o.Price, o.Estimated = m.ask(ctx, s, r, price)
		}
		options = append(options, o)
	}
	slices.SortFunc(options, func(a, b shippingapi.Option) int {
		return cmp.Or(cmp.Compare(a.Price.Minor, b.Price.Minor), cmp.Compare(a.ID, b.ID))
	})
	return shippingapi.Quotes{Options: options}, nil
}

// rateTable keeps zones and rates in memory: they are small, change rarely, and every cart on its way to a checkout needs
// them. A change is seen after Config.Refresh.
type rateTable struct {
	mu     sync.Mutex
	rates  *rates
	loaded time.Time
}

// rates is the table as it was read once; it is never changed.
type rates struct {
	places   map[string][]place   // by country
	services map[string][]service // by zone
}

// place is a part of a country that belongs to a zone.
type place struct {
	Country string `db:"country"`
	Region  string `db:"region"`
	From    string `db:"postcode_from"`
	To      string `db:"postcode_to"`
	Zone    string `db:"zone_id"`
}

// service is a way to deliver within a zone.
type service struct {
	ID      string            `db:"id"`
	Zone    string            `db:"zone_id"`
	Carrier string            `db:"carrier"`
	Service string            `db:"service"`
	Basis   string            `db:"basis"`
	Live    bool              `db:"live"`
	bands   map[string][]band // by currency
	free    map[string]int64
}

// band is a price for from ≤ x < to.
type band struct {
	Service  string `db:"service_id"`
	Currency string `db:"currency"`
	From     int64  `db:"from_value"`
	To       int64  `db:"to_value"`
	Price    int64  `db:"price"`
}

// rates is the table, read again when it is old. While the database does not answer the old one serves.
func (m *Module) rates(ctx context.Context) (*rates, error) {
	m.table.mu.Lock()
	defer m.table.mu.Unlock()
	now := m.Now()
	if m.table.rates != nil && now.Sub(m.table.loaded) < m.Config.Refresh {
		return m.table.rates, nil
	}
	fresh, err := loadRates(ctx, m.DB)
	if err != nil {
		if m.table.rates == nil {
			return nil, fmt.Errorf("load shipping rates: %w", err)
		}
		m.Log.WarnContext(ctx, "shipping rates not refreshed", "err", err)
		fresh = m.table.rates
	}
	m.table.rates, m.table.loaded = fresh, now
	return fresh, nil
}

// zone finds the zone of an address: of its postcode, else of its region, else of its country. Of two ranges of postcodes the
// one that begins later is the narrower or the next one, and wins.
func (t *rates) zone(country, region, postcode string) (string, bool) {
	postcode = strings.ToUpper(strings.Join(strings.Fields(postcode), ""))
	best, found := place{}, false
	for _, p := range t.places[strings.ToUpper(country)] {
		if p.holds(region, postcode) && (!found || p.narrower(best)) {
			best, found = p, true
		}
	}
	return best.Zone, found
}

// holds says whether an address of the country is in the place.
func (p place) holds(region, postcode string) bool {
	if p.Region != "" && !strings.EqualFold(p.Region, region) {
		return false
	}
	return p.From == "" || p.From <= postcode && postcode[:min(len(postcode), len(p.To))] <= p.To
}

func (p place) narrower(o place) bool {
	return cmp.Or(
		cmp.Compare(p.From, o.From), // "" first: any range beats none
		cmp.Compare(o.To, p.To),
		cmp.Compare(p.Region, o.Region),
	) > 0
}

// price is what the table says; false if the basket can't be sent with the service.
func (s service) price(r shippingapi.QuoteRequest) (money.Amount, bool) {
	var x int64
	switch s.Basis {
	case "weight":
		x = r.WeightGrams
	case "price":
		x = r.Subtotal.Minor
	}
	for _, b := range s.bands[r.Subtotal.Currency] {
		if b.From > x || x >= b.To {
			continue
		}
		if free, ok := s.free[r.Subtotal.Currency]; ok && r.Subtotal.Minor >= free {
			return money.Of(0, r.Subtotal.Currency), true
		}
		return money.Of(b.Price, r.Subtotal.Currency), true
	}
	return money.Amount{}, false
}
