package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// running is a shop under test, in one host or in several.
type running struct {
	hosts map[string]*host.Host // by process; "" is the only one
	front *host.Host            // where customers come in
	bus   *natsembed.Server     // nil in one process

	// refundsAtOnce says that others give back money of a payment between a call and its repetition, which tells the sum by now.
	refundsAtOnce bool
}

func (r *running) URL() string { return r.front.URL() }

// Host is the one that runs a module.
func (r *running) Host(module string) *host.Host {
	for _, h := range r.hosts {
		if h.Plan.Runs(module) {
			return h
		}
	}
	return nil
}

// Idle returns when every event is handled or parked, in all processes and on the bus between them.
func (r *running) Idle(ctx context.Context) error {
	if r.bus == nil {
		return r.front.Idle(ctx)
	}
	for last := uint64(0); ; {
		for _, h := range r.hosts {
			if err := h.Idle(ctx); err != nil {
				return err
			}
		}
		moved, waiting, err := r.bus.Progress()
		if err != nil {
			return err
		}
		// The hosts are asked one after another: an event that wandered meanwhile has moved the bus.
		if !waiting && moved == last {
			return nil
		}
		last = moved
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for events: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// placements are the ways a shop can be laid out; each test of the whole shop goes through all of them.
func placements() []string {
	all := []string{"one", "wire", "split"}
	for _, m := range modules {
		all = append(all, "out:"+m.Name)
	}
	return all
}

// lay is the block processes of a placement: "split" gives every module a process and a gateway to all, "out:payments" takes one
// module out.
func lay(t *testing.T, placement string) map[string]upProcess {
	t.Helper()
	command := upCommand{Split: "all"}
	if module, out := strings.CutPrefix(placement, "out:"); out {
		command.Split = module
	}
	top := addresses(t, command)
	for name, p := range top.processes {
		var schemas []string
		for _, m := range ranBy(top, name) {
			if m != "storefront" {
				schemas = append(schemas, m)
			}
		}
		if len(schemas) > 0 {
			p.DatabaseURL = shoptest.DatabaseOf(t, schemas...)
		}
		top.processes[name] = p
	}
	return top.processes
}

// addresses is what up would run, at an address of this test's own, so that no port is taken by somebody else.
func addresses(t *testing.T, command upCommand) topology {
	t.Helper()
	ip, port := loopback(), 8080
	command.Listen = ip + ":8080"
	top, err := command.plan()
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range top.processes {
		next := func() string { port++; return fmt.Sprintf("%s:%d", ip, port) }
		p.HTTP, p.RPC, p.OpsListen = "http://"+next(), "http://"+next(), next()
		if runtime.GOOS != "linux" {
			p.HTTP, p.RPC, p.OpsListen = "http://"+freeAddress(t), "http://"+freeAddress(t), freeAddress(t)
		}
		top.processes[name] = p
	}
	return top
}

// ranBy are the modules of a process, in their order.
func ranBy(top topology, process string) []string {
	if own := top.processes[process].Modules; own != nil {
		return *own
	}
	var rest []string
	for _, m := range modules {
		if _, elsewhere := top.processes[m.Name]; !elsewhere {
			rest = append(rest, m.Name)
		}
	}
	return rest
}

// loopback is an address of this machine that nobody else is likely to use: all of 127.0.0.0/8 is ours on Linux.
func loopback() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.N(250), rand.N(250), 1+rand.N(250))
}

// inMemory is a directory that costs no disk where the system has such a place: a broker syncs a file for each of hundreds of
// consumers, and a test loses nothing with it.
func inMemory(t *testing.T) string {
	t.Helper()
	const shm = "/dev/shm"
	if _, err := os.Stat(shm); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(shm, "banyan-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// gaveMoreBack says that two answers are the same but for how much of the payment has been given back.
func gaveMoreBack(first, second string) bool {
	var a, b paymentsapi.Payment
	if json.Unmarshal([]byte(first), &a) != nil || json.Unmarshal([]byte(second), &b) != nil || a.ID == "" || b.Refunded.Minor < a.Refunded.Minor {
		return false
	}
	a.Refunded = b.Refunded
	return a == b
}

// bootAll boots a shop in the placement, with the demo data, each process a host of its own with its own database. edit, if any, makes
// of the block processes the one that they are given.
func bootAll(t *testing.T, placement string, now func() time.Time, flags map[string]string, edit ...func(map[string]upProcess) any) *running {
	t.Helper()
	all := map[string]string{
		"ops_listen": "", "data_dir": t.TempDir(), "catalog.demo_products": "200", "pool.max": "3", "events.poll": "50ms", "storefront.part_timeout": "5s", "drain.delay": "1ms",
		"web.overload": "200ms", // tests share the machine
	}
	for k, v := range flags {
		all[k] = v
	}
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&locked{w: &log}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	t.Cleanup(func() {
		if t.Failed() && log.Len() > 0 {
			t.Logf("the shop's log:\n%s", log.String())
		}
	})
	r := &running{hosts: map[string]*host.Host{}}
	boot := func(more map[string]string) (*host.Host, error) {
		mine := map[string]string{}
		for _, layer := range []map[string]string{all, more} {
			for k, v := range layer {
				mine[k] = v
			}
		}
		settings, err := config.Load(config.Options{Flags: mine})
		if err != nil {
			return nil, err
		}
		o := shop(settings)
		o.Development, o.Now = true, now
		o.Log = logger.With("process", more["process"])
		o.Differs = func(method, first, second string) {
			if method == "payments.Refund" && r.refundsAtOnce && gaveMoreBack(first, second) {
				return
			}
			t.Errorf("%s with the same key answered\n%s\nand then\n%s", method, first, second)
		}
		return host.Boot(t.Context(), o)
	}
	if placement == "one" || placement == "wire" {
		database := shoptest.URL(t)
		t.Cleanup(func() { r.close(t) }) // after the database is made, so that it goes before that
		h, err := boot(map[string]string{"listen": "127.0.0.1:0", "placement": placement, "database_url": database})
		if err != nil {
			t.Fatal(err)
		}
		r.hosts[""], r.front = h, h
		return r
	}
	processes := lay(t, placement)
	t.Cleanup(func() { r.close(t) })
	var block any = processes
	for _, e := range edit {
		block = e(processes)
	}
	text, err := yaml.Marshal(block)
	if err != nil {
		t.Fatal(err)
	}
	if r.bus, err = natsembed.Start(natsembed.Options{Dir: inMemory(t), Addr: net.JoinHostPort("127.0.0.1", "0")}); err != nil {
		t.Fatal(err)
	}
	shared := map[string]string{"processes": string(text), "bus": r.bus.URL(), "secret": worldSecret, "mode": "development"}
	var mu sync.Mutex
	var starting sync.WaitGroup
	var errs []error
	for name := range processes {
		starting.Go(func() {
			mine := map[string]string{"process": name}
			for k, v := range shared {
				mine[k] = v
			}
			h, err := boot(mine)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("boot %s: %w", name, err))
				return
			}
			r.hosts[name] = h
			if h.Plan.Gateway {
				r.front = h
			}
		})
	}
	starting.Wait()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	// A gateway that was up before users can check no token for a moment.
	shoptest.WaitFor(t, "the gateway to know the keys of tokens", func() bool {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL()+"/v1/me", nil)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Authorization", "Bearer a.b.c")
		answer, err := http.DefaultClient.Do(q)
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusUnauthorized
	})
	return r
}

// close stops the gateway first and then, downwards, who calls before who is called.
func (r *running) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var order []*host.Host
	for _, m := range slices.Backward(modules) {
		if h := r.Host(m.Name); h != nil && !slices.Contains(order, h) {
			order = append(order, h)
		}
	}
	if r.front != nil && !slices.Contains(order, r.front) {
		order = append([]*host.Host{r.front}, order...)
	}
	for _, h := range order {
		if err := h.Close(ctx); err != nil {
			t.Errorf("stop the shop: %v", err)
		}
	}
	if r.bus != nil {
		r.bus.Stop()
	}
}
