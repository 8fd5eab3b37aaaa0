package events

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Publish writes events to the outbox of tx's module: they are sent if and only if tx commits. It is one statement for all
// of them. A module publishes only events of its own name, and each needs a key.
func Publish(ctx context.Context, tx *pg.Tx, es ...Event) error {
	if len(es) == 0 {
		return nil
	}
	headers := string(encodeHeaders(traceOf(ctx)))
	n := len(es)
	id, name, key, payload := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	for i, e := range es {
		name[i], key[i] = e.EventName(), e.EventKey()
		if owner, _, _ := strings.Cut(name[i], "."); owner != tx.Schema() {
			return fmt.Errorf("publish %s: module %s publishes only events named %s.…", name[i], tx.Schema(), tx.Schema())
		}
		if key[i] == "" {
			return fmt.Errorf("publish %s: it has no key, so it would have no order", name[i])
		}
		b, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("publish %s of %s: %w", name[i], key[i], err)
		}
		id[i], payload[i] = ids.New[string]("evt"), string(b)
	}
	// The order of the ordinals becomes the order of the positions.
	_, err := tx.Exec(ctx, `
		INSERT INTO `+quote(tx.Schema())+`.outbox (id, name, key, payload, headers, occurred_at)
		SELECT e.id, e.name, e.key, e.payload::jsonb, $5::jsonb, now()
		FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS e (id, name, key, payload, n)
		ORDER BY e.n`,
		pg.Array(id), pg.Array(name), pg.Array(key), pg.Array(payload), headers)
	if err != nil {
		return fmt.Errorf("publish %s of %s: %w", name[0], key[0], err)
	}
	failpoint.Hit("events.publish.before-commit")
	tx.AfterCommit(func() { failpoint.Hit("events.publish.after-commit") })
	tx.WakeAfterCommit()
	return nil
}

// outbox is the relay's side of one module's outbox. SQL names the schema, which is the same for the life of a pool, so the
// statements are as good as constant.
type outbox struct {
	db                                                             *pg.DB
	waiting, lock, claim, claimAround, renew, mark, release, purge string
}

func newOutbox(db *pg.DB) outbox {
	t := quote(db.Schema()) + ".outbox"
	return outbox{
		db: db,
		waiting: `SELECT EXISTS (SELECT 1 FROM ` + t + `
			WHERE sent_at IS NULL AND (lease_until IS NULL OR lease_until < now()))`,
		// One claim at a time in a schema, or a second relay would skip the locked first event of a key and take the next.
		// The settings hold for the transaction: whatever the statistics say of a table that changes all the time, a claim walks
		// the index of positions from its beginning and does not sort the whole backlog.
		lock: `SELECT pg_advisory_xact_lock(hashtextextended('banyan.events.claim:' || $1::text, 0)),
			set_config('enable_bitmapscan', 'off', true), set_config('enable_seqscan', 'off', true), set_config('enable_sort', 'off', true)`,
		// claim looks for foreign leases once; claimAround looks for each event, so that a long queue behind another relay's
		// event does not hide the keys after it.
		claim: `
			WITH next AS MATERIALIZED (
				SELECT o.id, o.key, o.position FROM ` + t + ` AS o
				WHERE o.sent_at IS NULL AND (o.lease_until IS NULL OR o.lease_until < now())
				ORDER BY o.position LIMIT $1 FOR UPDATE SKIP LOCKED),
			theirs AS MATERIALIZED (
				SELECT e.key, min(e.position) AS position FROM ` + t + ` AS e
				WHERE e.sent_at IS NULL AND e.lease_until >= now() AND e.position < (SELECT max(position) FROM next)
				AND e.id NOT IN (SELECT unnest($3::text[]))
				GROUP BY e.key),
			free AS MATERIALIZED (
				SELECT next.id FROM next LEFT JOIN theirs ON theirs.key = next.key AND theirs.position < next.position
				WHERE theirs.key IS NULL)
			UPDATE ` + t + ` AS o SET lease_until = now() + $2::bigint * interval '1 millisecond'
			FROM free WHERE o.id = free.id AND o.id NOT IN (SELECT unnest($3::text[]))
			RETURNING o.id, o.name, o.key, o.payload, o.headers, o.occurred_at, o.position, (SELECT count(*) FROM next) AS seen`,
		claimAround: `
			WITH next AS MATERIALIZED (
				SELECT o.id FROM ` + t + ` AS o
				WHERE o.sent_at IS NULL AND (o.lease_until IS NULL OR o.lease_until < now()) AND o.id <> ALL($3::text[])
				AND NOT EXISTS (SELECT 1 FROM ` + t + ` AS e
					WHERE e.key = o.key AND e.sent_at IS NULL AND e.position < o.position AND e.lease_until >= now()
					AND e.id <> ALL($3::text[]))
				ORDER BY o.position LIMIT $1 FOR UPDATE SKIP LOCKED)
			UPDATE ` + t + ` AS o SET lease_until = now() + $2::bigint * interval '1 millisecond'
			FROM next WHERE o.id = next.id
			RETURNING o.id, o.name, o.key, o.payload, o.headers, o.occurred_at, o.position`,
		renew: `UPDATE ` + t + ` SET lease_until = now() + $2::bigint * interval '1 millisecond'
			WHERE id = ANY($1::text[]) AND sent_at IS NULL`,
		// sent_at is in the order of publishing, also within one statement: that is how a forgotten tail is told.
		mark: `UPDATE ` + t + ` AS o SET sent_at = now() - (cardinality($1::text[]) - d.n) * interval '1 microsecond', lease_until = NULL
			FROM unnest($1::text[]) WITH ORDINALITY AS d (id, n) WHERE o.id = d.id AND o.sent_at IS NULL`,
		release: `UPDATE ` + t + ` SET lease_until = NULL WHERE id = ANY($1::text[]) AND sent_at IS NULL`,
		purge: `DELETE FROM ` + t + ` WHERE id IN (SELECT id FROM ` + t + `
			WHERE sent_at < now() - $1::bigint * interval '1 millisecond' LIMIT $2)`,
	}
}

// isWaiting is a cheap look, for the poll.
func (o outbox) isWaiting(ctx context.Context) (bool, error) {
	var yes bool
	err := o.db.Get(ctx, &yes, o.waiting)
	return yes, err
}

// candidate is a claimed row, and how many were looked at with it.
type candidate struct {
	Seen int `db:"seen"`
	record
}

// markAndClaim marks done, in the order of their publishing, as sent and leases up to room further events for lease, in the order of their positions. own are
// the events leased to the caller already. Both are one transaction because both happen all the time.
func (o outbox) markAndClaim(ctx context.Context, done []string, room int, lease time.Duration, own []string) ([]record, error) {
	var claimed []record
	err := o.db.InTx(ctx, func(tx *pg.Tx) error {
		claimed = claimed[:0]
		if len(done) > 0 {
			if _, err := tx.Exec(ctx, o.mark, pg.Array(done)); err != nil {
				return err
			}
		}
		if room <= 0 {
			return nil
		}
		if _, err := tx.Exec(ctx, o.lock, o.db.Schema()); err != nil {
			return err
		}
		var free []candidate
		if err := tx.Select(ctx, &free, o.claim, room, lease.Milliseconds(), pg.Array(own)); err != nil {
			return err
		}
		for _, c := range free {
			claimed = append(claimed, c.record)
		}
		if len(free) == room || len(free) > 0 && free[0].Seen < room {
			return nil
		}
		// What was looked at may all be behind foreign leases.
		known := slices.Clone(own)
		for _, rec := range claimed {
			known = append(known, rec.ID)
		}
		var around []record
		if err := tx.Select(ctx, &around, o.claimAround, room-len(claimed), lease.Milliseconds(), pg.Array(known)); err != nil {
			return err
		}
		claimed = append(claimed, around...)
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(claimed, func(a, b record) int { return cmp.Compare(a.Position, b.Position) })
	return claimed, nil
}

func (o outbox) renewLeases(ctx context.Context, ids []string, lease time.Duration) error {
	return o.db.InTx(ctx, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, o.renew, pg.Array(ids), lease.Milliseconds())
		return err
	})
}

func (o outbox) releaseLeases(ctx context.Context, ids []string) error {
	return o.db.InTx(ctx, func(tx *pg.Tx) error {
		_, err := tx.Exec(ctx, o.release, pg.Array(ids))
		return err
	})
}

// deleteOld removes rows in short transactions until none is older than age.
func deleteOld(ctx context.Context, db *pg.DB, query string, age time.Duration) error {
	const chunk = 1000
	for {
		var n int64
		err := db.InTx(ctx, func(tx *pg.Tx) (err error) {
			n, err = tx.Exec(ctx, query, age.Milliseconds(), chunk)
			return err
		})
		if err != nil || n < chunk {
			return err
		}
	}
}

func quote(schema string) string { return `"` + strings.ReplaceAll(schema, `"`, `""`) + `"` }

func purgeInboxSQL(schema string) string {
	t := quote(schema) + ".inbox"
	return `DELETE FROM ` + t + ` WHERE (consumer, event_id) IN (SELECT consumer, event_id FROM ` + t + `
		WHERE handled_at < now() - $1::bigint * interval '1 millisecond' LIMIT $2)`
}
