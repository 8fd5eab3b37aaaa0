package users

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// mailRow is a row of users.mails.
type mailRow struct {
	ID        ids.ID      `db:"id"`
	Kind      string      `db:"kind"`
	User      usersapi.ID `db:"user_id"`
	Email     string      `db:"email"`
	CreatedAt time.Time   `db:"created_at"`
	ExpiresAt time.Time   `db:"expires_at"`
	UsedAt    *time.Time  `db:"used_at"`
}

var errBadMailToken = errs.Invalidf("invalid_token", "the link is not valid any more: ask for a new one").WithField("/token", "invalid")

// askMail asks for a mail. A mail to an address nobody has is asked for all the same and never sent, so that asking takes as
// long as for one that somebody has.
func (m *Module) askMail(ctx context.Context, tx *pg.Tx, kind string, to usersapi.ID, email string) error {
	now := m.Now().UTC()
	r := mailRow{ID: ids.New[ids.ID]("mal"), Kind: kind, User: to, Email: email, CreatedAt: now, ExpiresAt: now.Add(m.Config.MailTTL)}
	if err := insertMail(ctx, tx, r); err != nil {
		return err
	}
	return events.Publish(ctx, tx, usersapi.MailRequested{Mail: r.ID, Kind: kind, Locale: "en"})
}

// MailLink tells the secret link of a mail at the time of sending. See usersapi.
func (m *Module) MailLink(ctx context.Context, r usersapi.MailLinkRequest) (usersapi.MailLink, error) {
	if err := auth.RequireModule(ctx, "notifications"); err != nil {
		return usersapi.MailLink{}, err
	}
	mail, err := mailByID(ctx, m.DB, r.Mail)
	switch {
	case pg.NoRows(err):
		return usersapi.MailLink{}, errs.NotFoundf("no such mail")
	case err != nil:
		return usersapi.MailLink{}, fmt.Errorf("mail %s: %w", r.Mail, err)
	case mail.UsedAt != nil || !m.Now().Before(mail.ExpiresAt):
		return usersapi.MailLink{}, errs.NotFoundf("the mail is used or out of date")
	case mail.Kind == "address_taken":
		return usersapi.MailLink{Email: mail.Email}, nil
	case mail.User == "":
		return usersapi.MailLink{}, errs.NotFoundf("nobody has that address")
	}
	u, err := userByID(ctx, m.DB, mail.User)
	if err != nil {
		return usersapi.MailLink{}, fmt.Errorf("mail %s: %w", r.Mail, err)
	}
	return usersapi.MailLink{Email: mail.Email, Name: u.Name, Token: m.mailToken(mail.ID)}, nil
}

func (m *Module) mailToken(id ids.ID) string {
	mac := hmac.New(sha256.New, m.Secret.Derive("mail-tokens"))
	mac.Write([]byte(id))
	return string(id) + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// useMail takes the mail behind a token, once. Codes: invalid_token.
func (m *Module) useMail(ctx context.Context, tx *pg.Tx, kind, token string) (mailRow, error) {
	id, _, _ := strings.Cut(token, ".")
	if !hmac.Equal([]byte(token), []byte(m.mailToken(ids.ID(id)))) {
		return mailRow{}, errBadMailToken
	}
	mail, err := takeMail(ctx, tx, ids.ID(id), kind, m.Now().UTC())
	if pg.NoRows(err) {
		return mailRow{}, errBadMailToken
	}
	return mail, err
}

// verify makes the address that a verification was sent to the account's own.
func (m *Module) verify(ctx context.Context, token string) error {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		mail, err := m.useMail(ctx, tx, "verify_email", token)
		if err != nil {
			return err
		}
		return setVerified(ctx, tx, mail.User, m.Now().UTC())
	})
	if pg.IsUnique(err, "one_verified_address") {
		return errs.Conflictf("address_taken", "another account has verified this address")
	}
	if err != nil {
		return fmt.Errorf("verify e-mail: %w", err)
	}
	return nil
}

// resend asks for another verification mail.
func (m *Module) resend(ctx context.Context, id usersapi.ID) error {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		u, err := userByID(ctx, tx, id)
		if err != nil || u.VerifiedAt != nil {
			return err
		}
		return m.askMail(ctx, tx, "verify_email", u.ID, u.Email)
	})
	if pg.NoRows(err) {
		return noAccount()
	}
	if err != nil {
		return fmt.Errorf("resend verification: %w", err)
	}
	return nil
}

// askReset asks for a mail with which the password can be set anew. It tells nobody whether the address is known. The mail goes
// to the account's address, not to the one that was typed: two that the database takes for one may be two people's.
func (m *Module) askReset(ctx context.Context, email string) error {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		u, err := userForLogin(ctx, tx, email, m.Now().UTC().Add(-m.Config.MailTTL))
		if err != nil && !pg.NoRows(err) {
			return err
		}
		return m.askMail(ctx, tx, "reset_password", u.ID, cmp.Or(u.Email, email))
	})
	if err != nil {
		return fmt.Errorf("ask for reset: %w", err)
	}
	return nil
}

// reset sets a new password, and ends all sessions and whatever other links to set one are on their way.
func (m *Module) reset(ctx context.Context, token, password string) error {
	if err := checkAccount("somebody@example.com", password); err != nil {
		return err
	}
	hash, err := m.Passwords.hash(ctx, password)
	if err != nil {
		return err
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		mail, err := m.useMail(ctx, tx, "reset_password", token)
		if err != nil {
			return err
		}
		if err := setPassword(ctx, tx, mail.User, hash); err != nil {
			return err
		}
		if err := dropMails(ctx, tx, mail.User, "reset_password", m.Now().UTC()); err != nil {
			return err
		}
		return m.endSessions(ctx, tx, mail.User)
	})
	if err != nil {
		return fmt.Errorf("reset password: %w", err)
	}
	return nil
}
