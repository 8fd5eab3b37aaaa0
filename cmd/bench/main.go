// Command bench measures the shop. It builds cmd/shop, runs it as a process on a fresh database of its own and, in the same
// run, the raw limit beside it: the statements each path sends, listened to once, by pgbench on the same server with the same
// number of clients. It prints both with what we want of them.
//
// It is no test: it fails when an answer is wrong, never because one is slow.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
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

	"github.com/banyan-shop/banyan/platform/pg"
)

type cli struct {
	Seconds float64           `default:"5" help:"How long each path is measured at each number of clients."`
	Warm    float64           `default:"1" help:"Seconds of load before that."`
	Paths   []string          `help:"Only these: list, page, search, search-cached, add, checkout." placeholder:"PATH,…"`
	Clients []int             `default:"1,32" help:"Numbers of clients."`
	Raw     bool              `default:"true" negatable:"" help:"Measure the raw limit too, by pgbench."`
	Set     map[string]string `help:"A setting of PostgreSQL to try, for the shop and for pgbench." placeholder:"NAME=VALUE"`
	Profile string            `help:"Keep CPU profiles of the shop in this directory, one a path and number of clients." placeholder:"DIR"`
	Scripts string            `help:"Keep the scripts of pgbench in this directory." placeholder:"DIR"`
	Output  string            `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

const examples = `Examples:

    go run ./cmd/bench
    go run ./cmd/bench --seconds 10 --paths list,page -o json
    go run ./cmd/bench --paths checkout --clients 32 --no-raw --profile /tmp/profiles
    go run ./cmd/bench --paths add,checkout --set plan_cache_mode=force_generic_plan`

func main() {
	if len(os.Args) == 2 && os.Args[1] == helloFlag {
		if err := serveHello(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
		os.Exit(1)
	}
	var c cli
	parser := kong.Must(&c, kong.Name("bench"), kong.Description("Measures the shop beside the raw limit of its database.\n\n"+examples))
	if _, err := parser.Parse(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\nTry: bench --help\n", err)
		os.Exit(2)
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
	pgbench string
	report  report
	shop    *shop
	stock   *stock
	scripts map[string]*script
	idle    float64 // queries a second that the shop makes by itself
}

func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.talk, format+"\n", args...) }

func (b *bench) chosen() ([]path, error) {
	var all []path
	for _, name := range b.Paths {
		i := slices.IndexFunc(paths, func(p path) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no path %q: see bench --help", name)
		}
		all = append(all, paths[i])
	}
	if len(all) == 0 {
		all = paths
	}
	for _, n := range b.Clients {
		if n < 1 || n > 1000 {
			return nil, fmt.Errorf("%d clients: from 1 to 1000 can be measured", n)
		}
	}
	if b.Seconds < 1 {
		return nil, errors.New("--seconds must be 1 or more")
	}
	for _, dir := range []string{b.Profile, b.Scripts} {
		if dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (b *bench) run(ctx context.Context) (err error) {
	chosen, err := b.chosen()
	if err != nil {
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
	if b.Raw {
		if b.pgbench = pgbench(); b.pgbench == "" {
			b.complain("no pgbench beside the server's programs nor on the path: the raw limit is not measured (Debian has it in postgresql-contrib)")
		}
	}

	b.say("building the shop")
	binary, err := build(ctx, b.dir, "github.com/banyan-shop/banyan/cmd/shop")
	if err != nil {
		return err
	}
	if b.report.Limits, err = limits(ctx, binary, b.dir); err != nil {
		return err
	}
	b.say("starting it on an empty directory")
	if b.shop, err = start(ctx, binary, b.dir); err != nil {
		return err
	}
	defer func() {
		if b.shop != nil {
			err = errors.Join(err, b.shop.stop())
		}
	}()
	b.report.Cold = b.shop.took
	for name, value := range b.Set {
		if !settingName.MatchString(name) {
			return fmt.Errorf("--set %s is no setting of PostgreSQL", name)
		}
		if _, err := b.shop.db.exec(ctx, "ALTER DATABASE shop SET "+name+" = "+pg.Literal(value)); err != nil {
			return fmt.Errorf("--set %s: %w", name, err)
		}
		b.complain("measured with %s = %s, which is not how the shop runs", name, value)
	}
	if b.pgbench != "" {
		if err := b.listen(ctx, binary, chosen); err != nil {
			return err
		}
	}
	b.say("starting it on what is there")
	if err := b.restart(ctx, binary); err != nil {
		return err
	}
	b.report.Warm = b.shop.took
	if b.stock == nil {
		if b.stock, err = look(ctx, b.shop.address); err != nil {
			return err
		}
	}
	b.stock.address = b.shop.address
	if err := b.rest(ctx); err != nil {
		return err
	}
	for _, p := range chosen {
		for _, n := range b.Clients {
			if err := b.measure(ctx, p, n); err != nil {
				return err
			}
		}
	}
	b.report.Resident = b.shop.resident()
	return b.orientation(ctx)
}

var settingName = regexp.MustCompile(`^[a-z_.]+$`)

func (b *bench) complain(format string, args ...any) {
	b.report.Complaint = append(b.report.Complaint, fmt.Sprintf(format, args...))
	b.say(format, args...)
}

func (b *bench) restart(ctx context.Context, binary string) error {
	old := b.shop
	b.shop = nil
	err := old.stop()
	if err == nil {
		b.shop, err = start(ctx, binary, b.dir)
	}
	return err
}

// listen makes a script of every path: the shop runs once with its database logging all statements.
func (b *bench) listen(ctx context.Context, binary string, chosen []path) (err error) {
	if err := b.shop.logStatements(ctx, true); err != nil {
		return err
	}
	if err := b.restart(ctx, binary); err != nil {
		return err
	}
	if b.stock, err = look(ctx, b.shop.address); err != nil {
		return err
	}
	if err := b.shop.drain(ctx); err != nil {
		return err
	}
	b.say("listening to the statements of each path")
	r, err := listen(ctx, filepath.Join(b.dir, "data", "pg", "server.log"))
	if err != nil {
		return err
	}
	heard, left := map[string][]sample{}, map[string]float64{}
	for _, p := range chosen {
		if heard[p.name], left[p.name], err = b.shop.listenTo(ctx, r, p, b.stock); err != nil {
			return fmt.Errorf("listen to %s: %w", p.name, err)
		}
	}
	if err := b.shop.logStatements(ctx, false); err != nil {
		return err
	}
	if err := b.shop.freeze(ctx); err != nil { // or it would handle the rehearsals' events
		return err
	}
	defer b.shop.resume()
	dir := b.Scripts
	if dir == "" {
		dir = b.dir
	}
	c := newScripter(b.shop.db, b.stock)
	for _, p := range chosen {
		s, err := c.make(ctx, p, heard[p.name])
		if err == nil {
			err = s.write(dir)
		}
		if err != nil {
			b.complain("no raw limit of %s: %v", p.name, err)
			continue
		}
		if s.RowsOfShop = left[p.name]; math.Abs(s.RowsOfShop-s.Rows) > 0.05*s.RowsOfShop {
			b.complain("the raw limit of %s is of other work: it leaves %.1f rows, the shop %.1f", p.name, s.Rows, s.RowsOfShop)
		}
		b.scripts[p.name] = s
		b.report.Scripts = append(b.report.Scripts, s)
	}
	return nil
}

// rest measures what the shop asks of its database while nobody wants anything.
func (b *bench) rest(ctx context.Context) error {
	if err := b.shop.drain(ctx); err != nil {
		return err
	}
	before, err := b.shop.queries(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(2 * time.Second)
	after, err := b.shop.queries(ctx)
	b.idle = (after - before) / time.Since(began).Seconds()
	return err
}

func (b *bench) measure(ctx context.Context, p path, clients int) error {
	b.say("%s, %d clients", p.title, clients)
	if p.prepare != nil {
		if err := p.prepare(ctx, b.stock, clients); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	var (
		before   float64
		began    time.Time
		cpu      spent
		profiled = make(chan error, 1)
	)
	pressed := pressure{
		address: b.shop.address, clients: clients, warm: duration(b.Warm), measure: duration(b.Seconds),
		began: func() (err error) {
			if b.Profile != "" {
				file := filepath.Join(b.Profile, fmt.Sprintf("%s-%d.pprof", p.name, clients))
				go func() { profiled <- b.shop.profile(ctx, duration(b.Seconds), file) }()
			} else {
				profiled <- nil
			}
			before, err = b.shop.queries(ctx)
			began, cpu = time.Now(), b.shop.cpu()
			return err
		},
	}
	if p.drains {
		pressed.drained = func() error { return b.shop.drain(ctx) }
	}
	l, err := drive(ctx, pressed, p.do(b.stock))
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	cpu = b.shop.cpu().since(cpu)
	after, err := b.shop.queries(ctx)
	if err != nil {
		return err
	}
	if err := <-profiled; err != nil {
		return fmt.Errorf("profile %s: %w", p.name, err)
	}
	most := slices.Max(b.Clients)
	r := row{
		Path: p.name, load: l, title: p.title, wantRate: p.rate, wantRatio: p.ratio, wantMedian: p.median,
		judgeRate: clients == most && most >= 32, judgeMedian: clients == 1,
		ShopCPU: cpu.shop, DatabaseCPU: cpu.postgres,
		Queries: max(0, after-before-b.idle*time.Since(began).Seconds()) / float64(max(1, l.Count)),
	}
	if s := b.scripts[p.name]; s != nil {
		b.say("  the same by pgbench")
		if r.Raw, r.RawCPU, err = s.run(ctx, b.shop, b.pgbench, clients, duration(b.Warm), duration(b.Seconds)); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.complain("no raw limit of %s: %v", p.name, err)
		} else {
			r.Ratio = l.Rate / r.Raw
		}
	}
	b.report.Rows = append(b.report.Rows, r)
	return nil
}

// orientation is what this machine does at best: a server that says hello, and a select by key.
func (b *bench) orientation(ctx context.Context) error {
	if err := b.shop.freeze(ctx); err != nil {
		b.complain("the machine's best is not measured: %v", err)
		return nil
	}
	defer b.shop.resume()
	address, stop, err := hello(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, n := range b.Clients {
		b.say("echo's hello, %d clients", n)
		l, err := drive(ctx, pressure{address: address, clients: n, warm: duration(b.Warm), measure: duration(min(b.Seconds, 3))}, func(w *worker) error {
			_, err := w.want(200, "GET", "/", "", "")
			return err
		})
		if err != nil {
			return err
		}
		b.report.Hello = append(b.report.Hello, l)
	}
	if b.pgbench == "" {
		return nil
	}
	for _, statement := range []string{
		`CREATE SCHEMA bench`,
		`CREATE TABLE bench.pairs (key bigint PRIMARY KEY, value text NOT NULL)`,
		`INSERT INTO bench.pairs SELECT n, 'value ' || n FROM generate_series(1, 100000) n`,
		`ANALYZE bench.pairs`,
	} {
		if _, err := b.shop.db.exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	s := &script{Path: "select-by-key", sets: []set{{name: "k", low: 1, high: 100000}}, steps: []step{{text: `SELECT value FROM bench.pairs WHERE key = :k`}}}
	if err := s.write(b.dir); err != nil {
		return err
	}
	for _, n := range b.Clients {
		b.say("pgbench's select by key, %d clients", n)
		rate, _, err := s.run(ctx, b.shop, b.pgbench, n, duration(b.Warm), duration(min(b.Seconds, 3)))
		if err != nil {
			return err
		}
		b.report.SelectKey = append(b.report.SelectKey, rawRate{n, rate})
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
