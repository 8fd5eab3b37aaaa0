package events_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// happened is published by teller. hearer hears it, and its effect is noted: a row of its own outbox, which is as
// transactional as any other table and keeps the order.
type happened struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (happened) EventName() string  { return "teller.test_happened.v1" }
func (e happened) EventKey() string { return e.Key }

type noted struct {
	EventID string `json:"event_id"`
	Key     string `json:"key"`
	N       int    `json:"n"`
}

func (noted) EventName() string  { return "hearer.test_noted.v1" }
func (e noted) EventKey() string { return e.Key }

// garbled has the name of happened and a payload that happened can't read.
type garbled struct {
	N string `json:"n"`
}

func (garbled) EventName() string { return "teller.test_happened.v1" }
func (garbled) EventKey() string  { return "garbled" }

type bundle struct {
	teller, hearer *pg.DB
	o              events.Options
}

func setup(t testing.TB) *bundle {
	t.Helper()
	return &bundle{teller: shoptest.DB(t, "teller"), hearer: shoptest.DB(t, "hearer"), o: events.Options{
		Backoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Poll: 20 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelError})),
	}}
}

type testLog struct{ t testing.TB }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(string(p[:min(len(p), 300)]))
	return len(p), nil
}

type handler func(ctx context.Context, tx *pg.Tx, e happened) error

// note is the effect.
func note(ctx context.Context, tx *pg.Tx, e happened) error {
	return events.Publish(ctx, tx, noted{events.FromContext(ctx).ID, e.Key, e.N})
}

// start runs a bus of teller, which publishes, and hearer, which hears with h.
func (b *bundle) start(t testing.TB, h handler) *events.Bus {
	t.Helper()
	bus := events.NewBus(b.o)
	b.add(t, bus, "teller", b.teller, nil)
	b.add(t, bus, "hearer", b.hearer, func(s *events.Subscriptions) { events.On(s, "test", h) })
	run(t, bus)
	return bus
}

func (b *bundle) add(t testing.TB, bus *events.Bus, module string, db *pg.DB, subscribe func(*events.Subscriptions)) {
	t.Helper()
	if err := bus.Add(module, db, subscribe); err != nil {
		t.Fatal(err)
	}
}

func run(t testing.TB, bus *events.Bus) {
	t.Helper()
	if err := bus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drain(t, bus) })
}

func drain(t testing.TB, bus *events.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := bus.Drain(ctx); err != nil {
		t.Errorf("drain: %v", err)
	}
}

func idle(t testing.TB, bus *events.Bus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := bus.WaitIdle(ctx); err != nil {
		t.Fatal(err)
	}
}

// publish commits events of count transactions, n from 0, spread over keys.
func (b *bundle) publish(t testing.TB, count, keys int) {
	t.Helper()
	for n := range count {
		b.publishOne(t, happened{fmt.Sprint("key", n%keys), n})
	}
}

func (b *bundle) publishOne(t testing.TB, es ...events.Event) {
	t.Helper()
	err := b.teller.InTx(t.Context(), func(tx *pg.Tx) error { return events.Publish(t.Context(), tx, es...) })
	if err != nil {
		t.Fatal(err)
	}
}

// effects are in the order of their commits within a key.
func (b *bundle) effects(t testing.TB) []noted {
	t.Helper()
	var rows []pg.JSON[noted]
	err := b.hearer.Select(t.Context(), &rows, `SELECT payload FROM hearer.outbox WHERE name = 'hearer.test_noted.v1' ORDER BY position`)
	if err != nil {
		t.Fatal(err)
	}
	list := make([]noted, len(rows))
	for i, r := range rows {
		list[i] = r.V
	}
	return list
}

// wantEach checks that n from 0 to count-1 have one effect each, but those missing, and that each key's are in order.
func (b *bundle) wantEach(t testing.TB, count int, missing ...int) {
	t.Helper()
	got := b.effects(t)
	times, last := map[int]int{}, map[string]int{}
	for _, e := range got {
		times[e.N]++
		if before, ok := last[e.Key]; ok && before > e.N {
			t.Errorf("%s: %d took effect after %d", e.Key, e.N, before)
		}
		last[e.Key] = e.N
	}
	for n := range count {
		want := 1
		if slices.Contains(missing, n) {
			want = 0
		}
		if times[n] != want {
			t.Errorf("event %d took effect %d times, want %d", n, times[n], want)
		}
	}
	if len(got) != count-len(missing) {
		t.Errorf("%d effects, want %d", len(got), count-len(missing))
	}
}

func (b *bundle) parked(t testing.TB) []events.ParkedEvent {
	t.Helper()
	list, err := events.Parked(t.Context(), b.hearer)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestPublish(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bus := b.start(t, note)
	broken := errors.New("changed my mind")
	err := b.teller.InTx(t.Context(), func(tx *pg.Tx) error {
		return cmp.Or(events.Publish(t.Context(), tx, happened{"k", 99}), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		event events.Event
		want  string
	}{
		{noted{Key: "k"}, "module teller publishes only events named teller."},
		{happened{}, "no key"},
	} {
		err := b.teller.InTx(t.Context(), func(tx *pg.Tx) error { return events.Publish(t.Context(), tx, happened{"k", 98}, c.event) })
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("publish %T: %v, want %q", c.event, err, c.want)
		}
	}
	if err := b.teller.InTx(t.Context(), func(tx *pg.Tx) error { return events.Publish(t.Context(), tx) }); err != nil {
		t.Errorf("publish nothing: %v", err)
	}
	b.publishOne(t, happened{"k", 0}, happened{"k", 1}, happened{"k", 2}, happened{"other", 3})
	idle(t, bus)
	b.wantEach(t, 4)
}

func TestAHandlerKnowsWhatItHandles(t *testing.T) {
	t.Parallel()
	b := setup(t)
	type who struct{}
	b.o.Context = func(ctx context.Context, module string) context.Context { return context.WithValue(ctx, who{}, module) }
	var got events.Envelope
	var module any
	var traceID trace.TraceID
	var deadline bool
	bus := b.start(t, func(ctx context.Context, tx *pg.Tx, e happened) error {
		got, module, traceID = events.FromContext(ctx), ctx.Value(who{}), trace.SpanContextFromContext(ctx).TraceID()
		_, deadline = ctx.Deadline()
		return nil
	})
	want := trace.TraceID{7}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: want, SpanID: trace.SpanID{8}, TraceFlags: 1}))
	if err := b.teller.InTx(ctx, func(tx *pg.Tx) error { return events.Publish(ctx, tx, happened{"k", 1}) }); err != nil {
		t.Fatal(err)
	}
	idle(t, bus)
	if !strings.HasPrefix(got.ID, "evt_") || got.Name != "teller.test_happened.v1" || got.Key != "k" || time.Since(got.OccurredAt).Abs() > time.Minute {
		t.Errorf("envelope %+v", got)
	}
	if module != "hearer" || traceID != want || !deadline {
		t.Errorf("module %v, trace %v, deadline %v", module, traceID, deadline)
	}
	if e := events.FromContext(t.Context()); e != (events.Envelope{}) {
		t.Errorf("an envelope outside a handler: %+v", e)
	}
}

// tampering is a carrier whose publisher is changed.
type tampering struct {
	events.Carrier
	publish func(inner message.Publisher, topic string, msg *message.Message) error
}

func (c tampering) Publisher() message.Publisher { return c }
func (c tampering) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		if err := c.publish(c.Carrier.Publisher(), topic, msg); err != nil {
			return err
		}
	}
	return nil
}

func TestARepeatedDeliveryTakesEffectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.Carrier = tampering{events.InProcess(), func(inner message.Publisher, topic string, msg *message.Message) error {
		return inner.Publish(topic, msg, msg.CopyWithContext(), msg.CopyWithContext())
	}}
	bus := b.start(t, note)
	b.publish(t, 60, 7)
	idle(t, bus)
	b.wantEach(t, 60)
}

// The fact behind this: Watermill's Deduplicator marks before success, and so acknowledges the redelivery of an event
// whose first handling failed.
func TestAFailedHandlingIsTriedAgainInOrderOfItsKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var mu sync.Mutex
	tries := map[int]int{}
	bus := b.start(t, func(ctx context.Context, tx *pg.Tx, e happened) error {
		if err := note(ctx, tx, e); err != nil { // rolled back with the rest
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if tries[e.N]++; e.N%9 == 0 && tries[e.N] <= 3 {
			return errors.New("not now")
		}
		return nil
	})
	b.publish(t, 90, 5)
	idle(t, bus)
	b.wantEach(t, 90)
	if len(b.parked(t)) > 0 {
		t.Errorf("parked: %+v", b.parked(t))
	}
}

func TestAPoisonEventIsParkedAndOnlyItsKeyWaits(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.MaxAttempts = 3
	var cured atomic.Bool
	bus := b.start(t, func(ctx context.Context, tx *pg.Tx, e happened) error {
		if e.N == 10 && !cured.Load() {
			return errors.New("poison")
		}
		if e.N == 11 && !cured.Load() {
			panic("worse poison")
		}
		return note(ctx, tx, e)
	})
	b.publish(t, 40, 5) // 10 is of key0, before 15, 20 …; 11 of key1
	idle(t, bus)
	b.wantEach(t, 40, 10, 15, 20, 25, 30, 35, 11, 16, 21, 26, 31, 36)

	list := b.parked(t)
	if len(list) != 2 {
		t.Fatalf("%d parked, want 2: %+v", len(list), list)
	}
	slices.SortFunc(list, func(a, b events.ParkedEvent) int { return strings.Compare(a.Key, b.Key) })
	for i, want := range []struct{ key, reason string }{{"key0", "poison"}, {"key1", "panic: worse poison"}} {
		p := list[i]
		if p.Key != want.key || !strings.HasPrefix(p.Error, want.reason) || p.Attempts != 3 || p.Behind != 5 || p.Consumer != "test" || p.ParkedAt.IsZero() {
			t.Errorf("parked %+v, want %+v after 3 attempts with 5 behind", p, want)
		}
	}

	// A restart changes nothing about it, a replay without a cure parks it again, and a cure lets all through in order.
	replay := func(ids ...string) {
		t.Helper()
		if n, err := events.Replay(t.Context(), b.hearer, "test", ids...); err != nil || n != max(len(ids), 1) {
			t.Fatalf("replayed %d: %v", n, err)
		}
		idle(t, bus)
	}
	replay(list[0].EventID)
	if n := len(b.parked(t)); n != 2 {
		t.Fatalf("%d parked after a replay without a cure", n)
	}
	cured.Store(true)
	replay(list[0].EventID)
	b.wantEach(t, 40, 11, 16, 21, 26, 31, 36)
	replay() // all that is left
	b.wantEach(t, 40)
}

func TestADiscardedEventLetsThoseBehindItGoOn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.MaxAttempts = 2
	bus := b.start(t, func(ctx context.Context, tx *pg.Tx, e happened) error {
		if e.N == 1 {
			return errors.New("poison")
		}
		return note(ctx, tx, e)
	})
	b.publish(t, 5, 1)
	idle(t, bus)
	b.wantEach(t, 5, 1, 2, 3, 4)
	id := b.parked(t)[0].EventID
	if n, err := events.Discard(t.Context(), b.hearer, "test", id, "evt_unknown"); err != nil || n != 1 {
		t.Fatalf("discarded %d: %v", n, err)
	}
	idle(t, bus)
	b.wantEach(t, 5, 1)
}

func TestWhatCannotBeReadIsParkedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	carrier := events.InProcess()
	b.o.Carrier = carrier
	bus := b.start(t, note)
	b.publishOne(t, garbled{"many"})
	b.publish(t, 3, 3)
	// What others may put on a shared broker.
	foreign := []*message.Message{
		message.NewMessage("", []byte(`not json \x00`)),
		message.NewMessage("evt_1", []byte{0xff, 0x00}),
		message.NewMessage("evt_2\x00", []byte(`{"n": 1, "text": "\u0000"}`)),
		message.NewMessage("evt_3", nil),
	}
	foreign[1].Metadata.Set("event_name", "teller.something_else.v1")
	foreign[1].Metadata.Set("event_key", "k\xff")
	foreign[1].Metadata.Set("\xff", "\x00")
	for _, msg := range foreign {
		if err := carrier.Publisher().Publish("teller.test_happened.v1/3", msg); err != nil {
			t.Fatal(err)
		}
	}
	idle(t, bus)
	b.wantEach(t, 3)
	list := b.parked(t)
	if len(list) != 1+len(foreign) {
		t.Errorf("%d parked, want %d", len(list), 1+len(foreign))
	}
	for _, p := range list {
		if p.Error == "" || p.Attempts != 1 {
			t.Errorf("parked without a reason or late: %+v", p)
		}
	}
	// A replay is as clueless, and stays parked.
	if _, err := events.Replay(t.Context(), b.hearer, "test"); err != nil {
		t.Fatal(err)
	}
	idle(t, bus)
	if n := len(b.parked(t)); n != 1+len(foreign) {
		t.Errorf("%d parked after the replay", n)
	}
}

func TestAnOutageOfTheCarrierCostsNoAttempts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.MaxAttempts = 1
	var down atomic.Bool
	down.Store(true)
	var refused atomic.Int64
	b.o.Carrier = tampering{events.InProcess(), func(inner message.Publisher, topic string, msg *message.Message) error {
		if down.Load() {
			refused.Add(1)
			return errors.New("connection refused")
		}
		return inner.Publish(topic, msg)
	}}
	bus := b.start(t, note)
	b.publish(t, 300, 20) // more than are in flight at once
	shoptest.WaitFor(t, "the relay to try again", func() bool { return refused.Load() > 3*events.Shards })
	if n := len(b.effects(t)); n != 0 {
		t.Fatalf("%d effects during the outage", n)
	}
	down.Store(false)
	idle(t, bus)
	b.wantEach(t, 300)
	if len(b.parked(t)) > 0 {
		t.Errorf("parked: %+v", b.parked(t))
	}
}

func TestADeliveryWhoseMarkIsLostTakesEffectOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var lost sync.Map
	b.o.Carrier = tampering{events.InProcess(), func(inner message.Publisher, topic string, msg *message.Message) error {
		if err := inner.Publish(topic, msg); err != nil {
			return err
		}
		if _, before := lost.LoadOrStore(msg.UUID, true); !before {
			return errors.New("connection reset after the publish")
		}
		return nil
	}}
	bus := b.start(t, note)
	b.publish(t, 30, 4)
	idle(t, bus)
	b.wantEach(t, 30)
}

func TestAnotherRelayTakesOverWhatADeadOneHadClaimed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.publish(t, 10, 2)
	// A relay that claims four events of two keys and is never heard of again.
	if n, err := events.Claim(t.Context(), b.teller, 4, 700*time.Millisecond); err != nil || n != 4 {
		t.Fatalf("claimed %d: %v", n, err)
	}
	bus := b.start(t, note)
	// Its keys wait: sending their later events would break the order.
	if n := len(b.effects(t)); n != 0 {
		t.Errorf("%d effects while the lease lasts", n)
	}
	idle(t, bus)
	b.wantEach(t, 10)
}

func TestManyInstancesShareTheWorkInOrder(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.Batch = 20
	b.publish(t, 200, 10)
	var tries [400]atomic.Int32
	flaky := func(ctx context.Context, tx *pg.Tx, e happened) error {
		if e.N%50 == 7 && tries[e.N].Add(1) <= 2 {
			return errors.New("now and then")
		}
		return note(ctx, tx, e)
	}
	b.o.Carrier = events.InProcess()
	one := b.start(t, flaky)
	b.o.Carrier = events.InProcess()
	two := b.start(t, flaky)
	for n := 200; n < 400; n++ {
		b.publishOne(t, happened{fmt.Sprint("key", n%10), n})
	}
	idle(t, one)
	idle(t, two)
	b.wantEach(t, 400)
}

func TestADrainLosesNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	started := make(chan struct{}, 1)
	slow := func(ctx context.Context, tx *pg.Tx, e happened) error {
		select {
		case started <- struct{}{}:
		default:
		}
		pause(ctx, 2*time.Millisecond)
		if ctx.Err() != nil {
			t.Errorf("event %d: cut off: %v", e.N, ctx.Err())
		}
		return note(ctx, tx, e)
	}
	for round := range 4 {
		for n := range 50 {
			b.publishOne(t, happened{fmt.Sprint("key", n%6), round*50 + n})
		}
		b.o.Carrier = events.InProcess()
		bus := b.start(t, slow)
		<-started
		drain(t, bus)
		before := len(b.effects(t))
		if before == 0 || before == (round+1)*50 {
			t.Logf("round %d: the drain fell at an end: %d effects", round, before)
		}
		if open, err := events.Leased(t.Context(), b.teller); err != nil || open != 0 {
			t.Errorf("%d leases are left behind: %v", open, err)
		}
	}
	b.o.Carrier = events.InProcess()
	idle(t, b.start(t, slow))
	b.wantEach(t, 200)
}

func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

func TestADrainInAHurryCutsHandlersOff(t *testing.T) {
	t.Parallel()
	b := setup(t)
	started := make(chan struct{})
	var once sync.Once
	bus := b.start(t, func(ctx context.Context, tx *pg.Tx, e happened) error {
		once.Do(func() { close(started) })
		<-ctx.Done()
		return ctx.Err()
	})
	b.publish(t, 1, 1)
	<-started
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bus.Drain(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("drain: %v", err)
	}
	b.o.Carrier = events.InProcess()
	idle(t, b.start(t, note))
	b.wantEach(t, 1)
}

// The fact behind this: watermill-sql delivers nothing while any write transaction is open anywhere in the cluster.
func TestALongTransactionHoldsUpNothingButItsOwnEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bus := b.start(t, note)
	elsewhere, here := hold(t, b.hearer, nil), hold(t, b.teller, happened{"late", 0})
	for n := 1; n < 20; n++ {
		b.publishOne(t, happened{fmt.Sprint("key", n%3), n})
	}
	idle(t, bus)
	b.wantEach(t, 20, 0)
	elsewhere()
	here()
	idle(t, bus)
	b.wantEach(t, 20)
}

// hold opens a transaction, which publishes e, and returns what commits it.
func hold(t *testing.T, db *pg.DB, e events.Event) (commit func()) {
	t.Helper()
	open, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- db.InTx(context.Background(), func(tx *pg.Tx) error {
			if e != nil {
				if err := events.Publish(context.Background(), tx, e); err != nil {
					return err
				}
			}
			close(open)
			<-end
			return nil
		})
	}()
	<-open
	return func() {
		t.Helper()
		close(end)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestEventsWanderThroughModulesUntilAllIsIdle(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bus := events.NewBus(b.o)
	// teller tells hearer, hearer tells teller, and again, counting down.
	b.add(t, bus, "teller", b.teller, func(s *events.Subscriptions) {
		events.On(s, "back", func(ctx context.Context, tx *pg.Tx, e noted) error {
			if e.N == 0 {
				return nil
			}
			return events.Publish(ctx, tx, happened{e.Key, e.N - 1})
		})
	})
	b.add(t, bus, "hearer", b.hearer, func(s *events.Subscriptions) { events.On(s, "forth", handler(note)) })
	run(t, bus)
	for range 3 {
		b.publishOne(t, happened{"ball", 9})
		idle(t, bus)
	}
	if n := len(b.effects(t)); n != 30 {
		t.Errorf("%d effects, want 30", n)
	}
}

func TestBroadcast(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bus := events.NewBus(b.o)
	b.add(t, bus, "teller", b.teller, nil)
	var gateway, storefront atomic.Int64
	b.add(t, bus, "gateway", nil, func(s *events.Subscriptions) {
		events.Broadcast(s, func(ctx context.Context, e happened) { gateway.Add(1) })
	})
	b.add(t, bus, "storefront", nil, func(s *events.Subscriptions) {
		events.Broadcast(s, func(ctx context.Context, e happened) {
			if storefront.Add(1); e.N == 3 {
				panic("a cache fell over")
			}
		})
	})
	run(t, bus)
	b.publish(t, 10, 2)
	b.publishOne(t, garbled{"many"})
	idle(t, bus)
	if gateway.Load() != 10 || storefront.Load() != 10 {
		t.Errorf("gateway heard %d, storefront %d, want 10 each", gateway.Load(), storefront.Load())
	}
	err := bus.Add("storefront", nil, func(s *events.Subscriptions) { events.On(s, "test", handler(note)) })
	if err == nil || !strings.Contains(err.Error(), "no database") {
		t.Errorf("a module without a database hears: %v", err)
	}
}

func TestSubscriptionsAreKnownWithoutABus(t *testing.T) {
	t.Parallel()
	got := events.Collect("hearer", func(s *events.Subscriptions) {
		events.On(s, "test", handler(note))
		events.Broadcast(s, func(context.Context, noted) {})
	})
	want := []events.Subscription{
		{Module: "hearer", Consumer: "test", Event: "teller.test_happened.v1", Type: "events_test.happened"},
		{Module: "hearer", Event: "hearer.test_noted.v1", Type: "events_test.noted", Broadcast: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
	for name, subscribe := range map[string]func(*events.Subscriptions){
		"two of a name": func(s *events.Subscriptions) {
			events.On(s, "test", handler(note))
			events.On(s, "test", handler(note))
		},
		"no name": func(s *events.Subscriptions) { events.On(s, "", handler(note)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s is taken", name)
				}
			}()
			events.Collect("hearer", subscribe)
		}()
	}
}

func TestOldEventsAreDeleted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.KeepSent, b.o.KeepSeen = time.Millisecond, time.Millisecond
	bus := b.start(t, note)
	b.publish(t, 10, 2)
	idle(t, bus)
	drain(t, bus)
	unsent := hold(t, b.teller, happened{"k", 1})
	unsent() // committed, and no relay runs
	if err := events.Purge(t.Context(), bus); err != nil {
		t.Fatal(err)
	}
	count := func(db *pg.DB, query string) (n int) {
		t.Helper()
		if err := db.Get(t.Context(), &n, query); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(b.teller, `SELECT count(*) FROM teller.outbox`); n != 1 {
		t.Errorf("%d rows in the outbox, want the unsent one", n)
	}
	if n := count(b.hearer, `SELECT count(*) FROM hearer.inbox`); n != 0 {
		t.Errorf("%d rows in the inbox", n)
	}
}

func TestTheBacklogIsCounted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.o.MaxAttempts = 1
	counts := prometheus.NewRegistry()
	b.o.Metrics = counts
	bus := b.start(t, func(context.Context, *pg.Tx, happened) error { return errors.New("never") })
	b.publish(t, 6, 2)
	idle(t, bus)
	drain(t, bus)
	b.publish(t, 3, 1)
	mine, err := events.BacklogOf(t.Context(), b.teller)
	if err != nil {
		t.Fatal(err)
	}
	if mine.Unsent != 3 || mine.OldestUnsent <= 0 || mine.Waiting+mine.Parked != 0 {
		t.Errorf("teller: %+v", mine)
	}
	theirs, err := events.BacklogOf(t.Context(), b.hearer)
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Show(t.Context(), bus); err != nil {
		t.Fatal(err)
	}
	if waiting, parked := sum(t, counts, "banyan_events_consumer_waiting"), sum(t, counts, "banyan_events_consumer_parked"); waiting != 4 || parked != 2 {
		t.Errorf("the consumer shows %v waiting and %v parked, want 4 and 2", waiting, parked)
	}
	if theirs.Unsent != 0 || theirs.Parked != 2 || theirs.Waiting != 4 || theirs.OldestWaiting <= 0 {
		t.Errorf("hearer: %+v", theirs)
	}
}

func TestTwoThousandEvents(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bus := b.start(t, note)
	for from := 0; from < 2000; from += 100 {
		var es []events.Event
		for n := from; n < from+100; n++ {
			es = append(es, happened{fmt.Sprint("key", n%40), n})
		}
		b.publishOne(t, es...)
	}
	started := time.Now()
	idle(t, bus)
	t.Logf("2,000 events in %v", time.Since(started))
	b.wantEach(t, 2000)
}
