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
	"slices"
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
// limits, to a bare ReverseProxy of the standard library: to the same upstream, with the same transport. x may be 0.9.
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
	// Turn by turn, a moment each, so that whatever else the machine does falls on both: x is the median of the quotients.
	ways := [2]*clients{dialed(b, bare, tokens), dialed(b, full.Handler(), tokens)}
	const turn = 1000
	for _, w := range ways {
		w.load(b, turn) // connections and caches are there
	}
	b.ResetTimer()
	var rates [2][]float64
	var quotients []float64
	for done := 0; done < b.N; done += turn {
		x, y := ways[0].load(b, turn), ways[1].load(b, turn)
		rates[0], rates[1], quotients = append(rates[0], x), append(rates[1], y), append(quotients, y/x)
	}
	b.ReportMetric(median(rates[0]), "bare-req/s")
	b.ReportMetric(median(rates[1]), "gateway-req/s")
	b.ReportMetric(median(quotients), "x")
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// clients are connections to one server, each with its request, that cost next to nothing.
type clients struct {
	conns    []net.Conn
	in       []*bufio.Reader
	requests [][]byte
}

func dialed(b *testing.B, h http.Handler, tokens []string) *clients {
	s := httptest.NewServer(h)
	b.Cleanup(s.Close)
	var all clients
	for _, token := range tokens {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		all.conns, all.in = append(all.conns, c), append(all.in, bufio.NewReader(c))
		all.requests = append(all.requests, []byte("GET /v1/things/1?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: bench\r\nAccept: application/json\r\nAuthorization: Bearer "+token+"\r\n\r\n"))
	}
	return &all
}

// load makes n requests by all connections at once, and is how many a second that were.
func (c *clients) load(b *testing.B, n int) float64 {
	var left atomic.Int64
	left.Store(int64(n))
	var all sync.WaitGroup
	began := time.Now()
	for i, conn := range c.conns {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := conn.Write(c.requests[i]); err != nil {
					b.Error(err)
					return
				}
				r, err := http.ReadResponse(c.in[i], nil) //nolint:bodyclose // the connection is closed as a whole
				if err != nil || r.StatusCode != http.StatusOK {
					b.Error(r, err)
					return
				}
				io.Copy(io.Discard, r.Body)
			}
		})
	}
	all.Wait()
	return float64(n) / time.Since(began).Seconds()
}

func nothing(context.Context, *struct {
	ID string `path:"id"`
}) (*web.Reply[struct{}], error) {
	return nil, nil
}
