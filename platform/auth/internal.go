package auth

import (
	"context"
	"crypto/sha256"
	"errors"
	"strings"
	"sync"
	"time"
)

// Gateway is the caller in the tokens of public requests that a gateway forwards: who sent the request, a guest if nobody, and
// which module may accept it. It is not the name of a module.
const Gateway = "gateway"

// Internal makes and checks the tokens that modules in different processes show each other: who calls, for whom, and which
// module may accept it. A process has one, with the key of its name; peers are the public keys of all processes.
type Internal struct {
	key    Key
	peers  *keyCache
	now    func() time.Time
	mu     sync.Mutex
	issued generations[string, issuedToken]
	seen   generations[[32]byte, verified]
}

type issuedToken struct {
	token string
	until time.Time
}

const (
	internalTTL   = 50 * time.Second // below MaxInternalTTL, for clocks that differ
	internalSpare = 10 * time.Second // a token is not handed out for its last moments
	maxIssued     = 10_000
)

// NewInternal makes and checks internal tokens with a key, in a shop its InternalKey. peers are further keys to accept, nil for
// none.
func NewInternal(key Key, peers KeySource, now func() time.Time) *Internal {
	var own JWKS
	if !key.IsZero() {
		own.Keys = []JWK{key.Public()}
	}
	source := func(ctx context.Context) (JWKS, error) {
		if peers == nil {
			return own, nil
		}
		set, err := peers(ctx)
		return Merge(own, set), err
	}
	now = orNow(now)
	i := &Internal{key: key, now: now, issued: newGenerations[string, issuedToken](maxIssued)}
	i.forget()
	i.peers = &keyCache{source: source, now: now, changed: i.forget}
	return i
}

func (i *Internal) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen = newGenerations[[32]byte, verified](maxVerified)
}

// IssueInternal is a token with which caller acts at callee for the identity. It is reused until shortly before it expires.
func (i *Internal) IssueInternal(caller, callee string, id Identity) (string, error) {
	if caller == "" || callee == "" {
		return "", errors.New("sign internal token: it needs a caller and a callee")
	}
	if id.User != "" && id.Key != "" {
		return "", errors.New("sign internal token: it is for a user or for an API key, not for both")
	}
	now := i.now()
	cacheKey := strings.Join([]string{caller, callee, string(id.User), string(id.Key), string(id.Session),
		strings.Join(id.Roles, "\x01"), strings.Join(id.Scopes, "\x01")}, "\x00")
	i.mu.Lock()
	t, ok := i.issued.peek(cacheKey)
	i.mu.Unlock()
	if ok && now.Before(t.until) {
		return t.token, nil
	}
	id.Module = caller
	token, err := sign(i.key, typeInternal, callee, id, now, internalTTL)
	if err != nil {
		return "", err
	}
	i.mu.Lock()
	i.issued.put(cacheKey, issuedToken{token, now.Add(internalTTL - internalSpare)})
	i.mu.Unlock()
	return token, nil
}

// VerifyInternal is the identity of a call to callee: its Module is the caller. Codes: token_expired, token_invalid;
// unavailable when no keys can be had.
func (i *Internal) VerifyInternal(ctx context.Context, token, callee string) (Identity, error) {
	if err := i.peers.refreshIfOld(ctx); err != nil {
		return Identity{}, err
	}
	hash := sha256.Sum256([]byte(callee + "\x00" + token))
	i.mu.Lock()
	seen, ok := i.seen.peek(hash)
	i.mu.Unlock()
	if ok && i.now().Before(seen.until) {
		return seen.identity, nil
	}
	c, err := i.peers.parse(ctx, token, typeInternal, callee, MaxInternalTTL)
	if err != nil {
		return Identity{}, err
	}
	if c.Module == "" || callee == "" {
		return Identity{}, invalid(errors.New("an internal token names no module"))
	}
	if c.Subject != "" && c.Key != "" {
		return Identity{}, invalid(errors.New("an internal token is for a user and for an API key"))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen.put(hash, verified{c.identity(), c.Issued.Time, c.Expires.Time})
	return c.identity(), nil
}

// VerifyForwarded is who sent a public request that the gateway forwarded to callee: a user, an API key or a guest, and no
// module. A token between modules is refused. Codes as VerifyInternal's.
func (i *Internal) VerifyForwarded(ctx context.Context, token, callee string) (Identity, error) {
	id, err := i.VerifyInternal(ctx, token, callee)
	if err == nil && id.Module != Gateway {
		err = invalid(errors.New("a module's token where the gateway's belongs"))
	}
	if err != nil {
		return Identity{}, err
	}
	id.Module = ""
	return id, nil
}
