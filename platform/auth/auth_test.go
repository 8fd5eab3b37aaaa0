package auth_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

var ann = auth.Identity{User: "usr_ann", Session: "ses_1", Roles: []string{"customer"}, Scopes: []string{"orders:read", "catalog:write"}}

// bundle is an issuer and a verifier that share a clock.
type bundle struct {
	now     atomic.Int64
	mu      sync.Mutex
	keys    auth.Keys
	fetched int
	broken  error
	ended   []auth.Ended
	trusted auth.JWKS // of setupForge
	*auth.Verifier
}

func setup(t testing.TB) *bundle {
	t.Helper()
	keys, err := auth.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle{keys: keys}
	b.now.Store(time.Date(2026, 11, 1, 12, 0, 0, 500e6, time.UTC).UnixNano())
	b.Verifier = auth.NewVerifier(b.source, b.clock)
	return b
}

func (b *bundle) clock() time.Time     { return time.Unix(0, b.now.Load()) }
func (b *bundle) pass(d time.Duration) { b.now.Add(int64(d)) }
func (b *bundle) signer() auth.Signer  { return auth.NewSigner(b.keys, b.clock) }
func (b *bundle) fail(err error)       { b.mu.Lock(); b.broken = err; b.mu.Unlock() }
func (b *bundle) fetches() int         { b.mu.Lock(); defer b.mu.Unlock(); return b.fetched }
func (b *bundle) set(k auth.Keys)      { b.mu.Lock(); b.keys = k; b.mu.Unlock() }

func (b *bundle) source(ctx context.Context) (auth.JWKS, error) {
	if urgency.Of(ctx) != nil {
		return auth.JWKS{}, errors.New("asked for one customer, who may be turned away, in place of all")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fetched++
	set := b.keys.JWKS()
	set.Ended = b.ended
	return set, b.broken
}

func (b *bundle) token(t testing.TB) string {
	t.Helper()
	text, err := b.signer().Access(ann, auth.MaxAccessTTL)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (b *bundle) code(token string) string {
	_, err := b.Verify(urgency.With(context.Background(), &urgency.Request{}), token)
	return errs.CodeOf(err)
}

func TestAnAccessTokenCarriesTheIdentity(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := b.token(t)
	for range 2 { // checked, then remembered
		got, err := b.Verify(t.Context(), token)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(ann, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	b.pass(auth.MaxAccessTTL + 29*time.Second)
	if got := b.code(token); got != "" {
		t.Errorf("within the leeway: %s", got)
	}
	b.pass(2 * time.Second)
	if got := b.code(token); got != "token_expired" {
		t.Errorf("after the leeway: %q", got)
	}
}

func TestTheSignerRefuses(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, try := range map[string]func() (string, error){
		"nobody": func() (string, error) { return b.signer().Access(auth.Identity{}, time.Minute) },
		"a module": func() (string, error) {
			return b.signer().Access(auth.Identity{User: "usr_a", Module: "orders"}, time.Minute)
		},
		"too long": func() (string, error) { return b.signer().Access(ann, auth.MaxAccessTTL+1) },
		"no time":  func() (string, error) { return b.signer().Access(ann, 0) },
		"no key":   func() (string, error) { return auth.NewSigner(auth.Keys{}, nil).Access(ann, time.Minute) },
		"too large": func() (string, error) {
			return b.signer().Access(auth.Identity{User: "usr_a", Roles: []string{strings.Repeat("a", 9000)}}, time.Minute)
		},
	} {
		if token, err := try(); err == nil || token != "" {
			t.Errorf("%s: got a token", name)
		}
	}
}

// forge signs any header and claims with a key that the verifier trusts, so that each refusal has one reason.
type forge struct {
	private  ed25519.PrivateKey
	kid      string
	now      time.Time
	typ, aud string
	mod      string // "" for none
}

func part(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func (f forge) header() map[string]any {
	return map[string]any{"alg": "EdDSA", "typ": f.typ, "kid": f.kid}
}

func (f forge) claims() map[string]any {
	c := map[string]any{"iss": "banyan", "aud": f.aud, "sub": "usr_ann", "jti": "tok_1", "iat": f.now.Unix(), "nbf": f.now.Unix(),
		"iat_ms": f.now.UnixMilli(), "exp": f.now.Add(time.Minute).Unix()}
	if f.mod != "" {
		c["mod"] = f.mod
	}
	return c
}

func with(base map[string]any, name string, value any) map[string]any {
	if value == nil {
		delete(base, name)
	} else {
		base[name] = value
	}
	return base
}

func (f forge) claim(name string, value any) string {
	return f.sign(f.header(), with(f.claims(), name, value))
}

func (f forge) sign(header, claims any) string {
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(f.private, []byte(text)))
}

func setupForge(t testing.TB) (*bundle, forge) {
	t.Helper()
	b := setup(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	kid := base64.RawURLEncoding.EncodeToString(sum[:])
	b.trusted = auth.JWKS{Keys: []auth.JWK{{Kty: "OKP", Crv: "Ed25519", Kid: kid, X: x}, {Kty: "RSA", Kid: "r"}}}
	b.Verifier = auth.NewVerifier(func(context.Context) (auth.JWKS, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.fetched++
		return b.trusted, nil
	}, b.clock)
	return b, forge{private: private, kid: kid, now: b.clock(), typ: "at+jwt", aud: "shop"}
}

func hostile(f forge) map[string]string {
	header := func(name string, value any) string { return f.sign(with(f.header(), name, value), f.claims()) }
	claim := f.claim
	public := f.private.Public().(ed25519.PublicKey)
	hs := func(secret []byte) string {
		text := part(with(f.header(), "alg", "HS256")) + "." + part(f.claims())
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	good := f.sign(f.header(), f.claims())
	parts := strings.Split(good, ".")
	_, other, _ := ed25519.GenerateKey(nil)
	stranger := f
	stranger.private = other
	dots := strings.Repeat(".", 1<<20)
	at := func(d time.Duration) int64 { return f.now.Add(d).Unix() }

	tokens := map[string]string{
		"empty": "", "word": "x", "one dot": "a.b", "two dots": "..", "three dots": good + ".", "a megabyte of dots": dots,
		"a megabyte of signature": good + strings.Repeat("A", 1<<20), "leading space": " " + good, "line end": good + "\n", "line end inside": good[:20] + "\n" + good[20:],
		"padded": good + "=", "Bearer twice": "Bearer " + good,
		"alg none":                part(with(f.header(), "alg", "none")) + "." + parts[1] + ".",
		"alg None":                part(with(f.header(), "alg", "None")) + "." + parts[1] + ".",
		"alg none with signature": header("alg", "none"),
		"alg missing":             header("alg", nil),
		"alg lower case":          header("alg", "eddsa"),
		"alg list":                header("alg", []string{"EdDSA"}),
		"alg RS256":               header("alg", "RS256"),
		"HS256 by the public key": hs(public),
		"HS256 by its base64":     hs([]byte(base64.RawURLEncoding.EncodeToString(public))),
		"HS256 by nothing":        hs(nil),
		"jku":                     header("jku", "https://evil.example/jwks.json"),
		"jwk":                     header("jwk", map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public)}),
		"x5u":                     header("x5u", "https://evil.example/cert"),
		"x5c":                     header("x5c", []string{"MIIB"}),
		"crit":                    header("crit", []string{"exp"}),
		"crit unknown":            header("crit", []string{"made-up"}),
		"zip":                     header("zip", "DEF"),
		"b64":                     header("b64", false),
		"kid missing":             header("kid", nil),
		"kid empty":               header("kid", ""),
		"kid unknown":             header("kid", "nobody"),
		"kid number":              header("kid", 1),
		"kid path":                header("kid", "../../../../dev/null"),
		"kid SQL":                 header("kid", "x' UNION SELECT 'key"),
		"kid address":             header("kid", "https://evil.example/key"),
		"kid NUL":                 header("kid", f.kid+"\x00"),
		"kid of another kind":     header("kid", "r"),
		"typ missing":             header("typ", nil),
		"typ JWT":                 header("typ", "JWT"),
		"typ upper case":          header("typ", strings.ToUpper(f.typ)),
		"typ list":                header("typ", []string{f.typ}),
		"iss missing":             claim("iss", nil),
		"iss other":               claim("iss", "evil"),
		"iss list":                claim("iss", []string{"banyan"}),
		"iss upper case":          claim("iss", "BANYAN"),
		"aud missing":             claim("aud", nil),
		"aud other":               claim("aud", "payments"),
		"aud list":                claim("aud", []string{f.aud, "payments"}),
		"aud empty":               claim("aud", ""),
		"sub number":              claim("sub", 7),
		"exp missing":             claim("exp", nil),
		"exp null":                f.sign(f.header(), map[string]any{"iss": "banyan", "aud": f.aud, "sub": "usr_a", "mod": "orders", "exp": nil}),
		"exp 0":                   claim("exp", 0),
		"exp negative":            claim("exp", -1),
		"exp text":                claim("exp", "tomorrow"),
		"exp in the past":         claim("exp", at(-time.Hour)),
		"exp in a year":           claim("exp", at(365*24*time.Hour)),
		"exp past all":            claim("exp", 1e300),
		"exp max int64":           claim("exp", int64(1)<<62),
		"nbf in the future":       claim("nbf", at(time.Hour)),
		"nbf far":                 claim("nbf", int64(1)<<40),
		"nbf text":                claim("nbf", "now"),
		"iat in the future":       claim("iat", at(time.Hour)),
		"iat missing":             claim("iat", nil),
		"iat and iat_ms disagree": claim("iat_ms", f.now.Add(time.Hour).UnixMilli()),
		"iat_ms missing":          claim("iat_ms", nil),
		"roles as text":           claim("roles", "admin"),
		"scopes as text":          claim("scopes", "*"),
		"claims as list":          f.sign(f.header(), []int{1}),
		"claims as null":          f.sign(f.header(), nil),
		"claims as text":          f.sign(f.header(), "x"),
		"header as list":          f.sign([]int{1}, f.claims()),
		"header as null":          f.sign(nil, f.claims()),
		"a stranger's key":        stranger.sign(f.header(), f.claims()),
		"no signature":            parts[0] + "." + parts[1] + ".",
		"signature cut":           parts[0] + "." + parts[1] + "." + parts[2][:40],
		"signature of zeros":      parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"signature longer":        parts[0] + "." + parts[1] + "." + parts[2] + "AA",
		"claims swapped":          parts[0] + "." + part(with(f.claims(), "sub", "usr_admin")) + "." + parts[2],
		"header swapped":          part(with(f.header(), "typ", f.typ+" ")) + "." + parts[1] + "." + parts[2],
		"standard base64":         strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+/",
		"loose base64 tail":       loose(good),
	}
	for i := range 200 { // one bit anywhere
		b := []byte(good)
		b[i*len(b)/200] ^= 1 << (i % 7)
		if string(b) != good {
			tokens[fmt.Sprint("bit ", i)] = string(b)
		}
	}
	return tokens
}

// loose changes bits of the last character that lenient decoders drop.
func loose(token string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, token[len(token)-1])
	return token[:len(token)-1] + string(alphabet[last|1])
}

func TestHostileTokensAreRefused(t *testing.T) {
	t.Parallel()
	b, f := setupForge(t)
	if got := b.code(f.sign(f.header(), f.claims())); got != "" {
		t.Fatalf("the untouched token is refused: %s", got)
	}
	tokens := hostile(f)
	for name, token := range map[string]string{
		"typ of modules": f.sign(with(f.header(), "typ", "mod+jwt"), f.claims()),
		"sub missing":    f.claim("sub", nil), "sub empty": f.claim("sub", ""),
		"a module's name": f.claim("mod", "orders"), "the gateway's name": f.claim("mod", "gateway"), "an API key": f.claim("key", "key_1"),
		"a key instead of a user": f.sign(f.header(), with(with(f.claims(), "sub", nil), "key", "key_1")),
	} {
		tokens[name] = token
	}
	for name, token := range tokens {
		id, err := b.Verify(t.Context(), token)
		if code := errs.CodeOf(err); !errs.Is(err, errs.Unauthenticated) || code != "token_invalid" && code != "token_expired" || id.User != "" {
			t.Errorf("%s: got %v, %v", name, id, err)
		}
	}
	if len(tokens) < 280 {
		t.Errorf("only %d tokens", len(tokens))
	}
	if n := b.fetches(); n != 1 {
		t.Errorf("forged tokens made us fetch keys %d times", n)
	}
}

func FuzzToken(f *testing.F) {
	b, forge := setupForge(f)
	good := forge.sign(forge.header(), forge.claims())
	f.Add(good)
	for _, token := range hostile(forge) {
		if len(token) < 4096 {
			f.Add(token)
		}
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := b.Verify(context.Background(), token)
		if (err == nil) != (token == good) || err != nil && id.User != "" {
			t.Fatalf("%q: %v %v", token, id, err)
		}
	})
}

func TestTwentyRotationsLogNobodyOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 20 {
		old := b.token(t)
		if got := b.code(old); got != "" {
			t.Fatalf("rotation %d: %s", i, got)
		}
		keys, err := b.keys.Rotate(b.clock())
		if err != nil {
			t.Fatal(err)
		}
		b.set(keys)
		// The new current key was published as next all along: no fetch is needed to know it.
		if got := b.code(b.token(t)); got != "" {
			t.Fatalf("rotation %d, new token: %s", i, got)
		}
		b.pass(auth.MaxAccessTTL)
		if got := b.code(old); got != "" {
			t.Fatalf("rotation %d, old token: %s", i, got)
		}
		if n := len(keys.JWKS().Keys); n > 4 {
			t.Fatalf("rotation %d: %d keys are published", i, n)
		}
		b.pass(auth.RotateAfter)
	}
}

func TestALeakedKeyStopsWorking(t *testing.T) {
	t.Parallel()
	b := setup(t)
	token := b.token(t)
	if got := b.code(token); got != "" {
		t.Fatal(got)
	}
	fresh, err := auth.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	b.set(fresh)
	b.pass(time.Minute + time.Second)
	if got := b.code(b.token(t)); got != "" { // names a key not known: the one fetch
		t.Fatalf("a token of the fresh key: %s", got)
	}
	if got := b.code(token); got != "token_invalid" {
		t.Errorf("a token of the leaked key, remembered: %q", got)
	}
}

func TestUnknownKeysAreFetchedOnceAMinute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.code(b.token(t))
	for range 3 {
		b.pass(61 * time.Second)
		before := b.fetches()
		for range 50 {
			stranger := setup(t)
			stranger.now.Store(b.now.Load())
			if got := b.code(stranger.token(t)); got != "token_invalid" {
				t.Fatalf("a stranger's token: %q", got)
			}
		}
		if n := b.fetches() - before; n != 1 {
			t.Fatalf("%d fetches in a minute", n)
		}
	}
}

func TestAPartitionFromTheKeysLogsNobodyOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.fail(errors.New("dial tcp: refused"))
	if _, err := b.Verify(t.Context(), b.token(t)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("without any key: %v", err)
	}
	b.fail(nil)
	b.pass(2 * time.Second)
	if got := b.code(b.token(t)); got != "" {
		t.Fatalf("keys are back: %s", got)
	}
	b.fail(errors.New("dial tcp: refused"))
	b.pass(time.Hour)
	if got := b.code(b.token(t)); got != "" {
		t.Errorf("an hour into a partition: %s", got)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.token(t)
	unseen := b.token(t)
	if got := b.code(before); got != "" {
		t.Fatal(got)
	}
	b.pass(10 * time.Millisecond)
	b.Revoke(ann.User, b.clock())
	for name, token := range map[string]string{"remembered": before, "not seen before": unseen} {
		if got := b.code(token); got != "token_invalid" {
			t.Errorf("%s: %q", name, got)
		}
	}
	b.pass(10 * time.Millisecond)
	if got := b.code(b.token(t)); got != "" {
		t.Errorf("a sign-in within the same second: %s", got)
	}
	b.Revoke(ann.User, b.clock().Add(-time.Hour)) // late news do not bring the old tokens back
	if got := b.code(before); got != "token_invalid" {
		t.Errorf("after late news: %q", got)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestContext(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if auth.From(ctx).SignedIn() || auth.RequireModule(ctx, "orders", "") == nil {
		t.Error("nobody is somebody")
	}
	ctx = auth.WithIdentity(ctx, auth.Identity{User: "usr_a", Module: "orders", Scopes: []string{"catalog:write"}})
	id := auth.From(ctx)
	if !id.SignedIn() || !id.Has("catalog:write") || id.Has("catalog") || id.Has("") {
		t.Errorf("%+v", id)
	}
	if err := auth.RequireModule(ctx, "cart", "orders"); err != nil {
		t.Error(err)
	}
	if err := auth.RequireModule(ctx, "cart"); !errs.Is(err, errs.Forbidden) {
		t.Error(err)
	}
}

func TestTheSecretDoesNotPrint(t *testing.T) {
	t.Parallel()
	const text = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	s := must(auth.ParseSecret(text))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "secret", s, "in", struct{ S auth.Secret }{s})
	asJSON := must(json.Marshal(map[string]any{"s": s}))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%X", "%t"} {
		if got := fmt.Sprintf(verb, s); got != "***" {
			t.Errorf("%s prints %s", verb, got)
		}
		if got := fmt.Sprintf(verb, struct{ S auth.Secret }{s}); !strings.Contains(got, "***") {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	for _, out := range []string{log.String(), string(asJSON)} {
		if strings.Contains(out, "0405") || !strings.Contains(out, "***") {
			t.Errorf("printed: %s", out)
		}
	}
	key := must(auth.NewKey())
	sealed := auth.SealKey(s, key)
	if again := must(auth.OpenKey(s, sealed)); again.ID != key.ID || again.Public() != key.Public() {
		t.Error("the key is not what was sealed")
	}
	if _, err := auth.OpenKey(auth.NewSecret(), sealed); err == nil {
		t.Error("another secret opens the key")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := auth.OpenKey(s, sealed); err == nil {
		t.Error("a changed key opens")
	}
	if got := fmt.Sprintf("%v %+v %#v %s", key, key, key, key); strings.Count(got, key.ID) != 4 || len(got) > 4*(len(key.ID)+6) {
		t.Errorf("the key prints as %s", got)
	}
}

func TestSeals(t *testing.T) {
	t.Parallel()
	s := auth.NewSecret()
	sealed := s.Seal("order", "ord_1 2026")
	if got, ok := s.Open("order", sealed); !ok || got != "ord_1 2026" {
		t.Errorf("got %q %v", got, ok)
	}
	if got, ok := s.Open("order", s.Seal("order", "")); !ok || got != "" {
		t.Errorf("empty payload: %q %v", got, ok)
	}
	if strings.ContainsAny(sealed, "+/= ") {
		t.Errorf("not for addresses: %s", sealed)
	}
	tries := []string{"", ".", sealed + "A", sealed[:len(sealed)-1], "x" + sealed, sealed + "\n", sealed + "=", s.Seal("cart", "ord_1 2026"), auth.NewSecret().Seal("order", "ord_1 2026"), loose(sealed)}
	for i := range len(sealed) {
		b := []byte(sealed)
		b[i] ^= 1
		tries = append(tries, string(b))
	}
	for _, try := range tries {
		if _, ok := s.Open("order", try); ok && try != sealed {
			t.Errorf("opened %q", try)
		}
	}
	if bytes.Equal(s.Derive("a"), s.Derive("b")) || !bytes.Equal(s.Derive("a"), s.Derive("a")) {
		t.Error("derived keys")
	}
}

func TestTheSecretFileIsMadeOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "data", "secret")
	secrets := make([]auth.Secret, 16)
	var wg sync.WaitGroup
	for i := range secrets {
		wg.Go(func() { secrets[i] = must(auth.SecretFile(path)) })
	}
	wg.Wait()
	for _, s := range secrets {
		if s != secrets[0] || s.IsZero() {
			t.Fatal("starters disagree")
		}
	}
	info := must(os.Stat(path))
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if n := len(must(os.ReadDir(filepath.Dir(path)))); n != 1 {
		t.Errorf("%d files are left", n)
	}
	if _, err := auth.ParseSecret("hunter2"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a short secret: %v", err)
	}
}

func TestKeySetsTravel(t *testing.T) {
	t.Parallel()
	keys := must(auth.NewKeys())
	text := must(json.Marshal(keys.JWKS()))
	if bytes.Contains(text, []byte(`"d"`)) {
		t.Error("a private half is published")
	}
	if got := must(auth.ParseJWKS(text)); cmp.Diff(keys.JWKS(), got) != "" {
		t.Error("the set is not what was written")
	}
	forged := strings.Replace(string(text), keys.Current.ID, keys.Next.ID, 1)
	if _, err := auth.ParseJWKS([]byte(forged)); err == nil {
		t.Error("a key under another one's id is taken")
	}
}

func BenchmarkVerify(b *testing.B) {
	s := setup(b)
	token := s.token(b)
	b.Run("seen before", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Verify(context.Background(), token); err != nil {
				b.Fatal(err)
			}
		}
	})
}
