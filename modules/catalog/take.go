//go:build !mutant_stock

package catalog

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// take is one statement: the promise and the stock it stands on. Of several SKUs the levels are locked in order first. It returns
// the SKUs of which there was enough.
func take(ctx context.Context, tx *pg.Tx, checkout ids.ID, lines []catalogapi.Quantity, until time.Time) (taken []string, err error) {
	if len(lines) == 1 {
		err = tx.Select(ctx, &taken, `
			WITH held AS (
				INSERT INTO catalog.reservations (checkout, sku, quantity, until) VALUES ($1, $2, $3, $4))
			UPDATE catalog.levels SET reserved = reserved + $3
			WHERE sku = $2 AND location = 'main' AND on_hand - reserved >= $3 RETURNING sku`,
			checkout, lines[0].SKU, lines[0].Quantity, until)
		return taken, err
	}
	skus, quantities := columns(lines)
	err = tx.Select(ctx, &taken, `
		WITH want AS (
			SELECT w.sku, w.n FROM unnest($2::text[], $3::bigint[]) AS w (sku, n)),
		held AS (
			INSERT INTO catalog.reservations (checkout, sku, quantity, until) SELECT $1, w.sku, w.n, $4 FROM want w),
		locked AS (
			SELECT l.sku FROM catalog.levels l WHERE l.sku = ANY ($2) AND l.location = 'main' ORDER BY l.sku FOR UPDATE)
		UPDATE catalog.levels AS l SET reserved = l.reserved + w.n
		FROM locked k JOIN want w ON w.sku = k.sku
		WHERE l.sku = k.sku AND l.location = 'main' AND l.on_hand - l.reserved >= w.n RETURNING l.sku`,
		checkout, pg.Array(skus), pg.Array(quantities), until)
	return taken, err
}
