//go:build wireinject

package users

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(
		wire.FieldsOf(new(*host.Env), "DB", "Secret", "Verifier", "Log", "Metrics", "Now"),
		settings, passwords, keyring, newMetrics, wire.Struct(new(Module), "*"),
	))
}
