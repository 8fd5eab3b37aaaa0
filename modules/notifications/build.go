package notifications

import (
	"fmt"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// The providers of the injector in wire.go.

func settings(e *host.Env) (Config, error) {
	return config.Decode(e.Settings, "notifications", Defaults())
}

func woken() Woken { return make(Woken, 1) }

func sender(e *host.Env, c Config) (Sender, error) {
	switch {
	case c.SMTP.Address != "":
		return newSMTP(c.SMTP)
	case e.Development:
		return sink{e.DB, e.Now}, nil
	}
	return nil, fmt.Errorf("notifications.smtp.address is not set: name a mail server as host:port (SHOP_NOTIFICATIONS__SMTP__ADDRESS)")
}
