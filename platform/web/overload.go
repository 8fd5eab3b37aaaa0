package web

import (
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Overload says when requests are turned away because there is more to do than can be done. What runs in this process is
// one group, each module elsewhere another, so that a slow module holds up nobody else.
//
// By Little's law the requests inside a group are its answers a second times how long one takes. Those that would be inside
// if all took their usual time are always let in; beyond them only as many as can wait for Delay. Nobody queues at the
// door. Sheddable routes may use 60 % of that room, Normal ones 80 %, and the rest is kept for Critical ones. Long polls and
// streams are not counted, since they mostly wait. A route that is late while the rest of its group is not, such as a
// checkout whose provider of payments has become slow, is set apart until that is over: at most 256 of it may be inside.
type Overload struct {
	// Delay is how much later than usual answers may come; 100 ms is a good one. 0 turns nobody away.
	Delay time.Duration
	// Max is the most requests of a group at once, and the most that wait in long polls and streams; default 4096.
	Max int
}

// shares are the parts of the room that each criticality may use.
var shares = [...]float64{Normal: 0.8, Sheddable: 0.6, Critical: 1}

const (
	leastRoom  = 8
	firstRoom  = 64
	mostInside = 4096
	mostAlone  = 256              // requests of a route that is late by itself
	busy       = 100              // answers a second below which a few late ones of a route say little
	opinion    = 8                // answers that make one
	relearning = 32               // answers that are believed when what is usual has to be learnt again
	patience   = 10 * time.Second // for which they may come as they come then
)

// load is the state of one group. Times are in seconds.
type load struct {
	delay float64 // Overload.Delay
	most  int

	mu      sync.Mutex
	inside  int
	waiting int

	routes  []*pace
	natural float64 // requests inside if all took their usual time
	room    float64 // how many more there may be
	rate    float64 // answers a second
	late    float64 // how much later than usual about the fastest tenth of the answers come: what all have in common

	// The window, of a few Delays, after which these are looked at again.
	began   time.Time
	answers int
	usual   float64 // of all answers together
	full    bool    // somebody was turned away, or half of the room was used

	// What became of those let in since the room was last made smaller.
	cut              time.Time
	fresh, freshLate int
	relearn          int       // answers yet to be believed
	patient          time.Time // until when nothing is made of late answers
}

// pace is how fast a route answers when nobody is in its way. The group's mutex guards it.
type pace struct {
	usual  float64 // about the fastest fifth of its answers
	late   float64 // how much later than that the newest came
	at     time.Time
	odd    int  // answers in a row that speak against where the route is
	alone  bool // it is late by itself, so that its requests are not among those of the group
	inside int  // its requests while it is alone
}

func newLoad(o Overload) *load {
	l := &load{delay: o.Delay.Seconds(), most: o.Max}
	if l.most <= 0 {
		l.most = mostInside
	}
	l.room = min(firstRoom, float64(l.most))
	return l
}

// enter lets a request in, or says that there is no room. Whether it is one of a route that is alone is for leave.
func (l *load) enter(p *pace, c Criticality, now time.Time) (ok, alone bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.alone {
		if p.inside >= min(mostAlone, l.most) {
			return false, true
		}
		p.inside++
		return true, true
	}
	l.reflect(now)
	beyond := float64(l.inside) - l.natural
	if beyond >= l.room*shares[c] || l.inside >= l.most {
		l.full = true
		return false, false
	}
	l.inside++
	l.full = l.full || beyond > l.room/2
	return true, false
}

// leave lets a request out. Only good answers say how fast the group is: refusals are quick however busy it may be.
func (l *load) leave(p *pace, alone bool, entered, now time.Time, good bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if alone {
		p.inside--
	} else {
		l.inside--
	}
	l.reflect(now)
	if !good {
		return
	}
	took := now.Sub(entered).Seconds()
	if p.usual == 0 {
		p.usual = took
	}
	late := max(0, took-p.usual)
	l.part(p, late, now)
	if alone || p.alone {
		return
	}
	switch {
	case l.relearn > 0:
		l.relearn--
		p.usual += (took - p.usual) / 2
	case took < p.usual:
		p.usual += (took - p.usual) / 8
	case !l.full: // a queue of ours must not become what is usual
		p.usual += late / 64
	}
	if late < l.late {
		l.late += (late - l.late) / 4
	} else {
		l.late += (late - l.late) / 64
	}
	if !entered.Before(l.cut) {
		l.fresh++
		if late > 4*l.delay {
			l.freshLate++
		}
	}
	l.answers++
	l.usual += p.usual
}

// part sets a route apart that is late while another is not, and takes it back when it no longer is.
func (l *load) part(p *pace, late float64, now time.Time) {
	p.late += (late - p.late) / 8
	p.at = now
	if p.alone && late < l.delay/2 || !p.alone && late > 2*l.delay {
		p.odd++
	} else {
		p.odd = 0
	}
	if p.odd < 2*opinion || l.rate < busy && !p.alone {
		return
	}
	p.odd = 0
	if p.alone {
		p.alone = false
		return
	}
	for _, other := range l.routes {
		p.alone = p.alone || other != p && !other.alone && now.Sub(other.at) < time.Second && 2*other.late+l.delay/2 < p.late
	}
}

// reflect looks at the last window when it is over.
func (l *load) reflect(now time.Time) {
	if l.began.IsZero() {
		l.began = now
	}
	age := now.Sub(l.began).Seconds()
	if age < 2*l.delay || l.answers < opinion && age < 1 {
		return
	}
	l.rate += (float64(l.answers)/age - l.rate) / 2
	if l.answers > 0 {
		l.natural += (l.rate*l.usual/float64(l.answers) - l.natural) / 2
	}
	switch {
	case !l.full:
		if l.room > firstRoom {
			l.room *= 0.98
		}
	case now.Before(l.patient):
		l.room = min(float64(l.most), l.room*1.25)
	case l.late > l.delay:
		if room := max(leastRoom, l.rate*l.delay); room < 0.9*l.room {
			l.room, l.cut, l.fresh, l.freshLate = room, now, 0, 0
		}
	case l.late < l.delay/2:
		l.room = min(float64(l.most), l.room*1.25)
	}
	// When even those are late who found little before them, that is no queue of ours: it is how fast things are now.
	if l.full && l.fresh >= opinion && l.freshLate*2 > l.fresh && now.After(l.patient) {
		l.relearn, l.patient, l.late = relearning, now.Add(patience), 0
	}
	l.began, l.answers, l.usual, l.full = now, 0, 0, false
}

// wait takes one of the places of those that wait.
func (l *load) wait() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.waiting >= l.most {
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

// shed turns the request away.
func (x *exchange) shed() {
	if x.server.config.Shed != nil {
		x.server.config.Shed(x.route.Criticality)
	}
	x.fail(errOverloaded)
}

// enter lets the request into its group and returns what lets it out; false when it has been turned away.
func (x *exchange) enter() (leave func(), ok bool) {
	l, rt := x.served.load, x.route
	if l == nil {
		return func() {}, true
	}
	if rt.LongPoll || rt.Stream {
		if !l.wait() {
			x.shed()
			return nil, false
		}
		return l.endWait, true
	}
	entered := time.Now()
	ok, alone := l.enter(&x.served.pace, rt.Criticality, entered)
	if !ok {
		x.shed()
		return nil, false
	}
	return func() {
		l.leave(&x.served.pace, alone, entered, time.Now(), !x.abandoned && x.c.Response().Status < 400)
	}, true
}
