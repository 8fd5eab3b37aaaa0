package host_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// diary is what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(line string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

func (d *diary) all() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.lines)
}

func (d *diary) has(line string) bool { return slices.Contains(d.all(), line) }

// A shop of two modules: lights switches lights on and tells of it, garden hears of it and asks lights.

type switchRequest struct {
	Room string `json:"room"`
}

type lamp struct {
	On bool `json:"on"`
}

type switchedOn struct {
	Room string `json:"room"`
}

func (switchedOn) EventName() string  { return "lights.switched_on.v1" }
func (e switchedOn) EventKey() string { return e.Room }

var state = rpc.NewMethod[switchRequest, lamp]("lights.State", rpc.Idempotent)

type lights struct {
	db     *pg.DB
	diary  *diary
	wait   chan struct{}
	config struct {
		Watts int `yaml:"watts" min:"1"`
	}
}

func (l *lights) Serve(s *rpc.Server)             { state.Handle(s, l.state) }
func (l *lights) Subscribe(*events.Subscriptions) {}
func (l *lights) Start(context.Context) error     { l.diary.note("start"); return nil }
func (l *lights) Seed(ctx context.Context) error {
	l.diary.note("seed")
	return l.on(ctx, "seeded")
}

func (l *lights) Routes(r *web.Router) {
	web.Post(r, "/v1/lights/{room}", web.Public, web.Route{ID: "switchOn"}, l.postOn)
}

func (l *lights) postOn(ctx context.Context, in *struct {
	Room string `path:"room"`
}) (*web.Reply[lamp], error) {
	if in.Room == "slow" {
		l.diary.note("request begun")
		<-l.wait
		l.diary.note("request ended")
	}
	return &web.Reply[lamp]{Body: lamp{true}}, l.on(ctx, in.Room)
}

func (l *lights) on(ctx context.Context, room string) error {
	return l.db.InTx(ctx, func(tx *pg.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO lights.lamps (room) VALUES ($1) ON CONFLICT DO NOTHING`, room); err != nil {
			return err
		}
		return events.Publish(ctx, tx, switchedOn{room})
	})
}

func (l *lights) state(ctx context.Context, r switchRequest) (lamp, error) {
	var found lamp
	return found, l.db.Get(ctx, &found.On, `SELECT EXISTS (SELECT FROM lights.lamps WHERE room = $1)`, r.Room)
}

type garden struct {
	db    *pg.DB
	conn  *rpc.Conn
	diary *diary
}

func (g *garden) Serve(*rpc.Server)  {}
func (g *garden) Routes(*web.Router) {}
func (g *garden) Subscribe(s *events.Subscriptions) {
	events.On(s, "moths", func(ctx context.Context, _ *pg.Tx, e switchedOn) error { g.diary.note("heard " + e.Room); return nil })
}

func (g *garden) Run(ctx context.Context) {
	g.diary.note("run")
	<-ctx.Done()
	g.diary.note("run ended")
}

var migrations = fstest.MapFS{
	"lights/0001_lamps.sql": {Data: []byte("-- +goose Up\nCREATE TABLE lights.lamps (room text PRIMARY KEY);\n")},
	"garden/0001_none.sql":  {Data: []byte("-- +goose Up\nSELECT 1;\n")},
}

func options(t *testing.T, d *diary, wait chan struct{}, flags map[string]string) host.Options {
	t.Helper()
	all := map[string]string{"listen": "127.0.0.1:0", "ops_listen": "127.0.0.1:0", "data_dir": t.TempDir(), "pool.max": "3", "events.poll": "50ms"}
	for k, v := range flags {
		all[k] = v
	}
	s, err := config.Load(config.Options{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	return host.Options{
		Settings: s, Migrations: migrations, Version: "v1.2.3", Development: true, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Modules: []host.Module{
			host.Of("lights", func(e *host.Env) (*lights, error) {
				l := &lights{db: e.DB, diary: d, wait: wait}
				l.config.Watts = 60
				var err error
				l.config, err = config.Decode(e.Settings, "lights", l.config)
				return l, err
			}),
			host.Of("garden", func(e *host.Env) (*garden, error) { return &garden{db: e.DB, conn: e.Conn("lights"), diary: d}, nil }),
		},
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(body)
}

func TestLife(t *testing.T) {
	t.Parallel()
	for _, placement := range []string{"one", "wire"} {
		t.Run(placement, func(t *testing.T) {
			t.Parallel()
			var d diary
			wait := make(chan struct{})
			database := shoptest.EmptyDatabase(t)
			o := options(t, &d, wait, map[string]string{"database_url": database, "placement": placement})
			h, err := host.Boot(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if code, body := get(t, h.URL()+"/readyz"); code != 200 {
				t.Errorf("ready: %d %s", code, body)
			}
			if got, err := state.Call(t.Context(), h.Dialer("test").Conn("lights"), switchRequest{"seeded"}); err != nil || !got.On {
				t.Errorf("call a contract: %+v, %v", got, err)
			}
			if code, body := get(t, h.OpsURL()+"/metrics"); code != 200 || !strings.Contains(body, `banyan_rpc_calls_total{caller="test",method="lights.State"`) {
				t.Errorf("metrics: %d %s", code, body)
			}

			// A request is under way when the shop is told to stop: it ends first, and what it published is still heard.
			answered := make(chan int, 1)
			go func() {
				answer, err := http.Post(h.URL()+"/v1/lights/slow", "application/json", nil)
				if err != nil {
					answered <- 0
					return
				}
				answer.Body.Close()
				answered <- answer.StatusCode
			}()
			shoptest.WaitFor(t, "the request to begin", func() bool { return d.has("request begun") })
			closed := make(chan error, 1)
			go func() { closed <- h.Close(context.Background()) }()
			shoptest.WaitFor(t, "readiness to go", func() bool { return h.Ready(t.Context()).Process != "" })
			shoptest.WaitFor(t, "new connections to be refused", func() bool {
				c, err := net.Dial("tcp", strings.TrimPrefix(h.URL(), "http://"))
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			close(wait)
			if code := <-answered; code != 200 && code != 201 {
				t.Errorf("the request under way got %d", code)
			}
			if err := <-closed; err != nil {
				t.Errorf("close: %v", err)
			}
			lines := d.all()
			before := func(first, second string) {
				if i, j := slices.Index(lines, first), slices.Index(lines, second); i < 0 || j < i {
					t.Errorf("%q did not come before %q: %q", first, second, lines)
				}
			}
			before("start", "seed")
			before("seed", "run")
			before("request ended", "run ended")

			// A second start finds the demo data made and hears what the first could not.
			again := diary{}
			o = options(t, &again, wait, map[string]string{"database_url": database, "placement": placement})
			if h, err = host.Boot(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			shoptest.WaitFor(t, "the last event to be heard", func() bool { return d.has("heard slow") || again.has("heard slow") })
			if again.has("seed") {
				t.Error("the demo data was made twice")
			}
			if err := h.Close(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	for name, c := range map[string]struct {
		flags map[string]string
		live  bool
		want  string
	}{
		"an address in use":  {map[string]string{"listen": taken.Addr().String()}, false, "something listens on " + taken.Addr().String() + " already: stop it, or choose another address with SHOP_LISTEN"},
		"no such database":   {map[string]string{"database_url": "postgres://nobody:hush@127.0.0.1:1/shop?sslmode=disable"}, false, "the database postgres://nobody:xxxxx@127.0.0.1:1/shop?sslmode=disable can't be used"},
		"no secret":          {map[string]string{"database_url": "postgres://127.0.0.1:1/shop"}, true, "set SHOP_SECRET"},
		"a short secret":     {map[string]string{"database_url": "postgres://127.0.0.1:1/shop", "secret": "short"}, true, "the secret is too short"},
		"wrong settings":     {map[string]string{"lights.watts": "0", "listen": "x", "gardn.x": "1"}, false, "--lights.watts: lights.watts must be at least 1"},
		"and all of them":    {map[string]string{"lights.watts": "0", "listen": "x", "gardn.x": "1"}, false, "--listen: listen must be host:port"},
		"also unknown ones":  {map[string]string{"lights.watts": "0", "listen": "x", "gardn.x": "1"}, false, "--gardn.x: no such setting"},
		"an unknown placing": {map[string]string{"placement": "won"}, false, "placement must be one of one, wire"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, &diary{}, nil, c.flags)
			o.Development = !c.live
			h, err := host.Boot(t.Context(), o)
			if err == nil {
				t.Fatal(errors.Join(errors.New("it started"), h.Close(t.Context())))
			}
			if !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("got %q, want %q", err, c.want)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	o := options(t, nil, nil, nil)
	list, err := host.Describe(o)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || !list[0].Schema || len(list[0].Routes) != 1 || len(list[0].Methods) != 1 || list[1].Calls[0] != "lights" || list[1].Hears[0].Event != "lights.switched_on.v1" {
		t.Errorf("described as %+v", list)
	}
	o.Modules[0], o.Modules[1] = o.Modules[1], o.Modules[0]
	if _, err := host.Describe(o); err == nil || !strings.Contains(err.Error(), "garden may not call lights") {
		t.Errorf("a call downwards: %v", err)
	}
	o.Modules = o.Modules[:1]
	if _, err := host.Describe(o); err == nil {
		t.Error("a call to nobody and an event of nobody went unnoticed")
	}
}

func TestACommandOpensWithoutServing(t *testing.T) {
	t.Parallel()
	var d diary
	h, err := host.Open(t.Context(), options(t, &d, nil, map[string]string{"database_url": shoptest.EmptyDatabase(t), "placement": "wire"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Seed(t.Context()); err != nil {
		t.Error(err)
	}
	if got, err := state.Call(t.Context(), h.Dialer("test").Conn("lights"), switchRequest{"seeded"}); err != nil || !got.On {
		t.Errorf("call a contract: %+v, %v", got, err)
	}
	absent := rpc.NewMethod[switchRequest, lamp]("garden.Absent", rpc.Idempotent)
	if _, err := absent.Call(t.Context(), h.Dialer("test").Conn("garden"), switchRequest{}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("call what is not served: %v", err)
	}
	if h.URL() != "" || !slices.Equal(d.all(), []string{"seed"}) {
		t.Errorf("it serves at %q and did %q", h.URL(), d.all())
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEmbeddedDatabase(t *testing.T) {
	t.Parallel()
	var d diary
	var told bytes.Buffer
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} { // the user PostgreSQL runs as must get in
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	o := options(t, &d, nil, map[string]string{"data_dir": dir})
	o.Development = false // the embedded database itself says so
	o.Progress = func(s string) { told.WriteString(s + "\n") }
	began := time.Now()
	h, err := host.Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cold start %s", time.Since(began))
	if !h.Development() || !d.has("seed") {
		t.Errorf("not a shop to try out: %q", d.all())
	}
	if _, err := host.Boot(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another shop") {
		t.Errorf("a second serve on the data: %v", err)
	}
	command, err := host.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("a command beside it: %v", err)
	}
	if err := command.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if code, _ := get(t, h.URL()+"/readyz"); code != 200 {
		t.Error("the command took the database with it")
	}
	if err := h.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
