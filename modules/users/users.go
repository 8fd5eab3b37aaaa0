// Package users knows the people: accounts, logins, roles and addresses, and the API keys they give to programs. It makes the
// tokens that every other part of the shop checks by itself with the public keys. It does not send mail: it asks for it by an
// event, and tells the link when asked.
package users

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/bojanz/currency"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Module is the users module.
type Module struct {
	DB        *pg.DB
	Secret    auth.Secret
	Verifier  *auth.Verifier // told of sessions that ended
	Passwords *Passwords
	Keyring   *Keyring
	Log       *slog.Logger
	Metrics   *metrics
	Now       func() time.Time
	Config    Config
}

// Config is the block "users" of the settings.
type Config struct {
	// AccessTTL is the life of an access token, at most 5m. Default 5m.
	AccessTTL time.Duration `yaml:"access_ttl"`
	// RefreshTTL is how long a login lasts unused. Default 720h.
	RefreshTTL time.Duration `yaml:"refresh_ttl"`
	// RefreshOverlap is how long the token before the last is answered with the last, for a client whose reply was lost or
	// whose requests race. Default 30s.
	RefreshOverlap time.Duration `yaml:"refresh_overlap"`
	// MailTTL is how long a link in a mail works. Default 168h.
	MailTTL time.Duration `yaml:"mail_ttl"`
	// RotateKeys is how often the signing key changes. Default 720h.
	RotateKeys time.Duration `yaml:"rotate_keys"`
	// ParallelHashes bounds how many passwords are hashed at a time, 19 MiB each. Default 2.
	ParallelHashes int `yaml:"parallel_hashes"`
	// LoginDelays slows repeated wrong passwords by account and by client address. Default true.
	LoginDelays bool `yaml:"login_delays"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config {
	return Config{
		AccessTTL: auth.MaxAccessTTL, RefreshTTL: 720 * time.Hour, RefreshOverlap: 30 * time.Second, MailTTL: 168 * time.Hour,
		RotateKeys: 720 * time.Hour, ParallelHashes: 2, LoginDelays: true,
	}
}

// Validate says what to change.
func (c Config) Validate() error {
	switch {
	case c.AccessTTL < time.Second || c.AccessTTL > auth.MaxAccessTTL:
		return fmt.Errorf("access_ttl must be from 1s to %s", auth.MaxAccessTTL)
	case c.RefreshTTL < c.AccessTTL:
		return fmt.Errorf("refresh_ttl must not be below access_ttl")
	case c.RotateKeys < auth.RotateAfter:
		return fmt.Errorf("rotate_keys must be at least %s, or tokens would outlive their key", auth.RotateAfter)
	case c.ParallelHashes < 1:
		return fmt.Errorf("parallel_hashes must be at least 1")
	}
	return nil
}

var _ usersapi.Users = (*Module)(nil)

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { usersapi.Mount(s, m) }

// Subscribe hears in every instance that sessions and API keys ended, so that they are refused within moments.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.Broadcast(s, m.onSessionsEnded)
	events.Broadcast(s, m.onAPIKeyRevoked)
}

func (m *Module) onSessionsEnded(_ context.Context, e usersapi.SessionsEnded) {
	m.Verifier.Revoke(ids.ID(e.User), e.NotBefore)
}

func (m *Module) onAPIKeyRevoked(_ context.Context, e usersapi.APIKeyRevoked) {
	m.Verifier.RevokeAPIKey(e.Key)
}

// rememberEnded is how long a token issued before a revocation may be alive by anybody's clock.
const rememberEnded = auth.MaxAccessTTL + time.Minute

// Keys are the public keys and the recent revocations. See usersapi.
func (m *Module) Keys(ctx context.Context, _ usersapi.KeysRequest) (usersapi.Keys, error) {
	doc, err := m.Keyring.document(ctx)
	if err != nil {
		return usersapi.Keys{}, err
	}
	ended, err := endedSince(ctx, m.DB, m.Now().UTC().Add(-rememberEnded))
	if err != nil {
		return usersapi.Keys{}, fmt.Errorf("recent revocations: %w", err)
	}
	return usersapi.Keys{JWKS: doc, Ended: ended}, nil
}

// Address is an entry of an address book. See usersapi.
func (m *Module) Address(ctx context.Context, r usersapi.AddressRequest) (usersapi.Address, error) {
	if err := auth.RequireModule(ctx, "orders", "cart"); err != nil {
		return usersapi.Address{}, err
	}
	a, err := addressOf(ctx, m.DB, r.User, r.ID)
	if pg.NoRows(err) {
		return usersapi.Address{}, errs.NotFoundf("no such address")
	}
	if err != nil {
		return usersapi.Address{}, fmt.Errorf("address %s: %w", r.ID, err)
	}
	return a.Address, nil
}

// Contact tells where to write to a user. See usersapi.
func (m *Module) Contact(ctx context.Context, r usersapi.ContactRequest) (usersapi.Contact, error) {
	if err := auth.RequireModule(ctx, "notifications"); err != nil {
		return usersapi.Contact{}, err
	}
	u, err := userByID(ctx, m.DB, usersapi.ID(r.User))
	if pg.NoRows(err) {
		return usersapi.Contact{}, errs.NotFoundf("no such user")
	}
	if err != nil {
		return usersapi.Contact{}, fmt.Errorf("contact of %s: %w", r.User, err)
	}
	return usersapi.Contact{Email: u.Email, Name: u.Name, Locale: u.Locale}, nil
}

// Create makes a user who needs no verification. See usersapi.
func (m *Module) Create(ctx context.Context, r usersapi.CreateRequest) (usersapi.User, error) {
	if id := auth.From(ctx); id.Module != "shop" { // the command line; no module makes users
		return usersapi.User{}, errs.New(errs.Forbidden, "", "users are made by registering or on the command line")
	}
	if _, known := scopes[r.Role]; !known {
		return usersapi.User{}, errs.Invalidf("unknown_role", "the role is customer, support, merchant or admin")
	}
	if r.Name == "" {
		r.Name, _, _ = strings.Cut(r.Email, "@")
	}
	if err := checkAccount(r.Email, r.Password); err != nil {
		return usersapi.User{}, err
	}
	hash, err := m.Passwords.hash(ctx, r.Password)
	if err != nil {
		return usersapi.User{}, err
	}
	u := user{ID: ids.New[usersapi.ID]("usr"), Email: r.Email, Name: r.Name, Hash: hash, Roles: []string{r.Role}, CreatedAt: m.Now().UTC()}
	var created user
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		created, err = upsertVerified(ctx, tx, u)
		if err != nil || created.ID == u.ID {
			return err
		}
		return m.endSessions(ctx, tx, created.ID) // a role or password changed
	})
	if err != nil {
		return usersapi.User{}, fmt.Errorf("create user: %w", err)
	}
	return usersapi.User{ID: created.ID, Email: created.Email, Name: created.Name}, nil
}

// endSessions logs a user out everywhere, within tx.
func (m *Module) endSessions(ctx context.Context, tx *pg.Tx, id usersapi.ID) error {
	now := m.Now().UTC()
	if err := revokeSessions(ctx, tx, id, now); err != nil {
		return err
	}
	if err := setNotBefore(ctx, tx, id, now); err != nil {
		return err
	}
	return events.Publish(ctx, tx, usersapi.SessionsEnded{User: id, NotBefore: now})
}

// scopes are what each role may do beside what every customer may.
var scopes = map[string][]string{
	"customer": nil,
	"support":  {"orders:read_all", "catalog:read_all"},
	"merchant": {"catalog:read_all", "catalog:write", "stock:write", "orders:read_all", "orders:write", "shipments:write", "reviews:moderate"},
	"admin":    {"catalog:read_all", "catalog:write", "stock:write", "orders:read_all", "orders:write", "shipments:write", "reviews:moderate", "users:write"},
}

// scopesOf are the permissions of some roles together.
func scopesOf(roles []string) []string {
	var all []string
	for _, r := range roles {
		all = append(all, scopes[r]...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// checkAddress says what is missing in an address of that country.
func checkAddress(a usersapi.Address) error {
	e := errs.Invalidf("invalid_address", "the address is not complete")
	if _, known := currency.ForCountryCode(a.Country); !known {
		e.WithField("/country", "unknown")
	}
	if slices.Contains(regionRequired, a.Country) && a.Region == "" {
		e.WithField("/region", "required")
	}
	if !slices.Contains(noPostcode, a.Country) && a.Postcode == "" {
		e.WithField("/postcode", "required")
	}
	if len(e.Fields) > 0 {
		return e
	}
	return nil
}

var (
	regionRequired = []string{"AU", "BR", "CA", "CN", "IN", "MX", "US"}
	noPostcode     = []string{"AE", "HK", "IE", "PA", "QA"}
)

// noAccount answers whoever has a token for an account that is gone.
func noAccount() error { return errs.NotFoundf("no such account") }

// addAddress stores an address in a user's book.
func (m *Module) addAddress(ctx context.Context, owner ids.ID, a usersapi.Address) (usersapi.Address, error) {
	if err := checkAddress(a); err != nil {
		return usersapi.Address{}, err
	}
	a.ID = ids.New[ids.ID]("adr")
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := insertAddress(ctx, tx, owner, a, m.Now()); err != nil {
			return err
		}
		return web.SaveReply(ctx, tx, 201, "", a)
	})
	if pg.IsForeignKey(err, "addresses_user_id_fkey") {
		return usersapi.Address{}, noAccount()
	}
	if err != nil {
		return usersapi.Address{}, fmt.Errorf("add address: %w", err)
	}
	return a, nil
}
