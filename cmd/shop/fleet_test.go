package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// fleet is a shop of real processes, several instances of each, that balance over each other by lists of addresses.
type fleet struct {
	binary, file string
	members      []*member
	gateways     string            // as a target
	databases    map[string]string // URL by process
}

// member is one instance of a process of a fleet.
type member struct {
	process          string
	number           int
	listen, rpc, ops string
	dir              string
	said             locked
	text             bytes.Buffer

	running *os.Process // nil when it does not
	ended   chan error
}

func (m *member) String() string { return fmt.Sprintf("%s %d", m.process, m.number) }

// newFleet starts the fleet of a topology, by process the modules, nil for those that are left; each process has a database of its
// own. It ends with the test.
func newFleet(t *testing.T, instances int, topology map[string][]string, settings map[string]any) *fleet {
	t.Helper()
	f := &fleet{binary: filepath.Join(t.TempDir(), "shop"), databases: map[string]string{}}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", f.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	bus, err := natsembed.Start(natsembed.Options{Dir: inMemory(t), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bus.Stop)
	taken := map[string]bool{}
	for _, names := range topology {
		for _, m := range names {
			taken[m] = true
		}
	}
	ip, port := loopback(), 8080
	address := func() string {
		if runtime.GOOS != "linux" {
			return freeAddress(t)
		}
		port++
		return fmt.Sprintf("%s:%d", ip, port)
	}
	processes := map[string]upProcess{}
	for name, names := range topology {
		var http, rpc []string
		for n := range instances {
			m := &member{process: name, number: n + 1, listen: address(), rpc: address(), ops: address(), dir: t.TempDir()}
			m.said.w = &m.text
			f.members = append(f.members, m)
			http, rpc = append(http, "http://"+m.listen), append(rpc, "http://"+m.rpc)
		}
		p := upProcess{HTTP: strings.Join(http, ","), RPC: strings.Join(rpc, ","), Gateway: name == "gateway"}
		if p.Gateway {
			f.gateways = p.HTTP
		}
		own := slices.Clone(names)
		if names == nil {
			for _, m := range modules {
				if !taken[m.Name] {
					own = append(own, m.Name)
				}
			}
		} else {
			p.Modules = &names
		}
		if own = slices.DeleteFunc(own, func(m string) bool { return m == "storefront" }); len(own) > 0 {
			p.DatabaseURL = shoptest.DatabaseOf(t, own...)
			f.databases[name] = p.DatabaseURL
		}
		processes[name] = p
	}
	all := map[string]any{"mode": "development", "bus": bus.URL(), "secret": worldSecret, "processes": processes,
		"log": map[string]any{"level": "warn"}, "catalog": map[string]any{"demo_products": 30}}
	for k, v := range settings {
		all[k] = v
	}
	text, err := yaml.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	f.file = filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(f.file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.stop(t) })
	for n := range instances { // the first ones migrate and seed
		var starting sync.WaitGroup
		failed := make([]error, len(f.members))
		for i, m := range f.members {
			if m.number == n+1 {
				starting.Go(func() { failed[i] = f.start(t.Context(), m) })
			}
		}
		starting.Wait()
		if err := errors.Join(failed...); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// start returns when the member is ready.
func (f *fleet) start(ctx context.Context, m *member) error {
	cmd := exec.Command(f.binary, "serve", "--config", f.file, "--process", m.process)
	cmd.Dir = m.dir
	cmd.Env = append(onOneProcessor(), "SHOP_LISTEN="+m.listen, "SHOP_RPC_LISTEN="+m.rpc, "SHOP_OPS_LISTEN="+m.ops, "SHOP_DATA_DIR="+m.dir)
	cmd.Stdout, cmd.Stderr = &m.said, &m.said
	cmd.SysProcAttr = child()
	ended, started := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the kernel ends a child with the thread that made it
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	m.running, m.ended = cmd.Process, ended
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a minute has passed"))
	defer cancel()
	err := until(ctx, m.String()+" to be ready", func() (bool, error) {
		select {
		case err := <-ended:
			ended <- err
			return false, fmt.Errorf("%s ended by itself: %w", m, err)
		default:
			return answers(ctx, "http://"+m.listen+"/readyz"), nil
		}
	})
	return err
}

// drain stops the member as an operator does and tells how long that took; anything that was cut off is an error.
func (f *fleet) drain(m *member) (time.Duration, error) {
	began := time.Now()
	if err := m.running.Signal(syscall.SIGTERM); err != nil {
		return 0, fmt.Errorf("stop %s: %w", m, err)
	}
	err := <-m.ended
	m.running = nil
	if err != nil {
		err = fmt.Errorf("%s did not stop cleanly: %w", m, err)
	}
	return time.Since(began), err
}

// stop ends all at once.
func (f *fleet) stop(t *testing.T) {
	for _, m := range f.members {
		if m.running == nil {
			continue
		}
		_ = m.running.Kill() // it may have ended
		<-m.ended
	}
	if !t.Failed() {
		return
	}
	for _, m := range f.members {
		if m.text.Len() > 0 {
			t.Logf("%s said:\n%.20000s", m, m.text.String())
		}
	}
}

// tally sends requests on kept connections and on new ones by turns, and counts what comes of them.
type tally struct {
	kept, fresh http.RoundTripper

	requests, connections atomic.Int64
	mu                    sync.Mutex
	failed                []string
}

// newTally balances over the gateways as a Service would.
func newTally(t *testing.T, target string) *tally {
	t.Helper()
	open := func() http.RoundTripper {
		d, err := discovery.Open(target, discovery.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	return &tally{kept: open(), fresh: open()}
}

// RoundTrip counts as failed what a customer would call so: no whole answer, or one of the 500s.
func (c *tally) RoundTrip(r *http.Request) (*http.Response, error) {
	via := c.kept
	if c.requests.Add(1)%2 == 0 {
		r = r.Clone(r.Context())
		r.Close = true
		via = c.fresh
		c.connections.Add(1)
	}
	began := time.Now()
	res, err := via.RoundTrip(r)
	if err != nil {
		return nil, c.fail(r, began, err)
	}
	body, err := io.ReadAll(res.Body)
	res.Body.Close()
	if err != nil {
		return nil, c.fail(r, began, err)
	}
	if res.StatusCode >= 500 {
		_ = c.fail(r, began, fmt.Errorf("%d %.300s", res.StatusCode, body))
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	return res, nil
}

func (c *tally) fail(r *http.Request, began time.Time, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failed = append(c.failed, fmt.Sprintf("%s, %s %s, begun %d ms before: %v", time.Now().Format("15:04:05.000"), r.Method, r.URL.Path, time.Since(began).Milliseconds(), err))
	return err
}

// failures are in the order in which they were found.
func (c *tally) failures() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.failed)
}

// stocked are the articles that a load buys, of which there is more than it can buy.
func stocked(ctx context.Context, client *http.Client, url string, catalog *sql.DB) ([]string, error) {
	b := &buyer{url: url, client: client, header: http.Header{}}
	r, err := b.must(ctx, "POST", "/v1/auth/login", "", map[string]string{"email": usersapi.DemoAdmin, "password": usersapi.DemoAdminPassword})
	if err != nil {
		return nil, err
	}
	b.header.Set("Authorization", "Bearer "+r.AccessToken)
	rows, err := catalog.QueryContext(ctx, `SELECT sku FROM catalog.levels WHERE on_hand - reserved >= 10 ORDER BY sku LIMIT 12`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var skus []string
	for rows.Next() {
		var sku string
		if err := rows.Scan(&sku); err != nil {
			return nil, err
		}
		skus = append(skus, sku)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if len(skus) == 0 {
		return nil, errors.New("the shelves are empty")
	}
	for _, sku := range skus {
		if _, err := b.must(ctx, "POST", "/v1/admin/stock-adjustments", fmt.Sprint("stock-", sku, time.Now().UnixNano()), map[string]any{"sku": sku, "delta": 5000, "reason": "load"}); err != nil {
			return nil, err
		}
	}
	return skus, nil
}

// database opens one of the test's as superuser.
func database(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := pg.OpenAdmin(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}
