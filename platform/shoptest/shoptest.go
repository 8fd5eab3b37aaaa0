// Package shoptest gives tests a real PostgreSQL, a cloned database of their own, a clock to turn, and waiting without
// sleeping. Only tests import it.
package shoptest

import (
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// DB is a pool on the module's schema, as its role, in a database cloned for this test from a template with all migrations.
// Two modules of one test share the database. A module without migrations gets a schema with the platform's tables alone.
func DB(t testing.TB, module string) *pg.DB {
	t.Helper()
	return Open(t, Config(t, module))
}

// Open is a pool of the test's own making, closed at its end.
func Open(t testing.TB, c pg.Config) *pg.DB {
	t.Helper()
	db, err := pg.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// Config is how DB reaches a module's schema, to be changed and given to Open.
func Config(t testing.TB, module string) pg.Config {
	t.Helper()
	return pg.Config{URL: ModuleURL(t, module), Schema: module, MaxConns: 2}
}

// WaitFor polls cond until it holds, and fails the test with what after 10 s.
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	late := time.After(10 * time.Second)
	for pause := time.Millisecond; !cond(); pause = min(2*pause, 50*time.Millisecond) {
		select {
		case <-time.After(pause):
		case <-late:
			if cond() {
				return
			}
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

// Clock is a clock that stands still until it is turned. Give modules its Now.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock stands at noon of a day in March 2026.
func NewClock() *Clock { return &Clock{now: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)} }

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance turns the clock on.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
