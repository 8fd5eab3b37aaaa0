//go:build wireinject

package reviews

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "DB", "Log", "Now", "Cursors", "Dialer"),
		settings, catalogapi.Dial, wire.Struct(new(Module), "*"),
	))
}
