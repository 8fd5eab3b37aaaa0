package ordersapi

import (
	"context"
	"time"

	"shop/platform/rpc"
)

var (
	order = rpc.NewMethod[OrderRequest, Order]("orders.Order", rpc.Idempotent, rpc.StaleFor(time.Minute))
	place = rpc.NewMethod[PlaceRequest, Order]("orders.Place", rpc.IdempotentByKey)
)

type client struct{ conn *rpc.Conn }

func Dial(d rpc.Dialer) Orders { return client{d.Conn("orders")} }

func Mount(s *rpc.Server, o Orders) {
	order.Handle(s, o.Order)
	place.Handle(s, o.Place)
}

func (c client) Order(ctx context.Context, r OrderRequest) (Order, error) {
	return order.Call(ctx, c.conn, r)
}
func (c client) Place(ctx context.Context, r PlaceRequest) (Order, error) {
	return place.Call(ctx, c.conn, r)
}
