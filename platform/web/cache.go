package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
)

// cache keeps answers of routes with a Cache, and lets one request fetch what many ask for at once. An answer is not told
// after its time, nor after one of its tags was invalidated, not even when it was under way at that moment.
//
// Memory is bounded by forgetting the older half of the answers: they live for seconds, so that who is used most matters
// little.
type cache struct {
	most  time.Duration             // Config.CacheFor
	facts map[string]*atomic.Uint64 // how often a tag was invalidated

	mu         sync.Mutex
	young, old map[string]*cached
	size       int // bytes of the young ones
	flights    map[string]*flight
}

const (
	maxCached = 256 << 10 // bytes of one answer
	maxCache  = 64 << 20  // bytes of all
)

// cached is an answer as it can be told to anybody.
type cached struct {
	etag, cacheControl, contentType, policy string
	body                                    []byte
	asked                                   time.Time // when it was asked for: it may be as old as that
	until                                   time.Time
	version                                 uint64
}

// flight is an answer under way. What came of it is there when done is closed.
type flight struct {
	version uint64
	done    chan struct{}
	answer  *cached // nil when there is nothing to share
	failed  bool    // the answer was a failure
	left    bool    // whoever asked has gone before the answer came
}

func newCache(most time.Duration, routes []*served) *cache {
	if most <= 0 {
		return nil
	}
	c := &cache{most: most, facts: map[string]*atomic.Uint64{}, flights: map[string]*flight{}, young: map[string]*cached{}}
	for _, rt := range routes {
		for _, tag := range rt.Cache.Tags {
			c.facts[tag] = &atomic.Uint64{}
		}
	}
	c.facts[""] = &atomic.Uint64{} // everybody's tag
	return c
}

// Invalidate forgets the cached answers of the routes with one of the tags; all, when none is named. Answers that are under
// way are not kept either.
func (s *Server) Invalidate(tags ...string) {
	if s.cache == nil {
		return
	}
	if len(tags) == 0 {
		tags = []string{""}
	}
	for _, tag := range tags {
		if n, ok := s.cache.facts[tag]; ok {
			n.Add(1)
		}
	}
}

// version differs as soon as one of the tags is invalidated.
func (c *cache) version(tags []string) uint64 {
	v := c.facts[""].Load()
	for _, tag := range tags {
		v += c.facts[tag].Load()
	}
	return v
}

func (c *cache) get(key string, version uint64, now time.Time) *cached {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.young[key]
	if !ok {
		a, ok = c.old[key]
	}
	if !ok || a.version != version || !now.Before(a.until) {
		return nil
	}
	return a
}

// join is the flight for the key, and whether the caller is the one to fetch. Nobody joins a flight from before an
// invalidation.
func (c *cache) join(key string, version uint64) (f *flight, fetch bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.flights[key]; ok && f.version == version {
		return f, false
	}
	f = &flight{version: version, done: make(chan struct{})}
	c.flights[key] = f
	return f, true
}

// land keeps what came of the flight, if anything, and lets go whoever waits for it.
func (c *cache) land(key string, f *flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	if f.answer != nil {
		if c.size += len(key) + len(f.answer.body) + 512; c.size > maxCache/2 {
			c.old, c.young, c.size = c.young, map[string]*cached{}, 0
		}
		c.young[key] = f.answer
	}
	close(f.done)
}

// cacheKey is false for a query that only the handler can refuse.
func cacheKey(r *http.Request) (string, bool) {
	var b strings.Builder
	b.WriteString(r.URL.Path)
	if r.URL.RawQuery != "" {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", false
		}
		b.WriteByte('?')
		b.WriteString(q.Encode())
	}
	switch accept := strings.Join(r.Header["Accept"], ","); accept {
	case "", "*/*", jsonType:
	default:
		b.WriteByte('\n')
		b.WriteString(accept)
	}
	return b.String(), b.Len() <= 4<<10
}

var (
	cacheHit    = []string{"hit"}
	cacheMiss   = []string{"miss"}
	cacheBypass = []string{"bypass"}
)

// recall answers from the cache, else as perform does, and keeps that for others.
func (x *exchange) recall() {
	c, r := x.server.cache, x.c.Request()
	key, ok := cacheKey(r)
	if !ok || strings.Contains(strings.ToLower(r.Header.Get("Cache-Control")), "no-cache") {
		x.c.Response().Header()["X-Cache"] = cacheBypass
		x.perform()
		return
	}
	for {
		asked, version := time.Now(), c.version(x.route.Cache.Tags)
		if a := c.get(key, version, asked); a != nil {
			x.tell(a, cacheHit)
			return
		}
		if r.Method == http.MethodHead { // has no body to keep
			x.perform()
			return
		}
		f, fetch := c.join(key, version)
		if fetch {
			x.fetch(key, f, asked)
			return
		}
		select {
		case <-f.done:
		case <-x.ctx.Done():
			x.fail(context.Canceled)
			return
		}
		switch {
		case f.answer != nil:
			x.tell(f.answer, cacheHit)
			return
		case f.failed:
			x.fail(errs.Unavailablef("Not available at the moment."))
			return
		case !f.left: // such as 404: cheap, and told to each by itself
			x.perform()
			return
		}
	}
}

// fetch performs the request into memory, shares a good answer, and tells it.
func (x *exchange) fetch(key string, f *flight, asked time.Time) {
	c, r, response := x.server.cache, x.c.Request(), x.c.Response()
	out := response.Writer
	rec := &recorder{ResponseWriter: out, header: http.Header{}}
	known, conditional := r.Header["If-None-Match"]
	delete(r.Header, "If-None-Match") // or there might be no body to keep
	response.Writer = rec
	func() {
		defer func() {
			p := recover()
			response.Writer = out
			if !rec.through {
				response.Committed, response.Size, response.Status = false, 0, http.StatusOK
			}
			f.failed, f.left = p != nil || rec.status >= http.StatusInternalServerError, rec.status == 0
			if p == nil {
				f.answer = rec.keep(asked, min(c.most, x.route.Cache.For), f.version)
			}
			c.land(key, f)
			switch {
			case p == http.ErrAbortHandler && !rec.through: // the other process broke off, and nobody has seen any of it
				rec.status = 0
				x.fail(WithStatus(http.StatusBadGateway, errs.New(errs.NoAnswer, "", "The answer broke off.")))
			case p != nil:
				panic(p)
			}
		}()
		x.perform()
	}()
	if conditional {
		r.Header["If-None-Match"] = known
	}
	switch {
	case rec.through || rec.status == 0:
	case f.answer != nil:
		x.tell(f.answer, cacheMiss)
	default:
		h := response.Header()
		for name, values := range rec.header {
			h[name] = values
		}
		response.WriteHeader(rec.status)
		_, _ = response.Write(rec.body.Bytes())
	}
}

// tell answers with what is known, or 304 to whom knows it too.
func (x *exchange) tell(a *cached, how []string) {
	h := x.c.Response().Header()
	h["X-Cache"] = how
	h["Age"] = []string{strconv.Itoa(int(time.Since(a.asked) / time.Second))}
	if a.policy != "" {
		h["Content-Security-Policy"] = []string{a.policy}
	}
	if !x.tagged(a.etag, a.cacheControl, http.StatusOK) {
		x.write(http.StatusOK, a.contentType, a.body)
	}
}

// recorder takes an answer into memory; one that is too large for that goes through to the client.
type recorder struct {
	http.ResponseWriter
	header  http.Header
	status  int
	body    bytes.Buffer
	through bool
}

func (r *recorder) Header() http.Header {
	if r.through {
		return r.ResponseWriter.Header()
	}
	return r.header
}

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) {
	if !r.through && r.body.Len()+len(p) > maxCached {
		r.through = true
		h := r.ResponseWriter.Header()
		for name, values := range r.header {
			h[name] = values
		}
		h["X-Cache"] = cacheBypass
		r.ResponseWriter.WriteHeader(r.status)
		if _, err := r.ResponseWriter.Write(r.body.Bytes()); err != nil {
			return 0, err
		}
	}
	if r.through {
		return r.ResponseWriter.Write(p)
	}
	return r.body.Write(p)
}

// Flush is for proxies, which flush what has no length.
func (r *recorder) Flush() {
	if r.through {
		_ = http.NewResponseController(r.ResponseWriter).Flush()
	}
}

// keep is what was recorded, if others may have it.
func (r *recorder) keep(asked time.Time, ttl time.Duration, version uint64) *cached {
	h := r.header
	if r.through || r.status != http.StatusOK || len(h["Set-Cookie"]) > 0 || len(h["Vary"]) > 0 || len(h["Content-Encoding"]) > 0 {
		return nil
	}
	a := &cached{
		etag: h.Get("ETag"), cacheControl: h.Get("Cache-Control"), contentType: h.Get("Content-Type"), policy: h.Get("Content-Security-Policy"),
		body: bytes.Clone(r.body.Bytes()), asked: asked, until: asked.Add(ttl), version: version,
	}
	if a.etag == "" { // so that clients need not fetch again what has not changed
		sum := sha256.Sum256(a.body)
		a.etag = `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
		a.cacheControl = revalidate[0]
	}
	return a
}
