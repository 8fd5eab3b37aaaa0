// Package gateway passes requests on to the processes that run a module: a reverse proxy behind the face of platform/web,
// which has matched the route, checked who asks, and counted the request by then. It composes no answers, picks no
// instance and tries nothing twice: the transport it is given knows where a module runs, and moves what was never sent.
package gateway

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
	"github.com/banyan-shop/banyan/platform/web"
)

// ForwardOptions say where requests for a module go and how this process vouches for them.
type ForwardOptions struct {
	// Module is the one that runs elsewhere.
	Module string
	// Target sends a request to an instance of the module: it writes scheme and host of the URL. Errors of errs that it
	// returns reach the client as they are, so no instance is errs.Unavailable with code not_served. It must not compress,
	// nor keep idle connections longer than the 60 s for which the other end does. Nil serves nothing.
	Target http.RoundTripper
	// Token is by whom the request is made, signed for the module; (*auth.Internal).IssueInternal from auth.Gateway
	// to Module is one.
	Token func(ctx context.Context, id auth.Identity) (string, error)
	// Log gets what goes wrong after an answer has begun; nil is slog.Default().
	Log *slog.Logger
}

// Forward is the handler for the routes of a module elsewhere, for web.Router.Remote.
//
// The other process sees the client's request without what only a proxy may say, and with X-Request-Id, X-Forwarded-For,
// -Proto and -Host, traceparent, and the token. What comes back is passed on as it comes, events and WebSockets too. When
// nothing comes back, the client gets a problem: 503 unavailable or not_served when nothing has happened, 502 or 504
// no_answer when something may have.
func Forward(o ForwardOptions) http.Handler {
	if o.Module == "" || o.Token == nil {
		panic("gateway: forwarding needs the module's name and a token for it")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	f := &forward{module: o.Module, token: o.Token, log: o.Log}
	if o.Target == nil {
		o.Target = nowhere{}
	}
	f.proxy = &httputil.ReverseProxy{
		Rewrite: rewrite, Transport: o.Target, BufferPool: buffers, ModifyResponse: f.receive, ErrorHandler: f.fail,
		ErrorLog: log.New(brokenOff{o.Log, o.Module}, "", 0),
	}
	return f
}

type forward struct {
	module string
	token  func(context.Context, auth.Identity) (string, error)
	log    *slog.Logger
	proxy  *httputil.ReverseProxy
}

func (f *forward) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	token, err := f.token(ctx, auth.From(ctx))
	if err != nil {
		f.fail(w, r, notSent(err))
		return
	}
	proto := web.Proto(ctx)
	disown(r.Header)
	ours := [2]string{token, proto}
	r.Header[web.GatewayHeader], r.Header["X-Forwarded-Proto"] = ours[:1:1], ours[1:2:2]
	f.proxy.ServeHTTP(w, r)
}

// disown removes what only a proxy, or we, may say of a client.
func disown(h http.Header) {
	for name := range h {
		switch name[0] {
		case 'X', 'B', 'F', 'C', 'T':
			if foreign(name) {
				delete(h, name)
			}
		}
	}
}

func foreign(name string) bool {
	if strings.Contains(name, "_") { // which some take for the same
		name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	}
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip":
		return true
	}
	if len(name) > 0 && name[0] == 'B' {
		return strings.HasPrefix(name, "Banyan-")
	}
	for _, p := range [...]string{"X-Forwarded", "X-User-", "X-Identity-", "X-Auth-", "X-Authenticated-", "X-Remote-", "X-Original-", "X-Rewrite-"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return name == "X-User"
}

// rewrite is called when what the client's Connection header names is gone already, so that it can take nothing away from
// what is set here.
func rewrite(p *httputil.ProxyRequest) {
	in, out := p.In, p.Out
	ctx, h := in.Context(), out.Header
	said := [2]string{web.ClientIP(ctx), in.Host}
	h["X-Forwarded-For"], h["X-Forwarded-Host"] = said[:1:1], said[1:2:2]
	for _, name := range [...]string{"X-Forwarded-Proto", "X-Request-Id", web.GatewayHeader} {
		h[name] = in.Header[name]
	}
	if trace.SpanContextFromContext(ctx).IsValid() {
		propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
	}
	out.Host = ""                         // the instance's
	out.URL.RawQuery = in.URL.RawQuery    // ReverseProxy drops what it can't parse; the module refuses it
	out.URL.Scheme, out.URL.Host = "", "" // Target knows
}

var errRefused = errors.New("the other process refused our token, or does not run the module")

// receive looks at an answer before it is passed on.
func (f *forward) receive(r *http.Response) error {
	h := r.Header
	if _, ok := h[web.GatewayHeader]; ok {
		return errs.New(errs.Unavailable, "not_served", "%s is not where it was thought to be", f.module).Because(errRefused)
	}
	delete(h, "Banyan-Draining") // that process drains, not this one
	if report := h[web.WaitedHeader]; len(report) > 0 {
		urgency.Of(r.Request.Context()).Learn(report[0], time.Now())
		delete(h, web.WaitedHeader)
	}
	if r.StatusCode >= http.StatusInternalServerError && h.Get("Content-Type") != "application/problem+json" {
		// Of somebody on the way, who may name hosts.
		if r.StatusCode == http.StatusServiceUnavailable {
			return errs.Unavailablef("%s is unavailable", f.module)
		}
		return web.WithStatus(http.StatusBadGateway, errs.New(errs.NoAnswer, "", "%s was not reached", f.module))
	}
	return nil
}

// fail answers for the other process.
func (f *forward) fail(_ http.ResponseWriter, r *http.Request, err error) {
	web.Fail(r.Context(), f.explain(r.Context(), err))
}

func (f *forward) explain(ctx context.Context, err error) error {
	var coded *errs.Error
	var broken *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &coded) || errors.Is(ctx.Err(), context.Canceled):
		return err
	case errors.As(err, &broken) && broken.Op == "dial":
		return notSent(err)
	case errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout():
		return errs.New(errs.NoAnswer, "", "%s did not answer in time", f.module).Because(err)
	}
	return web.WithStatus(http.StatusBadGateway, errs.New(errs.NoAnswer, "", "%s broke off", f.module).Because(err))
}

func notSent(err error) error {
	var coded *errs.Error
	if errors.As(err, &coded) {
		return err
	}
	return errs.Unavailablef("not sent").Because(err)
}

// nowhere is the target of a module that nobody runs.
type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errs.New(errs.Unavailable, "not_served", "nobody runs the module")
}

// brokenOff logs what the proxy says of answers that broke off: mostly clients that hang up.
type brokenOff struct {
	log    *slog.Logger
	module string
}

func (b brokenOff) Write(text []byte) (int, error) {
	b.log.Debug("answer broke off", "module", b.module, "err", strings.TrimSpace(string(text)))
	return len(text), nil
}

const bufferSize = 32 << 10

// buffers carry bodies across.
var buffers bufferPool = bufferPool{&sync.Pool{New: func() any { return new([bufferSize]byte) }}}

type bufferPool struct{ pool *sync.Pool }

func (b bufferPool) Get() []byte  { return b.pool.Get().(*[bufferSize]byte)[:] }
func (b bufferPool) Put(s []byte) { b.pool.Put((*[bufferSize]byte)(s)) }
