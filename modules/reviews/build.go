package reviews

import (
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

func settings(e *host.Env) (Config, error) { return config.Decode(e.Settings, "reviews", Defaults()) }
