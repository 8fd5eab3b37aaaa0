package rpc

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
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
	errs.CodeOverloaded, // of those unavailable, what is no failure but meant
}

// bounds of the duration buckets in seconds: a plain call takes microseconds, one with a database milliseconds.
var bounds = [...]float64{0.000_01, 0.000_1, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10}

func (s *stats) failed(err error) {
	kind := errs.KindOf(err)
	if errs.Has(err, errs.CodeOverloaded) {
		kind = errs.CodeOverloaded
	}
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

func (w *Wiring) gaveStale(caller, method string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stale[statsKey{caller: caller, method: method}]++
}

// RemoteStatus is what this process knows of a callee elsewhere, counted since it was placed there.
type RemoteStatus struct {
	Callee      string `json:"callee"`
	Base        string `json:"base"`
	Breaker     string `json:"breaker"`   // closed, half-open or open
	InFlight    int64  `json:"in_flight"` // calls under way
	Concurrent  int    `json:"concurrent"`
	Calls       int64  `json:"calls"`
	Failures    int64  `json:"failures"` // tries, retries included, that the breaker counts against the callee
	Retries     int64  `json:"retries"`
	Opens       int64  `json:"opens"`        // of the breaker
	CircuitOpen int64  `json:"circuit_open"` // tries the breaker refused
	Full        int64  `json:"full"`         // calls the bulkhead refused
	Spared      int64  `json:"spared"`       // calls it was not asked, having turned most away
}

// Remotes is the status of every callee elsewhere that somebody here calls, by name.
func (w *Wiring) Remotes() []RemoteStatus {
	w.mu.Lock()
	remotes := slices.Collect(maps.Values(w.remotes))
	w.mu.Unlock()
	list := make([]RemoteStatus, 0, len(remotes))
	for _, r := range remotes {
		list = append(list, RemoteStatus{
			Callee: r.callee, Base: r.base, Breaker: r.breaker.State().String(), InFlight: r.inFlight.Load(), Concurrent: r.policy.Concurrent,
			Calls: r.calls.Load(), Failures: r.failures.Load(), Retries: r.retries.Load(), Opens: r.opens.Load(),
			CircuitOpen: r.open.Load(), Full: r.full.Load(), Spared: r.spared.Load(),
		})
	}
	slices.SortFunc(list, func(a, b RemoteStatus) int { return cmp.Compare(a.Callee, b.Callee) })
	return list
}

// breakerStates are the values of banyan_rpc_breaker_state.
var breakerStates = map[string]float64{
	circuitbreaker.ClosedState.String(): 0, circuitbreaker.HalfOpenState.String(): 1, circuitbreaker.OpenState.String(): 2,
}

var remoteMetrics = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(RemoteStatus) float64
}{
	{remoteDesc("breaker_state", "A callee's breaker: 0 closed, 1 half-open, 2 open."), prometheus.GaugeValue, func(r RemoteStatus) float64 { return breakerStates[r.Breaker] }},
	{remoteDesc("breaker_opens_total", "How often a callee's breaker opened."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Opens) }},
	{remoteDesc("breaker_refused_total", "Tries that an open breaker refused."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.CircuitOpen) }},
	{remoteDesc("bulkhead_in_use", "Calls under way at a callee."), prometheus.GaugeValue, func(r RemoteStatus) float64 { return float64(r.InFlight) }},
	{remoteDesc("bulkhead_max", "Calls that may be under way at a callee."), prometheus.GaugeValue, func(r RemoteStatus) float64 { return float64(r.Concurrent) }},
	{remoteDesc("bulkhead_refused_total", "Calls that a full bulkhead refused."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Full) }},
	{remoteDesc("spared_total", "Calls that an overloaded callee was not asked, having turned most away."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Spared) }},
	{remoteDesc("remote_calls_total", "Calls to a callee elsewhere."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Calls) }},
	{remoteDesc("remote_failures_total", "Tries that a callee elsewhere did not answer, or said it could not."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Failures) }},
	{remoteDesc("retries_total", "Retries of calls to a callee elsewhere."), prometheus.CounterValue, func(r RemoteStatus) float64 { return float64(r.Retries) }},
}

func remoteDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("banyan_rpc_"+name, help, []string{"callee"}, nil)
}

var (
	labels       = []string{"caller", "method", "place"}
	callsDesc    = prometheus.NewDesc("banyan_rpc_calls_total", "Calls between modules.", labels, nil)
	failuresDesc = prometheus.NewDesc("banyan_rpc_failures_total", "Calls between modules that ended in an error, by its kind.", append(labels[:3:3], "kind"), nil)
	staleDesc    = prometheus.NewDesc("banyan_rpc_stale_total", "Old answers given in place of none.", labels[:2], nil)
	secondsDesc  = prometheus.NewDesc("banyan_rpc_seconds", "Duration of calls between modules; of local ones every sixteenth is measured.", labels, nil)
)

var _ prometheus.Collector = (*Wiring)(nil)

// Describe and Collect make a Wiring a prometheus.Collector.
func (w *Wiring) Describe(ch chan<- *prometheus.Desc) {
	ch <- callsDesc
	ch <- failuresDesc
	ch <- secondsDesc
	ch <- staleDesc
	for _, m := range remoteMetrics {
		ch <- m.desc
	}
}

func (w *Wiring) Collect(ch chan<- prometheus.Metric) {
	for _, r := range w.Remotes() {
		for _, m := range remoteMetrics {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(r), r.Callee)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, n := range w.stale {
		ch <- prometheus.MustNewConstMetric(staleDesc, prometheus.CounterValue, float64(n), key.caller, key.method)
	}
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
