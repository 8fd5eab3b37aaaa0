package discovery_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/banyan-shop/banyan/platform/discovery"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// nameServer answers from records, which may change, or with an error.
type nameServer struct {
	address string
	mu      sync.Mutex
	records map[string][]dns.RR // by name
	rcode   int                 // instead, if not 0
	broken  map[string]bool     // SERVFAIL for these alone
	asked   atomic.Int64
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	n := &nameServer{}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = conn.LocalAddr().String()
	started, done := make(chan struct{}), make(chan error, 1)
	s := &dns.Server{PacketConn: conn, Handler: n, NotifyStartedFunc: func() { close(started) }}
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		s.Shutdown()
		<-done
	})
	return n
}

func (n *nameServer) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.asked.Add(1)
	q := r.Question[0]
	m := new(dns.Msg)
	m.SetReply(r)
	if m.Rcode = n.rcode; n.broken[q.Name] {
		m.Rcode = dns.RcodeServerFailure
	}
	if m.Rcode == dns.RcodeSuccess {
		all, ok := n.records[q.Name]
		if !ok {
			m.Rcode = dns.RcodeNameError
		}
		for _, rr := range all {
			if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	_ = w.WriteMsg(m)
}

// set replaces all records by those in zone-file form.
func (n *nameServer) set(t *testing.T, lines ...string) {
	t.Helper()
	records := map[string][]dns.RR{}
	for _, l := range lines {
		rr, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		records[rr.Header().Name] = append(records[rr.Header().Name], rr)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.records = records
}

func (n *nameServer) fail(rcode int, names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rcode, n.broken = rcode, map[string]bool{}
	for _, name := range names {
		n.broken[name] = true
	}
}

func (n *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, "udp", n.address)
		if err == nil {
			context.AfterFunc(ctx, func() { c.Close() }) // a question under way at the end must not wait 5 s for its answer
		}
		return c, err
	}}
}

func addressesOf(d *discovery.Target) []string {
	var list []string
	for _, i := range d.Instances() {
		list = append(list, i.Address)
	}
	return list
}

func waitInstances(t *testing.T, d *discovery.Target, want ...string) {
	t.Helper()
	slices.Sort(want)
	shoptest.WaitFor(t, "the instances "+strings.Join(want, " "), func() bool { return slices.Equal(addressesOf(d), want) })
}

// waitLookups waits for n more look-ups.
func waitLookups(t *testing.T, n *nameServer, more int64) {
	t.Helper()
	until := n.asked.Load() + more
	shoptest.WaitFor(t, "more look-ups", func() bool { return n.asked.Load() >= until })
}

func TestDNSHosts(t *testing.T) {
	t.Parallel()
	n := newNameServer(t)
	n.set(t, "payments.test. 1 A 192.0.2.1", "payments.test. 1 A 192.0.2.2", "payments.test. 1 AAAA 2001:db8::1")
	d := open(t, "dns+http://payments.test.:8081", discovery.Options{Resolver: n.resolver(), Interval: 10 * time.Millisecond})
	waitInstances(t, d, "192.0.2.1:8081", "192.0.2.2:8081")
	if got := d.URL().String(); got != "http://payments.test:8081" {
		t.Errorf("URL %s", got)
	}
	n.set(t, "payments.test. 1 A 192.0.2.2", "payments.test. 1 A 192.0.2.3")
	waitInstances(t, d, "192.0.2.2:8081", "192.0.2.3:8081")
	n.set(t, "payments.test. 1 AAAA 2001:db8::1")
	waitInstances(t, d, "[2001:db8::1]:8081")

	for what, fail := range map[string]func(){
		"SERVFAIL": func() { n.fail(dns.RcodeServerFailure) },
		"NXDOMAIN": func() { n.fail(dns.RcodeNameError) },
		"no data":  func() { n.set(t, "payments.test. 1 TXT away") },
	} {
		n.fail(dns.RcodeSuccess)
		n.set(t, "payments.test. 1 A 192.0.2.9")
		waitInstances(t, d, "192.0.2.9:8081")
		before, _ := d.LastLookup()
		fail()
		shoptest.WaitFor(t, "the failure to be seen", func() bool { _, err := d.LastLookup(); return err != nil })
		if got := addressesOf(d); !slices.Equal(got, []string{"192.0.2.9:8081"}) {
			t.Errorf("%s: the last known instances went, there are %v", what, got)
		}
		if at, _ := d.LastLookup(); at.Before(before) {
			t.Errorf("%s: last good look-up at %v", what, at)
		}
	}
	n.fail(dns.RcodeSuccess)
	n.set(t, "payments.test. 1 A 192.0.2.4")
	waitInstances(t, d, "192.0.2.4:8081")
	if _, err := d.LastLookup(); err != nil {
		t.Error(err)
	}
}

func TestRequestsWaitForTheFirstLookup(t *testing.T) {
	t.Parallel()
	p := newPeer(t, echo)
	_, port, _ := net.SplitHostPort(p.address())
	n := newNameServer(t)
	n.set(t, "payments.test. 1 A 127.0.0.1")
	n.mu.Lock() // it does not answer yet
	d := open(t, "dns+http://payments.test.:"+port, discovery.Options{Resolver: n.resolver(), Interval: 10 * time.Millisecond})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, d.URL().String(), nil)
	if _, err := d.RoundTrip(req); err == nil || !discovery.NotSent(err) { //nolint:bodyclose // the connection is closed as a whole
		t.Errorf("want an error at once, got %v", err)
	}
	done := make(chan error)
	go func() {
		_, err := get(d)
		done <- err
	}()
	n.mu.Unlock()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestUnknownNameFailsAtOnceAndIsTriedOn(t *testing.T) {
	t.Parallel()
	p := newPeer(t, echo)
	_, port, _ := net.SplitHostPort(p.address())
	n := newNameServer(t)
	d := open(t, "dns+http://payments.test.:"+port, discovery.Options{Resolver: n.resolver(), Interval: 10 * time.Millisecond})
	_, err := get(d)
	if err == nil || !discovery.NotSent(err) {
		t.Fatalf("want an error, got %v", err)
	}
	n.set(t, "payments.test. 1 A 127.0.0.1")
	waitInstances(t, d, p.address())
	mustGet(t, d)
}

// An instance that refuses connections may have moved: that is looked up at once, not after the interval.
func TestRefusedConnectionBringsALookup(t *testing.T) {
	t.Parallel()
	n := newNameServer(t)
	n.set(t, "payments.test. 60 A 127.0.0.1")
	_, port, _ := net.SplitHostPort(nobody(t))
	d := open(t, "dns+http://payments.test.:"+port, discovery.Options{Resolver: n.resolver(), Interval: time.Hour})
	if _, err := get(d); err == nil {
		t.Fatal("want an error")
	}
	n.set(t, "payments.test. 60 A 192.0.2.1")
	waitInstances(t, d, "192.0.2.1:"+port)
}

func TestSRV(t *testing.T) {
	t.Parallel()
	first, second, spare := newPeer(t, echo), newPeer(t, echo), newPeer(t, echo)
	srv := func(p *peer, rest string) string {
		_, port, _ := net.SplitHostPort(p.address())
		return "_rpc._tcp.payments.test. 1 SRV " + rest[:len(rest)-1] + port + " " + string(rest[len(rest)-1]) + ".test."
	}
	n := newNameServer(t)
	hosts := []string{"a.test. 1 A 127.0.0.1", "b.test. 1 A 127.0.0.1", "c.test. 1 A 127.0.0.1"}
	n.set(t, append(hosts, srv(first, "10 30 a"), srv(second, "10 10 b"), srv(spare, "20 10 c"))...)
	d := open(t, "srv+http://_rpc._tcp.payments.test.", discovery.Options{
		Resolver: n.resolver(), Interval: 10 * time.Millisecond, Now: shoptest.NewClock().Now,
	})
	d.Seed(7)
	waitInstances(t, d, first.address(), second.address(), spare.address())
	if i := instance(t, d, first.address()); i.Priority != 10 || i.Weight != 30 {
		t.Errorf("%+v", i)
	}
	for range 400 {
		mustGet(t, d)
	}
	if a, b, c := first.served.Load(), second.served.Load(), spare.served.Load(); a < 260 || a > 340 || c != 0 {
		t.Errorf("weights 30 and 10, a spare one: %d, %d, %d", a, b, c)
	}

	// The spare one serves when those before it are gone, at once.
	first.Close()
	second.Close()
	mustGet(t, d)
	if n := spare.served.Load(); n != 1 {
		t.Errorf("the spare one served %d", n)
	}

	// A host that can't be looked up keeps its address, and the others change.
	n.fail(dns.RcodeSuccess, "c.test.")
	n.set(t, srv(spare, "20 10 c"), srv(first, "10 10 d"), "d.test. 1 A 192.0.2.1")
	_, port, _ := net.SplitHostPort(first.address())
	waitInstances(t, d, spare.address(), "192.0.2.1:"+port)
	n.fail(dns.RcodeServerFailure)
	waitLookups(t, n, 3)
	waitInstances(t, d, spare.address(), "192.0.2.1:"+port)
}

// An instance that vanishes gets no new requests, and those it has may end.
func TestVanishedInstanceFinishes(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	old := newPeer(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
	})
	next := newPeer(t, echo)
	_, oldPort, _ := net.SplitHostPort(old.address())
	_, nextPort, _ := net.SplitHostPort(next.address())
	n := newNameServer(t)
	n.set(t, "p.test. 1 SRV 1 1 "+oldPort+" a.test.", "a.test. 1 A 127.0.0.1")
	d := open(t, "srv+http://p.test.", discovery.Options{Resolver: n.resolver(), Interval: 10 * time.Millisecond, IdleTimeout: time.Hour})
	done := make(chan error)
	go func() {
		_, err := get(d)
		done <- err
	}()
	<-entered
	n.set(t, "p.test. 1 SRV 1 1 "+nextPort+" a.test.", "a.test. 1 A 127.0.0.1")
	waitInstances(t, d, next.address())
	for range 10 {
		mustGet(t, d)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := old.served.Load(); n != 1 {
		t.Errorf("it got %d requests", n)
	}
	shoptest.WaitFor(t, "its connection to be closed", func() bool { return old.conns.Load() == 0 })
}
