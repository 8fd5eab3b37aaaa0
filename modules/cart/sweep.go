package cart

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

const (
	sweepEvery = 10 * time.Minute
	sweepChunk = 500 // carts a transaction, so that none is long
)

// Run deletes expired carts until ctx ends.
func (m *Module) Run(ctx context.Context) {
	t := time.NewTicker(sweepEvery)
	defer t.Stop()
	for {
		if _, err := m.sweep(ctx); err != nil && ctx.Err() == nil {
			m.Log.Error("delete expired carts", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// sweep deletes the carts that have expired, chunk by chunk, and says how many.
func (m *Module) sweep(ctx context.Context) (total int64, err error) {
	for ctx.Err() == nil {
		var n int64
		err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
			n, err = deleteExpired(ctx, tx, m.Now(), sweepChunk)
			return err
		})
		total += n
		if err != nil || n < sweepChunk {
			return total, err
		}
	}
	return total, nil
}
