package notifications

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// message is a row of notifications.messages.
type message struct {
	ID        ids.ID          `db:"id"`
	Event     string          `db:"event_id"`
	Template  string          `db:"template"`
	Recipient string          `db:"recipient"`
	Locale    string          `db:"locale"`
	Data      json.RawMessage `db:"data"`
	Attempts  int             `db:"attempts"`
	Next      time.Time       `db:"next_at"`
	CreatedAt time.Time       `db:"created_at"`
}

func insertMessage(ctx context.Context, tx *pg.Tx, m message) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO notifications.messages (id, event_id, template, channel, recipient, locale, data, state, next_at, created_at)
		VALUES ($1, $2, $3, 'email', $4, $5, $6::jsonb, 'pending', $7, $8)
		ON CONFLICT (event_id, template, recipient, channel) DO NOTHING`,
		m.ID, m.Event, m.Template, m.Recipient, m.Locale, string(m.Data), m.Next, m.CreatedAt)
	return err
}

// messagesDue says whether a message is due: a plain read, so that looking in vain costs no transaction.
func messagesDue(ctx context.Context, q pg.Queryer, now time.Time) (due bool, err error) {
	err = q.Get(ctx, &due, `SELECT EXISTS (SELECT FROM notifications.messages WHERE state = 'pending' AND next_at <= $1)`, now)
	return due, err
}

// leaseMessages takes up to n due messages; one that is not ended by until is taken again.
func leaseMessages(ctx context.Context, tx *pg.Tx, now, until time.Time, n int) ([]message, error) {
	var ms []message
	err := tx.Select(ctx, &ms, `
		UPDATE notifications.messages m SET next_at = $2, attempts = attempts + 1
		WHERE id IN (
			SELECT id FROM notifications.messages WHERE state = 'pending' AND next_at <= $1
			ORDER BY next_at LIMIT $3 FOR UPDATE SKIP LOCKED
		)
		RETURNING id, event_id, template, recipient, locale, data, attempts, next_at, created_at`, now, until, n)
	return ms, err
}

// ending is what became of a message.
type ending struct {
	ID       ids.ID
	Lease    int    // its attempts when it was leased
	State    string // sent, pending (again at Next), dead
	Attempts int
	Error    string
	Next     time.Time
}

// endMessages writes what became of messages, those left out whose lease has passed to another: what that one did stands.
func endMessages(ctx context.Context, tx *pg.Tx, ends []ending, now time.Time) error {
	var id, state, reason []string
	var lease, attempts []int64
	var next []time.Time
	for _, e := range ends {
		id, state, reason, next = append(id, string(e.ID)), append(state, e.State), append(reason, e.Error), append(next, e.Next)
		lease, attempts = append(lease, int64(e.Lease)), append(attempts, int64(e.Attempts))
	}
	_, err := tx.Exec(ctx, `
		UPDATE notifications.messages m
		SET state = e.state, error = e.error, next_at = e.next_at, attempts = e.attempts,
		    sent_at = CASE WHEN e.state = 'sent' THEN $7::timestamptz END
		FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::int[], $6::int[])
			AS e (id, state, error, next_at, lease, attempts)
		WHERE m.id = e.id AND m.state = 'pending' AND m.attempts = e.lease`,
		pg.Array(id), pg.Array(state), pg.Array(reason), pg.Array(next), pg.Array(lease), pg.Array(attempts), now)
	return err
}

// sunk is a row of notifications.sink.
type sunk struct {
	Message   ids.ID    `db:"message" json:"id"`
	Recipient string    `db:"recipient" json:"to"`
	Subject   string    `db:"subject" json:"subject"`
	Text      string    `db:"body_text" json:"text"`
	HTML      string    `db:"body_html" json:"html"`
	At        time.Time `db:"at" json:"sent_at"`
}

func insertSunk(ctx context.Context, tx *pg.Tx, s sunk) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO notifications.sink (message, recipient, subject, body_text, body_html, at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (message) DO NOTHING`, s.Message, s.Recipient, s.Subject, s.Text, s.HTML, s.At)
	return err
}

// newestSunk are the last 100 mails, to one address if it is not empty.
func newestSunk(ctx context.Context, q pg.Queryer, to string) ([]sunk, error) {
	var s []sunk
	err := q.Select(ctx, &s, `
		SELECT message, recipient, subject, body_text, body_html, at FROM notifications.sink
		WHERE $1 = '' OR recipient = $1 ORDER BY at DESC, message DESC LIMIT 100`, to)
	if err != nil {
		return nil, fmt.Errorf("mails of the sink: %w", err)
	}
	return s, nil
}
