package auth_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
)

func TestTokensBetweenModules(t *testing.T) {
	t.Parallel()
	b := setup(t)
	key := must(auth.NewKey())
	orders := auth.NewInternal(key, nil, b.clock)
	payments := auth.NewInternal(must(auth.NewKey()), func(context.Context) (auth.JWKS, error) {
		return auth.JWKS{Keys: []auth.JWK{key.Public()}}, nil
	}, b.clock)
	token, err := orders.IssueInternal("orders", "payments", ann)
	if err != nil {
		t.Fatal(err)
	}
	want := ann
	want.Module = "orders"
	for range 2 {
		got, err := payments.VerifyInternal(t.Context(), token, "payments")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
	if again, _ := orders.IssueInternal("orders", "payments", ann); again != token {
		t.Error("a token is made for each call")
	}
	for _, other := range []auth.Identity{{}, {User: ann.User}, {User: "usr_bob"}} {
		if t2, _ := orders.IssueInternal("orders", "payments", other); t2 == token {
			t.Errorf("%+v gets ann's token", other)
		}
	}
	for name, try := range map[string]func() error{
		"another audience":   func() error { _, err := payments.VerifyInternal(t.Context(), token, "catalog"); return err },
		"no audience":        func() error { _, err := payments.VerifyInternal(t.Context(), token, ""); return err },
		"as an access token": func() error { _, err := b.Verify(t.Context(), token); return err },
		"an access token":    func() error { _, err := payments.VerifyInternal(t.Context(), b.token(t), "payments"); return err },
		"a stranger's": func() error {
			_, err := orders.VerifyInternal(t.Context(), must(payments.IssueInternal("orders", "payments", ann)), "payments")
			return err
		},
	} {
		if err := try(); !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.pass(41 * time.Second)
	if again, _ := orders.IssueInternal("orders", "payments", ann); again == token {
		t.Error("a token is handed out in its last moments")
	}
	b.pass(40 * time.Second)
	if _, err := payments.VerifyInternal(t.Context(), token, "payments"); !errs.Has(err, "token_expired") {
		t.Errorf("after its time: %v", err)
	}
	if _, err := orders.IssueInternal("", "payments", ann); err == nil {
		t.Error("a token of no module")
	}
}

// processes are the internal tokens of some processes that share a secret and nothing else.
func processes(b *bundle, secret auth.Secret, names ...string) map[string]*auth.Internal {
	all := map[string]*auth.Internal{}
	for _, name := range names {
		all[name] = auth.NewInternal(auth.InternalKey(secret), nil, b.clock)
	}
	return all
}

func TestProcessesOfAShopKnowEachOther(t *testing.T) {
	t.Parallel()
	b, secret := setup(t), auth.NewSecret()
	names := []string{"gateway", "front", "back"}
	all := processes(b, secret, names...)
	for from, issuer := range all {
		token := must(issuer.IssueInternal("orders", "payments", ann))
		for to, p := range all {
			if got, err := p.VerifyInternal(t.Context(), token, "payments"); err != nil || got.Module != "orders" || got.User != ann.User {
				t.Errorf("a token of %s at %s: %+v, %v", from, to, got, err)
			}
		}
	}
	strangers := map[string]*auth.Internal{
		"another shop's":               processes(b, auth.NewSecret(), names...)["front"],
		"the next secret":              auth.NewInternal(auth.InternalKey(auth.NewSecret()), nil, b.clock),
		"a key that is the shop's own": auth.NewInternal(must(auth.NewKey()), nil, b.clock),
	}
	for name, s := range strangers {
		if _, err := all["back"].VerifyInternal(t.Context(), must(s.IssueInternal("orders", "payments", ann)), "payments"); !errs.Has(err, "token_invalid") {
			t.Errorf("%s: %v", name, err)
		}
	}
	none := auth.NewInternal(auth.InternalKey(auth.Secret{}), nil, b.clock)
	if _, err := none.IssueInternal("orders", "payments", ann); err == nil {
		t.Error("a shop without a secret signs")
	}
	if _, err := none.VerifyInternal(t.Context(), must(all["front"].IssueInternal("orders", "payments", ann)), "payments"); !errs.Is(err, errs.Unavailable) {
		t.Errorf("a shop without a secret checks: %v", err)
	}
}

func TestAForwardedRequestKeepsItsSender(t *testing.T) {
	t.Parallel()
	b := setup(t)
	all := processes(b, auth.NewSecret(), "edge", "back")
	for name, sender := range map[string]auth.Identity{
		"a guest":    {},
		"a user":     ann,
		"an API key": {Key: "key_1", Scopes: []string{"stock:write"}},
	} {
		token := must(all["edge"].IssueInternal(auth.Gateway, "orders", sender))
		for range 2 {
			got, err := all["back"].VerifyForwarded(t.Context(), token, "orders")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(sender, got); diff != "" {
				t.Errorf("%s (-want +got)\n%s", name, diff)
			}
		}
		id, err := all["back"].VerifyInternal(t.Context(), token, "orders")
		if err != nil || id.Module != auth.Gateway {
			t.Fatalf("%s: %+v, %v", name, id, err)
		}
		ctx := auth.WithIdentity(t.Context(), id)
		for _, modules := range [][]string{{"orders"}, {"gateway"}, {"", "gateway", "host", "shop"}} {
			if err := auth.RequireModule(ctx, modules...); !errs.Is(err, errs.Forbidden) {
				t.Errorf("%s, forwarded, is taken for one of %q", name, modules)
			}
		}
	}
	for name, token := range map[string]string{
		"a module's":       must(all["edge"].IssueInternal("cart", "orders", ann)),
		"another module's": must(all["edge"].IssueInternal(auth.Gateway, "payments", ann)),
		"an access token":  b.token(t),
		"nothing":          "",
	} {
		if got, err := all["back"].VerifyForwarded(t.Context(), token, "orders"); !errs.Is(err, errs.Unauthenticated) || !cmp.Equal(got, auth.Identity{}) {
			t.Errorf("%s token: %+v, %v", name, got, err)
		}
	}
	if _, err := all["edge"].IssueInternal(auth.Gateway, "orders", auth.Identity{User: "usr_ann", Key: "key_1"}); err == nil {
		t.Error("a token for a user and a key")
	}
	guest, key := must(all["edge"].IssueInternal(auth.Gateway, "orders", auth.Identity{})), must(all["edge"].IssueInternal(auth.Gateway, "orders", auth.Identity{Key: "key_1"}))
	if guest == key {
		t.Error("a guest gets an API key's token")
	}
	if one, two := must(all["edge"].IssueInternal("a", "b", auth.Identity{Scopes: []string{"x y"}})), must(all["edge"].IssueInternal("a", "b", auth.Identity{Scopes: []string{"x", "y"}})); one == two {
		t.Error("two permissions get one's token")
	}
}

func setupInternalForge(t testing.TB) (*auth.Internal, forge, func() int) {
	b, f := setupForge(t)
	f.typ, f.aud, f.mod = "mod+jwt", "orders", "cart"
	fetched := 0
	source := func(context.Context) (auth.JWKS, error) {
		fetched++
		return b.trusted, nil
	}
	return auth.NewInternal(must(auth.NewKey()), source, b.clock), f, func() int { return fetched }
}

func hostileInternal(f forge) map[string]string {
	tokens := hostile(f)
	at := func(d time.Duration) int64 { return f.now.Add(d).Unix() }
	for name, token := range map[string]string{
		"typ of users":           f.sign(with(f.header(), "typ", "at+jwt"), f.claims()),
		"an access token":        f.sign(with(f.header(), "typ", "at+jwt"), with(f.claims(), "aud", "shop")),
		"aud of access tokens":   f.claim("aud", "shop"),
		"aud upper case":         f.claim("aud", "ORDERS"),
		"aud longer":             f.claim("aud", "orders2"),
		"aud is the caller":      f.claim("aud", "cart"),
		"aud everybody":          f.claim("aud", "*"),
		"mod missing":            f.claim("mod", nil),
		"mod empty":              f.claim("mod", ""),
		"mod list":               f.claim("mod", []string{"cart"}),
		"mod number":             f.claim("mod", 1),
		"key list":               f.claim("key", []string{"key_1"}),
		"a user and a key":       f.claim("key", "key_1"),
		"61 seconds of life":     f.claim("exp", at(61*time.Second)),
		"5 minutes of life":      f.claim("exp", at(5*time.Minute)),
		"nbf in 40 seconds":      f.claim("nbf", at(40*time.Second)),
		"iat in 40 seconds":      f.claim("iat", at(40*time.Second)),
		"expired 40 seconds ago": f.sign(f.header(), with(with(with(f.claims(), "iat", at(-90*time.Second)), "iat_ms", f.now.Add(-90*time.Second).UnixMilli()), "exp", at(-40*time.Second))),
	} {
		tokens[name] = token
	}
	return tokens
}

func TestHostileInternalTokensAreRefused(t *testing.T) {
	t.Parallel()
	orders, f, fetched := setupInternalForge(t)
	good := f.sign(f.header(), f.claims())
	if got, err := orders.VerifyInternal(t.Context(), good, "orders"); err != nil || got.Module != "cart" || got.User != "usr_ann" {
		t.Fatalf("the untouched token: %+v, %v", got, err)
	}
	if got, err := orders.VerifyInternal(t.Context(), f.claim("sub", nil), "orders"); err != nil || got.User != "" {
		t.Fatalf("for a guest: %+v, %v", got, err)
	}
	tokens := hostileInternal(f)
	for name, token := range tokens {
		got, err := orders.VerifyInternal(t.Context(), token, "orders")
		if code := errs.CodeOf(err); !errs.Is(err, errs.Unauthenticated) || code != "token_invalid" && code != "token_expired" || !cmp.Equal(got, auth.Identity{}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if len(tokens) < 280 {
		t.Errorf("only %d tokens", len(tokens))
	}
	if n := fetched(); n != 1 {
		t.Errorf("forged tokens made us fetch keys %d times", n)
	}
}

func FuzzInternalToken(f *testing.F) {
	orders, forge, _ := setupInternalForge(f)
	good := forge.sign(forge.header(), forge.claims())
	f.Add(good)
	for _, token := range hostileInternal(forge) {
		if len(token) < 4096 {
			f.Add(token)
		}
	}
	f.Fuzz(func(t *testing.T, token string) {
		got, err := orders.VerifyInternal(context.Background(), token, "orders")
		if (err == nil) != (token == good) || err != nil && !cmp.Equal(got, auth.Identity{}) {
			t.Fatalf("%q: %+v %v", token, got, err)
		}
	})
}
