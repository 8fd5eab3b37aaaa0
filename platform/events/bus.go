package events

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Options of a bus. The zero value carries within the process, and logs and counts for nobody.
type Options struct {
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  trace.TracerProvider // nil: no spans
	Carrier Carrier              // nil: InProcess()
	// Context puts the hearing module's identity into a handler's context.
	Context func(ctx context.Context, module string) context.Context

	Handlers       int           // handlers of one module at once; 0: 4, so that they leave connections for requests
	HandlerTimeout time.Duration // of one handling; 0: 10 s
	MaxAttempts    int           // before an event is parked; 0: 8
	Backoff        time.Duration // after the first failure, doubling; 0: 500 ms
	MaxBackoff     time.Duration // 0: 5 min
	Batch          int           // events of one module on their way at once; 0: 1,000
	Poll           time.Duration // looks for events of other instances and of crashes; 0: 250 ms
	Lease          time.Duration // after which another instance takes over; 0: 30 s
	KeepSent       time.Duration // age at which sent events leave the outbox; 0: 7 days
	Resend         time.Duration // what is sent again to a broker that was restarted and can't tell what it holds; 0: 15 min
	KeepSeen       time.Duration // age at which the inbox forgets, longer than any redelivery; 0: 30 days
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tracer == nil {
		o.Tracer = noop.NewTracerProvider()
	}
	if o.Carrier == nil {
		o.Carrier = InProcess()
	}
	o.Handlers = cmp.Or(o.Handlers, 4)
	o.HandlerTimeout = cmp.Or(o.HandlerTimeout, 10*time.Second)
	o.MaxAttempts = cmp.Or(o.MaxAttempts, 8)
	o.Backoff = cmp.Or(o.Backoff, 500*time.Millisecond)
	o.MaxBackoff = cmp.Or(o.MaxBackoff, 5*time.Minute)
	o.Batch = cmp.Or(o.Batch, 1000)
	o.Poll = cmp.Or(o.Poll, 250*time.Millisecond)
	o.Lease = cmp.Or(o.Lease, 30*time.Second)
	o.KeepSent = cmp.Or(o.KeepSent, 7*24*time.Hour)
	o.Resend = cmp.Or(o.Resend, 15*time.Minute)
	o.KeepSeen = cmp.Or(o.KeepSeen, 30*24*time.Hour)
}

// Bus relays and hears for the modules of one process.
type Bus struct {
	o       Options
	metrics *metrics
	members []*member
	moved   atomic.Int64 // grows with everything that happens, for WaitIdle

	stopIntake, stopHandlers, stopRelays, stopCarrying context.CancelFunc
	hearing, relaying                                  sync.WaitGroup
}

type member struct {
	module string
	db     *pg.DB
	hearer *hearer
	relay  *relay
}

// NewBus makes a bus without members.
func NewBus(o Options) *Bus {
	o.setDefaults()
	return &Bus{o: o, metrics: newMetrics(o.Metrics)}
}

// Add takes a module in, before Start. A module without a database has a nil db: it publishes nothing and may only hear
// broadcasts.
func (b *Bus) Add(module string, db *pg.DB, subscribe func(*Subscriptions)) error {
	s := &Subscriptions{module: module}
	if subscribe != nil {
		subscribe(s)
	}
	for _, sub := range s.list {
		if db == nil && !sub.Broadcast {
			return fmt.Errorf("module %s hears %s as %s but has no database to remember it in: give it a folder in db, or use a broadcast", module, sub.Event, sub.Consumer)
		}
	}
	activity := func() { b.moved.Add(1) }
	m := &member{module: module, db: db, hearer: &hearer{
		module: module, db: db, subs: s.list,
		slots: make(chan struct{}, b.o.Handlers), timeout: b.o.HandlerTimeout, identify: b.o.Context,
		tracer: b.o.Tracer.Tracer("github.com/banyan-shop/banyan/platform/events"),
		log:    b.o.Log, metrics: b.metrics, activity: activity, poll: b.o.Poll, lease: b.o.Lease, queued: make(chan struct{}, 1),
	}}
	if db != nil {
		m.hearer.begin = beginSQL(db.Schema())
		m.hearer.retry = newRetryTable(db.Schema())
		m.hearer.retry.maxAttempts, m.hearer.retry.base, m.hearer.retry.limit = b.o.MaxAttempts, b.o.Backoff, b.o.MaxBackoff
		m.relay = &relay{
			module: module, outbox: newOutbox(db), carrier: b.o.Carrier, log: b.o.Log, metrics: b.metrics,
			activity: activity, batch: b.o.Batch, poll: b.o.Poll, lease: b.o.Lease, keep: b.o.KeepSent, resend: b.o.Resend,
		}
	}
	b.members = append(b.members, m)
	return nil
}

// Start subscribes every hearer and only then starts the relays, since the in-process carrier keeps nothing for those who
// come late. The bus runs until Drain; ctx bounds only the start.
func (b *Bus) Start(ctx context.Context) error {
	life := context.WithoutCancel(ctx)
	intake, stopIntake := context.WithCancel(life)
	handling, stopHandlers := context.WithCancel(life)
	relaying, stopRelays := context.WithCancel(life)
	carrying, stopCarrying := context.WithCancel(life)
	b.stopIntake, b.stopHandlers, b.stopRelays, b.stopCarrying = stopIntake, stopHandlers, stopRelays, stopCarrying

	for _, m := range b.members {
		for _, sub := range m.hearer.subs {
			if err := b.subscribe(ctx, handling, intake, carrying, m.hearer, sub); err != nil {
				return errors.Join(err, b.Drain(ctx))
			}
		}
		if len(m.hearer.consumers()) > 0 {
			b.hearing.Go(func() { m.hearer.again(handling, intake) })
		}
	}
	if broker, ok := b.o.Carrier.(Broker); ok {
		b.relaying.Go(func() { b.watch(relaying, broker) })
	}
	for _, m := range b.members {
		if m.relay != nil {
			b.relaying.Go(func() { m.relay.run(relaying) })
			b.relaying.Go(func() { b.upkeep(relaying, m) })
		}
	}
	return nil
}

func (b *Bus) subscribe(ctx, handling, intake, carrying context.Context, h *hearer, sub subscription) error {
	group := ""
	if !sub.Broadcast {
		group = h.module + "." + sub.Consumer
	}
	subscriber, err := b.o.Carrier.Subscriber(group)
	if err != nil {
		return fmt.Errorf("subscribe %s of %s to %s: %w", sub.Consumer, h.module, sub.Event, err)
	}
	for shard := range Shards {
		topic := topicOf(sub.Event, shard)
		messages, err := subscriber.Subscribe(carrying, topic)
		if err = errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("subscribe %s of %s to %s: %w", sub.Consumer, h.module, topic, err)
		}
		b.hearing.Go(func() { h.consume(handling, intake, sub, topic, messages) })
	}
	return nil
}

// Drain stops in the order that loses nothing and doubles little: no new deliveries, running handlers finish, relays mark
// what was taken, the carrier closes. The databases may be closed after it. When ctx ends first, handlers are cut off, roll
// back and come again after the next start.
func (b *Bus) Drain(ctx context.Context) error {
	if b.stopIntake == nil {
		return b.o.Carrier.Close()
	}
	b.stopIntake()
	var cutOff error
	if !wait(ctx, &b.hearing) {
		cutOff = fmt.Errorf("drain events: handlers cut off: %w", ctx.Err())
		b.stopHandlers()
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
		wait(grace, &b.hearing)
		cancel()
	}
	b.stopHandlers()
	b.stopRelays()
	b.relaying.Wait() // bounded: a relay gives itself 5 s to lay down
	err := b.o.Carrier.Close()
	b.stopCarrying()
	return errors.Join(cutOff, err)
}

func wait(ctx context.Context, g *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}

// watch shows whether there is a connection to the broker.
func (b *Bus) watch(ctx context.Context, broker Broker) {
	for {
		c, err := broker.Connect(ctx)
		if err != nil {
			return
		}
		b.metrics.connected.Set(1)
		select {
		case <-ctx.Done():
			return
		case <-c.Lost():
			b.metrics.connected.Set(0)
		}
	}
}

// upkeep deletes what is old and shows the backlog.
func (b *Bus) upkeep(ctx context.Context, m *member) {
	show, purge := time.NewTicker(10*time.Second), time.NewTicker(10*time.Minute)
	defer show.Stop()
	defer purge.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-show.C:
			backlog, err := BacklogOf(ctx, m.db)
			var consumers []consumerBacklog
			if err == nil {
				consumers, err = backlogByConsumer(ctx, m.db)
			}
			if err == nil {
				b.metrics.show(m.module, backlog)
				b.metrics.showConsumers(m.module, m.hearer.consumers(), consumers)
			} else if ctx.Err() == nil {
				b.o.Log.Warn("look at the backlog of events", "module", m.module, "err", err)
			}
		case <-purge.C:
			if err := b.purge(ctx, m); err != nil && ctx.Err() == nil {
				b.o.Log.Warn("delete old events", "module", m.module, "err", err)
			}
		}
	}
}

func (b *Bus) purge(ctx context.Context, m *member) error {
	return errors.Join(
		deleteOld(ctx, m.db, m.relay.outbox.purge, b.o.KeepSent),
		deleteOld(ctx, m.db, purgeInboxSQL(m.db.Schema()), b.o.KeepSeen))
}

// WaitIdle returns when all that the modules of this bus published is sent and all they heard is handled or parked, or queued
// behind a parked event. What lies in a broker or in another process it cannot see.
func (b *Bus) WaitIdle(ctx context.Context) error {
	for {
		before := b.moved.Load()
		idle, err := b.isIdle(ctx)
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		// Modules are asked one after another. An event that wandered from one not yet asked to one already asked has moved.
		if idle && b.moved.Load() == before {
			return nil
		}
		pause(ctx, 5*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("wait for events: %w", ctx.Err())
		}
	}
}

func (b *Bus) isIdle(ctx context.Context) (bool, error) {
	for _, m := range b.members {
		if m.db == nil {
			continue
		}
		s := quote(m.db.Schema())
		var busy bool
		err := m.db.Get(ctx, &busy, `
			SELECT EXISTS (SELECT 1 FROM `+s+`.outbox WHERE sent_at IS NULL)
				OR EXISTS (SELECT 1 FROM `+s+`.retry AS r WHERE r.parked_at IS NULL AND r.consumer = ANY($1::text[])
					AND NOT EXISTS (SELECT 1 FROM `+s+`.retry AS p
						WHERE p.consumer = r.consumer AND p.key = r.key AND p.position < r.position AND p.parked_at IS NOT NULL))`,
			pg.Array(m.hearer.consumers()))
		if err != nil || busy {
			return false, err
		}
	}
	return true, nil
}
