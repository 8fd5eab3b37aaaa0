package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/host"
)

type serveCommand struct {
	Listen    string `help:"Public address (listen, SHOP_LISTEN); 127.0.0.1:8080 by default." placeholder:"HOST:PORT"`
	OpsListen string `help:"Address of metrics and pprof (ops_listen, SHOP_OPS_LISTEN); 127.0.0.1:8082 by default." placeholder:"HOST:PORT"`
	Placement string `help:"How modules reach each other: one (plain calls) or wire (over HTTP within the process, for tests)." placeholder:"one|wire"`
}

func (serveCommand) Help() string {
	return examples("shop", "shop serve --listen 127.0.0.1:9000 --data-dir /tmp/shop")
}

func (s *serveCommand) Run(ctx context.Context, c *cli, p *process) error {
	began := time.Now()
	settings, err := c.settings(p, map[string]string{"listen": s.Listen, "ops_listen": s.OpsListen, "placement": s.Placement})
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
	drain, cancel := context.WithTimeout(p.hurry, h.Settings.Drain.Timeout)
	defer cancel()
	return errors.Join(err, h.Close(drain))
}

// banner says where everything is and how to stop it.
func banner(w io.Writer, h *host.Host, took time.Duration) {
	fmt.Fprintf(w, "\nThe shop is open at %s (started in %.1f s)\n", h.URL(), took.Seconds())
	line := func(what, where string) { fmt.Fprintf(w, "  %-11s %s\n", what, where) }
	line("API docs", h.URL()+"/docs")
	if h.Development() {
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
