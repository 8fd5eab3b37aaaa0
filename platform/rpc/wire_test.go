package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// plain is how connect-go is told to carry contract structs.
type plain struct{}

func (plain) Name() string                       { return "json" }
func (plain) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (plain) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// connectCodes is each kind in the words of the protocol.
var connectCodes = map[errs.Kind]connect.Code{
	errs.Malformed: connect.CodeInvalidArgument, errs.Invalid: connect.CodeInvalidArgument, errs.TooLarge: connect.CodeInvalidArgument,
	errs.Unauthenticated: connect.CodeUnauthenticated, errs.Forbidden: connect.CodePermissionDenied,
	errs.NotFound: connect.CodeNotFound, errs.Conflict: connect.CodeAborted, errs.Declined: connect.CodeFailedPrecondition,
	errs.PreconditionFailed: connect.CodeFailedPrecondition, errs.PreconditionRequired: connect.CodeFailedPrecondition,
	errs.RateLimited: connect.CodeResourceExhausted, errs.Internal: connect.CodeInternal,
	errs.Unavailable: connect.CodeUnavailable, errs.NoAnswer: connect.CodeDeadlineExceeded,
}

func TestAClientOfConnectGoIsUnderstood(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	w, serve := process(t, internal, nil)
	mount(w.Server("stock"), fake{level: func(ctx context.Context, r levelRequest) (level, error) {
		if r.SKU != "" {
			return level{}, errs.New(errs.Kind(r.SKU), "some_code", "only 3 left").WithDetails(map[string]int{"available": 3})
		}
		at, ok := ctx.Deadline()
		if left := time.Until(at); !ok || left > 7*time.Second || left < 5*time.Second {
			return level{}, errs.Conflictf("deadline", "%v are left", left)
		}
		return level{3}, nil
	}})
	client := connect.NewClient[levelRequest, level](http.DefaultClient, serve()+"/rpc/stock/Level", connect.WithCodec(plain{}))
	token, err := internal.IssueInternal("orders", "stock", auth.Identity{User: "usr_1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	ask := func(r levelRequest) (*connect.Response[level], error) {
		req := connect.NewRequest(&r)
		req.Header().Set("Authorization", "Bearer "+token)
		return client.CallUnary(ctx, req)
	}
	if got, err := ask(levelRequest{}); err != nil || got.Msg.Count != 3 {
		t.Fatalf("got %v, %v", got, err)
	}
	for kind, code := range connectCodes {
		_, err := ask(levelRequest{SKU: string(kind)})
		var ce *connect.Error
		if !errors.As(err, &ce) || !connect.IsWireError(err) || ce.Code() != code || ce.Message() != "only 3 left" || len(ce.Details()) != 1 {
			t.Errorf("%s: got %v, want %s", kind, err, code)
			continue
		}
		detail, err := ce.Details()[0].Value()
		if err != nil {
			t.Fatal(err)
		}
		var e errs.Error
		text := detail.(*wrapperspb.StringValue).GetValue()
		if json.Unmarshal([]byte(text), &e) != nil || e.Kind != kind || e.Code != "some_code" || string(e.Details) != `{"available":3}` {
			t.Errorf("%s: detail %s", kind, text)
		}
	}
}

func TestAServerOfConnectGoIsUnderstood(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(connect.NewUnaryHandler("/rpc/stock/Adjust", func(ctx context.Context, r *connect.Request[levelRequest]) (*connect.Response[level], error) {
		at, ok := ctx.Deadline()
		if left := time.Until(at); !ok || left > 7*time.Second || left < 5*time.Second {
			return nil, connect.NewError(connect.CodeAborted, fmt.Errorf("%v are left", left))
		}
		var code connect.Code
		switch {
		case r.Msg.SKU == "":
			return connect.NewResponse(&level{len(r.Header().Get("Authorization"))}), nil
		case r.Msg.SKU == "detail":
			e := connect.NewError(connect.CodeNotFound, errors.New("none"))
			text, _ := json.Marshal(errs.NotFoundf("none").WithField("/sku", "unknown"))
			d, err := connect.NewErrorDetail(wrapperspb.String(string(text)))
			if err != nil {
				return nil, err
			}
			e.AddDetail(d)
			return nil, e
		case code.UnmarshalText([]byte(r.Msg.SKU)) != nil:
			return nil, errors.New("no such code")
		}
		return nil, connect.NewError(code, errors.New("its text"))
	}, connect.WithCodec(plain{}), connect.WithRequireConnectProtocolHeader()))
	defer server.Close()
	w := rpc.NewWiring(rpc.Options{Log: quiet, Tokens: tokens(t), Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}})
	defer w.Stop(context.Background())
	s := dial(w.Dialer("orders"))
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	if got, err := s.Adjust(ctx, levelRequest{}); err != nil || got.Count < 100 {
		t.Errorf("got %+v, %v; want the length of a token", got, err)
	}
	for code, kind := range map[string]errs.Kind{
		"canceled": errs.NoAnswer, "unknown": errs.NoAnswer, "invalid_argument": errs.Malformed, "deadline_exceeded": errs.NoAnswer,
		"not_found": errs.NotFound, "already_exists": errs.Conflict, "permission_denied": errs.Forbidden, "resource_exhausted": errs.RateLimited,
		"failed_precondition": errs.Conflict, "aborted": errs.Conflict, "out_of_range": errs.Malformed, "unimplemented": errs.Unavailable,
		"internal": errs.Internal, "unavailable": errs.Unavailable, "data_loss": errs.Internal, "unauthenticated": errs.Unauthenticated,
	} {
		if _, err := s.Adjust(ctx, levelRequest{SKU: code}); !errs.Is(err, kind) || strings.Contains(err.Error(), "its text") {
			t.Errorf("%s: got %v, want %s", code, err, kind)
		}
	}
	var e *errs.Error
	if _, err := s.Adjust(ctx, levelRequest{SKU: "detail"}); !errors.As(err, &e) || !cmp.Equal(e.Fields, []errs.Field{{Pointer: "/sku", Code: "unknown"}}) {
		t.Errorf("a detail: %v", err)
	}
}

func TestWhatIsNoCallIsRefused(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	w, serve := process(t, internal, nil)
	mount(w.Server("stock"), fake{level: func(_ context.Context, r levelRequest) (level, error) { return level{len(r.SKU)}, nil }})
	base := serve()
	token, err := internal.IssueInternal("orders", "stock", auth.Identity{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		method, path, body string
		header             map[string]string
		status             int
		want               string
	}{
		"json":                  {"POST", "/Level", `{"sku":"abc"}`, nil, 200, `{"count":3}`},
		"json, and its charset": {"POST", "/Level", `{"sku":"abc"}`, map[string]string{"Content-Type": "application/json; charset=utf-8"}, 200, `{"count":3}`},
		"curl -d":               {"POST", "/Level", `{"sku":"abc"}`, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, 200, `{"count":3}`},
		"no body":               {"POST", "/Level", "", nil, 200, `{"count":0}`},
		"a new field":           {"POST", "/Level", `{"sku":"a","since_v9":1}`, nil, 200, `{"count":1}`},
		"no JSON":               {"POST", "/Level", `{"sku":`, nil, 400, `"code":"invalid_argument"`},
		"another type":          {"POST", "/Level", `{"sku":1}`, nil, 400, `"code":"invalid_argument"`},
		"a GET":                 {"GET", "/Level", "", nil, 405, ""},
		"protobuf":              {"POST", "/Level", "", map[string]string{"Content-Type": "application/proto"}, 415, ""},
		"compressed":            {"POST", "/Level", "", map[string]string{"Content-Encoding": "gzip"}, 400, "compressed"},
		"another version":       {"POST", "/Level", "", map[string]string{"Connect-Protocol-Version": "2"}, 400, "Version"},
		"nonsense for a time":   {"POST", "/Level", "", map[string]string{"Connect-Timeout-Ms": "-1"}, 400, "Timeout"},
		"no such method":        {"POST", "/Levels", "{}", nil, 404, ""},
		"too large":             {"POST", "/Level", `{"sku":"` + strings.Repeat("a", 16<<20) + `"}`, nil, 400, `16 MiB`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, base+"/rpc/stock"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status || !bytes.Contains(body, []byte(c.want)) {
			t.Errorf("%s: got %d %s, want %d with %s", name, answer.StatusCode, body, c.status, c.want)
		}
	}
}

// TestAnswersOfWhoeverStandsBetween gives the plain statuses of proxies and of servers of another version.
func TestAnswersOfWhoeverStandsBetween(t *testing.T) {
	t.Parallel()
	var code atomic.Int64
	var body atomic.Value
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(int(code.Load()))
		_, _ = w.Write([]byte(body.Load().(string)))
	}))
	defer server.Close()
	for _, c := range []struct {
		status int
		body   string
		kind   errs.Kind
		retry  bool
	}{
		{404, "404 page not found", errs.Unavailable, false},
		{405, "", errs.Unavailable, false},
		{401, "<html>", errs.Unauthenticated, false},
		{403, "", errs.Forbidden, false},
		{429, "", errs.Unavailable, true},
		{502, "<html>", errs.NoAnswer, true},
		{503, "no healthy upstream", errs.Unavailable, true},
		{504, "", errs.NoAnswer, true},
		{500, "oh", errs.NoAnswer, false},
		{302, "", errs.NoAnswer, false},
		{200, "<html>sign in to the hotel</html>", errs.NoAnswer, false},
	} {
		code.Store(int64(c.status))
		body.Store(c.body)
		w := rpc.NewWiring(rpc.Options{Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}})
		_, err := dial(w.Dialer("orders")).Level(t.Context(), levelRequest{})
		if got := status(t, w); !errs.Is(err, c.kind) || (got.Retries > 0) != c.retry || (got.Failures > 0) != c.retry {
			t.Errorf("%d %s: got %v, %+v; want %s", c.status, c.body, err, got, c.kind)
		}
		_ = w.Stop(context.Background())
	}
}

func TestMessagesHaveALimit(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	s, w := calling(t, rpc.Policy{}, fake{
		level: func(context.Context, levelRequest) (level, error) { calls.Add(1); return level{}, nil },
		reserve: func(context.Context, reserveRequest) (reservation, error) {
			calls.Add(1)
			return reservation{ID: strings.Repeat("a", 16<<20)}, nil
		},
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // giants take their time
	defer cancel()
	if _, err := s.Level(ctx, levelRequest{SKU: strings.Repeat("a", 16<<20)}); !errs.Is(err, errs.TooLarge) || calls.Load() != 0 {
		t.Errorf("a giant question: %v after %d calls", err, calls.Load())
	}
	if _, err := s.Reserve(ctx, reserveRequest{Key: "k"}); !errs.Is(err, errs.Internal) || calls.Load() != 1 {
		t.Errorf("a giant answer: %v after %d calls", err, calls.Load())
	}
	if _, err := s.Level(ctx, levelRequest{SKU: strings.Repeat("a", 15<<20)}); err != nil {
		t.Errorf("one just below: %v", err)
	}
	if got := status(t, w); got.Failures != 0 {
		t.Errorf("status %+v", got)
	}
}

// TestATraceCrosses two processes, each with a provider of its own: the spans of each are told by that one.
func TestATraceCrosses(t *testing.T) {
	t.Parallel()
	provider := func() (*tracetest.InMemoryExporter, trace.TracerProvider) {
		spans := tracetest.NewInMemoryExporter()
		return spans, sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	}
	ours, here := provider()
	theirs, there := provider()
	var seen trace.SpanContext
	internal := tokens(t)
	callee := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Tracer: there})
	mount(callee.Server("stock"), fake{level: func(ctx context.Context, _ levelRequest) (level, error) {
		seen = trace.SpanContextFromContext(ctx)
		return level{}, errs.NotFoundf("none")
	}})
	server := httptest.NewServer(callee.Handler())
	t.Cleanup(server.Close)
	s := dial(rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Tracer: here, Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}}).Dialer("orders"))
	state, err := trace.ParseTraceState("vendor=x")
	if err != nil {
		t.Fatal(err)
	}
	for _, sampled := range []bool{true, false} {
		ours.Reset()
		theirs.Reset()
		parent := trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceState: state, Remote: true}
		if sampled {
			parent.TraceFlags = trace.FlagsSampled
		}
		ctx, root := here.Tracer("test").Start(trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(parent)), "root")
		_, _ = s.Level(ctx, levelRequest{})
		root.End()
		if seen.TraceID() != parent.TraceID || seen.IsSampled() != sampled || seen.TraceState().String() != "vendor=x" {
			t.Errorf("sampled %t: the callee is in %v", sampled, seen)
		}
		var got []string
		spans := append(theirs.GetSpans(), ours.GetSpans()...)
		for _, span := range spans {
			got = append(got, fmt.Sprint(span.Name, " ", span.SpanKind, " ", span.Status.Code))
		}
		want := []string{"stock.Level server Error", "stock.Level client Error", "root internal Unset"}
		if !sampled {
			want = nil
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sampled %t: spans (-want +got):\n%s", sampled, diff)
		}
		if sampled && spans[0].Parent.SpanID() != spans[1].SpanContext.SpanID() {
			t.Error("the callee's span is no child of the caller's")
		}
	}
}
