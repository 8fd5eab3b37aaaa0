// Package discovery finds the instances of a service and sends each HTTP request to a good one. A Target is an
// http.RoundTripper; whoever holds it neither knows how instances are found nor how many there are.
//
// Instances come from the target itself, from DNS or from Consul, and are looked up in the background. When a look-up fails or
// finds nothing, those known last stay. The less busy of two instances drawn at random gets a request; one that keeps failing
// gets none for a while, nor does one that says it is about to stop. A request that reached nobody is tried at the next
// instance; what becomes of one that was sent is its caller's business. So no deadlines, retries, breakers or identities here:
// those are rpc's and the gateway's.
//
// The other side is here too: Draining marks the answers of a process that is about to stop, and Register makes it known to
// Consul.
package discovery

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// IdleTimeout is how long an unused connection to an instance is kept. An instance that stops waits a little longer than that
// for its callers to close theirs (Listener.Drain), and its http.Server's IdleTimeout must be longer too: then no server ever
// closes a connection that we are about to write on. Dialling anew costs a tenth of a millisecond, and only clients that ask
// less often pay it.
const IdleTimeout = 3 * time.Second

// Options of a Target. The zero value is good.
type Options struct {
	Name     string                // in logs and metrics; default the target
	Log      *slog.Logger          // default slog.Default()
	Metrics  prometheus.Registerer // nil: counted for nobody
	Now      func() time.Time      // default time.Now
	Resolver *net.Resolver         // default net.DefaultResolver
	Interval time.Duration         // between look-ups in DNS; default 5 s, the usual life of a Kubernetes record

	Consul      string // its agent, like 127.0.0.1:8500; default CONSUL_HTTP_ADDR, else that
	ConsulToken string // default CONSUL_HTTP_TOKEN

	IdleTimeout time.Duration // default IdleTimeout
	Eject       time.Duration // first pause of an instance that keeps failing, growing with each; default 30 s, a second for one that can't be reached
	Avoid       time.Duration // how long an instance that drains is left alone; default 10 s
}

// Target is a service as its callers see it.
type Target struct {
	o      Options
	spec   spec
	url    url.URL
	source source // nil: static
	born   time.Time
	rand   func() uint64
	dialer net.Dialer

	picks atomic.Pointer[picks]
	known chan struct{} // closed when the first look-up is over
	kick  chan struct{} // asks for a look-up soon
	stop  context.CancelFunc
	done  sync.WaitGroup

	mu        sync.Mutex // serialises changes of picks, and guards what follows
	instances []*instance
	found     time.Time // of the last good look-up
	lost      error     // why the one after it failed
	closed    bool

	ejections, lookups, lookupFailures atomic.Int64
}

var _ http.RoundTripper = (*Target)(nil)

// Open follows a target: "http://a:8081,http://b:8081", "dns+http://payments:8081" (all addresses of a name),
// "srv+http://_rpc._tcp.payments.ns.svc.cluster.local" (ports, priorities and weights of SRV records) or "consul://payments"
// with or without ?tag=rpc; the first three with https as well. It fails only for what Check finds, and does not wait for the
// network: the first look-up runs in the background, and requests wait for it.
func Open(target string, o Options) (*Target, error) {
	s, err := parse(target)
	if err != nil {
		return nil, err
	}
	t := &Target{o: o, spec: s, rand: rand.Uint64, known: make(chan struct{}), kick: make(chan struct{}, 1), stop: func() {}}
	t.defaults(target)
	if t.source, err = t.newSource(); err != nil {
		return nil, err
	}
	if o.Metrics != nil {
		if err := o.Metrics.Register(t); err != nil {
			return nil, fmt.Errorf("metrics of target %s: %w", t.o.Name, err)
		}
	}
	t.picks.Store(&picks{none: errors.New("it was not looked up yet")})
	if t.source == nil {
		t.learn(s.listed, nil)
		return t, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.done.Go(func() { t.follow(ctx) })
	return t, nil
}

func (t *Target) defaults(target string) {
	o := &t.o
	if o.Name == "" {
		o.Name = target
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Interval <= 0 {
		o.Interval = 5 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = IdleTimeout
	}
	if o.Eject <= 0 {
		o.Eject = 30 * time.Second
	}
	if o.Avoid <= 0 {
		o.Avoid = 10 * time.Second
	}
	t.born = o.Now()
	t.url = url.URL{Scheme: t.spec.scheme, Host: t.spec.authority()}
	t.dialer = net.Dialer{Timeout: time.Second, KeepAlive: 15 * time.Second, Resolver: o.Resolver}
}

// URL is what requests for the target should begin with, like http://payments:8081. Its host is the service, and becomes the
// Host header; RoundTrip accepts other hosts too, and copies such a request.
func (t *Target) URL() *url.URL {
	u := t.url
	return &u
}

// RoundTrip sends a request to a good instance. One that reached no instance is tried at the next, whatever its method, as long
// as its body is unread or has GetBody; if none is left, NotSent holds for the error. Any other failure is returned as it is,
// and may have happened.
func (t *Target) RoundTrip(req *http.Request) (*http.Response, error) {
	p, now := t.picks.Load(), t.clock()
	if now >= p.until {
		p = t.renew(now)
	}
	if len(p.all) == 0 {
		var err error
		if p, err = t.await(req.Context()); err != nil {
			if req.Body != nil {
				_ = req.Body.Close()
			}
			return nil, err
		}
		now = t.clock()
	}
	in, trial := p.pick(t.rand(), now)
	out, unread := t.aim(req, len(p.all) > 1)
	res, err := t.send(in, out, now, trial)
	if err != nil && reachedNobody(err) {
		res, err = t.elsewhere(p, in, out, unread, err)
	}
	if unread != nil {
		unread.release()
	}
	if res != nil && out != req {
		res.Request = req
	}
	return res, err
}

// aim is req for our pool of connections, and unread its body if that must be saved for another try.
func (t *Target) aim(req *http.Request, retry bool) (out *http.Request, unread *unreadBody) {
	hold := retry && req.Body != nil && req.Body != http.NoBody && req.GetBody == nil
	here := req.URL.Host == t.url.Host && req.URL.Scheme == t.url.Scheme
	if here && !hold {
		return req, nil
	}
	out = new(http.Request)
	*out = *req
	if !here {
		u := *req.URL
		u.Scheme, u.Host = t.url.Scheme, t.url.Host
		out.URL = &u
		if out.Host == "" {
			out.Host = req.URL.Host
		}
	}
	if hold {
		unread = &unreadBody{ReadCloser: req.Body}
		out.Body = unread
	}
	return out, unread
}

// send tries one instance and remembers how it went.
func (t *Target) send(in *instance, req *http.Request, start int64, trial bool) (*http.Response, error) {
	in.requests.Add(1)
	in.inFlight.Add(1)
	res, err := in.transport.RoundTrip(req)
	t.settle(in, start, trial, req.Context(), res, err)
	if err != nil {
		in.inFlight.Add(-1)
		return nil, err
	}
	res.Body = in.counted(res.Body)
	return res, nil
}

// elsewhere tries the instances left over after in could not be reached.
func (t *Target) elsewhere(p *picks, in *instance, req *http.Request, unread *unreadBody, err error) (*http.Response, error) {
	tried := []*instance{in}
	for req.Context().Err() == nil {
		next := p.next(t.rand(), tried)
		if next == nil {
			break
		}
		switch {
		case unread != nil:
			if !unread.again() {
				return nil, err
			}
		case req.GetBody != nil && req.Body != nil && req.Body != http.NoBody:
			body, bodyErr := req.GetBody()
			if bodyErr != nil {
				return nil, err
			}
			again := *req
			again.Body = body
			req = &again
		}
		tried = append(tried, next)
		var res *http.Response
		if res, err = t.send(next, req, t.clock(), false); err == nil || !reachedNobody(err) {
			return res, err
		}
	}
	return nil, err
}

// await returns what the first look-up found.
func (t *Target) await(ctx context.Context) (*picks, error) {
	select {
	case <-t.known:
	case <-ctx.Done():
		return nil, &noInstance{t.o.Name, ctx.Err()}
	}
	p := t.picks.Load()
	if len(p.all) == 0 {
		return nil, &noInstance{t.o.Name, p.none}
	}
	return p, nil
}

type noInstance struct {
	name string
	err  error
}

func (e *noInstance) Error() string {
	return "no instance of " + e.name + " is known: " + e.err.Error()
}
func (e *noInstance) Unwrap() error { return e.err }

// notReached is a failed dial.
type notReached struct {
	address string
	err     error
}

func (e *notReached) Error() string { return e.address + ": " + e.err.Error() }
func (e *notReached) Unwrap() error { return e.err }

func reachedNobody(err error) bool {
	var e *notReached
	return errors.As(err, &e)
}

// NotSent says of an error of RoundTrip that no instance got anything of the request, so that nothing can have happened.
func NotSent(err error) bool {
	var e *noInstance
	return reachedNobody(err) || errors.As(err, &e)
}

// newTransport is a pool of connections to one instance. Each has its own, so that the idle connections of one that drains or
// vanishes can be closed, and requests to different instances share no lock.
func (t *Target) newTransport(e endpoint) *http.Transport {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			c, err := t.dialer.DialContext(ctx, "tcp", e.address)
			if err != nil {
				return nil, &notReached{e.address, err}
			}
			return c, nil
		},
		MaxIdleConnsPerHost: 256, // the default of 2 would open a connection for nearly every request under load
		IdleConnTimeout:     t.o.IdleTimeout,
		DisableCompression:  true,
		TLSHandshakeTimeout: time.Second,
	}
	if t.spec.scheme == "https" {
		tr.TLSClientConfig = &tls.Config{ServerName: e.server, MinVersion: tls.VersionTLS12}
	}
	return tr
}

// clock is the time since Open, in nanoseconds.
func (t *Target) clock() int64 { return int64(t.o.Now().Sub(t.born)) }

func (t *Target) at(clock int64) time.Time { return t.born.Add(time.Duration(clock)) }

// Close ends the look-ups, refuses new requests and closes idle connections; those in use close when their requests end.
func (t *Target) Close() error {
	t.stop()
	t.done.Wait()
	if t.o.Metrics != nil {
		t.o.Metrics.Unregister(t)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	for _, in := range t.instances {
		in.transport.CloseIdleConnections()
	}
	t.instances = nil
	t.publish(&picks{none: errors.New("the target is closed")})
	return nil
}
