package events

import (
	"context"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Claim leases events as a relay does that dies right after.
func Claim(ctx context.Context, db *pg.DB, n int, lease time.Duration) (int, error) {
	claimed, err := newOutbox(db).markAndClaim(ctx, nil, n, lease, nil)
	return len(claimed), err
}

// Leased counts the leases that have not ended.
func Leased(ctx context.Context, db *pg.DB) (n int, err error) {
	err = db.Get(ctx, &n, `SELECT count(*) FROM `+quote(db.Schema())+`.outbox WHERE sent_at IS NULL AND lease_until > now()`)
	return n, err
}

// Purge is one round of a bus's upkeep.
func Purge(ctx context.Context, b *Bus) error {
	for _, m := range b.members {
		if err := b.purge(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

// Record and its reading, for the fuzz test.
type Record = record

var FromMessage = fromMessage

func (r record) Message() *message.Message { return r.message() }
func (r record) AsText() record            { return r.asText() }
func (r record) FromText() record {
	return r.fromText()
}

// Show is another round of it.
func Show(ctx context.Context, b *Bus) error {
	for _, m := range b.members {
		list, err := backlogByConsumer(ctx, m.db)
		if err != nil {
			return err
		}
		b.metrics.showConsumers(m.module, m.hearer.consumers(), list)
	}
	return nil
}
