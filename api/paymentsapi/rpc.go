package paymentsapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	authorize = rpc.NewMethod[AuthorizeRequest, Payment]("payments.Authorize", rpc.IdempotentByKey)
	payment   = rpc.NewMethod[PaymentRequest, Payment]("payments.Payment", rpc.Idempotent)
	byOrder   = rpc.NewMethod[ByOrderRequest, List]("payments.ByOrder", rpc.Idempotent)
	capture   = rpc.NewMethod[CaptureRequest, Payment]("payments.Capture", rpc.IdempotentByKey)
	void      = rpc.NewMethod[VoidRequest, Payment]("payments.Void", rpc.IdempotentByKey)
	refund    = rpc.NewMethod[RefundRequest, Payment]("payments.Refund", rpc.IdempotentByKey)
)

type client struct{ conn *rpc.Conn }

// Dial is the payments module, wherever it runs.
func Dial(d rpc.Dialer) Payments { return client{d.Conn("payments")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Payments) {
	authorize.Handle(s, x.Authorize)
	payment.Handle(s, x.Payment)
	byOrder.Handle(s, x.ByOrder)
	capture.Handle(s, x.Capture)
	void.Handle(s, x.Void)
	refund.Handle(s, x.Refund)
}

func (c client) Authorize(ctx context.Context, r AuthorizeRequest) (Payment, error) {
	return authorize.Call(ctx, c.conn, r)
}

func (c client) Payment(ctx context.Context, r PaymentRequest) (Payment, error) {
	return payment.Call(ctx, c.conn, r)
}

func (c client) ByOrder(ctx context.Context, r ByOrderRequest) (List, error) {
	return byOrder.Call(ctx, c.conn, r)
}

func (c client) Capture(ctx context.Context, r CaptureRequest) (Payment, error) {
	return capture.Call(ctx, c.conn, r)
}

func (c client) Void(ctx context.Context, r VoidRequest) (Payment, error) {
	return void.Call(ctx, c.conn, r)
}

func (c client) Refund(ctx context.Context, r RefundRequest) (Payment, error) {
	return refund.Call(ctx, c.conn, r)
}
