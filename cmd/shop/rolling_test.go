package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/discovery"
)

// perSecond is the load under which a fleet is restarted.
const perSecond = 200

// TestARollingRestartLosesNoRequest restarts every instance of every process of a split shop, the gateways too, three times over,
// one instance of a process after the other and all processes at the same time, while customers read, fill carts and buy. They
// must not notice: no connection that breaks, no 5xx, no order that is not placed.
func TestARollingRestartLosesNoRequest(t *testing.T) {
	if testing.Short() {
		t.Skip("twenty processes, three times over")
	}
	const rounds = 3
	topology := map[string][]string{"gateway": {}}
	for _, m := range modules {
		topology[m.Name] = []string{m.Name}
	}
	f := newFleet(t, 2, topology, map[string]any{
		// How fast this machine is, busy as it may be, is another test's question: here nothing is refused or given up for its slowness.
		"web": map[string]any{"overload": "0s"}, "calls": map[string]any{"deadline": "15s"}, "storefront": map[string]any{"part_timeout": "15s"},
		"pool": map[string]any{"max": 3},
	})
	catalog := database(t, f.databases["catalog"])
	var placed int64
	for again := false; ; again = true {
		l, restarts, stall := f.rollUnderLoad(t, rounds, catalog)
		placed += l.placed.Load()
		if restarts != rounds*len(f.members) {
			t.Errorf("%d restarts", restarts)
		}
		failed := l.counted.failures()
		// Whoever gets no processor for that long can't connect within its time, and no drain helps. What was promised must hold all the same.
		if len(failed) > 0 && stall > standstill && !again {
			t.Logf("this machine stood still for %.1f s, and %d requests failed, the first: %s: once more", stall.Seconds(), len(failed), failed[0])
			continue
		}
		for i, what := range failed {
			if i < 20 {
				t.Errorf("a request failed: %s", what)
			}
		}
		break
	}
	f.compare(t, placed)
	f.hurry(t)
}

// standstill is more than a busy machine lets a goroutine wait, and less than a connection has to come about.
const standstill = 500 * time.Millisecond

// rollUnderLoad restarts all under load, and tells for how long at most this process did not get to run.
func (f *fleet) rollUnderLoad(t *testing.T, rounds int, catalog *sql.DB) (l *load, restarts int, stall time.Duration) {
	t.Helper()
	counted := newTally(t, f.gateways)
	l = &load{t: t, counted: counted, client: &http.Client{Transport: counted, Timeout: time.Minute}}
	var err error
	if l.skus, err = stocked(t.Context(), l.client, "http://shop", catalog); err != nil {
		t.Fatal(err)
	}
	loaded, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(loaded) })
	running.Go(func() { stall = longestStall(loaded) })
	before, began := counted.requests.Load(), time.Now()
	longest, restarts, err := f.roll(t, rounds)
	took := time.Since(began)
	sent := counted.requests.Load() - before
	stop()
	running.Wait()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d restarts in %.0f s under %.0f requests/s: %d requests, %d on new connections, %d failed; %d checkouts begun, %d placed; longest drain %.1f s, longest stall of this process %d ms",
		restarts, took.Seconds(), float64(sent)/took.Seconds(), counted.requests.Load(), counted.connections.Load(), len(counted.failures()),
		l.begun.Load(), l.placed.Load(), longest.Seconds(), stall.Milliseconds())
	if l.placed.Load() != l.begun.Load() || l.placed.Load() == 0 {
		t.Errorf("%d of %d checkouts came to a placed order", l.placed.Load(), l.begun.Load())
	}
	return l, restarts, stall
}

// longestStall is the longest time by which a timer came late, until ctx ends.
func longestStall(ctx context.Context) (longest time.Duration) {
	const every = 20 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for last := time.Now(); ; last = time.Now() {
		select {
		case <-ctx.Done():
			return longest
		case <-tick.C:
			longest = max(longest, time.Since(last)-every)
		}
	}
}

// roll restarts the instances of each process one after the other, so many times; processes do not wait for each other.
func (f *fleet) roll(t *testing.T, rounds int) (longest time.Duration, restarts int, err error) {
	of := map[string][]*member{}
	for _, m := range f.members {
		of[m.process] = append(of[m.process], m)
	}
	var mu sync.Mutex
	var failed []error
	var rolling sync.WaitGroup
	for _, members := range of {
		rolling.Go(func() {
			for range rounds {
				for _, m := range members {
					took, err := f.drain(m)
					if err == nil && took > discovery.IdleTimeout+time.Second+20*time.Second {
						err = fmt.Errorf("%s drained for %s", m, took)
					}
					stopped := time.Now()
					if err == nil {
						err = f.start(t.Context(), m)
					}
					t.Logf("%s: drained from %s to %s, ready at %s", m, stopped.Add(-took).Format("15:04:05.000"), stopped.Format("15:04:05.000"), time.Now().Format("15:04:05.000"))
					mu.Lock()
					longest = max(longest, took)
					restarts++
					failed = append(failed, err)
					mu.Unlock()
					if err != nil {
						return
					}
				}
			}
		})
	}
	rolling.Wait()
	return longest, restarts, errors.Join(failed...)
}

// compare wants the databases to say what customers were told.
func (f *fleet) compare(t *testing.T, placed int64) {
	t.Helper()
	var orders, captures int64
	if err := database(t, f.databases["orders"]).QueryRowContext(t.Context(), `SELECT count(*) FROM orders.orders WHERE state = 'placed'`).Scan(&orders); err != nil {
		t.Fatal(err)
	}
	if err := database(t, f.databases["payments"]).QueryRowContext(t.Context(), `SELECT count(*) FROM payments.simulator_ledger WHERE kind = 'capture'`).Scan(&captures); err != nil {
		t.Fatal(err)
	}
	if orders != placed || captures != placed {
		t.Errorf("customers were told of %d orders; there are %d, and %d captures", placed, orders, captures)
	}
}

// hurry stops an instance by two signals: it must not take the time that draining takes.
func (f *fleet) hurry(t *testing.T) {
	t.Helper()
	for _, m := range f.members {
		if m.process != "gateway" || m.running == nil {
			continue
		}
		began := time.Now()
		for range 2 {
			// A signal that comes while the first is not taken yet is one with it.
			if err := m.running.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
				t.Fatal(err)
			}
			if err := until(t.Context(), "the signal to be taken", func() (bool, error) { return !answers(t.Context(), "http://"+m.listen+"/readyz"), nil }); err != nil {
				t.Fatal(err)
			}
		}
		<-m.ended
		m.running = nil
		took := time.Since(began)
		t.Logf("%s ended %.0f ms after two signals", m, float64(took.Milliseconds()))
		if took >= discovery.IdleTimeout+time.Second {
			t.Errorf("%s drained on for %s after a second signal", m, took)
		}
	}
}

// load is customers who come at their own time, however long the answers take.
type load struct {
	t       *testing.T
	counted *tally
	client  *http.Client
	skus    []string

	begun, placed atomic.Int64
}

// run sends perSecond requests a second until ctx ends, and returns when all have their answers. Of forty requests, five are a
// checkout and three a cart.
func (l *load) run(ctx context.Context) {
	var going sync.WaitGroup
	defer going.Wait()
	finish := context.WithoutCancel(ctx)
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		timer.Reset(time.Until(start.Add(time.Duration(i) * time.Second / perSecond)))
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		switch n := i % 40; {
		case n == 0:
			going.Go(func() { l.buys(finish, i) })
		case n == 5:
			going.Go(func() { l.fills(finish, i) })
		case n >= 8:
			going.Go(func() { l.reads(finish, i) })
		}
	}
}

func (l *load) buyer(i int) *buyer {
	return &buyer{url: "http://shop", client: l.client, header: http.Header{}, skus: []string{l.skus[i/40%len(l.skus)]}}
}

func (l *load) buys(ctx context.Context, i int) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a minute has passed"))
	defer cancel()
	l.begun.Add(1)
	b := l.buyer(i)
	if err := inTurn(ctx, b.fill(1), b.quote, b.buy("tok_approve")); err != nil {
		l.t.Errorf("a checkout: %v", err)
		return
	}
	l.placed.Add(1)
}

func (l *load) fills(ctx context.Context, i int) {
	b := l.buyer(i)
	err := b.fill(1)(ctx)
	if err == nil {
		_, err = b.must(ctx, "GET", "/v1/carts/"+b.cart, "", nil)
	}
	if err != nil {
		l.t.Errorf("a cart: %v", err)
	}
}

func (l *load) reads(ctx context.Context, i int) {
	product := string(catalogapi.DemoProductID(i%20 + 1))
	paths := []string{"/v1/products", "/v1/products/" + product, "/v1/storefront/products/" + product, "/v1/categories", "/v1/products/" + product + "/reviews"}
	if _, err := l.buyer(i).must(ctx, "GET", paths[i%len(paths)], "", nil); err != nil {
		l.t.Errorf("a read: %v", err)
	}
}
