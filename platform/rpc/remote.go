package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/retrypolicy"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

// maxMessage bounds a request or answer between modules.
const maxMessage = 16 << 20

// remote is one callee elsewhere: its address, and what is known of its health.
type remote struct {
	base   string // http://host:port
	wiring *Wiring
	http   *http.Client
	repeat bool // the wire placement: every marked call is made twice

	breaker circuitbreaker.CircuitBreaker[any]
	once    failsafe.Executor[any] // breaker alone
	again   failsafe.Executor[any] // retries, each through the breaker
	budget  budget
}

func newRemote(w *Wiring, callee, base string, repeat bool) *remote {
	r := &remote{base: strings.TrimRight(base, "/"), wiring: w, repeat: repeat, http: &http.Client{
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConns:        1024,
			MaxIdleConnsPerHost: 256, // the default of 2 would open a connection for nearly every call under load
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	r.breaker = circuitbreaker.NewBuilder[any]().
		HandleIf(func(_ any, err error) bool {
			var t *try
			return errors.As(err, &t) && t.sick
		}).
		WithFailureRateThreshold(0.5, 20, 10*time.Second).
		WithDelay(time.Second).
		WithSuccessThreshold(3).
		OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
			w.log().Warn("circuit breaker", "callee", callee, "from", e.OldState.String(), "to", e.NewState.String())
		}).
		Build()
	retry := retrypolicy.NewBuilder[any]().
		HandleIf(func(_ any, err error) bool {
			var t *try
			return errors.As(err, &t) && t.retry
		}).
		WithMaxRetries(2).
		WithBackoff(10*time.Millisecond, 200*time.Millisecond).
		WithJitterFactor(0.5).
		ReturnLastFailure().
		Build()
	r.once = failsafe.With[any](r.breaker)
	r.again = failsafe.With[any](retry, r.breaker)
	return r
}

func (r *remote) close() { r.http.CloseIdleConnections() }

// try is one failed attempt, for the policies.
type try struct{ outcome }

func (t *try) Error() string { return t.err.Error() }

// budget lets retries be at most a tenth of the calls, after a small start.
type budget struct{ spent, calls atomic.Int64 }

func (b *budget) call() { b.calls.Add(1) }

func (b *budget) retry() bool {
	if b.spent.Add(1)*10 <= b.calls.Load()+50 {
		return true
	}
	b.spent.Add(-1)
	return false
}

// client is one method at one remote.
type client[Req, Res any] struct {
	remote  *remote
	connect *connect.Client[Req, Res]
}

func newClient[Req, Res any](m *Method[Req, Res], r *remote) *client[Req, Res] {
	return &client[Req, Res]{r, connect.NewClient[Req, Res](r.http, r.base+path(m.name),
		connect.WithCodec(codec{}), connect.WithAcceptCompression("gzip", nil, nil), connect.WithReadMaxBytes(maxMessage))}
}

// codec carries contract structs as JSON, with the names their tags give.
type codec struct{}

func (codec) Name() string { return "json" }

func (codec) Marshal(v any) ([]byte, error) { return json.Marshal(v) }

func (codec) Unmarshal(data []byte, v any) error {
	if len(data) == 0 {
		return nil // curl without a body
	}
	return json.Unmarshal(data, v)
}

var traceContext = propagation.TraceContext{}

func (b *binding[Req, Res]) callRemote(ctx context.Context, r Req) (Res, error) {
	b.stats.calls.Add(1)
	start := time.Now()
	var span trace.Span
	if trace.SpanFromContext(ctx).IsRecording() {
		ctx, span = b.span(ctx, trace.SpanKindClient)
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, b.conn.wiring.deadline())
		defer cancel()
	}
	res, err := b.send(ctx, r)
	if b.remote.remote.repeat && b.method.mark != NotRepeatable && ctx.Err() == nil {
		first, firstErr := res, err
		res, err = b.send(ctx, r)
		if b.method.mark == IdempotentByKey && firstErr == nil {
			b.compare(first, res, err)
		}
	}
	b.stats.observe(time.Since(start))
	if err != nil {
		err = b.failed(err)
	}
	if span != nil {
		endSpan(span, err)
	}
	return res, err
}

// compare reports a repeat with the same Key that did not give the first answer: the callee is not idempotent.
func (b *binding[Req, Res]) compare(first, second Res, secondErr error) {
	x, _ := json.Marshal(first)
	y, _ := json.Marshal(second)
	if secondErr == nil && bytes.Equal(x, y) {
		return
	}
	answer := string(y)
	if secondErr != nil {
		answer = secondErr.Error()
	}
	b.conn.wiring.differs(b.method.name, string(x), answer)
}

// send asks the callee, again if that is allowed and may help.
func (b *binding[Req, Res]) send(ctx context.Context, r Req) (Res, error) {
	var none Res
	rem := b.remote.remote
	token := ""
	if t := b.conn.wiring.tokens(); t != nil {
		var err error
		if token, err = t.IssueInternal(b.conn.caller, b.conn.callee, auth.From(ctx)); err != nil {
			return none, internal(err)
		}
	}
	rem.budget.call()
	executor := rem.once
	if b.method.mark != NotRepeatable {
		executor = rem.again
	}
	var last *try
	attempts := 0
	res, err := executor.WithContext(ctx).GetWithExecution(func(failsafe.Execution[any]) (any, error) {
		if attempts > 0 && !rem.budget.retry() {
			last.retry = false
			return nil, last
		}
		attempts++
		res, err := b.attempt(ctx, token, r)
		if err == nil {
			return res, nil
		}
		last = &try{fromWire(ctx, err)}
		return nil, last
	})
	if err == nil {
		return res.(Res), nil
	}
	if last == nil && errors.Is(err, circuitbreaker.ErrOpen) {
		return none, errs.New(errs.Unavailable, "circuit_open", "%s has been failing and is given a moment", b.conn.callee)
	}
	if last == nil {
		return none, notSent(err)
	}
	if attempts > 1 {
		var e *errs.Error
		if errors.As(last.err, &e) {
			return none, e.Because(retriedCause{opaque{e.Unwrap()}})
		}
	}
	return none, last.err
}

func (b *binding[Req, Res]) attempt(ctx context.Context, token string, r Req) (Res, error) {
	req := connect.NewRequest(&r)
	if token != "" {
		req.Header().Set("Authorization", "Bearer "+token)
	}
	traceContext.Inject(ctx, propagation.HeaderCarrier(req.Header()))
	answer, err := b.remote.connect.CallUnary(ctx, req)
	if err != nil {
		var none Res
		return none, err
	}
	return *answer.Msg, nil
}

// serveHTTP is the callee's end of the wire.
func serveHTTP[Req, Res any](s *Server, m *Method[Req, Res], f func(context.Context, Req) (Res, error)) http.Handler {
	return connect.NewUnaryHandler(path(m.name), func(ctx context.Context, r *connect.Request[Req]) (*connect.Response[Res], error) {
		id, err := s.verify(ctx, r.Header().Get("Authorization"))
		if err != nil {
			return nil, toWire(atHome(err))
		}
		ctx = auth.WithIdentity(traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header())), id)
		if _, has := ctx.Deadline(); !has {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, s.wiring.deadline())
			defer cancel()
		}
		ctx, span := serverSpan(ctx, m.name)
		res, err := answer(ctx, s, m.name, f, *r.Msg)
		if err != nil {
			home := atHome(err)
			endSpan(span, home)
			if errs.Is(home, errs.Internal) {
				// The text stays in this process, so this is where the error stops.
				s.wiring.log().Error("call failed", "method", m.name, "caller", id.Module, "err", err)
			}
			return nil, toWire(home)
		}
		span.End()
		return connect.NewResponse(&res), nil
	}, connect.WithCodec(codec{}), connect.WithCompression("gzip", nil, nil), connect.WithReadMaxBytes(maxMessage))
}

func answer[Req, Res any](ctx context.Context, s *Server, method string, f func(context.Context, Req) (Res, error), r Req) (res Res, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(s.wiring.log(), method, p)
		}
	}()
	return f(ctx, r)
}

func (s *Server) verify(ctx context.Context, header string) (auth.Identity, error) {
	tokens := s.wiring.tokens()
	token, ok := strings.CutPrefix(header, "Bearer ")
	if tokens == nil || !ok {
		return auth.Identity{}, errs.New(errs.Unauthenticated, "", "a call between modules needs its internal token")
	}
	id, err := tokens.VerifyInternal(ctx, token, s.module)
	if err != nil {
		return auth.Identity{}, err
	}
	if id.Module == auth.Gateway { // what a customer's request carries opens no contract
		return auth.Identity{}, errs.New(errs.Forbidden, "", "the gateway calls no contract")
	}
	if w := s.wiring; w != nil && !w.above(id.Module, s.module) {
		return auth.Identity{}, errs.New(errs.Forbidden, "", "%s may not call %s", id.Module, s.module)
	}
	return id, nil
}
