package discovery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// source is where instances are found.
type source interface {
	// find returns all instances, or fails; Consul's waits for a change. None at all is an error.
	find(ctx context.Context) ([]endpoint, error)
	// pause is the time between two of them.
	pause() time.Duration
	close()
}

func (t *Target) newSource() (source, error) {
	switch t.spec.how {
	case byHost:
		return &hostSource{t.spec.name, t.spec.port, t.o.Resolver, t.o.Interval}, nil
	case bySRV:
		return &srvSource{name: t.spec.name, resolver: t.o.Resolver, interval: t.o.Interval}, nil
	case byConsul:
		a, err := newAgent(t.o.Consul, t.o.ConsulToken)
		if err != nil {
			return nil, err
		}
		return &consulSource{agent: a, service: t.spec.name, tag: t.spec.tag}, nil
	}
	return nil, nil
}

// follow looks instances up until ctx ends.
func (t *Target) follow(ctx context.Context) {
	defer t.source.close()
	failed := 0
	for {
		found, err := t.source.find(ctx)
		if ctx.Err() != nil {
			return
		}
		t.learn(found, err)
		pause := t.source.pause()
		if err == nil {
			failed = 0
		} else {
			// At first sooner than usual, for a service that starts at the same time as we do; then ever more slowly.
			pause = min(100*time.Millisecond<<min(failed, 10), max(10*time.Second, pause))
			failed++
		}
		pause += time.Duration(rand.Int64N(int64(pause)/10 + 1)) // instances started together need not ask together
		soon := min(time.Second, pause/5)
		if !wait(ctx, soon, nil) || !wait(ctx, pause-soon, t.kick) {
			return
		}
	}
}

// wait is false when ctx ends first.
func wait(ctx context.Context, d time.Duration, kick <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
	case <-ctx.Done():
		return false
	}
	return true
}

// lookSoon asks for a look-up before its time: an instance that refuses connections may have moved.
func (t *Target) lookSoon() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// learn takes over what a look-up found. After a failure all stays as it was: a registry that is away must not stop calls
// between processes that are well.
func (t *Target) learn(found []endpoint, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lookups.Add(1)
	defer t.firstLookup()
	if err != nil {
		t.lookupFailures.Add(1)
		if t.lost == nil {
			t.o.Log.Warn("look-up failed: the last known instances stay", "target", t.o.Name, "instances", len(t.instances), "err", err)
		}
		t.lost = err
		if len(t.instances) == 0 {
			t.publish(&picks{none: err})
		}
		return
	}
	if t.lost != nil {
		t.o.Log.Info("look-up works again", "target", t.o.Name)
	}
	t.found, t.lost = t.o.Now(), nil
	t.replace(found)
}

func (t *Target) firstLookup() {
	select {
	case <-t.known:
	default:
		close(t.known)
	}
}

// replace makes found the instances, keeping those that are there already. One that is not found any more gets no new
// requests, and those under way end.
func (t *Target) replace(found []endpoint) {
	before := map[string]*instance{}
	for _, in := range t.instances {
		before[in.address] = in
	}
	after := map[string]*instance{}
	for _, e := range found {
		in, ok := before[e.address]
		if !ok {
			in = &instance{endpoint: e, transport: t.newTransport(e)}
			if t.source != nil {
				t.o.Log.Info("instance found", "target", t.o.Name, "instance", e.address)
			}
		}
		in.priority, in.weight = e.priority, e.weight
		after[e.address] = in
	}
	for address, in := range before {
		if after[address] == nil {
			in.gone = true
			in.transport.CloseIdleConnections()
			t.o.Log.Info("instance vanished", "target", t.o.Name, "instance", address)
		}
	}
	t.instances = slices.SortedFunc(maps.Values(after), func(a, b *instance) int { return strings.Compare(a.address, b.address) })
	t.renewLocked(t.clock())
}

// LastLookup says when instances were looked up with success, and why the look-up after that failed, if it did. A static target
// was looked up at Open.
func (t *Target) LastLookup() (time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.found, t.lost
}

// lookupTime bounds one look-up in DNS.
const lookupTime = 5 * time.Second

// hostSource finds one instance per address of a name, as of a Kubernetes headless service.
type hostSource struct {
	name, port string
	resolver   *net.Resolver
	interval   time.Duration
}

func (h *hostSource) find(ctx context.Context) ([]endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	ips, err := addresses(ctx, h.resolver, h.name)
	if err != nil {
		return nil, err
	}
	var list []endpoint
	for _, ip := range ips {
		list = append(list, endpoint{address: net.JoinHostPort(ip.String(), h.port), server: strings.TrimSuffix(h.name, "."), weight: 1})
	}
	return list, nil
}

func (h *hostSource) pause() time.Duration { return h.interval }
func (h *hostSource) close()               {}

// addresses of a name, of one family: an instance with both an IPv4 and an IPv6 address is one.
func addresses(ctx context.Context, r *net.Resolver, name string) ([]netip.Addr, error) {
	all, err := r.LookupNetIP(ctx, "ip", name)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	var v4, v6 []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); a.Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	if len(v4) > 0 {
		return v4, nil
	}
	return v6, nil
}

// srvSource finds what SRV records name. It looks their addresses up as well, so that no dial needs DNS, and keeps them for a
// host that can't be looked up for a while.
type srvSource struct {
	name     string
	resolver *net.Resolver
	interval time.Duration
	last     map[string][]netip.Addr // by host
}

func (s *srvSource) find(ctx context.Context) ([]endpoint, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	_, records, err := s.resolver.LookupSRV(ctx, "", "", s.name)
	if len(records) == 0 {
		return nil, fmt.Errorf("look up %s: %w", s.name, errOr(err, "no SRV records"))
	}
	seen := map[string][]netip.Addr{}
	var list []endpoint
	var bad error
	for _, r := range records {
		ips, done := seen[r.Target]
		if !done {
			if ips, err = addresses(ctx, s.resolver, r.Target); err != nil {
				ips, bad = s.last[r.Target], err
			}
			seen[r.Target] = ips
		}
		for _, ip := range ips {
			list = append(list, endpoint{
				address: net.JoinHostPort(ip.String(), strconv.Itoa(int(r.Port))), server: strings.TrimSuffix(r.Target, "."),
				priority: int(r.Priority), weight: max(1, int(r.Weight)),
			})
		}
	}
	if len(list) == 0 {
		return nil, errOr(bad, "no address behind "+s.name)
	}
	s.last = seen
	return list, nil
}

func (s *srvSource) pause() time.Duration { return s.interval }
func (s *srvSource) close()               {}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}
