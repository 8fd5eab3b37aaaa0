package rpc

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/errs"
)

type statsKey struct{ caller, method, place string }

// stats counts one caller's calls of one method with plain atomics: a labelled counter costs more than the call it counts.
type stats struct {
	calls    atomic.Int64
	failures [len(kinds)]atomic.Int64
	buckets  [len(bounds) + 1]atomic.Int64
	nanos    atomic.Int64
}

var kinds = [...]errs.Kind{
	errs.Malformed, errs.Unauthenticated, errs.Declined, errs.Forbidden, errs.NotFound, errs.Conflict, errs.PreconditionFailed, errs.TooLarge,
	errs.Invalid, errs.PreconditionRequired, errs.RateLimited, errs.Internal, errs.Unavailable, errs.NoAnswer,
}

// bounds of the duration buckets in seconds: a plain call takes microseconds, one with a database milliseconds.
var bounds = [...]float64{0.000_01, 0.000_1, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

func (s *stats) failed(err error) {
	kind := errs.KindOf(err)
	for i, k := range kinds {
		if k == kind {
			s.failures[i].Add(1)
			return
		}
	}
}

func (s *stats) observe(d time.Duration) {
	i, seconds := 0, d.Seconds()
	for i < len(bounds) && seconds > bounds[i] {
		i++
	}
	s.buckets[i].Add(1)
	s.nanos.Add(int64(d))
}

func (w *Wiring) stats(caller, method, place string) *stats {
	key := statsKey{caller, method, place}
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.counted[key]
	if !ok {
		s = &stats{}
		w.counted[key] = s
	}
	return s
}

var (
	labels       = []string{"caller", "method", "place"}
	callsDesc    = prometheus.NewDesc("banyan_rpc_calls_total", "Calls between modules.", labels, nil)
	failuresDesc = prometheus.NewDesc("banyan_rpc_failures_total", "Calls between modules that ended in an error, by its kind.", append(labels[:3:3], "kind"), nil)
	secondsDesc  = prometheus.NewDesc("banyan_rpc_seconds", "Duration of calls between modules; of local ones every sixteenth is measured.", labels, nil)
)

var _ prometheus.Collector = (*Wiring)(nil)

// Describe and Collect make a Wiring a prometheus.Collector.
func (w *Wiring) Describe(ch chan<- *prometheus.Desc) {
	ch <- callsDesc
	ch <- failuresDesc
	ch <- secondsDesc
}

func (w *Wiring) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, s := range w.counted {
		l := []string{key.caller, key.method, key.place}
		ch <- prometheus.MustNewConstMetric(callsDesc, prometheus.CounterValue, float64(s.calls.Load()), l...)
		for i := range kinds {
			if n := s.failures[i].Load(); n > 0 {
				ch <- prometheus.MustNewConstMetric(failuresDesc, prometheus.CounterValue, float64(n), append(l[:3:3], string(kinds[i]))...)
			}
		}
		buckets, sum := map[float64]uint64{}, uint64(0)
		for i, b := range bounds {
			sum += uint64(s.buckets[i].Load())
			buckets[b] = sum
		}
		sum += uint64(s.buckets[len(bounds)].Load())
		ch <- prometheus.MustNewConstHistogram(secondsDesc, sum, time.Duration(s.nanos.Load()).Seconds(), buckets, l...)
	}
}
