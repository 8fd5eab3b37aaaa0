package rpc

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	jsonv1 "github.com/go-json-experiment/json/v1"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// The wire is the Connect protocol's unary call with JSON: POST /rpc/<module>/<Method>, the deadline as Connect-Timeout-Ms, 200 and
// the answer, or another status and {code, message, details}. This file speaks that much of it over net/http, at half the cost
// of connect-go, whose clients and servers understand it.

const (
	maxMessage = 16 << 20 // bytes of a request or an answer
	maxPooled  = 1 << 20  // a larger buffer is not kept

	// fairTime is what a try must have had before its deadline is the callee's fault: a caller with no time left says nothing of it.
	fairTime = 100 * time.Millisecond

	retriedHeader = "Rpc-Retried" // see finalCause
	urgencyHeader = "Rpc-Urgency" // of the request that the call is made for, see package urgency
	reportHeader  = "Rpc-Waited"  // what came of it at the callee
)

// Header values that never change are shared: net/http only reads them.
var (
	jsonType     = []string{"application/json"}
	version      = []string{"1"}
	nothing      = []string{""} // net/http's own user agent says nothing, and each header costs the callee half a microsecond
	traceContext = propagation.TraceContext{}
)

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func buffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func release(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}

// readAll reads a body to its end, which also frees its connection for the next call.
func readAll(b *bytes.Buffer, body io.Reader, length int64) error {
	if length > maxMessage {
		return errTooLong
	}
	if length >= 0 {
		b.Grow(int(length))
		text := b.AvailableBuffer()[:length]
		_, err := io.ReadFull(body, text)
		b.Write(text)
		return err
	}
	n, err := b.ReadFrom(io.LimitReader(body, maxMessage+1))
	if err == nil && n > maxMessage {
		err = errTooLong
	}
	return err
}

// unmarshal takes what encoding/json takes, in half the time.
func unmarshal(text []byte, v any) error { return jsonv2.Unmarshal(text, v, asV1) }

var asV1 = jsonv1.DefaultOptionsV1()

var errTooLong = errors.New("the message is over 16 MiB")

// try is one request. It decodes an answer into res.
func (e *endpoint) try(ctx context.Context, token string, body []byte, res any) outcome {
	start := time.Now()
	answer, err := e.transport.RoundTrip(e.newRequest(ctx, start, token, body))
	if err != nil {
		return e.judge(unanswered(ctx, err, time.Since(start)))
	}
	defer answer.Body.Close()
	if report := answer.Header[reportHeader]; len(report) > 0 {
		urgency.Of(ctx).Learn(report[0], time.Now())
	}
	b := buffer()
	defer release(b)
	switch err := readAll(b, answer.Body, answer.ContentLength); {
	case errors.Is(err, errTooLong):
		return e.judge(outcome{err: internal(err)})
	case err != nil:
		return e.judge(unanswered(ctx, err, time.Since(start)))
	case answer.StatusCode != http.StatusOK:
		return e.judge(refused(answer, b.Bytes()))
	}
	if err := unmarshal(b.Bytes(), res); err != nil { // the callee is there, but what it did can't be told
		return e.judge(outcome{err: noAnswer(err)})
	}
	return e.judge(outcome{})
}

func (e *endpoint) judge(o outcome) outcome {
	e.record(o.health)
	return o
}

func (e *endpoint) newRequest(ctx context.Context, now time.Time, token string, body []byte) *http.Request {
	h := make(http.Header, 6)
	h["Content-Type"], h["Connect-Protocol-Version"], h["User-Agent"] = jsonType, version, nothing
	if at, ok := ctx.Deadline(); ok {
		h["Connect-Timeout-Ms"] = []string{strconv.FormatInt(max(0, at.Sub(now).Milliseconds()), 10)}
	}
	if q := urgency.Of(ctx); q != nil {
		h[urgencyHeader] = []string{urgencyOf(q, now)}
	}
	if token != "" {
		h["Authorization"] = e.authorization(token)
	}
	traceContext.Inject(ctx, propagation.HeaderCarrier(h))
	r := e.request.WithContext(ctx)
	r.Header, r.ContentLength = h, int64(len(body))
	if e.own == nil { // a transport of somebody else may change it
		u := *r.URL
		r.URL = &u
	}
	// A connection that turns out to be closed before a byte was sent is replaced below us; that needs the body once more.
	// It is of a type that net/http knows to be in memory: for any other it would send the headers by themselves.
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	return r
}

// urgencyOf is a request in a header: its criticality, its age in milliseconds, and whether it has begun.
func urgencyOf(q *urgency.Request, now time.Time) string {
	age := int64(0)
	if !q.Came.IsZero() {
		age = now.Sub(q.Came).Milliseconds()
	}
	text := q.String() + " " + strconv.FormatInt(age, 10)
	if q.Begun() {
		text += " begun"
	}
	return text
}

func parseUrgency(text string, now time.Time) (*urgency.Request, error) {
	word, rest, _ := strings.Cut(text, " ")
	age, begun, _ := strings.Cut(rest, " ")
	c, ok := urgency.Parse(word)
	ms, err := strconv.ParseUint(age, 10, 32)
	if !ok || err != nil || begun != "" && begun != "begun" {
		return nil, malformed(urgencyHeader + " is a criticality, an age in milliseconds, and perhaps begun")
	}
	q := &urgency.Request{Criticality: c, Came: now.Add(-time.Duration(ms) * time.Millisecond)}
	if begun != "" {
		q.Begin()
	}
	return q, nil
}

// authorization is the header value of a token. The last one is kept: for a while most calls have the same.
func (e *endpoint) authorization(token string) []string {
	const scheme = "Bearer "
	if last := e.bearer.Load(); last != nil && (*last)[0][len(scheme):] == token {
		return *last
	}
	value := []string{scheme + token}
	e.bearer.Store(&value)
	return value
}

// wireError is the body of an answer that is no answer.
type wireError struct {
	Code    string       `json:"code"`
	Message string       `json:"message,omitempty"`
	Details []wireDetail `json:"details,omitempty"`
}

// wireDetail is a protobuf message. Ours is one StringValue with the whole errs.Error as JSON.
type wireDetail struct {
	Type  string `json:"type"`
	Value string `json:"value"` // base64 without padding
}

const detailType = "google.protobuf.StringValue"

func newWireError(e *errs.Error) wireError {
	w := wireError{Code: codeOf(e.Kind), Message: e.Message}
	if text, err := json.Marshal(e); err == nil {
		if value, err := proto.Marshal(wrapperspb.String(string(text))); err == nil {
			w.Details = []wireDetail{{detailType, base64.RawStdEncoding.EncodeToString(value)}}
		}
	}
	return w
}

// error is the errs.Error that a Server of ours sent, false if somebody else did.
func (w wireError) error() (*errs.Error, bool) {
	for _, d := range w.Details {
		value, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(d.Value, "="))
		var text wrapperspb.StringValue
		var e errs.Error
		if d.Type == detailType && err == nil && proto.Unmarshal(value, &text) == nil && json.Unmarshal([]byte(text.GetValue()), &e) == nil && e.Kind != "" {
			return &e, true
		}
	}
	return nil, false
}

// serveHTTP is the callee's end of the wire.
func serveHTTP[Req, Res any](s *Server, m *Method[Req, Res], f func(context.Context, Req) (Res, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.speaks(w, r) {
			return
		}
		ctx, d, id, err := s.admit(r)
		if err != nil {
			fail(w, err)
			return
		}
		defer d.end()
		var req Req
		if err := decode(r, &req); err != nil {
			fail(w, err)
			return
		}
		ctx, span := s.wiring.tracer().Start(ctx, m.name, trace.WithSpanKind(trace.SpanKindServer))
		if failpoint.Enabled {
			failpoint.Hit("rpc." + m.name + ".before")
		}
		res, err := answer(ctx, s, m.name, f, req)
		if failpoint.Enabled {
			failpoint.Hit("rpc." + m.name + ".after")
		}
		if report := d.request.Report(); report != "" {
			w.Header()[reportHeader] = []string{report}
		}
		if err == nil {
			err = write(w, http.StatusOK, &res)
		}
		if err != nil {
			err = atHome(err)
			if errs.Is(err, errs.Internal) {
				// The text stays in this process, so this is where the error stops.
				s.wiring.log().ErrorContext(ctx, "call failed", "method", m.name, "caller", id.Module, "err", err)
			}
			fail(w, err)
		}
		endSpan(span, err)
	})
}

func answer[Req, Res any](ctx context.Context, s *Server, method string, f func(context.Context, Req) (Res, error), r Req) (res Res, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(ctx, s.wiring.log(), method, p)
		}
	}()
	return f(ctx, r)
}

// speaks refuses what is no unary JSON call, with the plain statuses of the protocol. The type that curl -d sends by itself is
// taken for JSON: it lets a person ask, and no browser has a token.
func (s *Server) speaks(w http.ResponseWriter, r *http.Request) bool {
	kind, _, _ := strings.Cut(header(r, "Content-Type"), ";")
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		w.WriteHeader(http.StatusMethodNotAllowed)
	case kind != "application/json" && kind != "application/x-www-form-urlencoded":
		w.Header().Set("Accept-Post", "application/json")
		w.WriteHeader(http.StatusUnsupportedMediaType)
	default:
		return true
	}
	return false
}

// header is a header under its canonical name, which need not be made again.
func header(r *http.Request, name string) string {
	if v := r.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// admit is the context of a call: who asks, for how long, in which trace.
func (s *Server) admit(r *http.Request) (context.Context, *deadline, auth.Identity, error) {
	ctx := r.Context()
	id, err := s.verify(ctx, header(r, "Authorization"))
	if err != nil {
		return nil, nil, id, err
	}
	timeout := s.wiring.deadline()
	if text := header(r, "Connect-Timeout-Ms"); text != "" {
		ms, err := strconv.ParseUint(text, 10, 40) // about ten digits, as the protocol says
		if err != nil {
			return nil, nil, id, malformed("Connect-Timeout-Ms is no number of milliseconds")
		}
		timeout = time.Duration(ms) * time.Millisecond
	}
	if v := header(r, "Connect-Protocol-Version"); v != "" && v != "1" {
		return nil, nil, id, malformed("Connect-Protocol-Version is 1 here")
	}
	if e := header(r, "Content-Encoding"); e != "" && e != "identity" {
		return nil, nil, id, malformed("calls between modules are not compressed")
	}
	if r.Header["Traceparent"] != nil {
		ctx = traceContext.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	now := time.Now()
	d := &deadline{Context: ctx, at: now.Add(timeout)}
	if text := header(r, urgencyHeader); text != "" {
		d.request, err = parseUrgency(text, now)
		if err != nil {
			return nil, nil, id, err
		}
	}
	return auth.WithIdentity(d, id), d, id, nil
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

func decode(r *http.Request, req any) error {
	b := buffer()
	defer release(b)
	switch err := readAll(b, r.Body, r.ContentLength); {
	case errors.Is(err, errTooLong):
		return tooLarge()
	case err != nil:
		return malformed("the request broke off")
	case b.Len() == 0: // curl without a body
		return nil
	}
	if err := unmarshal(b.Bytes(), req); err != nil {
		return malformed("the request is no JSON of its type").Because(opaque{err})
	}
	return nil
}

// write sends v as JSON, or nothing if that can't be.
func write(w http.ResponseWriter, status int, v any) error {
	b := buffer()
	defer release(b)
	if err := json.NewEncoder(b).Encode(v); err != nil {
		return err
	}
	if b.Len() > maxMessage {
		return errTooLong
	}
	h := w.Header()
	h["Date"] = nil // which nobody reads here
	h["Content-Type"], h["Content-Length"] = jsonType, []string{strconv.Itoa(b.Len())}
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a caller that has gone finds out by itself
	return nil
}

func fail(w http.ResponseWriter, err error) {
	var e *errs.Error
	if !errors.As(err, &e) {
		errors.As(internal(err), &e)
	}
	if isFinal(e) {
		w.Header()[retriedHeader] = version
	}
	_ = write(w, statusOf(e.Kind), newWireError(e))
}
