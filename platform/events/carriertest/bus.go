package carriertest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
)

// shop is two processes: one tells, the other hears.
type shop struct {
	teller, hearer *pg.DB
	counts         *prometheus.Registry // of the teller's process
}

// open starts the processes. Without a broker both are one.
func open(t *testing.T, s Setup, hear func(ctx context.Context, tx *pg.Tx, e happened) error) *shop {
	t.Helper()
	b := &shop{teller: connect(t, s, "teller"), hearer: connect(t, s, "hearer"), counts: prometheus.NewRegistry()}
	telling := b.bus(t, s.Carrier(t), b.counts)
	hearing := telling
	if s.Broker != nil {
		hearing = b.bus(t, s.Carrier(t), nil)
	}
	err := hearing.Add("hearer", b.hearer, func(s *events.Subscriptions) { events.On(s, "test", hear) })
	if err != nil {
		t.Fatal(err)
	}
	if err := telling.Add("teller", b.teller, nil); err != nil {
		t.Fatal(err)
	}
	for _, bus := range slices.Compact([]*events.Bus{hearing, telling}) {
		if err := bus.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func connect(t *testing.T, s Setup, module string) *pg.DB {
	t.Helper()
	c := s.Database(t, module)
	c.MaxConns, c.TxTimeout = 6, time.Minute // the lock of a whole test is a transaction too
	db, err := pg.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func (b *shop) bus(t *testing.T, c events.Carrier, counts prometheus.Registerer) *events.Bus {
	t.Helper()
	bus := events.NewBus(events.Options{
		Carrier: c, Metrics: counts, MaxAttempts: 2, Backoff: 5 * time.Millisecond, Poll: 20 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := bus.Drain(ctx); err != nil {
			t.Errorf("drain: %v", err)
		}
	})
	return bus
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(p[:min(len(p), 300)]))
	return len(p), nil
}

// publish commits events n from..to-1, spread over keys.
func (b *shop) publish(t *testing.T, from, to, keys int) {
	t.Helper()
	for from < to {
		var es []events.Event
		for n := from; n < min(from+500, to); n++ {
			es = append(es, happened{fmt.Sprint("key", n%keys), n})
		}
		from += len(es)
		if err := b.teller.InTx(t.Context(), func(tx *pg.Tx) error { return events.Publish(t.Context(), tx, es...) }); err != nil {
			t.Fatal(err)
		}
	}
}

func get[T any](t testing.TB, db *pg.DB, query string, args ...any) (v T) {
	t.Helper()
	if err := db.Get(t.Context(), &v, query, args...); err != nil {
		t.Fatal(err)
	}
	return v
}

// settle waits until count events took effect and none is unsent.
func (b *shop) settle(t *testing.T, count int, limit time.Duration) {
	t.Helper()
	for late := time.Now().Add(limit); ; pause(t.Context(), 20*time.Millisecond) {
		effects := get[int](t, b.hearer, `SELECT count(*) FROM hearer.inbox`)
		unsent := get[int](t, b.teller, `SELECT count(*) FROM teller.outbox WHERE sent_at IS NULL`)
		if effects >= count && unsent == 0 {
			return
		}
		if time.Now().After(late) {
			t.Fatalf("after %v %d of %d events took effect and %d are unsent", limit, effects, count, unsent)
		}
	}
}

// check holds the effects against the promise: each of count once, in order of its key, and nothing left over.
func (b *shop) check(t *testing.T, count int) {
	t.Helper()
	var rows []pg.JSON[noted]
	if err := b.hearer.Select(t.Context(), &rows, `SELECT payload FROM hearer.outbox ORDER BY position`); err != nil {
		t.Fatal(err)
	}
	times, last := make([]int, count), map[string]int{}
	for _, r := range rows {
		if before, ok := last[r.V.Key]; ok && before >= r.V.N {
			t.Errorf("%s: %d took effect after %d", r.V.Key, r.V.N, before)
		}
		last[r.V.Key] = r.V.N
		times[r.V.N]++
	}
	for n, times := range times {
		if times != 1 {
			t.Errorf("event %d took effect %d times", n, times)
		}
	}
	if n := get[int](t, b.hearer, `SELECT count(*) FROM hearer.retry`); n > 0 {
		t.Errorf("%d events are tried again or parked", n)
	}
}

// resent is how many events the teller's relay sent again for a broker that may have forgotten them.
func (b *shop) resent(t *testing.T) float64 {
	t.Helper()
	return b.count(t, "banyan_events_resent_total")
}

func (b *shop) count(t *testing.T, name string) float64 {
	t.Helper()
	families, err := b.counts.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			m := f.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return 0
}

func parking(t *testing.T, s Setup) {
	var cured atomic.Bool
	b := open(t, s, func(ctx context.Context, tx *pg.Tx, e happened) error {
		if e.N == 4 && !cured.Load() {
			return errPoison
		}
		return note(ctx, tx, e)
	})
	b.publish(t, 0, 20, 4)
	var parked []events.ParkedEvent
	waitFor(t, "the event to be parked", func() bool {
		var err error
		if parked, err = events.Parked(t.Context(), b.hearer); err != nil {
			t.Fatal(err)
		}
		return len(parked) == 1 && parked[0].Behind == 3 && get[int](t, b.hearer, `SELECT count(*) FROM hearer.inbox`) == 16
	})
	cured.Store(true)
	if n, err := events.Replay(t.Context(), b.hearer, "test", parked[0].EventID); err != nil || n != 1 {
		t.Fatalf("replayed %d: %v", n, err)
	}
	b.settle(t, 20, time.Minute)
	b.check(t, 20)
}

func busOutage(t *testing.T, s Setup) {
	b := open(t, s, note)
	b.publish(t, 0, 50, 7)
	b.settle(t, 50, time.Minute)
	connected := func() bool { return b.count(t, "banyan_events_carrier_connected") == 1 }
	waitFor(t, "the gauge to say connected", connected)
	s.Broker.Stop(t)
	b.publish(t, 50, 150, 7)
	waitFor(t, "the gauge to say disconnected", func() bool { return !connected() })
	if n := get[int](t, b.hearer, `SELECT count(*) FROM hearer.inbox`); n != 50 {
		t.Errorf("%d effects without a broker, want the 50 before", n)
	}
	s.Broker.Start(t)
	b.settle(t, 150, 60*time.Second)
	b.check(t, 150)
}

func forgotten(t *testing.T, s Setup) {
	b := open(t, s, note)
	b.publish(t, 0, 40, 7)
	b.settle(t, 40, time.Minute)
	s.Broker.Stop(t)
	s.Broker.Save(t)
	s.Broker.Start(t)

	// These the broker takes, and forgets before they are heard: no hearer can come to its inbox.
	release := b.lockInbox(t)
	b.publish(t, 40, 100, 7)
	waitFor(t, "the relay to send them", func() bool {
		return get[int](t, b.teller, `SELECT count(*) FROM teller.outbox WHERE sent_at IS NULL`) == 0
	})
	s.Broker.Stop(t)
	s.Broker.Restore(t)
	release()
	b.publish(t, 100, 120, 7) // later events of the same keys, which must not overtake
	s.Broker.Start(t)
	b.settle(t, 120, 60*time.Second)
	b.check(t, 120)
	if n := b.resent(t); n < 50 {
		t.Errorf("%v events were sent again, want about 60", n)
	}
}

// lockInbox keeps all hearers from beginning, until release.
func (b *shop) lockInbox(t *testing.T) (release func()) {
	t.Helper()
	locked, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- b.hearer.InTx(context.Background(), func(tx *pg.Tx) error {
			if _, err := tx.Exec(context.Background(), `LOCK TABLE hearer.inbox IN EXCLUSIVE MODE`); err != nil {
				close(locked)
				return err
			}
			close(locked)
			<-end
			return nil
		})
	}()
	<-locked
	return func() {
		t.Helper()
		close(end)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

func remembered(t *testing.T, s Setup) {
	b := open(t, s, note)
	b.publish(t, 0, 60, 7)
	b.settle(t, 60, time.Minute)
	// A second process of the teller starts, and finds all in place.
	again := &shop{teller: b.teller, hearer: b.hearer, counts: prometheus.NewRegistry()}
	bus := again.bus(t, s.Carrier(t), again.counts)
	if err := bus.Add("teller", b.teller, nil); err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.publish(t, 60, 120, 7)
	b.settle(t, 120, time.Minute)
	b.check(t, 120)
	if n := b.resent(t) + again.resent(t); n > 0 {
		t.Errorf("%v events were sent again", n)
	}
}

func backlog(t *testing.T, s Setup) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const count = 30_000
	b := open(t, s, note)
	b.publish(t, 0, 100, 50)
	b.settle(t, 100, time.Minute)
	s.Broker.Stop(t)
	b.publish(t, 100, count, 500)
	s.Broker.Start(t)
	started := time.Now()
	b.settle(t, count, 5*time.Minute) // a minute is the promise; how long it took is told, for the machine may be busy
	t.Logf("%d events took effect within %v of the broker's return", count-100, time.Since(started).Round(100*time.Millisecond))
	b.check(t, count)
}
