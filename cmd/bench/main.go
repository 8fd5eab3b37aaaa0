// Command bench measures the shop. It builds cmd/shop, runs it as a process on a fresh database of its own and, in the same
// run, the raw limit beside it: the statements each path sends, listened to once, by pgbench on the same server with the same
// number of clients. It runs the same shop with modules in processes of their own, in turns with the one process, and the benchmarks
// of what that stands on: calls, gateway, events. It prints all with what we want of them.
//
// It is no test: it fails when an answer is wrong, never because one is slow.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

type cli struct {
	Seconds float64           `default:"5" help:"How long each path is measured at each number of clients."`
	Warm    float64           `default:"1" help:"Seconds of load before that."`
	Only    []string          `default:"one,split,parts" enum:"one,split,parts" help:"Parts of the bench: one measures the shop in one process, split what it costs to run modules apart, parts calls, gateway and events by themselves." placeholder:"PART,…"`
	Paths   []string          `help:"Only these: list, page, search, search-cached, add, storefront, checkout." placeholder:"PATH,…"`
	Clients []int             `default:"1,32" help:"Numbers of clients."`
	Out     string            `default:"payments" help:"The module that runs apart where one does." placeholder:"MODULE"`
	Shop    string            `help:"A binary of the shop to measure; by default it is built." type:"existingfile" placeholder:"FILE"`
	Old     string            `help:"Another one, such as of an earlier commit, that takes turns with it in one process." type:"existingfile" placeholder:"FILE"`
	Raw     bool              `default:"true" negatable:"" help:"Measure the raw limit too, by pgbench."`
	Set     map[string]string `help:"A setting of PostgreSQL to try, for the shop in one process and for pgbench." placeholder:"NAME=VALUE"`
	Profile string            `help:"Keep CPU profiles of the shop in this directory, one a path and number of clients." placeholder:"DIR"`
	Scripts string            `help:"Keep the scripts of pgbench in this directory." placeholder:"DIR"`
	Output  string            `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

const examples = `Examples:

    go run ./cmd/bench
    go run ./cmd/bench --seconds 10 --paths list,page -o json
    go run ./cmd/bench --only one --no-raw --old /tmp/shop-of-last-week
    go run ./cmd/bench --only split --paths checkout --clients 32 --profile /tmp/profiles
    go run ./cmd/bench --only one --paths add,checkout --set plan_cache_mode=force_generic_plan`

func main() {
	if len(os.Args) == 2 && os.Args[1] == helloFlag {
		if err := serveHello(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
	var c cli
	parser := kong.Must(&c, kong.Name("bench"), kong.Description("Measures the shop beside the raw limit of its database, and split beside whole.\n\n"+examples))
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\nTry: bench --help\n", err)
		os.Exit(2)
	}
	for _, file := range []*string{&c.Shop, &c.Old} {
		if *file != "" {
			*file, _ = filepath.Abs(*file) // it is run elsewhere
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	b := &bench{cli: c, talk: os.Stderr}
	err := b.run(ctx)
	if err == nil {
		if c.Output == "json" {
			err = b.report.json(os.Stdout)
		} else {
			err = b.report.table(os.Stdout)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	cli
	talk    io.Writer
	dir     string
	binary  string
	pgbench string
	report  report
	shop    *shop // in one process
	scripts map[string]*script
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.talk, format+"\n", args...) }

func (b *bench) complain(format string, args ...any) {
	b.report.Complaint = append(b.report.Complaint, fmt.Sprintf(format, args...))
	b.say(format, args...)
}

// check refuses what can't be measured.
func (b *bench) check() error {
	for _, name := range b.Paths {
		if !slices.ContainsFunc(paths, func(p path) bool { return p.name == name }) {
			return fmt.Errorf("no path %q: see bench --help", name)
		}
	}
	for _, n := range b.Clients {
		if n < 1 || n > 1000 {
			return fmt.Errorf("%d clients: from 1 to 1000 can be measured", n)
		}
	}
	if b.Seconds < 1 {
		return errors.New("--seconds must be 1 or more")
	}
	for name := range b.Set {
		if !settingName.MatchString(name) {
			return fmt.Errorf("--set %s is no setting of PostgreSQL", name)
		}
	}
	for _, dir := range []string{b.Profile, b.Scripts} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

var settingName = regexp.MustCompile(`^[a-z_.]+$`)

// chosen are the paths that --paths names, or else those that usual wants.
func (b *bench) chosen(usual func(path) bool) (all []path) {
	for _, p := range paths {
		if len(b.Paths) == 0 && usual(p) || slices.Contains(b.Paths, p.name) {
			all = append(all, p)
		}
	}
	return all
}

func (b *bench) run(ctx context.Context) (err error) {
	if err := b.check(); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "banyan-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	// PostgreSQL does not run as root, and its user must be able to enter.
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return err
	}
	b.report.Machine = fmt.Sprintf("%s/%s, %d processors, %s", runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version())
	b.report.Load = loadAverage()
	b.report.Seconds = b.Seconds
	b.scripts = map[string]*script{}
	one, split := slices.Contains(b.Only, "one"), slices.Contains(b.Only, "split")
	if b.binary = b.Shop; b.binary == "" && (one || split) {
		b.say("building the shop")
		if b.binary, err = build(ctx, b.dir, "github.com/banyan-shop/banyan/cmd/shop"); err != nil {
			return err
		}
	}
	if one {
		if err := b.one(ctx); err != nil {
			return err
		}
	}
	if split {
		if err := b.split(ctx); err != nil {
			return err
		}
	}
	if slices.Contains(b.Only, "parts") {
		return b.parts(ctx)
	}
	return nil
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// loadAverage tells whether others use the machine.
func loadAverage() string {
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 0 {
			return f[0]
		}
	}
	if out, err := exec.Command("uptime").Output(); err == nil {
		if _, after, ok := strings.Cut(string(out), "load average"); ok {
			return strings.TrimLeft(strings.TrimSpace(after), "s: ")
		}
	}
	return "unknown"
}
