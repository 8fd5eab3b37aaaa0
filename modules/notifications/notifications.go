// Package notifications writes to people about what happened: it hears events, keeps a message for each, and sends them after
// the commit. It decides nothing and stores no address: whom to write to is asked at the moment of sending.
package notifications

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Module is the notifications module.
type Module struct {
	DB        *pg.DB
	Users     usersapi.Users
	Orders    ordersapi.Orders
	Sender    Sender
	Templates Templates
	Log       *slog.Logger
	Now       func() time.Time
	Config    Config
	Woken     Woken
}

// Woken tells the worker that a message was written.
type Woken chan struct{}

// Config is the block "notifications" of the settings.
type Config struct {
	// SMTP is the mail server. Without an address mails go to the local sink, with the embedded database only.
	SMTP SMTP `yaml:"smtp"`
	// From is the sender of mails. Default "Banyan <shop@localhost>".
	From string `yaml:"from"`
	// VerifyURL, ResetURL and OrderURL are pages of your storefront that mails link to, followed by the token or the order.
	// Default: none, the mail shows the token.
	VerifyURL string `yaml:"verify_url"`
	ResetURL  string `yaml:"reset_url"`
	OrderURL  string `yaml:"order_url"`
	// Attempts is how often a mail is tried before it is laid aside; the pauses grow to an hour. Default 60, about two days,
	// which a mail server may well be away.
	Attempts int `yaml:"attempts"`
	// Poll is how often waiting messages are looked for, beside being told. Default 500ms.
	Poll time.Duration `yaml:"poll"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config {
	return Config{SMTP: SMTP{TLS: "required"}, From: "Banyan <shop@localhost>", Attempts: 60, Poll: 500 * time.Millisecond}
}

// Validate says what to change.
func (c Config) Validate() error {
	switch {
	case c.Attempts < 1:
		return fmt.Errorf("attempts must be at least 1")
	case c.Poll <= 0:
		return fmt.Errorf("poll must be above 0")
	case c.SMTP.TLS != "required" && c.SMTP.TLS != "opportunistic" && c.SMTP.TLS != "off":
		return fmt.Errorf("smtp.tls must be required, opportunistic or off")
	}
	return nil
}

// Serve answers nothing: nobody asks notifications.
func (m *Module) Serve(*rpc.Server) {}

// Run sends messages that are due until ctx ends.
func (m *Module) Run(ctx context.Context) {
	tick := time.NewTicker(m.Config.Poll)
	defer tick.Stop()
	for {
		n, err := m.sendDue(ctx)
		if err != nil && ctx.Err() == nil {
			m.Log.Error("send messages", "err", err)
		}
		if n > 0 && err == nil && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-m.Woken:
		case <-tick.C:
		}
	}
}

const (
	batch      = 10               // messages a lease
	sendWithin = 15 * time.Second // two questions and a conversation with the mail server
)

// sendDue takes some messages under a lease that is long enough for all of them, and sends them. A crash after sending and
// before the mark sends again: that is promised of mail, and no more.
func (m *Module) sendDue(ctx context.Context) (int, error) {
	if waiting, err := messagesDue(ctx, m.DB, m.Now().UTC()); err != nil || !waiting {
		return 0, err
	}
	var due []message
	err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
		now := m.Now().UTC()
		due, err = leaseMessages(ctx, tx, now, now.Add((batch+1)*sendWithin), batch)
		return err
	})
	if err != nil || len(due) == 0 {
		return 0, err
	}
	ends := make([]ending, 0, len(due))
	for _, msg := range due {
		ends = append(ends, m.end(ctx, msg))
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error { return endMessages(ctx, tx, ends, m.Now().UTC()) })
	if err != nil {
		return len(due), fmt.Errorf("mark %d messages: %w", len(due), err)
	}
	return len(due), nil
}

// end sends one message and says what became of it.
func (m *Module) end(ctx context.Context, msg message) ending {
	end := ending{ID: msg.ID, Lease: msg.Attempts, State: "sent", Attempts: msg.Attempts, Next: m.Now().UTC()}
	err := ctx.Err()
	if err == nil {
		err = m.send(ctx, msg)
	}
	switch {
	case err == nil:
	case ctx.Err() != nil: // the shop stops, which is not the message's fault
		end.State, end.Attempts = "pending", msg.Attempts-1
	case errs.Is(err, errs.NotFound) || isPermanent(err) || msg.Attempts >= m.Config.Attempts:
		m.Log.WarnContext(ctx, "message laid aside", "message", msg.ID, "template", msg.Template, "attempts", msg.Attempts, "err", err)
		end.State, end.Error = "dead", reason(err)
	default:
		m.Log.InfoContext(ctx, "message not sent, will be tried again", "message", msg.ID, "attempt", msg.Attempts, "err", err)
		end.State, end.Error, end.Next = "pending", reason(err), m.Now().UTC().Add(backoff(msg.Attempts))
	}
	return end
}

// send asks whom a message is for, writes the mail and hands it over.
func (m *Module) send(ctx context.Context, msg message) error {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	to, err := m.recipient(ctx, msg)
	if err != nil {
		return err
	}
	mail, err := m.Templates.render(msg, to, m.Config)
	if err != nil {
		return err
	}
	mail.ID, mail.To, mail.From = msg.ID, to.Email, m.Config.From
	return m.Sender.Send(ctx, mail)
}

// reason is what may be stored of an error: its code, since its text may hold an address.
func reason(err error) string { return errs.CodeOf(err) }

// backoff is 2 s, 4 s, 8 s … up to an hour.
func backoff(attempts int) time.Duration {
	return min(time.Second<<min(attempts, 12), time.Hour)
}

// contact is whom a message goes to.
type contact struct {
	Email string
	Name  string
	Token string // a secret for the link
}

// recipient asks for the address behind a message.
func (m *Module) recipient(ctx context.Context, msg message) (contact, error) {
	kind, id, _ := strings.Cut(msg.Recipient, ":")
	switch kind {
	case "mail":
		l, err := m.Users.MailLink(ctx, usersapi.MailLinkRequest{Mail: ids.ID(id)})
		return contact{l.Email, l.Name, l.Token}, err
	case "user":
		u, err := m.Users.Contact(ctx, usersapi.ContactRequest{User: ids.ID(id)})
		return contact{u.Email, u.Name, ""}, err
	default:
		o, err := m.Orders.Contact(ctx, ordersapi.ContactRequest{ID: ordersapi.ID(id)})
		if err != nil || o.Customer == "" {
			return contact{o.Email, o.Name, o.Token}, err
		}
		u, err := m.Users.Contact(ctx, usersapi.ContactRequest{User: o.Customer})
		return contact{u.Email, u.Name, ""}, err
	}
}
