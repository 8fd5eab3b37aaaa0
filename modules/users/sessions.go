package users

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// tokens is what a login gives.
type tokens struct {
	User         usersapi.User `json:"user"`
	AccessToken  string        `json:"access_token"`
	RefreshToken string        `json:"refresh_token"`
	TokenType    string        `json:"token_type"`
	ExpiresIn    int64         `json:"expires_in"` // seconds
}

// session is a row of users.sessions.
type session struct {
	ID         ids.ID      `db:"id"`
	User       usersapi.ID `db:"user_id"`
	Nonce      []byte      `db:"nonce"`
	Generation int64       `db:"generation"`
	CreatedAt  time.Time   `db:"created_at"`
	RotatedAt  time.Time   `db:"rotated_at"`
	ExpiresAt  time.Time   `db:"expires_at"`
	RevokedAt  *time.Time  `db:"revoked_at"`
}

var errBadCredentials = errs.New(errs.Unauthenticated, "invalid_credentials", "e-mail or password is wrong")
var errBadRefresh = errs.New(errs.Unauthenticated, "invalid_refresh_token", "log in again")

// register makes an unverified account and logs it in. It does the same work whether the address is known or not.
func (m *Module) register(ctx context.Context, email, password, name string) (tokens, error) {
	if err := checkAccount(email, password); err != nil {
		return tokens{}, err
	}
	hash, err := m.Passwords.hash(ctx, password)
	if err != nil {
		return tokens{}, err
	}
	u := user{ID: ids.New[usersapi.ID]("usr"), Email: email, Name: name, Hash: hash, Roles: []string{"customer"}, CreatedAt: m.Now().UTC()}
	s := m.newSession(u.ID)
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := insertUser(ctx, tx, u); err != nil {
			return err
		}
		if err := insertSession(ctx, tx, s); err != nil {
			return err
		}
		owner, err := verifiedAddress(ctx, tx, email)
		if err != nil {
			return err
		}
		if owner != "" {
			return m.askMail(ctx, tx, "address_taken", "", owner)
		}
		return m.askMail(ctx, tx, "verify_email", u.ID, email)
	})
	if err != nil {
		return tokens{}, fmt.Errorf("register: %w", err)
	}
	return m.tokens(u, s)
}

// login checks the password of the verified account, else of the newest unverified one, with exactly one hash in any case.
func (m *Module) login(ctx context.Context, email, password, ip string) (tokens, error) {
	now := m.Now().UTC()
	if m.Config.LoginDelays {
		if err := m.checkDelay(ctx, email, ip, now); err != nil {
			if errs.Is(err, errs.RateLimited) {
				m.Metrics.loginsDelayed.Inc()
			}
			return tokens{}, err
		}
	}
	u, err := userForLogin(ctx, m.DB, email, now.Add(-m.Config.MailTTL))
	if err != nil && !pg.NoRows(err) {
		return tokens{}, fmt.Errorf("login: %w", err)
	}
	ok, stale, err := m.Passwords.matches(ctx, password, u.Hash)
	if err != nil {
		return tokens{}, err
	}
	if !ok {
		m.Metrics.loginsWrong.Inc()
		if m.Config.LoginDelays {
			if err := m.countFailure(ctx, email, ip, now); err != nil {
				return tokens{}, err
			}
		}
		return tokens{}, errBadCredentials
	}
	hash := ""
	if stale {
		if hash, err = m.Passwords.hash(ctx, password); err != nil {
			return tokens{}, err
		}
	}
	s := m.newSession(u.ID)
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if hash != "" {
			if err := setPassword(ctx, tx, u.ID, hash); err != nil {
				return err
			}
		}
		if m.Config.LoginDelays {
			if err := forgetFailures(ctx, tx, accountSubject(email)); err != nil {
				return err
			}
		}
		return insertSession(ctx, tx, s)
	})
	if err != nil {
		return tokens{}, fmt.Errorf("login: %w", err)
	}
	m.Metrics.loginsOK.Inc()
	return m.tokens(u, s)
}

// refresh gives the next refresh token for the present one. Whoever shows the one before within the overlap, because its
// reply was lost or its requests raced, gets the present one; whoever shows an older one stole it or was stolen from, and the
// whole session ends.
func (m *Module) refresh(ctx context.Context, token string) (tokens, error) {
	id, generation, ok := splitRefresh(token)
	if !ok {
		return tokens{}, errBadRefresh
	}
	var u user
	var s session
	refused := false
	now := m.Now().UTC()
	err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
		refused = true
		if s, err = lockSession(ctx, tx, id); err != nil {
			return err
		}
		if !hmac.Equal([]byte(token), []byte(m.refreshToken(s, generation))) || s.RevokedAt != nil || !now.Before(s.ExpiresAt) {
			return nil
		}
		switch {
		case generation == s.Generation:
			s.Generation++
			s.RotatedAt, s.ExpiresAt = now, now.Add(m.Config.RefreshTTL)
			if err := rotateSession(ctx, tx, s); err != nil {
				return err
			}
		case generation == s.Generation-1 && now.Sub(s.RotatedAt) <= m.Config.RefreshOverlap:
		default:
			m.Metrics.refreshReused.Inc()
			m.Log.WarnContext(ctx, "refresh token used again: session ended", "session", s.ID, "user", s.User)
			return revokeSession(ctx, tx, s.ID, now)
		}
		refused = false
		u, err = userByID(ctx, tx, s.User)
		return err
	})
	if pg.NoRows(err) || err == nil && refused {
		return tokens{}, errBadRefresh
	}
	if err != nil {
		return tokens{}, fmt.Errorf("refresh: %w", err)
	}
	return m.tokens(u, s)
}

func (m *Module) newSession(u usersapi.ID) session {
	now := m.Now().UTC()
	nonce := make([]byte, 16)
	rand.Read(nonce)
	return session{ID: ids.New[ids.ID]("ses"), User: u, Nonce: nonce, CreatedAt: now, RotatedAt: now, ExpiresAt: now.Add(m.Config.RefreshTTL)}
}

// tokens are the tokens of a session as it is.
func (m *Module) tokens(u user, s session) (tokens, error) {
	access, err := m.Keyring.signer().Access(auth.Identity{
		User: ids.ID(u.ID), Session: s.ID, Roles: u.Roles, Scopes: scopesOf(u.Roles),
	}, m.Config.AccessTTL)
	if err != nil {
		return tokens{}, fmt.Errorf("sign access token: %w", err)
	}
	return tokens{
		User: usersapi.User{ID: u.ID, Email: u.Email, Name: u.Name}, AccessToken: access, RefreshToken: m.refreshToken(s, s.Generation),
		TokenType: "Bearer", ExpiresIn: int64(m.Config.AccessTTL / time.Second),
	}, nil
}

// refreshToken is session.generation.mac.
func (m *Module) refreshToken(s session, generation int64) string {
	head := string(s.ID) + "." + strconv.FormatInt(generation, 10)
	mac := hmac.New(sha256.New, m.Secret.Derive("refresh-tokens"))
	mac.Write([]byte(head + "."))
	mac.Write(s.Nonce)
	return head + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func splitRefresh(token string) (id ids.ID, generation int64, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || !ids.Valid(parts[0], "ses") {
		return "", 0, false
	}
	generation, err := strconv.ParseInt(parts[1], 10, 64)
	return ids.ID(parts[0]), generation, err == nil
}

// Delays: the first few wrong passwords are free, then each doubles the wait.
const (
	freeByAccount = 5
	freeByAddress = 50
	longestDelay  = time.Minute
)

func accountSubject(email string) string { return subject("account", strings.ToLower(email)) }

// subject hides what it counts: the table holds no address of anybody.
func subject(kind, value string) string {
	sum := sha256.Sum256([]byte(kind + "\x00" + value))
	return kind + ":" + base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (m *Module) checkDelay(ctx context.Context, email, ip string, now time.Time) error {
	until, err := delayedUntil(ctx, m.DB, []string{accountSubject(email), subject("address", ip)})
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if now.Before(until) {
		seconds := int64(until.Sub(now)/time.Second) + 1
		return errs.New(errs.RateLimited, "login_delayed", "too many wrong passwords: try again in %d seconds", seconds).
			WithDetails(map[string]any{"retry_after": seconds})
	}
	return nil
}

func (m *Module) countFailure(ctx context.Context, email, ip string, now time.Time) error {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := addFailure(ctx, tx, accountSubject(email), freeByAccount, now); err != nil {
			return err
		}
		return addFailure(ctx, tx, subject("address", ip), freeByAddress, now)
	})
	if err != nil {
		return fmt.Errorf("count failed login: %w", err)
	}
	return nil
}
