package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// quick answers at once, so that what is measured is the way there and back.
var quick = fake{
	level: func(_ context.Context, r levelRequest) (level, error) { return level{len(r.SKU)}, nil },
	reserve: func(_ context.Context, r reserveRequest) (reservation, error) {
		return reservation{ID: "res_0198c5a1f2b87d6e9a3c", By: "orders", User: r.SKU}, nil
	},
}

func BenchmarkPlainCall(b *testing.B) { benchmarkLevel(b, quick) }

// BenchmarkLocalCall may take 300 ns and two allocations more than BenchmarkPlainCall.
func BenchmarkLocalCall(b *testing.B) {
	w := rpc.NewWiring(rpc.Options{})
	mount(w.Server("stock"), quick)
	benchmarkLevel(b, dial(w.Dialer("orders")))
}

func benchmarkLevel(b *testing.B, s stock) {
	ctx := auth.WithIdentity(b.Context(), auth.Identity{User: "usr_1"})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Level(ctx, levelRequest{SKU: "a"}); err != nil {
			b.Fatal(err)
		}
	}
}

var asked = reserveRequest{Key: "chk_0198c5a1f2b87d6e9a3c/reserve", SKU: "MUG-BLUE", Lines: []int{1, 2, 3}}

// barePost is the measure of a remote call: the same structs as JSON through net/http, and nothing else.
func barePost(b *testing.B) (call func(context.Context) error, stop func()) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var req reserveRequest
		if err == nil {
			err = json.Unmarshal(body, &req)
		}
		res, _ := quick.reserve(r.Context(), req)
		out, _ := json.Marshal(res)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(out)
	}))
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}}
	call = func(ctx context.Context) error {
		in, _ := json.Marshal(asked)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, server.URL+"/rpc/stock/Reserve", bytes.NewReader(in))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			return err
		}
		var res reservation
		return json.Unmarshal(body, &res)
	}
	return call, func() { client.CloseIdleConnections(); server.Close() }
}

// remoteCall is a call to another process, with an identity, its token, and all policies.
func remoteCall(b *testing.B) (call func(context.Context) error, stop func()) {
	internal := tokens(b)
	callee := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders"}, Tokens: internal, Log: quiet})
	mount(callee.Server("stock"), quick)
	server := httptest.NewServer(callee.Handler())
	caller := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders"}, Tokens: internal, Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}})
	s := dial(caller.Dialer("orders"))
	call = func(ctx context.Context) error {
		_, err := s.Reserve(ctx, asked)
		return err
	}
	return call, func() { _ = caller.Stop(context.Background()); server.Close() }
}

func BenchmarkBarePost(b *testing.B)   { measured(b, barePost) }
func BenchmarkRemoteCall(b *testing.B) { measured(b, remoteCall) }

var identity = auth.Identity{User: "usr_1", Session: "ses_1", Roles: []string{"customer"}}

func measured(b *testing.B, setup func(*testing.B) (func(context.Context) error, func())) {
	for _, clients := range []int{1, 32} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			call, stop := setup(b)
			defer stop()
			ctx := auth.WithIdentity(b.Context(), identity)
			timed(b, clients, 500, ctx, call) // connections and caches are there
			b.ReportAllocs()
			b.ResetTimer()
			timed(b, clients, b.N, ctx, call)
		})
	}
}

// BenchmarkRemoteOverBare takes turns at both, a moment each, so that whatever else the machine does falls on both: x is the median
// of the quotients and may be 1.25.
func BenchmarkRemoteOverBare(b *testing.B) {
	for _, clients := range []int{1, 32} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			bare, stopBare := barePost(b)
			defer stopBare()
			remote, stopRemote := remoteCall(b)
			defer stopRemote()
			ctx := auth.WithIdentity(b.Context(), identity)
			const turn = 500
			timed(b, clients, turn, ctx, bare)
			timed(b, clients, turn, ctx, remote)
			b.ResetTimer()
			var bares, remotes, quotients []float64
			for done := 0; done < b.N; done += turn {
				x, y := timed(b, clients, turn, ctx, bare), timed(b, clients, turn, ctx, remote)
				bares, remotes, quotients = append(bares, x), append(remotes, y), append(quotients, y/x)
			}
			b.ReportMetric(median(quotients), "x")
			b.ReportMetric(median(bares), "bare-ns")
			b.ReportMetric(median(remotes), "remote-ns")
		})
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// timed makes n calls by so many clients at once, and is the nanoseconds for each.
func timed(b *testing.B, clients, n int, ctx context.Context, call func(context.Context) error) float64 {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	start := time.Now()
	for range clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(ctx); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return float64(time.Since(start)) / float64(n)
}
