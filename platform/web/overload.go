package web

import (
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Overload says when requests are turned away because there is more to do than can be done. What runs in this process is
// one group, each module elsewhere another, so that a slow module holds up nobody else.
//
// A group lets in as many requests at once as it can while answers stay near their usual time: more while all goes well,
// fewer when most answers are late. Nobody queues. Sheddable routes may fill 60 % of the places, Normal ones 80 %, and the
// rest is kept for Critical ones. Long polls and streams take no place, since they mostly wait.
type Overload struct {
	// Delay is how much later than usual most answers may come; 100 ms is a good one. 0 turns nobody away.
	Delay time.Duration
	// Max is the most requests of a group at once, and the most that wait in long polls and streams; default 4096.
	Max int
}

// shares are the parts of the places that each criticality may fill.
var shares = [...]float64{Normal: 0.8, Sheddable: 0.6, Critical: 1}

const (
	fewestPlaces  = 8
	firstPlaces   = 256
	mostPlaces    = 4096
	fewestAnswers = 8                // answers that make an opinion
	probeEvery    = 10 * time.Second // how often a group that was full looks again what is usual
	longestProbe  = 3 * time.Second
)

// load is the state of one group.
type load struct {
	delay time.Duration
	most  float64

	mu      sync.Mutex
	places  float64 // how many requests may be inside
	inside  int
	waiting int

	began    time.Time // of the window
	judged   time.Time // answers to requests from before this one are not judged: they met other circumstances
	answers  int
	late     int
	full     bool // somebody was turned away in this window, or half of the places were taken
	wasFull  bool // the same, since the last probe
	probing  bool
	probedAt time.Time
}

// pace is how fast a route answers when nobody is in its way: about the fastest fifth of its answers. The group's mutex
// guards it.
type pace struct{ usual float64 }

func newLoad(o Overload) *load {
	most := float64(o.Max)
	if o.Max <= 0 {
		most = mostPlaces
	}
	return &load{delay: o.Delay, most: most, places: min(firstPlaces, most)}
}

// enter takes a place, or says that there is none.
func (l *load) enter(c Criticality, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reflect(now)
	places := l.places
	if l.probing {
		places = max(places/4, fewestPlaces/2)
	}
	if float64(l.inside) >= places*shares[c] {
		l.full = true
		return false
	}
	l.inside++
	l.full = l.full || float64(l.inside) > places/2
	return true
}

// leave gives the place back. Only good answers say how fast the group is: refusals are quick however busy it may be.
func (l *load) leave(p *pace, started, now time.Time, good bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inside--
	if good && !started.Before(l.judged) {
		took := float64(now.Sub(started))
		l.answers++
		if p.usual == 0 {
			p.usual = took
		}
		if took > p.usual+float64(l.delay) {
			l.late++
		}
		switch {
		case l.probing:
			p.usual += (took - p.usual) / 2
		case took < p.usual:
			p.usual += (took - p.usual) / 8
		case !l.full: // a queue of ours must not become what is usual
			p.usual += (took - p.usual) / 64
		}
	}
	l.reflect(now)
}

// reflect changes the number of places when enough has been seen.
func (l *load) reflect(now time.Time) {
	if l.began.IsZero() {
		l.began, l.probedAt = now, now
	}
	age := now.Sub(l.began)
	switch {
	case l.probing && l.answers < fewestAnswers && age < longestProbe:
		return
	case age < 2*l.delay, l.answers < fewestAnswers && age < time.Second:
		return
	}
	l.wasFull = l.wasFull || l.full
	switch {
	case l.probing:
		l.probing = false
		l.judged = now
	case !l.full:
	case l.answers > 0 && l.late*2 >= l.answers:
		l.places = max(fewestPlaces, l.places*0.8)
		l.judged = now
	case l.late*10 > l.answers:
		l.places = min(l.most, l.places*1.05)
	default:
		l.places = min(l.most, l.places*1.25)
	}
	// After a while of being full nobody knows any more what is usual, and a part of the shop that has become slow by
	// itself must not be taken for a queue: let few in for a moment and look.
	if now.Sub(l.probedAt) >= probeEvery {
		l.probing, l.wasFull, l.probedAt = l.wasFull, false, now
		if l.probing {
			l.judged = now
		}
	}
	l.began, l.answers, l.late, l.full = now, 0, 0, false
}

// wait takes one of the places of those that wait.
func (l *load) wait() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if float64(l.waiting) >= l.most {
		return false
	}
	l.waiting++
	return true
}

func (l *load) endWait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting--
}

var errOverloaded = errs.New(errs.Unavailable, "overloaded", "There is more to do than can be done.")

// enter gives the request a place in its group and returns what gives it back; false when it has been turned away.
func (x *exchange) enter() (leave func(), ok bool) {
	l, rt := x.served.load, x.route
	if l == nil {
		return func() {}, true
	}
	if rt.LongPoll || rt.Stream {
		if !l.wait() {
			x.fail(errOverloaded)
			return nil, false
		}
		return l.endWait, true
	}
	entered := time.Now()
	if !l.enter(rt.Criticality, entered) {
		x.fail(errOverloaded)
		return nil, false
	}
	return func() {
		l.leave(&x.served.pace, entered, time.Now(), !x.abandoned && x.c.Response().Status < 400)
	}, true
}
