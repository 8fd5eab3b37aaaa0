package web_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/banyan-shop/banyan/platform/web"
)

// listen serves on a port of its own and gives the server, its address and how Serve ended.
func listen(t *testing.T, declare func(*web.Router)) (*web.Server, string, <-chan error) {
	t.Helper()
	r := web.NewRouter()
	declare(r)
	s, err := web.NewServer(web.Config{Router: r})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return s, l.Addr().String(), ended
}

func TestShutdownLetsRequestsEndAndWakesLongPolls(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	s, addr, ended := listen(t, func(r *web.Router) {
		web.Get(r, "/v1/poll", web.Public, web.Route{ID: "poll"}, func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
			close(entered)
			select {
			case <-web.Draining(ctx):
				return &web.Reply[string]{Body: "drained"}, nil
			case <-time.After(20 * time.Second):
				return &web.Reply[string]{Body: "late"}, nil
			}
		})
	})
	answer := make(chan string)
	go func() {
		r, err := http.Get("http://" + addr + "/v1/poll")
		if err != nil {
			answer <- err.Error()
			return
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		answer <- string(b)
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if got := <-answer; got != `"drained"` {
		t.Errorf("the poll got %s", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("Serve ended with %v", err)
	}
}

func TestHeadersHaveALimit(t *testing.T) {
	t.Parallel()
	_, addr, _ := listen(t, func(*web.Router) {})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 32<<10))
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d", r.StatusCode)
	}
}

func TestAClientThatSendsNoHeadersIsLetGo(t *testing.T) {
	t.Parallel()
	_, addr, _ := listen(t, func(*web.Router) {})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET /healthz HTTP/1.1\r\n")
	c.SetReadDeadline(time.Now().Add(8 * time.Second))
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("still connected after 8 s: %v", err)
	}
}

func TestObserveSeesPatternsOnly(t *testing.T) {
	t.Parallel()
	var seen []string
	h := setup(t, func(s *shop) {
		s.config.Observe = func(o web.Observed) {
			seen = append(seen, fmt.Sprint(o.Module, " ", o.Method, " ", o.Route, " ", o.Status))
		}
	})
	send(t, h, "GET", "/v1/baskets/b1", "")
	send(t, h, "GET", "/v1/nowhere/"+strings.Repeat("a", 100), "")
	send(t, h, "BREW", "/v1/hello", "")
	send(t, h, "GET", "/v1/fail/panic", "")
	want := "test GET /v1/baskets/{id} 200| GET unmatched 404| other unmatched 405|test GET /v1/fail/{how} 500"
	if got := strings.Join(seen, "|"); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestARequestIsASpanOfItsCallersTrace(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	provider := trace.NewTracerProvider(trace.WithSyncer(spans))
	h := setup(t, func(s *shop) { s.config.Tracer = provider.Tracer("test") })
	send(t, h, "GET", "/v1/baskets/b1", "", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	send(t, h, "GET", "/v1/fail/panic", "")
	got := spans.GetSpans()
	if len(got) != 2 || got[0].Name != "GET /v1/baskets/{id}" || got[1].Name != "GET /v1/fail/{how}" || got[1].Status.Code != codes.Error {
		t.Fatalf("%+v", got)
	}
	if id := got[0].SpanContext.TraceID().String(); id != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("a trace of its own: %s", id)
	}
}
