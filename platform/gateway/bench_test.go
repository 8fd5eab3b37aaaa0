package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/gateway"
	"github.com/banyan-shop/banyan/platform/web"
)

// transport is how the benchmark's proxies reach the upstream: the same for all.
func transport() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 256, MaxIdleConns: 1024, IdleConnTimeout: 30 * time.Second, DisableCompression: true}
}

// to sends requests to one address.
type to struct {
	host string
	http.RoundTripper
}

func (t to) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = "http", t.host
	return t.RoundTripper.RoundTrip(r)
}

// BenchmarkForward compares, at 32 clients over loopback, the gateway as it is in production, with its face, a JWT and rate
// limits, to a bare ReverseProxy of the standard library: to the same upstream, with the same transport.
func BenchmarkForward(b *testing.B) {
	body := fmt.Sprintf(`{"data":"%01000d"}`, 7)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "application/json")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		io.WriteString(w, body)
	}))
	defer upstream.Close()
	u, _ := url.Parse(upstream.URL)

	bare := &httputil.ReverseProxy{Transport: transport(), Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(u)
		p.SetXForwarded()
	}}

	keys, err := auth.NewKeys()
	if err != nil {
		b.Fatal(err)
	}
	key, err := auth.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	internal := auth.NewInternal(key, nil, nil)
	router := web.NewRouter()
	web.Get(router.Remote("shop", gateway.Forward(gateway.ForwardOptions{
		Module: "shop", Target: to{u.Host, transport()},
		Token: func(_ context.Context, id auth.Identity) (string, error) {
			return internal.IssueInternal(auth.Gateway, "shop", id)
		},
	})), "/v1/things/{id}", web.SignedIn, web.Route{ID: "thing"}, nothing)
	full, err := web.NewServer(web.Config{
		Router: router, Limit: web.Limit{PerSecond: 1e9, Burst: 1e9}, Overload: web.Overload{Delay: time.Second},
		Verify: auth.NewVerifier(func(context.Context) (auth.JWKS, error) { return keys.JWKS(), nil }, nil).Verify,
	})
	if err != nil {
		b.Fatal(err)
	}
	tokens := make([]string, 32)
	for i := range tokens {
		tokens[i], err = auth.NewSigner(keys, nil).Access(auth.Identity{User: "usr_01jd9v3k9rf2wbt8m8y5sgv7zc", Session: "ses_1", Roles: []string{"customer"}}, time.Minute)
		if err != nil {
			b.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		h    http.Handler
	}{{"bare", bare}, {"gateway", full.Handler()}, {"bare again", bare}, {"gateway again", full.Handler()}} {
		b.Run(c.name, func(b *testing.B) { load(b, c.h, tokens) })
	}
}

// load sends requests from 32 connections with clients that cost next to nothing.
func load(b *testing.B, h http.Handler, tokens []string) {
	s := httptest.NewServer(h)
	defer s.Close()
	var left atomic.Int64
	left.Store(int64(b.N))
	var clients sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for _, token := range tokens {
		clients.Go(func() {
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			request := []byte("GET /v1/things/1?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: application/json\r\nAuthorization: Bearer " + token + "\r\n\r\n")
			in := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				r, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection is closed as a whole
				if err != nil || r.StatusCode != http.StatusOK {
					b.Error(r, err)
					return
				}
				io.Copy(io.Discard, r.Body)
			}
		})
	}
	clients.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

func nothing(context.Context, *struct {
	ID string `path:"id"`
}) (*web.Reply[struct{}], error) {
	return nil, nil
}
