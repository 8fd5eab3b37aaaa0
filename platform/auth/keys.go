package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
)

const purposeSigningKeys = "signing-keys"

// Key is an Ed25519 key pair with the id that tokens name it by. Its private half leaves the process only sealed.
type Key struct {
	ID      string
	private ed25519.PrivateKey
}

// NewKey makes a key pair. Its id is the RFC 7638 thumbprint of the public half, so a key can't be published under
// another one's id.
func NewKey() (Key, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, fmt.Errorf("make a signing key: %w", err)
	}
	return Key{thumbprint(public), private}, nil
}

// InternalKey is the key that all processes of a shop sign internal tokens with: it follows from the secret they share, so they
// know it without asking each other. It is no key without a secret.
func InternalKey(secret Secret) Key {
	if secret.IsZero() {
		return Key{} // else everybody could work it out
	}
	private := ed25519.NewKeyFromSeed(secret.Derive("internal tokens"))
	return Key{thumbprint(private.Public().(ed25519.PublicKey)), private}
}

// Public is the key as published.
func (k Key) Public() JWK {
	return JWK{Kty: "OKP", Crv: "Ed25519", Use: "sig", Alg: "EdDSA", Kid: k.ID,
		X: base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))}
}

// IsZero says whether there is no key.
func (k Key) IsZero() bool { return k.private == nil }

// String names the key and hides it.
func (k Key) String() string { return "key " + k.ID }

// GoString is String, so that %#v shows no private half.
func (k Key) GoString() string { return k.String() }

// SealKey is the key encrypted for storing.
func SealKey(s Secret, k Key) []byte { return s.Encrypt(purposeSigningKeys, k.private.Seed()) }

// OpenKey reads a key that SealKey sealed with the same secret.
func OpenKey(s Secret, sealed []byte) (Key, error) {
	seed, ok := s.Decrypt(purposeSigningKeys, sealed)
	if !ok || len(seed) != ed25519.SeedSize {
		return Key{}, errors.New("a signing key was sealed with another secret: set SHOP_SECRET to the one it was made with")
	}
	private := ed25519.NewKeyFromSeed(seed)
	return Key{thumbprint(private.Public().(ed25519.PublicKey)), private}, nil
}

func thumbprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(public) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Keys is the signing keys that live at one time. Next is published before it signs, so that every verifier knows it by
// then; the retiring keys are published until the last token they signed has expired.
type Keys struct {
	Next, Current Key
	Retiring      []RetiringKey
}

// RetiringKey signs no more.
type RetiringKey struct {
	Key   Key
	Until time.Time // when its last token has expired
}

// NewKeys is a first set.
func NewKeys() (Keys, error) {
	current, err := NewKey()
	if err != nil {
		return Keys{}, err
	}
	next, err := NewKey()
	return Keys{Next: next, Current: current}, err
}

// Rotate makes the next key the current one and a fresh one the next. Leave at least RotateAfter between two rotations.
func (k Keys) Rotate(now time.Time) (Keys, error) {
	fresh, err := NewKey()
	if err != nil {
		return Keys{}, err
	}
	r := Keys{Next: fresh, Current: k.Next, Retiring: []RetiringKey{{k.Current, now.Add(RotateAfter)}}}
	for _, old := range k.Retiring {
		if old.Until.After(now) {
			r.Retiring = append(r.Retiring, old)
		}
	}
	return r, nil
}

// RotateAfter is how long a key stays published after its last signature, and the shortest time between rotations: longer
// than a token lives, its leeway and the verifiers' cache.
const RotateAfter = MaxAccessTTL + leeway + 2*refreshEvery

// JWKS is the public halves, current first.
func (k Keys) JWKS() JWKS {
	set := JWKS{Keys: []JWK{}}
	for _, key := range append([]Key{k.Current, k.Next}, retired(k.Retiring)...) {
		if !key.IsZero() {
			set.Keys = append(set.Keys, key.Public())
		}
	}
	return set
}

func retired(rs []RetiringKey) (keys []Key) {
	for _, r := range rs {
		keys = append(keys, r.Key)
	}
	return keys
}

// JWKS is a set of public keys as published at /.well-known/jwks.json.
type JWKS struct {
	Keys []JWK `json:"keys"`
	// Ended are the users who were logged out while tokens of theirs were alive. It goes from users to the verifiers of the
	// shop and is never published.
	Ended []Ended `json:"-"`
}

// Ended says that a user's tokens issued before a time are void.
type Ended struct {
	User      ids.ID    `json:"user"`
	NotBefore time.Time `json:"not_before"`
}

// JWK is one public key (RFC 8037).
type JWK struct {
	Kty string `json:"kty"`
	Crv string `json:"crv"`
	Use string `json:"use,omitempty"`
	Alg string `json:"alg,omitempty"`
	Kid string `json:"kid"`
	X   string `json:"x"`
}

// ParseJWKS reads a published set. Keys of other kinds are left out; one whose id is not its thumbprint is refused.
func ParseJWKS(data []byte) (JWKS, error) {
	var set JWKS
	if err := json.Unmarshal(data, &set); err != nil {
		return JWKS{}, fmt.Errorf("read key set: %w", err)
	}
	_, err := set.public()
	return set, err
}

// Merge is the keys of several sets.
func Merge(sets ...JWKS) JWKS {
	all := JWKS{Keys: []JWK{}}
	for _, s := range sets {
		all.Keys, all.Ended = append(all.Keys, s.Keys...), append(all.Ended, s.Ended...)
	}
	return all
}

// public is the usable keys by id.
func (s JWKS) public() (map[string]ed25519.PublicKey, error) {
	keys := make(map[string]ed25519.PublicKey, len(s.Keys))
	for _, k := range s.Keys {
		if k.Kty != "OKP" || k.Crv != "Ed25519" {
			continue
		}
		x, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
		if err != nil || len(x) != ed25519.PublicKeySize || thumbprint(x) != k.Kid {
			return nil, errors.New("a published key is malformed or has another key's id")
		}
		keys[k.Kid] = x
	}
	return keys, nil
}

// check says what is wrong with a set that nobody can work with.
func (s JWKS) check() error {
	keys, err := s.public()
	if err == nil && len(keys) == 0 {
		err = errors.New("a key set holds no key")
	}
	return err
}

// KeySource fetches the public keys in force, from this process or from the one that owns users.
type KeySource func(ctx context.Context) (JWKS, error)
