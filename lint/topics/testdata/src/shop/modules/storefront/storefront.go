package storefront

import (
	"context"

	"shop/api/ordersapi"
	"shop/platform/events"
	"shop/platform/pg"
)

func subscribe(s *events.Subscriptions) {
	events.Broadcast(s, func(ctx context.Context, e ordersapi.OrderPlaced) {})
	events.On(s, "x", func(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error { return nil }) // want `there is no db/storefront, so module storefront has no inbox`
}
