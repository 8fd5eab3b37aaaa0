package discovery_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestDrainingMarksAnswers(t *testing.T) {
	t.Parallel()
	var draining atomic.Bool
	handlers := map[string]http.HandlerFunc{
		"silent": func(http.ResponseWriter, *http.Request) { draining.Store(true) },
		"status": func(w http.ResponseWriter, _ *http.Request) { draining.Store(true); w.WriteHeader(http.StatusTeapot) },
		"write":  func(w http.ResponseWriter, _ *http.Request) { draining.Store(true); fmt.Fprint(w, "x") },
		"flush":  func(w http.ResponseWriter, _ *http.Request) { draining.Store(true); w.(http.Flusher).Flush() },
		"copy": func(w http.ResponseWriter, _ *http.Request) {
			draining.Store(true)
			_, _ = w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
		},
		"controller": func(w http.ResponseWriter, _ *http.Request) {
			draining.Store(true)
			_ = http.NewResponseController(w).Flush()
		},
	}
	for name, h := range handlers {
		draining.Store(false)
		p := httptest.NewServer(discovery.Draining(h, draining.Load))
		res, err := http.Get(p.URL) // the process begins to stop while this is under way
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Header.Get("Banyan-Draining") != "1" || !res.Close {
			t.Errorf("%s: %v, close %v", name, res.Header, res.Close)
		}
		p.Close()
	}
	draining.Store(false)
	p := httptest.NewServer(discovery.Draining(http.HandlerFunc(echo), draining.Load))
	defer p.Close()
	res, err := http.Get(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.Header.Get("Banyan-Draining") != "" || res.Close {
		t.Errorf("marked without need: %v", res.Header)
	}
}

func TestDrainingInstanceIsLeftAlone(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	var draining atomic.Bool
	drains, other := newPeer(t, discovery.Draining(http.HandlerFunc(echo), draining.Load).ServeHTTP), newPeer(t, echo)
	d := open(t, list(drains, other), discovery.Options{Now: clock.Now})
	d.Seed(7)
	for range 10 {
		mustGet(t, d)
	}
	draining.Store(true)
	before := drains.served.Load()
	for range 50 {
		res, err := (&http.Client{Transport: d}).Get(d.URL().String())
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.Header.Get("Banyan-Draining") != "" {
			t.Fatal("the mark reached the caller, who would pass it on")
		}
	}
	i := instance(t, d, drains.address())
	if i.State != discovery.StateDraining || i.Failures != 0 || drains.served.Load() != before+1 {
		t.Fatalf("%d more requests: %+v", drains.served.Load()-before, i)
	}
	clock.Advance(10 * time.Second)
	draining.Store(false)
	for range 20 {
		mustGet(t, d)
	}
	if i := instance(t, d, drains.address()); i.State != discovery.StateOK || drains.served.Load() < before+4 {
		t.Errorf("it is back, but %+v", i)
	}
}

func TestAllDraining(t *testing.T) {
	t.Parallel()
	var first, second atomic.Bool
	a := newPeer(t, discovery.Draining(http.HandlerFunc(echo), first.Load).ServeHTTP)
	b := newPeer(t, discovery.Draining(http.HandlerFunc(echo), second.Load).ServeHTTP)
	clock := shoptest.NewClock()
	d := open(t, list(a, b), discovery.Options{Now: clock.Now})
	first.Store(true)
	second.Store(true)
	for range 20 { // they serve still
		mustGet(t, d)
	}
	first.Store(false) // restarted: the first answer without a mark tells, long before the 10 s
	shoptest.WaitFor(t, "the restarted one to be good again", func() bool {
		clock.Advance(time.Millisecond)
		mustGet(t, d)
		return instance(t, d, a.address()).State == discovery.StateOK
	})
	if i := instance(t, d, b.address()); i.State != discovery.StateDraining {
		t.Errorf("%+v", i)
	}
}

func TestStoppingAsAnnouncedIsNoFailure(t *testing.T) {
	t.Parallel()
	draining := func() bool { return true }
	a := newPeer(t, discovery.Draining(http.HandlerFunc(echo), draining).ServeHTTP)
	b := newPeer(t, discovery.Draining(http.HandlerFunc(echo), draining).ServeHTTP)
	d := open(t, list(a, b), discovery.Options{Now: shoptest.NewClock().Now})
	for range 20 {
		mustGet(t, d)
	}
	a.Close()
	before := instance(t, d, a.address()).Requests
	for range 40 {
		mustGet(t, d)
	}
	if i := instance(t, d, a.address()); i.State != discovery.StateDraining || i.Failures != 0 || i.Requests < before+10 {
		t.Errorf("%+v", i)
	}
}

// An answer to a question from before the mark tells nothing about now.
func TestOldAnswerDoesNotEndADrain(t *testing.T) {
	t.Parallel()
	clock := shoptest.NewClock()
	entered, release := make(chan struct{}), make(chan struct{})
	p := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			close(entered)
			<-release
			return
		}
		w.Header().Set("Banyan-Draining", "1")
	})
	d := open(t, p.URL, discovery.Options{Now: clock.Now})
	done := make(chan error)
	go func() {
		res, err := (&http.Client{Transport: d}).Post(d.URL().String(), "", nil)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	<-entered
	clock.Advance(time.Second)
	mustGet(t, d)
	clock.Advance(time.Second)
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if i := instance(t, d, p.address()); i.State != discovery.StateDraining {
		t.Errorf("%+v", i)
	}
}

// What Shutdown would close under a request that is just being written must be gone before: idle connections are closed by
// the client, at the mark, or after IdleTimeout when it asks nothing and so sees none.
func TestNoIdleConnectionOutlastsADrain(t *testing.T) {
	t.Parallel()
	for name, idle := range map[string]time.Duration{"marked": time.Hour, "quiet": 10 * time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var draining atomic.Bool
			var together sync.WaitGroup
			together.Add(4)
			p := newPeer(t, discovery.Draining(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPost {
					together.Done()
					together.Wait() // so that each has a connection of its own
				}
			}), draining.Load).ServeHTTP)
			d := open(t, p.URL, discovery.Options{IdleTimeout: idle})
			var clients sync.WaitGroup
			for range 4 {
				clients.Go(func() {
					res, err := (&http.Client{Transport: d}).Post(d.URL().String(), "", nil)
					if err != nil {
						t.Error(err)
						return
					}
					res.Body.Close()
				})
			}
			clients.Wait()
			draining.Store(true)
			if name == "marked" {
				if n := p.conns.Load(); n != 4 {
					t.Fatalf("%d connections, want 4", n)
				}
				mustGet(t, d)
			}
			shoptest.WaitFor(t, "the client to close its connections", func() bool { return p.conns.Load() == 0 })
		})
	}
}

// process is an instance that is drained and started again on its port, as the host does it.
type process struct {
	address  string
	listener *discovery.Listener
	server   *http.Server
	draining *atomic.Bool
	served   *atomic.Int64
	done     chan error
}

func (p *process) start(t testing.TB) {
	t.Helper()
	var l net.Listener
	shoptest.WaitFor(t, "the port", func() bool {
		var err error
		l, err = net.Listen("tcp", p.address)
		return err == nil
	})
	p.address, p.draining, p.done = l.Addr().String(), &atomic.Bool{}, make(chan error, 1)
	if p.served == nil {
		p.served = &atomic.Int64{}
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.served.Add(1)
		_, _ = io.Copy(w, r.Body)
	})
	p.listener = discovery.NewListener(l)
	p.server = &http.Server{Handler: discovery.Draining(h, p.draining.Load)}
	go func() { p.done <- p.server.Serve(p.listener) }()
}

func (p *process) stop(t testing.TB, delay time.Duration) {
	t.Helper()
	p.draining.Store(true)
	<-time.After(delay) // as the host does, for balancers
	p.listener.Drain(context.Background())
	if err := p.server.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	<-p.done
}

// TestRollingRestartLosesNothing restarts three instances in turn under busy clients and under quiet ones, whose connections
// are mostly idle when the instance stops.
func TestRollingRestartLosesNothing(t *testing.T) {
	t.Parallel()
	const delay = 20 * time.Millisecond
	o := discovery.Options{IdleTimeout: 500 * time.Millisecond, Avoid: 800 * time.Millisecond}
	rounds := 4
	if testing.Short() {
		rounds = 2
	}
	var processes []*process
	var urls []string
	for range 3 {
		p := &process{address: "127.0.0.1:0"}
		p.start(t)
		processes, urls = append(processes, p), append(urls, "http://"+p.address)
	}
	over := make(chan struct{})
	var clients sync.WaitGroup
	var sent, failed atomic.Int64
	client := func(d *discovery.Target, n int, pause time.Duration) {
		c := &http.Client{Transport: d}
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			case <-time.After(pause):
			}
			want := fmt.Sprintf("%d of %d", i, n)
			var res *http.Response
			var err error
			switch i % 3 {
			case 0:
				res, err = c.Get(d.URL().String())
				want = ""
			case 1:
				res, err = c.Post(d.URL().String(), "text/plain", strings.NewReader(want))
			default:
				res, err = c.Post(d.URL().String(), "text/plain", io.MultiReader(strings.NewReader(want))) // can't be replayed
			}
			sent.Add(1)
			if err != nil {
				failed.Add(1)
				t.Errorf("request %d of client %d: %v", i, n, err)
				continue
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || string(got) != want || res.StatusCode != http.StatusOK {
				failed.Add(1)
				t.Errorf("request %d of client %d: %d %q, %v", i, n, res.StatusCode, got, err)
			}
		}
	}
	busy := open(t, strings.Join(urls, ","), o)
	for n := range 8 {
		clients.Go(func() { client(busy, n, 0) })
	}
	for n := range 8 {
		quiet := open(t, strings.Join(urls, ","), o)
		clients.Go(func() { client(quiet, 100+n, time.Duration(20+7*n)*time.Millisecond) })
	}
	for range rounds {
		for _, p := range processes {
			p.stop(t, delay)
			p.start(t)
			before := p.served.Load()
			shoptest.WaitFor(t, "the restarted instance to get requests", func() bool { return p.served.Load() > before || failed.Load() > 0 })
		}
	}
	close(over)
	clients.Wait()
	for _, p := range processes {
		p.stop(t, 0)
	}
	t.Logf("%d restarts, %d requests, %d failed", rounds*len(processes), sent.Load(), failed.Load())
}
