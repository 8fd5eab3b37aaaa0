package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
)

// A small contract, as an api package would declare it.

type reserveRequest struct {
	Key   string `json:"key"`
	SKU   string `json:"sku"`
	Lines []int  `json:"lines"`
}

type reservation struct {
	ID    string    `json:"id"`
	Until time.Time `json:"until"`
	By    string    `json:"by"`
	User  string    `json:"user"`
}

type stock interface {
	Reserve(ctx context.Context, r reserveRequest) (reservation, error)
	Level(ctx context.Context, r levelRequest) (level, error)
	Adjust(ctx context.Context, r levelRequest) (level, error)
}

type levelRequest struct {
	SKU string `json:"sku"`
}

type level struct {
	Count int `json:"count"`
}

var (
	reserve = rpc.NewMethod[reserveRequest, reservation]("stock.Reserve", rpc.IdempotentByKey)
	getting = rpc.NewMethod[levelRequest, level]("stock.Level", rpc.Idempotent)
	adjust  = rpc.NewMethod[levelRequest, level]("stock.Adjust", rpc.NotRepeatable)
)

type client struct{ conn *rpc.Conn }

func dial(d rpc.Dialer) stock { return client{d.Conn("stock")} }

func mount(s *rpc.Server, m stock) {
	reserve.Handle(s, m.Reserve)
	getting.Handle(s, m.Level)
	adjust.Handle(s, m.Adjust)
}

func (c client) Reserve(ctx context.Context, r reserveRequest) (reservation, error) {
	return reserve.Call(ctx, c.conn, r)
}
func (c client) Level(ctx context.Context, r levelRequest) (level, error) {
	return getting.Call(ctx, c.conn, r)
}
func (c client) Adjust(ctx context.Context, r levelRequest) (level, error) {
	return adjust.Call(ctx, c.conn, r)
}

// fake answers with its functions.
type fake struct {
	reserve func(context.Context, reserveRequest) (reservation, error)
	level   func(context.Context, levelRequest) (level, error)
}

func (f fake) Reserve(ctx context.Context, r reserveRequest) (reservation, error) {
	return f.reserve(ctx, r)
}
func (f fake) Level(ctx context.Context, r levelRequest) (level, error)  { return f.level(ctx, r) }
func (f fake) Adjust(ctx context.Context, r levelRequest) (level, error) { return f.level(ctx, r) }

func tokens(t testing.TB) *auth.Internal {
	t.Helper()
	key, err := auth.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return auth.NewInternal(key, nil, time.Now)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// each runs the test in the placements that must look the same: a plain call, the wire within a process, and two processes.
func each(t *testing.T, f fake, check func(t *testing.T, s stock, placement string)) {
	t.Helper()
	options := rpc.Options{Modules: []string{"stock", "orders"}, Log: quiet, Tokens: tokens(t)}
	for _, placement := range []string{"one", "wire", "remote"} {
		t.Run(placement, func(t *testing.T) {
			t.Parallel()
			o := options
			callee := rpc.NewWiring(o)
			mount(callee.Server("stock"), f)
			caller := callee
			switch placement {
			case "wire":
				o.Placement = rpc.Wire
				caller = rpc.NewWiring(o)
				mount(caller.Server("stock"), f)
				if err := caller.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
			case "remote":
				server := httptest.NewServer(callee.Handler())
				t.Cleanup(server.Close)
				o.Remotes = map[string]rpc.Remote{"stock": {Base: server.URL}}
				caller = rpc.NewWiring(o)
			}
			t.Cleanup(func() {
				if err := caller.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			})
			check(t, dial(caller.Dialer("orders")), placement)
		})
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	until := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	f := fake{reserve: func(ctx context.Context, r reserveRequest) (reservation, error) {
		id := auth.From(ctx)
		if at, ok := ctx.Deadline(); !ok || time.Until(at) > rpc.DefaultDeadline {
			return reservation{}, errs.Conflictf("no_deadline", "the callee has no deadline")
		}
		if fmt.Sprint(r.Lines) != "[1 2]" {
			return reservation{}, errs.Conflictf("lines", "lines are %v", r.Lines)
		}
		return reservation{ID: "res_" + r.SKU, Until: until, By: id.Module, User: string(id.User)}, nil
	}}
	each(t, f, func(t *testing.T, s stock, _ string) {
		ctx := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID("usr_1"), Roles: []string{"customer"}})
		got, err := s.Reserve(ctx, reserveRequest{Key: "k", SKU: "a", Lines: []int{1, 2}})
		if want := (reservation{"res_a", until, "orders", "usr_1"}); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	})
}

func TestErrorsLookTheSameEverywhere(t *testing.T) {
	t.Parallel()
	sentinel := errors.New("row 7 of secret table")
	coded := func() *errs.Error {
		return errs.Conflictf("insufficient_stock", "only 3 left").WithField("/lines/0", "out_of_range").WithDetails(map[string]int{"available": 3})
	}
	want := map[string]errs.Error{
		"coded":     {Kind: errs.Conflict, Code: "insufficient_stock", Message: "only 3 left", Fields: []errs.Field{{Pointer: "/lines/0", Code: "out_of_range"}}, Details: []byte(`{"available":3}`)},
		"plain":     {Kind: errs.Internal, Code: "internal", Message: "something went wrong on our side"},
		"panic":     {Kind: errs.Internal, Code: "internal", Message: "something went wrong on our side"},
		"cancelled": {Kind: errs.NoAnswer, Code: "no_answer", Message: "no answer in time: it may have happened"},
		"declined":  {Kind: errs.Declined, Code: "declined", Message: "no"},
	}
	want["wrapped"] = want["coded"]
	f := fake{level: func(_ context.Context, r levelRequest) (level, error) {
		switch r.SKU {
		case "coded":
			return level{}, coded()
		case "wrapped":
			return level{}, fmt.Errorf("reserve: %w", coded().Because(sentinel))
		case "panic":
			panic("oh")
		case "cancelled":
			return level{}, fmt.Errorf("query: %w", context.DeadlineExceeded)
		case "declined":
			return level{}, errs.New(errs.Declined, "", "no")
		}
		return level{}, sentinel
	}}
	each(t, f, func(t *testing.T, s stock, placement string) {
		for name, want := range want {
			_, err := s.Adjust(t.Context(), levelRequest{SKU: name})
			var got *errs.Error
			if !errors.As(err, &got) {
				t.Fatalf("%s: %v is no *errs.Error", name, err)
			}
			if got.Kind != want.Kind || got.Code != want.Code || got.Message != want.Message || string(got.Details) != string(want.Details) || !cmp.Equal(got.Fields, want.Fields) {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
			if errors.Is(err, sentinel) {
				t.Errorf("%s: what the callee wrapped is visible to the caller", name)
			}
			if placement != "one" && strings.Contains(err.Error(), "secret table") {
				t.Errorf("%s: %q crossed the wire", name, err)
			}
		}
	})
}

func TestACallThatTakesTooLongMayHaveHappened(t *testing.T) {
	t.Parallel()
	f := fake{level: func(ctx context.Context, _ levelRequest) (level, error) {
		<-ctx.Done()
		return level{}, ctx.Err()
	}}
	each(t, f, func(t *testing.T, s stock, _ string) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := s.Level(ctx, levelRequest{}); !errs.Is(err, errs.NoAnswer) {
			t.Errorf("got %v, want no_answer", err)
		}
		<-ctx.Done()
		if _, err := s.Level(ctx, levelRequest{}); !errs.Has(err, "deadline_exceeded") || !errs.Is(err, errs.Unavailable) {
			t.Errorf("a call with no time left: got %v, want unavailable", err)
		}
	})
}

func TestTheDefaultDeadlineEnds(t *testing.T) {
	t.Parallel()
	w := rpc.NewWiring(rpc.Options{Deadline: 30 * time.Millisecond})
	var kept context.Context
	mount(w.Server("stock"), fake{level: func(ctx context.Context, r levelRequest) (level, error) {
		if kept = ctx; r.SKU == "quick" {
			return level{}, nil
		}
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		return level{}, child.Err()
	}})
	s := dial(w.Dialer(""))
	if _, err := s.Level(context.Background(), levelRequest{}); !errs.Is(err, errs.NoAnswer) {
		t.Errorf("got %v, want no_answer", err)
	}
	if _, err := s.Level(context.Background(), levelRequest{SKU: "quick"}); err != nil {
		t.Error(err)
	}
	if kept.Err() == nil {
		t.Error("a context kept beyond its call goes on")
	}
	select {
	case <-kept.Done():
	default:
		t.Error("a context kept beyond its call is not done")
	}
}

func TestTheWirePlacementRepeatsMarkedMethods(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	var differing atomic.Value
	w := rpc.NewWiring(rpc.Options{Placement: rpc.Wire, Tokens: tokens(t), Log: quiet, Differs: func(method, first, second string) {
		differing.Store(method + " " + first + " " + second)
	}})
	mount(w.Server("stock"), fake{
		level: func(context.Context, levelRequest) (level, error) { return level{int(calls.Add(1))}, nil },
		reserve: func(_ context.Context, r reserveRequest) (reservation, error) {
			return reservation{ID: fmt.Sprint(calls.Add(1))}, nil
		},
	})
	if err := w.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer w.Stop(context.Background())
	s := dial(w.Dialer("orders"))
	if got, err := s.Level(t.Context(), levelRequest{}); err != nil || got.Count != 2 {
		t.Errorf("a read came %d times, %v; want the second answer", got.Count, err)
	}
	if got, err := s.Adjust(t.Context(), levelRequest{}); err != nil || got.Count != 3 {
		t.Errorf("an unmarked method: got %d, %v; want one call", got.Count, err)
	}
	if _, err := s.Reserve(t.Context(), reserveRequest{Key: "k"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := differing.Load().(string); !strings.HasPrefix(got, "stock.Reserve ") {
		t.Errorf("two answers for one key went unnoticed: %q", got)
	}
}

// flaky is a listener that closes the first connections before an answer.
type flaky struct {
	net.Listener
	broken atomic.Int64
}

func (f *flaky) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err == nil && f.broken.Add(-1) >= 0 {
		return &mute{c}, nil
	}
	return c, err
}

// mute reads the request and hangs up in place of answering.
type mute struct{ net.Conn }

func (m *mute) Write([]byte) (int, error) { m.Conn.Close(); return 0, net.ErrClosed }

func TestTransportFailures(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, broken int64) (stock, *atomic.Int64) {
		internal := tokens(t)
		callee := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet})
		var calls atomic.Int64
		count := func(context.Context, levelRequest) (level, error) { return level{int(calls.Add(1))}, nil }
		mount(callee.Server("stock"), fake{level: count})
		inner, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f := &flaky{Listener: inner}
		f.broken.Store(broken)
		server := &http.Server{Handler: callee.Handler(), ErrorLog: slog.NewLogLogger(quiet.Handler(), slog.LevelError)}
		go server.Serve(f)
		t.Cleanup(func() { server.Close() })
		w := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: "http://" + inner.Addr().String()}}})
		t.Cleanup(func() { w.Stop(context.Background()) })
		return dial(w.Dialer("orders")), &calls
	}
	t.Run("a marked method is tried again", func(t *testing.T) {
		t.Parallel()
		s, calls := setup(t, 1)
		if got, err := s.Level(t.Context(), levelRequest{}); err != nil || got.Count != 2 || calls.Load() != 2 {
			t.Errorf("got %+v, %v after %d calls", got, err, calls.Load())
		}
	})
	t.Run("an unmarked one is not, and may have happened", func(t *testing.T) {
		t.Parallel()
		s, calls := setup(t, 1)
		if _, err := s.Adjust(t.Context(), levelRequest{}); !errs.Is(err, errs.NoAnswer) || calls.Load() != 1 {
			t.Errorf("got %v after %d calls, want no_answer after one", err, calls.Load())
		}
	})
	t.Run("retries stay within their budget and the breaker opens", func(t *testing.T) {
		t.Parallel()
		s, calls := setup(t, 1_000_000)
		open := 0
		for range 60 {
			_, err := s.Level(t.Context(), levelRequest{})
			if errs.Has(err, "circuit_open") {
				open++
			} else if !errs.Is(err, errs.NoAnswer) {
				t.Fatalf("got %v, want no_answer", err)
			}
		}
		if open == 0 || calls.Load() > 40 {
			t.Errorf("%d calls reached the callee, %d were cut short", calls.Load(), open)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		t.Parallel()
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		free.Close()
		w := rpc.NewWiring(rpc.Options{Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: "http://" + free.Addr().String()}}})
		if _, err := dial(w.Dialer("orders")).Adjust(t.Context(), levelRequest{}); !errs.Is(err, errs.Unavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
	})
}

func TestClientFaultsDoNotOpenTheBreaker(t *testing.T) {
	t.Parallel()
	f := fake{level: func(context.Context, levelRequest) (level, error) { return level{}, errs.NotFoundf("none") }}
	each(t, f, func(t *testing.T, s stock, _ string) {
		for range 100 {
			if _, err := s.Adjust(t.Context(), levelRequest{}); !errs.Is(err, errs.NotFound) {
				t.Fatalf("got %v", err)
			}
		}
	})
}

func TestTheCalleeChecksTheCaller(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	w := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders"}, Tokens: internal, Log: quiet})
	mount(w.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{1}, nil }})
	server := httptest.NewServer(w.Handler())
	defer server.Close()
	token := func(i *auth.Internal, caller, callee string) string {
		text, err := i.IssueInternal(caller, callee, auth.Identity{})
		if err != nil {
			t.Fatal(err)
		}
		return "Bearer " + text
	}
	for name, c := range map[string]struct {
		header string
		status int
	}{
		"good":             {token(internal, "orders", "stock"), 200},
		"none":             {"", 401},
		"nonsense":         {"Bearer x", 401},
		"another audience": {token(internal, "orders", "payments"), 401},
		"another key":      {token(tokens(t), "orders", "stock"), 401},
		"the callee":       {token(internal, "stock", "stock"), 403},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+"/rpc/stock/Level", strings.NewReader(`{"sku":"a"}`))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", c.header)
		r.Header.Set("X-Module", "orders")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status || c.status == 200 && string(bytes.TrimSpace(body)) != `{"count":1}` {
			t.Errorf("%s: got %d %s, want %d", name, answer.StatusCode, body, c.status)
		}
	}
}

func TestMistakesOfWiring(t *testing.T) {
	t.Parallel()
	w := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders", "reviews"}})
	stocked := dial(w.Dialer("orders"))
	if err := w.Check(); err != nil {
		t.Fatal(err)
	}
	if _, err := stocked.Level(t.Context(), levelRequest{}); !errs.Has(err, "not_served") {
		t.Errorf("a call to nobody: %v", err)
	}
	backwards := w.Dialer("stock").Conn("orders")
	w.Dialer("orders").Conn("orders")
	w.Dialer("shop").Conn("stock")
	rpc.NewMethod[levelRequest, level]("stock.Keyless", rpc.IdempotentByKey).Handle(w.Server("stock"), nil)
	rpc.NewMethod[levelRequest, level]("orders.Level", rpc.Idempotent).Handle(w.Server("stock"), nil)
	if _, err := getting.Call(t.Context(), backwards, levelRequest{}); !errs.Has(err, "not_served") {
		t.Errorf("a call against the order: %v", err)
	}
	err := w.Check()
	for _, want := range []string{"stock may not call orders", "orders may not call orders", "needs a string field named Key", "orders.Level is mounted on the server of stock"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if diff := cmp.Diff([]rpc.Edge{{Caller: "orders", Callee: "stock"}}, w.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestMovingACallee(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	answering := func(n int) fake {
		return fake{level: func(context.Context, levelRequest) (level, error) { return level{n}, nil }}
	}
	there := rpc.NewWiring(rpc.Options{Tokens: internal})
	mount(there.Server("stock"), answering(2))
	server := httptest.NewServer(there.Handler())
	defer server.Close()
	here := rpc.NewWiring(rpc.Options{Tokens: internal})
	mount(here.Server("stock"), answering(1))
	defer here.Stop(context.Background())
	s := dial(here.Dialer("orders"))
	for _, step := range []struct {
		base string
		want int
	}{{"", 1}, {server.URL, 2}, {"", 1}} {
		here.Move("stock", rpc.Remote{Base: step.base})
		if got, err := s.Level(t.Context(), levelRequest{}); err != nil || got.Count != step.want {
			t.Errorf("at %q: got %d, %v, want %d", step.base, got.Count, err, step.want)
		}
	}
}

func TestASampledCallIsASpan(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	w := rpc.NewWiring(rpc.Options{})
	mount(w.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{}, errs.NotFoundf("none") }})
	ctx, root := provider.Tracer("test").Start(t.Context(), "root")
	_, _ = dial(w.Dialer("orders")).Level(ctx, levelRequest{})
	root.End()
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "stock.Level" || got[0].Parent.SpanID() != root.SpanContext().SpanID() {
		t.Errorf("spans are %+v", got)
	}
}

func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	rpctest.Complete(t, "stock", dial, mount)

	missing := &recorder{TB: t}
	rpctest.Complete(missing, "stock", dial, func(s *rpc.Server, m stock) { reserve.Handle(s, m.Reserve); adjust.Handle(s, m.Level) })
	if !strings.Contains(missing.text, "stock.Level, …) and mount it") && !strings.Contains(missing.text, `"stock.Level"`) {
		t.Errorf("a missing descriptor went unnoticed: %q", missing.text)
	}
}

type recorder struct {
	testing.TB
	text string
}

func (r *recorder) Error(args ...any)                 { r.text += fmt.Sprintln(args...) }
func (r *recorder) Errorf(format string, args ...any) { r.text += fmt.Sprintf(format+"\n", args...) }
