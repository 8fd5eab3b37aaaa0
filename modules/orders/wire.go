//go:build wireinject

package orders

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "DB", "Log", "Metrics", "Now", "Secret", "Cursors"),
		dialer, usersapi.Dial, catalogapi.Dial, shippingapi.Dial, cartapi.Dial, paymentsapi.Dial,
		settings, NewSignals, newMetrics,
		wire.Struct(new(Module), "*"),
	))
}
