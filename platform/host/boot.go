package host

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/migrate"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/pgembed"
	"github.com/banyan-shop/banyan/platform/placement"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/telemetry"
	"github.com/banyan-shop/banyan/platform/web"
)

// Options say what to run and with what. Modules, Settings and Migrations are required.
type Options struct {
	Modules    []Module
	Settings   *config.Source
	Migrations fs.FS  // db/: a folder a module that has a schema
	Version    string // of the binary

	// Keys is where access tokens' public keys come from: cmd/shop dials the module that owns them.
	Keys func(rpc.Dialer) auth.KeySource
	// APIKeys asks the same module about API keys.
	APIKeys func(rpc.Dialer) auth.APIKeyVerifier
	// Hear subscribes a process to the broadcasts that concern it whatever modules it runs, such as that sessions ended.
	Hear func(*events.Subscriptions, Ears)
	// Limiter keeps rate limits for several processes at an address such as redis://host:6379; needed as soon as gateway.limits is
	// set.
	Limiter func(address string) (SharedLimiter, error)
	// Carrier carries events over the bus of that URL; needed as soon as bus is set.
	Carrier func(ctx context.Context, bus string, log *slog.Logger) (events.Carrier, error)

	Log      *slog.Logger     // nil: from the settings, to stderr
	Progress func(string)     // told what takes long; nil for none
	Now      func() time.Time // nil: time.Now
	// Development relaxes TLS and secrets as an embedded database does, for tests on a database of their own.
	Development bool
	// Differs hears of a callee that did not repeat its answer in the wire placement; nil logs it.
	Differs func(method, first, second string)
}

// Ears are the parts of a process that act on what it hears.
type Ears struct {
	Verifier   *auth.Verifier       // refuses the tokens and keys that have ended
	Invalidate func(tags ...string) // forgets cached answers, see web.Server.Invalidate
}

// SharedLimiter is a web.Limiter that is closed in the end.
type SharedLimiter interface {
	web.Limiter
	Close() error
}

// Host is the modules of this process and what they stand on. Open builds it, Start makes it serve, Close ends it.
type Host struct {
	Settings Settings
	Plan     placement.Plan // who runs what, seen from this process

	o           Options
	here        []Module // what this process builds
	log         *slog.Logger
	now         func() time.Time
	metrics     *prometheus.Registry
	telemetry   *telemetry.Telemetry // nil when the log was given
	development bool
	dataDir     string
	secret      auth.Secret
	listener    *discovery.Listener // the public one, held from early on so that its port is known; nil for a command
	rpcListener *discovery.Listener // where other processes call; nil if none does
	opsListener *discovery.Listener
	openFace    func() error // makes listener take connections
	openCalls   func() error // and rpcListener
	publicURL   string
	embedded    string // URL of the PostgreSQL of our own, "" without one
	dbs         map[string]*pg.DB
	tokens      *auth.Internal
	targets     map[string]*discovery.Target // instances elsewhere, by address
	wiring      *rpc.Wiring
	verifier    *auth.Verifier
	instances   []instance

	bus         *events.Bus
	rpc         *http.Server
	web         atomic.Pointer[web.Server]
	withdraw    []func(context.Context) error // from Consul
	state       atomic.Value                  // string: why it is not ready, "" when it is
	ready       readiness
	stopRunning context.CancelFunc
	running     sync.WaitGroup // background work
	serving     sync.WaitGroup // the public listener
	failed      chan error     // a listener that ended by itself

	closing []func(context.Context) error // undone in reverse
}

type instance struct {
	name string
	Instance
}

// Boot opens and starts: the whole shop in one call, for tests and for serve.
func Boot(ctx context.Context, o Options) (*Host, error) {
	h, err := open(ctx, o, true)
	if err != nil {
		return nil, err
	}
	if err := h.start(ctx); err != nil {
		return nil, errors.Join(err, h.Close(context.WithoutCancel(ctx)))
	}
	return h, nil
}

// Open builds the modules on a migrated database and serves nobody: for commands, also beside a running serve. Contracts can
// be called; what is published is sent by the next or the running serve.
func Open(ctx context.Context, o Options) (*Host, error) {
	h, err := open(ctx, o, false)
	if err != nil {
		return nil, err
	}
	if err := h.wiring.Start(ctx); err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	h.onClose(h.wiring.Stop)
	return h, nil
}

func open(ctx context.Context, o Options, serve bool) (h *Host, err error) {
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	h = &Host{o: o, now: o.Now, dbs: map[string]*pg.DB{}, targets: map[string]*discovery.Target{}, failed: make(chan error, 2)}
	h.state.Store("starting")
	if h.now == nil {
		h.now = time.Now
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.Close(context.WithoutCancel(ctx)))
			h = nil
		}
	}()
	if h.Settings, err = config.Decode(o.Settings, "", Defaults()); err != nil {
		// The modules' mistakes are worth telling in the same breath.
		return h, config.Join(err, h.check())
	}
	if err := h.check(); err != nil {
		return h, err
	}
	if h.Plan, err = h.decide(serve); err != nil {
		return h, err
	}
	for _, m := range o.Modules {
		if h.builds(m.Name, serve) {
			h.here = append(h.here, m)
		}
	}
	h.development = h.isDevelopment(h.Settings)
	if err := h.observe(ctx); err != nil {
		return h, err
	}
	for _, stranger := range o.Settings.Strangers() {
		h.log.Warn(stranger)
	}
	if serve {
		if err := h.listen(ctx); err != nil {
			return h, err
		}
	}
	if err := h.database(ctx, serve); err != nil {
		return h, err
	}
	if err := h.wire(serve); err != nil {
		return h, err
	}
	return h, nil
}

// builds says whether this process makes a module itself. A command that serves nobody makes all whose database it can know, so
// that it needs no other process to be up.
func (h *Host) builds(module string, serve bool) bool {
	return h.Plan.Runs(module) || !serve && len(h.Settings.Processes) > 0
}

// isDevelopment is what relaxes limits and secrets: a database of our own, or somebody's word.
func (h *Host) isDevelopment(s Settings) bool {
	switch s.Mode {
	case "development":
		return true
	case "production":
		return false
	}
	return h.o.Development || len(h.ownDatabase(s)) > 0
}

// ownDatabase are the modules here whose data is in the PostgreSQL that we run, because no database_url is theirs.
func (h *Host) ownDatabase(s Settings) []string {
	if s.DatabaseURL != "" {
		return nil
	}
	var names []string
	for _, m := range h.schemas() {
		if h.Plan.DatabaseURL(m) == "" {
			names = append(names, m)
		}
	}
	return names
}

func (h *Host) moduleNames() []string {
	names := make([]string, len(h.o.Modules))
	for i, m := range h.o.Modules {
		names[i] = m.Name
	}
	return names
}

func (h *Host) observe(ctx context.Context) error {
	s := h.Settings
	if h.o.Log != nil {
		h.log, h.metrics = h.o.Log, prometheus.NewRegistry()
		return nil
	}
	t, err := telemetry.Setup(ctx, telemetry.Config{
		Process: h.Plan.Process, Version: h.o.Version, LogLevel: s.Log.Level, LogFormat: s.Log.Format, TraceTo: s.Trace.To, TraceRatio: s.Trace.Ratio,
	})
	if err != nil {
		return err
	}
	h.telemetry, h.log, h.metrics = t, t.Log, t.Metrics
	h.onClose(t.Shutdown)
	return nil
}

func (h *Host) onClose(f func(context.Context) error) { h.closing = append(h.closing, f) }

func (h *Host) listen(ctx context.Context) (err error) {
	open := func(key, address string) (*discovery.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			env := "SHOP_" + strings.ToUpper(key)
			return nil, fmt.Errorf("something listens on %s already: stop it, or choose another address with %s, such as %s=127.0.0.1:0 for any free port", address, env, env)
		}
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w: check %s", address, err, key)
		}
		h.onClose(func(context.Context) error {
			if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
				return err
			}
			return nil
		})
		return discovery.NewListener(l), nil
	}
	public, calls, ops := h.addresses()
	if public != "" {
		if h.listener, err = open("listen", public); err != nil {
			return err
		}
	}
	if calls != "" {
		if h.rpcListener, err = open("rpc_listen", calls); err != nil {
			return err
		}
	}
	if ops != "" {
		if h.opsListener, err = open("ops_listen", ops); err != nil {
			return err
		}
	}
	// Of those that customers and other processes know, only that they are free is known by now: a kernel that listened would take
	// connections which nobody serves yet, and who made them would wait in place of asking another instance.
	for _, c := range []struct {
		key, address string
		listener     **discovery.Listener
		reopen       *func() error
	}{{"listen", public, &h.listener, &h.openFace}, {"rpc_listen", calls, &h.rpcListener, &h.openCalls}} {
		*c.reopen = func() error { return nil }
		if _, port, _ := net.SplitHostPort(c.address); c.address == "" || port == "0" {
			continue // nobody knows it, and there is no way to get the same again
		}
		if err := (*c.listener).Close(); err != nil {
			return err
		}
		*c.reopen = func() (err error) {
			*c.listener, err = open(c.key, c.address)
			return err
		}
	}
	return nil
}

// addresses are where this process listens for customers, other processes and operators; "" is nowhere. A flag or the
// environment wins; then what the process's own entry says or implies, since the rest of the file is for all processes.
func (h *Host) addresses() (public, calls, ops string) {
	s, this := h.Settings, h.Plan.Processes[h.Plan.Process]
	public, calls, ops = s.Listen, s.RPCListen, s.OpsListen
	if !h.Plan.Split() {
		return public, "", ops
	}
	said := h.o.Settings.Overlaid
	if !said("listen") {
		public = cmp.Or(this.Listen, placement.ListenOn(this.HTTP), public)
		if len(s.Processes) > 0 && this.HTTP == "" && this.Listen == "" {
			public = "" // nobody is told of it
		}
	}
	if !said("rpc_listen") {
		calls = cmp.Or(this.RPCListen, placement.ListenOn(this.RPC), calls)
		if calls == "" && (this.RPC != "" || len(s.Modules) > 0) {
			calls = defaultRPCListen
		}
	}
	if !said("ops_listen") {
		ops = cmp.Or(this.OpsListen, ops)
		if this.OpsListen == "" && ops != "" && (isLoopback(public) || isLoopback(calls)) {
			ops = "127.0.0.1:0" // several processes share this machine
		}
	}
	return public, calls, ops
}

// defaultRPCListen is loopback, so that a process which was told nothing is not called from elsewhere.
const defaultRPCListen = "127.0.0.1:8081"

func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "localhost" || ip != nil && ip.IsLoopback())
}

// database finds or runs PostgreSQL, brings the schemas up to date and opens a pool for each module's role.
func (h *Host) database(ctx context.Context, serve bool) error {
	dir := h.Settings.DataDir
	if dir == "" {
		var err error
		if dir, err = pgembed.DefaultDir(); err != nil {
			return err
		}
	}
	h.dataDir = dir
	embedded := len(h.ownDatabase(h.Settings)) > 0
	if embedded && serve {
		release, err := pgembed.Lock(dir)
		if err != nil {
			return err
		}
		h.onClose(func(context.Context) error { release(); return nil })
	}
	if err := h.secrets(embedded); err != nil {
		return err
	}
	if embedded {
		server, err := pgembed.Start(ctx, pgembed.Options{Dir: dir, Fsync: true, Log: h.log, Progress: h.o.Progress})
		if err != nil {
			return err
		}
		h.onClose(server.Stop)
		h.embedded = server.URL("shop")
	}
	if err := h.migrate(ctx); err != nil {
		return err
	}
	var mu sync.Mutex
	g, gctx := errgroup.WithContext(ctx)
	for _, module := range h.schemas() {
		g.Go(func() error {
			db, err := pg.Open(gctx, pg.Config{
				URL: h.moduleURL(module), Schema: module,
				MaxConns: cmp.Or(h.Settings.Pool.Modules[module], h.Settings.Pool.Max), Trace: h.traceSQL(),
				Patience: h.Settings.Web.Overload,
			})
			if err != nil {
				return fmt.Errorf("open the database as %s: %w", module, err)
			}
			mu.Lock()
			defer mu.Unlock()
			h.dbs[module] = db
			return nil
		})
	}
	h.onClose(func(context.Context) error {
		var all []error
		for _, db := range h.dbs {
			all = append(all, db.Close())
		}
		return errors.Join(all...)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	h.metrics.MustRegister(pools(h.dbs))
	return nil
}

// databaseURL is where a module's data is, as the role that migrates.
func (h *Host) databaseURL(module string) string {
	return cmp.Or(h.Plan.DatabaseURL(module).Reveal(), h.Settings.DatabaseURL.Reveal(), h.embedded)
}

// databases are the distinct databases of the modules here, each with its modules in order.
func (h *Host) databases() (urls []string, modules map[string][]string) {
	modules = map[string][]string{}
	for _, m := range h.schemas() {
		u := h.databaseURL(m)
		if modules[u] == nil {
			urls = append(urls, u)
		}
		modules[u] = append(modules[u], m)
	}
	return urls, modules
}

// migrate brings every database up to date.
func (h *Host) migrate(ctx context.Context) error {
	urls, modules := h.databases()
	for _, u := range urls {
		err := migrate.Up(ctx, migrate.Options{AdminURL: u, FS: h.o.Migrations, Modules: modules[u], Password: h.password(u), Log: h.log})
		if err != nil && u != h.embedded && pg.State(err) == "" {
			return h.o.Settings.Place(config.Bad(h.databaseKey(modules[u][0]),
				"is wrong, or its server is away: the database %s can't be used: %v: mend it, or leave it empty to run a PostgreSQL of our own", telemetry.URL(u), err))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// databaseKey is the setting that names a module's database.
func (h *Host) databaseKey(module string) string {
	if h.Plan.DatabaseURL(module) != "" {
		return "processes." + h.Plan.Owner[module] + ".database_url"
	}
	return "database_url"
}

// password makes the passwords of the modules' roles from the secret, so that they need no place of their own. nil for a server of
// development that lets us in without one.
func (h *Host) password(databaseURL string) func(role string) string {
	if h.development && !pg.HasPassword(databaseURL) {
		return nil
	}
	return func(role string) string { return hex.EncodeToString(h.secret.Derive("database role " + role)) }
}

// moduleURL is where a module's data is, as its own role.
func (h *Host) moduleURL(module string) string {
	admin, password := h.databaseURL(module), ""
	if p := h.password(admin); p != nil {
		password = p(migrate.RoleName("shop", module))
	}
	return migrate.ModuleURL(admin, "shop", module, password)
}

// schemas are the modules here that have a folder of migrations, in order.
func (h *Host) schemas() []string {
	var names []string
	for _, m := range h.here {
		if _, err := fs.Stat(h.o.Migrations, m.Name); err == nil {
			names = append(names, m.Name)
		}
	}
	return names
}

func (h *Host) secrets(embedded bool) (err error) {
	switch given := h.Settings.Secret.Reveal(); {
	case given != "":
		h.secret, err = auth.ParseSecret(given)
	case h.Plan.Split():
		err = errors.New("the processes of a shop share one secret, by which they know each other: set SHOP_SECRET to the same for all of them, for example to what `openssl rand -hex 32` prints")
	case embedded:
		h.secret, err = auth.SecretFile(filepath.Join(h.dataDir, "secret"))
	case h.development:
		h.secret = auth.NewSecret()
	default:
		err = errors.New("with a database of your own the shop needs a secret that outlives this process: set SHOP_SECRET, for example to what `openssl rand -hex 32` prints, and keep it")
	}
	return err
}

// wire builds every module that runs here in order and mounts its contract; the others it reaches over the network.
func (h *Host) wire(serve bool) error {
	if err := h.identify(); err != nil {
		return err
	}
	remotes, err := h.remotes(serve)
	if err != nil {
		return err
	}
	h.wiring = rpc.NewWiring(rpc.Options{
		Modules: h.moduleNames(), Placement: rpc.Placement(h.Settings.Placement), Tokens: h.tokens,
		Remotes: remotes, Log: h.log, Deadline: h.Settings.Calls.Deadline, Policy: rpc.Policy{
			Concurrent: h.Settings.Calls.Concurrent, Failing: h.Settings.Calls.Failing, Pause: h.Settings.Calls.Pause, Retries: h.Settings.Calls.Retries,
		}, Differs: h.o.Differs, Tracer: h.tracer(),
	})
	h.metrics.MustRegister(h.wiring, h.readyGauge())
	if h.o.Keys != nil {
		h.verifier = h.newVerifier()
	}
	h.publicURL = cmp.Or(h.Settings.PublicURL, h.Plan.Public())
	if h.publicURL == "" {
		h.publicURL = "http://" + h.Settings.Listen
		if h.listener != nil {
			h.publicURL = h.URL()
		}
	}
	for _, m := range h.here {
		built, err := h.build(m, h.wiring)
		if err != nil {
			return err
		}
		built.Serve(h.wiring.Server(m.Name))
		h.instances = append(h.instances, instance{m.Name, built})
	}
	return errors.Join(h.wiring.Check(), h.reachable(serve))
}

// identify gives the process what it needs to be known by the others: they share the secret, so they share the key.
func (h *Host) identify() error {
	h.tokens = auth.NewInternal(auth.InternalKey(h.secret), nil, time.Now)
	return nil
}

// newVerifier checks access tokens with the public keys of the module that makes them. Where that runs elsewhere a copy is kept, so
// that this process can start while that one is away.
func (h *Host) newVerifier() *auth.Verifier {
	source := h.o.Keys(h.wiring.Dialer("host"))
	if h.Plan.Split() {
		source = auth.KeptKeys(filepath.Join(h.dataDir, "keys-"+h.Plan.Process+".json"), source, h.log)
	}
	v := auth.NewVerifier(source, h.now)
	if h.o.APIKeys != nil {
		v.AcceptAPIKeys(h.o.APIKeys(h.wiring.Dialer("host")))
	}
	return v
}

// remotes are the modules that run elsewhere and how each is called. Modules of one process share its instances and connections.
func (h *Host) remotes(serve bool) (map[string]rpc.Remote, error) {
	all := map[string]rpc.Remote{}
	for _, name := range h.moduleNames() {
		address := h.Plan.RPC(name)
		if h.builds(name, serve) || address == "" {
			continue
		}
		target, err := h.target(address)
		if err != nil {
			return nil, err
		}
		all[name] = rpc.Remote{Base: target.URL().String(), Transport: target}
	}
	return all, nil
}

// target follows the instances at an address, once for everybody who asks.
func (h *Host) target(address string) (*discovery.Target, error) {
	if t, ok := h.targets[address]; ok {
		return t, nil
	}
	t, err := discovery.Open(address, discovery.Options{
		Log: h.log, Metrics: h.metrics, Now: h.now, Consul: h.Settings.Consul.Agent, ConsulToken: h.Settings.Consul.Token.Reveal(),
	})
	if err != nil {
		return nil, err
	}
	h.targets[address] = t
	h.onClose(func(context.Context) error { return t.Close() })
	return t, nil
}

// reachable finds the modules that one here calls and nobody says where they are.
func (h *Host) reachable(serve bool) error {
	var all []error
	for _, e := range h.wiring.Calls() {
		if !h.builds(e.Callee, serve) && h.Plan.RPC(e.Callee) == "" {
			all = append(all, fmt.Errorf("%s calls %s, and nothing says where that runs: add --remote %s=http://…", e.Caller, e.Callee, e.Callee))
		}
	}
	return errors.Join(all...)
}

// registerer is where modules register their metrics; nil when they are only asked what they are.
func (h *Host) registerer() prometheus.Registerer {
	if h.metrics == nil { // and a nil registry in the interface would not be nil
		return nil
	}
	return h.metrics
}

func (h *Host) build(m Module, w *rpc.Wiring) (Instance, error) {
	built, err := m.Build(&Env{
		Module: m.Name, DB: h.dbs[m.Name], Log: h.log.With("module", m.Name), Metrics: h.registerer(), Now: h.now, Settings: h.o.Settings, Secret: h.secret,
		Cursors: web.NewCursors(h.secret.Derive("cursors")), Verifier: h.verifier,
		Development: h.development, PublicURL: h.publicURL, Dialer: w.Dialer(m.Name),
	})
	if err != nil {
		var bad *config.Errors
		if errors.As(err, &bad) {
			return nil, bad
		}
		return nil, fmt.Errorf("build %s: %w", m.Name, err)
	}
	return built, nil
}

// dialable is an address one can ask on this machine: of 0.0.0.0 or [::], the loopback.
func dialable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// URL is where the shop answers, without a slash at the end; Boot alone gives one.
func (h *Host) URL() string {
	if h.listener == nil {
		return ""
	}
	return "http://" + dialable(h.listener.Addr().String())
}

// OpsURL is the operators' address, "" without one.
func (h *Host) OpsURL() string {
	if h.opsListener == nil {
		return ""
	}
	return "http://" + dialable(h.opsListener.Addr().String())
}

// RPCURL is where other processes call the modules here, "" if none does.
func (h *Host) RPCURL() string {
	if h.rpcListener == nil {
		return ""
	}
	return "http://" + dialable(h.rpcListener.Addr().String())
}

// Development says whether this is a shop to try out: demo data, sinks in place of mail and money.
func (h *Host) Development() bool { return h.development }

// DataDir is where the embedded database and the secret live.
func (h *Host) DataDir() string { return h.dataDir }

// DB is a module's database, nil for one without.
func (h *Host) DB(module string) *pg.DB { return h.dbs[module] }

// Dialer calls contracts as caller, which may be no module: a command, a test.
func (h *Host) Dialer(caller string) rpc.Dialer { return h.wiring.Dialer(caller) }

// Instance is a built module, nil for a name that is not in the list.
func (h *Host) Instance(module string) Instance {
	for _, i := range h.instances {
		if i.name == module {
			return i.Instance
		}
	}
	return nil
}

// Calls is who calls whom, found by building.
func (h *Host) Calls() []rpc.Edge { return h.wiring.Calls() }
