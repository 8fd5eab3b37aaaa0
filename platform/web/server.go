package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

// Config says how the public face behaves. Router is required; the rest may be zero.
type Config struct {
	Router *Router
	// Log gets failures and panics; nil is slog.Default().
	Log *slog.Logger
	// Verify turns a Bearer token into an identity; nil accepts none. (*auth.Verifier).Verify is one.
	Verify func(ctx context.Context, token string) (auth.Identity, error)
	// TrustedProxies are the networks, such as 10.0.0.0/8, whose X-Forwarded-For is believed. None: the peer's address counts.
	TrustedProxies []string
	// Gateway checks the token by which a gateway in another process vouches for a request to the module; nil accepts none.
	// (*auth.Internal).VerifyForwarded is one.
	Gateway func(ctx context.Context, token, module string) (auth.Identity, error)
	// Limit is what one user, or one address for guests, may ask for. The zero Limit is none, for development.
	Limit Limit
	// Limiter keeps the buckets of Limit for all processes; nil keeps those of this process in its memory. While it can't
	// be asked, Guarded routes answer 503, and the others go by the memory.
	Limiter Limiter
	// Kill are routes that are switched off from the start; see Server.Kill.
	Kill []string
	// CacheFor bounds how old an answer of a route with a Cache may be; 0 keeps none.
	CacheFor time.Duration
	// Overload says when requests are turned away; the zero Overload turns none away.
	Overload Overload
	// Observe hears of every answered request, for metrics; nil for nobody.
	Observe func(Observed)
	// Shed hears of every request that was turned away because there was too much to do; nil for nobody.
	Shed func(Criticality)
	// Tracer makes a span a request; nil makes none.
	Tracer trace.Tracer
	// Ready says whether traffic is welcome; nil is always ready.
	Ready func(ctx context.Context) Readiness
	// Version is what /version tells: a semantic version and nothing more.
	Version string
	// Internal is served under its path, such as /.well-known/jwks.json, outside the OpenAPI document.
	Internal map[string]http.Handler
}

// Observed is an answered request. Its texts have few values: Route is a pattern, never a path, and Module is "" where none has
// the route.
type Observed struct {
	Method, Route, Module string
	Forwarded             bool // by a gateway in another process, which has observed it too
	Status                int
	Took                  time.Duration
}

// Readiness is what stands in the way of traffic, in words that strangers may read: no text of drivers, no addresses.
type Readiness struct {
	Process string            // such as "stopping"; "" for nothing
	Modules map[string]string // of each module that runs here: "" for nothing, else such as "database unreachable"
}

// Server is the public listener's server.
type Server struct {
	config   Config
	router   *Router
	echo     *echo.Echo
	http     *http.Server
	log      *slog.Logger
	served   []*served
	trusted  []netip.Prefix
	limits   *memory
	cache    *cache
	problems map[string]Problem
	openapi  func() (document, error)

	leaving  atomic.Bool
	stop     sync.Once
	draining chan struct{}
}

// The process has one huma, and only this package uses it: these are settings, not state.
func init() {
	huma.ValidateStrictCasing = true  // encoding/json would take IS_ADMIN for is_admin
	huma.DefaultArrayNullable = false // empty lists are [] both ways
	huma.NewError = func(status int, _ string, _ ...error) huma.StatusError { return &problem{Status: status} }
	huma.NewErrorWithContext = func(ctx huma.Context, status int, _ string, details ...error) huma.StatusError {
		ctx.(*exchange).refuse(fromHuma(status, details))
		return &problem{Status: status}
	}
}

// NewServer is a server for the routes declared on c.Router so far.
func NewServer(c Config) (*Server, error) {
	if c.Router == nil {
		return nil, errors.New("web: a server needs a router")
	}
	c.Limit.Burst = max(c.Limit.Burst, 1)
	s := &Server{config: c, router: c.Router, log: c.Log, limits: newMemory(), problems: c.Router.app.problems, draining: make(chan struct{})}
	if s.log == nil {
		s.log = slog.Default()
	}
	s.openapi = sync.OnceValues(func() (document, error) {
		yaml, json, err := OpenAPI(c.Router)
		return document{yaml, json}, err
	})
	e := echo.New()
	s.echo = e
	var err error
	if e.IPExtractor, s.trusted, err = clientIP(c.TrustedProxies); err != nil {
		return nil, err
	}
	e.Use(s.face)
	groups := map[string]*group{}
	for _, rt := range c.Router.app.routes {
		if rt.keys == noKeys {
			return nil, fmt.Errorf("web: %s %s keeps idempotency keys, but module %q was given no database", rt.method, rt.path, rt.module)
		}
		sv := &served{route: rt}
		s.served = append(s.served, sv)
		if c.Overload.Delay > 0 {
			module := ""
			if rt.remote != nil {
				module = rt.module
			}
			if groups[module] == nil {
				groups[module] = newGroup(c.Overload)
			}
			sv.group, sv.pace = groups[module], newPace(c.Overload, rt.Criticality)
		}
		h := func(c echo.Context) error {
			c.(*carrier).x.serve(sv)
			return nil
		}
		e.Add(rt.method, echoPath(rt.path), h)
		if rt.method == http.MethodGet {
			e.Add(http.MethodHead, echoPath(rt.path), h)
		}
	}
	if err := s.Kill(c.Kill); err != nil {
		return nil, err
	}
	s.cache = newCache(c.CacheFor, s.served)
	s.ownRoutes()
	s.http = &http.Server{
		Handler:           e,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      60 * time.Second, // a long poll takes up to 30
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // mostly clients that hang up
	}
	return s, nil
}

// clientIP believes X-Forwarded-For only from the named networks: echo's default believes everybody.
func clientIP(proxies []string) (echo.IPExtractor, []netip.Prefix, error) {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect(), nil, nil
	}
	var trusted []netip.Prefix
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		_, network, err := net.ParseCIDR(p)
		if err != nil {
			return nil, nil, fmt.Errorf("trusted proxy %q is not a network: write it like 10.0.0.0/8, or 10.1.2.3/32 for one address", p)
		}
		trust = append(trust, echo.TrustIPRange(network))
		if prefix, err := netip.ParsePrefix(p); err == nil {
			trusted = append(trusted, prefix)
		}
	}
	return echo.ExtractIPFromXFFHeader(trust...), trusted, nil
}

// Handler is the whole face, for tests and for other listeners.
func (s *Server) Handler() http.Handler { return s.echo }

// Serve answers on l until Shutdown; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}

// SetDraining makes every answer from now on say that this process is about to go: clients close their connections, and
// balancers send no more. It still answers, until Shutdown.
func (s *Server) SetDraining() { s.leaving.Store(true) }

// Shutdown takes no more connections, lets running requests end within ctx, then cuts them off. Long polls see Draining.
func (s *Server) Shutdown(ctx context.Context) error {
	s.SetDraining()
	s.stop.Do(func() { close(s.draining) })
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// own serves a route of the platform itself.
func (s *Server) own(path string, h func(x *exchange)) {
	rt := &route{method: http.MethodGet, path: path, permission: Public}
	handler := func(c echo.Context) error {
		x := c.(*carrier).x
		x.route = rt
		h(x)
		return nil
	}
	s.echo.GET(echoPath(path), handler)
	s.echo.HEAD(echoPath(path), handler)
}

func (s *Server) ownRoutes() {
	text := func(v string) func(*exchange) {
		return func(x *exchange) { x.write(http.StatusOK, jsonType, []byte(v)) }
	}
	s.own("/healthz", text(`{"status":"ok"}`)) // the process answers; whether it should get traffic is /readyz
	s.own("/version", text(fmt.Sprintf(`{"version":%q}`, s.config.Version)))
	s.own("/readyz", (*exchange).readiness)
	s.own("/problems", func(x *exchange) { x.problemPage("") })
	s.own("/problems/{code}", func(x *exchange) { x.problemPage(x.Param("code")) })
	s.documentRoutes()
	for path, h := range s.config.Internal {
		s.echo.Any(path, func(c echo.Context) error {
			x := c.(*carrier).x
			x.route = &route{method: c.Request().Method, path: path, permission: Public}
			h.ServeHTTP(c.Response(), c.Request())
			return nil
		})
	}
}

// readiness tells whether traffic is welcome, and what each module says to that.
func (x *exchange) readiness() {
	var r Readiness
	if ask := x.server.config.Ready; ask != nil {
		r = ask(x.Context())
	}
	ready := r.Process == ""
	modules := make(map[string]string, len(r.Modules))
	for name, why := range r.Modules {
		modules[name] = why
		if why == "" {
			modules[name] = "ready"
		}
		ready = ready && why == ""
	}
	if !ready {
		details := map[string]any{"modules": modules}
		if r.Process != "" {
			details["process"] = r.Process
		}
		x.fail(errs.Unavailablef("Not ready for traffic.").WithDetails(details))
		return
	}
	b := getBuffer()
	defer putBuffer(b)
	if err := encode(b, struct {
		Status  string            `json:"status"`
		Modules map[string]string `json:"modules,omitempty"`
	}{"ready", modules}); err != nil {
		x.fail(err)
		return
	}
	x.write(http.StatusOK, jsonType, b.Bytes())
}
