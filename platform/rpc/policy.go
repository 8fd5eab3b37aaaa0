package rpc

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"

	"github.com/banyan-shop/banyan/platform/urgency"
)

// Policy bounds what the calls of this process may do to a callee elsewhere, and what a failing callee may do to this process.
// All callers of a callee share its bounds. The zero value has the defaults.
type Policy struct {
	// Concurrent is how many calls may be under way at one callee; more are refused at once with bulkhead_full. 0 is 256.
	Concurrent int
	// Failing is the share of failing tries, of at least 20 within 10 s, that opens a callee's breaker. 0 is 0.5.
	Failing float64
	// Pause is how long an open breaker refuses every call before it lets three of them try. 0 is 1 s.
	Pause time.Duration
	// Retries is how many retries there may be for each call of the last 10 s. 0 is 0.1, below 0 is none.
	Retries float64
}

func (p Policy) orDefaults() Policy {
	return Policy{cmp.Or(p.Concurrent, 256), cmp.Or(p.Failing, 0.5), cmp.Or(p.Pause, time.Second), cmp.Or(p.Retries, 0.1)}
}

const (
	window     = 10 * time.Second
	probes     = 3 // of a half-open breaker: all must succeed
	maxRetries = 2
	firstPause = 10 * time.Millisecond // before the first retry; doubled for the second, a half more or less
)

// guard is what a process knows of a callee's health, and what it therefore allows. Its policies are built once and asked one by
// one: failsafe's executor would cost a call five allocations to say the same.
type guard struct {
	policy   Policy
	breaker  circuitbreaker.CircuitBreaker[any]
	budget   budget
	overload urgency.Throttle

	calls, failures, retries, opens, full, spared, open, inFlight atomic.Int64
}

func newGuard(p Policy, changed func(from, to string)) *guard {
	p = p.orDefaults()
	g := &guard{policy: p, budget: budget{share: p.Retries, start: time.Now()}}
	g.breaker = circuitbreaker.NewBuilder[any]().
		WithFailureRateThreshold(p.Failing, 20, window).
		WithDelay(p.Pause).
		WithSuccessThreshold(probes).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			if e.NewState == circuitbreaker.OpenState {
				g.opens.Add(1)
			}
			changed(e.OldState.String(), e.NewState.String())
		}).
		Build()
	return g
}

// enter takes a place among the calls under way, for as long as the call lasts, its retries included. The bulkhead is a counter,
// so that the number under way can be read.
func (g *guard) enter() bool {
	if g.inFlight.Add(1) > int64(g.policy.Concurrent) {
		g.inFlight.Add(-1)
		g.full.Add(1)
		return false
	}
	g.calls.Add(1)
	g.budget.call()
	return true
}

func (g *guard) leave() { g.inFlight.Add(-1) }

// allow asks the breaker for one try. A try that was allowed is recorded.
func (g *guard) allow() bool {
	if g.breaker.TryAcquirePermit() {
		return true
	}
	g.open.Add(1)
	return false
}

// health is what a try tells of its callee.
type health int

const (
	well    health = iota // it answered, if only to say that the request is wrong
	sick                  // it did not answer, or said that it can't
	unclear               // its caller walked away, or left it no time
)

func (g *guard) record(h health) {
	switch {
	case h == well:
		g.breaker.RecordSuccess()
	case h == sick:
		g.failures.Add(1)
		g.breaker.RecordFailure()
	case g.breaker.IsHalfOpen():
		// A probe must be recorded or its permit is lost for ever. Having shown nothing, it sends the breaker back to wait.
		g.breaker.RecordFailure()
	}
}

// again waits before the n-th retry and says whether there may be one: the budget is spent before the wait, so that retries in
// backoff count.
func (g *guard) again(ctx context.Context, n int) bool {
	pause := time.Duration(float64(firstPause<<(n-1)) * (0.5 + rand.Float64()))
	if at, ok := ctx.Deadline(); n > maxRetries || ok && time.Until(at) <= pause || !g.budget.retry() {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		g.retries.Add(1)
		return true
	case <-ctx.Done():
		return false
	}
}

// budget lets retries be a share of the calls of the last ten seconds; one there may always be, so that a lone call has its
// second chance.
type budget struct {
	share float64
	start time.Time

	mu    sync.Mutex
	slots [int(window / time.Second)]slot
}

// slot counts one second.
type slot struct{ second, calls, retries int64 }

// at is the slot of this moment. b.mu is held.
func (b *budget) at() *slot {
	second := int64(time.Since(b.start) / time.Second)
	s := &b.slots[second%int64(len(b.slots))]
	if s.second != second {
		*s = slot{second: second}
	}
	return s
}

func (b *budget) call() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at().calls++
}

func (b *budget) retry() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.at()
	calls, retries := int64(0), int64(1)
	for _, s := range b.slots {
		if now.second-s.second < int64(len(b.slots)) {
			calls, retries = calls+s.calls, retries+s.retries
		}
	}
	if b.share < 0 || float64(retries) > max(1, b.share*float64(calls)) {
		return false
	}
	now.retries++
	return true
}
