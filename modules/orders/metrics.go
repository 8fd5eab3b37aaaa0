package orders

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/banyan-shop/banyan/platform/pg"
)

// metrics are what an operator watches of the sagas: is one late, does one need somebody, how do they end.
type metrics struct {
	ended                    *prometheus.CounterVec
	open, overdue, attention *prometheus.GaugeVec
}

// newMetrics registers with r; a nil r counts for nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	m := &metrics{
		ended: f.NewCounterVec(prometheus.CounterOpts{
			Name: "banyan_orders_checkouts_total", Help: "Checkouts that came to their end: placed, failed or expired.",
		}, []string{"outcome"}),
		open: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "banyan_orders_open", Help: "Checkouts and cancellations that are not at their end.",
		}, []string{"saga"}),
		overdue: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "banyan_orders_overdue_seconds", Help: "How long ago the next step of the latest checkout or cancellation was due; 0 when none is late.",
		}, []string{"saga"}),
		attention: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "banyan_orders_attention", Help: "Checkouts and cancellations that were tried too often and that somebody must look at.",
		}, []string{"saga"}),
	}
	for _, s := range []checkoutState{statePlaced, stateFailed, stateExpired} { // a rate needs the zero before the first
		m.ended.WithLabelValues(string(s))
	}
	return m
}

// watchEvery is how often the sagas are counted: they are few rows of a partial index, and an alert waits for minutes.
const watchEvery = 10 * time.Second

// watch keeps the gauges until ctx ends. Every instance tells the same of the one database, so take the maximum of them.
func (m *Module) watch(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		if err := m.count(ctx); err != nil && ctx.Err() == nil {
			m.Log.Error("count open sagas", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (m *Module) count(ctx context.Context) error {
	counts, err := countSagas(ctx, m.DB)
	if err != nil {
		return err
	}
	for _, c := range counts {
		m.Metrics.open.WithLabelValues(c.Saga).Set(float64(c.Open))
		m.Metrics.overdue.WithLabelValues(c.Saga).Set(c.Overdue)
		m.Metrics.attention.WithLabelValues(c.Saga).Set(float64(c.Attention))
	}
	return nil
}

type sagaCount struct {
	Saga            string
	Open, Attention int64
	Overdue         float64 // seconds
}

func countSagas(ctx context.Context, q pg.Queryer) (counts []sagaCount, err error) {
	err = q.Select(ctx, &counts, `
		SELECT 'checkout' AS saga, count(*) AS open, count(*) FILTER (WHERE attention) AS attention,
			greatest(extract(epoch FROM now() - min(next_at)), 0)::double precision AS overdue
		FROM orders.checkouts WHERE next_at IS NOT NULL
		UNION ALL
		SELECT 'cancellation', count(*), count(*) FILTER (WHERE attention),
			greatest(extract(epoch FROM now() - min(next_at)), 0)::double precision
		FROM orders.cancellations WHERE next_at IS NOT NULL`)
	if err != nil {
		return nil, fmt.Errorf("count open sagas: %w", err)
	}
	return counts, nil
}
