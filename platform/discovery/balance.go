package discovery

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

// Outlier ejection as Envoy's defaults have it, but for the share of instances: of two, one may go.
const (
	ejectAfter  = 5               // failures without a success between them
	ejectMost   = 5 * time.Minute // the longest pause
	ejectForget = 5 * time.Minute // of good behaviour, and the first pause is short again

	// redial is the first pause of an instance that refuses connections. To try it costs next to nothing, since the request goes on to
	// another, and it mostly is one that is being restarted: left out for long, it would not be there when the next one stops.
	redial = time.Second
)

// Latency is averaged over about a second, and forgotten over ten without requests, so that a slow instance gets its chance
// again. Means under latencyFloor count as equal: that fast nobody is sick, and the load alone decides.
const (
	latencyOver   = float64(time.Second)
	latencyForget = float64(10 * time.Second)
	latencyFloor  = float64(5 * time.Millisecond)
)

// instance is one that is known now. A vanished one that comes back is new.
type instance struct {
	endpoint  // priority and weight change under Target.mu, and are read there alone
	transport interface {
		http.RoundTripper
		CloseIdleConnections()
	}

	inFlight, requests, failed atomic.Int64
	failures                   atomic.Int32 // since the last success
	latency, measured          atomic.Int64 // mean in ns, and the clock of its last sample; 0: none yet
	trying                     atomic.Bool  // one request tests whether an ejected instance is well
	aside                      atomic.Bool  // it drains or is ejected
	drains                     atomic.Int64 // clock until which it is left alone, 0: it does not drain

	// Guarded by Target.mu.
	marked    int64 // clock of the last answer that said so
	ejected   bool
	since     int64 // clock of the ejection
	until     int64 // and of the pause's end
	ejections int   // in a row
	reason    string
	gone      bool
}

// picks is what a request chooses from. It never changes; a new one takes its place.
type picks struct {
	all    []*instance // best first
	top    int         // so many at the front are equally good
	shares []share     // of those; nil when their weights are equal
	trials []*instance // whose pause is over: one request tests each
	until  int64       // clock at which a state ends and this is out of date
	none   error       // why all is empty
}

// share of new requests of an instance with a weight.
type share struct {
	upTo  float64 // running sum, ends at 1
	scale float64 // mean weight over this one: in flight it counts so much
}

// rank orders instances: good ones by priority, then those that drain, for they still serve, then those that fail.
func (in *instance) rank() int {
	switch {
	case in.ejected:
		return 1 << 21
	case in.drains.Load() != 0:
		return 1<<20 + in.priority
	}
	return in.priority // 16 bits
}

// renew makes picks of the instances as of now. Callers without t.mu use renew, the others renewLocked.
func (t *Target) renew(now int64) *picks {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.picks.Load(); now < p.until {
		return p // another request was first
	}
	return t.renewLocked(now)
}

func (t *Target) renewLocked(now int64) *picks {
	if len(t.instances) == 0 {
		return t.picks.Load()
	}
	p := &picks{all: slices.Clone(t.instances), until: math.MaxInt64}
	for _, in := range p.all {
		if d := in.drains.Load(); d != 0 && now >= d {
			in.drains.Store(0)
		} else if d != 0 {
			p.until = min(p.until, d)
		}
		in.aside.Store(in.ejected || in.drains.Load() != 0)
		if in.ejected && now >= in.until {
			p.trials = append(p.trials, in)
		} else if in.ejected {
			p.until = min(p.until, in.until)
		}
	}
	slices.SortStableFunc(p.all, func(a, b *instance) int { return a.rank() - b.rank() })
	best := p.all[0].rank()
	sum, equal := 0, true
	for _, in := range p.all {
		if in.rank() != best {
			break
		}
		p.top++
		sum += in.weight
		equal = equal && in.weight == p.all[0].weight
	}
	if !equal {
		upTo := 0
		for _, in := range p.all[:p.top] {
			upTo += in.weight
			p.shares = append(p.shares, share{float64(upTo) / float64(sum), float64(sum) / float64(p.top*in.weight)})
		}
	}
	return t.publish(p)
}

func (t *Target) publish(p *picks) *picks {
	t.picks.Store(p)
	return p
}

// pick draws two instances by r and takes the one with less to do, or one that needs a trial.
func (p *picks) pick(r uint64, now int64) (in *instance, trial bool) {
	for _, in := range p.trials {
		if !in.trying.Load() && in.trying.CompareAndSwap(false, true) {
			return in, true
		}
	}
	if p.top == 1 {
		return p.all[0], false
	}
	a, b := p.draw(r)
	if p.busier(a, b, now) {
		a = b
	}
	return p.all[a], false
}

// draw is two different places among the first top, the first by weight.
func (p *picks) draw(r uint64) (a, b int) {
	n, low, high := uint64(p.top), r&math.MaxUint32, r>>32
	b = int(high * (n - 1) >> 32)
	if p.shares == nil {
		a = int(low * n >> 32)
	} else {
		x := float64(low) / (1 << 32)
		for a < p.top-1 && x >= p.shares[a].upTo {
			a++
		}
	}
	if b >= a {
		b++
	}
	return a, b
}

// busier says that a request at place i would wait longer than at j.
func (p *picks) busier(i, j int, now int64) bool {
	a, b := p.load(i), p.load(j)
	// Of one that has not answered yet the load is all we know: it may be fast, or never answer.
	if p.all[i].measured.Load() != 0 && p.all[j].measured.Load() != 0 {
		a, b = a*p.all[i].mean(now), b*p.all[j].mean(now)
	}
	return a > b
}

// load is the requests at place i with one more, relative to its share.
func (p *picks) load(i int) float64 {
	n := float64(p.all[i].inFlight.Load())
	if p.shares != nil {
		n *= p.shares[i].scale
	}
	return n + 1
}

// mean is the latency that is to be expected, in ns, latencyFloor or more.
func (in *instance) mean(now int64) float64 {
	l := float64(in.latency.Load())
	if l <= latencyFloor {
		return latencyFloor
	}
	return max(l*math.Exp(-float64(now-in.measured.Load())/latencyForget), latencyFloor)
}

// took adds a sample to the mean. Samples that come together may overwrite each other: it is an estimate.
func (in *instance) took(sample, now int64) {
	old := in.latency.Load()
	if sample <= int64(latencyFloor) && old <= int64(latencyFloor) {
		if in.measured.Load() == 0 {
			in.measured.Store(max(now, 1))
		}
		return
	}
	keep := math.Exp(-float64(now-in.measured.Load()) / latencyOver)
	if old == 0 {
		keep = 0
	}
	in.measured.Store(max(now, 1))
	in.latency.Store(int64(float64(old)*keep + float64(sample)*(1-keep)))
}

// next is another instance than those tried, the best that is left; nil when none is.
func (p *picks) next(r uint64, tried []*instance) *instance {
	from := int(r % uint64(p.top))
	for i := range p.all {
		if i < p.top {
			i = (from + i) % p.top
		}
		if in := p.all[i]; !slices.Contains(tried, in) {
			return in
		}
	}
	return nil
}

// settle learns from how a request went.
func (t *Target) settle(in *instance, start int64, trial bool, ctx context.Context, res *http.Response, err error) {
	if trial {
		defer in.trying.Store(false)
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the caller walked away, which tells nothing
	}
	now := t.clock()
	marked := res != nil && len(res.Header[drainingHeader]) > 0
	if marked {
		res.Header.Del(drainingHeader) // it was meant for us: what our caller passes on must not seem to drain
		t.drain(in, now)
	}
	if err == nil && res.StatusCode < http.StatusInternalServerError {
		if in.failures.Load() != 0 {
			in.failures.Store(0)
		}
		in.took(now-start, now)
		if in.aside.Load() && !marked {
			t.restore(in, start)
		}
		return
	}
	if reachedNobody(err) {
		t.lookSoon()
	}
	if in.drains.Load() != 0 && !trial {
		return // it stops, as it said
	}
	in.failed.Add(1)
	in.took(max(now-start, in.latency.Load()), now) // failing fast is no merit
	if in.failures.Add(1) < ejectAfter && !trial {
		return
	}
	switch {
	case reachedNobody(err):
		t.eject(in, min(redial, t.o.Eject), t.o.Eject, err.Error())
	case err != nil:
		t.eject(in, t.o.Eject, max(ejectMost, t.o.Eject), err.Error())
	default:
		t.eject(in, t.o.Eject, max(ejectMost, t.o.Eject), fmt.Sprintf("answered %d", res.StatusCode))
	}
}

// drain leaves an instance alone for a while, since it said that it is about to stop. Its idle connections go, so that none is
// there to be written on when the instance closes it; those in use go when their requests end.
func (t *Target) drain(in *instance, now int64) {
	t.mu.Lock()
	in.marked = now
	if in.drains.Swap(now+int64(t.o.Avoid)) == 0 && !in.gone {
		t.o.Log.Info("instance drains", "target", t.o.Name, "instance", in.address)
		t.renewLocked(now)
	}
	t.mu.Unlock()
	in.transport.CloseIdleConnections()
}

// restore ends draining and ejection of an instance that answered well a request begun after.
func (t *Target) restore(in *instance, start int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := in.rank()
	if start > in.marked {
		in.drains.Store(0)
	}
	if in.ejected && start > in.since {
		in.ejected, in.reason = false, ""
		t.o.Log.Info("instance is well again", "target", t.o.Name, "instance", in.address)
	}
	if in.rank() != before && !in.gone {
		t.renewLocked(t.clock())
	}
}

// eject gives an instance no requests for a while, longer each time up to most, unless half of all are out already.
func (t *Target) eject(in *instance, first, most time.Duration, why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	if in.ejected && now < in.until || in.gone {
		return
	}
	if !in.ejected { // else a trial failed
		out := 1
		for _, other := range t.instances {
			if other.ejected {
				out++
			}
		}
		if 2*out > len(t.instances) {
			return
		}
		if now-in.until > int64(ejectForget) {
			in.ejections = 0
		}
	}
	in.ejections++
	pause := min(first*time.Duration(in.ejections), most)
	in.ejected, in.since, in.until, in.reason = true, now, now+int64(pause), why
	in.failures.Store(0)
	t.ejections.Add(1)
	t.o.Log.Warn("instance is left out", "target", t.o.Name, "instance", in.address, "for", pause, "because", why)
	t.renewLocked(now)
	in.transport.CloseIdleConnections()
}

// State of an instance.
type State string

const (
	StateOK       State = "ok"
	StateDraining State = "draining"
	StateEjected  State = "ejected"
)

// Instance is what is known of one instance.
type Instance struct {
	Address  string        `json:"address"`
	State    State         `json:"state"`
	Until    time.Time     `json:"until,omitzero"`   // when it may be good again
	Reason   string        `json:"reason,omitempty"` // why it is not
	InFlight int64         `json:"in_flight"`
	Requests int64         `json:"requests"`
	Failures int64         `json:"failures"` // 5xx and connections that broke or did not come about
	Latency  time.Duration `json:"latency"`  // recent mean until the answer's header; 5 ms and less is not told apart
	Priority int           `json:"priority"`
	Weight   int           `json:"weight"`
}

// Instances are those known now, in the order of their addresses.
func (t *Target) Instances() []Instance {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock()
	list := make([]Instance, 0, len(t.instances))
	for _, in := range t.instances {
		i := Instance{
			Address: in.address, State: StateOK, InFlight: in.inFlight.Load(), Requests: in.requests.Load(), Failures: in.failed.Load(),
			Latency: time.Duration(in.mean(now)), Priority: in.priority, Weight: in.weight,
		}
		if d := in.drains.Load(); in.ejected {
			i.State, i.Until, i.Reason = StateEjected, t.at(in.until), in.reason
		} else if d > now {
			i.State, i.Until, i.Reason = StateDraining, t.at(d), "it is about to stop"
		}
		list = append(list, i)
	}
	return list
}
