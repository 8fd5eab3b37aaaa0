package cart

import (
	"context"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscribe says what the cart hears.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "complete-cart", m.onOrderPlaced)
}

// onOrderPlaced completes the cart of a placed order in case the checkout was cut off before it could. A cart that is gone, or
// that another order completed, is nothing to try again.
func (m *Module) onOrderPlaced(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error {
	err := completeOnce(ctx, tx, cartapi.ID(e.Cart), ids.ID(e.Order))
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Conflict) {
		m.Log.Warn("placed order without its cart", "order", e.Order, "cart", e.Cart, "err", err)
		return nil
	}
	return err
}
