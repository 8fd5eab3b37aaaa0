package web_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/web"
)

// sink is a response writer that costs nothing.
type sink struct{ h http.Header }

func (s *sink) Header() http.Header         { return s.h }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }
func (s *sink) WriteHeader(int)             {}

func bench(b *testing.B, h http.Handler, method, target, body string) {
	b.ReportAllocs()
	r := httptest.NewRequest(method, target, nil)
	r.Header.Set("Accept", "*/*")
	for b.Loop() {
		if body != "" {
			r = httptest.NewRequest(method, target, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
		}
		h.ServeHTTP(&sink{http.Header{}}, r)
	}
}

// BenchmarkFace shows what a request costs beside its handler; echo's bare answer is the floor.
func BenchmarkFace(b *testing.B) {
	e := echo.New()
	e.GET("/v1/hello", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"hello": "world"}) })
	page := web.Page[basket]{NextCursor: "x"}
	for range 20 {
		page.Data = append(page.Data, basket{ID: "prd_01jd9v3k9rf2wbt8m8y5sgv7zc", Lines: []line{{SKU: "sku-1", Quantity: 3, Price: money.Of(1999, "EUR")}}})
	}
	h := setup(b, func(s *shop) {
		s.config.Limit = web.Limit{PerSecond: 1e9, Burst: 1e9}
		s.routes = func(r *web.Router) {
			web.Get(r, "/v1/page", web.Public, web.Route{ID: "page"}, func(context.Context, *listIn) (*web.Reply[web.Page[basket]], error) {
				return &web.Reply[web.Page[basket]]{Body: page}, nil
			})
		}
	})
	e.GET("/v1/page", func(c echo.Context) error { return c.JSON(http.StatusOK, page) })
	b.Run("echo hello", func(b *testing.B) { bench(b, e, "GET", "/v1/hello", "") })
	b.Run("hello", func(b *testing.B) { bench(b, h, "GET", "/v1/hello", "") })
	b.Run("echo page", func(b *testing.B) { bench(b, e, "GET", "/v1/page", "") })
	b.Run("page", func(b *testing.B) { bench(b, h, "GET", "/v1/page?limit=20", "") })
	b.Run("post", func(b *testing.B) { bench(b, h, "POST", "/v1/baskets/b1/lines", `{"sku":"a","quantity":2}`) })
}

// BenchmarkLoopback is the same over a socket, with a client that costs next to nothing.
func BenchmarkLoopback(b *testing.B) {
	e := echo.New()
	e.GET("/v1/hello", func(c echo.Context) error { return c.JSON(http.StatusOK, map[string]string{"hello": "world"}) })
	for name, h := range map[string]http.Handler{"echo": e, "banyan": setup(b)} {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				c, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer c.Close()
				in := make([]byte, 4096)
				for pb.Next() {
					if _, err := c.Write([]byte("GET /v1/hello HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n")); err != nil {
						b.Error(err)
						return
					}
					if n, err := c.Read(in); err != nil || n < 100 {
						b.Error(n, err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
		})
	}
}

// BenchmarkOverload shows what the limit costs a request that is let in, and how little one that is turned away.
func BenchmarkOverload(b *testing.B) {
	hold, inside := make(chan struct{}), make(chan struct{})
	for _, c := range []struct {
		name string
		o    web.Overload
	}{{"off", web.Overload{}}, {"let in", web.Overload{Delay: time.Second}}, {"turned away", web.Overload{Delay: time.Second, Max: 1}}} {
		s := faced(b, web.Config{Overload: c.o}, func(r *web.Router) {
			declare(r)
			web.Get(r, "/v1/hold", web.Public, web.Route{ID: "hold", Criticality: web.Critical}, func(context.Context, *struct{}) (*web.Reply[string], error) {
				close(inside)
				<-hold
				return &web.Reply[string]{Body: "done"}, nil
			})
		})
		if c.name == "turned away" {
			go s.Handler().ServeHTTP(&sink{http.Header{}}, httptest.NewRequest("GET", "/v1/hold", nil))
			<-inside
		}
		b.Run(c.name, func(b *testing.B) { bench(b, s.Handler(), "GET", "/v1/hello", "") })
	}
	close(hold)
}
