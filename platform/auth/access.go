package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// Signer makes access tokens with one key.
type Signer struct {
	key Key
	now func() time.Time
}

// NewSigner signs with the set's current key. A nil now is time.Now.
func NewSigner(k Keys, now func() time.Time) Signer { return Signer{k.Current, orNow(now)} }

func orNow(now func() time.Time) func() time.Time {
	if now == nil {
		return time.Now
	}
	return now
}

// Access is a token for the identity's user, valid for ttl, at most MaxAccessTTL.
func (s Signer) Access(id Identity, ttl time.Duration) (string, error) {
	if id.User == "" || id.Key != "" || id.Module != "" {
		return "", errors.New("sign access token: it is for a user, not for a module, an API key or nobody")
	}
	if ttl <= 0 || ttl > MaxAccessTTL {
		return "", fmt.Errorf("sign access token: it lives up to %s, not %s", MaxAccessTTL, ttl)
	}
	return sign(s.key, typeAccess, audience, id, s.now(), ttl)
}

const (
	refreshEvery = time.Minute // the key source is asked at most this often, whatever tokens arrive
	firstEvery   = time.Second // without any key: at boot users may come a moment later
	refreshAfter = 5 * time.Minute
	maxVerified  = 10_000 // tokens of one generation of the cache
)

// Verifier checks access tokens, and API keys once it was told whom to ask. It remembers what it has checked, because a signature
// costs 69 µs and a look-up far less than one.
type Verifier struct {
	keys     *keyCache
	apiKeys  *apiKeys // nil: none are accepted
	now      func() time.Time
	mu       sync.RWMutex
	verified generations[[32]byte, verified]
	revoked  map[ids.ID]revocation
	swept    time.Time
}

type verified struct {
	identity Identity
	issued   time.Time
	until    time.Time
}

type revocation struct {
	notBefore time.Time
	forget    time.Time // no token issued before notBefore lives then
}

// NewVerifier checks tokens with the keys of the source. A nil now is time.Now.
func NewVerifier(source KeySource, now func() time.Time) *Verifier {
	now = orNow(now)
	v := &Verifier{now: now, verified: newGenerations[[32]byte, verified](maxVerified), revoked: map[ids.ID]revocation{}}
	v.keys = &keyCache{source: source, now: now, changed: v.forget, took: v.took}
	return v
}

// Run fetches keys and recent revocations now and every minute until ctx ends, so that no request waits for them and a
// revocation whose news was lost is known within about a minute. Start it when the source answers, in users' own process after
// users has started.
func (v *Verifier) Run(ctx context.Context) {
	for {
		v.keys.refresh(ctx)
		wait := refreshEvery + time.Second // never too early for the limit of once a minute
		if !v.keys.known() {
			wait = firstEvery
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Verify is the identity a token or an API key stands for. Codes: token_expired, token_invalid; unavailable when it can't be
// checked.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if strings.HasPrefix(token, apiKeyPrefix) {
		return v.verifyAPIKey(ctx, token)
	}
	now := v.now()
	if err := v.keys.refreshIfOld(ctx); err != nil {
		return Identity{}, err
	}
	hash := sha256.Sum256([]byte(token))
	v.mu.RLock()
	seen, ok := v.verified.peek(hash)
	revoked := v.isRevoked(seen.identity.User, seen.issued)
	v.mu.RUnlock()
	if ok && now.Before(seen.until) {
		if revoked {
			return Identity{}, invalid(errors.New("revoked"))
		}
		return seen.identity, nil
	}

	c, err := v.keys.parse(ctx, token, typeAccess, audience, MaxAccessTTL)
	if err != nil {
		return Identity{}, err
	}
	if c.Module != "" || c.Key != "" {
		return Identity{}, invalid(errors.New("an access token names a module or an API key"))
	}
	seen = verified{c.identity(), time.UnixMilli(c.IssuedMilli), c.Expires.Time}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.isRevoked(seen.identity.User, seen.issued) {
		return Identity{}, invalid(errors.New("revoked"))
	}
	v.verified.put(hash, seen)
	return seen.identity, nil
}

// Revoke refuses the user's tokens issued before notBefore from now on, and asks anew about the user's API keys. To hear it
// twice, or late, does no harm.
func (v *Verifier) Revoke(user ids.ID, notBefore time.Time) { v.revoke(user, notBefore) }

func (v *Verifier) revoke(id ids.ID, notBefore time.Time) {
	now := v.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	if old, ok := v.revoked[id]; !ok || old.notBefore.Before(notBefore) {
		v.revoked[id] = revocation{notBefore, notBefore.Add(MaxAccessTTL + 2*leeway)}
	}
	if now.Sub(v.swept) < time.Minute {
		return
	}
	v.swept = now
	for i, r := range v.revoked {
		if r.forget.Before(now) {
			delete(v.revoked, i)
		}
	}
}

func (v *Verifier) isRevoked(id ids.ID, issued time.Time) bool {
	r, ok := v.revoked[id]
	return ok && issued.Before(r.notBefore)
}

// took learns who was logged out while this process was away or the news was lost.
func (v *Verifier) took(set JWKS) {
	for _, e := range set.Ended {
		v.Revoke(e.User, e.NotBefore)
	}
}

func (v *Verifier) forget() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verified = newGenerations[[32]byte, verified](maxVerified)
}

// keyCache holds a source's keys by id.
type keyCache struct {
	source  KeySource
	now     func() time.Time
	changed func()     // called when a key has gone
	took    func(JWKS) // called with every set fetched

	refreshing sync.Mutex // one caller asks, the others go on with what is there
	mu         sync.RWMutex
	keys       map[string]ed25519.PublicKey
	asked      time.Time // the last try, so that failures do not repeat at once either
	fresh      time.Time // the last success
}

// parse checks a token, asking for fresh keys when it names one that is not known and nobody asked within a minute.
func (k *keyCache) parse(ctx context.Context, token, typ, audience string, maxTTL time.Duration) (*claims, error) {
	c, err := parse(token, typ, audience, maxTTL, k.now, k.key)
	if errors.Is(err, errUnknownKey) && k.refresh(ctx) {
		c, err = parse(token, typ, audience, maxTTL, k.now, k.key)
	}
	return c, err
}

func (k *keyCache) known() bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.keys != nil
}

func (k *keyCache) key(kid string) (ed25519.PublicKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	p, ok := k.keys[kid]
	return p, ok
}

// refreshIfOld asks again after five minutes and goes on with the old keys when that fails: a partition must not sign
// everybody out.
func (k *keyCache) refreshIfOld(ctx context.Context) error {
	k.mu.RLock()
	have, old := k.keys != nil, k.now().Sub(k.fresh) > refreshAfter
	k.mu.RUnlock()
	if have && !old {
		return nil
	}
	k.refresh(ctx)
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.keys == nil {
		return errs.Unavailablef("tokens can't be checked at the moment")
	}
	return nil
}

// refresh asks the source unless somebody did within the last minute, and says whether there are fresh keys.
func (k *keyCache) refresh(ctx context.Context) bool {
	k.mu.RLock()
	first := k.keys == nil
	k.mu.RUnlock()
	if first {
		k.refreshing.Lock() // without any key there is nothing to go on with
	} else if !k.refreshing.TryLock() {
		return false
	}
	defer k.refreshing.Unlock()

	now := k.now()
	k.mu.Lock()
	wait := refreshEvery
	if k.keys == nil {
		wait = firstEvery
	}
	if now.Sub(k.asked) < wait && !k.asked.IsZero() {
		had := k.keys != nil && first
		k.mu.Unlock()
		return had
	}
	k.asked = now
	k.mu.Unlock()

	// Its own deadline: one impatient client must not use up the minute's only try.
	ctx, cancel := context.WithTimeout(urgency.Own(context.WithoutCancel(ctx)), 5*time.Second)
	defer cancel()
	set, err := k.source(ctx)
	if err != nil {
		return false
	}
	keys, err := set.public()
	if err != nil || len(keys) == 0 {
		return false
	}
	if k.took != nil {
		k.took(set) // before anybody verifies with the keys
	}
	k.mu.Lock()
	gone := false
	for kid := range k.keys {
		_, still := keys[kid]
		gone = gone || !still
	}
	k.keys, k.fresh = keys, now
	k.mu.Unlock()
	if gone && k.changed != nil {
		k.changed()
	}
	return true
}

// generations is a map bounded by forgetting its older half: what is used again moves to the younger one.
type generations[K comparable, V any] struct {
	limit      int
	young, old map[K]V
}

func newGenerations[K comparable, V any](limit int) generations[K, V] {
	return generations[K, V]{limit: limit, young: map[K]V{}}
}

func (g *generations[K, V]) peek(k K) (V, bool) {
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if len(g.young) >= g.limit {
		g.old, g.young = g.young, map[K]V{}
	}
	g.young[k] = v
}

func (g *generations[K, V]) drop(k K) {
	delete(g.young, k)
	delete(g.old, k)
}
