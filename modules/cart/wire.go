//go:build wireinject

package cart

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "DB", "Log", "Now", "Dialer"),
		settings, catalogapi.Dial, shippingapi.Dial, wire.Struct(new(Module), "*"),
	))
}
