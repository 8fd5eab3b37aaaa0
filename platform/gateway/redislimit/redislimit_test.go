package redislimit_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/gateway/redislimit"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// server is a redis-server of the test's own.
type server struct {
	addr string
	stop func()
}

func start(t testing.TB) server {
	t.Helper()
	bin, err := exec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("no redis-server: install Debian's package of that name")
		}
		t.Skip("no redis-server: install Debian's package of that name")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(addr)
	c := exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir(), "--daemonize", "no")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	s := server{addr, func() { once.Do(func() { c.Process.Kill(); c.Wait() }) }}
	t.Cleanup(s.stop)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "Ready to accept connections") {
			go func() {
				for lines.Scan() { // or the pipe fills
				}
			}()
			return s
		}
	}
	t.Fatalf("redis-server did not start: %v", lines.Err())
	return s
}

func open(t testing.TB, addr, prefix string) *redislimit.Limiter {
	t.Helper()
	l, err := redislimit.Open("redis://"+addr+"/0", prefix, 10*time.Second) // the machine may be busy
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestGatewaysShareABucket(t *testing.T) {
	t.Parallel()
	s := start(t)
	one, two, other := open(t, s.addr, "a:"), open(t, s.addr, "a:"), open(t, s.addr, "b:")
	limit := web.Limit{PerSecond: 0.001, Burst: 10}
	var taken atomic.Int64
	var all sync.WaitGroup
	for i := range 40 {
		all.Go(func() {
			got, err := [...]*redislimit.Limiter{one, two}[i%2].Take(t.Context(), "user usr_ann", limit)
			if err != nil {
				t.Error(err)
			}
			if got.OK {
				taken.Add(1)
			} else if got.Left >= 1 {
				t.Errorf("refused with %v left", got.Left)
			}
		})
	}
	all.Wait()
	if taken.Load() != 10 {
		t.Errorf("%d of 10 tokens were taken", taken.Load())
	}
	for name, take := range map[string]func() (web.Taken, error){
		"another caller": func() (web.Taken, error) { return one.Take(t.Context(), "user usr_bob", limit) },
		"another shop":   func() (web.Taken, error) { return other.Take(t.Context(), "user usr_ann", limit) },
	} {
		if got, err := take(); err != nil || !got.OK || got.Left < 8.9 || got.Left > 9.1 {
			t.Errorf("%s: %+v %v", name, got, err)
		}
	}
}

func TestABucketFillsAgain(t *testing.T) {
	t.Parallel()
	l := open(t, start(t).addr, "")
	limit := web.Limit{PerSecond: 100, Burst: 2}
	for {
		got, err := l.Take(t.Context(), "x", limit)
		if err != nil {
			t.Fatal(err)
		}
		if !got.OK {
			break
		}
	}
	shoptest.WaitFor(t, "a token", func() bool {
		got, err := l.Take(t.Context(), "x", limit)
		return err == nil && got.OK
	})
}

func TestAnAddressIsCheckedAndItsPasswordKept(t *testing.T) {
	t.Parallel()
	if _, err := redislimit.Open("http://me:secret@host", "", 0); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestWhatHappensWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	s := start(t)
	l := open(t, s.addr, "")
	r := web.NewRouter()
	m := r.Module("test", nil)
	ok := func(context.Context, *struct{}) (*web.Reply[string], error) {
		return &web.Reply[string]{Body: "ok"}, nil
	}
	web.Get(m, "/v1/list", web.Public, web.Route{ID: "list"}, ok)
	web.Post(m, "/v1/login", web.Public, web.Route{ID: "login", Guarded: true}, ok)
	face, err := web.NewServer(web.Config{Router: r, Limit: web.Limit{PerSecond: 0.001, Burst: 4}, Limiter: l})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, target string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		face.Handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
		return w
	}
	for i := range 2 {
		if w := ask("GET", "/v1/list"); w.Code != 200 || w.Header().Get("RateLimit-Remaining") != fmt.Sprint(3-i) {
			t.Fatalf("with Redis: %d %v", w.Code, w.Header())
		}
	}
	s.stop()
	for i := range 5 {
		w := ask("POST", "/v1/login")
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), s.addr) {
			t.Fatalf("login %d without Redis: %d %v %s", i, w.Code, w.Header(), w.Body)
		}
	}
	for i := range 4 {
		if w := ask("GET", "/v1/list"); w.Code != 200 {
			t.Fatalf("list %d without Redis: %d", i, w.Code)
		}
	}
	if w := ask("GET", "/v1/list"); w.Code != http.StatusTooManyRequests {
		t.Errorf("nobody counts without Redis: %d", w.Code)
	}
	began := time.Now()
	const rested = 1000
	for range rested {
		if _, err := l.Take(t.Context(), "x", web.Limit{PerSecond: 1, Burst: 1}); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > time.Second { // one of them asked, at most
		t.Errorf("%d calls took %s", rested, took)
	}
}

func TestASilentRedisHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // takes connections, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	limiter, err := redislimit.Open("redis://"+l.Addr().String(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer limiter.Close()
	for range 20 {
		began := time.Now()
		if _, err := limiter.Take(t.Context(), "x", web.Limit{PerSecond: 1, Burst: 1}); !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Fatalf("took %s", took)
		}
	}
}

func TestRedisThatReturnsIsAskedAgain(t *testing.T) {
	t.Parallel()
	s := start(t)
	var away atomic.Bool
	proxy := relay(t, s.addr, &away)
	l := open(t, proxy, "")
	limit := web.Limit{PerSecond: 1000, Burst: 1000}
	away.Store(true)
	if _, err := l.Take(t.Context(), "x", limit); err == nil {
		t.Fatal("a bucket out of nowhere")
	}
	away.Store(false)
	shoptest.WaitFor(t, "an answer of Redis", func() bool {
		_, err := l.Take(t.Context(), "x", limit)
		return err == nil
	})
}

// relay passes connections on unless it is away.
func relay(t *testing.T, addr string, away *atomic.Bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", addr)
			if away.Load() || err != nil {
				c.Close()
				if err == nil {
					up.Close()
				}
				continue
			}
			copying := func(to, from net.Conn) {
				defer to.Close()
				defer from.Close()
				buf := make([]byte, 4096)
				for {
					n, err := from.Read(buf)
					if err != nil {
						return
					}
					if _, err := to.Write(buf[:n]); err != nil {
						return
					}
				}
			}
			all.Go(func() { copying(up, c) })
			all.Go(func() { copying(c, up) })
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// BenchmarkTake is what a shared bucket costs a request.
func BenchmarkTake(b *testing.B) {
	l := open(b, start(b).addr, "")
	limit := web.Limit{PerSecond: 1e6, Burst: 1e6}
	for b.Loop() {
		if _, err := l.Take(b.Context(), "user usr_ann", limit); err != nil {
			b.Fatal(err)
		}
	}
}
