package ordersapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	order   = rpc.NewMethod[OrderRequest, Order]("orders.Order", rpc.Idempotent)
	recent  = rpc.NewMethod[RecentRequest, List]("orders.Recent", rpc.Idempotent)
	contact = rpc.NewMethod[ContactRequest, Contact]("orders.Contact", rpc.Idempotent)
)

type client struct{ conn *rpc.Conn }

// Dial is the orders module, wherever it runs.
func Dial(d rpc.Dialer) Orders { return client{d.Conn("orders")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Orders) {
	order.Handle(s, x.Order)
	recent.Handle(s, x.Recent)
	contact.Handle(s, x.Contact)
}

func (c client) Order(ctx context.Context, r OrderRequest) (Order, error) {
	return order.Call(ctx, c.conn, r)
}

func (c client) Recent(ctx context.Context, r RecentRequest) (List, error) {
	return recent.Call(ctx, c.conn, r)
}

func (c client) Contact(ctx context.Context, r ContactRequest) (Contact, error) {
	return contact.Call(ctx, c.conn, r)
}
