package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/host"
)

type topologyCommand struct {
	Live   bool   `help:"Also ask each process how it is: readiness, breakers, instances, waiting events."`
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (topologyCommand) Help() string {
	return examples("shop topology", "shop topology --config production.yaml -o json", "shop topology --config production.yaml --live")
}

func (t *topologyCommand) Run(ctx context.Context, c *cli, p *process) error {
	settings, err := c.settings(p, nil)
	if err != nil {
		return err
	}
	top, err := host.TopologyOf(shop(settings))
	if err != nil {
		return err
	}
	if t.Live {
		if err := host.AskLive(ctx, shop(settings), &top); err != nil {
			return err
		}
	}
	if t.Output == "json" {
		return printJSON(p.stdout, top)
	}
	if err := printTopology(p.stdout, top); err != nil || !t.Live {
		return err
	}
	return printLive(p.stdout, top)
}

type readyCommand struct {
	URL string `help:"Public address of the process; that of the settings by default." placeholder:"URL"`
}

func (readyCommand) Help() string {
	return examples("shop ready", "shop ready --url http://127.0.0.1:9000")
}

func (r *readyCommand) Run(ctx context.Context, c *cli, p *process) error {
	url := r.URL
	if url == "" {
		settings, err := c.settings(p, nil)
		if err != nil {
			return err
		}
		if url, err = host.OwnURL(shop(settings)); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(url, "/")+"/readyz", nil)
	if err != nil {
		return misused{fmt.Errorf("%q is no address: write http://host:port", url)}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("nobody answers at %s", url)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("the answer of %s broke off", url)
	}
	fmt.Fprintln(p.stdout, strings.TrimSpace(string(body)))
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready", url)
	}
	return nil
}

// printTopology is a topology for people.
func printTopology(w io.Writer, top host.Topology) error {
	t := table(w, "PROCESS", "MODULES", "HTTP", "RPC", "DATABASE", "STATE")
	for _, p := range top.Processes {
		name, modules := p.Name, strings.Join(p.Modules, ", ")
		if p.Gateway {
			name += " (gateway)"
		}
		if modules == "" {
			modules = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", name, modules, dash(p.HTTP), dash(p.RPC), dash(p.Database), dash(state(p)))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = table(w, "MODULE", "RUNS IN", "BECAUSE", "CALLS", "HEARS")
	for _, m := range top.Modules {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", m.Name, dash(m.Process), m.Why, edges(m.Calls), edges(m.Hears))
	}
	return t.Flush()
}

// printLive adds what the processes told of their calls and events.
func printLive(w io.Writer, top host.Topology) error {
	fmt.Fprintln(w)
	t := table(w, "PROCESS", "CALLS", "BREAKER", "IN FLIGHT", "CALLS", "FAILED", "RETRIED", "INSTANCES")
	for _, p := range top.Processes {
		if p.Live == nil {
			continue
		}
		for _, c := range p.Live.Calls {
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", p.Name, c.Callee, c.Breaker, c.InFlight, c.Calls, c.Failures, c.Retries, instances(top, p, c.Callee))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = table(w, "MODULE", "UNSENT", "OLDEST", "WAITING", "PARKED")
	for _, p := range top.Processes {
		if p.Live == nil {
			continue
		}
		for _, m := range p.Modules {
			if b, ok := p.Live.Events[m]; ok {
				fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%d\n", m, b.Unsent, b.OldestUnsent.Round(time.Second), b.Waiting, b.Parked)
			}
		}
	}
	return t.Flush()
}

// instances are those of a callee as the caller sees them.
func instances(top host.Topology, caller host.ProcessInfo, callee string) string {
	var owner string
	for _, m := range top.Modules {
		if m.Name == callee {
			owner = m.Process
		}
	}
	var all []string
	for _, p := range top.Processes {
		if p.Name != owner {
			continue
		}
		for _, i := range caller.Live.Instances[p.RPC] {
			text := i.Address
			if i.State != discovery.StateOK {
				text += " (" + string(i.State) + ")"
			}
			all = append(all, text)
		}
	}
	return dash(strings.Join(all, ", "))
}

func state(p host.ProcessInfo) string {
	switch {
	case p.Away != "":
		return "away: " + p.Away
	case p.Live != nil:
		return p.Live.State
	}
	return ""
}

// edges are modules, those in other processes with an arrow before them.
func edges(list []host.EdgeInfo) string {
	var names []string
	for _, e := range list {
		name := e.Module
		if e.Event != "" {
			_, name, _ = strings.Cut(e.Event, ".")
			name = e.Module + ": " + strings.TrimSuffix(name, ".v1")
		}
		if e.Remote {
			name = "→ " + name
		}
		names = append(names, name)
	}
	return dash(strings.Join(names, ", "))
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
