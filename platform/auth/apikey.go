package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/urgency"
)

const (
	apiKeyPrefix   = "byk_" // for people, and for programs that look for secrets where none belong
	apiKeyAlphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	apiKeyBytes    = 25                     // of chance, 40 characters
	apiKeyLength   = len(apiKeyPrefix) + 40 // of the whole key
	apiKeyShown    = len(apiKeyPrefix) + 8  // tells keys apart and leaves 160 bits to guess
	apiKeyFresh    = time.Minute            // an answer is taken for that long without asking again
	apiKeyKept     = MaxAccessTTL           // and for that long if there is nobody to ask: as long as a token would last
	apiKeyRetry    = 5 * time.Second        // between two tries to ask about a key that is known
	apiKeyPatience = 5 * time.Second        // for one answer
	maxAPIKeys     = 10_000                 // known ones of one generation, and as many unknown ones
	strangeRate    = rate.Limit(20)         // questions a second about keys this process does not know
	strangeBurst   = 100
)

// NewAPIKey is a fresh key: byk_ and 200 bits of chance. It is shown once; only its hash is kept.
func NewAPIKey() string {
	b := make([]byte, apiKeyBytes)
	rand.Read(b) // never fails: the runtime ends the process instead
	return apiKeyPrefix + base32.NewEncoding(apiKeyAlphabet).EncodeToString(b)
}

// HashAPIKey is what a key is stored and looked up by. The key has enough chance of its own, so a plain hash can't be searched
// back, and a look-up by it tells nothing by its time.
func HashAPIKey(key string) string {
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// APIKeyPrefix is the part of a key that may be shown.
func APIKeyPrefix(key string) string { return key[:min(len(key), apiKeyShown)] }

func validAPIKey(key string) bool {
	if len(key) != apiKeyLength {
		return false
	}
	for i := len(apiKeyPrefix); i < len(key); i++ {
		if strings.IndexByte(apiKeyAlphabet, key[i]) < 0 {
			return false
		}
	}
	return true
}

// APIKey is what an API key stands for.
type APIKey struct {
	ID      ids.ID
	Owner   ids.ID    // the user who made it
	Scopes  []string  // what it may do at the moment
	Expires time.Time // zero: never
}

// APIKeyVerifier asks whoever keeps the API keys about one, by its hash. errs.NotFound says that it is none, or none any more;
// any other error says that it can't be told now.
type APIKeyVerifier func(ctx context.Context, hash string) (APIKey, error)

// apiKeys is what a verifier knows of API keys. The maps are guarded by the verifier's mutex.
type apiKeys struct {
	ask     APIKeyVerifier
	strange *rate.Limiter
	asking  singleflight.Group
	known   generations[string, knownKey]
	unknown generations[string, time.Time] // until when it is taken as unknown
}

type knownKey struct {
	APIKey
	asked time.Time // when the answer was asked for
	again time.Time // when to ask again
}

func (k knownKey) identity() Identity { return Identity{Key: k.ID, Scopes: k.Scopes} }

// AcceptAPIKeys makes Verify take API keys as well, and ask about them at most once a minute each. A flood of made-up keys asks
// at most 20 times a second. Call it before the first Verify.
func (v *Verifier) AcceptAPIKeys(ask APIKeyVerifier) {
	v.apiKeys = &apiKeys{
		ask: ask, strange: rate.NewLimiter(strangeRate, strangeBurst),
		known: newGenerations[string, knownKey](maxAPIKeys), unknown: newGenerations[string, time.Time](maxAPIKeys),
	}
}

// RevokeAPIKey refuses the key from now on, also if an answer about it is on its way. To hear it twice does no harm.
func (v *Verifier) RevokeAPIKey(id ids.ID) {
	v.revoke(id, v.now().Add(apiKeyKept)) // ids of keys do not come back, so this needs no common clock
}

func (v *Verifier) verifyAPIKey(ctx context.Context, key string) (Identity, error) {
	a := v.apiKeys
	if a == nil || !validAPIKey(key) {
		return Identity{}, invalid(nil)
	}
	hash, now := HashAPIKey(key), v.now()
	v.mu.RLock()
	k, ok := a.known.peek(hash)
	alive := ok && v.isAlive(k, now)
	none, refused := a.unknown.peek(hash)
	v.mu.RUnlock()
	switch {
	case alive && (now.Before(k.again) || !v.claim(hash, now)):
		return k.identity(), nil
	case !alive && refused && now.Before(none):
		return Identity{}, invalid(errors.New("unknown API key"))
	}
	fresh, err := v.askAPIKey(ctx, hash, alive)
	switch {
	case err == nil:
		return fresh.identity(), nil
	case errs.Is(err, errs.NotFound):
		return Identity{}, invalid(err)
	case alive: // a partition must not turn every integration away
		return k.identity(), nil
	}
	return Identity{}, errs.Unavailablef("API keys can't be checked at the moment").Because(err)
}

// isAlive says whether an answer may still be used. v.mu is held.
func (v *Verifier) isAlive(k knownKey, now time.Time) bool {
	return now.Sub(k.asked) < apiKeyKept && (k.Expires.IsZero() || now.Before(k.Expires)) &&
		!v.isRevoked(k.ID, k.asked) && !v.isRevoked(k.Owner, k.asked)
}

// claim makes the caller the one who asks again about a known key; the others go on with what is known.
func (v *Verifier) claim(hash string, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	k, ok := v.apiKeys.known.peek(hash)
	if ok && now.Before(k.again) {
		return false
	}
	if ok {
		k.again = now.Add(apiKeyRetry)
		v.apiKeys.known.put(hash, k)
	}
	return true
}

// askAPIKey asks once however many wait for the answer.
func (v *Verifier) askAPIKey(ctx context.Context, hash string, known bool) (knownKey, error) {
	a := v.apiKeys
	got, err, _ := a.asking.Do(hash, func() (any, error) {
		asked := v.now()
		if !known && !a.strange.AllowN(asked, 1) {
			return knownKey{}, errors.New("too many unknown API keys")
		}
		// One impatient client must not spoil the answer for the others.
		until, ok := ctx.Deadline()
		if latest := time.Now().Add(apiKeyPatience); !ok || latest.Before(until) {
			until = latest
		}
		ctx, cancel := context.WithDeadline(urgency.Own(context.WithoutCancel(ctx)), until)
		defer cancel()
		k, err := a.ask(ctx, hash)
		if err == nil && k.ID == "" {
			err = errors.New("an API key without an id")
		}

		v.mu.Lock()
		defer v.mu.Unlock()
		if err == nil && v.isRevoked(k.ID, asked) {
			err = errs.NotFoundf("the API key was revoked")
		}
		if errs.Is(err, errs.NotFound) {
			a.known.drop(hash)
			a.unknown.put(hash, asked.Add(apiKeyFresh))
		}
		if err != nil {
			return knownKey{}, err
		}
		if r := v.revoked[k.Owner]; asked.Before(r.notBefore) {
			asked = r.notBefore // by a clock ahead of ours: this answer is younger than that news all the same
		}
		fresh := knownKey{k, asked, asked.Add(apiKeyFresh)}
		a.known.put(hash, fresh)
		return fresh, nil
	})
	return got.(knownKey), err
}
