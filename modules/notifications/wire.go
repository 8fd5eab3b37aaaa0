//go:build wireinject

package notifications

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "DB", "Log", "Now", "Dialer"),
		settings, sender, woken, LoadTemplates, usersapi.Dial, ordersapi.Dial, wire.Struct(new(Module), "*"),
	))
}
