package rpc

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// Remote is where a module runs elsewhere. The zero Remote is nowhere: the module runs here.
type Remote struct {
	Base string // http://host:port; "" with a Transport is "http://" and the module's name
	// Transport carries the requests: it may choose among instances, and try another one that can be reached. When it has sent
	// nothing, it says so with a dial error or an *errs.Error of the kind Unavailable. nil is a pool of connections to Base.
	Transport http.RoundTripper
}

func (r Remote) isZero() bool { return r.Base == "" && r.Transport == nil }

// remote is one callee elsewhere, shared by all its callers: its address, its connections, and what is known of its health.
type remote struct {
	callee    string
	base      string
	transport http.RoundTripper
	own       *http.Transport // transport, if we made it
	repeat    bool            // the wire placement: every marked call is made twice
	*guard
}

func newRemote(w *Wiring, callee string, to Remote, repeat bool) *remote {
	r := &remote{
		callee: callee, base: strings.TrimRight(cmp.Or(to.Base, "http://"+callee), "/"), transport: to.Transport, repeat: repeat,
		guard: newGuard(w.opts.Policy, func(from, to string) {
			w.log().Warn("circuit breaker", "callee", callee, "from", from, "to", to)
		}),
	}
	if r.transport == nil {
		r.own = &http.Transport{
			DialContext:         (&net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second}).DialContext,
			MaxIdleConnsPerHost: r.policy.Concurrent, // the default of 2 would open a connection for nearly every call under load
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true,
		}
		r.transport = r.own
	}
	return r
}

func (r *remote) close() {
	if r.own != nil {
		r.own.CloseIdleConnections()
	}
}

// endpoint is one method at one remote.
type endpoint struct {
	*remote
	request *http.Request // without a body: each try's is a copy
	err     error         // why there can be none
	bearer  atomic.Pointer[[]string]
}

func newEndpoint(method string, r *remote) *endpoint {
	e := &endpoint{remote: r}
	u, err := url.Parse(r.base + path(method))
	if err != nil {
		e.err = notServed(method, "the address of "+r.callee+" is no URL")
		return e
	}
	e.request = &http.Request{Method: http.MethodPost, URL: u, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}
	return e
}

func (b *binding[Req, Res]) callRemote(ctx context.Context, r Req) (Res, error) {
	b.stats.calls.Add(1)
	start := time.Now()
	var span trace.Span
	if trace.SpanFromContext(ctx).IsRecording() {
		ctx, span = b.span(ctx, trace.SpanKindClient)
	}
	if _, has := ctx.Deadline(); !has {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(b.conn.wiring.deadline()))
		defer cancel()
	}
	res, err := b.send(ctx, r)
	if b.remote.repeat && b.method.mark != NotRepeatable && ctx.Err() == nil {
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
	e := b.remote
	if e.err != nil {
		return none, e.err
	}
	request := urgency.Of(ctx)
	if !e.overload.Allow(request, time.Now()) {
		e.spared.Add(1)
		return none, final(errs.Overloaded())
	}
	body, err := json.Marshal(&r)
	if err != nil {
		return none, internal(err)
	}
	if len(body) > maxMessage {
		return none, tooLarge()
	}
	token := ""
	if t := b.conn.wiring.tokens(); t != nil {
		if token, err = t.IssueInternal(b.conn.caller, b.conn.callee, auth.From(ctx)); err != nil {
			return none, internal(err)
		}
	}
	if !e.enter() {
		return none, final(errs.New(errs.Unavailable, "bulkhead_full", "%s has as many calls of ours under way as it may", b.conn.callee))
	}
	defer e.leave()
	var failed outcome
	var doubt error // of an earlier try: it may have happened, whatever a later one says
	for n := 1; ; n++ {
		if !e.allow() {
			if failed.err == nil {
				failed.err = errs.New(errs.Unavailable, "circuit_open", "%s has been failing and is given a moment", b.conn.callee)
			}
			return none, final(failed.err)
		}
		var res Res
		failed = e.try(ctx, token, body, &res)
		switch {
		case failed.err == nil:
			return res, nil
		case errs.Has(failed.err, errs.CodeOverloaded):
			e.overload.Refused(request)
		case errs.Is(failed.err, errs.NoAnswer):
			doubt = failed.err
			if b.method.mark != Idempotent {
				request.Begin()
			}
		}
		if doubt != nil && errs.Is(failed.err, errs.Unavailable) {
			failed.err = doubt
		}
		if b.method.mark == NotRepeatable || !failed.retry {
			return none, failed.err
		}
		if !e.again(ctx, n) {
			return none, final(failed.err)
		}
	}
}
