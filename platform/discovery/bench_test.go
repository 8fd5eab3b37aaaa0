package discovery_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/discovery"
)

// nothing answers at once, with a body like a real one.
type nothing struct{}

func (nothing) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(r.Body), Request: r}, nil
}

func (nothing) CloseIdleConnections() {}

// BenchmarkOverhead is what a Target adds: with stand-ins for the connections of three instances, and without a Target.
func BenchmarkOverhead(b *testing.B) {
	d := open(b, "http://a:1,http://b:1,http://c:1", discovery.Options{})
	d.Stub(nothing{})
	run := func(rt http.RoundTripper, url string) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				body := bytes.NewReader([]byte("{}"))
				req, err := http.NewRequest(http.MethodPost, url, body)
				if err != nil {
					b.Error(err)
					return
				}
				for pb.Next() {
					res, err := rt.RoundTrip(req)
					if err != nil {
						b.Error(err)
						return
					}
					res.Body.Close()
				}
			})
		}
	}
	b.Run("bare", run(nothing{}, d.URL().String()))
	b.Run("target", run(d, d.URL().String()))
	b.Run("target, another URL", run(d, "http://shop.example/"))
}

// BenchmarkLoopback is a POST of a small JSON over one keep-alive connection a client.
func BenchmarkLoopback(b *testing.B) {
	p := newPeer(b, echo)
	d := open(b, p.URL, discovery.Options{})
	bare := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	b.Cleanup(bare.CloseIdleConnections)
	for _, clients := range []int{1, 32} {
		for _, rt := range []http.RoundTripper{bare, d} {
			b.Run(fmt.Sprintf("clients=%d/%T", clients, rt), func(b *testing.B) {
				b.ReportAllocs()
				next := make(chan struct{}, 1024)
				done := make(chan error, clients)
				for range clients {
					go func() {
						for range next {
							req, _ := http.NewRequest(http.MethodPost, d.URL().String(), strings.NewReader(`{"id":"x","amount":1}`))
							res, err := rt.RoundTrip(req)
							if err != nil {
								done <- err
								return
							}
							_, _ = io.Copy(io.Discard, res.Body)
							res.Body.Close()
						}
						done <- nil
					}()
				}
				for b.Loop() {
					next <- struct{}{}
				}
				close(next)
				for range clients {
					if err := <-done; err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
