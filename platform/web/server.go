package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
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
	// Limit is what one user, or one address for guests, may ask for. The zero Limit is none, for development.
	Limit Limit
	// Observe hears of every answered request, for metrics; nil for nobody. route is a pattern, never a path.
	Observe func(method, route string, status int, took time.Duration)
	// Tracer makes a span a request; nil makes none.
	Tracer trace.Tracer
	// Ready is nil when traffic is welcome; a nil func is always ready.
	Ready func(ctx context.Context) error
	// Version is what /version tells: a semantic version and nothing more.
	Version string
	// Internal is served under its path, such as /.well-known/jwks.json, outside the OpenAPI document.
	Internal map[string]http.Handler
}

// Server is the public listener's server.
type Server struct {
	config   Config
	router   *Router
	echo     *echo.Echo
	http     *http.Server
	log      *slog.Logger
	limits   *limiter
	problems map[string]Problem
	openapi  func() (document, error)

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
	s := &Server{config: c, router: c.Router, log: c.Log, limits: newLimiter(c.Limit), problems: c.Router.app.problems, draining: make(chan struct{})}
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
	if e.IPExtractor, err = clientIP(c.TrustedProxies); err != nil {
		return nil, err
	}
	e.Use(s.face)
	for _, rt := range c.Router.app.routes {
		if rt.keys == noKeys {
			return nil, fmt.Errorf("web: %s %s keeps idempotency keys, but module %q was given no database", rt.method, rt.path, rt.module)
		}
		h := func(c echo.Context) error {
			c.(*carrier).x.serve(rt)
			return nil
		}
		e.Add(rt.method, echoPath(rt.path), h)
		if rt.method == http.MethodGet {
			e.Add(http.MethodHead, echoPath(rt.path), h)
		}
	}
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
func clientIP(proxies []string) (echo.IPExtractor, error) {
	if len(proxies) == 0 {
		return echo.ExtractIPDirect(), nil
	}
	trust := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, p := range proxies {
		_, network, err := net.ParseCIDR(p)
		if err != nil {
			return nil, fmt.Errorf("trusted proxy %q is not a network: write it like 10.0.0.0/8, or 10.1.2.3/32 for one address", p)
		}
		trust = append(trust, echo.TrustIPRange(network))
	}
	return echo.ExtractIPFromXFFHeader(trust...), nil
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

// Shutdown takes no more connections, lets running requests end within ctx, then cuts them off. Long polls see Draining.
func (s *Server) Shutdown(ctx context.Context) error {
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
	s.own("/readyz", func(x *exchange) {
		if s.config.Ready != nil {
			if err := s.config.Ready(x.Context()); err != nil {
				x.fail(errs.Unavailablef("Not ready for traffic.").Because(err))
				return
			}
		}
		x.write(http.StatusOK, jsonType, []byte(`{"status":"ready"}`))
	})
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
