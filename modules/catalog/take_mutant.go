//go:build mutant_stock

package catalog

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// A mutant: looks whether there is enough, and then writes what it saw less what it takes. The tests must notice.
func take(ctx context.Context, tx *pg.Tx, checkout ids.ID, lines []catalogapi.Quantity, until time.Time) (taken []string, err error) {
	for _, l := range lines {
		var level struct{ Available, Reserved int64 }
		err := tx.Get(ctx, &level, `
			SELECT on_hand - reserved AS available, reserved FROM catalog.levels WHERE sku = $1 AND location = 'main'`, l.SKU)
		if err != nil && !pg.NoRows(err) {
			return nil, err
		}
		if level.Available < l.Quantity {
			continue
		}
		_, err = tx.Exec(ctx, `
			WITH held AS (
				INSERT INTO catalog.reservations (checkout, sku, quantity, until) VALUES ($1, $2, $3, $4))
			UPDATE catalog.levels SET reserved = $5 WHERE sku = $2 AND location = 'main'`,
			checkout, l.SKU, l.Quantity, until, level.Reserved+l.Quantity)
		if err != nil {
			return nil, err
		}
		taken = append(taken, l.SKU)
	}
	return taken, nil
}
