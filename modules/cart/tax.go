package cart

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

const (
	standardClass = "standard" // of goods whose class has no rate of its own, and of shipping
	ratesFor      = time.Minute
)

// taxRates keeps the rates in memory, since every priced cart needs them and they change some times a year: a row added is
// seen within a minute. A rate begins on its day to the second, as the days are kept with the rates.
type taxRates struct {
	mu     sync.Mutex
	table  taxTable
	loaded time.Time
}

// taxTable holds the rates of a place and class, newest first.
type taxTable map[taxKey][]taxRate

type taxKey struct{ country, region, class string }

type taxRate struct {
	from time.Time
	rate money.Rate
}

// taxes is the table, read again when it is older than a minute. While the database does not answer the old one serves.
func (m *Module) taxes(ctx context.Context) (taxTable, error) {
	m.rates.mu.Lock()
	defer m.rates.mu.Unlock()
	now := m.Now()
	if m.rates.table != nil && now.Sub(m.rates.loaded) < ratesFor {
		return m.rates.table, nil
	}
	table, err := loadTaxes(ctx, m.DB)
	if err != nil {
		if m.rates.table == nil {
			return nil, fmt.Errorf("load tax rates: %w", err)
		}
		m.Log.WarnContext(ctx, "tax rates not refreshed", "err", err)
		table = m.rates.table
	}
	m.rates.table, m.rates.loaded = table, now
	return table, nil
}

func loadTaxes(ctx context.Context, q pg.Queryer) (taxTable, error) {
	var rows []struct {
		Country string     `db:"country"`
		Region  string     `db:"region"`
		Class   string     `db:"tax_class"`
		From    time.Time  `db:"valid_from"`
		Rate    money.Rate `db:"rate"`
	}
	err := q.Select(ctx, &rows, `
		SELECT country, region, tax_class, valid_from, rate
		FROM cart.tax_rates
		ORDER BY valid_from DESC`)
	if err != nil {
		return nil, err
	}
	t := taxTable{}
	for _, r := range rows {
		k := taxKey{r.Country, r.Region, r.Class}
		t[k] = append(t[k], taxRate{r.From, r.Rate})
	}
	return t, nil
}

// rate is the rate in force: of the region, else of the country; of the class, else the standard one. Where no rate is known
// at all, goods are exported without tax.
func (t taxTable) rate(country, region, class string, now time.Time) money.Rate {
	for _, c := range []string{class, standardClass} {
		for _, r := range []string{region, ""} {
			for _, rate := range t[taxKey{country, r, c}] {
				if !now.Before(rate.from) {
					return rate.rate
				}
			}
		}
	}
	return 0
}
