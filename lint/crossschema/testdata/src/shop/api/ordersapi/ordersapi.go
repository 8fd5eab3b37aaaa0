package ordersapi

import (
	"context"

	"shop/platform/pg"
)

func bad(ctx context.Context, db *pg.DB) {
	db.Get(ctx, nil, `SELECT 1 FROM orders.orders`) // want `a contract holds no SQL`
}
