package discovery_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestCheck(t *testing.T) {
	t.Parallel()
	for target, want := range map[string]string{
		"http://a:8081":                                      "",
		"http://a:8081/":                                     "",
		"https://shop.example":                               "",
		"http://a:8081, http://b:8081":                       "",
		"http://[::1]:8081":                                  "",
		"dns+http://payments:8081":                           "",
		"dns+https://payments:8443":                          "",
		"srv+http://_rpc._tcp.payments.ns.svc.cluster.local": "",
		"consul://payments":                                  "",
		"consul://payments?tag=rpc":                          "",

		"":                                   "no target: write http://host:port",
		"payments:8081":                      `nothing is known of scheme "payments"`,
		"payments":                           `nothing is known of scheme ""`,
		"ftp://a:1":                          `nothing is known of scheme "ftp"`,
		"http://":                            "names no host",
		"http://:8081":                       "names no host",
		"http://a:":                          "ends before its port",
		"http://a:0":                         "port 0 is not between 1 and 65535",
		"http://a:70000":                     "port 70000 is not between 1 and 65535",
		"http://a:b":                         "is no URL",
		"http://a:1/rpc":                     "is more than an address",
		"http://me:secret@a:1":               "is more than an address",
		"http://a:1?x=y":                     "is more than an address",
		"http://a:1,":                        "entry 2 of its list is empty",
		"http://a:1,https://b:1":             "mixes http and https",
		"http://a:1,http://a:1":              "has http://a:1 twice",
		"http://a:1,consul://b":              "a name that is looked up stands alone",
		"dns+http://a:1,dns+http://b:1":      "a name that is looked up stands alone",
		"dns+http://10.0.0.1:80":             "write http://10.0.0.1:80",
		"srv+http://_rpc._tcp.payments:8081": "has a port: leave it out",
		"consul://payments:8500":             "has a port: leave it out",
		"consul://payments?dc=2":             "only one ?tag=name may follow",
		"consul://payments?tag=a&tag=b":      "only one ?tag=name may follow",
	} {
		err := discovery.Check(target)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Check(%q) = %v, want %q", target, err, want)
		}
		opened, openErr := discovery.Open(target, quiet)
		if (openErr == nil) != (err == nil) {
			t.Errorf("Open(%q) = %v, but Check says %v", target, openErr, err)
		}
		if opened != nil {
			opened.Close()
		}
	}
}

var quiet = discovery.Options{Log: slog.New(slog.DiscardHandler)}

func open(t testing.TB, target string, o discovery.Options) *discovery.Target {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet.Log
	}
	d, err := discovery.Open(target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// peer is an instance of a service on a port of its own.
type peer struct {
	*httptest.Server
	served, conns atomic.Int64
}

func newPeer(t testing.TB, h http.HandlerFunc) *peer {
	t.Helper()
	p := &peer{}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.served.Add(1)
		h(w, r)
	}))
	p.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			p.conns.Add(1)
		case http.StateClosed, http.StateHijacked:
			p.conns.Add(-1)
		}
	}
	p.Start()
	t.Cleanup(p.Close)
	return p
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // whole, since the server drops what is unread when the answer begins
	_, _ = w.Write(body)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func list(peers ...*peer) string {
	var urls []string
	for _, p := range peers {
		urls = append(urls, p.URL)
	}
	return strings.Join(urls, ",")
}

func (p *peer) address() string { return p.Listener.Addr().String() }

// nobody is an address where connections are refused.
func nobody(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return l.Addr().String()
}

func get(d *discovery.Target) (int, error) {
	res, err := (&http.Client{Transport: d}).Get(d.URL().String())
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

func mustGet(t testing.TB, d *discovery.Target) {
	t.Helper()
	if code, err := get(d); err != nil || code != http.StatusOK {
		t.Fatalf("GET: %d, %v", code, err)
	}
}

func instance(t testing.TB, d *discovery.Target, address string) discovery.Instance {
	t.Helper()
	for _, i := range d.Instances() {
		if i.Address == address {
			return i
		}
	}
	t.Fatalf("%s is not among %+v", address, d.Instances())
	return discovery.Instance{}
}

func TestRequestsSpread(t *testing.T) {
	t.Parallel()
	peers := []*peer{newPeer(t, echo), newPeer(t, echo), newPeer(t, echo), newPeer(t, echo)}
	d := open(t, list(peers...), discovery.Options{Now: shoptest.NewClock().Now})
	d.Seed(7)
	for range 400 {
		mustGet(t, d)
	}
	for i, p := range peers {
		if n := p.served.Load(); n < 70 || n > 130 {
			t.Errorf("peer %d served %d of 400", i, n)
		}
		if got := instance(t, d, p.address()); got.Requests != p.served.Load() || got.InFlight != 0 || got.State != discovery.StateOK {
			t.Errorf("peer %d served %d: %+v", i, p.served.Load(), got)
		}
	}
}

func TestBusyInstanceGetsLess(t *testing.T) {
	t.Parallel()
	wait := make(chan struct{})
	release := sync.OnceFunc(func() { close(wait) })
	slow := newPeer(t, func(http.ResponseWriter, *http.Request) { <-wait })
	t.Cleanup(release) // before the servers close, which wait for their requests
	fast := newPeer(t, echo)
	d := open(t, list(slow, fast), discovery.Options{})
	d.Seed(7)
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for fast.served.Load() < 500 && t.Context().Err() == nil {
				if _, err := get(d); err != nil {
					t.Error(err)
				}
			}
		})
	}
	shoptest.WaitFor(t, "the fast one to do the work", func() bool { return fast.served.Load() >= 500 })
	release()
	clients.Wait()
	if n := slow.served.Load(); n > 20 {
		t.Errorf("the slow one got %d requests", n)
	}
}

// One client at a time never sees two requests in flight: only the latency tells.
func TestSlowInstanceGetsLessFromOneClient(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	slow, fast := newPeer(t, func(http.ResponseWriter, *http.Request) { clock.Advance(200 * time.Millisecond) }), newPeer(t, echo)
	d := open(t, list(slow, fast), discovery.Options{Now: clock.Now})
	d.Seed(7)
	for range 200 {
		mustGet(t, d)
	}
	if n := slow.served.Load(); n == 0 || n > 3 {
		t.Errorf("the slow one got %d of 200 requests, want one or two", n)
	}
	before := slow.served.Load()
	clock.Advance(2 * time.Minute) // the memory fades
	for range 20 {
		mustGet(t, d)
	}
	if slow.served.Load() == before {
		t.Error("the slow one never got another chance")
	}
}

func TestFailingInstanceIsLeftOutAndComesBack(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	var sick atomic.Bool
	sick.Store(true)
	bad := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	good := newPeer(t, echo)
	metrics := prometheus.NewRegistry()
	d := open(t, list(bad, good), discovery.Options{Now: clock.Now, Name: "shop", Metrics: metrics, IdleTimeout: time.Hour})
	d.Seed(7)
	for range 100 {
		if _, err := get(d); err != nil {
			t.Fatal(err)
		}
	}
	if n := bad.served.Load(); n != 5 {
		t.Fatalf("served %d failures, want 5", n)
	}
	i := instance(t, d, bad.address())
	if i.State != discovery.StateEjected || !i.Until.Equal(clock.Now().Add(30*time.Second)) || i.Reason != "answered 500" || i.Failures != 5 {
		t.Fatalf("%+v", i)
	}
	shoptest.WaitFor(t, "its connections to be closed, which may be what is broken", func() bool { return bad.conns.Load() == 0 })
	if got := gathered(t, metrics, "banyan_discovery_instances", "ejected"); got != 1 {
		t.Errorf("%v instances shown as ejected", got)
	}
	if got := gathered(t, metrics, "banyan_discovery_failures_total", bad.address()); got != 5 {
		t.Errorf("%v failures shown", got)
	}

	clock.Advance(29 * time.Second)
	for range 20 {
		mustGet(t, d)
	}
	if n := bad.served.Load(); n != 5 {
		t.Fatalf("got a request in its pause")
	}
	clock.Advance(time.Second) // one request tries it, and fails: a longer pause
	for range 20 {
		if _, err := get(d); err != nil {
			t.Fatal(err)
		}
	}
	if n := bad.served.Load(); n != 6 {
		t.Fatalf("%d trials, want 1", n-5)
	}
	if i := instance(t, d, bad.address()); !i.Until.Equal(clock.Now().Add(time.Minute)) {
		t.Fatalf("second pause: %+v", i)
	}
	clock.Advance(time.Minute)
	sick.Store(false)
	for range 40 {
		mustGet(t, d)
	}
	if i := instance(t, d, bad.address()); i.State != discovery.StateOK || bad.served.Load() < 15 {
		t.Fatalf("after %d requests: %+v", bad.served.Load(), i)
	}
}

func gathered(t testing.TB, r prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetGauge().GetValue() + m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no %s{%s}", name, label)
	return 0
}

// Whether an instance is well again is tried by one request, while all others go elsewhere.
func TestOneRequestTriesAnInstance(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	var sick atomic.Bool
	sick.Store(true)
	entered, release := make(chan struct{}), make(chan struct{})
	bad := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		close(entered)
		<-release
	})
	good := newPeer(t, echo)
	d := open(t, list(bad, good), discovery.Options{Now: clock.Now})
	shoptest.WaitFor(t, "the sick one to be left out", func() bool {
		_, err := get(d)
		return err != nil || instance(t, d, bad.address()).State == discovery.StateEjected
	})
	sick.Store(false)
	clock.Advance(30 * time.Second)
	done := make(chan error)
	go func() {
		_, err := get(d)
		done <- err
	}()
	<-entered
	for range 20 {
		mustGet(t, d)
	}
	clock.Advance(time.Millisecond)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if i := instance(t, d, bad.address()); i.State != discovery.StateOK || i.Requests != 6 {
		t.Errorf("%+v", i)
	}
}

// A hung instance has no latency: it must not pass for a fast one beside one that takes its time.
func TestSilentInstanceIsNotFast(t *testing.T) {
	t.Parallel()
	wait := make(chan struct{})
	silent, good := newPeer(t, func(http.ResponseWriter, *http.Request) { <-wait }), newPeer(t, echo)
	t.Cleanup(func() { close(wait) })
	d := open(t, list(silent, good), discovery.Options{Now: shoptest.NewClock().Now})
	d.SetMean(good.address(), time.Second)
	var clients sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		clients.Go(func() {
			for good.served.Load() < 50 {
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.URL().String(), nil)
				if res, err := d.RoundTrip(req); err == nil {
					res.Body.Close()
				} else {
					return
				}
			}
		})
	}
	shoptest.WaitFor(t, "the good one to serve", func() bool { return good.served.Load() >= 50 })
	cancel()
	clients.Wait()
}

func TestFailingFastIsNoMerit(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	p := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		clock.Advance(time.Millisecond)
		w.WriteHeader(http.StatusBadGateway)
	})
	d := open(t, p.URL, discovery.Options{Now: clock.Now})
	d.SetMean(p.address(), 200*time.Millisecond)
	for range 100 {
		if _, err := get(d); err != nil {
			t.Fatal(err)
		}
	}
	if i := instance(t, d, p.address()); i.Latency < 199*time.Millisecond {
		t.Errorf("%+v", i)
	}
}

func TestAtMostHalfAreLeftOut(t *testing.T) {
	t.Parallel()
	for n, most := range map[int]int{1: 0, 2: 1, 3: 1, 4: 2} {
		var peers []*peer
		for range n {
			peers = append(peers, newPeer(t, status(http.StatusServiceUnavailable)))
		}
		d := open(t, list(peers...), discovery.Options{})
		for range 200 {
			if code, err := get(d); err != nil || code != http.StatusServiceUnavailable {
				t.Fatal(code, err)
			}
		}
		out := 0
		for _, i := range d.Instances() {
			if i.State == discovery.StateEjected {
				out++
			}
		}
		if out != most {
			t.Errorf("%d of %d are left out, want %d", out, n, most)
		}
	}
}

func TestCallersFaultsAndCancellationsDoNotCount(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	hang := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hang" {
			entered <- struct{}{}
			<-r.Context().Done()
		}
		w.WriteHeader(http.StatusConflict)
	})
	d := open(t, list(hang)+",http://"+nobody(t), discovery.Options{})
	for range 20 {
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-entered; cancel() }()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.URL().String()+"/hang", nil)
		if _, err := d.RoundTrip(req); !errors.Is(err, context.Canceled) { //nolint:bodyclose // there is no answer
			t.Fatal(err)
		}
		if code, err := get(d); err != nil || code != http.StatusConflict {
			t.Fatal(code, err)
		}
	}
	if i := instance(t, d, hang.address()); i.State != discovery.StateOK || i.Failures != 0 || i.InFlight != 0 {
		t.Errorf("%+v", i)
	}
}

func TestUnansweredRequestsCount(t *testing.T) {
	t.Parallel()
	hang, good := newPeer(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), newPeer(t, echo)
	d := open(t, list(hang, good), discovery.Options{Now: shoptest.NewClock().Now})
	d.Seed(7)
	shoptest.WaitFor(t, "the silent one to be left out", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.URL().String(), nil)
		if res, err := d.RoundTrip(req); err == nil {
			res.Body.Close()
		}
		return instance(t, d, hang.address()).State == discovery.StateEjected
	})
}

// stream is a body that can be read only once, like that of a request being proxied.
type stream struct {
	io.Reader
	closed atomic.Int32
}

func (s *stream) Close() error { s.closed.Add(1); return nil }

func TestRequestThatReachedNobodyGoesElsewhere(t *testing.T) {
	t.Parallel()
	for _, replayable := range []bool{true, false} {
		t.Run(fmt.Sprintf("replayable=%v", replayable), func(t *testing.T) {
			t.Parallel()
			good := newPeer(t, echo)
			d := open(t, "http://"+nobody(t)+",http://"+nobody(t)+",http://"+nobody(t)+","+good.URL, discovery.Options{})
			for i := range 40 {
				want := strings.Repeat("body ", 1000*i)
				once := &stream{Reader: strings.NewReader(want)}
				var body io.Reader = strings.NewReader(want)
				if !replayable {
					body = once
				}
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.URL().String(), body)
				if err != nil {
					t.Fatal(err)
				}
				res, err := d.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || string(got) != want {
					t.Fatalf("got %d of %d bytes, %v", len(got), len(want), err)
				}
				if res.Request.URL.String() != d.URL().String() {
					t.Errorf("the answer is to %s", res.Request.URL)
				}
				if n := once.closed.Load(); !replayable && n != 1 {
					t.Errorf("the body was closed %d times", n)
				}
			}
			if n := good.served.Load(); n != 40 {
				t.Errorf("%d requests arrived, want 40", n)
			}
			if i := instance(t, d, good.address()); i.State != discovery.StateOK || i.Failures != 0 {
				t.Errorf("%+v", i)
			}
		})
	}
}

func TestRequestThatWasSentIsNotRepeated(t *testing.T) {
	t.Parallel()
	cut := func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.Close()
	}
	a, b := newPeer(t, cut), newPeer(t, cut)
	d := open(t, list(a, b), discovery.Options{})
	res, err := (&http.Client{Transport: d}).Post(d.URL().String(), "text/plain", strings.NewReader("pay"))
	if err == nil {
		res.Body.Close()
		t.Fatal("want an error")
	}
	if discovery.NotSent(err) {
		t.Errorf("NotSent(%v)", err)
	}
	if n := a.served.Load() + b.served.Load(); n != 1 {
		t.Errorf("it arrived %d times", n)
	}
}

func TestNobodyIsThere(t *testing.T) {
	t.Parallel()
	d := open(t, "http://"+nobody(t)+",http://"+nobody(t), discovery.Options{})
	body := &stream{Reader: strings.NewReader("pay")}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, d.URL().String(), body)
	_, err := d.RoundTrip(req) //nolint:bodyclose // there is no answer
	var op *net.OpError
	if err == nil || !discovery.NotSent(err) || !errors.As(err, &op) || op.Op != "dial" {
		t.Errorf("%v", err)
	}
	if n := body.closed.Load(); n != 1 {
		t.Errorf("the body was closed %d times", n)
	}
	d.Close()
	if _, err := d.RoundTrip(req); err == nil || !discovery.NotSent(err) || !strings.Contains(err.Error(), "closed") { //nolint:bodyclose // there is no answer
		t.Errorf("after Close: %v", err)
	}
}

func TestAnyURLReachesTheTarget(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL.Path) })
	d := open(t, p.URL, discovery.Options{})
	for url, want := range map[string]string{
		p.URL + "/own":                p.address() + "/own",
		"https://shop.example/orders": "shop.example/orders",
	} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		res, err := d.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(got) != want || req.URL.String() != url || res.Request != req {
			t.Errorf("%s: host and path %q, want %q", url, got, want)
		}
	}
}

// A proxy's WebSocket is a connection that must pass through whole, and is in flight as long as it is open.
func TestUpgradeThroughAProxy(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		rw.Flush()
		line, _ := rw.ReadString('\n')
		fmt.Fprint(rw, line)
		rw.Flush()
	})
	d := open(t, p.URL, discovery.Options{})
	proxy := httptest.NewServer(&httputil.ReverseProxy{Transport: d, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(d.URL()) }})
	defer proxy.Close()
	c, err := net.Dial("tcp", proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil) //nolint:bodyclose // the connection is closed as a whole
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	if i := instance(t, d, p.address()); i.InFlight != 1 {
		t.Errorf("%+v", i)
	}
	fmt.Fprint(c, "hello\n")
	if line, err := r.ReadString('\n'); line != "hello\n" {
		t.Fatal(line, err)
	}
	c.Close()
	shoptest.WaitFor(t, "the connection's end", func() bool { return instance(t, d, p.address()).InFlight == 0 })
}

func TestUnknownCertificateIsRefused(t *testing.T) {
	t.Parallel()
	p := httptest.NewTLSServer(http.HandlerFunc(echo))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer p.Close()
	d := open(t, p.URL, discovery.Options{})
	shoptest.WaitFor(t, "the certificate that nobody signed to be refused", func() bool {
		_, err := get(d)
		if err == nil {
			t.Fatal("it was taken")
		}
		return strings.Contains(err.Error(), "certificate") // on a busy machine the handshake may take too long first
	})
}
