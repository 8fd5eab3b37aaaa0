package orders

import (
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// The providers of the injector in wire.go.

func settings(e *host.Env) (Config, error) { return config.Decode(e.Settings, "orders", Defaults()) }

func dialer(e *host.Env) rpc.Dialer { return e }
