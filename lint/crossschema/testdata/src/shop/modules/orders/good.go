package orders

import (
	"context"

	"shop/platform/pg"
)

const columns = `id, total`

const selectOrder = `SELECT ` + columns + ` FROM orders.orders WHERE id = $1`

type order struct{}

func orderByID(ctx context.Context, q pg.Queryer, id string) (o order, err error) {
	err = q.Get(ctx, &o, selectOrder+` FOR UPDATE`, id)
	return o, err
}

func insertLines(ctx context.Context, tx *pg.Tx, ids []string) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO orders.lines (id)
		SELECT u FROM unnest($1::text[]) AS u`, ids)
	return err
}

func chosen(ctx context.Context, q pg.Queryer, by string, all bool) {
	q.Select(ctx, nil, sortings[by].list)
	s := sortings[by]
	q.Select(ctx, nil, s.list)
	var query string
	switch {
	case all:
		query = selectOrder
	default:
		query = `SELECT 1 FROM orders.orders`
	}
	q.Select(ctx, nil, query)
}
