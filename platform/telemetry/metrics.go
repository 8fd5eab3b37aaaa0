package telemetry

import (
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Buckets of durations in seconds: 0.5 ms to 16 s, doubling.
var buckets = prometheus.ExponentialBuckets(0.0005, 2, 16)

// RED answers three questions of what serves requests: how many, how many failed and how, and how long they took.
type RED struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

// NewRED registers banyan_<subsystem>_total{…, outcome} and banyan_<subsystem>_seconds{…} with r; a nil r counts for nobody.
// Labels must have few values: a route's pattern, never its path.
func NewRED(r prometheus.Registerer, subsystem, what string, labels ...string) *RED {
	f := promauto.With(r)
	return &RED{
		total: f.NewCounterVec(prometheus.CounterOpts{
			Namespace: "banyan", Subsystem: subsystem, Name: "total", Help: what + ", by outcome.",
		}, append(labels[:len(labels):len(labels)], "outcome")),
		seconds: f.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "banyan", Subsystem: subsystem, Name: "seconds", Help: "Duration of " + what + ".", Buckets: buckets,
		}, labels),
	}
}

// Observe counts one request. outcome is a small set such as ok, or the kind of an error.
func (m *RED) Observe(took time.Duration, outcome string, labels ...string) {
	m.seconds.WithLabelValues(labels...).Observe(took.Seconds())
	m.total.WithLabelValues(append(labels[:len(labels):len(labels)], outcome)...).Inc()
}

// OpsListen is the default address of the operators' listener. It is on the loopback because pprof shows memory.
const OpsListen = "127.0.0.1:8082"

// Ops is the operators' listener: /metrics and /debug/pprof/. The host may mount more on it.
func (t *Telemetry) Ops() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(t.Metrics, promhttp.HandlerOpts{Registry: t.Metrics, ErrorHandling: promhttp.ContinueOnError}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
