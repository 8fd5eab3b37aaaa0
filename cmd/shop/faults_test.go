package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// weather is what a crossing does to who comes by.
type weather string

const (
	fine      weather = "fine"
	far       weather = "far"       // every answer takes the time of a long way
	dead      weather = "dead"      // nobody listens
	slow      weather = "slow"      // every answer comes two seconds late
	silent    weather = "silent"    // requests arrive, and no answer ever does
	resetting weather = "resetting" // connections come about, and break when something is asked
)

const (
	late    = 2 * time.Second
	longWay = 4 * time.Millisecond
)

// crossing is the way to a process or a database, on which something can go wrong.
type crossing struct {
	address           string
	network, upstream string
	calls             atomic.Int64 // requests of contracts that were begun here

	mu       sync.Mutex
	weather  weather
	listener net.Listener
	open     map[net.Conn]bool
	running  sync.WaitGroup
}

func newCrossing(t *testing.T, network, upstream string) *crossing {
	t.Helper()
	c := &crossing{address: "127.0.0.1:0", network: network, upstream: upstream, weather: fine, open: map[net.Conn]bool{}}
	if err := c.listen(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.mu.Lock()
		c.weather = dead
		c.leave()
		c.mu.Unlock()
		c.running.Wait()
	})
	return c
}

func (c *crossing) listen() error {
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		return err
	}
	c.listener, c.address = l, l.Addr().String()
	c.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.running.Go(func() { c.carry(conn) })
		}
	})
	return nil
}

// leave closes everything. c.mu is held.
func (c *crossing) leave() {
	if c.listener != nil {
		c.listener.Close()
		c.listener = nil
	}
	for conn := range c.open {
		conn.Close()
	}
}

// turn changes the weather, also for those who are on their way. When it gets fine, connections that have lost something break.
func (c *crossing) turn(t *testing.T, w weather) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.weather = w
	switch w {
	case dead:
		c.leave()
	case fine:
		for conn := range c.open {
			conn.Close()
		}
	}
	if w != dead && c.listener == nil {
		if err := c.listen(); err != nil {
			t.Fatal(err)
		}
	}
}

func (c *crossing) now() weather {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.weather
}

func (c *crossing) track(conn net.Conn) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open[conn] = true
	return func() {
		conn.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.open, conn)
	}
}

func (c *crossing) carry(client net.Conn) {
	defer c.track(client)()
	server, err := net.Dial(c.network, c.upstream)
	if err != nil {
		return
	}
	defer c.track(server)()
	var back sync.WaitGroup
	back.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			switch c.now() {
			case silent:
				continue
			case slow:
				<-time.After(late) // what this crossing is for
			case far:
				<-time.After(longWay)
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		c.calls.Add(int64(bytes.Count(buf[:n], []byte("POST /rpc/"))))
		if c.now() == resetting {
			if tcp, ok := client.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // so that Close is a reset
			}
			client.Close()
			break
		}
		if err != nil {
			break
		}
		if _, err := server.Write(buf[:n]); err != nil {
			break
		}
	}
	server.Close()
	back.Wait()
}

// faulty is a split shop, some of whose processes and databases are reached by crossings.
type faulty struct {
	*running
	t         *testing.T
	to        map[string]*crossing // rpc, by process
	face      map[string]*crossing // public port, by process
	cartData  *crossing
	databases map[string]string
	client    *http.Client
}

// crossData leads to a database by a crossing, and gives the URL of that.
func crossData(t *testing.T, url string) (*crossing, string) {
	t.Helper()
	at := dsnAddress.FindStringSubmatch(url)
	if at == nil {
		t.Fatal("no host and port in the URL of a database")
	}
	network, upstream := "tcp", net.JoinHostPort(at[1], at[2])
	if strings.HasPrefix(at[1], "/") {
		network, upstream = "unix", at[1]+"/.s.PGSQL."+at[2]
	}
	c := newCrossing(t, network, upstream)
	host, port, _ := net.SplitHostPort(c.address)
	return c, dsnAddress.ReplaceAllString(url, fmt.Sprintf("host='%s' port=%s", host, port))
}

var dsnAddress = regexp.MustCompile(`host='([^']*)' port=(\d+)`)

func newFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{t: t, to: map[string]*crossing{}, face: map[string]*crossing{}, databases: map[string]string{}}
	type crossed struct {
		upProcess `yaml:",inline"`
		Listen    string `yaml:"listen,omitempty"`
		RPCListen string `yaml:"rpc_listen,omitempty"`
	}
	f.running = bootAll(t, "split", nil, map[string]string{
		"ops_listen": "127.0.0.1:0", "catalog.demo_products": "30", "storefront.part_timeout": "800ms",
		"orders.lease": "3s", "orders.poll": "50ms", "orders.reply_within": "3s",
		"web.overload": "0s", // how fast this machine is, is another test's question
	}, func(all map[string]upProcess) any {
		block := map[string]crossed{}
		for name, p := range all {
			f.databases[name] = p.DatabaseURL
			c := crossed{upProcess: p}
			if slices.Contains([]string{"reviews", "catalog", "payments"}, name) {
				c.Listen, c.RPCListen = strings.TrimPrefix(p.HTTP, "http://"), strings.TrimPrefix(p.RPC, "http://")
				f.face[name], f.to[name] = newCrossing(t, "tcp", c.Listen), newCrossing(t, "tcp", c.RPCListen)
				c.HTTP, c.RPC = "http://"+f.face[name].address, "http://"+f.to[name].address
			}
			if name == "cart" {
				f.cartData, c.DatabaseURL = crossData(t, p.DatabaseURL)
			}
			block[name] = c
		}
		return block
	})
	f.client = &http.Client{Timeout: 50 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	return f
}

// turn changes the weather on both ways to a process.
func (f *faulty) turn(process string, w weather) {
	f.t.Helper()
	f.to[process].turn(f.t, w)
	f.face[process].turn(f.t, w)
}

// fetched is an answer and how long it took.
type fetched struct {
	status int
	body   []byte
	took   time.Duration
	err    error
}

func (f *faulty) get(ctx context.Context, path string) (got fetched) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL()+path, nil)
	if err != nil {
		return fetched{err: err}
	}
	began := time.Now()
	defer func() { got.took = time.Since(began) }()
	answer, err := f.client.Do(r)
	if err != nil {
		return fetched{err: err}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return fetched{status: answer.StatusCode, body: body, err: err}
}

// samples are how many requests a quantile is of, after the first warmUp: twenty of them are slower than the p99.
const samples, warmUp = 2000, 200

// compared is the p99 of what has nothing to do with a fault, under it and just before.
type compared struct{ during, before time.Duration }

func (c compared) String() string {
	return fmt.Sprintf("unrelated p99 %.1f ms, before %.1f ms: %.2f times", ms(c.during), ms(c.before), float64(c.during)/float64(c.before))
}

// compare measures again under a fault. Beside a true factor of 1.2 there is room for a busy machine, but not for a deadline of a call.
func (f *faulty) compare(what string, before time.Duration, paths ...string) compared {
	f.t.Helper()
	c := compared{f.p99(what, paths...), before}
	if c.during > before*6/5+200*time.Millisecond {
		f.t.Errorf("%s: %s", what, c)
	}
	return c
}

// p99 asks all of the paths in turn, by four clients at once; each must be answered well. Ten processes and their clients are one here:
// the garbage of them all is collected before, or a collection would decide which of two p99s is the greater.
func (f *faulty) p99(what string, paths ...string) time.Duration {
	f.t.Helper()
	runtime.GC()
	var mu sync.Mutex
	var took []time.Duration
	var asking sync.WaitGroup
	for w := range 4 {
		asking.Go(func() {
			for i := w; i < warmUp+samples; i += 4 {
				got := f.get(f.t.Context(), paths[i%len(paths)])
				if got.err != nil || got.status != http.StatusOK {
					f.t.Errorf("%s: unrelated %s: %d %.200s %v", what, paths[i%len(paths)], got.status, got.body, got.err)
				}
				if i < warmUp {
					continue
				}
				mu.Lock()
				took = append(took, got.took)
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	slices.Sort(took)
	return took[len(took)*99/100]
}

// measure is a metric that a process tells of a callee.
func (f *faulty) measure(process, name, callee string) float64 {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.hosts[process].OpsURL()+"/metrics", nil)
	if err != nil {
		f.t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		f.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n"+name+`{callee="`+callee+`"} `)
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(value, 64)
	if !found || err != nil {
		f.t.Fatalf("no metric %s of %s at %s", name, callee, process)
	}
	return n
}

// page is what product pages say of themselves.
type page struct {
	Unavailable []string
	Stale       []string
}

func (f *faulty) page(n int) (p page, got fetched) {
	f.t.Helper()
	got = f.get(f.t.Context(), "/v1/storefront/products/"+string(catalogapi.DemoProductID(n)))
	if got.err == nil && got.status == http.StatusOK {
		if err := json.Unmarshal(got.body, &p); err != nil {
			f.t.Errorf("a product page: %v: %.300s", err, got.body)
		}
	}
	return p, got
}

// grace is what a deadline may be overrun by on a busy machine; the true figure is logged.
const grace = time.Second

// TestAFaultStaysWhereItIs breaks the way to one process or database of a split shop at a time, in every way it can break.
func TestAFaultStaysWhereItIs(t *testing.T) {
	if testing.Short() {
		t.Skip("a shop of ten processes, broken many times")
	}
	f := newFaulty(t)
	product := func(n int) string { return string(catalogapi.DemoProductID(n)) }
	reviews := "/v1/products/" + product(3) + "/reviews"

	f.amplification()
	for n := 1; n <= 3; n++ { // everything is warm
		if p, got := f.page(n); got.status != http.StatusOK || len(p.Unavailable) > 0 {
			t.Fatalf("a product page before anything broke: %d %.300s %v", got.status, got.body, got.err)
		}
	}
	related := []string{"/v1/products", "/v1/products/" + product(1), "/v1/categories", "/v1/search?q=a"}
	f.p99("before", related...)
	t.Logf("nothing broken: %s", f.compare("nothing broken", f.p99("before", related...), related...)) // how far two of them are apart
	for _, w := range []weather{dead, slow, silent, resetting} {
		f.reviewsIn(w, related)
	}
	f.staleIn(dead, reviews)
	f.staleIn(silent, reviews)
	f.paymentIn(silent, related)
	f.paymentIn(resetting, related)
	for _, w := range []weather{dead, slow, silent, resetting} {
		f.cartDataIn(w, append(related, reviews))
	}
}

// amplification counts what arrives at a leaf that fails always.
func (f *faulty) amplification() {
	f.t.Helper()
	r := reviewsapi.Dial(f.Host("storefront").Dialer("storefront"))
	f.turn("reviews", resetting)
	defer f.heal("reviews")
	ask := func(n int) int64 {
		before := f.to["reviews"].calls.Load()
		for i := range n {
			if _, err := r.Summaries(f.t.Context(), reviewsapi.SummariesRequest{Products: []ids.ID{ids.ID(catalogapi.DemoProductID(1))}}); err == nil {
				f.t.Errorf("call %d of a broken leaf went well", i)
			}
		}
		return f.to["reviews"].calls.Load() - before
	}
	// The breaker would hide what retries do: first fewer calls than open it. A lone call has its second chance.
	if tries := ask(15); tries < 15 || float64(tries) > 1.1*15+1 {
		f.t.Errorf("15 calls of a failing leaf were %d tries", tries)
	}
	tries := ask(300)
	f.t.Logf("300 calls of a failing leaf were %d tries", tries)
	if tries > 150 { // an open breaker lets three a second try
		f.t.Errorf("300 calls of a failing leaf were %d tries: its breaker keeps nothing from it", tries)
	}
	if f.measure("storefront", "banyan_rpc_breaker_opens_total", "reviews") == 0 {
		f.t.Error("300 failing calls opened no breaker")
	}
}

// heal makes the weather fine and waits until who calls has noticed.
func (f *faulty) heal(process string) {
	f.t.Helper()
	f.turn(process, fine)
	shoptest.WaitFor(f.t, "the breaker to "+process+" to close", func() bool {
		p, got := f.page(1)
		return got.status == http.StatusOK && len(p.Unavailable)+len(p.Stale) == 0 && f.measure("storefront", "banyan_rpc_breaker_state", process) == 0
	})
}

// reviewsIn has product pages without reviews, and nothing else suffers.
func (f *faulty) reviewsIn(w weather, unrelated []string) {
	f.t.Helper()
	what := "reviews " + string(w)
	opens := f.measure("storefront", "banyan_rpc_breaker_opens_total", "reviews")
	before := f.p99("before", unrelated...)
	f.turn("reviews", w)
	// Those who ask for the reviews themselves hang, or are refused; nobody else is to notice.
	hanging, hangUp := context.WithCancel(f.t.Context())
	var hung sync.WaitGroup
	for range 10 {
		hung.Go(func() { f.get(hanging, "/v1/products/"+string(catalogapi.DemoProductID(3))+"/reviews") })
	}
	var longest, call time.Duration
	var pages atomic.Int64
	var mu sync.Mutex
	over := make(chan struct{})
	var looking sync.WaitGroup
	for range 8 {
		looking.Go(func() {
			for {
				p, got := f.page(1)
				pages.Add(1)
				if got.status != http.StatusOK || !slices.Equal(p.Unavailable, []string{"reviews"}) {
					f.t.Errorf("%s: a product page: %d %.300s %v", what, got.status, got.body, got.err)
				}
				mu.Lock()
				longest = max(longest, got.took)
				mu.Unlock()
				select {
				case <-over:
					return
				default:
				}
			}
		})
	}
	shoptest.WaitFor(f.t, "the breaker to open", func() bool {
		return f.measure("storefront", "banyan_rpc_breaker_opens_total", "reviews") > opens
	})
	close(over)
	looking.Wait()
	during := f.compare(what, before, unrelated...)
	// A caller whose breaker is another's: its calls wait for their deadline.
	const deadline = 500 * time.Millisecond
	r := reviewsapi.Dial(f.Host("orders").Dialer("host"))
	for range 3 {
		ctx, cancel := context.WithTimeout(f.t.Context(), deadline)
		began := time.Now()
		_, err := r.Summaries(ctx, reviewsapi.SummariesRequest{Products: []ids.ID{ids.ID(catalogapi.DemoProductID(1))}})
		call = max(call, time.Since(began))
		cancel()
		if err == nil {
			f.t.Errorf("%s: a call went well", what)
		}
	}
	hangUp()
	hung.Wait()
	f.t.Logf("%s: %s; %d pages without reviews, the longest %.0f ms with 800 ms for a part; a call with %d ms took %.0f ms",
		what, during, pages.Load(), ms(longest), deadline.Milliseconds(), ms(call))
	if longest > 800*time.Millisecond+2*grace {
		f.t.Errorf("%s: a product page took %s", what, longest)
	}
	if call > deadline+grace {
		f.t.Errorf("%s: a call with %s took %s", what, deadline, call)
	}
	f.heal("reviews")
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// staleIn shows products as they were to those who have seen them.
func (f *faulty) staleIn(w weather, unrelated string) {
	f.t.Helper()
	others := []string{unrelated, "/.well-known/jwks.json"}
	before := f.p99("before", others...)
	f.turn("catalog", w)
	p, got := f.page(2)
	if got.status != http.StatusOK || !slices.Equal(p.Stale, []string{"product"}) {
		f.t.Errorf("catalog %s: a product page seen before: %d %.300s %v", w, got.status, got.body, got.err)
	}
	if _, unseen := f.page(20); unseen.status != http.StatusServiceUnavailable && unseen.status != http.StatusGatewayTimeout {
		f.t.Errorf("catalog %s: a product page not seen before: %d %.300s %v", w, unseen.status, unseen.body, unseen.err)
	}
	during := f.compare("catalog "+string(w), before, others...)
	f.t.Logf("catalog %s: a page seen before came in %.0f ms, %s", w, ms(got.took), during)
	if got.took > 2*time.Second+800*time.Millisecond+grace {
		f.t.Errorf("catalog %s: a product page took %s", w, got.took)
	}
	f.heal("catalog")
}

// paymentIn buys something while payments can't be asked: the shopper is told to wait, or to come again, and in the end has one order
// and has paid once.
func (f *faulty) paymentIn(w weather, unrelated []string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	captures := func() (n int64) {
		if err := database(f.t, f.databases["payments"]).QueryRowContext(ctx, `SELECT count(*) FROM payments.simulator_ledger WHERE kind = 'capture'`).Scan(&n); err != nil {
			f.t.Fatal(err)
		}
		return n
	}
	var sku string
	if err := database(f.t, f.databases["catalog"]).QueryRowContext(ctx, `SELECT sku FROM catalog.levels WHERE on_hand - reserved >= 5 ORDER BY sku LIMIT 1`).Scan(&sku); err != nil {
		f.t.Fatal(err)
	}
	b := &buyer{url: f.URL(), client: f.client, header: http.Header{}, skus: []string{sku}}
	if err := inTurn(ctx, b.fill(1), b.quote); err != nil {
		f.t.Fatal(err)
	}
	captured := captures()
	before := f.p99("before", unrelated...)
	f.turn("payments", w)
	buy := entry{method: "POST", path: "/v1/checkouts", key: b.cart + "/1", body: map[string]any{
		"cart_id": b.cart, "email": "eve@example.com", "shipping_address": shipTo, "shipping_option": b.option,
		"expected_total": b.total, "payment": map[string]string{"provider": "simulator", "token": "tok_approve"},
	}}
	began := time.Now()
	first, _, err := b.once(ctx, buy)
	took := time.Since(began)
	if err != nil || first.status != http.StatusAccepted && first.status != http.StatusServiceUnavailable {
		f.t.Errorf("payments %s: the checkout: %d %s %v", w, first.status, first.raw, err)
	}
	during := f.compare("payments "+string(w), before, unrelated...)
	f.turn("payments", fine)
	back := time.Now()
	again, err := b.send(ctx, buy.method, buy.path, buy.key, buy.body) // with the same key, as a careful client does
	if err != nil || again.status/100 != 2 {
		f.t.Fatalf("payments %s, and back: %d %s %v", w, again.status, again.raw, err)
	}
	b.checkout = again.ID
	if err := b.reach("placed")(ctx); err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("payments %s: the checkout said %d after %.1f s, %s, placed %.1f s after payments was back, %d capture",
		w, first.status, took.Seconds(), during, time.Since(back).Seconds(), captures()-captured)
	if took > 3*time.Second+3*grace {
		f.t.Errorf("payments %s: the checkout was told nothing for %s", w, took)
	}
	if n := captures() - captured; n != 1 {
		f.t.Errorf("payments %s: one checkout was captured %d times", w, n)
	}
}

// cartDataIn loses carts and nothing else.
func (f *faulty) cartDataIn(w weather, unrelated []string) {
	f.t.Helper()
	make := func() fetched {
		began := time.Now()
		answer, err := f.client.Post(f.URL()+"/v1/carts", "application/json", strings.NewReader(`{"currency":"EUR"}`))
		if err != nil {
			return fetched{err: err, took: time.Since(began)}
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		return fetched{status: answer.StatusCode, body: body, err: err, took: time.Since(began)}
	}
	before := f.p99("before", unrelated...)
	f.cartData.turn(f.t, w)
	var cart fetched
	var making sync.WaitGroup
	making.Go(func() { cart = make() })
	during := f.compare("the carts' database "+string(w), before, unrelated...)
	making.Wait()
	if cart.err != nil || cart.status < 500 && w != slow {
		f.t.Errorf("the carts' database %s: a cart: %d %.300s %v", w, cart.status, cart.body, cart.err)
	}
	f.t.Logf("the carts' database %s: a cart got %d after %.1f s, %s", w, cart.status, cart.took.Seconds(), during)
	if cart.took > 15*time.Second { // a transaction has 5 s, a reader 10
		f.t.Errorf("the carts' database %s: a cart took %s", w, cart.took)
	}
	f.cartData.turn(f.t, fine)
	shoptest.WaitFor(f.t, "carts to be there again", func() bool { return make().status == http.StatusCreated })
}
