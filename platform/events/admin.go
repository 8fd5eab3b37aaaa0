package events

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// ParkedEvent is an event that a hearer gave up on. It waits for Replay or Discard, and the later events of its key wait
// behind it. The payload is left out: it may hold what an operator has no business to see.
type ParkedEvent struct {
	Consumer   string    `db:"consumer" json:"consumer"`
	EventID    string    `db:"event_id" json:"event_id"`
	Name       string    `db:"name" json:"name"`
	Key        string    `db:"key" json:"key"`
	OccurredAt time.Time `db:"occurred_at" json:"occurred_at"`
	ParkedAt   time.Time `db:"parked_at" json:"parked_at"`
	Attempts   int       `db:"attempts" json:"attempts"`
	Error      string    `db:"error" json:"error"`
	Behind     int       `db:"behind" json:"behind"` // how many events wait behind it
}

// Parked lists what the module of db has parked, oldest first.
func Parked(ctx context.Context, db *pg.DB) ([]ParkedEvent, error) {
	t := quote(db.Schema()) + ".retry"
	var list []ParkedEvent
	err := db.Select(ctx, &list, `
		SELECT r.consumer, r.event_id, r.name, r.key, r.occurred_at, r.parked_at, r.attempts, COALESCE(r.error, '') AS error,
			(SELECT count(*) FROM `+t+` AS l WHERE l.consumer = r.consumer AND l.key = r.key AND l.position > r.position) AS behind
		FROM `+t+` AS r WHERE r.parked_at IS NOT NULL ORDER BY r.position`)
	if err != nil {
		return nil, fmt.Errorf("list parked events of %s: %w", db.Schema(), err)
	}
	return list, nil
}

// Replay gives parked events of a consumer all their attempts again, at once, and returns how many it found. Without ids it
// replays all that the consumer has parked.
func Replay(ctx context.Context, db *pg.DB, consumer string, eventIDs ...string) (int, error) {
	var n int64
	err := db.InTx(ctx, func(tx *pg.Tx) (err error) {
		n, err = tx.Exec(ctx, `
			UPDATE `+quote(db.Schema())+`.retry SET parked_at = NULL, attempts = 0, next_at = now()
			WHERE consumer = $1 AND parked_at IS NOT NULL AND ($2::boolean OR event_id = ANY($3::text[]))`,
			consumer, len(eventIDs) == 0, pg.Array(eventIDs))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("replay events of %s: %w", consumer, err)
	}
	return int(n), nil
}

// Discard decides that parked events shall never take effect at a consumer, so that those behind them go on. The inbox
// remembers them as seen, so that a late delivery does not bring them back. It returns how many it found.
func Discard(ctx context.Context, db *pg.DB, consumer string, eventIDs ...string) (int, error) {
	s := quote(db.Schema())
	var n int64
	err := db.InTx(ctx, func(tx *pg.Tx) (err error) {
		n, err = tx.Exec(ctx, `
			WITH gone AS (
				DELETE FROM `+s+`.retry WHERE consumer = $1 AND event_id = ANY($2::text[]) AND parked_at IS NOT NULL
				RETURNING consumer, event_id)
			INSERT INTO `+s+`.inbox (consumer, event_id, handled_at) SELECT consumer, event_id, now() FROM gone
			ON CONFLICT (consumer, event_id) DO NOTHING`, consumer, pg.Array(eventIDs))
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("discard events of %s: %w", consumer, err)
	}
	return int(n), nil
}

// Backlog is what a module has still to send and to handle.
type Backlog struct {
	Unsent        int           // in the outbox
	OldestUnsent  time.Duration // its age, by the database's clock
	Waiting       int           // at the hearer: to be tried again, or behind one that is
	Parked        int
	OldestWaiting time.Duration // of those waiting and parked
}

// BacklogOf asks the database of one module.
func BacklogOf(ctx context.Context, db *pg.DB) (Backlog, error) {
	s := quote(db.Schema())
	var row struct {
		Unsent        int     `db:"unsent"`
		OldestUnsent  float64 `db:"oldest_unsent"`
		Waiting       int     `db:"waiting"`
		Parked        int     `db:"parked"`
		OldestWaiting float64 `db:"oldest_waiting"`
	}
	err := db.Get(ctx, &row, `
		SELECT o.unsent, o.oldest AS oldest_unsent, r.waiting, r.parked, r.oldest AS oldest_waiting
		FROM (SELECT count(*) AS unsent, COALESCE(extract(epoch FROM now() - min(occurred_at)), 0)::double precision AS oldest
				FROM `+s+`.outbox WHERE sent_at IS NULL) AS o,
			(SELECT count(*) FILTER (WHERE parked_at IS NULL) AS waiting, count(parked_at) AS parked,
				COALESCE(extract(epoch FROM now() - min(occurred_at)), 0)::double precision AS oldest
				FROM `+s+`.retry) AS r`)
	if err != nil {
		return Backlog{}, fmt.Errorf("backlog of %s: %w", db.Schema(), err)
	}
	seconds := func(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }
	return Backlog{row.Unsent, seconds(row.OldestUnsent), row.Waiting, row.Parked, seconds(row.OldestWaiting)}, nil
}

// consumerBacklog is what one consumer has still to handle.
type consumerBacklog struct {
	Consumer string `db:"consumer"`
	Waiting  int    `db:"waiting"`
	Parked   int    `db:"parked"`
}

// backlogByConsumer leaves out consumers that have nothing waiting.
func backlogByConsumer(ctx context.Context, db *pg.DB) ([]consumerBacklog, error) {
	var list []consumerBacklog
	err := db.Select(ctx, &list, `
		SELECT consumer, count(*) FILTER (WHERE parked_at IS NULL) AS waiting, count(parked_at) AS parked
		FROM `+quote(db.Schema())+`.retry GROUP BY consumer`)
	if err != nil {
		return nil, fmt.Errorf("backlog of %s by consumer: %w", db.Schema(), err)
	}
	return list, nil
}
