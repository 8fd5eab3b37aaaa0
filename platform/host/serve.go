package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/telemetry"
	"github.com/banyan-shop/banyan/platform/urgency"
	"github.com/banyan-shop/banyan/platform/web"
)

// start brings an opened host into service: modules, demo data, events, background work, then the public
// face.
func (h *Host) start(ctx context.Context) error {
	if err := h.wiring.Start(ctx); err != nil {
		return err
	}
	h.onClose(h.wiring.Stop)
	for _, i := range h.instances {
		if s, ok := i.Instance.(Starter); ok {
			if err := s.Start(ctx); err != nil {
				return fmt.Errorf("start %s: %w", i.name, err)
			}
		}
	}
	if h.Settings.Seed && h.development {
		if err := h.seedOnce(ctx); err != nil {
			return err
		}
	}
	if err := h.startCalls(); err != nil {
		return err
	}
	if err := h.startEvents(ctx); err != nil {
		return err
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stopRunning = stop
	for _, i := range h.instances {
		if r, ok := i.Instance.(Runner); ok {
			h.running.Go(func() { h.run(running, i.name, r) })
		}
	}
	if h.verifier != nil {
		h.running.Go(func() { h.verifier.Run(running) })
	}
	for module, db := range h.dbs {
		h.running.Go(func() { h.purge(running, module, db) })
	}
	h.state.Store("")
	if err := h.startWeb(); err != nil {
		return err
	}
	return h.announce(ctx)
}

// startCalls lets other processes call the modules here. It comes after the demo data, so that whoever needs that of another
// module finds all of it or nobody.
func (h *Host) startCalls() error {
	if h.rpcListener == nil {
		return nil
	}
	if err := h.openCalls(); err != nil {
		return err
	}
	h.rpc = &http.Server{Handler: discovery.Draining(h.internal(), h.draining), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug)}
	server := h.rpc
	h.serving.Go(func() {
		if err := server.Serve(h.rpcListener); !errors.Is(err, http.ErrServerClosed) {
			h.failed <- fmt.Errorf("serve %s: %w", h.rpcListener.Addr(), err)
		}
	})
	return nil
}

const (
	// purgeEvery is how often lapsed idempotency keys and old operations go.
	purgeEvery = 10 * time.Minute
	// keepOperations is longer than any saga repeats a command, one that waits for somebody to look at it included.
	keepOperations = 90 * 24 * time.Hour
)

// purge deletes a module's lapsed idempotency keys, and the results of commands that nobody repeats any more, from time to
// time, until ctx ends.
func (h *Host) purge(ctx context.Context, module string, db *pg.DB) {
	tick := time.NewTicker(purgeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n, err := web.PurgeKeys(ctx, db); err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "lapsed idempotency keys stay", "module", module, "err", err)
		} else if n > 0 {
			h.log.DebugContext(ctx, "lapsed idempotency keys deleted", "module", module, "keys", n)
		}
		if n, err := db.ForgetOperations(ctx, h.now().Add(-keepOperations)); err != nil && ctx.Err() == nil {
			h.log.WarnContext(ctx, "old operations stay", "module", module, "err", err)
		} else if n > 0 {
			h.log.DebugContext(ctx, "old operations forgotten", "module", module, "operations", n)
		}
	}
}

// run keeps a module's background work going until ctx ends. A panic there must not end the shop, nor the work for good.
func (h *Host) run(ctx context.Context, module string, r Runner) {
	for ctx.Err() == nil {
		func() {
			defer func() {
				if p := recover(); p != nil {
					h.log.ErrorContext(ctx, "panic in background work", "module", module, "panic", fmt.Sprint(p), "stack", stack())
				}
			}()
			r.Run(ctx)
		}()
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
			h.log.WarnContext(ctx, "background work ended early and is started again", "module", module)
		}
	}
}

func (h *Host) startEvents(ctx context.Context) error {
	o := events.Options{
		Log: h.log, Metrics: h.metrics, Tracer: h.tracer(), Context: auth.WithCaller,
		Handlers: h.Settings.Events.Handlers, MaxAttempts: h.Settings.Events.Attempts, Poll: h.Settings.Events.Poll,
	}
	if bus := h.Settings.Bus; bus != "" {
		var err error
		if o.Carrier, err = h.o.Carrier(ctx, bus.Reveal(), h.log); err != nil {
			return fmt.Errorf("the bus %s can't be used: %w: check bus (SHOP_BUS)", bus, err)
		}
	}
	h.bus = events.NewBus(o)
	for _, i := range h.instances {
		if err := h.bus.Add(i.name, h.dbs[i.name], i.Subscribe); err != nil {
			return err
		}
	}
	if h.o.Hear != nil && h.verifier != nil {
		if err := h.bus.Add("host", nil, func(s *events.Subscriptions) { h.o.Hear(s, Ears{h.verifier, h.invalidate}) }); err != nil {
			return err
		}
	}
	return h.bus.Start(ctx)
}

// invalidate forgets cached answers. Before the public face is there, nothing is cached.
func (h *Host) invalidate(tags ...string) {
	if server := h.web.Load(); server != nil {
		server.Invalidate(tags...)
	}
}

func (h *Host) startWeb() error {
	server, err := h.face()
	if err != nil {
		return err
	}
	h.web.Store(server)
	if h.listener != nil {
		if err := h.openFace(); err != nil {
			return err
		}
		h.serving.Go(func() {
			if err := server.Serve(h.listener); err != nil {
				h.failed <- err
			}
		})
	}
	return h.startOps()
}

// face is the public face: the routes of the modules here, and in a gateway those of all others, which it forwards.
func (h *Host) face() (*web.Server, error) {
	router := web.NewRouter()
	for _, m := range h.o.Modules {
		switch {
		case h.Plan.Runs(m.Name):
			h.Instance(m.Name).Routes(router.Module(m.Name, h.dbs[m.Name]))
		case h.Plan.Gateway && h.Plan.HTTP(m.Name) != "":
			forward, err := h.forward(m.Name)
			if err != nil {
				return nil, err
			}
			m.Nil.Routes(router.Remote(m.Name, forward))
		}
	}
	// A module here may pass on the refusal of one elsewhere: it has the same title everywhere.
	for _, p := range Routes(h.o).Problems() {
		router.Problem(p.Code, p.Title, p.Explanation)
	}
	// What a gateway passes on is counted there as a customer's request, and here beside it: the sum of each is true.
	customers := telemetry.NewRED(h.metrics, "http", "requests of customers", "module", "method", "route")
	forwarded := telemetry.NewRED(h.metrics, "forwarded", "requests that a gateway in another process has passed on", "module", "method", "route")
	shed := promauto.With(h.metrics).NewCounterVec(prometheus.CounterOpts{
		Namespace: "banyan", Subsystem: "web", Name: "shed_total", Help: "Requests turned away because there was too much to do.",
	}, []string{"criticality"})
	c := web.Config{
		Router: router, Log: h.log, TrustedProxies: h.Settings.Web.TrustedProxies, Version: h.o.Version, Ready: h.Ready,
		Observe: func(o web.Observed) {
			red := customers
			if o.Forwarded {
				red = forwarded
			}
			red.Observe(o.Took, strconv.Itoa(o.Status/100)+"xx", o.Module, o.Method, o.Route)
		},
		Shed:    func(c web.Criticality) { shed.WithLabelValues(c.String()).Inc() },
		Gateway: h.tokens.VerifyForwarded, Limit: h.limit(), Kill: h.Settings.Gateway.Kill, CacheFor: h.Settings.Gateway.CacheFor,
		Overload: web.Overload{Delay: h.Settings.Web.Overload, Max: h.Settings.Web.Concurrent},
	}
	if c.Overload.Delay > 0 {
		p, err := watchProcessor()
		if err != nil {
			return nil, err
		}
		h.onClose(func(context.Context) error { p.close(); return nil })
		c.Overload.Queued = p.queued
	}
	if at := h.Settings.Gateway.Limits; at != "" {
		limiter, err := h.o.Limiter(at.Reveal())
		if err != nil {
			return nil, fmt.Errorf("gateway.limits: %w", err)
		}
		h.onClose(func(context.Context) error { return limiter.Close() })
		c.Limiter = limiter
	}
	if h.verifier != nil {
		c.Verify = h.verifier.Verify
	}
	if h.telemetry != nil && h.telemetry.Tracing {
		c.Tracer = h.telemetry.Tracer.Tracer("banyan/web")
	}
	server, err := web.NewServer(c)
	if err != nil {
		return nil, err
	}
	return server, nil
}

func (h *Host) limit() web.Limit {
	rate := h.Settings.Web.PerSecond
	if rate == 0 && !h.development {
		rate = 50
	}
	if rate <= 0 {
		return web.Limit{}
	}
	return web.Limit{PerSecond: float64(rate), Burst: h.Settings.Web.Burst}
}

func (h *Host) startOps() error {
	if h.opsListener == nil {
		return nil
	}
	t := h.telemetry
	if t == nil {
		t = &telemetry.Telemetry{Log: h.log, Metrics: h.metrics}
	}
	ops := &http.Server{Handler: t.Ops(), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := ops.Serve(h.opsListener); !errors.Is(err, http.ErrServerClosed) {
			h.failed <- fmt.Errorf("serve %s: %w", h.opsListener.Addr(), err)
		}
	}()
	h.onClose(func(context.Context) error {
		err := ops.Close() // a profile that runs is nobody's order
		<-done
		return err
	})
	return nil
}

// readiness remembers for a second what the databases said: balancers ask often.
type readiness struct {
	mu   sync.Mutex
	at   time.Time
	last web.Readiness
}

// Ready says what stands in the way of traffic, module by module, in words that strangers may read.
func (h *Host) Ready(ctx context.Context) web.Readiness {
	if why := h.state.Load().(string); why != "" {
		return web.Readiness{Process: why}
	}
	h.ready.mu.Lock()
	defer h.ready.mu.Unlock()
	if time.Since(h.ready.at) < time.Second {
		return h.ready.last
	}
	ctx, cancel := context.WithTimeout(urgency.Own(context.WithoutCancel(ctx)), time.Second) // to be full is not to be away
	defer cancel()
	found := web.Readiness{Modules: map[string]string{}}
	for _, i := range h.instances {
		found.Modules[i.name] = ""
		if db := h.dbs[i.name]; db != nil {
			if err := alive(ctx, db); err != nil {
				h.log.WarnContext(ctx, "not ready", "module", i.name, "err", err)
				found.Modules[i.name] = "database unreachable"
			}
		}
	}
	h.ready.at, h.ready.last = time.Now(), found
	return found
}

// unready is nil when traffic is welcome, else why not.
func (h *Host) unready(ctx context.Context) error {
	r := h.Ready(ctx)
	if r.Process != "" {
		return errors.New(r.Process)
	}
	var all []error
	for _, module := range slices.Sorted(maps.Keys(r.Modules)) {
		if why := r.Modules[module]; why != "" {
			all = append(all, fmt.Errorf("%s: %s", module, why))
		}
	}
	return errors.Join(all...)
}

func alive(ctx context.Context, db *pg.DB) error {
	var one int
	return db.Get(ctx, &one, `SELECT 1`)
}

// Idle returns when every event published so far is handled, or parked.
func (h *Host) Idle(ctx context.Context) error { return h.bus.WaitIdle(ctx) }

// Wait returns when ctx ends, with nil, or when a listener fails.
func (h *Host) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.failed:
		return err
	}
}

// Close stops in the order that loses nothing: readiness goes first, then no new requests, those under way end, background
// work lays down, events drain, and only then go the calls between modules, the pools and PostgreSQL. When ctx ends, what
// still runs is cut off; it is finished after the next start.
func (h *Host) Close(ctx context.Context) error {
	var all []error
	serving := h.state.Swap("stopping") == ""
	if server := h.web.Load(); server != nil {
		server.SetDraining()
	}
	for _, withdraw := range h.withdraw {
		all = append(all, withdraw(ctx))
	}
	h.withdraw = nil
	if delay := h.drainDelay(); serving && delay > 0 {
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
	}
	if h.Plan.Split() && h.drainDelay() >= discovery.IdleTimeout { // whoever wants it shorter wants it quick
		h.drainListeners(ctx)
	}
	if server := h.web.Load(); server != nil {
		if err := server.Shutdown(ctx); err != nil {
			all = append(all, fmt.Errorf("requests cut off: %w", err))
		}
		h.web.Store(nil)
	}
	if h.rpc != nil { // after the public face: its requests may come back to us through another process
		if err := h.rpc.Shutdown(ctx); err != nil {
			all = append(all, fmt.Errorf("calls of other processes cut off: %w", err), h.rpc.Close())
		}
		h.rpc = nil
	}
	h.serving.Wait()
	if h.stopRunning != nil {
		h.stopRunning()
		if !waitFor(ctx, &h.running) {
			all = append(all, errors.New("background work cut off"))
		}
		h.stopRunning = nil
	}
	if h.bus != nil {
		all = append(all, h.bus.Drain(ctx))
		h.bus = nil
	}
	// PostgreSQL must be stopped even when the time is up, or it would outlive us.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for len(h.closing) > 0 {
		n := len(h.closing) - 1
		f := h.closing[n]
		h.closing = h.closing[:n]
		all = append(all, f(last))
	}
	return errors.Join(all...)
}

// drainListeners takes in what connections bring that are already on their way, so that nobody is hung up on.
func (h *Host) drainListeners(ctx context.Context) {
	var draining sync.WaitGroup
	for _, l := range []*discovery.Listener{h.listener, h.rpcListener} {
		if l != nil {
			draining.Go(func() { l.Drain(ctx) })
		}
	}
	draining.Wait()
}

// drainDelay is how long to serve on after readiness went. Other processes hold connections to this one: they must have had time
// to let go of those they do not use, see discovery.Draining.
func (h *Host) drainDelay() time.Duration {
	if h.Settings.Drain.Delay == 0 && h.Plan.Split() {
		return discovery.IdleTimeout + time.Second
	}
	return h.Settings.Drain.Delay
}

// DrainTime is how long Close may take: the delay, and the time for what is under way.
func (h *Host) DrainTime() time.Duration { return h.drainDelay() + h.Settings.Drain.Timeout }

// draining says whether this process is about to stop.
func (h *Host) draining() bool { return h.state.Load() == "stopping" }

func waitFor(ctx context.Context, g *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
