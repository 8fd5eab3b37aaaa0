package discovery

import "github.com/prometheus/client_golang/prometheus"

var _ prometheus.Collector = (*Target)(nil)

type descs struct {
	instances, requests, failures, inFlight, ejections, lookups, lookupFailures, age *prometheus.Desc
}

// descs carry the target as a constant, so that each Target registers by itself.
func (t *Target) descs() descs {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("banyan_discovery_"+name, help, labels, prometheus.Labels{"target": t.o.Name})
	}
	return descs{
		instances:      desc("instances", "Instances known, by state: ok, draining, ejected.", "state"),
		requests:       desc("requests_total", "Requests sent to an instance.", "instance"),
		failures:       desc("failures_total", "Requests to an instance that it answered with 5xx, or that broke off.", "instance"),
		inFlight:       desc("in_flight", "Requests at an instance now.", "instance"),
		ejections:      desc("ejections_total", "Times that an instance was left out because it kept failing."),
		lookups:        desc("lookups_total", "Times that instances were looked up."),
		lookupFailures: desc("lookup_failures_total", "Look-ups that failed or found nothing, so that the last known instances stay."),
		age:            desc("lookup_age_seconds", "Time since the instances were last looked up with success; not shown for static ones."),
	}
}

func (t *Target) Describe(ch chan<- *prometheus.Desc) {
	d := t.descs()
	for _, d := range []*prometheus.Desc{d.instances, d.requests, d.failures, d.inFlight, d.ejections, d.lookups, d.lookupFailures, d.age} {
		ch <- d
	}
}

func (t *Target) Collect(ch chan<- prometheus.Metric) {
	d := t.descs()
	show := func(desc *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(desc, kind, v, labels...)
	}
	states := map[State]int{}
	for _, i := range t.Instances() {
		states[i.State]++
		show(d.requests, prometheus.CounterValue, float64(i.Requests), i.Address)
		show(d.failures, prometheus.CounterValue, float64(i.Failures), i.Address)
		show(d.inFlight, prometheus.GaugeValue, float64(i.InFlight), i.Address)
	}
	for _, s := range []State{StateOK, StateDraining, StateEjected} {
		show(d.instances, prometheus.GaugeValue, float64(states[s]), string(s))
	}
	show(d.ejections, prometheus.CounterValue, float64(t.ejections.Load()))
	if t.source == nil {
		return
	}
	show(d.lookups, prometheus.CounterValue, float64(t.lookups.Load()))
	show(d.lookupFailures, prometheus.CounterValue, float64(t.lookupFailures.Load()))
	if at, _ := t.LastLookup(); !at.IsZero() {
		show(d.age, prometheus.GaugeValue, t.o.Now().Sub(at).Seconds())
	}
}
