package payments

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// command is a row of payments.commands.
type command struct {
	Key       string         `db:"key"`
	Payment   paymentsapi.ID `db:"payment"`
	Kind      string         `db:"kind"`
	Amount    int64          `db:"amount"`
	State     string         `db:"state"`
	Reason    string         `db:"reason"`
	CreatedAt time.Time      `db:"created_at"`
}

const paymentColumns = `id, request_hash, checkout, order_id, customer, provider, token, reference, state, currency, amount,
	capture_claimed, captured, refund_claimed, refunded, decline_code, next_action_type, next_action_url, created_at, updated_at`

func insertPayment(ctx context.Context, tx *pg.Tx, p payment) (int64, error) {
	return tx.Exec(ctx, `
		INSERT INTO payments.payments (id, request_hash, checkout, order_id, customer, provider, token, state, currency, amount, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
		ON CONFLICT (id) DO NOTHING`,
		p.ID, p.RequestHash, p.Checkout, p.Order, p.Customer, p.Provider, p.Token, p.State, p.Currency, p.Amount, p.CreatedAt)
}

func paymentByID(ctx context.Context, q pg.Queryer, id paymentsapi.ID) (payment, error) {
	var p payment
	err := q.Get(ctx, &p, `SELECT `+paymentColumns+` FROM payments.payments WHERE id = $1`, id)
	return p, err
}

func paymentsByOrder(ctx context.Context, q pg.Queryer, orders []ids.ID) ([]payment, error) {
	of := make([]string, len(orders))
	for i, o := range orders {
		of[i] = string(o)
	}
	var ps []payment
	err := q.Select(ctx, &ps, `
		SELECT `+paymentColumns+` FROM payments.payments WHERE order_id = ANY($1) ORDER BY created_at, id`, pg.Array(of))
	if err != nil {
		return nil, fmt.Errorf("payments of %d orders: %w", len(orders), err)
	}
	return ps, nil
}

// movePayment follows the provider's word; no row if it is old news.
func movePayment(ctx context.Context, tx *pg.Tx, id paymentsapi.ID, in Intent, now time.Time) (payment, error) {
	var p payment
	err := tx.Get(ctx, &p, `
		UPDATE payments.payments
		SET state = $2, reference = $3, decline_code = $4, next_action_type = $5, next_action_url = $6, updated_at = $7
		WHERE id = $1 AND state = ANY($8)
		RETURNING `+paymentColumns,
		id, in.State, in.Reference, in.DeclineCode, in.NextAction.Type, in.NextAction.URL, now, pg.Array(earlier(in.State)))
	return p, err
}

func insertCommand(ctx context.Context, tx *pg.Tx, c command) (int64, error) {
	return tx.Exec(ctx, `
		INSERT INTO payments.commands (key, payment, kind, amount, state, reason, created_at)
		VALUES ($1, $2, $3, $4, 'initiated', $5, $6)
		ON CONFLICT (key) DO NOTHING`,
		c.Key, c.Payment, c.Kind, c.Amount, c.Reason, c.CreatedAt)
}

func commandByKey(ctx context.Context, q pg.Queryer, key string) (command, error) {
	var c command
	err := q.Get(ctx, &c, `SELECT key, payment, kind, amount, state, reason, created_at FROM payments.commands WHERE key = $1`, key)
	return c, err
}

// claimAmount raises what is claimed; no row when the payment's state or limit does not allow it.
func claimAmount(ctx context.Context, tx *pg.Tx, c command, currency string) (payment, error) {
	var p payment
	if c.Kind == "capture" {
		err := tx.Get(ctx, &p, `
			UPDATE payments.payments SET capture_claimed = capture_claimed + $2, updated_at = $3
			WHERE id = $1 AND currency = $4 AND state IN ('authorised', 'captured') AND capture_claimed + $2 <= amount
			RETURNING `+paymentColumns, c.Payment, c.Amount, c.CreatedAt, currency)
		return p, err
	}
	err := tx.Get(ctx, &p, `
		UPDATE payments.payments SET refund_claimed = refund_claimed + $2, updated_at = $3
		WHERE id = $1 AND currency = $4 AND refund_claimed + $2 <= captured
		RETURNING `+paymentColumns, c.Payment, c.Amount, c.CreatedAt, currency)
	return p, err
}

// endCommand closes a command that is still open; 0 rows when another try has.
func endCommand(ctx context.Context, tx *pg.Tx, key string, done bool, now time.Time) (int64, error) {
	return tx.Exec(ctx, `
		UPDATE payments.commands SET state = CASE WHEN $2 THEN 'done' ELSE 'refused' END, done_at = $3
		WHERE key = $1 AND state = 'initiated'`, key, done, now)
}

// endCommands closes what is open of a payment that has come to its end without money: its voids, and captures that never reached the
// provider or were refused there, whose claims are given back.
func endCommands(ctx context.Context, tx *pg.Tx, id paymentsapi.ID, voided bool, now time.Time) error {
	n, err := tx.Exec(ctx, `
		UPDATE payments.commands SET state = CASE WHEN kind = 'void' AND $2 THEN 'done' ELSE 'refused' END, done_at = $3
		WHERE payment = $1 AND kind IN ('void', 'capture') AND state = 'initiated'`, id, voided, now)
	if err == nil && n > 0 {
		_, err = tx.Exec(ctx, `UPDATE payments.payments SET capture_claimed = captured WHERE id = $1 AND capture_claimed <> captured`, id)
	}
	return err
}

// The ledger's two entries of a movement: what the provider owes us against what was sold. They are made with the movement.
const (
	captured = `
		WITH p AS (
			UPDATE payments.payments
			SET captured = captured + $2, state = CASE WHEN state = 'authorised' THEN 'captured' ELSE state END, updated_at = $3
			WHERE id = $1 RETURNING ` + paymentColumns + `
		), entered AS (
			INSERT INTO payments.entries (command, account, payment, amount, currency, at)
			SELECT $4, side.account, p.id, side.sign * $2::bigint, p.currency, $3
			FROM p CROSS JOIN (VALUES ('provider', 1), ('sales', -1)) AS side (account, sign)
		)
		SELECT ` + paymentColumns + ` FROM p`
	refunded = `
		WITH p AS (
			UPDATE payments.payments SET refunded = refunded + $2, state = 'refunded', updated_at = $3
			WHERE id = $1 RETURNING ` + paymentColumns + `
		), entered AS (
			INSERT INTO payments.entries (command, account, payment, amount, currency, at)
			SELECT $4, side.account, p.id, side.sign * $2::bigint, p.currency, $3
			FROM p CROSS JOIN (VALUES ('provider', -1), ('sales', 1)) AS side (account, sign)
		)
		SELECT ` + paymentColumns + ` FROM p`
)

// bookAmount turns a claim into the fact and enters it into the ledger, or gives it back.
func bookAmount(ctx context.Context, tx *pg.Tx, c command, done bool, now time.Time) (payment, error) {
	var p payment
	var err error
	switch {
	case c.Kind == "capture" && done:
		err = tx.Get(ctx, &p, captured, c.Payment, c.Amount, now, c.Key)
	case c.Kind == "capture":
		err = tx.Get(ctx, &p, `
			UPDATE payments.payments SET capture_claimed = capture_claimed - $2, updated_at = $3
			WHERE id = $1 RETURNING `+paymentColumns, c.Payment, c.Amount, now)
	case done:
		err = tx.Get(ctx, &p, refunded, c.Payment, c.Amount, now, c.Key)
	default:
		err = tx.Get(ctx, &p, `
			UPDATE payments.payments SET refund_claimed = refund_claimed - $2, updated_at = $3
			WHERE id = $1 RETURNING `+paymentColumns, c.Payment, c.Amount, now)
	}
	return p, err
}

// insertHook keeps a webhook; 0 rows when it came before.
func insertHook(ctx context.Context, tx *pg.Tx, provider, event string, id paymentsapi.ID, now time.Time) (int64, error) {
	return tx.Exec(ctx, `
		INSERT INTO payments.hooks (provider, event_id, payment, received_at, next_at) VALUES ($1, $2, $3, $4, $4)
		ON CONFLICT (provider, event_id) DO NOTHING`, provider, event, id, now)
}

// hook is a webhook that waits for its handling.
type hook struct {
	Provider string         `db:"provider"`
	Event    string         `db:"event_id"`
	Payment  paymentsapi.ID `db:"payment"`
	Attempts int            `db:"attempts"`
}

// hooksDue says whether a webhook is due: a plain read, so that looking in vain costs no transaction.
func hooksDue(ctx context.Context, q pg.Queryer, now time.Time) (due bool, err error) {
	err = q.Get(ctx, &due, `SELECT EXISTS (SELECT FROM payments.hooks WHERE processed_at IS NULL AND next_at <= $1)`, now)
	return due, err
}

// leaseHooks takes up to 20 due webhooks; one that is not done by until is taken again.
func leaseHooks(ctx context.Context, tx *pg.Tx, now, until time.Time) ([]hook, error) {
	var hs []hook
	err := tx.Select(ctx, &hs, `
		UPDATE payments.hooks h SET next_at = $2, attempts = attempts + 1
		FROM (
			SELECT provider, event_id FROM payments.hooks
			WHERE processed_at IS NULL AND next_at <= $1
			ORDER BY next_at LIMIT 20 FOR UPDATE SKIP LOCKED
		) due
		WHERE h.provider = due.provider AND h.event_id = due.event_id
		RETURNING h.provider, h.event_id, h.payment, h.attempts`, now, until)
	return hs, err
}

func endHook(ctx context.Context, tx *pg.Tx, h hook, now time.Time) error {
	_, err := tx.Exec(ctx, `UPDATE payments.hooks SET processed_at = $3 WHERE provider = $1 AND event_id = $2`,
		h.Provider, h.Event, now)
	return err
}
