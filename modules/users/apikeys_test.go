package users

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// makeKey makes an API key as the user, who holds all that the roles give.
func (b bundle) makeKey(t *testing.T, owner usersapi.ID, scopes []string, expires *time.Time) (ids.ID, string) {
	t.Helper()
	u, err := userByID(t.Context(), b.DB, owner)
	if err != nil {
		t.Fatal(err)
	}
	maker := auth.Identity{User: ids.ID(owner), Roles: u.Roles, Scopes: scopesOf(u.Roles)}
	k, key, err := b.makeAPIKey(t.Context(), maker, "scanner", scopes, expires)
	if err != nil {
		t.Fatal(err)
	}
	return k.ID, key
}

func (b bundle) create(t *testing.T, email, role string) usersapi.ID {
	t.Helper()
	u, err := b.Create(auth.WithCaller(t.Context(), "shop"), usersapi.CreateRequest{Key: "k", Email: email, Password: password, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	return u.ID
}

func (b bundle) verifyKey(t *testing.T, key string) (usersapi.APIKey, error) {
	return b.VerifyKey(auth.WithCaller(t.Context(), "host"), usersapi.VerifyKeyRequest{Hash: auth.HashAPIKey(key)})
}

func TestAnAPIKeyMayDoWhatItsMakerMayAndNoMore(t *testing.T) {
	t.Parallel()
	b := setup(t)
	merchant, support, customer := b.create(t, "m@example.com", "merchant"), b.create(t, "s@example.com", "support"), b.create(t, "c@example.com", "customer")
	all := scopesOf([]string{"admin"})
	for name, try := range map[string]struct {
		maker  auth.Identity
		scopes []string
		code   errs.Kind
	}{
		"a customer":                       {auth.Identity{User: ids.ID(customer)}, []string{"stock:write"}, errs.Forbidden},
		"a customer who claims scopes":     {auth.Identity{User: ids.ID(customer), Scopes: all}, []string{"stock:write"}, errs.Forbidden},
		"more than the maker's":            {auth.Identity{User: ids.ID(support), Scopes: scopesOf([]string{"support"})}, []string{"orders:read_all", "orders:write"}, errs.Forbidden},
		"more than the token's":            {auth.Identity{User: ids.ID(merchant), Scopes: []string{"stock:write"}}, []string{"catalog:write"}, errs.Forbidden},
		"what nobody may":                  {auth.Identity{User: ids.ID(merchant), Scopes: append(all, "*", "")}, []string{"*"}, errs.Forbidden},
		"an empty permission":              {auth.Identity{User: ids.ID(merchant), Scopes: append(all, "*", "")}, []string{""}, errs.Forbidden},
		"another spelling":                 {auth.Identity{User: ids.ID(merchant), Scopes: all}, []string{"Stock:Write"}, errs.Forbidden},
		"a key":                            {auth.Identity{Key: "key_1", Scopes: all}, []string{"stock:write"}, errs.Forbidden},
		"nobody":                           {auth.Identity{}, []string{"stock:write"}, errs.Forbidden},
		"a user who is gone":               {auth.Identity{User: "usr_gone", Scopes: all}, []string{"stock:write"}, errs.NotFound},
		"one right among wrong ones":       {auth.Identity{User: ids.ID(merchant), Scopes: all}, []string{"stock:write", "users:write"}, errs.Forbidden},
		"support, by a token of yesterday": {auth.Identity{User: ids.ID(support), Scopes: scopesOf([]string{"merchant"})}, []string{"stock:write"}, errs.Forbidden},
	} {
		if k, key, err := b.makeAPIKey(t.Context(), try.maker, "x", try.scopes, nil); !errs.Is(err, try.code) || key != "" || k.ID != "" {
			t.Errorf("%s: got %s, %v", name, key, err)
		}
	}
	past := b.Now()
	if _, _, err := b.makeAPIKey(t.Context(), auth.Identity{User: ids.ID(merchant), Scopes: all}, "x", []string{"stock:write"}, &past); !errs.Is(err, errs.Invalid) {
		t.Errorf("a key that has expired: %v", err)
	}
	_, key := b.makeKey(t, merchant, []string{"stock:write", "catalog:write", "stock:write"}, nil)
	got, err := b.verifyKey(t, key)
	if err != nil || !slices.Equal(got.Scopes, []string{"catalog:write", "stock:write"}) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestTheAPIKeyItselfIsKeptNowhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, key := b.makeKey(t, b.create(t, "m@example.com", "merchant"), []string{"stock:write"}, nil)
	if !strings.HasPrefix(key, "byk_") || len(key) != 44 {
		t.Errorf("key %q", key)
	}
	var row string
	if err := b.DB.Get(t.Context(), &row, `SELECT k::text FROM users.api_keys k`); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(row, auth.APIKeyPrefix(key)) || strings.Contains(row, key[len(auth.APIKeyPrefix(key)):]) {
		t.Errorf("the row of %s: %s", key, row)
	}
}

func TestOnlyTheHostAsksAboutAPIKeys(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, key := b.makeKey(t, b.create(t, "m@example.com", "merchant"), []string{"stock:write"}, nil)
	for _, caller := range []string{"", "orders", "storefront", "users", "shop", "gateway"} {
		ctx := auth.WithCaller(t.Context(), caller)
		if _, err := b.VerifyKey(ctx, usersapi.VerifyKeyRequest{Hash: auth.HashAPIKey(key)}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("asked by %q: %v", caller, err)
		}
	}
}

func TestTheLastUseOfAnAPIKeyIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	owner := b.create(t, "m@example.com", "merchant")
	_, key := b.makeKey(t, owner, []string{"stock:write"}, nil)
	use := func() (writes int64, used *time.Time) {
		t.Helper()
		var before, after int64
		count := func(n *int64) {
			if err := b.DB.Get(t.Context(), n, `SELECT (xmin::text)::bigint FROM users.api_keys`); err != nil {
				t.Fatal(err)
			}
		}
		count(&before)
		for range 3 {
			if _, err := b.verifyKey(t, key); err != nil {
				t.Fatal(err)
			}
		}
		count(&after)
		ks, err := apiKeysOf(t.Context(), b.DB, owner)
		if err != nil || len(ks) != 1 {
			t.Fatal(ks, err)
		}
		return after - before, ks[0].LastUsed
	}
	changed, first := use()
	if changed == 0 || first == nil || first.Sub(b.Now()).Abs() > time.Millisecond {
		t.Errorf("the first use: %v", first)
	}
	b.clock.Advance(59 * time.Second)
	if changed, used := use(); changed != 0 || !used.Equal(*first) {
		t.Errorf("within a minute: the row changed by %d, used %v", changed, used)
	}
	b.clock.Advance(2 * time.Second)
	if changed, used := use(); changed == 0 || used.Equal(*first) {
		t.Errorf("after a minute: %v", used)
	}
}

func TestAPIKeysAreTheirOwnersAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann, bob := b.create(t, "a@example.com", "merchant"), b.create(t, "b@example.com", "admin")
	id, key := b.makeKey(t, ann, []string{"stock:write"}, nil)
	if err := b.revokeAPIKey(t.Context(), bob, id); !errs.Is(err, errs.NotFound) {
		t.Errorf("revoked by another: %v", err)
	}
	if ks, err := apiKeysOf(t.Context(), b.DB, bob); err != nil || len(ks) != 0 {
		t.Errorf("another sees %+v, %v", ks, err)
	}
	if _, err := b.verifyKey(t, key); err != nil {
		t.Errorf("the key: %v", err)
	}
	if err := b.revokeAPIKey(t.Context(), ann, id); err != nil {
		t.Fatal(err)
	}
	var told []string
	if err := b.DB.Select(t.Context(), &told, `SELECT key FROM users.outbox WHERE name = 'users.api_key_revoked.v1'`); err != nil || !slices.Equal(told, []string{string(id)}) {
		t.Errorf("told %v, %v", told, err)
	}
	if err := b.revokeAPIKey(t.Context(), ann, id); !errs.Is(err, errs.NotFound) {
		t.Errorf("revoked again: %v", err)
	}
	if ks, err := apiKeysOf(t.Context(), b.DB, ann); err != nil || len(ks) != 0 {
		t.Errorf("the owner still sees %+v, %v", ks, err)
	}
}

func TestAUserHasAHundredAPIKeysAtMost(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.create(t, "a@example.com", "merchant")
	maker := auth.Identity{User: ids.ID(ann), Scopes: []string{"stock:write"}}
	var last ids.ID
	for i := range maxAPIKeys {
		k, _, err := b.makeAPIKey(t.Context(), maker, fmt.Sprint("key ", i), []string{"stock:write"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		last = k.ID
	}
	if _, _, err := b.makeAPIKey(t.Context(), maker, "one more", []string{"stock:write"}, nil); !errs.Has(err, "too_many_api_keys") {
		t.Errorf("one more: %v", err)
	}
	if err := b.revokeAPIKey(t.Context(), ann, last); err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.makeAPIKey(t.Context(), maker, "one more", []string{"stock:write"}, nil); err != nil {
		t.Errorf("in place of one revoked: %v", err)
	}
}

// A process that checks keys hears of the end of one, as it does of sessions, and asks about no key twice in a minute.
func TestARevokedAPIKeyIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ann := b.create(t, "a@example.com", "merchant")
	id, key := b.makeKey(t, ann, []string{"stock:write"}, nil)
	accept(b)
	got, err := b.Verifier.Verify(t.Context(), key)
	if err != nil || got.Key != id || got.SignedIn() || !got.Has("stock:write") || got.Has("catalog:write") {
		t.Fatalf("got %+v, %v", got, err)
	}
	if err := b.revokeAPIKey(t.Context(), ann, id); err != nil {
		t.Fatal(err)
	}
	for range 2 { // hearing it twice is harmless
		b.onAPIKeyRevoked(t.Context(), usersapi.APIKeyRevoked{Key: id})
		if _, err := b.Verifier.Verify(t.Context(), key); !errs.Has(err, "token_invalid") {
			t.Errorf("after it was revoked: %v", err)
		}
	}
	_, other := b.makeKey(t, ann, []string{"stock:write"}, nil)
	if got, err := b.Verifier.Verify(t.Context(), other); err != nil || !got.Has("stock:write") {
		t.Fatalf("another key: %+v, %v", got, err)
	}
	b.clock.Advance(time.Second)
	b.create(t, "a@example.com", "customer") // the owner's rights are gone, and so are the key's
	b.onSessionsEnded(t.Context(), usersapi.SessionsEnded{User: ann, NotBefore: b.Now()})
	if got, err := b.Verifier.Verify(t.Context(), other); err != nil || got.Has("stock:write") {
		t.Errorf("a key of a former merchant: %+v, %v", got, err)
	}
}

// accept makes the bundle's verifier ask the module about API keys, as the host does.
func accept(b bundle) {
	b.Verifier.AcceptAPIKeys(func(ctx context.Context, hash string) (auth.APIKey, error) {
		k, err := b.VerifyKey(auth.WithCaller(ctx, "host"), usersapi.VerifyKeyRequest{Hash: hash})
		return auth.APIKey{ID: k.ID, Owner: ids.ID(k.Owner), Scopes: k.Scopes, Expires: k.ExpiresAt}, err
	})
}

// A process that restarts has heard no news: the keys it fetches bring them.
func TestAProcessThatWasAwayLearnsWhoWasLoggedOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	eve, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(time.Second)
	ctx := auth.WithIdentity(t.Context(), auth.Identity{User: ids.ID(eve.User.ID)})
	if _, err := b.postLogoutEverywhere(ctx, nil); err != nil {
		t.Fatal(err)
	}
	restarted := auth.NewVerifier(func(ctx context.Context) (auth.JWKS, error) {
		k, err := b.Keys(ctx, usersapi.KeysRequest{})
		if err != nil {
			return auth.JWKS{}, err
		}
		set, err := auth.ParseJWKS([]byte(k.JWKS))
		for _, e := range k.Ended {
			set.Ended = append(set.Ended, auth.Ended(e))
		}
		return set, err
	}, b.clock.Now)
	if _, err := restarted.Verify(t.Context(), eve.AccessToken); !errs.Has(err, "token_invalid") {
		t.Errorf("a token from before the logout: %v", err)
	}
	again, err := b.login(t.Context(), "eve@example.com", password, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := restarted.Verify(t.Context(), again.AccessToken); err != nil {
		t.Errorf("a token from after it: %v", err)
	}
	if doc, err := b.Keyring.document(t.Context()); err != nil || strings.Contains(doc, string(eve.User.ID)) || strings.Contains(doc, "ended") {
		t.Errorf("the published document tells who was logged out: %s, %v", doc, err)
	}
}
