package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// Conn leads from one module to another, wherever that one runs.
type Conn struct {
	caller, callee string
	wiring         *Wiring
	place          atomic.Pointer[place]
	bound          sync.Map // *Method → *binding of its types
}

// place is where a callee runs, as of one epoch. A flip stores a new place; calls under way end where they began.
type place struct {
	epoch  uint64
	local  *Server // nil: remote
	remote *remote // nil: local
}

// binding is a method resolved for one place, so that a call does one look-up.
type binding[Req, Res any] struct {
	method *Method[Req, Res]
	conn   *Conn
	place  *place
	stats  *stats
	local  func(context.Context, Req) (Res, error)
	remote *endpoint
}

func bind[Req, Res any](m *Method[Req, Res], c *Conn) (*binding[Req, Res], error) {
	if c == nil {
		return nil, notServed(m.name, "there is no connection")
	}
	p := c.place.Load()
	if known, ok := c.bound.Load(m); ok {
		if b := known.(*binding[Req, Res]); b.place == p {
			return b, nil
		}
	}
	if p == nil {
		return nil, notServed(m.name, "no process runs "+c.callee)
	}
	b := &binding[Req, Res]{method: m, conn: c, place: p}
	if p.local != nil {
		h, ok := p.local.handler(m.name)
		if !ok {
			return nil, notServed(m.name, c.callee+" does not answer it")
		}
		if b.local, ok = h.fn.(func(context.Context, Req) (Res, error)); !ok {
			return nil, notServed(m.name, "its contract has other types")
		}
		b.stats = c.wiring.stats(c.caller, m.name, "local")
	} else {
		b.remote = newEndpoint(m.name, p.remote)
		b.stats = c.wiring.stats(c.caller, m.name, "remote")
	}
	c.bound.Store(m, b)
	return b, nil
}

func notServed(method, why string) error {
	return errs.New(errs.Unavailable, "not_served", "%s can't be called: %s", method, why)
}

// deadline is a context that ends at a time, and arms a timer only when somebody waits for it: most local callees never do,
// and context.WithTimeout costs as much as the rest of a local call.
type deadline struct {
	context.Context
	at    time.Time
	mu    sync.Mutex
	timed atomic.Pointer[timed]
	over  atomic.Bool

	request *urgency.Request // that the call is made for, if it was made in another process
}

type timed struct {
	ctx    context.Context
	cancel context.CancelFunc
}

func (d *deadline) Deadline() (time.Time, bool) { return d.at, true }

func (d *deadline) Done() <-chan struct{} { return d.arm().ctx.Done() }

func (d *deadline) arm() *timed {
	if t := d.timed.Load(); t != nil {
		return t
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.timed.Load(); t != nil {
		return t
	}
	t := &timed{}
	t.ctx, t.cancel = context.WithDeadline(d.Context, d.at)
	d.timed.Store(t)
	if d.over.Load() { // end may have come between: one of the two sees the other's store
		t.cancel()
	}
	return t
}

func (d *deadline) Err() error {
	if t := d.timed.Load(); t != nil {
		return t.ctx.Err()
	}
	if err := d.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(d.at) {
		return context.DeadlineExceeded
	}
	if d.over.Load() {
		return context.Canceled
	}
	return nil
}

// Value asks the armed context first, so that contexts made below this one find it and need no goroutine to follow it.
func (d *deadline) Value(key any) any {
	if key == (urgency.Key{}) && d.request != nil {
		return d.request
	}
	if t := d.timed.Load(); t != nil {
		return t.ctx.Value(key)
	}
	return d.Context.Value(key)
}

// end is the call's return: what still holds the context sees it cancelled, as it would behind a wire.
func (d *deadline) end() {
	d.over.Store(true)
	if t := d.timed.Load(); t != nil {
		t.cancel()
	}
}
