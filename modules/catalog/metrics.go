package catalog

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are what an operator watches of the stock.
type metrics struct {
	mismatches, checked prometheus.Gauge
}

// newMetrics registers with r; a nil r counts for nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		mismatches: f.NewGauge(prometheus.GaugeOpts{
			Name: "banyan_catalog_stock_mismatches", Help: "Stock levels that did not add up to their ledger when last checked.",
		}),
		checked: f.NewGauge(prometheus.GaugeOpts{
			Name: "banyan_catalog_stock_checked_timestamp_seconds", Help: "When the stock was last added up, in Unix time; 0 before the first time.",
		}),
	}
}
