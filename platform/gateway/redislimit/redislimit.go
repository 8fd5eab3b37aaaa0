// Package redislimit keeps the rate limits' buckets in Redis, for gateways that share them. It decides nothing about
// requests: platform/web asks it, and knows what to do while Redis is away. It is a package of its own because the client
// takes long to compile.
package redislimit

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/web"
)

const (
	defaultPatience = 100 * time.Millisecond // a request must not wait for its own limit
	rest            = time.Second            // after Redis gave no answer, before it is asked again
)

// take is one step in Redis, by the clock of Redis: gateways' clocks differ.
var take = redis.NewScript(script)

//go:embed take.lua
var script string

// The client writes to stderr by itself. What it says comes with the errors, too.
func init() { redis.SetLogger(silence{}) }

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// Limiter is a web.Limiter.
type Limiter struct {
	client    *redis.Client
	prefix    string
	patience  time.Duration
	restUntil atomic.Int64 // Unix nanoseconds
}

var _ web.Limiter = (*Limiter)(nil)

// Open is the limiter at an address such as redis://user:password@host:6379/0. Keys begin with the prefix. It does not
// connect yet: a gateway starts without Redis, too. patience is how long an answer may take; 0 is 100 ms.
func Open(url, prefix string, patience time.Duration) (*Limiter, error) {
	if patience <= 0 {
		patience = defaultPatience
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		// Its text quotes the address, and with it the password.
		return nil, fmt.Errorf("the address of Redis must be like redis://host:6379/0 or rediss://user:password@host:6379/0")
	}
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = patience, patience, patience, patience
	o.MaxRetries, o.DialerRetries = -1, 1 // one answer or none
	o.ContextTimeoutEnabled = true
	return &Limiter{client: redis.NewClient(o), prefix: prefix, patience: patience}, nil
}

// Close closes the connections.
func (l *Limiter) Close() error { return l.client.Close() }

// Take takes a token from the caller's bucket. The code unavailable says that Redis did not answer; for a second then
// nobody asks it, and everybody gets that answer at once.
func (l *Limiter) Take(ctx context.Context, caller string, limit web.Limit) (web.Taken, error) {
	if time.Now().UnixNano() < l.restUntil.Load() {
		return web.Taken{}, errs.Unavailablef("the shared limits are away")
	}
	// A client that hangs up says nothing about Redis.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.patience)
	defer cancel()
	answer, err := take.Run(ctx, l.client, []string{l.prefix + "limit:" + caller}, limit.PerSecond, limit.Burst).StringSlice()
	if err != nil || len(answer) != 2 {
		l.restUntil.Store(time.Now().Add(rest).UnixNano())
		return web.Taken{}, errs.Unavailablef("the shared limits are away").Because(err)
	}
	left, err := strconv.ParseFloat(answer[1], 64)
	if err != nil {
		return web.Taken{}, errs.Unavailablef("the shared limits are away").Because(err)
	}
	return web.Taken{OK: answer[0] == "1", Left: left}, nil
}
