package storefront

import (
	"context"

	"shop/platform/pg"
)

func bad(ctx context.Context, db *pg.DB) {
	db.Get(ctx, nil, `SELECT 1`) // want `there is no db/storefront, so module storefront has no schema and holds no SQL`
}
