package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

// An old answer in place of none needs two to agree: the owner of a method says with StaleFor for how long its answers are
// tolerable, and a caller says with AllowStale that it can do with one, and can tell its reader.

// Stale tells a caller which has allowed it whether it was given an old answer.
type Stale struct {
	module string // who called the module that allowed it

	mu    sync.Mutex
	since time.Time
}

type staleKey struct{}

// AllowStale lets calls with the returned ctx, to methods declared with StaleFor, end in the last good answer to the same request
// for the same identity when the callee can't be reached, has no answer in time, or says unavailable. It is for this module
// alone: what the callee asks in turn is answered freshly or not at all, wherever it runs.
func AllowStale(ctx context.Context) (context.Context, *Stale) {
	s := &Stale{module: auth.From(ctx).Module}
	return context.WithValue(ctx, staleKey{}, s), s
}

// Since is when the oldest of the old answers given was fresh; zero if all were fresh.
func (s *Stale) Since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

func (s *Stale) given(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.since.IsZero() || at.Before(s.since) {
		s.since = at
	}
}

// allowedStale is the permission in ctx, nil if there is none. In a local callee's ctx the caller of AllowStale stands as the
// calling module, which it was not when it allowed: so the permission ends there, as it would at a wire.
func allowedStale(ctx context.Context) *Stale {
	s, ok := ctx.Value(staleKey{}).(*Stale)
	if !ok || s.module != auth.From(ctx).Module {
		return nil
	}
	return s
}

// callStale remembers a good answer, and falls back on one.
func (m *Method[Req, Res]) callStale(ctx context.Context, c *Conn, r Req, s *Stale) (Res, error) {
	res, err := m.call(ctx, c, r)
	if err != nil && (!errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NoAnswer) || ctx.Err() == context.Canceled) {
		return res, err
	}
	key, ok := answerKey(ctx, m.name, c.caller, r)
	if !ok {
		return res, err
	}
	if err == nil {
		if body, bad := json.Marshal(&res); bad == nil {
			c.wiring.answers.put(key, body)
		}
		return res, nil
	}
	old, ok := c.wiring.answers.get(key)
	if !ok || time.Since(old.at) > m.stale {
		return res, err
	}
	var was Res
	if json.Unmarshal(old.body, &was) != nil {
		return res, err
	}
	s.given(old.at)
	c.wiring.gaveStale(c.caller, m.name)
	return was, nil
}

// answerKey stands for all an answer may depend on: the request, and everything that the callee sees of who asks.
func answerKey(ctx context.Context, method, caller string, r any) ([sha256.Size]byte, bool) {
	request, err := json.Marshal(r)
	if err != nil {
		return [sha256.Size]byte{}, false
	}
	id := auth.From(ctx)
	text := make([]byte, 0, 256+len(request))
	add := func(s string) { text = append(binary.AppendUvarint(text, uint64(len(s))), s...) }
	for _, s := range []string{method, caller, string(id.User), string(id.Session)} {
		add(s)
	}
	for _, list := range [][]string{id.Roles, id.Scopes} {
		text = binary.AppendUvarint(text, uint64(len(list)))
		for _, s := range list {
			add(s)
		}
	}
	return sha256.Sum256(append(text, request...)), true
}

// answers are the last good ones, in two generations: when the young one is full the old one is forgotten, so memory is bounded
// and what is asked for often stays.
type answers struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]answerAt
	size       int // bytes of the young generation
}

type answerAt struct {
	body []byte // encoded, so that nobody shares a slice with it
	at   time.Time
}

const (
	maxAnswers     = 16 << 20 // bytes of both generations
	answerOverhead = 128      // of an entry in a map, about
)

func (a *answers) put(key [sha256.Size]byte, body []byte) {
	if len(body) > maxAnswers/16 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if before, ok := a.young[key]; ok {
		a.size -= len(before.body) + answerOverhead
	}
	if a.young == nil || a.size+len(body)+answerOverhead > maxAnswers/2 {
		a.old, a.young, a.size = a.young, map[[sha256.Size]byte]answerAt{}, 0
	}
	a.young[key] = answerAt{body, time.Now()}
	a.size += len(body) + answerOverhead
}

func (a *answers) get(key [sha256.Size]byte) (answerAt, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e, ok := a.young[key]; ok {
		return e, true
	}
	e, ok := a.old[key]
	return e, ok
}
