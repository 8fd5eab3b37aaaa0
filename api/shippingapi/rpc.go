package shippingapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	quote       = rpc.NewMethod[QuoteRequest, Quotes]("shipping.Quote", rpc.Idempotent, rpc.StaleFor(15*time.Minute))
	shipments   = rpc.NewMethod[ShipmentsRequest, Shipments]("shipping.Shipments", rpc.Idempotent)
	cancelLines = rpc.NewMethod[CancelLinesRequest, CancelledLines]("shipping.CancelLines", rpc.IdempotentByKey)
)

type client struct{ conn *rpc.Conn }

// Dial is the shipping module, wherever it runs.
func Dial(d rpc.Dialer) Shipping { return client{d.Conn("shipping")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Shipping) {
	quote.Handle(s, x.Quote)
	shipments.Handle(s, x.Shipments)
	cancelLines.Handle(s, x.CancelLines)
}

func (c client) Quote(ctx context.Context, r QuoteRequest) (Quotes, error) {
	return quote.Call(ctx, c.conn, r)
}

func (c client) Shipments(ctx context.Context, r ShipmentsRequest) (Shipments, error) {
	return shipments.Call(ctx, c.conn, r)
}

func (c client) CancelLines(ctx context.Context, r CancelLinesRequest) (CancelledLines, error) {
	return cancelLines.Call(ctx, c.conn, r)
}
