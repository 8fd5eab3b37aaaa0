package shipping

import (
	"context"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/money"
)

// Carrier is somebody who delivers and says what it costs.
type Carrier interface {
	// Rate is the price of sending a parcel with a service.
	Rate(ctx context.Context, p Parcel) (money.Amount, error)
}

// Parcel is what a carrier is told: nothing of the shopper but where they live.
type Parcel struct {
	Service     string
	Country     string
	Postcode    string
	WeightGrams int64
	Items       int64
	Currency    string
	TableRate   money.Amount // what the shop would ask without the carrier
}

// parcel is Parcel as a key of the cache.
type parcel struct {
	service, country, region, postcode, currency string
	grams, items                                 int64
}

// answer is a carrier's rate and how long it holds.
type answer struct {
	price money.Amount
	until time.Time
}

const maxAnswers = 20_000

func answers() *otter.Cache[parcel, answer] {
	return otter.Must(&otter.Options[parcel, answer]{MaximumSize: maxAnswers})
}

// ask gives the carrier's rate, from the cache if it is fresh, or the table's flagged as an estimate. Only answers are cached:
// an estimate holds for this quote alone.
func (m *Module) ask(ctx context.Context, s service, r shippingapi.QuoteRequest, table money.Amount) (price money.Amount, estimated bool) {
	key := parcel{s.ID, r.Country, r.Region, strings.Join(strings.Fields(r.Postcode), ""), r.Subtotal.Currency, r.WeightGrams, r.Items}
	if a, ok := m.Answers.GetIfPresent(key); ok && m.Now().Before(a.until) {
		return a.price, false
	}
	ctx, cancel := context.WithTimeout(ctx, m.Config.CarrierTimeout)
	defer cancel()
	price, err := m.Carrier.Rate(ctx, Parcel{
		Service: s.Service, Country: r.Country, Postcode: r.Postcode, WeightGrams: r.WeightGrams, Items: r.Items,
		Currency: r.Subtotal.Currency, TableRate: table,
	})
	if err != nil {
		m.Log.WarnContext(ctx, "carrier gave no rate", "service", s.ID, "err", err)
		return table, true
	}
	m.Answers.Set(key, answer{price, m.Now().Add(m.Config.CarrierCache)})
	return price, false
}

// Simulator is a carrier in this process, for development and demonstrations: it asks a tenth more than the table for each
// kilogram begun, up to twice the table's rate.
type Simulator struct {
	// Before, if set, runs before an answer: a test lets the carrier be slow or fail with it.
	Before func(ctx context.Context, p Parcel) error
}

// Rate is the simulated price.
func (s Simulator) Rate(ctx context.Context, p Parcel) (money.Amount, error) {
	if s.Before != nil {
		if err := s.Before(ctx, p); err != nil {
			return money.Amount{}, err
		}
	}
	kilograms := min((p.WeightGrams+999)/1000, 10)
	return p.TableRate.Add(p.TableRate.Part(money.Rate(1000 * kilograms)))
}

// carrier is the one the settings name.
func carrier(c Config) Carrier {
	if c.Carrier == "simulator" {
		return Simulator{}
	}
	return nil
}
