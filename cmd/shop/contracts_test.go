package main

import (
	"testing"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
)

func TestContractsAreComplete(t *testing.T) {
	t.Parallel()
	rpctest.Complete(t, "users", usersapi.Dial, usersapi.Mount)
	rpctest.Complete(t, "catalog", catalogapi.Dial, catalogapi.Mount)
	rpctest.Complete(t, "shipping", shippingapi.Dial, shippingapi.Mount)
	rpctest.Complete(t, "cart", cartapi.Dial, cartapi.Mount)
	rpctest.Complete(t, "payments", paymentsapi.Dial, paymentsapi.Mount)
	rpctest.Complete(t, "orders", ordersapi.Dial, ordersapi.Mount)
	rpctest.Complete(t, "reviews", reviewsapi.Dial, reviewsapi.Mount)
}
