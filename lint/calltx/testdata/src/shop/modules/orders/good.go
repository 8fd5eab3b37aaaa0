package orders

import (
	"context"
	"net/http"

	"shop/api/paymentsapi"
	"shop/platform/events"
	"shop/platform/pg"
)

type Module struct {
	DB       *pg.DB
	Payments paymentsapi.Payments
	wake     chan struct{}
}

func (m *Module) Checkout(ctx context.Context) error {
	if _, err := m.Payments.Authorize(ctx, paymentsapi.AuthorizeRequest{}); err != nil {
		return err
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		tx.AfterCommit(func() { m.wake <- struct{}{}; http.Get("http://x") })
		select {
		case m.wake <- struct{}{}:
		default:
		}
		return m.insert(ctx, tx, pure(1))
	})
	http.Get("http://x")
	return err
}

func pure(n int) int { return n + 1 }

func (m *Module) insert(ctx context.Context, tx *pg.Tx, n int) error {
	return read(ctx, tx)
}

func read(ctx context.Context, q pg.Queryer) error { return q.Get(ctx, nil, `SELECT 1`) }

func (m *Module) plain(ctx context.Context) error { return read(ctx, m.DB) }

func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "good", func(ctx context.Context, tx *pg.Tx, e event) error { return m.insert(ctx, tx, 1) })
}

type event struct{}

func (event) EventName() string { return "" }
func (event) EventKey() string  { return "" }
