package orders

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"shop/platform/pg"
)

func bad(ctx context.Context, db *pg.DB, tx *pg.Tx, sort string) {
	tx.Exec(ctx, `UPDATE catalog.stock SET n = 1`)             // want `SQL of orders names catalog.stock: ask module catalog through api/catalogapi, or hear its events`
	db.Get(ctx, nil, `SELECT 1 FROM products`)                 // want `table products stands without its schema after FROM: write orders.products`
	tx.Exec(ctx, `SET search_path = orders`)                   // want `SET SEARCH_PATH is refused`
	tx.Exec(ctx, `INSERT INTO orders.outbox (id) VALUES ($1)`) // want `orders.outbox belongs to the platform: it is written through events.Publish`
	db.Select(ctx, nil, selectOrder+` ORDER BY `+sort)         // want `SQL must be a constant string: this concatenation is not`
	db.Select(ctx, nil, fmt.Sprintf(`SELECT %s`, columns))     // want `SQL must be a constant string: a call's result is not`
	query := `SELECT 1`
	query += sort
	db.Select(ctx, nil, query)                          // want `SQL must be a constant string: query is not`
	(*pg.Tx).Exec(tx, ctx, `DELETE FROM catalog.stock`) // want `names catalog.stock`
	run := tx.Exec                                      // want `Exec taken as a value hides the SQL`
	run(ctx, `DELETE FROM catalog.stock`)
	var x *sqlx.DB
	x.MustExec(`DELETE FROM catalog.stock`) // want `names catalog.stock`
	var e executor = tx
	e.Exec(ctx, `DELETE FROM catalog.stock`) // want `names catalog.stock`

	//shop:allow crossschema until=2999-01-31 owner=@orders read until the backfill is done
	tx.Exec(ctx, `UPDATE catalog.stock SET n = 1`)
}

type executor interface {
	Exec(ctx context.Context, q string, args ...any) (int64, error)
}

func Choose(ctx context.Context, db *pg.DB, s sorting, byStock bool, given string) (result string) {
	query := selectOrder
	if byStock {
		query = `SELECT 1 FROM catalog.stock`
	}
	db.Get(ctx, nil, query)  // want `names catalog.stock`
	db.Get(ctx, nil, s.bad)  // want `names catalog.stock`
	db.Get(ctx, nil, s.set)  // want `SQL must be a constant string: set is not`
	db.Get(ctx, nil, s.Out)  // want `SQL must be a constant string: Out is not`
	db.Get(ctx, nil, given)  // want `SQL must be a constant string: given is not`
	db.Get(ctx, nil, result) // want `SQL must be a constant string: result is not`
	leaked := selectOrder
	fill(&leaked)
	db.Get(ctx, nil, leaked) // want `SQL must be a constant string: leaked is not`
	return selectOrder
}

func fill(s *string) {}

type sorting struct{ list, bad, set, Out string }

var sortings = map[string]sorting{
	"newest": {list: selectOrder + ` ORDER BY id`, bad: `SELECT 1`, Out: `SELECT 1`},
	"oldest": {list: selectOrder + ` ORDER BY total`, bad: `SELECT 1 FROM catalog.stock`},
}

func (s *sorting) change(by string) { s.set = selectOrder + by }

type bundle struct{ db *pg.DB }

func (b *bundle) count(ctx context.Context, query string, args ...any) {
	b.db.Get(ctx, nil, query) // want `names catalog.stock`
}

func (b *bundle) given(ctx context.Context, query string) {
	b.db.Get(ctx, nil, query) // want `SQL must be a constant string: query is not`
}

func (b *bundle) valued(ctx context.Context, query string) {
	b.db.Get(ctx, nil, query) // want `SQL must be a constant string: query is not`
}

func (b *bundle) through(ctx context.Context, by string) {
	b.count(ctx, `SELECT 1 FROM orders.orders`)
	b.count(ctx, `SELECT 1 FROM catalog.stock`)
	b.given(ctx, selectOrder+by)
	b.valued(ctx, selectOrder)
	f := b.valued
	f(ctx, by)
}
