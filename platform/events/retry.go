package events

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/pg"
)

// retryTable holds the events whose handling failed, and behind each those of the same consumer and key that came later. A
// row is at the head of its queue when no other of its consumer and key has a lower position. A parked head keeps its queue
// waiting; docs/decisions/events-parking.md says why.
type retryTable struct {
	maxAttempts                          int
	base, limit                          time.Duration // of the backoff
	add, due, claim, remove, see, refuse string
}

func newRetryTable(schema string) retryTable {
	t, inbox := quote(schema)+".retry", quote(schema)+".inbox"
	// at the head of its queue, and its time has come
	ready := `r.parked_at IS NULL AND r.next_at <= now() AND r.consumer = ANY($1::text[])
		AND NOT EXISTS (SELECT 1 FROM ` + t + ` AS e WHERE e.consumer = r.consumer AND e.key = r.key AND e.position < r.position)`
	return retryTable{
		add: `INSERT INTO ` + t + ` (consumer, event_id, name, key, payload, headers, occurred_at, attempts, next_at, parked_at, error)
			VALUES ($1, $2, $3, $4, $5::jsonb, $6::jsonb, $7, $8, now() + $9::bigint * interval '1 millisecond',
				CASE WHEN $10::boolean THEN now() END, $11)
			ON CONFLICT (consumer, event_id) DO NOTHING`,
		due: `SELECT EXISTS (SELECT 1 FROM ` + t + ` AS r WHERE ` + ready + `)`,
		// next_at is the lease too: a worker that dies leaves the row due again when it ends. Should it only be slow, the
		// second waits for the first at the row that both delete.
		claim: `
			WITH due AS MATERIALIZED (
				SELECT r.consumer, r.event_id FROM ` + t + ` AS r WHERE ` + ready + `
				ORDER BY r.position LIMIT $2 FOR UPDATE OF r SKIP LOCKED)
			UPDATE ` + t + ` AS r SET next_at = now() + $3::bigint * interval '1 millisecond'
			FROM due WHERE r.consumer = due.consumer AND r.event_id = due.event_id
			RETURNING r.consumer, r.event_id AS id, r.name, r.key, r.payload, r.headers, r.occurred_at, r.position, r.attempts`,
		remove: `DELETE FROM ` + t + ` WHERE consumer = $1 AND event_id = $2`,
		see: `INSERT INTO ` + inbox + ` (consumer, event_id, handled_at) VALUES ($1, $2, now())
			ON CONFLICT (consumer, event_id) DO NOTHING`,
		refuse: `UPDATE ` + t + ` SET attempts = $3, error = $4, next_at = now() + $5::bigint * interval '1 millisecond',
				parked_at = CASE WHEN $6::boolean THEN now() END
			WHERE consumer = $1 AND event_id = $2 AND parked_at IS NULL`,
	}
}

// wait is the pause after the n-th failed attempt.
func (t retryTable) wait(n int) time.Duration { return backoff(n, t.base, t.limit) }

// insert writes the row of a first failure in a transaction of its own, the handler's being rolled back.
func (t retryTable) insert(ctx context.Context, db *pg.DB, consumer string, rec record, park bool, wait time.Duration, cause error) error {
	add := func(rec record) error {
		return db.InTx(ctx, func(tx *pg.Tx) error {
			return t.write(ctx, tx, consumer, rec, 1, wait, park, cause.Error())
		})
	}
	err := add(rec)
	if err != nil && park {
		// Perhaps the payload is no JSON for PostgreSQL. As text it always is.
		err = add(rec.asText())
	}
	if err != nil {
		return fmt.Errorf("queue %s for %s: %w", rec.ID, consumer, err)
	}
	return nil
}

// enqueue puts an event behind an earlier one of its key: due at once, but only at the head of the queue.
func (t retryTable) enqueue(ctx context.Context, tx *pg.Tx, consumer string, rec record) error {
	return t.write(ctx, tx, consumer, rec, 0, 0, false, "")
}

func (t retryTable) write(ctx context.Context, tx *pg.Tx, consumer string, rec record, attempts int, wait time.Duration, park bool, reason string) error {
	_, err := tx.Exec(ctx, t.add, consumer, rec.ID, rec.Name, rec.Key, string(rec.Payload), string(rec.Headers), rec.OccurredAt,
		attempts, wait.Milliseconds(), park, short(reason))
	return err
}

// short fits an error into its column: text for PostgreSQL, and no more than a person reads.
func short(s string) string {
	const limit = 4000
	if len(s) > limit {
		s = s[:limit] + " …"
	}
	return clean(s)
}

// waiting is a claimed row.
type waiting struct {
	Consumer string `db:"consumer"`
	Attempts int    `db:"attempts"`
	record
}

// retryBatch is how many queues one round works on.
const retryBatch = 32

// again retries what is due until intake ends. Several instances may do so at once.
func (h *hearer) again(ctx, intake context.Context) {
	poll := time.NewTicker(h.poll)
	defer poll.Stop()
	consumers, failures := h.consumers(), 0
	for {
		select {
		case <-intake.Done():
			return
		case <-h.queued:
		case <-poll.C:
		}
		for intake.Err() == nil {
			n, err := h.round(ctx, intake, consumers)
			if err == nil && n > 0 {
				failures = 0
				continue // the next in a queue may be at its head now
			}
			if err != nil && intake.Err() == nil {
				if failures++; worthLogging(failures) {
					h.log.Error("retry events", "module", h.module, "failures", failures, "err", err)
				}
				pause(intake, backoff(failures, h.poll, 10*time.Second))
			}
			break
		}
	}
}

func (h *hearer) consumers() []string {
	var names []string
	for _, sub := range h.subs {
		if !sub.Broadcast {
			names = append(names, sub.Consumer)
		}
	}
	return names
}

// round tries each queue's head once and returns how many it tried.
func (h *hearer) round(ctx, intake context.Context, consumers []string) (int, error) {
	var due bool
	if err := h.db.Get(ctx, &due, h.retry.due, pg.Array(consumers)); err != nil || !due {
		return 0, err
	}
	var heads []waiting
	err := h.db.InTx(ctx, func(tx *pg.Tx) error {
		heads = heads[:0]
		return tx.Select(ctx, &heads, h.retry.claim, pg.Array(consumers), retryBatch, h.lease.Milliseconds())
	})
	if err != nil {
		return 0, err
	}
	var trying sync.WaitGroup
	for _, w := range heads {
		select {
		case <-intake.Done(): // its lease ends by itself
		case h.slots <- struct{}{}:
			trying.Go(func() {
				defer func() { <-h.slots }()
				h.tryAgain(ctx, w)
			})
		}
	}
	trying.Wait()
	return len(heads), nil
}

func (h *hearer) tryAgain(ctx context.Context, w waiting) {
	sub, rec := h.subscription(w.Consumer), w.fromText()
	run, undecodable := sub.bind(rec)
	err := undecodable
	if err == nil {
		var outcome string
		if outcome, err = h.handle(ctx, sub, rec, run, h.recordAgain); err == nil {
			_ = h.settle(sub, rec, outcome, nil)
			return
		}
	}
	attempts := w.Attempts + 1
	park := undecodable != nil || attempts >= h.retry.maxAttempts
	failpoint.Hit("events.retry.before-refusal")
	errRefuse := h.db.InTx(ctx, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, h.retry.refuse, w.Consumer, rec.ID, attempts, short(err.Error()), h.retry.wait(attempts).Milliseconds(), park)
		return err
	})
	attrs := []any{"module", h.module, "consumer", w.Consumer, "event", rec.Name, "id", rec.ID, "attempts", attempts, "err", err}
	ctx = rec.traced(ctx)
	switch {
	case errRefuse != nil: // the lease ends, and it is tried again without this attempt being counted
		h.log.ErrorContext(ctx, "note a failed attempt", append(attrs, "cause", errRefuse)...)
	case park:
		h.log.ErrorContext(ctx, "park event", attrs...)
		_ = h.settle(sub, rec, parked, nil)
	default:
		h.log.WarnContext(ctx, "handle event again; it will be tried once more", attrs...)
		_ = h.settle(sub, rec, failed, nil)
	}
}

// recordAgain takes the row out of the queue and writes the inbox row, both with the effect.
func (h *hearer) recordAgain(ctx context.Context, tx *pg.Tx, sub subscription, rec record) (string, bool, error) {
	n, err := tx.Exec(ctx, h.retry.remove, sub.Consumer, rec.ID)
	if err != nil {
		return "", false, fmt.Errorf("take from retry: %w", err)
	}
	if n == 0 {
		return duplicate, false, nil // another worker had the lease after us and is done
	}
	n, err = tx.Exec(ctx, h.retry.see, sub.Consumer, rec.ID)
	if err != nil {
		return "", false, fmt.Errorf("record in inbox: %w", err)
	}
	if n == 0 {
		return duplicate, false, nil
	}
	return handled, true, nil
}

func (h *hearer) subscription(consumer string) subscription {
	for _, sub := range h.subs {
		if sub.Consumer == consumer {
			return sub
		}
	}
	return subscription{} // not reached: rows are claimed by the names of h.subs
}
