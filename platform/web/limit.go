package web

import (
	"math"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Limit is a token bucket a caller: PerSecond refills it up to Burst. The zero Limit limits nothing.
type Limit struct {
	PerSecond float64 // requests a second; 50 outside development
	Burst     int     // requests at once; 200 outside development
}

// limiter keeps a bucket a caller in bounded memory: it forgets the older half of them when there are too many. A forgotten
// caller starts with a full bucket, which is what a caller who was quiet has anyway.
type limiter struct {
	limit      Limit
	mu         sync.Mutex
	young, old map[string]*rate.Limiter
}

const maxBuckets = 50_000

func newLimiter(l Limit) *limiter {
	if l.PerSecond <= 0 {
		return nil
	}
	l.Burst = max(l.Burst, 1)
	return &limiter{limit: l, young: map[string]*rate.Limiter{}}
}

func (l *limiter) bucket(caller string) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.young[caller]
	if ok {
		return b
	}
	if b, ok = l.old[caller]; !ok {
		b = rate.NewLimiter(rate.Limit(l.limit.PerSecond), l.limit.Burst)
	}
	if len(l.young) >= maxBuckets {
		l.old, l.young = l.young, map[string]*rate.Limiter{}
	}
	l.young[caller] = b
	return b
}

// admit takes a token from the caller's bucket, or answers 429.
func (x *exchange) admit() bool {
	l := x.server.limits
	if l == nil {
		return true
	}
	caller := "user " + string(x.identity.User)
	if !x.identity.SignedIn() {
		caller = "ip " + network(x.ip)
	}
	now := time.Now()
	b := l.bucket(caller)
	ok := b.AllowN(now, 1)
	left := math.Max(b.TokensAt(now), 0)
	h := x.c.Response().Header()
	h.Set("RateLimit-Limit", strconv.Itoa(l.limit.Burst))
	h.Set("RateLimit-Remaining", strconv.Itoa(int(left)))
	h.Set("RateLimit-Reset", strconv.Itoa(int(math.Ceil((float64(l.limit.Burst)-left)/l.limit.PerSecond))))
	if ok {
		return true
	}
	h.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil((1-left)/l.limit.PerSecond)))))
	x.fail(errs.New(errs.RateLimited, "", "Too many requests."))
	return false
}

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
