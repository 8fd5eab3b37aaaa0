package auth_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// keeper keeps API keys, as users does, and counts the questions.
type keeper struct {
	mu     sync.Mutex
	keys   map[string]auth.APIKey
	asked  int
	broken error
	hold   chan struct{} // an answer waits for it, if set
	held   chan struct{} // told when one does
}

func (k *keeper) ask(ctx context.Context, hash string) (auth.APIKey, error) {
	if urgency.Of(ctx) != nil {
		return auth.APIKey{}, errors.New("asked for one customer, who may be turned away, in place of all")
	}
	k.mu.Lock()
	k.asked++
	found, ok := k.keys[hash]
	err, hold := k.broken, k.hold
	k.mu.Unlock()
	if hold != nil {
		k.held <- struct{}{}
		<-hold
	}
	if err == nil && !ok {
		err = errs.NotFoundf("no such key")
	}
	return found, err
}

func (k *keeper) questions() int { k.mu.Lock(); defer k.mu.Unlock(); return k.asked }
func (k *keeper) fail(err error) { k.mu.Lock(); k.broken = err; k.mu.Unlock() }
func (k *keeper) put(key string, is auth.APIKey) {
	k.mu.Lock()
	k.keys[auth.HashAPIKey(key)] = is
	k.mu.Unlock()
}
func (k *keeper) drop(key string) { k.mu.Lock(); delete(k.keys, auth.HashAPIKey(key)); k.mu.Unlock() }

func setupKeys(t testing.TB) (b *bundle, k *keeper, key string) {
	t.Helper()
	b, k, key = setup(t), &keeper{keys: map[string]auth.APIKey{}}, auth.NewAPIKey()
	k.put(key, auth.APIKey{ID: "key_1", Owner: ann.User, Scopes: []string{"stock:write"}})
	b.AcceptAPIKeys(k.ask)
	return b, k, key
}

func TestAnAPIKeyHasScopesAndIsNobody(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	for range 100 {
		got, err := b.Verify(urgency.With(t.Context(), &urgency.Request{}), key)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(auth.Identity{Key: "key_1", Scopes: []string{"stock:write"}}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		if got.SignedIn() || got.Anonymous() || !got.Has("stock:write") || got.Has("orders:write") || got.HasRole("merchant") {
			t.Errorf("%+v", got)
		}
	}
	if n := k.questions(); n != 1 {
		t.Errorf("%d questions", n)
	}
	b.pass(59 * time.Second)
	b.code(key)
	if n := k.questions(); n != 1 {
		t.Errorf("%d questions within a minute", n)
	}
	b.pass(2 * time.Second)
	for range 100 {
		b.code(key)
	}
	if n := k.questions(); n != 2 {
		t.Errorf("%d questions after a minute", n)
	}
	if got := setup(t).code(key); got != "token_invalid" {
		t.Errorf("where nobody can be asked: %q", got)
	}
}

func TestHostileAPIKeysAreRefused(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	malformed := []string{
		"byk_", "byk", "byk_" + strings.Repeat("A", 40), "byk_" + strings.Repeat("u", 40), "BYK_" + key[4:], key[4:], " " + key, key + " ", key + "\n", key + "0",
		key[:43], key[:12], "byk_" + key, "byk_" + strings.Repeat("0", 1<<20), "byk_" + strings.Repeat("\x00", 40), "byk_" + strings.Repeat("é", 20), "byk_../../../etc/passwd0000000000000000000",
		"byk_' OR 1=1 --" + strings.Repeat("0", 29), strings.ToUpper(key), key[:20] + "." + key[21:], auth.HashAPIKey(key), "byk_" + auth.HashAPIKey(key)[:40],
	}
	for _, token := range malformed {
		if got, err := b.Verify(t.Context(), token); !errs.Has(err, "token_invalid") || !cmp.Equal(got, auth.Identity{}) {
			t.Errorf("%.60q: %+v, %v", token, got, err)
		}
	}
	if n := k.questions(); n != 1 {
		t.Errorf("malformed keys made us ask %d times", n-1)
	}
	for i := range 40 { // one character other than the right one: well-formed, and nobody's
		other := []byte(key)
		other[4+i] = "01"[b2i(other[4+i] == '0')]
		if got := b.code(string(other)); got != "token_invalid" {
			t.Errorf("%s: %q", other, got)
		}
	}
	if got := b.code(key); got != "" {
		t.Errorf("the key itself: %s", got)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestAFloodOfMadeUpKeysAsksLittleAndHurtsNoKnownKey(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	same := auth.NewAPIKey()
	for range 1000 {
		if got := b.code(same); got != "token_invalid" {
			t.Fatalf("the same made-up key: %q", got)
		}
	}
	if n := k.questions(); n != 2 {
		t.Errorf("%d questions about one made-up key", n-1)
	}
	for range 30_000 {
		if _, err := b.Verify(t.Context(), auth.NewAPIKey()); !errs.Is(err, errs.Unauthenticated) && !errs.Is(err, errs.Unavailable) {
			t.Fatal(err)
		}
	}
	if n := k.questions(); n > 102 {
		t.Errorf("a flood asked %d questions at once", n)
	}
	b.pass(61 * time.Second) // the known key is asked about again, in the middle of the flood
	before := k.questions()
	for range 1000 {
		b.Verify(t.Context(), auth.NewAPIKey())
	}
	if got := b.code(key); got != "" {
		t.Errorf("a known key in a flood: %q", got)
	}
	if n := k.questions() - before; n > 101 {
		t.Errorf("%d questions", n)
	}
}

func TestAThousandRequestsWithAFreshKeyAskOnce(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	k.hold, k.held = make(chan struct{}), make(chan struct{}, 1000)
	var wg sync.WaitGroup
	for range 1000 {
		wg.Go(func() {
			if got := b.code(key); got != "" {
				t.Errorf("got %q", got)
			}
		})
	}
	<-k.held
	close(k.hold)
	wg.Wait()
	if n := k.questions(); n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestARevokedAPIKey(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	k.drop(key)
	if got := b.code(key); got != "" {
		t.Fatalf("before the news, within a minute: %q", got)
	}
	b.RevokeAPIKey("key_1")
	b.RevokeAPIKey("key_1")
	if got := b.code(key); got != "token_invalid" {
		t.Errorf("after the news: %q", got)
	}
	lost := auth.NewAPIKey()
	k.put(lost, auth.APIKey{ID: "key_2", Owner: ann.User})
	b.code(lost)
	k.drop(lost)
	b.pass(61 * time.Second)
	if got := b.code(lost); got != "token_invalid" {
		t.Errorf("a minute after, the news being lost: %q", got)
	}
}

func TestTheNewsOfARevocationOvertakesAnAnswer(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	k.hold, k.held = make(chan struct{}), make(chan struct{}, 1)
	answer := make(chan string)
	go func() { answer <- b.code(key) }()
	<-k.held // the keeper has looked the key up and found it
	b.RevokeAPIKey("key_1")
	close(k.hold)
	if got := <-answer; got != "token_invalid" {
		t.Errorf("the request on its way: %q", got)
	}
	if got := b.code(key); got != "token_invalid" {
		t.Errorf("the next one: %q", got)
	}
}

func TestAnAPIKeyExpiresWhileItIsRemembered(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	k.put(key, auth.APIKey{ID: "key_1", Owner: ann.User, Expires: b.clock().Add(30 * time.Second)})
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	k.drop(key)
	b.pass(30 * time.Second)
	if got := b.code(key); got != "token_invalid" {
		t.Errorf("when it is time: %q", got)
	}
}

func TestAnAPIKeyFollowsItsOwner(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	k.put(key, auth.APIKey{ID: "key_1", Owner: ann.User, Scopes: nil}) // another role
	b.pass(time.Second)
	b.Revoke(ann.User, b.clock().Add(10*time.Second)) // by a clock ahead of ours
	before := k.questions()
	for range 50 {
		if got, err := b.Verify(t.Context(), key); err != nil || got.Has("stock:write") {
			t.Fatalf("after the owner's role changed: %+v, %v", got, err)
		}
	}
	if n := k.questions() - before; n != 1 {
		t.Errorf("%d questions", n)
	}
}

func TestAPIKeysInAPartition(t *testing.T) {
	t.Parallel()
	b, k, key := setupKeys(t)
	if got := b.code(key); got != "" {
		t.Fatal(got)
	}
	k.fail(errors.New("dial tcp: refused"))
	strange := auth.NewAPIKey()
	if _, err := b.Verify(t.Context(), strange); !errs.Is(err, errs.Unavailable) || strings.Contains(err.(*errs.Error).Message, "dial") {
		t.Errorf("a key not seen before: %v", err)
	}
	b.pass(2 * time.Minute)
	before := k.questions()
	for range 100 {
		if got := b.code(key); got != "" {
			t.Fatalf("two minutes in: %q", got)
		}
	}
	if n := k.questions() - before; n != 1 {
		t.Errorf("%d tries within a moment", n)
	}
	b.RevokeAPIKey("key_1")
	if got := b.code(key); got == "" {
		t.Error("revoked, with nobody to ask, it works")
	}

	b, k, key = setupKeys(t)
	b.code(key)
	k.fail(errors.New("dial tcp: refused"))
	b.pass(auth.MaxAccessTTL)
	if _, err := b.Verify(t.Context(), key); !errs.Is(err, errs.Unavailable) {
		t.Errorf("after as long as a token lives: %v", err)
	}
	k.fail(nil)
	if got := b.code(key); got != "" {
		t.Errorf("when users is back: %q", got)
	}
}

func TestAVerifierThatWasAwayLearnsOfRevocations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	before := b.token(t)
	b.pass(time.Second)
	b.ended = []auth.Ended{{User: ann.User, NotBefore: b.clock()}}
	if got := b.code(before); got != "token_invalid" {
		t.Errorf("the first token it sees: %q", got)
	}
	if got := b.code(b.token(t)); got != "" {
		t.Errorf("a token from after: %q", got)
	}
	if text := must(json.Marshal(auth.JWKS{Ended: b.ended})); strings.Contains(string(text), string(ann.User)) {
		t.Errorf("a published set tells who was logged out: %s", text)
	}
}

func TestTheVerifierFetchesByItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t)
		v := auth.NewVerifier(b.source, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); v.Run(ctx) }()
		synctest.Wait()
		if n := b.fetches(); n != 1 {
			t.Errorf("%d fetches at once", n)
		}
		b.now.Store(time.Now().UnixNano())
		token := b.token(t)
		if _, err := v.Verify(ctx, token); err != nil || b.fetches() != 1 {
			t.Errorf("a request fetched, or %v", err)
		}
		time.Sleep(time.Second) // of the bubble's clock
		b.mu.Lock()
		b.ended = []auth.Ended{{User: ann.User, NotBefore: time.Now()}}
		b.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, err := v.Verify(ctx, token); !errs.Has(err, "token_invalid") {
			t.Errorf("a revocation whose news was lost: %v", err)
		}
		if n := b.fetches(); n != 2 {
			t.Errorf("%d fetches in two minutes", n)
		}
		cancel()
		<-done
	})
}

func TestKeysAreKeptForARestart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := filepath.Join(t.TempDir(), "data", "keys.json")
	bob := must(b.signer().Access(auth.Identity{User: "usr_bob"}, time.Minute))
	b.pass(time.Second)
	b.ended = []auth.Ended{{User: "usr_bob", NotBefore: b.clock().UTC()}}
	kept := func() auth.KeySource { return auth.KeptKeys(path, b.source, slog.New(slog.DiscardHandler)) }
	first := must(kept()(t.Context()))
	info := must(os.Stat(path))
	if info.Mode().Perm() != 0o600 || len(must(os.ReadDir(filepath.Dir(path)))) != 1 {
		t.Errorf("the file is %v, of %d", info.Mode(), len(must(os.ReadDir(filepath.Dir(path)))))
	}
	if text := must(os.ReadFile(path)); strings.Contains(string(text), `"d"`) {
		t.Errorf("a private half is kept: %s", text)
	}
	b.fail(errors.New("dial tcp: refused"))
	restarted := auth.NewVerifier(kept(), b.clock)
	if got, err := restarted.Verify(t.Context(), b.token(t)); err != nil || got.User != ann.User {
		t.Errorf("after a restart without users: %+v, %v", got, err)
	}
	if _, err := restarted.Verify(t.Context(), bob); !errs.Has(err, "token_invalid") {
		t.Errorf("who was logged out before the restart: %v", err)
	}
	if diff := cmp.Diff(first, must(kept()(t.Context()))); diff != "" {
		t.Errorf("kept (-want +got)\n%s", diff)
	}

	good := must(os.ReadFile(path))
	var is map[string]any
	if err := json.Unmarshal(good, &is); err != nil {
		t.Fatal(err)
	}
	as := func(name string, value any) string {
		c := map[string]any{}
		for k, v := range is {
			c[k] = v
		}
		c[name] = value
		return string(must(json.Marshal(c)))
	}
	forged := strings.Replace(string(good), b.keys.Current.ID, b.keys.Next.ID, 1)
	for name, text := range map[string]string{
		"empty": "", "half": string(good[:len(good)/2]), "no JSON": "x", "a list": "[]", "null": "null", "no keys": as("keys", []any{}), "keys null": as("keys", nil),
		"a key under another id": forged, "a month old": as("kept_at", time.Now().Add(-30*24*time.Hour)), "of tomorrow": as("kept_at", time.Now().Add(24*time.Hour)), "of no time": as("kept_at", nil),
		"huge": string(good) + strings.Repeat(" ", 1<<21), "other keys": as("keys", []any{map[string]any{"kty": "RSA", "kid": "r"}}),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if set, err := kept()(t.Context()); err == nil {
			t.Errorf("%s: taken for %+v", name, set)
		}
	}
	if err := os.WriteFile(path, good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := kept()(t.Context()); err == nil {
		t.Error("a file that others could have written is believed")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := kept()(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("without a file: %v", err)
	}

	b.fail(nil)
	source := kept()
	must(source(t.Context()))
	written := must(os.Stat(path))
	must(source(t.Context()))
	if again := must(os.Stat(path)); !os.SameFile(written, again) {
		t.Error("what did not change is written again")
	}
	b.set(must(b.keys.Rotate(b.clock())))
	must(source(t.Context()))
	if again := must(os.Stat(path)); os.SameFile(written, again) {
		t.Error("a rotated key is not kept")
	}
	blocked := auth.KeptKeys(filepath.Join(path, "keys.json"), b.source, slog.New(slog.DiscardHandler))
	if set, err := blocked(t.Context()); err != nil || len(set.Keys) == 0 {
		t.Errorf("a file that can't be written stands in the way: %v", err)
	}
}

func TestAPIKeysAreAllDifferent(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10_000 {
		key := auth.NewAPIKey()
		if len(key) != 44 || !strings.HasPrefix(key, "byk_") || seen[key] {
			t.Fatalf("key %s", key)
		}
		seen[key] = true
		if p := auth.APIKeyPrefix(key); len(p) != 12 || !strings.HasPrefix(key, p) {
			t.Fatalf("prefix %s", p)
		}
	}
	if auth.APIKeyPrefix("") != "" {
		t.Error("prefix of nothing")
	}
}

func BenchmarkVerifyAPIKey(b *testing.B) {
	s, _, key := setupKeys(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Verify(context.Background(), key); err != nil {
			b.Fatal(err)
		}
	}
}
