package users

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

const (
	maxAPIKeys    = 100         // of one user
	lastUsedEvery = time.Minute // how exact last_used_at is
)

// apiKeyRoutes are for staff: a key may do some of what its maker may. They are for people who signed in, so no key makes keys.
func (m *Module) apiKeyRoutes(r *web.Router) {
	web.Post(r, "/v1/api-keys", web.SignedIn, web.Route{
		ID: "createAPIKey", Tag: "users", Summary: "Make a key for a program; the answer alone shows it", Status: http.StatusCreated,
		Also: map[int]string{http.StatusForbidden: "You do not hold a permission that the key is to have"},
	}, m.postAPIKey)
	web.Get(r, "/v1/api-keys", web.SignedIn, web.Route{ID: "listAPIKeys", Tag: "users", Summary: "My API keys"}, m.getAPIKeys)
	web.Delete(r, "/v1/api-keys/{id}", web.SignedIn, web.Route{
		ID: "revokeAPIKey", Tag: "users", Summary: "End an API key for good", Status: http.StatusNoContent,
	}, m.deleteAPIKey)
}

// apiKey is a row of users.api_keys.
type apiKey struct {
	ID        ids.ID      `db:"id"`
	User      usersapi.ID `db:"user_id"`
	Name      string      `db:"name"`
	Prefix    string      `db:"prefix"`
	Hash      string      `db:"hash"`
	Scopes    pg.Strings  `db:"scopes"`
	CreatedAt time.Time   `db:"created_at"`
	ExpiresAt *time.Time  `db:"expires_at"`
	LastUsed  *time.Time  `db:"last_used_at"`
	RevokedAt *time.Time  `db:"revoked_at"`
}

// alive is nil while the key works.
func (k apiKey) alive(now time.Time) error {
	if k.RevokedAt != nil || k.ExpiresAt != nil && !now.Before(*k.ExpiresAt) {
		return errs.NotFoundf("the API key was revoked or has expired")
	}
	return nil
}

// granted are the key's permissions that its owner still holds.
func (k apiKey) granted(owner []string) []string {
	held := scopesOf(owner)
	return slices.DeleteFunc(slices.Clone([]string(k.Scopes)), func(s string) bool { return !slices.Contains(held, s) })
}

// apiKeyView is a key as its owner sees it.
type apiKeyView struct {
	ID        ids.ID     `json:"id"`
	Key       string     `json:"key,omitempty" doc:"Send it as the Bearer token. Only the answer that made it shows it: keep it like a password"`
	Name      string     `json:"name"`
	Prefix    string     `json:"prefix" doc:"How the key begins" example:"byk_0h2k9m4t"`
	Scopes    []string   `json:"scopes"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"None: it lasts until it is revoked"`
	LastUsed  *time.Time `json:"last_used_at,omitempty" doc:"To the minute or so"`
}

func viewOf(k apiKey) apiKeyView {
	return apiKeyView{ID: k.ID, Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt, LastUsed: k.LastUsed}
}

type apiKeyInput struct {
	Body struct {
		Name      string     `json:"name" minLength:"1" maxLength:"120" example:"warehouse scanner"`
		Scopes    []string   `json:"scopes" minItems:"1" maxItems:"50" doc:"Permissions of the key: some of your own" example:"[\"stock:write\"]"`
		ExpiresAt *time.Time `json:"expires_at,omitempty" doc:"None: it lasts until it is revoked"`
	}
}

// postAPIKey takes no Idempotency-Key: a kept answer would keep the key. Whoever lost the answer revokes the key by its name.
func (m *Module) postAPIKey(ctx context.Context, in *apiKeyInput) (*web.Reply[apiKeyView], error) {
	k, key, err := m.makeAPIKey(ctx, auth.From(ctx), in.Body.Name, in.Body.Scopes, in.Body.ExpiresAt)
	if err != nil {
		return nil, err
	}
	v := viewOf(k)
	v.Key = key
	return &web.Reply[apiKeyView]{Status: http.StatusCreated, Body: v}, nil
}

func (m *Module) getAPIKeys(ctx context.Context, _ *struct{}) (*web.Reply[web.Page[apiKeyView]], error) {
	rows, err := apiKeysOf(ctx, m.DB, usersapi.ID(auth.From(ctx).User))
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	page := web.Page[apiKeyView]{Data: make([]apiKeyView, len(rows))}
	for i, r := range rows {
		page.Data[i] = viewOf(r)
	}
	return &web.Reply[web.Page[apiKeyView]]{Body: page}, nil
}

type apiKeyIDInput struct {
	ID ids.ID `path:"id" maxLength:"40"`
}

func (m *Module) deleteAPIKey(ctx context.Context, in *apiKeyIDInput) (*web.Reply[none], error) {
	if err := m.revokeAPIKey(ctx, usersapi.ID(auth.From(ctx).User), in.ID); err != nil {
		return nil, err
	}
	return &web.Reply[none]{Status: http.StatusNoContent}, nil
}

// makeAPIKey makes a key for some of what its maker may do, by the token and, since that may be some minutes old, by the roles of
// this moment. It also returns the key itself, which nobody can know later. Codes: forbidden, scope_not_held, too_many_api_keys.
func (m *Module) makeAPIKey(ctx context.Context, maker auth.Identity, name string, scopes []string, expires *time.Time) (apiKey, string, error) {
	if !maker.SignedIn() {
		return apiKey{}, "", errs.New(errs.Forbidden, "", "an API key is made by a person who signed in")
	}
	now := m.Now().UTC()
	if expires != nil && !expires.After(now) {
		return apiKey{}, "", errs.Invalidf("validation_failed", "the key would have expired already").WithField("/expires_at", "past")
	}
	scopes = slices.Clone(scopes)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	key := auth.NewAPIKey()
	k := apiKey{
		ID: ids.New[ids.ID]("key"), User: usersapi.ID(maker.User), Name: name, Prefix: auth.APIKeyPrefix(key), Hash: auth.HashAPIKey(key),
		Scopes: scopes, CreatedAt: now, ExpiresAt: expires,
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		roles, err := lockRoles(ctx, tx, k.User)
		if pg.NoRows(err) {
			return noAccount()
		}
		if err != nil {
			return err
		}
		held := scopesOf(roles)
		for _, s := range scopes {
			if !maker.Has(s) || !slices.Contains(held, s) {
				return errs.New(errs.Forbidden, "scope_not_held", "a key can't have the permission %s, which you do not hold", s)
			}
		}
		n, err := countAPIKeys(ctx, tx, k.User)
		if err != nil {
			return err
		}
		if n >= maxAPIKeys {
			return errs.Conflictf("too_many_api_keys", "you have %d API keys: revoke one first", n)
		}
		return insertAPIKey(ctx, tx, k)
	})
	if err != nil {
		return apiKey{}, "", fmt.Errorf("make API key: %w", err)
	}
	return k, key, nil
}

// revokeAPIKey ends a key of that owner and tells every process that may remember it.
func (m *Module) revokeAPIKey(ctx context.Context, owner usersapi.ID, id ids.ID) error {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := endAPIKey(ctx, tx, owner, id, m.Now().UTC())
		if err != nil {
			return err
		}
		if n == 0 {
			return errs.NotFoundf("no such API key")
		}
		return events.Publish(ctx, tx, usersapi.APIKeyRevoked{Key: id})
	})
	if err != nil {
		return fmt.Errorf("revoke API key: %w", err)
	}
	return nil
}

// VerifyKey tells what an API key stands for at the moment. See usersapi.
func (m *Module) VerifyKey(ctx context.Context, r usersapi.VerifyKeyRequest) (usersapi.APIKey, error) {
	if err := auth.RequireModule(ctx, "host"); err != nil { // whoever checks tokens, in any process
		return usersapi.APIKey{}, err
	}
	k, roles, err := apiKeyByHash(ctx, m.DB, r.Hash)
	if pg.NoRows(err) {
		return usersapi.APIKey{}, errs.NotFoundf("no such API key")
	}
	if err != nil {
		return usersapi.APIKey{}, fmt.Errorf("verify API key: %w", err)
	}
	now := m.Now().UTC()
	if err := k.alive(now); err != nil {
		return usersapi.APIKey{}, err
	}
	if k.LastUsed == nil || now.Sub(*k.LastUsed) >= lastUsedEvery {
		if err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return touchAPIKey(ctx, tx, k.ID, now) }); err != nil {
			m.Log.WarnContext(ctx, "note the use of an API key", "key", k.ID, "err", err) // no reason to turn the key away
		}
	}
	found := usersapi.APIKey{ID: k.ID, Owner: k.User, Scopes: k.granted(roles)}
	if k.ExpiresAt != nil {
		found.ExpiresAt = *k.ExpiresAt
	}
	return found, nil
}

const apiKeyColumns = `id, user_id, name, prefix, hash, scopes, created_at, expires_at, last_used_at, revoked_at`

// lockRoles reads a user's roles so that one request at a time makes keys for the user.
func lockRoles(ctx context.Context, tx *pg.Tx, id usersapi.ID) (pg.Strings, error) {
	var roles pg.Strings
	err := tx.Get(ctx, &roles, `SELECT roles FROM users.users WHERE id = $1 FOR UPDATE`, id)
	return roles, err
}

func countAPIKeys(ctx context.Context, tx *pg.Tx, owner usersapi.ID) (int, error) {
	var n int
	err := tx.Get(ctx, &n, `SELECT count(*) FROM users.api_keys WHERE user_id = $1 AND revoked_at IS NULL`, owner)
	return n, err
}

func insertAPIKey(ctx context.Context, tx *pg.Tx, k apiKey) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.api_keys (id, user_id, name, prefix, hash, scopes, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		k.ID, k.User, k.Name, k.Prefix, k.Hash, k.Scopes, k.CreatedAt, k.ExpiresAt)
	return err
}

// apiKeysOf are the keys of a user that were not revoked, at most maxAPIKeys.
func apiKeysOf(ctx context.Context, q pg.Queryer, owner usersapi.ID) ([]apiKey, error) {
	var ks []apiKey
	err := q.Select(ctx, &ks, `
		SELECT `+apiKeyColumns+` FROM users.api_keys WHERE user_id = $1 AND revoked_at IS NULL ORDER BY created_at, id LIMIT 100`, owner)
	return ks, err
}

// apiKeyByHash is a key and its owner's roles.
func apiKeyByHash(ctx context.Context, q pg.Queryer, hash string) (apiKey, []string, error) {
	var row struct {
		apiKey
		Roles pg.Strings `db:"roles"`
	}
	err := q.Get(ctx, &row, `
		SELECT k.id, k.user_id, k.name, k.prefix, k.hash, k.scopes, k.created_at, k.expires_at, k.last_used_at, k.revoked_at, u.roles
		FROM users.api_keys k JOIN users.users u ON u.id = k.user_id WHERE k.hash = $1`, hash)
	return row.apiKey, row.Roles, err
}

// touchAPIKey notes that a key was used, unless somebody did within the minute.
func touchAPIKey(ctx context.Context, tx *pg.Tx, id ids.ID, now time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE users.api_keys SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2::timestamptz - interval '1 minute')`, id, now)
	return err
}

func endAPIKey(ctx context.Context, tx *pg.Tx, owner usersapi.ID, id ids.ID, now time.Time) (int64, error) {
	return tx.Exec(ctx, `UPDATE users.api_keys SET revoked_at = $3 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL`, id, owner, now)
}
