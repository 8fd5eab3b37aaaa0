package reviews

import (
	"context"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscribe hears what was bought, for verified purchases.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "remember-purchase", m.onOrderPlaced)
}

func (m *Module) onOrderPlaced(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error {
	if e.Customer == "" {
		return nil // a guest can't review
	}
	products := make([]string, len(e.Lines))
	for i, l := range e.Lines {
		products[i] = string(l.Product)
	}
	if err := lockCustomer(ctx, tx, e.Customer); err != nil {
		return err
	}
	return insertPurchases(ctx, tx, e.Customer, products, e.PlacedAt)
}
