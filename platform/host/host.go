// Package host builds the modules that run in this process in order, starts them, drains them and stops them in reverse. It
// knows no module's name.
package host

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Env is what the host gives a module to be built from. Building does no I/O.
type Env struct {
	Module      string
	DB          *pg.DB // nil for a module without db/<m>
	Log         *slog.Logger
	Metrics     prometheus.Registerer // of this process; names begin banyan_<module>_. nil counts for nobody
	Now         func() time.Time
	Settings    *config.Source
	Secret      auth.Secret
	Cursors     web.Cursors
	Development bool           // embedded database: demo data, mail sink, relaxed TLS
	PublicURL   string         // such as http://127.0.0.1:8080, for links in mails and redirects
	Verifier    *auth.Verifier // checks access tokens in this process; users tells it of sessions that ended
	rpc.Dialer                 // the contracts of the modules above it in the list
}

// Module is one entry of cmd/shop/modules.go.
type Module struct {
	Name  string
	Build func(*Env) (Instance, error)
	// Nil is a nil instance, whose Routes, Serve and Subscribe can be asked without building.
	Nil Instance
}

// Of is an entry: host.Of("orders", orders.Build).
func Of[M Instance](name string, build func(*Env) (M, error)) Module {
	var none M
	return Module{name, func(e *Env) (Instance, error) { return build(e) }, none}
}

// Instance is a built module. Beside these it may be a Starter, Runner or Seeder.
type Instance interface {
	Routes(*web.Router)              // its public routes
	Serve(*rpc.Server)               // its contract: ordersapi.Mount(s, m)
	Subscribe(*events.Subscriptions) // the events it hears
}

// Starter is a module with something to do once, after migrations and before any traffic.
type Starter interface{ Start(context.Context) error }

// Runner is a module with background work: Run returns when ctx ends and its work is laid down.
type Runner interface{ Run(context.Context) }

// Seeder is a module with demo data. Seed is repeatable and deterministic.
type Seeder interface{ Seed(context.Context) error }
