package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// process is a wiring behind a listener, as another process would be.
func process(t testing.TB, internal *auth.Internal, remotes map[string]rpc.Remote) (*rpc.Wiring, func() string) {
	t.Helper()
	w := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Remotes: remotes})
	t.Cleanup(func() { _ = w.Stop(context.Background()) })
	return w, func() string {
		server := httptest.NewServer(w.Handler())
		t.Cleanup(server.Close)
		return server.URL
	}
}

// calling is a stock elsewhere, which answers with f, and a caller with a policy.
func calling(t testing.TB, p rpc.Policy, f fake) (stock, *rpc.Wiring) {
	t.Helper()
	internal := tokens(t)
	callee, serve := process(t, internal, nil)
	mount(callee.Server("stock"), f)
	w := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Policy: p, Remotes: map[string]rpc.Remote{"stock": {Base: serve()}}})
	t.Cleanup(func() { _ = w.Stop(context.Background()) })
	return dial(w.Dialer("orders")), w
}

func status(t testing.TB, w *rpc.Wiring) rpc.RemoteStatus {
	t.Helper()
	all := w.Remotes()
	if len(all) != 1 || all[0].Callee != "stock" {
		t.Fatalf("remotes are %+v", all)
	}
	return all[0]
}

// TestRetriesDoNotAmplify sends calls down host → front → orders → stock, each its own process, where the stock fails every
// third one. So no breaker opens, and it is the budget and the mark of one retrying layer that hold the storm down.
func TestRetriesDoNotAmplify(t *testing.T) {
	t.Parallel()
	for name, failing := range map[string]func() error{
		"says unavailable": func() error { return errs.Unavailablef("overloaded") },
		"hangs up":         func() error { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			internal := tokens(t)
			var attempts, ordersCalls, frontCalls atomic.Int64
			leaf, _ := process(t, internal, nil)
			mount(leaf.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{}, nil }})
			handler := leaf.Handler()
			stockServer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				attempts.Add(1)
				if strings.HasSuffix(r.URL.Path, "/Level") {
					if err := failing(); err != nil {
						w.Header().Set("Content-Type", "application/json")
						w.WriteHeader(http.StatusServiceUnavailable)
						_, _ = w.Write([]byte(`{"code":"unavailable"}`))
						return
					}
				}
				handler.ServeHTTP(w, r)
			}))
			defer stockServer.Close()

			hop := func(module, callee, base string, counter *atomic.Int64) string {
				w, serve := process(t, internal, map[string]rpc.Remote{callee: {Base: base}})
				conn := w.Dialer(module).Conn(callee)
				for _, method := range []string{"Level", "Adjust"} {
					mark := rpc.Idempotent
					down := rpc.NewMethod[levelRequest, level](callee+"."+method, mark)
					rpc.NewMethod[levelRequest, level](module+"."+method, mark).Handle(w.Server(module), func(ctx context.Context, r levelRequest) (level, error) {
						counter.Add(1)
						res, err := down.Call(ctx, conn, r)
						if err != nil {
							return res, fmt.Errorf("ask %s: %w", callee, err)
						}
						return res, nil
					})
				}
				return serve()
			}
			orders := hop("orders", "stock", stockServer.URL, &ordersCalls)
			front := hop("front", "orders", orders, &frontCalls)
			host, _ := process(t, internal, map[string]rpc.Remote{"front": {Base: front}})
			conn := host.Dialer("host").Conn("front")
			bad := rpc.NewMethod[levelRequest, level]("front.Level", rpc.Idempotent)
			good := rpc.NewMethod[levelRequest, level]("front.Adjust", rpc.Idempotent)

			const n = 210
			for range n / 3 {
				if _, err := bad.Call(t.Context(), conn, levelRequest{}); !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NoAnswer) {
					t.Fatalf("got %v", err)
				}
				for range 2 {
					if _, err := good.Call(t.Context(), conn, levelRequest{}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if a := attempts.Load(); a <= n || a > n*11/10 {
				t.Errorf("%d calls became %d tries at the leaf, want some more and at most %d", n, a, n*11/10)
			}
			if o, f := ordersCalls.Load(), frontCalls.Load(); o != n || f != n {
				t.Errorf("orders was asked %d times and front %d: only the layer above the leaf retries, so want %d", o, f, n)
			}
		})
	}
}

func TestACallIsTriedThreeTimesAtMost(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	s, _ := calling(t, rpc.Policy{Retries: 100}, fake{level: func(context.Context, levelRequest) (level, error) {
		tries.Add(1)
		return level{}, errs.Unavailablef("overloaded")
	}})
	for range 3 { // calls for the budget to count
		_, _ = s.Adjust(t.Context(), levelRequest{})
	}
	before := tries.Load()
	if _, err := s.Level(t.Context(), levelRequest{}); !errs.Is(err, errs.Unavailable) || tries.Load()-before != 3 {
		t.Errorf("%d tries, %v", tries.Load()-before, err)
	}
}

func TestAFailingLeafIsAskedLessAndLess(t *testing.T) {
	t.Parallel()
	var attempts atomic.Int64
	s, w := calling(t, rpc.Policy{Pause: time.Hour}, fake{level: func(context.Context, levelRequest) (level, error) {
		attempts.Add(1)
		return level{}, errs.Unavailablef("overloaded")
	}})
	for range 100 {
		if _, err := s.Level(t.Context(), levelRequest{}); !errs.Is(err, errs.Unavailable) {
			t.Fatalf("got %v", err)
		}
	}
	got := status(t, w)
	if got.Breaker != "open" || got.Opens != 1 || got.CircuitOpen < 70 || got.Calls != 100 || got.Failures != attempts.Load() || attempts.Load() > 25 {
		t.Errorf("%d tries; status %+v", attempts.Load(), got)
	}
}

func TestABreakerOpensAndHeals(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	var giveUp atomic.Pointer[context.CancelFunc]
	s, w := calling(t, rpc.Policy{Pause: 20 * time.Millisecond, Retries: -1}, fake{level: func(ctx context.Context, r levelRequest) (level, error) {
		if r.SKU == "wait" {
			(*giveUp.Load())()
			<-ctx.Done()
			return level{}, ctx.Err()
		}
		if broken.Load() {
			return level{}, errs.Unavailablef("broken")
		}
		return level{}, nil
	}})
	states := func() float64 {
		t.Helper()
		var state float64
		for line := range strings.Lines(gathered(t, w)) {
			_, _ = fmt.Sscanf(line, `banyan_rpc_breaker_state{callee="stock"} %f`, &state)
		}
		return state
	}
	broken.Store(true)
	for range 25 {
		_, _ = s.Level(t.Context(), levelRequest{})
	}
	if got := status(t, w); got.Breaker != "open" || states() != 2 {
		t.Fatalf("status %+v, metric %v", got, states())
	}
	if _, err := s.Level(t.Context(), levelRequest{}); !errs.Has(err, "circuit_open") && !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	broken.Store(false)
	// Probes that their callers give up must not keep the breaker half-open for ever, however many they are.
	given := 0
	shoptest.WaitFor(t, "three probes", func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		giveUp.Store(&cancel)
		if _, err := s.Level(ctx, levelRequest{SKU: "wait"}); errs.Is(err, errs.NoAnswer) {
			given++
		}
		return given == 3
	})
	shoptest.WaitFor(t, "the breaker to close", func() bool {
		_, err := s.Level(t.Context(), levelRequest{})
		return err == nil && status(t, w).Breaker == "closed"
	})
	if states() != 0 {
		t.Errorf("metric %v after healing", states())
	}
}

func TestWhatIsNotTheCalleesFaultOpensNoBreaker(t *testing.T) {
	t.Parallel()
	s, w := calling(t, rpc.Policy{}, fake{level: func(ctx context.Context, r levelRequest) (level, error) {
		switch r.SKU {
		case "wait":
			<-ctx.Done()
			return level{}, ctx.Err()
		case "internal":
			return level{}, errors.New("a bug in one method")
		}
		return level{}, errs.Invalidf("", "no such thing")
	}})
	for range 40 {
		_, _ = s.Level(t.Context(), levelRequest{})
		_, _ = s.Level(t.Context(), levelRequest{SKU: "internal"})
	}
	var callers sync.WaitGroup
	for range 40 {
		callers.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(200*time.Millisecond, cancel).Stop() // the callee had its time, and still it is the caller who leaves
			defer cancel()
			if _, err := s.Level(ctx, levelRequest{SKU: "wait"}); !errs.Is(err, errs.NoAnswer) {
				t.Errorf("got %v", err)
			}
		})
	}
	callers.Wait()
	if got := status(t, w); got.Breaker != "closed" || got.Failures != 0 || got.Retries != 0 || got.InFlight != 0 {
		t.Errorf("status %+v", got)
	}
}

func TestABulkheadRefusesAtOnce(t *testing.T) {
	t.Parallel()
	free := make(chan struct{})
	var inside sync.WaitGroup
	inside.Add(2)
	s, w := calling(t, rpc.Policy{Concurrent: 2}, fake{level: func(_ context.Context, r levelRequest) (level, error) {
		if r.SKU == "wait" {
			inside.Done()
			<-free
		}
		return level{1}, nil
	}})
	done := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := s.Level(t.Context(), levelRequest{SKU: "wait"})
			done <- err
		}()
	}
	inside.Wait()
	for range 50 {
		if _, err := s.Level(t.Context(), levelRequest{}); !errs.Is(err, errs.Unavailable) || !errs.Has(err, "bulkhead_full") {
			t.Fatalf("a third call: %v", err)
		}
	}
	if got := status(t, w); got.InFlight != 2 || got.Concurrent != 2 || got.Full != 50 || got.Breaker != "closed" || got.Retries != 0 || got.Calls != 2 {
		t.Errorf("status %+v", got)
	}
	close(free)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if got, err := s.Level(t.Context(), levelRequest{}); err != nil || got.Count != 1 || status(t, w).InFlight != 0 {
		t.Errorf("when there is room again: %+v, %v", got, err)
	}
}

// TestABlockedCallEndsWithItsDeadline asks callees that take the connection and say nothing, or not all of it.
func TestABlockedCallEndsWithItsDeadline(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]string{
		"says nothing":      "",
		"begins an answer":  "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{",
		"begins in a chunk": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			var taken []net.Conn
			accepted := make(chan struct{})
			go func() {
				defer close(accepted)
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					taken = append(taken, c)
					_, _ = c.Read(make([]byte, 4096)) // an answer before the request would be none
					_, _ = c.Write([]byte(says))
				}
			}()
			defer func() {
				listener.Close()
				<-accepted
				for _, c := range taken {
					c.Close()
				}
			}()
			w := rpc.NewWiring(rpc.Options{Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: "http://" + listener.Addr().String()}}})
			s := dial(w.Dialer("orders"))
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := s.Level(ctx, levelRequest{}); !errs.Is(err, errs.NoAnswer) || status(t, w).Failures != 0 {
				t.Errorf("with no time to answer: %v, %+v", err, status(t, w))
			}
			const limit = 150 * time.Millisecond
			var late []time.Duration
			for range 3 { // the least late counts: a busy machine may hold up any one
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				start := time.Now()
				_, err = s.Level(ctx, levelRequest{})
				late = append(late, time.Since(start)-limit)
				cancel()
				if !errs.Is(err, errs.NoAnswer) {
					t.Errorf("got %v, want no_answer", err)
				}
			}
			if slices.Min(late) > 100*time.Millisecond {
				t.Errorf("returned %v after the deadline", late)
			}
			if got := status(t, w); got.Failures != 3 {
				t.Errorf("a callee that is silent for %s is not at fault: %+v", limit, got)
			}
		})
	}
}

func TestACalleeThatBreaksOffMayHaveDoneIt(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]map[string]string{"of known length": {"Content-Length": "1000"}, "in chunks": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int64
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if calls.Add(1) == 3 {
					_, _ = w.Write([]byte(`{"count":3}`))
					return
				}
				for k, v := range header {
					w.Header().Set(k, v)
				}
				_, _ = w.Write([]byte(`{"count":`))
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}))
			defer server.Close()
			w := rpc.NewWiring(rpc.Options{Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}})
			s := dial(w.Dialer("orders"))
			if _, err := s.Adjust(t.Context(), levelRequest{}); !errs.Is(err, errs.NoAnswer) || calls.Load() != 1 {
				t.Errorf("unmarked: %v after %d calls", err, calls.Load())
			}
			if got, err := s.Level(t.Context(), levelRequest{}); err != nil || got.Count != 3 {
				t.Errorf("marked, tried again: %+v, %v", got, err)
			}
		})
	}
}

// carrier is a transport that chooses where requests go.
type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) { return c(r) }

func TestATransportCarriesTheCalls(t *testing.T) {
	t.Parallel()
	internal := tokens(t)
	callee, serve := process(t, internal, nil)
	mount(callee.Server("stock"), fake{level: func(context.Context, levelRequest) (level, error) { return level{7}, nil }})
	base := strings.TrimPrefix(serve(), "http://")
	var asked []string
	failing := 1
	w := rpc.NewWiring(rpc.Options{Tokens: internal, Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Transport: carrier(func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.String())
		if failing--; failing >= 0 {
			return nil, errs.New(errs.Unavailable, "no_instance", "no instance of stock is known")
		}
		r.URL.Host = base // a careless transport changes the request in its hands
		return http.DefaultTransport.RoundTrip(r)
	})}}})
	s := dial(w.Dialer("orders"))
	if _, err := s.Adjust(t.Context(), levelRequest{}); !errs.Has(err, "no_instance") || !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v", err)
	}
	for range 2 {
		if got, err := s.Adjust(t.Context(), levelRequest{}); err != nil || got.Count != 7 {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if diff := cmp.Diff(slices.Repeat([]string{"http://stock/rpc/stock/Adjust"}, 3), asked); diff != "" {
		t.Error(diff)
	}
	if got := status(t, w); got.Base != "http://stock" || got.Calls != 3 {
		t.Errorf("status %+v", got)
	}
}

func gathered(t testing.TB, w *rpc.Wiring) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			fmt.Fprintf(&text, "%s{%s} %v\n", f.GetName(), strings.Join(labels, ","), m.GetGauge().GetValue()+m.GetCounter().GetValue())
		}
	}
	return text.String()
}

func TestMetricsOfACallee(t *testing.T) {
	t.Parallel()
	fail := 1
	s, w := calling(t, rpc.Policy{}, fake{level: func(context.Context, levelRequest) (level, error) {
		if fail--; fail == 0 {
			return level{}, errs.Unavailablef("once")
		}
		return level{1}, nil
	}})
	if _, err := s.Level(t.Context(), levelRequest{}); err != nil {
		t.Fatal(err)
	}
	text := gathered(t, w)
	for _, want := range []string{
		`banyan_rpc_breaker_state{callee="stock"} 0`, `banyan_rpc_breaker_opens_total{callee="stock"} 0`, `banyan_rpc_retries_total{callee="stock"} 1`,
		`banyan_rpc_remote_calls_total{callee="stock"} 1`, `banyan_rpc_remote_failures_total{callee="stock"} 1`,
		`banyan_rpc_bulkhead_in_use{callee="stock"} 0`, `banyan_rpc_bulkhead_max{callee="stock"} 256`, `banyan_rpc_bulkhead_refused_total{callee="stock"} 0`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is missing in\n%s", want, text)
		}
	}
}
