package host

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/pg"
)

// pools tells of every module's pool when asked, so that no statement pays for a counter of its own.
type pools map[string]*pg.DB

var (
	queriesDesc      = prometheus.NewDesc("banyan_pg_queries_total", "Round trips to PostgreSQL: statements, BEGIN, COMMIT, and PREPARE on new connections.", []string{"module"}, nil)
	transactionsDesc = prometheus.NewDesc("banyan_pg_transactions_total", "Write transactions begun.", []string{"module"}, nil)
	connectionsDesc  = prometheus.NewDesc("banyan_pg_connections", "Connections of the pool by state.", []string{"module", "state"}, nil)
	waitsDesc        = prometheus.NewDesc("banyan_pg_waits_total", "Times that no connection was free.", []string{"module"}, nil)
	waitSecondsDesc  = prometheus.NewDesc("banyan_pg_wait_seconds_total", "Time spent waiting for a free connection.", []string{"module"}, nil)
)

// Describe and Collect make pools a prometheus.Collector.
func (p pools) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queriesDesc, transactionsDesc, connectionsDesc, waitsDesc, waitSecondsDesc} {
		ch <- d
	}
}

// Collect reads the pools' own counters.
func (p pools) Collect(ch chan<- prometheus.Metric) {
	for module, db := range p {
		send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{module}, labels...)...)
		}
		queries, transactions := db.Counts()
		stats := db.Stats()
		send(queriesDesc, prometheus.CounterValue, float64(queries))
		send(transactionsDesc, prometheus.CounterValue, float64(transactions))
		send(connectionsDesc, prometheus.GaugeValue, float64(stats.InUse), "busy")
		send(connectionsDesc, prometheus.GaugeValue, float64(stats.Idle), "idle")
		send(waitsDesc, prometheus.CounterValue, float64(stats.WaitCount))
		send(waitSecondsDesc, prometheus.CounterValue, stats.WaitDuration.Seconds())
	}
}

// readyGauge tells what /readyz does, so that a process which is up but takes no traffic is seen.
func (h *Host) readyGauge() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "banyan_ready", Help: "1 while /readyz says that traffic is welcome, else 0.",
	}, func() float64 {
		if h.unready(context.Background()) != nil {
			return 0
		}
		return 1
	})
}
