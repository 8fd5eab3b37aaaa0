package discovery_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// consul speaks the part of Consul's HTTP API that is used here, as its documentation has it: blocking queries that are
// answered when the index moves on, and an agent that checks what is registered.
type consul struct {
	*httptest.Server
	mu       sync.Mutex
	changed  chan struct{} // closed at each change
	index    uint64
	services map[string]service
	token    string
	status   int // answers everything with it, if not 0
	queries  []string
	waiting  atomic.Int64
	updates  []string // status that TTL checks told
}

type service struct {
	ID, Name, Address string
	Port              int
	Tags              []string
	Check             struct{ CheckID, HTTP, Interval, TTL, Status, DeregisterCriticalServiceAfter string }
	Weight            int  `json:"-"`
	Failing           bool `json:"-"`
}

func newConsul(t *testing.T) *consul {
	t.Helper()
	c := &consul{changed: make(chan struct{}), index: 10, services: map[string]service{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/health/service/{name}", c.health)
	mux.HandleFunc("PUT /v1/agent/service/register", func(w http.ResponseWriter, r *http.Request) {
		var s service
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		c.change(func() { c.services[s.ID] = s })
	})
	mux.HandleFunc("PUT /v1/agent/service/deregister/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !c.knows(r.PathValue("id")) {
			http.Error(w, "Unknown service ID", http.StatusNotFound)
			return
		}
		c.change(func() { delete(c.services, r.PathValue("id")) })
	})
	mux.HandleFunc("GET /v1/agent/service/{id}", func(w http.ResponseWriter, r *http.Request) {
		if !c.knows(r.PathValue("id")) {
			http.Error(w, "unknown service ID", http.StatusNotFound)
		}
	})
	mux.HandleFunc("PUT /v1/agent/check/update/{id}", func(w http.ResponseWriter, r *http.Request) {
		var u struct{ Status, Output string }
		_ = json.NewDecoder(r.Body).Decode(&u)
		c.change(func() {
			for id, s := range c.services {
				if s.Check.CheckID == r.PathValue("id") {
					s.Failing = u.Status != "passing"
					c.services[id] = s
					c.updates = append(c.updates, strings.TrimSpace(u.Status+" "+u.Output))
					return
				}
			}
			http.Error(w, `Unknown check ID`, http.StatusNotFound)
		})
	})
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		status, refuse := c.status, c.token != "" && r.Header.Get("X-Consul-Token") != c.token
		c.mu.Unlock()
		switch {
		case status != 0:
			http.Error(w, "No cluster leader", status)
		case refuse:
			http.Error(w, "Permission denied", http.StatusForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(func() {
		c.CloseClientConnections()
		c.Close()
	})
	return c
}

func (c *consul) knows(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.services[id]
	return ok
}

func (c *consul) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	c.index++
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consul) health(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	since, _ := strconv.ParseUint(q.Get("index"), 10, 64)
	c.mu.Lock()
	c.queries = append(c.queries, r.URL.RawQuery)
	for since > 0 && c.index <= since {
		changed := c.changed
		c.mu.Unlock()
		c.waiting.Add(1)
		select {
		case <-changed:
		case <-r.Context().Done():
			c.waiting.Add(-1)
			return
		}
		c.waiting.Add(-1)
		c.mu.Lock()
		if c.index < since {
			break // a snapshot was restored: Consul answers with the smaller index
		}
	}
	defer c.mu.Unlock()
	if c.status != 0 {
		http.Error(w, "No cluster leader", c.status)
		return
	}
	type entry struct {
		Node    struct{ Address string }
		Service struct {
			Address string
			Port    int
			Weights struct{ Passing int }
		}
	}
	answer := []entry{}
	for _, s := range c.services {
		if s.Name != r.PathValue("name") || q.Has("passing") && s.Failing || q.Has("tag") && !slices.Contains(s.Tags, q.Get("tag")) {
			continue
		}
		var e entry
		e.Node.Address, e.Service.Address, e.Service.Port, e.Service.Weights.Passing = "192.0.2.99", s.Address, s.Port, s.Weight
		answer = append(answer, e)
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(c.index, 10))
	_ = json.NewEncoder(w).Encode(answer)
}

func (c *consul) put(id, address string, port int, tags ...string) {
	c.change(func() {
		c.services[id] = service{ID: id, Name: "payments", Address: address, Port: port, Tags: tags, Weight: 1}
	})
}

func TestConsul(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	c.token = "letmein"
	c.put("a", "192.0.2.1", 8081, "rpc")
	c.put("b", "", 8082, "rpc")
	c.put("c", "192.0.2.3", 8083)
	d := open(t, "consul://payments?tag=rpc", discovery.Options{Consul: c.URL, ConsulToken: "letmein"})
	waitInstances(t, d, "192.0.2.1:8081", "192.0.2.99:8082")
	if got := d.URL().String(); got != "http://payments" {
		t.Errorf("URL %s", got)
	}

	// It waits inside Consul, and hears of each change.
	shoptest.WaitFor(t, "a blocking query", func() bool { return c.waiting.Load() == 1 })
	c.change(func() {
		s := c.services["b"]
		s.Failing = true
		c.services["b"] = s
	})
	waitInstances(t, d, "192.0.2.1:8081")
	c.put("d", "192.0.2.4", 8084, "rpc")
	waitInstances(t, d, "192.0.2.1:8081", "192.0.2.4:8084")
	shoptest.WaitFor(t, "a blocking query", func() bool { return c.waiting.Load() == 1 })
	c.mu.Lock()
	if n := len(c.queries); n > 8 || !strings.Contains(c.queries[n-1], "wait=1m0s") || !strings.Contains(c.queries[0], "passing=1") || strings.Contains(c.queries[0], "index") {
		t.Errorf("%d queries: %q", n, c.queries)
	}
	c.mu.Unlock()

	// Its state is restored from a snapshot: the index falls, and the list is right soon after.
	c.change(func() { c.index = 3 })
	c.put("e", "192.0.2.5", 8085, "rpc")
	waitInstances(t, d, "192.0.2.1:8081", "192.0.2.4:8084", "192.0.2.5:8085")

	// It is away, then empty: the last known stay. It comes back and has changed meanwhile.
	c.change(func() { c.status = http.StatusInternalServerError })
	shoptest.WaitFor(t, "the outage to be seen", func() bool { _, err := d.LastLookup(); return err != nil })
	c.change(func() { c.status = 0; clear(c.services) })
	shoptest.WaitFor(t, "the empty list to be seen", func() bool {
		_, err := d.LastLookup()
		return err != nil && strings.Contains(err.Error(), "no passing instance of payments")
	})
	if n := len(d.Instances()); n != 3 {
		t.Errorf("%d instances left", n)
	}
	c.put("f", "192.0.2.6", 8086, "rpc")
	waitInstances(t, d, "192.0.2.6:8086")
}

func TestConsulThatIsNotThere(t *testing.T) {
	t.Parallel()
	d := open(t, "consul://payments", discovery.Options{Consul: nobody(t)})
	if _, err := get(d); err == nil || !discovery.NotSent(err) || !strings.Contains(err.Error(), "ask consul") {
		t.Errorf("%v", err)
	}
	if _, err := discovery.Open("consul://payments", discovery.Options{Consul: "unix:///run/consul"}); err == nil || !strings.Contains(err.Error(), "write host:port") {
		t.Errorf("%v", err)
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	d := open(t, "consul://payments?tag=rpc", discovery.Options{Consul: c.URL})
	p := newPeer(t, echo)
	deregister, err := discovery.Register(t.Context(), discovery.RegisterOptions{
		Consul: c.URL, Service: "payments", Address: p.address(), Tags: []string{"rpc"}, Ready: p.URL + "/readyz", Interval: 20 * time.Millisecond, Log: quiet.Log,
	})
	if err != nil {
		t.Fatal(err)
	}
	id := "payments-" + p.address()
	c.mu.Lock()
	s := c.services[id]
	c.mu.Unlock()
	if s.Check.HTTP != p.URL+"/readyz" || s.Check.Interval != "20ms" || s.Check.Status != "passing" || s.Check.DeregisterCriticalServiceAfter == "" {
		t.Errorf("%+v", s)
	}
	waitInstances(t, d, p.address())
	mustGet(t, d)

	// The agent restarts and has forgotten us.
	c.change(func() { clear(c.services) })
	shoptest.WaitFor(t, "the second registration", func() bool { return c.knows(id) })

	if err := deregister(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.knows(id) {
		t.Error("still registered")
	}
	if err := deregister(t.Context()); err != nil {
		t.Errorf("again: %v", err)
	}
}

func TestRegisterWithTTL(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	var sick atomic.Bool
	deregister, err := discovery.Register(t.Context(), discovery.RegisterOptions{
		Consul: c.URL, Service: "payments", Address: "192.0.2.1:8081", ID: "p1", Interval: 10 * time.Millisecond, Log: quiet.Log,
		Check: func(context.Context) error {
			if sick.Load() {
				return errors.New("no database")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer deregister(context.Background())
	told := func(want string) func() bool {
		return func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.updates) > 0 && c.updates[len(c.updates)-1] == want
		}
	}
	shoptest.WaitFor(t, "word that it is well", told("passing"))
	c.mu.Lock()
	if s := c.services["p1"]; s.Check.TTL != "30ms" || s.Check.HTTP != "" {
		t.Errorf("%+v", s)
	}
	c.mu.Unlock()
	sick.Store(true)
	shoptest.WaitFor(t, "word that it is not", told("critical no database"))
	c.change(func() { clear(c.services) })
	shoptest.WaitFor(t, "the second registration", func() bool { return c.knows("p1") })
}

func TestRegisterWhileConsulIsAway(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	c.status = http.StatusInternalServerError
	deregister, err := discovery.Register(t.Context(), discovery.RegisterOptions{
		Consul: c.URL, Service: "payments", Address: "192.0.2.1:8081", ID: "p1", Interval: 10 * time.Millisecond, Log: quiet.Log, Ready: "http://192.0.2.1:8080/readyz",
	})
	if err != nil {
		t.Fatal(err)
	}
	c.change(func() { c.status = 0 })
	shoptest.WaitFor(t, "the registration", func() bool { return c.knows("p1") })
	c.change(func() { c.status = http.StatusInternalServerError })
	if err := deregister(t.Context()); err == nil || !strings.Contains(err.Error(), "No cluster leader") {
		t.Errorf("%v", err)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	c.token = "letmein"
	check := func(context.Context) error { return nil }
	for want, o := range map[string]discovery.RegisterOptions{
		"no name for a service":      {Address: "a:1", Check: check},
		"is not the host:port":       {Service: "payments", Address: ":8081", Check: check},
		"set one of Ready and Check": {Service: "payments", Address: "a:1"},
		"consul answered 403":        {Service: "payments", Address: "a:1", Check: check, Consul: c.URL, Token: "wrong"},
	} {
		if _, err := discovery.Register(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// An instance that leaves Consul and then drains loses nothing, although its port is never there again.
func TestLeavingConsulLosesNothing(t *testing.T) {
	t.Parallel()
	c := newConsul(t)
	d := open(t, "consul://payments", discovery.Options{Consul: c.URL, IdleTimeout: 500 * time.Millisecond})
	type running struct {
		*process
		deregister func(context.Context) error
	}
	start := func() running {
		p := &process{address: "127.0.0.1:0"}
		p.start(t)
		deregister, err := discovery.Register(t.Context(), discovery.RegisterOptions{
			Consul: c.URL, Service: "payments", Address: p.address, Ready: "http://" + p.address, Log: quiet.Log,
		})
		if err != nil {
			t.Fatal(err)
		}
		return running{p, deregister}
	}
	old := []running{start(), start()}
	waitInstances(t, d, old[0].address, old[1].address)
	over := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				res, err := (&http.Client{Transport: d}).Post(d.URL().String(), "text/plain", strings.NewReader("x"))
				if err != nil {
					t.Error(err)
					return
				}
				res.Body.Close()
			}
		})
	}
	for range 3 {
		for i := range old {
			next := start()
			waitFor := func(there bool, address string) {
				shoptest.WaitFor(t, "the list to change", func() bool { return slices.Contains(addressesOf(d), address) == there })
			}
			waitFor(true, next.address)
			if err := old[i].deregister(t.Context()); err != nil {
				t.Error(err)
			}
			old[i].stop(t, 20*time.Millisecond) // the callers hear of it meanwhile
			waitFor(false, old[i].address)
			old[i] = next
		}
	}
	close(over)
	clients.Wait()
	for _, p := range old {
		if err := p.deregister(t.Context()); err != nil {
			t.Error(err)
		}
		p.stop(t, 0)
	}
}
