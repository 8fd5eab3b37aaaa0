package users

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

type bundle struct {
	*Module
	clock *shoptest.Clock
}

func setup(t *testing.T) bundle {
	t.Helper()
	clock := shoptest.NewClock()
	passwords, err := NewPasswords(4)
	if err != nil {
		t.Fatal(err)
	}
	db, secret := shoptest.DB(t, "users"), auth.NewSecret()
	m := &Module{
		DB: db, Secret: secret, Passwords: passwords, Keyring: &Keyring{DB: db, Secret: secret, Now: clock.Now},
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: clock.Now, Config: Defaults(), Metrics: newMetrics(nil),
	}
	m.Verifier = auth.NewVerifier(func(ctx context.Context) (auth.JWKS, error) {
		doc, err := m.Keyring.document(ctx)
		if err != nil {
			return auth.JWKS{}, err
		}
		return auth.ParseJWKS([]byte(doc))
	}, clock.Now)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return bundle{m, clock}
}

const password = "a fine long password"

// mailToken is the token of the newest mail of a kind, "" if none was asked for that somebody would get.
func (b bundle) newestToken(t *testing.T, kind string) string {
	t.Helper()
	var id ids.ID
	err := b.DB.Get(t.Context(), &id, `SELECT id FROM users.mails WHERE kind = $1 ORDER BY id DESC LIMIT 1`, kind)
	if pg.NoRows(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	link, err := b.MailLink(auth.WithCaller(t.Context(), "notifications"), usersapi.MailLinkRequest{Mail: id})
	if errs.Is(err, errs.NotFound) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return link.Token
}

func TestRegisterVerifyAndLogIn(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got, err := b.register(t.Context(), "Eve@Example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.Verifier.Verify(t.Context(), got.AccessToken)
	if err != nil || id.User != ids.ID(got.User.ID) {
		t.Fatalf("access token is for %+v, %v", id, err)
	}
	token := b.newestToken(t, "verify_email")
	if err := b.verify(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context(), token); !errs.Has(err, "invalid_token") {
		t.Errorf("a link works once: %v", err)
	}
	again, err := b.login(t.Context(), "eve@example.COM", password, "192.0.2.1")
	if err != nil || again.User.ID != got.User.ID {
		t.Errorf("login: %+v, %v", again.User, err)
	}
	if _, err := b.login(t.Context(), "eve@example.com", password+"x", "192.0.2.1"); !errs.Has(err, "invalid_credentials") {
		t.Errorf("wrong password: %v", err)
	}
}

func TestAKnownAddressCannotBeToldFromAnUnknownOne(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.register(t.Context(), "eve@example.com", password, "Eve"); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context(), b.newestToken(t, "verify_email")); err != nil {
		t.Fatal(err)
	}
	shape := func(v any, err error) string {
		b, _ := json.Marshal(v)
		var m map[string]any
		_ = json.Unmarshal(b, &m)
		keys := fmt.Sprint(len(m), err)
		for k, v := range m {
			if s, ok := v.(string); ok {
				keys += fmt.Sprint(k, len(s))
			}
		}
		return fmt.Sprint(len(keys), err)
	}
	work := func(f func()) int64 {
		before, _ := b.DB.Counts()
		f()
		after, _ := b.DB.Counts()
		return after - before
	}
	for name, do := range map[string]func(email string) string{
		"register": func(email string) string {
			v, err := b.register(t.Context(), email, password, "Eve")
			return shape(v, err)
		},
		"login": func(email string) string {
			v, err := b.login(t.Context(), email, "not the password", "192.0.2.1")
			return shape(v, err)
		},
		"reset": func(email string) string { return shape(nil, b.askReset(t.Context(), email)) },
	} {
		var known, unknown string
		do("somebody@example.com") // prepares the statements
		knownWork := work(func() { known = do("eve@example.com") })
		unknownWork := work(func() { unknown = do("nobody@example.com") })
		if known != unknown {
			t.Errorf("%s answers a known address %q and an unknown one %q", name, known, unknown)
		}
		if knownWork != unknownWork {
			t.Errorf("%s takes %d statements for a known address and %d for an unknown one", name, knownWork, unknownWork)
		}
	}
	if err := b.askReset(t.Context(), "never@example.com"); err != nil {
		t.Fatal(err)
	}
	if token := b.newestToken(t, "reset_password"); token != "" {
		t.Errorf("the newest reset, of an address nobody has, can be sent")
	}
}

func TestTheAddressBelongsToWhoVerifiesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.register(t.Context(), "eve@example.com", "the squatter's password", "Mallory"); err != nil {
		t.Fatal(err)
	}
	squatter := b.newestToken(t, "verify_email")
	if _, err := b.register(t.Context(), "eve@example.com", password, "Eve"); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context(), b.newestToken(t, "verify_email")); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context(), squatter); !errs.Has(err, "address_taken") {
		t.Errorf("second verification of an address: %v", err)
	}
	if _, err := b.login(t.Context(), "eve@example.com", "the squatter's password", ""); !errs.Has(err, "invalid_credentials") {
		t.Errorf("the squatter logs in: %v", err)
	}
}

func TestRefreshRotatesAndForgivesRaces(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	// Fifty requests of one client with the same token: all get the same next one, nobody is logged out.
	var mu sync.Mutex
	next := map[string]int{}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			got, err := b.refresh(t.Context(), first.RefreshToken)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("racing refresh: %v", err)
			}
			next[got.RefreshToken]++
		})
	}
	wg.Wait()
	if len(next) != 1 {
		t.Fatalf("%d different successors", len(next))
	}
	var second string
	for second = range next {
	}
	if second == first.RefreshToken {
		t.Fatal("the token did not change")
	}
	third, err := b.refresh(t.Context(), second)
	if err != nil {
		t.Fatal(err)
	}
	// A token from before the last is a theft: the thief and the owner are both out.
	if _, err := b.refresh(t.Context(), first.RefreshToken); !errs.Has(err, "invalid_refresh_token") {
		t.Errorf("replay: %v", err)
	}
	if _, err := b.refresh(t.Context(), third.RefreshToken); !errs.Has(err, "invalid_refresh_token") {
		t.Errorf("after a replay the session lives on: %v", err)
	}
}

func TestThePreviousRefreshTokenWorksOnlyForTheOverlap(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.refresh(t.Context(), first.RefreshToken); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(b.Config.RefreshOverlap + time.Second)
	if _, err := b.refresh(t.Context(), first.RefreshToken); !errs.Has(err, "invalid_refresh_token") {
		t.Errorf("after the overlap: %v", err)
	}
}

func TestForgedRefreshTokensDoNotEndASession(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	session := got.RefreshToken[:strings.IndexByte(got.RefreshToken, '.')]
	for _, forged := range []string{"", "x", session + ".0.", session + ".99." + strings.Repeat("A", 43), "ses_none.0.x", strings.Repeat(".", 10_000)} {
		if _, err := b.refresh(t.Context(), forged); !errs.Has(err, "invalid_refresh_token") {
			t.Errorf("forged %.40q: %v", forged, err)
		}
	}
	if _, err := b.refresh(t.Context(), got.RefreshToken); err != nil {
		t.Errorf("the genuine one: %v", err)
	}
}

func TestAResetEndsAllSessions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	got, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.askReset(t.Context(), "eve@example.com"); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(time.Second)
	if err := b.reset(t.Context(), b.newestToken(t, "reset_password"), "another fine password"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.refresh(t.Context(), got.RefreshToken); !errs.Has(err, "invalid_refresh_token") {
		t.Errorf("refresh after the reset: %v", err)
	}
	b.onSessionsEnded(t.Context(), usersapi.SessionsEnded{User: got.User.ID, NotBefore: b.Now()})
	if _, err := b.Verifier.Verify(t.Context(), got.AccessToken); !errs.Is(err, errs.Unauthenticated) {
		t.Errorf("access token after the reset: %v", err)
	}
	if _, err := b.login(t.Context(), "eve@example.com", "another fine password", ""); err != nil {
		t.Errorf("login with the new password: %v", err)
	}
}

func TestAResetEndsTheOtherLinksOfThatKind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.register(t.Context(), "eve@example.com", password, "Eve"); err != nil {
		t.Fatal(err)
	}
	var tokens []string
	for range 2 {
		if err := b.askReset(t.Context(), "eve@example.com"); err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, b.newestToken(t, "reset_password"))
	}
	if err := b.reset(t.Context(), tokens[1], "another fine password"); err != nil {
		t.Fatal(err)
	}
	if err := b.reset(t.Context(), tokens[0], "the password of a thief"); !errs.Has(err, "invalid_token") {
		t.Errorf("the other link: %v", err)
	}
	if err := b.verify(t.Context(), b.newestToken(t, "verify_email")); err != nil {
		t.Errorf("links of other kinds live on: %v", err)
	}
}

// Two addresses that the database takes for one may be two people's: of the second, only the account's own gets mail.
func TestMailsGoToTheAccountsAddressHoweverItWasTyped(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.register(t.Context(), "eve@example.com", password, "Eve"); err != nil {
		t.Fatal(err)
	}
	if err := b.verify(t.Context(), b.newestToken(t, "verify_email")); err != nil {
		t.Fatal(err)
	}
	if err := b.askReset(t.Context(), "EVE@example.com"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.register(t.Context(), "Eve@Example.com", password, "Mallory"); err != nil {
		t.Fatal(err)
	}
	var mails []mailRow
	err := b.DB.Select(t.Context(), &mails, `SELECT `+mailColumns+` FROM users.mails WHERE kind IN ('reset_password', 'address_taken')`)
	if err != nil || len(mails) != 2 {
		t.Fatalf("%d mails, %v", len(mails), err)
	}
	for _, m := range mails {
		if m.Email != "eve@example.com" {
			t.Errorf("%s goes to %s", m.Kind, m.Email)
		}
	}
}

func TestWrongPasswordsSlowDownButLockNobodyOut(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if _, err := b.register(t.Context(), "eve@example.com", password, "Eve"); err != nil {
		t.Fatal(err)
	}
	for range freeByAccount + 1 {
		if _, err := b.login(t.Context(), "eve@example.com", "wrong", "192.0.2.1"); !errs.Has(err, "invalid_credentials") {
			t.Fatalf("wrong password: %v", err)
		}
	}
	var told struct {
		RetryAfter int64 `json:"retry_after"`
	}
	_, err := b.login(t.Context(), "eve@example.com", password, "192.0.2.2")
	if !errs.Has(err, "login_delayed") || !errs.DetailsInto(err, &told) || told.RetryAfter < 1 {
		t.Errorf("at once after the free tries: %v, wait %d s", err, told.RetryAfter)
	}
	b.clock.Advance(longestDelay)
	if _, err := b.login(t.Context(), "eve@example.com", password, "192.0.2.2"); err != nil {
		t.Errorf("after the longest delay: %v", err)
	}
	if _, err := b.login(t.Context(), "eve@example.com", "wrong", "192.0.2.1"); !errs.Has(err, "invalid_credentials") {
		t.Errorf("a right password forgives the account: %v", err)
	}
}

func TestPasswordsAndAddressesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ email, password, field string }{
		{"eve", password, "/email"}, {"Eve <eve@example.com>", password, "/email"}, {"", password, "/email"},
		{"eve@example.com", "short", "/password"}, {"eve@example.com", strings.Repeat("x", 129), "/password"},
		{"eve@example.com", "Password123", "/password"},
	} {
		err := checkAccount(c.email, c.password)
		var e *errs.Error
		if !errs.Is(err, errs.Invalid) {
			t.Errorf("%q, %q: %v", c.email, c.password, err)
			continue
		}
		e = err.(*errs.Error)
		if len(e.Fields) != 1 || e.Fields[0].Pointer != c.field {
			t.Errorf("%q, %q: %+v, want %s", c.email, c.password, e.Fields, c.field)
		}
	}
	if err := checkAccount("eve+shop@example.com", password); err != nil {
		t.Error(err)
	}
}

func TestTheAddressBookIsItsOwnersAlone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := auth.WithCaller(t.Context(), "orders")
	eve, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	a, err := b.addAddress(t.Context(), ids.ID(eve.User.ID), usersapi.Address{Name: "Eve", Line1: "Main 1", City: "Berlin", Postcode: "10115", Country: "DE"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.Address(ctx, usersapi.AddressRequest{User: ids.ID(eve.User.ID), ID: a.ID}); err != nil || got != a {
		t.Errorf("own address: %+v, %v", got, err)
	}
	if _, err := b.Address(ctx, usersapi.AddressRequest{User: "usr_other", ID: a.ID}); !errs.Is(err, errs.NotFound) {
		t.Errorf("somebody else's: %v", err)
	}
	if _, err := b.Address(auth.WithCaller(t.Context(), "reviews"), usersapi.AddressRequest{User: ids.ID(eve.User.ID), ID: a.ID}); !errs.Is(err, errs.Forbidden) {
		t.Errorf("asked by reviews: %v", err)
	}
	for name, bad := range map[string]usersapi.Address{
		"no such country":    {Country: "XX", Postcode: "1"},
		"no region in US":    {Country: "US", Postcode: "1"},
		"no postcode in DE":  {Country: "DE"},
		"lower case country": {Country: "de", Postcode: "1"},
	} {
		if err := checkAddress(bad); !errs.Has(err, "invalid_address") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestATokenOutlivesItsAccount(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := auth.WithIdentity(t.Context(), auth.Identity{User: "usr_gone"})
	for what, do := range map[string]func() error{
		"read it":      func() error { _, err := b.getMe(ctx, nil); return err },
		"rename it":    func() error { in := &patchInput{}; in.Body.Name = "Eve"; _, err := b.patchMe(ctx, in); return err },
		"ask for mail": func() error { _, err := b.postVerificationMail(ctx, nil); return err },
		"add addresses": func() error {
			_, err := b.addAddress(ctx, "usr_gone", usersapi.Address{Name: "Eve", Line1: "Main 1", City: "Berlin", Postcode: "10115", Country: "DE"})
			return err
		},
	} {
		if err := do(); !errs.Is(err, errs.NotFound) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestKeysAreSharedAndRotated(t *testing.T) {
	t.Parallel()
	b := setup(t)
	other := &Keyring{DB: b.DB, Secret: b.Secret, Now: b.Now}
	if err := other.load(t.Context(), b.Config.RotateKeys); err != nil {
		t.Fatal(err)
	}
	if other.live.Load().Current.ID != b.Keyring.live.Load().Current.ID {
		t.Fatal("two instances sign with different keys")
	}
	token, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	before := b.Keyring.live.Load()
	b.clock.Advance(b.Config.RotateKeys + time.Second)
	if err := b.Keyring.load(t.Context(), b.Config.RotateKeys); err != nil {
		t.Fatal(err)
	}
	after := b.Keyring.live.Load()
	if after.Current.ID != before.Next.ID || len(after.Retiring) != 1 {
		t.Errorf("rotated from %s (next %s) to %s with %d retiring", before.Current.ID, before.Next.ID, after.Current.ID, len(after.Retiring))
	}
	fresh, err := b.refresh(t.Context(), token.RefreshToken)
	if err == nil {
		_, err = b.Verifier.Verify(t.Context(), fresh.AccessToken)
	}
	if err == nil {
		t.Error("the session outlived its 720 hours")
	}
	b.clock.Advance(auth.RotateAfter)
	if err := b.Keyring.load(t.Context(), b.Config.RotateKeys); err != nil {
		t.Fatal(err)
	}
	if left := b.Keyring.live.Load(); len(left.Retiring) != 0 || left.Current.ID != after.Current.ID {
		t.Errorf("%d keys still vouch after they have retired for good", len(left.Retiring))
	}
	wrong := &Keyring{DB: b.DB, Secret: auth.NewSecret(), Now: b.Now}
	if err := wrong.load(t.Context(), b.Config.RotateKeys); err == nil {
		t.Error("keys opened with another secret")
	}
}

func TestOnlyTheCommandLineMakesUsers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := usersapi.CreateRequest{Key: "k", Email: "ada@example.com", Password: password, Role: "admin"}
	if _, err := b.Create(auth.WithCaller(t.Context(), "orders"), r); !errs.Is(err, errs.Forbidden) {
		t.Errorf("by a module: %v", err)
	}
	ctx := auth.WithCaller(t.Context(), "shop")
	first, err := b.Create(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	r.Password = "another fine password"
	again, err := b.Create(ctx, r)
	if err != nil || again.ID != first.ID {
		t.Errorf("again: %+v, %v; want the same user", again, err)
	}
	got, err := b.login(t.Context(), "ada@example.com", "another fine password", "")
	if err != nil {
		t.Fatal(err)
	}
	id, err := b.Verifier.Verify(t.Context(), got.AccessToken)
	if err != nil || !id.Has("catalog:write") {
		t.Errorf("admin is %+v, %v", id, err)
	}
	r.Role = "emperor"
	if _, err := b.Create(ctx, r); !errs.Has(err, "unknown_role") {
		t.Errorf("unknown role: %v", err)
	}
}

func TestAFloodOfLoginsIsTurnedAway(t *testing.T) {
	t.Parallel()
	p, err := NewPasswords(1)
	if err != nil {
		t.Fatal(err)
	}
	for range cap(p.waiting) {
		p.waiting <- struct{}{}
	}
	if _, err := p.hash(t.Context(), password); !errs.Is(err, errs.Unavailable) {
		t.Errorf("hash in a flood: %v", err)
	}
}
