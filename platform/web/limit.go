package web

import (
	"context"
	"math"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

// Limit is a token bucket a caller: PerSecond refills it up to Burst. The zero Limit limits nothing.
type Limit struct {
	PerSecond float64 // requests a second; 50 outside development
	Burst     int     // requests at once; 200 outside development
}

// Limiter keeps the buckets of callers.
type Limiter interface {
	// Take takes a token from the caller's bucket. An error means that nobody knows how full it is.
	Take(ctx context.Context, caller string, limit Limit) (Taken, error)
}

// Taken is what a bucket said: whether it had a token, and how many are left.
type Taken struct {
	OK   bool
	Left float64
}

// memory keeps a bucket a caller in bounded memory: it forgets the older half of them when there are too many. A forgotten
// caller starts with a full bucket, which is what a caller who was quiet has anyway.
type memory struct {
	mu         sync.Mutex
	young, old map[string]*rate.Limiter
}

const maxBuckets = 50_000

func newMemory() *memory { return &memory{young: map[string]*rate.Limiter{}} }

func (m *memory) bucket(caller string, l Limit) *rate.Limiter {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.young[caller]
	if ok {
		return b
	}
	if b, ok = m.old[caller]; !ok {
		b = rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)
	}
	if len(m.young) >= maxBuckets {
		m.old, m.young = m.young, map[string]*rate.Limiter{}
	}
	m.young[caller] = b
	return b
}

func (m *memory) Take(_ context.Context, caller string, l Limit) (Taken, error) {
	now := time.Now()
	b := m.bucket(caller, l)
	ok := b.AllowN(now, 1)
	return Taken{ok, math.Max(b.TokensAt(now), 0)}, nil
}

// callerOf is whose bucket a request draws from.
func callerOf(id auth.Identity, ip string) string {
	switch {
	case id.SignedIn():
		return "user " + string(id.User)
	case id.Key != "":
		return "key " + string(id.Key)
	}
	return "ip " + network(ip)
}

// take asks the shared buckets, and those in memory when there are no shared ones or they can't be asked. It fails only
// where guessing must not go uncounted.
func (s *Server) take(ctx context.Context, caller string, guarded bool) (Taken, error) {
	if s.config.Limiter != nil {
		t, err := s.config.Limiter.Take(ctx, caller, s.config.Limit)
		if err == nil || guarded {
			return t, err
		}
	}
	return s.limits.Take(ctx, caller, s.config.Limit)
}

// admit takes a token from the caller's bucket, or answers 429. What a gateway sends has been counted there.
func (x *exchange) admit() bool {
	l := x.server.config.Limit
	if x.vouched || l.PerSecond <= 0 {
		return true
	}
	t, err := x.server.take(x.Context(), callerOf(x.identity, x.ip), x.route != nil && x.route.Guarded)
	if err != nil {
		x.fail(errs.Unavailablef("Signing in is not possible at the moment.").Because(err))
		return false
	}
	x.limits = [...]string{strconv.Itoa(l.Burst), strconv.Itoa(int(t.Left)), strconv.Itoa(int(math.Ceil((float64(l.Burst) - t.Left) / l.PerSecond)))}
	h := x.c.Response().Header()
	h["Ratelimit-Limit"], h["Ratelimit-Remaining"], h["Ratelimit-Reset"] = x.limits[:1:1], x.limits[1:2:2], x.limits[2:3:3]
	if t.OK {
		return true
	}
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil((1-t.Left)/l.PerSecond)))))
	x.fail(errs.New(errs.RateLimited, "", "Too many requests."))
	return false
}

// maxHeaders is more than any browser or proxy sends.
const maxHeaders = 100

func tooManyHeaders(h http.Header) bool { return len(h) > maxHeaders }

// network is what one customer of a provider has: an IPv4 address, or an IPv6 /64.
func network(ip string) string {
	a, err := netip.ParseAddr(ip)
	if err != nil || a.Unmap().Is4() {
		return ip
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return ip
	}
	return p.String()
}
