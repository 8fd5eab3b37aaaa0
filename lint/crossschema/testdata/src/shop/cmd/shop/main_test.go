package main

import (
	"context"

	"shop/platform/pg"
)

func look(ctx context.Context, db *pg.DB, also string) {
	db.Get(ctx, nil, `SELECT count(*) FROM orders.orders, catalog.levels`+also)
}
