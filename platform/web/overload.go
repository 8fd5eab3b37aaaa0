package web

import (
	"net/http"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Overload says when requests are turned away because there is more to do than can be done.
//
// What tells is how long requests have waited in queues of ours: for a connection to a database, here and in every process that was
// called, and for a processor. That some route takes long because somebody else is slow, is no reason to turn anybody away.
//
// Each route has a limit of requests inside. By Little's law these are its answers a second times how long one takes, so a limit of
// answers × (time without waiting + Delay) lets them wait for Delay. Sheddable routes may wait for 60 % of it, Normal ones for 80 %:
// as the wait grows, their limits fall first, and Critical ones have what is left. Nobody queues at the door.
type Overload struct {
	// Delay is how long the requests of a route may wait, on average; 100 ms is a good one. 0 turns nobody away.
	Delay time.Duration
	// Max is the most requests at once of the modules that run here, and of each module elsewhere, so that a slow one holds up nobody
	// else; and the most that wait in long polls and streams. Sheddable routes may use 60 % of it, Normal ones 80 %. Default 4096.
	Max int
	// Queued, if set, is how long whatever wants to run in this process waits for a processor. It must be cheap.
	Queued func() time.Duration
}

func (o Overload) most() int {
	if o.Max > 0 {
		return o.Max
	}
	return mostInside
}

const (
	mostInside = 4096
	firstLimit = 64
	opinion    = 4               // answers that make one
	longest    = 5 * time.Second // in which they must come
	turns      = 8               // times that a request comes to run, about
)

// leastLimits are of each criticality: a few are no crowd, and somebody must tell how things are.
var leastLimits = [...]float64{Normal: 2, Sheddable: 1, Critical: 4}

// group is the requests of one module elsewhere, or of all that run here. Long polls and streams mostly wait, and are counted by
// themselves.
type group struct{ inside, waiting places }

func newGroup(o Overload) *group { return &group{places{most: o.most()}, places{most: o.most()}} }

type places struct {
	most int

	mu    sync.Mutex
	taken int
}

// take takes a place if fewer than this share of all are taken.
func (p *places) take(share float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if float64(p.taken) >= share*float64(p.most) {
		return false
	}
	p.taken++
	return true
}

func (p *places) give() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
}

// pace is how many requests of a route may be inside, and what is known of them.
type pace struct {
	delay time.Duration // how long they may wait

	mu     sync.Mutex
	inside int
	limit  float64 // from least to max
	least  float64
	max    float64
	cut    time.Time // when the limit was last made smaller: answers to those who came before say nothing of it

	// The window, after which the limit is looked at again.
	began        time.Time
	answers      int
	took, waited time.Duration // of all answers together
	most         int           // that were inside
	full         bool          // somebody was turned away, or nearly
}

func newPace(o Overload, c Criticality) *pace {
	return &pace{delay: time.Duration(c.Share() * float64(o.Delay)), limit: min(firstLimit, float64(o.most())), least: leastLimits[c], max: float64(o.most())}
}

func (p *pace) enter(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.look(now)
	if float64(p.inside) >= p.limit {
		p.full = true
		return false
	}
	p.inside++
	p.most = max(p.most, p.inside)
	p.full = p.full || float64(p.inside) > 0.8*p.limit
	return true
}

// leave lets a request out that waited for so long. It tells something if it was served.
func (p *pace) leave(entered, now time.Time, waited time.Duration, served bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inside--
	if served && !entered.Before(p.cut) {
		p.answers++
		p.took += now.Sub(entered)
		p.waited += min(waited, now.Sub(entered))
	}
	p.look(now)
}

// look looks at the last window when it is over.
func (p *pace) look(now time.Time) {
	if p.began.IsZero() {
		p.began = now
	}
	age := now.Sub(p.began)
	if age < p.delay || p.answers < opinion && age < longest {
		return
	}
	n := time.Duration(p.answers)
	switch {
	case n >= opinion && p.waited > n*p.delay:
		p.limit = max(p.least, min(p.limit, float64(p.most))*float64(p.took-p.waited+n*p.delay)/float64(p.took))
		p.cut = now
	case p.full && n > 0: // the faster, the less they waited
		p.limit = min(p.max, p.limit*(1.25-0.25*float64(min(p.waited, n*p.delay))/float64(n*p.delay)))
	case !p.full && p.limit < firstLimit:
		p.limit = min(firstLimit, p.max, p.limit*1.25)
	}
	p.began, p.answers, p.took, p.waited, p.most, p.full = now, 0, 0, 0, p.inside, false
}

// enter lets the request in and returns what lets it out; false when it has been turned away.
func (x *exchange) enter() (leave func(), ok bool) {
	g, p := x.served.group, x.served.pace
	if g == nil {
		return func() {}, true
	}
	if x.route.LongPoll || x.route.Stream {
		if !g.waiting.take(1) {
			x.fail(errs.Overloaded())
			return nil, false
		}
		return g.waiting.give, true
	}
	entered := time.Now()
	if !p.enter(entered) {
		x.fail(errs.Overloaded())
		return nil, false
	}
	if !g.inside.take(x.route.Criticality.Share()) {
		p.leave(entered, entered, 0, false)
		x.fail(errs.Overloaded())
		return nil, false
	}
	return func() {
		g.inside.give()
		waited := x.urgent.Waited()
		if queued := x.server.config.Overload.Queued; queued != nil {
			waited += turns * queued()
		}
		p.leave(entered, time.Now(), waited, !x.abandoned && x.c.Response().Status != http.StatusServiceUnavailable)
	}, true
}
