package events

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	relayed, refused, rewound, outcomes       *prometheus.CounterVec
	duration, lag                             *prometheus.HistogramVec
	unsent, oldest, retrying, parked, longest *prometheus.GaugeVec
	waitingBy, parkedBy                       *prometheus.GaugeVec
	connected                                 prometheus.Gauge
}

// newMetrics registers with r; a nil r counts for nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: "banyan", Subsystem: "events", Name: name, Help: help}, labels)
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return f.NewGaugeVec(prometheus.GaugeOpts{Namespace: "banyan", Subsystem: "events", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return f.NewHistogramVec(prometheus.HistogramOpts{Namespace: "banyan", Subsystem: "events", Name: name, Help: help, Buckets: buckets}, labels)
	}
	return &metrics{
		relayed:   counter("relayed_total", "Events of a module's outbox that the carrier took.", "module"),
		refused:   counter("publish_failures_total", "Tries at handing an event to the carrier that failed.", "module"),
		rewound:   counter("resent_total", "Events sent again because the broker may have forgotten them.", "module"),
		outcomes:  counter("deliveries_total", "Deliveries by what became of them: handled, duplicate, queued, failed, parked.", "module", "consumer", "outcome"),
		duration:  histogram("handle_seconds", "Time of a handler with its transaction.", prometheus.ExponentialBuckets(0.0005, 2, 15), "module", "consumer"),
		lag:       histogram("lag_seconds", "From the moment an event occurred to the commit of its effect.", prometheus.ExponentialBuckets(0.001, 2, 20), "module", "consumer"),
		connected: f.NewGauge(prometheus.GaugeOpts{Namespace: "banyan", Subsystem: "events", Name: "carrier_connected", Help: "1 while there is a connection to the broker; 0 without, and where events stay in the process."}),
		unsent:    gauge("outbox_unsent", "Events waiting in a module's outbox.", "module"),
		oldest:    gauge("outbox_oldest_seconds", "Age of the oldest event waiting in a module's outbox.", "module"),
		retrying:  gauge("retry_waiting", "Events waiting at a hearer, for another try or behind one that does.", "module"),
		parked:    gauge("retry_parked", "Events that a hearer gave up on and that wait for a person.", "module"),
		waitingBy: gauge("consumer_waiting", "Events waiting at one consumer, for another try or behind one that does.", "module", "consumer"),
		parkedBy:  gauge("consumer_parked", "Events that one consumer gave up on and that wait for a person.", "module", "consumer"),
		longest:   gauge("retry_oldest_seconds", "Age of the oldest event waiting or parked at a hearer.", "module"),
	}
}

// showConsumers sets the gauges of every consumer of a module, also of those that have nothing waiting.
func (m *metrics) showConsumers(module string, consumers []string, list []consumerBacklog) {
	for _, c := range consumers {
		b := consumerBacklog{}
		if i := slices.IndexFunc(list, func(b consumerBacklog) bool { return b.Consumer == c }); i >= 0 {
			b = list[i]
		}
		m.waitingBy.WithLabelValues(module, c).Set(float64(b.Waiting))
		m.parkedBy.WithLabelValues(module, c).Set(float64(b.Parked))
	}
}

func (m *metrics) show(module string, b Backlog) {
	m.unsent.WithLabelValues(module).Set(float64(b.Unsent))
	m.oldest.WithLabelValues(module).Set(b.OldestUnsent.Seconds())
	m.retrying.WithLabelValues(module).Set(float64(b.Waiting))
	m.parked.WithLabelValues(module).Set(float64(b.Parked))
	m.longest.WithLabelValues(module).Set(b.OldestWaiting.Seconds())
}
