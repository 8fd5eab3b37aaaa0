package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/banyan-shop/banyan/platform/auth"
)

// Placement says how the modules of this process reach each other.
type Placement string

const (
	One  Placement = "one"  // plain calls
	Wire Placement = "wire" // every call through encode, HTTP and decode, and every marked one twice
)

// DefaultDeadline is the time a call has whose ctx sets none.
const DefaultDeadline = 2 * time.Second

// Options of a Wiring. The zero value wires plain calls between any modules.
type Options struct {
	Modules   []string          // all modules, in their order: each may call those before it; nil allows every call
	Placement Placement         // "" is One
	Remotes   map[string]Remote // each module that runs elsewhere
	Tokens    *auth.Internal    // identity over the wire; without it a remote callee refuses every call
	Log       *slog.Logger
	Tracer    trace.TracerProvider // makes the spans of calls that come in; nil makes none
	Deadline  time.Duration        // 0 is DefaultDeadline
	Policy    Policy               // of calls to elsewhere
	// Differs hears of a repeated call with the same Key whose second answer was not the first, in the wire placement. nil logs it.
	Differs func(method, first, second string)
}

// Wiring connects the modules of one process with each other and with those elsewhere.
type Wiring struct {
	opts Options

	mu       sync.Mutex
	servers  map[string]*Server
	conns    []*Conn
	edges    map[Edge]bool
	mistakes []error
	counted  map[statsKey]*stats
	epoch    uint64
	loopback string             // base URL of the wire placement's listener
	remotes  map[string]*remote // by callee
	stale    map[statsKey]int64
	server   *http.Server
	served   chan struct{}

	answers answers
}

// Edge is a caller and a callee.
type Edge struct{ Caller, Callee string }

// NewWiring makes a wiring. In the wire placement Start must come before the first call.
func NewWiring(o Options) *Wiring {
	return &Wiring{
		opts: o, servers: map[string]*Server{}, edges: map[Edge]bool{}, counted: map[statsKey]*stats{}, remotes: map[string]*remote{},
		stale: map[statsKey]int64{},
	}
}

// Server is where module mounts its contract.
func (w *Wiring) Server(module string) *Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.servers[module]
	if !ok {
		s = &Server{module: module, wiring: w}
		w.servers[module] = s
		w.placeAll()
	}
	return s
}

// Dialer gives caller its connections, and notes each as an edge of the call graph. A callee that is not above the caller is
// a mistake that Check reports; calls to it fail.
func (w *Wiring) Dialer(caller string) Dialer { return dialer{w, caller} }

type dialer struct {
	wiring *Wiring
	caller string
}

func (d dialer) Conn(callee string) *Conn {
	w := d.wiring
	w.mu.Lock()
	defer w.mu.Unlock()
	c := &Conn{caller: d.caller, callee: callee, wiring: w}
	if !w.above(d.caller, callee) {
		w.mistakes = append(w.mistakes, fmt.Errorf("%s may not call %s: a module calls only those above it in the list; move it, or make the call an event", d.caller, callee))
		return c
	}
	if slices.Contains(w.opts.Modules, d.caller) {
		w.edges[Edge{d.caller, callee}] = true
	}
	w.conns = append(w.conns, c)
	c.place.Store(w.placeOf(callee))
	return c
}

// above says whether caller may call callee. Whoever is no module (the host, a command) may call all.
func (w *Wiring) above(caller, callee string) bool {
	if w.opts.Modules == nil {
		return true
	}
	to := slices.Index(w.opts.Modules, callee)
	from := slices.Index(w.opts.Modules, caller)
	return to >= 0 && (from < 0 || to < from)
}

// placeOf is where callee runs now; nil if nowhere yet. w.mu is held.
func (w *Wiring) placeOf(callee string) *place {
	to, elsewhere := w.opts.Remotes[callee]
	server := w.servers[callee]
	switch {
	case elsewhere:
		return &place{epoch: w.epoch, remote: w.remote(callee, to, false)}
	case server == nil:
		return nil
	case w.opts.Placement == Wire && w.loopback == "":
		return nil
	case w.opts.Placement == Wire:
		return &place{epoch: w.epoch, remote: w.remote(callee, Remote{Base: w.loopback}, true)}
	}
	return &place{epoch: w.epoch, local: server}
}

// remote is shared by all callers of a callee, so that they share its connections and its breaker. w.mu is held.
func (w *Wiring) remote(callee string, to Remote, repeat bool) *remote {
	r, ok := w.remotes[callee]
	if !ok {
		r = newRemote(w, callee, to, repeat)
		w.remotes[callee] = r
	}
	return r
}

// placeAll gives every connection its place of a new epoch. w.mu is held.
func (w *Wiring) placeAll() {
	w.epoch++
	for _, c := range w.conns {
		c.place.Store(w.placeOf(c.callee))
	}
}

// Move sends the calls to a module elsewhere from now on, or back into this process with the zero Remote. Calls under way end
// where they began; what was known of the old place's health is forgotten.
func (w *Wiring) Move(module string, to Remote) {
	w.mu.Lock()
	defer w.mu.Unlock()
	remotes := maps.Clone(w.opts.Remotes)
	if remotes == nil {
		remotes = map[string]Remote{}
	}
	if remotes[module] = to; to.isZero() {
		delete(remotes, module)
	}
	w.opts.Remotes = remotes
	if r, ok := w.remotes[module]; ok {
		delete(w.remotes, module)
		r.close()
	}
	w.placeAll()
}

// Calls is every (caller, callee) dialled so far, sorted.
func (w *Wiring) Calls() []Edge {
	w.mu.Lock()
	defer w.mu.Unlock()
	edges := make([]Edge, 0, len(w.edges))
	for e := range w.edges {
		edges = append(edges, e)
	}
	slices.SortFunc(edges, func(a, b Edge) int { return cmp.Or(cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Callee, b.Callee)) })
	return edges
}

// Check is every mistake of dialling and mounting, nil if none. The host asks it after building all modules.
func (w *Wiring) Check() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := slices.Clone(w.mistakes)
	for _, s := range w.servers {
		if err := s.Check(); err != nil {
			all = append(all, err)
		}
	}
	return joined(all)
}

// Handler serves all contracts mounted so far under /rpc/. It belongs on the internal listener, never on the public one.
func (w *Wiring) Handler() http.Handler {
	routes := routes{}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		s.mount(routes)
	}
	return routes
}

// Handler serves this server's contract under /rpc/<module>/.
func (s *Server) Handler() http.Handler {
	routes := routes{}
	s.mount(routes)
	return routes
}

func (s *Server) mount(r routes) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, m := range s.methods {
		r[m.Path()] = s.handlers[m.Name].http()
	}
}

// routes are handlers by their whole path: there are no patterns to match.
type routes map[string]http.Handler

func (rs routes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h, ok := rs[r.URL.Path]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h.ServeHTTP(w, r)
}

// Start opens the loopback listener of the wire placement; in other placements there is nothing to start. Every contract is
// mounted by then.
func (w *Wiring) Start(ctx context.Context) error {
	if w.opts.Placement != Wire {
		return nil
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open the loopback listener of the wire placement: %w", err)
	}
	server := &http.Server{Handler: w.Handler(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server, w.served, w.loopback = server, make(chan struct{}), "http://"+listener.Addr().String()
	go func() {
		defer close(w.served)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			w.log().Error("the loopback listener of the wire placement ended", "err", err)
		}
	}()
	w.placeAll()
	return nil
}

// Stop lets the calls under way end and closes the loopback listener and all idle connections.
func (w *Wiring) Stop(ctx context.Context) error {
	w.mu.Lock()
	server, served := w.server, w.served
	for _, r := range w.remotes {
		r.close()
	}
	w.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Shutdown(ctx)
	if err != nil {
		server.Close()
	}
	<-served
	return err
}

// The getters below also work on a nil wiring, for a Server on its own.

func (w *Wiring) log() *slog.Logger {
	if w == nil || w.opts.Log == nil {
		return slog.Default()
	}
	return w.opts.Log
}

func (w *Wiring) tokens() *auth.Internal {
	if w == nil {
		return nil
	}
	return w.opts.Tokens
}

func (w *Wiring) tracer() trace.Tracer {
	if w == nil || w.opts.Tracer == nil {
		return noop.Tracer{}
	}
	return w.opts.Tracer.Tracer("banyan/rpc")
}

func (w *Wiring) deadline() time.Duration {
	if w == nil || w.opts.Deadline <= 0 {
		return DefaultDeadline
	}
	return w.opts.Deadline
}

func (w *Wiring) differs(method, first, second string) {
	if w.opts.Differs != nil {
		w.opts.Differs(method, first, second)
		return
	}
	w.log().Error("a repeat with the same key had another answer", "method", method, "first", first, "second", second)
}

// Local dials servers of this process by plain calls as caller, without order or identity over a wire: for tests of one module, with
// fakes mounted on NewServer.
func Local(caller string, servers ...*Server) Dialer {
	w := NewWiring(Options{})
	for _, s := range servers {
		w.servers[s.module] = s
	}
	return w.Dialer(caller)
}
