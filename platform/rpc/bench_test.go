package rpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

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

// BenchmarkBarePost is the measure of BenchmarkRemoteCall: the same structs as JSON through net/http and nothing else.
func BenchmarkBarePost(b *testing.B) {
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
	defer server.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 256, DisableCompression: true, DialContext: (&net.Dialer{}).DialContext}}
	defer client.CloseIdleConnections()
	atOneAndMany(b, func(ctx context.Context) error {
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
	})
}

// BenchmarkRemoteCall may take 1.25 times BenchmarkBarePost: with an identity, its token, and all policies.
func BenchmarkRemoteCall(b *testing.B) {
	internal := tokens(b)
	callee := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders"}, Tokens: internal, Log: quiet})
	mount(callee.Server("stock"), quick)
	server := httptest.NewServer(callee.Handler())
	defer server.Close()
	caller := rpc.NewWiring(rpc.Options{Modules: []string{"stock", "orders"}, Tokens: internal, Log: quiet, Remotes: map[string]rpc.Remote{"stock": {Base: server.URL}}})
	defer caller.Stop(context.Background())
	s := dial(caller.Dialer("orders"))
	atOneAndMany(b, func(ctx context.Context) error {
		_, err := s.Reserve(ctx, asked)
		return err
	})
}

func atOneAndMany(b *testing.B, call func(context.Context) error) {
	ctx := auth.WithIdentity(b.Context(), auth.Identity{User: "usr_1", Session: "ses_1", Roles: []string{"customer"}})
	b.Run("1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := call(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("32", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(16) // times GOMAXPROCS, 2 here
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if err := call(ctx); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
