package users

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// user is a row of users.users.
type user struct {
	ID         usersapi.ID `db:"id"`
	Email      string      `db:"email"`
	Name       string      `db:"name"`
	Hash       string      `db:"password_hash"`
	Roles      pg.Strings  `db:"roles"`
	Locale     string      `db:"locale"`
	VerifiedAt *time.Time  `db:"verified_at"`
	CreatedAt  time.Time   `db:"created_at"`
}

const userColumns = `id, email, name, password_hash, roles, locale, verified_at, created_at`

func insertUser(ctx context.Context, tx *pg.Tx, u user) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.users (id, email, name, password_hash, roles, verified_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		u.ID, u.Email, u.Name, u.Hash, u.Roles, u.VerifiedAt, u.CreatedAt)
	return err
}

// upsertVerified makes a verified user, or gives the one with that address the name, password and roles.
func upsertVerified(ctx context.Context, tx *pg.Tx, u user) (user, error) {
	var stored user
	err := tx.Get(ctx, &stored, `
		INSERT INTO users.users (id, email, name, password_hash, roles, verified_at, created_at) VALUES ($1, $2, $3, $4, $5, $6, $6)
		ON CONFLICT (lower(email)) WHERE verified_at IS NOT NULL
		DO UPDATE SET name = excluded.name, password_hash = excluded.password_hash, roles = excluded.roles
		RETURNING `+userColumns, u.ID, u.Email, u.Name, u.Hash, u.Roles, u.CreatedAt)
	return stored, err
}

func userByID(ctx context.Context, q pg.Queryer, id usersapi.ID) (user, error) {
	var u user
	err := q.Get(ctx, &u, `SELECT `+userColumns+` FROM users.users WHERE id = $1`, id)
	return u, err
}

// userForLogin is the verified user of an address, else the newest unverified one made after a time.
func userForLogin(ctx context.Context, q pg.Queryer, email string, after time.Time) (user, error) {
	var u user
	err := q.Get(ctx, &u, `
		SELECT `+userColumns+` FROM (
			(SELECT `+userColumns+` FROM users.users WHERE lower(email) = lower($1) AND verified_at IS NOT NULL)
			UNION ALL
			(SELECT `+userColumns+` FROM users.users
			WHERE lower(email) = lower($1) AND verified_at IS NULL AND created_at > $2
			ORDER BY created_at DESC LIMIT 1)
		) AS candidates
		ORDER BY verified_at IS NULL LIMIT 1`, email, after)
	return u, err
}

// verifiedAddress is an address as the account that verified it has it, "" if none has.
func verifiedAddress(ctx context.Context, q pg.Queryer, email string) (string, error) {
	var known string
	err := q.Get(ctx, &known, `
		SELECT coalesce((SELECT email FROM users.users WHERE lower(email) = lower($1) AND verified_at IS NOT NULL), '')`, email)
	return known, err
}

func setVerified(ctx context.Context, tx *pg.Tx, id usersapi.ID, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE users.users SET verified_at = coalesce(verified_at, $2) WHERE id = $1`, id, at)
	return err
}

func setPassword(ctx context.Context, tx *pg.Tx, id usersapi.ID, hash string) error {
	_, err := tx.Exec(ctx, `UPDATE users.users SET password_hash = $2 WHERE id = $1`, id, hash)
	return err
}

func setName(ctx context.Context, tx *pg.Tx, id usersapi.ID, name string) (user, error) {
	var u user
	err := tx.Get(ctx, &u, `UPDATE users.users SET name = $2 WHERE id = $1 RETURNING `+userColumns, id, name)
	return u, err
}

func setNotBefore(ctx context.Context, tx *pg.Tx, id usersapi.ID, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE users.users SET not_before = greatest(not_before, $2) WHERE id = $1`, id, at)
	return err
}

// endedSince is who was logged out everywhere after a time, the newest first, should they be that many.
func endedSince(ctx context.Context, q pg.Queryer, after time.Time) ([]usersapi.Ended, error) {
	var rows []struct {
		User      ids.ID    `db:"id"`
		NotBefore time.Time `db:"not_before"`
	}
	err := q.Select(ctx, &rows, `SELECT id, not_before FROM users.users WHERE not_before > $1 ORDER BY not_before DESC LIMIT 10000`, after)
	ended := make([]usersapi.Ended, len(rows))
	for i, r := range rows {
		ended[i] = usersapi.Ended(r)
	}
	return ended, err
}

const sessionColumns = `id, user_id, nonce, generation, created_at, rotated_at, expires_at, revoked_at`

func insertSession(ctx context.Context, tx *pg.Tx, s session) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.sessions (id, user_id, nonce, generation, created_at, rotated_at, expires_at) VALUES ($1, $2, $3, $4, $5, $5, $6)`,
		s.ID, s.User, s.Nonce, s.Generation, s.CreatedAt, s.ExpiresAt)
	return err
}

func lockSession(ctx context.Context, tx *pg.Tx, id ids.ID) (session, error) {
	var s session
	err := tx.Get(ctx, &s, `SELECT `+sessionColumns+` FROM users.sessions WHERE id = $1 FOR UPDATE`, id)
	return s, err
}

func rotateSession(ctx context.Context, tx *pg.Tx, s session) error {
	_, err := tx.Exec(ctx, `
		UPDATE users.sessions SET generation = $2, rotated_at = $3, expires_at = $4 WHERE id = $1`,
		s.ID, s.Generation, s.RotatedAt, s.ExpiresAt)
	return err
}

func revokeSession(ctx context.Context, tx *pg.Tx, id ids.ID, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE users.sessions SET revoked_at = coalesce(revoked_at, $2) WHERE id = $1`, id, at)
	return err
}

func revokeSessions(ctx context.Context, tx *pg.Tx, user usersapi.ID, at time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE users.sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL`, user, at)
	return err
}

const mailColumns = `id, kind, user_id, email, created_at, expires_at, used_at`

func insertMail(ctx context.Context, tx *pg.Tx, r mailRow) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.mails (id, kind, user_id, email, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6)`,
		r.ID, r.Kind, r.User, r.Email, r.CreatedAt, r.ExpiresAt)
	return err
}

func mailByID(ctx context.Context, q pg.Queryer, id ids.ID) (mailRow, error) {
	var r mailRow
	err := q.Get(ctx, &r, `SELECT `+mailColumns+` FROM users.mails WHERE id = $1`, id)
	return r, err
}

// takeMail uses a mail up; no row when it is of another kind, used or out of date.
func takeMail(ctx context.Context, tx *pg.Tx, id ids.ID, kind string, now time.Time) (mailRow, error) {
	var r mailRow
	err := tx.Get(ctx, &r, `
		UPDATE users.mails SET used_at = $3 WHERE id = $1 AND kind = $2 AND used_at IS NULL AND expires_at > $3
		RETURNING `+mailColumns, id, kind, now)
	return r, err
}

// dropMails makes what is left of a user's mails of a kind useless.
func dropMails(ctx context.Context, tx *pg.Tx, user usersapi.ID, kind string, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE users.mails SET used_at = $3 WHERE user_id = $1 AND kind = $2 AND used_at IS NULL`, user, kind, now)
	return err
}

// address is a row of users.addresses.
type address struct{ usersapi.Address }

const addressColumns = `id, name, line1, line2, city, region, postcode, country, phone`

func insertAddress(ctx context.Context, tx *pg.Tx, owner ids.ID, a usersapi.Address, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.addresses (id, user_id, name, line1, line2, city, region, postcode, country, phone, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
		a.ID, owner, a.Name, a.Line1, a.Line2, a.City, a.Region, a.Postcode, a.Country, a.Phone, now)
	return err
}

func addressOf(ctx context.Context, q pg.Queryer, owner, id ids.ID) (address, error) {
	var a address
	err := q.Get(ctx, &a, `SELECT `+addressColumns+` FROM users.addresses WHERE id = $1 AND user_id = $2`, id, owner)
	return a, err
}

func addressesOf(ctx context.Context, q pg.Queryer, owner ids.ID) ([]address, error) {
	var as []address
	err := q.Select(ctx, &as, `SELECT `+addressColumns+` FROM users.addresses WHERE user_id = $1 ORDER BY created_at, id LIMIT 100`, owner)
	return as, err
}

func deleteAddress(ctx context.Context, tx *pg.Tx, owner, id ids.ID) (int64, error) {
	return tx.Exec(ctx, `DELETE FROM users.addresses WHERE id = $1 AND user_id = $2`, id, owner)
}

func delayedUntil(ctx context.Context, q pg.Queryer, subjects []string) (time.Time, error) {
	var until time.Time
	err := q.Get(ctx, &until, `
		SELECT coalesce(max(until), 'epoch') FROM users.login_failures WHERE subject = ANY($1)`, pg.Array(subjects))
	return until, err
}

// addFailure counts a wrong password and doubles the wait for each beyond the free ones, up to a minute. A quiet hour
// forgives.
func addFailure(ctx context.Context, tx *pg.Tx, subject string, free int, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.login_failures AS f (subject, failures, until, last_at) VALUES ($1, 1, $3, $3)
		ON CONFLICT (subject) DO UPDATE SET
			failures = CASE WHEN f.last_at < $3 - interval '1 hour' THEN 1 ELSE f.failures + 1 END,
			until = CASE WHEN f.last_at >= $3 - interval '1 hour' AND f.failures + 1 > $2
				THEN $3 + least($4::bigint, (1 << least(f.failures + 1 - $2, 20))::bigint) * interval '1 second' ELSE $3 END,
			last_at = $3`, subject, free, now, int64(longestDelay/time.Second))
	return err
}

func forgetFailures(ctx context.Context, tx *pg.Tx, subject string) error {
	_, err := tx.Exec(ctx, `DELETE FROM users.login_failures WHERE subject = $1`, subject)
	return err
}

// lockKeys reads the keys so that only one instance at a time may change them.
func lockKeys(ctx context.Context, tx *pg.Tx) ([]keyRow, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock(7135001)`); err != nil {
		return nil, err
	}
	var rows []keyRow
	err := tx.Select(ctx, &rows, `SELECT id, state, sealed, made_at, until FROM users.signing_keys ORDER BY made_at`)
	return rows, err
}

func deleteKeys(ctx context.Context, tx *pg.Tx) error {
	_, err := tx.Exec(ctx, `DELETE FROM users.signing_keys`)
	return err
}

func insertKey(ctx context.Context, tx *pg.Tx, r keyRow) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users.signing_keys (id, state, sealed, made_at, until) VALUES ($1, $2, $3, $4, $5)`,
		r.ID, r.State, r.Sealed, r.MadeAt, r.Until)
	return err
}

// deleteExpired forgets up to 1,000 each of ended sessions and old mails and failures.
func deleteExpired(ctx context.Context, tx *pg.Tx, now time.Time) error {
	if _, err := tx.Exec(ctx, `
		DELETE FROM users.sessions WHERE id IN (SELECT id FROM users.sessions WHERE expires_at < $1 LIMIT 1000)`, now); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		DELETE FROM users.mails WHERE id IN (SELECT id FROM users.mails WHERE expires_at < $1 LIMIT 1000)`, now); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		DELETE FROM users.login_failures
		WHERE subject IN (SELECT subject FROM users.login_failures WHERE last_at < $1::timestamptz - interval '1 day' LIMIT 1000)`, now)
	return err
}
