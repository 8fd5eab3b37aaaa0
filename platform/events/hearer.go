package events

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/pg"
)

// hearer takes effect of what one module hears, in its own database.
type hearer struct {
	module   string
	db       *pg.DB // nil for a module that only hears broadcasts
	subs     []subscription
	retry    retryTable
	begin    string
	slots    chan struct{} // handlers running at once: the pool has to serve requests too
	timeout  time.Duration
	identify func(ctx context.Context, module string) context.Context
	tracer   trace.Tracer
	log      *slog.Logger
	metrics  *metrics
	activity func()
	poll     time.Duration
	lease    time.Duration // of a row being tried again
	queued   chan struct{} // a signal: the retry table has a new row
}

// An outcome of one delivery.
const (
	handled   = "handled"
	duplicate = "duplicate" // handled before
	queued    = "queued"    // behind an earlier event of its key that waits
	failed    = "failed"    // will be tried again
	parked    = "parked"    // will not be tried again by itself
)

// consume takes messages of one topic, one after another, until intake ends or the channel closes. Handlers run on ctx, which
// outlives intake, so that a drain lets them finish.
func (h *hearer) consume(ctx, intake context.Context, sub subscription, topic string, messages <-chan *message.Message) {
	for {
		select {
		case <-intake.Done():
			return
		case msg, ok := <-messages:
			if !ok {
				return
			}
			select {
			case <-intake.Done():
				msg.Nack()
				return
			case h.slots <- struct{}{}:
			}
			err := h.receive(ctx, sub, topic, msg)
			<-h.slots
			if err == nil {
				msg.Ack()
				continue
			}
			// Nothing is recorded anywhere, so it has to come again. The pause is ours: carriers redeliver at once.
			h.log.Error("neither handle an event nor queue it", "module", h.module, "consumer", sub.Consumer, "event", sub.Event, "id", msg.UUID, "err", err)
			pause(intake, backoff(1, time.Second, time.Second))
			msg.Nack()
		}
	}
}

// receive returns nil once the event is handled, queued or parked, which is when it may be acknowledged.
func (h *hearer) receive(ctx context.Context, sub subscription, topic string, msg *message.Message) error {
	rec, err := fromMessage(topic, msg)
	var run handling
	if err == nil {
		run, err = sub.bind(rec)
	}
	if sub.Broadcast {
		h.broadcast(ctx, sub, rec, run, err)
		return nil
	}
	if err != nil {
		// Trying again would not make it readable, and dropping it would lose it.
		h.log.ErrorContext(rec.traced(ctx), "park event", "module", h.module, "consumer", sub.Consumer, "event", rec.Name, "id", rec.ID, "err", err)
		return h.settle(sub, rec, parked, h.retry.insert(ctx, h.db, sub.Consumer, rec, true, 0, err))
	}
	outcome, err := h.handle(ctx, sub, rec, run, h.record)
	if err == nil {
		return h.settle(sub, rec, outcome, nil)
	}
	h.log.WarnContext(rec.traced(ctx), "handle event; it will be tried again", "module", h.module, "consumer", sub.Consumer, "event", rec.Name, "id", rec.ID, "err", err)
	failpoint.Hit("events.retry.before-row")
	err = h.retry.insert(ctx, h.db, sub.Consumer, rec, false, h.retry.wait(1), err)
	if err == nil {
		failpoint.Hit("events.retry.after-row")
	}
	return h.settle(sub, rec, failed, err)
}

// bind makes the handler's call for one event. Its error means that trying again would not help.
func (sub subscription) bind(rec record) (run handling, err error) {
	if rec.Name != sub.Event {
		return nil, fmt.Errorf("%s came by the topic of %s", rec.Name, sub.Event)
	}
	err = guard(func() (err error) {
		run, err = sub.decode(rec.Payload)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decode %s as %s: %w", rec.Name, sub.Type, err)
	}
	return run, nil
}

// settle counts an outcome that is recorded in the database.
func (h *hearer) settle(sub subscription, rec record, outcome string, err error) error {
	if err != nil {
		return err
	}
	h.activity()
	h.metrics.outcomes.WithLabelValues(h.module, sub.Consumer, outcome).Inc()
	switch outcome {
	case handled:
		h.metrics.lag.WithLabelValues(h.module, sub.Consumer).Observe(time.Since(rec.OccurredAt).Seconds())
	case queued, failed:
		select {
		case h.queued <- struct{}{}:
		default:
		}
	}
	return nil
}

// verdict of recording a delivery in the inbox.
type verdict struct {
	Waiting bool `db:"waiting"` // an earlier event of this consumer and key waits in retry
	Fresh   bool `db:"fresh"`   // this delivery is the first to take effect
}

func beginSQL(schema string) string {
	s := quote(schema)
	return `
		WITH waiting AS (
			SELECT 1 FROM ` + s + `.retry WHERE consumer = $1 AND key = $3 LIMIT 1),
		fresh AS (` + freshSQL(s+".inbox") + `)
		SELECT EXISTS (SELECT 1 FROM waiting) AS waiting, EXISTS (SELECT 1 FROM fresh) AS fresh`
}

// record writes the inbox row of a delivery, or queues the event behind an earlier one of its key. ok is false when there is
// nothing left to do but commit.
func (h *hearer) record(ctx context.Context, tx *pg.Tx, sub subscription, rec record) (outcome string, ok bool, err error) {
	var v verdict
	if err := tx.Get(ctx, &v, h.begin, sub.Consumer, rec.ID, rec.Key); err != nil {
		return "", false, fmt.Errorf("record in inbox: %w", err)
	}
	switch {
	case v.Waiting:
		return queued, false, h.retry.enqueue(ctx, tx, sub.Consumer, rec)
	case !v.Fresh:
		return duplicate, false, nil
	}
	return handled, true, nil
}

// handle runs the handler in one transaction with the row that remembers it, which begin writes.
func (h *hearer) handle(ctx context.Context, sub subscription, rec record, run handling,
	begin func(context.Context, *pg.Tx, subscription, record) (string, bool, error)) (outcome string, err error) {

	ctx, end := h.context(ctx, sub, rec)
	defer func() { end(err) }()
	started := time.Now()
	err = h.db.InTx(ctx, func(tx *pg.Tx) error {
		var ok bool
		var err error
		if outcome, ok, err = begin(ctx, tx, sub, rec); err != nil || !ok {
			return err
		}
		if err := guard(func() error { return run(ctx, tx) }); err != nil {
			return err
		}
		failpoint.Hit("events.hearer.before-commit")
		return nil
	})
	if err != nil {
		return "", err
	}
	failpoint.Hit("events.hearer.after-commit")
	if outcome == handled {
		h.metrics.duration.WithLabelValues(h.module, sub.Consumer).Observe(time.Since(started).Seconds())
	}
	return outcome, nil
}

func (h *hearer) broadcast(ctx context.Context, sub subscription, rec record, run handling, err error) {
	if err == nil {
		ctx, end := h.context(ctx, sub, rec)
		err = guard(func() error { return run(ctx, nil) })
		end(err)
	}
	outcome := handled
	if err != nil {
		outcome = failed
		h.log.WarnContext(rec.traced(ctx), "handle broadcast", "module", h.module, "event", rec.Name, "id", rec.ID, "err", err)
	}
	h.activity()
	h.metrics.outcomes.WithLabelValues(h.module, "broadcast", outcome).Inc()
}

// context is what a handler gets: its module's identity, the envelope, the publisher's trace and a deadline.
func (h *hearer) context(ctx context.Context, sub subscription, rec record) (context.Context, func(error)) {
	ctx = context.WithValue(rec.traced(ctx), envelopeKey{}, rec.envelope())
	if h.identify != nil {
		ctx = h.identify(ctx, h.module)
	}
	ctx, span := h.tracer.Start(ctx, "hear "+rec.Name, trace.WithSpanKind(trace.SpanKindConsumer))
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	return ctx, func(err error) {
		cancel()
		if err != nil {
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// guard makes a panic an error: one bad event must not end the process, and with it all other modules.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
