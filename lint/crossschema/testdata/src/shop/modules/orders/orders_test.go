package orders_test

import (
	"context"

	"shop/platform/pg"
)

func look(ctx context.Context, db *pg.DB) {
	db.Get(ctx, nil, `SELECT count(*) FROM orders.outbox`)
	db.Get(ctx, nil, `SELECT count(*) FROM catalog.stock`) // want `names catalog.stock`
}
