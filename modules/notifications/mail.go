package notifications

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/wneessen/go-mail"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/telemetry"
)

// Mail is a mail ready to be sent.
type Mail struct {
	ID       ids.ID
	From, To string
	Subject  string
	Text     string
	HTML     string
}

// Sender takes mails out of the house: by SMTP, or into the local sink.
type Sender interface {
	Send(ctx context.Context, m Mail) error
}

// SMTP is the block "notifications.smtp" of the settings.
type SMTP struct {
	// Address is host:port of the mail server.
	Address string `yaml:"address"`
	// Username and Password log in, if the server wants that.
	Username string           `yaml:"username"`
	Password telemetry.Secret `yaml:"password"`
	// TLS is required, opportunistic or off. Default required.
	TLS string `yaml:"tls"`
}

// errPermanent is a server's certain no.
var errPermanent = errors.New("the mail server refused the mail for good")

func isPermanent(err error) bool { return errors.Is(err, errPermanent) }

type smtpSender struct{ client *mail.Client }

// newSMTP is a sender through the configured server.
func newSMTP(c SMTP) (Sender, error) {
	host, portText, err := net.SplitHostPort(c.Address)
	port, portErr := strconv.Atoi(portText)
	if err != nil || portErr != nil {
		return nil, fmt.Errorf("notifications.smtp.address must be host:port")
	}
	policy := map[string]mail.TLSPolicy{"required": mail.TLSMandatory, "opportunistic": mail.TLSOpportunistic, "off": mail.NoTLS}[c.TLS]
	o := []mail.Option{mail.WithPort(port), mail.WithTLSPolicy(policy), mail.WithTimeout(10 * time.Second)}
	if c.Username != "" {
		o = append(o, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(c.Username), mail.WithPassword(string(c.Password)))
	}
	client, err := mail.NewClient(host, o...)
	if err != nil {
		return nil, fmt.Errorf("notifications.smtp: %w", err)
	}
	return smtpSender{client}, nil
}

// Send sends one mail. The Message-ID is the message's own, so that a mail that is sent twice can be told.
func (s smtpSender) Send(ctx context.Context, m Mail) error {
	msg := mail.NewMsg()
	if err := msg.From(m.From); err != nil {
		return errPermanent
	}
	if err := msg.To(m.To); err != nil {
		return errPermanent
	}
	msg.SetMessageIDWithValue(string(m.ID) + "@banyan")
	msg.SetDate()
	msg.Subject(m.Subject)
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	msg.AddAlternativeString(mail.TypeTextHTML, m.HTML)
	err := s.client.DialAndSendWithContext(ctx, msg)
	var refused *mail.SendError
	switch {
	case err == nil, msg.IsDelivered(): // a farewell that goes wrong takes nothing back
		return nil
	case !errors.As(err, &refused):
		return errs.Unavailablef("the mail server can't be talked to").Because(err)
	case refused.ErrorCode() >= 500 && refused.Reason != mail.ErrSMTPMailFrom: // a refused sender is ours to mend, not the mail's
		return errPermanent
	}
	// The server's own words name the recipient and must not get into a log.
	return errs.Unavailablef("the mail server did not take the mail: %d when %s", refused.ErrorCode(), refused.Reason)
}

// sink keeps mails for a developer to look at.
type sink struct {
	db  *pg.DB
	now func() time.Time
}

// Send keeps one mail, once.
func (s sink) Send(ctx context.Context, m Mail) error {
	return s.db.InTx(ctx, func(tx *pg.Tx) error {
		return insertSunk(ctx, tx, sunk{m.ID, m.To, m.Subject, m.Text, m.HTML, s.now().UTC()})
	})
}
