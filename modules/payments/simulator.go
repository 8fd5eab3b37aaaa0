package payments

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Simulator is a payment provider without money, for development, tests and demonstrations. It behaves as real ones do at
// their worst: its tokens approve, decline, ask for 3-D Secure, lose their reply, are slow, or settle late and tell so
// twice. It keeps its own books in tables that nothing else reads.
type Simulator struct {
	DB         *pg.DB
	Log        *slog.Logger
	Now        func() time.Time
	Late       time.Duration // how long tok_late_webhook takes to settle
	PublicURL  string        // where the shopper's browser finds the confirmation
	WebhookURL string
	Secret     []byte // signs webhooks
	Client     *http.Client
	Poll       time.Duration

	wake chan struct{}
}

// Tokens are the payment methods of the simulator.
const (
	tokenApprove     = "tok_approve"
	tokenDecline     = "tok_decline"
	token3DS         = "tok_3ds"
	tokenTimeout     = "tok_timeout"      // accepted, but the reply is lost
	tokenSlow        = "tok_slow"         // accepted after two seconds
	tokenLateWebhook = "tok_late_webhook" // undecided until a webhook, sent twice
)

// slowness is how long tok_slow takes.
const slowness = 2 * time.Second

var _ Provider = (*Simulator)(nil)

// Accepts says whether the token is one of the simulator's.
func (s *Simulator) Accepts(token string) bool {
	switch token {
	case tokenApprove, tokenDecline, token3DS, tokenTimeout, tokenSlow, tokenLateWebhook:
		return true
	}
	return false
}

// simIntent is a row of payments.simulator_intents.
type simIntent struct {
	ID       string     `db:"id"`
	Key      string     `db:"key"`
	Token    string     `db:"token"`
	State    string     `db:"state"` // processing, action_required, authorised, captured, failed, voided
	Currency string     `db:"currency"`
	Amount   int64      `db:"amount"`
	Captured int64      `db:"captured"`
	Refunded int64      `db:"refunded"`
	Settles  *time.Time `db:"settles_at"`
}

const intentColumns = `id, key, token, state, currency, amount, captured, refunded, settles_at`

func (s *Simulator) intent(i simIntent) Intent {
	in := Intent{Reference: i.ID, State: paymentsapi.State(i.State)}
	switch i.State {
	case "processing":
		in.State = paymentsapi.Initiated
		if i.Settles != nil && !s.Now().Before(*i.Settles) {
			in.State = paymentsapi.Authorised
		}
	case "failed":
		in.DeclineCode = "card_declined"
	case "action_required":
		in.NextAction = paymentsapi.NextAction{Type: "redirect", URL: s.PublicURL + confirmationPath + i.ID}
	}
	return in
}

// Authorize holds the amount as the token says.
func (s *Simulator) Authorize(ctx context.Context, key, token string, a money.Amount) (Intent, error) {
	failpoint.Hit("payments.authorize.before-provider")
	i := simIntent{ID: ids.New[string]("sim"), Key: key, Token: token, State: "authorised", Currency: a.Currency, Amount: a.Minor}
	now := s.Now()
	switch token {
	case tokenDecline:
		i.State = "failed"
	case token3DS:
		i.State = "action_required"
	case tokenLateWebhook:
		settles := now.Add(s.Late)
		i.State, i.Settles = "processing", &settles
	}
	err := s.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := tx.Exec(ctx, `
			INSERT INTO payments.simulator_intents (id, key, token, state, currency, amount, created_at, settles_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (key) DO NOTHING`,
			i.ID, i.Key, i.Token, i.State, i.Currency, i.Amount, now, i.Settles)
		if err != nil {
			return err
		}
		if n == 0 {
			return tx.Get(ctx, &i, `SELECT `+intentColumns+` FROM payments.simulator_intents WHERE key = $1`, key)
		}
		switch token {
		case tokenTimeout:
			return queueWebhook(ctx, tx, i.ID, now.Add(s.Late), 1)
		case tokenLateWebhook:
			return queueWebhook(ctx, tx, i.ID, *i.Settles, 2)
		}
		return nil
	})
	failpoint.Hit("payments.authorize.after-provider")
	if err != nil {
		return Intent{}, fmt.Errorf("simulate authorisation: %w", err)
	}
	switch token {
	case tokenTimeout:
		return Intent{}, fmt.Errorf("simulate authorisation: the reply is lost")
	case tokenSlow:
		select {
		case <-time.After(slowness):
		case <-ctx.Done():
			return Intent{}, ctx.Err()
		}
	}
	return s.intent(i), nil
}

// Find is the intent made for a key.
func (s *Simulator) Find(ctx context.Context, key string) (Intent, error) {
	var i simIntent
	err := s.DB.Get(ctx, &i, `SELECT `+intentColumns+` FROM payments.simulator_intents WHERE key = $1`, key)
	if pg.NoRows(err) {
		return Intent{State: paymentsapi.Initiated}, nil
	}
	if err != nil {
		return Intent{}, fmt.Errorf("simulate look-up: %w", err)
	}
	return s.intent(i), nil
}

// Capture takes part of what an intent holds.
func (s *Simulator) Capture(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	return s.book(ctx, key, intent, "capture", a.Minor, func(tx *pg.Tx, i *simIntent) error {
		return tx.Get(ctx, i, `
			UPDATE payments.simulator_intents SET captured = captured + $2, state = 'captured', settles_at = NULL
			WHERE id = $1 AND captured + $2 <= amount AND currency = $3
			  AND (state IN ('authorised', 'captured') OR state = 'processing' AND settles_at <= $4)
			RETURNING `+intentColumns, intent, a.Minor, a.Currency, s.Now())
	})
}

// Refund gives part of what was captured back.
func (s *Simulator) Refund(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	return s.book(ctx, key, intent, "refund", a.Minor, func(tx *pg.Tx, i *simIntent) error {
		return tx.Get(ctx, i, `
			UPDATE payments.simulator_intents SET refunded = refunded + $2
			WHERE id = $1 AND refunded + $2 <= captured AND currency = $3
			RETURNING `+intentColumns, intent, a.Minor, a.Currency)
	})
}

// book writes one movement a key into the simulator's ledger; a repeated key finds the intent as it is.
func (s *Simulator) book(ctx context.Context, key, intent, kind string, amount int64, move func(*pg.Tx, *simIntent) error) (Intent, error) {
	var i simIntent
	err := s.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := tx.Exec(ctx, `
			INSERT INTO payments.simulator_ledger (key, intent, kind, amount, at) VALUES ($1, $2, $3, $4, $5)
			ON CONFLICT (key) DO NOTHING`, key, intent, kind, amount, s.Now())
		if err != nil {
			return err
		}
		if n == 0 {
			return tx.Get(ctx, &i, `SELECT `+intentColumns+` FROM payments.simulator_intents WHERE id = $1`, intent)
		}
		if err := move(tx, &i); !pg.NoRows(err) {
			return err
		}
		return ErrRefused
	})
	if err != nil {
		return Intent{}, fmt.Errorf("simulate %s: %w", kind, err)
	}
	return s.intent(i), nil
}

// Void gives a hold back. For a key it has not seen it keeps the void, so that an authorisation still on its way finds it.
func (s *Simulator) Void(ctx context.Context, authorizeKey string) (Intent, error) {
	var i simIntent
	err := s.DB.InTx(ctx, func(tx *pg.Tx) error {
		return tx.Get(ctx, &i, `
			INSERT INTO payments.simulator_intents AS i (id, key, token, state, currency, amount, created_at)
			VALUES ($1, $2, '', 'voided', '', 0, $3)
			ON CONFLICT (key) DO UPDATE SET
				state = CASE WHEN i.state IN ('processing', 'action_required', 'authorised') THEN 'voided' ELSE i.state END,
				settles_at = NULL
			RETURNING `+intentColumns, ids.New[string]("sim"), authorizeKey, s.Now())
	})
	if err != nil {
		return Intent{}, fmt.Errorf("simulate void: %w", err)
	}
	return s.intent(i), nil
}

// confirm is the shopper's answer to 3-D Secure. The first one counts; it is told by a webhook, and by Find at once.
func (s *Simulator) confirm(ctx context.Context, intent, outcome string) error {
	state := "authorised"
	if outcome == "decline" {
		state = "failed"
	}
	var was string
	err := s.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := tx.Get(ctx, &was, `SELECT state FROM payments.simulator_intents WHERE id = $1 FOR UPDATE`, intent); err != nil {
			return err
		}
		if was != "action_required" {
			return nil
		}
		if _, err := tx.Exec(ctx, `UPDATE payments.simulator_intents SET state = $2 WHERE id = $1`, intent, state); err != nil {
			return err
		}
		return queueWebhook(ctx, tx, intent, s.Now(), 1)
	})
	switch {
	case pg.NoRows(err):
		return errs.NotFoundf("no such payment")
	case err != nil:
		return fmt.Errorf("simulate confirmation of %s: %w", intent, err)
	case was != "action_required" && was != state && !(was == "captured" && state == "authorised"):
		return errs.Conflictf("already_decided", "this payment is %s", was)
	}
	s.poke()
	return nil
}

func queueWebhook(ctx context.Context, tx *pg.Tx, intent string, due time.Time, deliveries int) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO payments.simulator_webhooks (event_id, delivery, intent, due_at)
		SELECT $1, n, $2, $3 FROM generate_series(1, $4::int) AS n`, ids.New[string]("whk"), intent, due, deliveries)
	return err
}

func (s *Simulator) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// webhookDue is a webhook to send.
type webhookDue struct {
	Event    string `db:"event_id"`
	Delivery int    `db:"delivery"`
	Attempts int    `db:"attempts"`
	Intent   string `db:"intent"`
	Key      string `db:"key"`
	State    string `db:"state"`
}

// run sends webhooks that are due, until ctx ends.
func (s *Simulator) run(ctx context.Context) {
	tick := time.NewTicker(s.Poll)
	defer tick.Stop()
	for {
		if n, err := s.deliver(ctx); err != nil && ctx.Err() == nil {
			s.Log.Warn("deliver the simulator's webhooks", "err", err)
		} else if n > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-tick.C:
		}
	}
}

func (s *Simulator) deliver(ctx context.Context) (int, error) {
	now := s.Now()
	var waiting bool
	err := s.DB.Get(ctx, &waiting, `
		SELECT EXISTS (SELECT FROM payments.simulator_webhooks WHERE sent_at IS NULL AND due_at <= $1 AND attempts < 20)`, now)
	if err != nil || !waiting {
		return 0, err
	}
	var due []webhookDue
	err = s.DB.InTx(ctx, func(tx *pg.Tx) error {
		due = nil
		return tx.Select(ctx, &due, `
			UPDATE payments.simulator_webhooks w SET attempts = w.attempts + 1, due_at = $2
			FROM payments.simulator_intents i
			WHERE i.id = w.intent AND (w.event_id, w.delivery) IN (
				SELECT event_id, delivery FROM payments.simulator_webhooks
				WHERE sent_at IS NULL AND due_at <= $1 AND attempts < 20
				ORDER BY due_at LIMIT 20 FOR UPDATE SKIP LOCKED
			)
			RETURNING w.event_id, w.delivery, w.attempts, w.intent, i.key, i.state`, now, now.Add(2*time.Second))
	})
	if err != nil {
		return 0, err
	}
	for _, d := range due {
		if err := s.post(ctx, d); err != nil {
			s.Log.Info("webhook not taken, will be sent again", "event", d.Event, "attempt", d.Attempts, "err", err)
			continue
		}
		err := s.DB.InTx(ctx, func(tx *pg.Tx) error {
			_, err := tx.Exec(ctx, `
				UPDATE payments.simulator_webhooks SET sent_at = $3 WHERE event_id = $1 AND delivery = $2`, d.Event, d.Delivery, s.Now())
			return err
		})
		if err != nil {
			return len(due), err
		}
	}
	return len(due), nil
}

// webhook is the body of the simulator's webhooks.
type webhook struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		Intent string `json:"intent"`
		Key    string `json:"key"`
		State  string `json:"state"`
	} `json:"data"`
}

func (s *Simulator) post(ctx context.Context, d webhookDue) error {
	body := webhook{ID: d.Event, Type: "intent.changed"}
	body.Data.Intent, body.Data.Key, body.Data.State = d.Intent, d.Key, d.State
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.WebhookURL, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Simulator-Signature", sign(s.Secret, s.Now(), raw))
	res, err := s.Client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("answered %d", res.StatusCode)
	}
	return nil
}

// sign is the header of a webhook: t=unix seconds,v1=hex(HMAC-SHA256(secret, t + "." + body)).
func sign(secret []byte, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
