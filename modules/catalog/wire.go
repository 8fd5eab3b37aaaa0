//go:build wireinject

package catalog

import (
	"github.com/google/wire"

	"github.com/banyan-shop/banyan/platform/host"
)

// Build makes the module from what the host gives it.
func Build(e *host.Env) (*Module, error) {
	panic(wire.Build(wire.FieldsOf(new(*host.Env), "DB", "Log", "Metrics", "Now", "Cursors"), settings, newMetrics, wire.Struct(new(Module), "*")))
}
