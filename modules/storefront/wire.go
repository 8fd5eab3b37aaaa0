//go:build wireinject

package storefront

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "Log", "Dialer"),
		settings, catalogapi.Dial, cartapi.Dial, shippingapi.Dial, paymentsapi.Dial, ordersapi.Dial, reviewsapi.Dial,
		wire.Struct(new(Module), "*"),
	))
}
