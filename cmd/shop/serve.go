package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/host"
)

type serveCommand struct {
	Listen    string            `help:"Public address (listen, SHOP_LISTEN); 127.0.0.1:8080 by default." placeholder:"HOST:PORT"`
	RPCListen string            `name:"rpc-listen" help:"Where other processes call the modules here (rpc_listen, SHOP_RPC_LISTEN)." placeholder:"HOST:PORT"`
	OpsListen string            `help:"Address of metrics and pprof (ops_listen, SHOP_OPS_LISTEN); 127.0.0.1:8082 by default." placeholder:"HOST:PORT"`
	Process   string            `help:"Which of the block processes this one is (process, SHOP_PROCESS)." placeholder:"NAME"`
	Modules   string            `help:"Run just these modules, in place of the block processes." placeholder:"NAME,…"`
	Remote    map[string]string `help:"Where a module that runs elsewhere is called, in place of the block processes." placeholder:"MODULE=URL"`
	Bus       string            `help:"What carries events between processes: nats://, amqp:// or kafka:// (bus, SHOP_BUS)." placeholder:"URL"`
	Placement string            `help:"How modules reach each other: one (plain calls) or wire (over HTTP within the process, for tests)." placeholder:"one|wire"`
}

func (serveCommand) Help() string {
	return examples("shop", "shop serve --listen 127.0.0.1:9000 --data-dir /tmp/shop", "shop serve --config shop.yaml --process payments",
		"shop serve --remote payments=http://127.0.0.1:9081 --bus nats://127.0.0.1:4222",
		"shop serve --modules payments --listen 127.0.0.1:9080 --rpc-listen 127.0.0.1:9081 --data-dir /tmp/payments --bus nats://127.0.0.1:4222")
}

func (s *serveCommand) Run(ctx context.Context, c *cli, p *process) error {
	began := time.Now()
	flags := map[string]string{"listen": s.Listen, "rpc_listen": s.RPCListen, "ops_listen": s.OpsListen, "placement": s.Placement,
		"process": s.Process, "modules": s.Modules, "bus": s.Bus}
	for module, target := range s.Remote {
		flags["remote."+module] = target
	}
	settings, err := c.settings(p, flags)
	if err != nil {
		return err
	}
	o := shop(settings)
	o.Progress = func(what string) { fmt.Fprintf(p.stderr, "%s …\n", what) }
	h, err := host.Boot(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped while it started, as asked
		}
		return err
	}
	banner(p.stderr, h, time.Since(began))
	err = h.Wait(ctx)
	fmt.Fprintln(p.stderr, "stopping: requests under way end first; once more to cut them off")
	drain, cancel := context.WithTimeout(p.hurry, h.DrainTime())
	defer cancel()
	return errors.Join(err, h.Close(drain))
}

// banner says where everything is and how to stop it.
func banner(w io.Writer, h *host.Host, took time.Duration) {
	line := func(what, where string) { fmt.Fprintf(w, "  %-11s %s\n", what, where) }
	switch {
	case !h.Plan.Split():
		fmt.Fprintf(w, "\nThe shop is open at %s (started in %.1f s)\n", h.URL(), took.Seconds())
	case h.Plan.Gateway:
		fmt.Fprintf(w, "\nProcess %s is the door at %s (started in %.1f s)\n", h.Plan.Process, h.URL(), took.Seconds())
	default:
		fmt.Fprintf(w, "\nProcess %s runs (started in %.1f s)\n", h.Plan.Process, took.Seconds())
	}
	if h.Plan.Split() {
		line("modules", strings.Join(h.Plan.Here, ", "))
		line("calls", h.RPCURL())
	}
	if h.Plan.Gateway {
		line("API docs", h.URL()+"/docs")
	}
	if h.Development() && h.Plan.Gateway {
		line("mail sink", h.URL()+mailSink)
		line("shopper", usersapi.DemoShopper+" / "+usersapi.DemoShopperPassword)
		line("admin", usersapi.DemoAdmin+" / "+usersapi.DemoAdminPassword)
		line("data", h.DataDir())
	}
	if ops := h.OpsURL(); ops != "" {
		line("metrics", ops+"/metrics")
	}
	line("stop", "Ctrl-C")
	fmt.Fprintln(w)
}

// mailSink shows the mails that development keeps in place of sending them.
const mailSink = "/dev/mail"
