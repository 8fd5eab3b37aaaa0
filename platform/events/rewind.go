package events

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// tail is how long before the newest message that a broker holds another may have been sent that it forgot: topics reach the
// disk one after another, and relays of several instances mark a little out of order.
const tail = time.Minute

// page is how many sent events are compared, or sent again, in one statement.
const page = 5000

// sentRow is an event that was sent, as far as the comparison needs it.
type sentRow struct {
	ID     string    `db:"id"`
	Name   string    `db:"name"`
	Key    string    `db:"key"`
	SentAt time.Time `db:"sent_at"`
}

// heal compares what is marked as sent with what the broker holds, makes unsent again what it forgot, and returns how many
// events that is. When nothing was forgotten it reads one minute of the outbox. It comes before the first publish on a
// connection, so that a forgotten event goes before the later ones of its key. docs/decisions/event-carriers.md says why it
// is enough.
func (r *relay) heal(ctx context.Context, c Connection) (int, error) {
	// Whatever is marked before this moment was published before the broker answers.
	var asked time.Time
	if err := r.outbox.db.Get(ctx, &asked, `SELECT clock_timestamp()`); err != nil {
		return 0, err
	}
	m, err := c.Memory(ctx, r.module)
	if err != nil || m.Intact {
		return 0, err
	}
	var n int
	if m.Newest == nil {
		n, err = r.outbox.resend(ctx, asked, r.resend)
	} else {
		n, err = r.outbox.rewind(ctx, m.Newest, asked, r.keep)
	}
	if err == nil && m.Settled != nil {
		err = m.Settled(ctx)
	}
	return n, err
}

// rewind makes unsent what was sent after the newest message held of its topic.
func (o outbox) rewind(ctx context.Context, newest map[string]string, asked time.Time, keep time.Duration) (int, error) {
	held, err := o.sentTimes(ctx, newest)
	if err != nil {
		return 0, err
	}
	from := asked.Add(-keep)
	for _, at := range held {
		if at = at.Add(-tail); at.After(from) {
			from = at
		}
	}
	return o.unsend(ctx, from, asked, func(row sentRow) bool {
		at, known := held[Topic(row.Name, row.Key)]
		return !known || row.SentAt.After(at)
	})
}

// resend makes unsent all that was sent within the last d before the last event was.
func (o outbox) resend(ctx context.Context, asked time.Time, d time.Duration) (int, error) {
	var last *time.Time
	err := o.db.Get(ctx, &last, `SELECT max(sent_at) FROM `+quote(o.db.Schema())+`.outbox WHERE sent_at IS NOT NULL`)
	if err != nil || last == nil {
		return 0, err
	}
	return o.unsend(ctx, last.Add(-d), asked, func(sentRow) bool { return true })
}

// sentTimes are the moments by topic at which its newest message was sent, by the database's clock; at the latest, for
// one that another relay is just about to mark. Messages that are not in the outbox are left out.
func (o outbox) sentTimes(ctx context.Context, newest map[string]string) (map[string]time.Time, error) {
	topics, ids := make(map[string]string, len(newest)), make([]string, 0, len(newest))
	for topic, id := range newest {
		topics[id] = topic
		ids = append(ids, id)
	}
	held := make(map[string]time.Time, len(newest))
	// A second is long for a mark, unless its relay is gone.
	for late := time.Now().Add(time.Second); ; pause(ctx, 20*time.Millisecond) {
		var rows []struct {
			ID         string     `db:"id"`
			SentAt     *time.Time `db:"sent_at"`
			OccurredAt time.Time  `db:"occurred_at"`
		}
		err := o.db.Select(ctx, &rows, `SELECT id, sent_at, occurred_at FROM `+quote(o.db.Schema())+`.outbox WHERE id = ANY($1::text[])`, pg.Array(ids))
		if err != nil {
			return nil, err
		}
		unmarked := false
		for _, row := range rows {
			// Unmarked, it still was sent after it occurred, and so was whatever was sent after it.
			held[topics[row.ID]] = row.OccurredAt
			if row.SentAt != nil {
				held[topics[row.ID]] = *row.SentAt
			} else {
				unmarked = true
			}
		}
		if !unmarked || time.Now().After(late) || ctx.Err() != nil {
			return held, ctx.Err()
		}
	}
}

// unsend makes unsent those rows sent after from and not after to for which forgotten holds, oldest first. A crash between
// two pages does no harm: whoever sends next compares first.
func (o outbox) unsend(ctx context.Context, from, to time.Time, forgotten func(sentRow) bool) (total int, err error) {
	t := quote(o.db.Schema()) + ".outbox"
	var last string
	for {
		var rows []sentRow
		err := o.db.Select(ctx, &rows, `SELECT id, name, key, sent_at FROM `+t+`
			WHERE sent_at >= $1 AND (sent_at > $1 OR id > $2) AND sent_at <= $3 ORDER BY sent_at, id LIMIT $4`, from, last, to, page)
		if err != nil {
			return total, fmt.Errorf("look at sent events: %w", err)
		}
		var ids []string
		for _, row := range rows {
			if from, last = row.SentAt, row.ID; forgotten(row) {
				ids = append(ids, row.ID)
			}
		}
		if len(ids) > 0 {
			err = o.db.InTx(ctx, func(tx *pg.Tx) error {
				n, err := tx.Exec(ctx, `UPDATE `+t+` SET sent_at = NULL, lease_until = NULL
					WHERE id = ANY($1::text[]) AND sent_at <= $2`, pg.Array(ids), to)
				total += int(n)
				return err
			})
			if err != nil {
				return total, fmt.Errorf("make events unsent: %w", err)
			}
		}
		if len(rows) < page {
			return total, nil
		}
	}
}
