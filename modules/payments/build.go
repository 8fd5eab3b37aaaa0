package payments

import (
	"net/http"
	"time"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// The providers of the injector in wire.go.

func settings(e *host.Env) (Config, error) { return config.Decode(e.Settings, "payments", Defaults()) }

func client() *http.Client { return &http.Client{Timeout: 10 * time.Second} }

func woken() Woken { return make(Woken, 1) }

// hookSecret is the purpose under which the simulator's webhooks are signed.
const hookSecret = "simulator-webhooks"

func hookSecrets(e *host.Env) HookSecrets { return HookSecrets{e.Secret.Derive(hookSecret)} }

func simulator(e *host.Env, c Config, client *http.Client) *Simulator {
	if c.Simulator == "off" || c.Simulator == "auto" && !e.Development {
		return nil
	}
	url := c.WebhookURL
	if url == "" {
		url = e.PublicURL + "/v1/hooks/simulator"
	}
	return &Simulator{
		DB: e.DB, Log: e.Log, Now: e.Now, Late: c.LateWebhook, PublicURL: e.PublicURL, WebhookURL: url,
		Secret: e.Secret.Derive(hookSecret), Client: client, Poll: c.Poll, wake: make(chan struct{}, 1),
	}
}

func providers(s *Simulator) Providers {
	if s == nil {
		return Providers{}
	}
	return Providers{"simulator": s}
}
