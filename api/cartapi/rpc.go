package cartapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	cart     = rpc.NewMethod[CartRequest, View]("cart.Cart", rpc.Idempotent)
	freeze   = rpc.NewMethod[FreezeRequest, Frozen]("cart.Freeze", rpc.IdempotentByKey)
	redeem   = rpc.NewMethod[RedeemRequest, Redeemed]("cart.Redeem", rpc.IdempotentByKey)
	unlock   = rpc.NewMethod[UnlockRequest, Unlocked]("cart.Unlock", rpc.Idempotent)
	complete = rpc.NewMethod[CompleteRequest, Completed]("cart.Complete", rpc.Idempotent)
)

type client struct{ conn *rpc.Conn }

// Dial is the cart module, wherever it runs.
func Dial(d rpc.Dialer) Cart { return client{d.Conn("cart")} }

// Mount makes x answer calls of the contract.
func Mount(s *rpc.Server, x Cart) {
	cart.Handle(s, x.Cart)
	freeze.Handle(s, x.Freeze)
	redeem.Handle(s, x.Redeem)
	unlock.Handle(s, x.Unlock)
	complete.Handle(s, x.Complete)
}

func (c client) Cart(ctx context.Context, r CartRequest) (View, error) {
	return cart.Call(ctx, c.conn, r)
}

func (c client) Freeze(ctx context.Context, r FreezeRequest) (Frozen, error) {
	return freeze.Call(ctx, c.conn, r)
}

func (c client) Redeem(ctx context.Context, r RedeemRequest) (Redeemed, error) {
	return redeem.Call(ctx, c.conn, r)
}

func (c client) Unlock(ctx context.Context, r UnlockRequest) (Unlocked, error) {
	return unlock.Call(ctx, c.conn, r)
}

func (c client) Complete(ctx context.Context, r CompleteRequest) (Completed, error) {
	return complete.Call(ctx, c.conn, r)
}
