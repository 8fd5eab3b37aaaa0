package main

import (
	"context"

	"shop/platform/pg"
)

func main() {}

func bad(ctx context.Context, db *pg.DB) {
	db.Get(ctx, nil, `SELECT id FROM orders.orders`) // want `a program holds no SQL: give the module a method`
}
