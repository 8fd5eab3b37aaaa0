// Package urgency carries on whose behalf something is done: a request of a customer, how much it matters, when it came in, and whether
// anything has been done for it yet. Wherever work queues, the oldest request goes first: what has been begun is finished before
// anything new, so that a checkout of thirty statements waits about as long as a list of one. And where a queue is too long, only
// those are turned away for whom nothing has been done, what matters least first.
package urgency

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Criticality is how much a request matters when not all can be served.
type Criticality int

const (
	Normal    Criticality = iota
	Sheddable             // lists and search: the first to be turned away
	Critical              // checkout, payment, orders: the last
)

var (
	names  = [...]string{Normal: "normal", Sheddable: "sheddable", Critical: "critical"}
	shares = [...]float64{Normal: 0.8, Sheddable: 0.6, Critical: 1}
)

// String is the word that metrics and calls use.
func (c Criticality) String() string { return names[c] }

// Share is the part of a queue that requests of this criticality may fill.
func (c Criticality) Share() float64 { return shares[c] }

// Parse reads String's word.
func Parse(word string) (Criticality, bool) {
	for c, name := range names {
		if name == word {
			return Criticality(c), true
		}
	}
	return 0, false
}

// Request is one of a customer. What has none is work of the shop's own, which nobody turns away.
type Request struct {
	Criticality
	Came time.Time // zero: whatever is done for it is as old as its own wait, for one that lasts, such as a long poll

	begun atomic.Bool

	mu     sync.Mutex
	waited time.Duration
	until  time.Time // the end of the last wait
}

// Begin says that something has been done for the request, so that it is turned away no more. r may be nil.
func (r *Request) Begin() {
	if r != nil && !r.begun.Load() {
		r.begun.Store(true)
	}
}

// Begun says whether something has been done for the request.
func (r *Request) Begun() bool { return r.begun.Load() }

// Wait says that the request waited in a queue until now, for so long. Waits at the same time, of several that work for it at once,
// count once. r may be nil.
func (r *Request) Wait(now time.Time, d time.Duration) {
	if r == nil || d <= 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if since := now.Sub(r.until); since < d {
		d = max(0, since)
	}
	r.waited += d
	r.until = now
}

// Waited is how long the request has waited in queues, in this process and those that were called.
func (r *Request) Waited() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.waited
}

// Report tells who asked for something to be done for the request what came of it there: for how many milliseconds it waited, and
// whether it has begun; "" if there is nothing to tell.
func (r *Request) Report() string {
	if r == nil {
		return ""
	}
	ms := r.Waited().Milliseconds()
	switch {
	case r.Begun():
		return strconv.FormatInt(ms, 10) + begun
	case ms > 0:
		return strconv.FormatInt(ms, 10)
	}
	return ""
}

const begun = " begun"

// Learn reads the Report of somebody who has done something for the request just now. What can't be read is left out. r may be nil.
func (r *Request) Learn(report string, now time.Time) {
	text, done := strings.CutSuffix(report, begun)
	ms, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return
	}
	r.Wait(now, time.Duration(ms)*time.Millisecond)
	if done {
		r.Begin()
	}
}

// Key finds the *Request in a context. A context of one's own may answer to it.
type Key struct{}

// With says that what is done with ctx is done for r.
func With(ctx context.Context, r *Request) context.Context { return context.WithValue(ctx, Key{}, r) }

// Own says that what is done with ctx is the shop's own work, or that of many: nobody is to be turned away for one of them.
func Own(ctx context.Context) context.Context { return With(ctx, nil) }

// Of is the request that ctx is of, nil for work of the shop's own.
func Of(ctx context.Context) *Request {
	r, _ := ctx.Value(Key{}).(*Request)
	return r
}
