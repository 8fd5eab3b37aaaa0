package orders

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// errLease says that the saga is somebody else's now: write nothing, undo nothing, read what they did.
var errLease = errors.New("the lease has passed to another")

const orderColumns = `id, number, checkout, cart, customer, email, state, version, currency, prices_include_tax, lines, promo,
	subtotal, discount, shipping, shipping_tax, tax, total, captured, refunded, payment, carrier, service, address, history,
	placed_at, created_at, updated_at`

// orBehindAll is an id to page from: the one given, or one behind every other.
func orBehindAll[T ~string](id T) string {
	if id == "" {
		return "zzz"
	}
	return string(id)
}

func findOrder(ctx context.Context, q pg.Queryer, id ordersapi.ID) (*order, error) {
	var o order
	return &o, q.Get(ctx, &o, `SELECT `+orderColumns+` FROM orders.orders WHERE id = $1`, id)
}

// lockOrder is an order that nobody else changes until the transaction ends.
func lockOrder(ctx context.Context, tx *pg.Tx, id ordersapi.ID) (*order, error) {
	var o order
	return &o, tx.Get(ctx, &o, `SELECT `+orderColumns+` FROM orders.orders WHERE id = $1 FOR UPDATE`, id)
}

// ownOrder is an order that belongs to the user, or the guest's order that a token shows.
func ownOrder(ctx context.Context, q pg.Queryer, id ordersapi.ID, user ids.ID, shown ordersapi.ID) (*order, error) {
	var o order
	return &o, q.Get(ctx, &o, `SELECT `+orderColumns+` FROM orders.orders
		WHERE id = $1 AND (customer <> '' AND customer = $2 OR customer = '' AND id = $3)`, id, user, shown)
}

// ordersOf are a customer's orders from before an id on ("": the newest). What was never bought is not shown.
func ordersOf(ctx context.Context, q pg.Queryer, customer ids.ID, before ordersapi.ID, limit int64) ([]order, error) {
	var os []order
	err := q.Select(ctx, &os, `SELECT `+orderColumns+` FROM orders.orders
		WHERE customer <> '' AND customer = $1 AND id < $2 AND state NOT IN ('pending_payment', 'expired')
		ORDER BY id DESC LIMIT $3`, customer, orBehindAll(before), limit)
	return os, err
}

func allOrders(ctx context.Context, q pg.Queryer, before ordersapi.ID, limit int64) ([]order, error) {
	var os []order
	err := q.Select(ctx, &os, `SELECT `+orderColumns+` FROM orders.orders
		WHERE id < $1 ORDER BY id DESC LIMIT $2`, orBehindAll(before), limit)
	return os, err
}

func ordersIn(ctx context.Context, q pg.Queryer, s string, before ordersapi.ID, limit int64) ([]order, error) {
	var os []order
	err := q.Select(ctx, &os, `SELECT `+orderColumns+` FROM orders.orders
		WHERE state = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, s, orBehindAll(before), limit)
	return os, err
}

// putOrder writes the order of a checkout. A later attempt writes its prices and address over those of the declined one, and
// goes on with that one's number and history.
func putOrder(ctx context.Context, tx *pg.Tx, o *order) error {
	err := tx.Get(ctx, o, `INSERT INTO orders.orders (`+orderColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)
		ON CONFLICT (id) DO UPDATE SET email = excluded.email, version = orders.version + 1, currency = excluded.currency,
			prices_include_tax = excluded.prices_include_tax, lines = excluded.lines, promo = excluded.promo,
			subtotal = excluded.subtotal, discount = excluded.discount, shipping = excluded.shipping,
			shipping_tax = excluded.shipping_tax, tax = excluded.tax, total = excluded.total, carrier = excluded.carrier,
			service = excluded.service, address = excluded.address, updated_at = excluded.updated_at
		WHERE orders.state = 'pending_payment'
		RETURNING number, version, history, created_at`,
		o.ID, o.Number, o.Checkout, o.Cart, o.Customer, o.Email, string(o.State), o.Version, o.Currency, o.PricesIncludeTax, o.Lines, o.Promo,
		o.Subtotal, o.Discount, o.Shipping, o.ShippingTax, o.Tax, o.Total, o.Captured, o.Refunded, o.Payment, o.Carrier, o.Service,
		o.Address, o.History, o.PlacedAt, o.CreatedAt, o.UpdatedAt)
	if pg.NoRows(err) {
		return o.illegal(pendingPayment)
	}
	return err
}

// saveOrder writes what may change of an order that was read at its version.
func saveOrder(ctx context.Context, tx *pg.Tx, o *order) error {
	n, err := tx.Exec(ctx, `UPDATE orders.orders SET state = $3, version = version + 1, lines = $4, captured = $5, refunded = $6,
			payment = $7, history = $8, placed_at = $9, updated_at = $10
		WHERE id = $1 AND version = $2`,
		o.ID, o.Version, string(o.State), o.Lines, o.Captured, o.Refunded, o.Payment, o.History, o.PlacedAt, o.UpdatedAt)
	if err != nil {
		return err
	}
	if n == 0 {
		return errs.Unavailablef("order %s was changed meanwhile", o.ID)
	}
	o.Version++
	return nil
}

const checkoutColumns = `id, state, step, attempt, tries, attention, deadline, cart, customer, guest, order_id, payment, key_scope,
	key_value, terms, secrets, next_action, failure, last_error, lease_token, created_at`

// insertCheckout writes a checkout and its key, leased to the caller. False: the key was used, or the cart is in a checkout.
func insertCheckout(ctx context.Context, tx *pg.Tx, c *checkout, hash []byte, lease time.Duration) (bool, error) {
	n, err := tx.Exec(ctx, `WITH k AS (
			INSERT INTO orders.checkout_keys (scope, key, hash, checkout, attempt, created_at)
			VALUES ($8, $9, $10, $1, 1, $13) ON CONFLICT DO NOTHING RETURNING checkout)
		INSERT INTO orders.checkouts (id, state, step, attempt, deadline, cart, customer, guest, order_id, key_scope, key_value,
			terms, secrets, lease_token, lease_until, next_at, created_at, updated_at)
		SELECT $1, $2, $3, 1, $4, $5, $6, $7, $14, $8, $9, $11, $12, 1, now() + $15::bigint * interval '1 microsecond',
			now() + $15::bigint * interval '1 microsecond', $13, $13 FROM k
		ON CONFLICT (cart) WHERE state IN ('pending', 'action_required', 'payment_failed') DO NOTHING`,
		c.ID, string(c.State), string(c.Step), c.Deadline, c.Cart, c.Customer, c.Guest, c.Scope, c.Value, hash, c.Terms, c.Secrets,
		c.CreatedAt, c.Order, lease.Microseconds())
	return n == 1, err
}

// retryCheckout gives the declined checkout of a cart its next attempt, leased to the caller. NoRows: there is none of
// this owner, or somebody works on it.
func retryCheckout(ctx context.Context, tx *pg.Tx, next *checkout, notBefore time.Time, lease time.Duration) (*checkout, error) {
	c := &checkout{held: true, leased: time.Now()}
	err := tx.Get(ctx, c, `UPDATE orders.checkouts SET state = 'pending', step = 'prepare', attempt = attempt + 1, tries = 0,
			attention = false, deadline = $4, key_scope = $5, key_value = $6, terms = $7, secrets = $8, next_action = NULL, failure = NULL,
			last_error = '', payment = '', lease_token = lease_token + 1, lease_until = now() + $9::bigint * interval '1 microsecond',
			next_at = now() + $9::bigint * interval '1 microsecond', poked = false, updated_at = now()
		WHERE cart = $1 AND customer = $2 AND guest = $3 AND state = 'payment_failed' AND step = 'hold' AND created_at > $10
			AND (lease_until IS NULL OR lease_until <= now())
		RETURNING `+checkoutColumns,
		next.Cart, next.Customer, next.Guest, next.Deadline, next.Scope, next.Value, next.Terms, next.Secrets, lease.Microseconds(), notBefore)
	return c, err
}

func insertKey(ctx context.Context, tx *pg.Tx, c *checkout, hash []byte, now time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO orders.checkout_keys (scope, key, hash, checkout, attempt, created_at)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, c.Scope, c.Value, hash, c.ID, c.Attempt, now)
	return n == 1, err
}

// usedKey is what became of an Idempotency-Key.
type usedKey struct {
	Hash     []byte           `db:"hash"`
	Checkout ids.ID           `db:"checkout"`
	Attempt  int64            `db:"attempt"`
	Reply    pg.JSON[*stored] `db:"reply"`
}

// stored is a reply for replays: an answer, or a refusal.
type stored struct {
	Status  int           `json:"status"`
	Answer  *CheckoutView `json:"answer,omitempty"`
	Refusal *errs.Error   `json:"refusal,omitempty"`
}

func findKey(ctx context.Context, q pg.Queryer, k key) (usedKey, error) {
	var u usedKey
	err := q.Get(ctx, &u, `SELECT hash, checkout, attempt, reply FROM orders.checkout_keys WHERE scope = $1 AND key = $2`, k.Scope, k.Value)
	return u, err
}

func saveReply(ctx context.Context, tx *pg.Tx, k key, r stored) error {
	_, err := tx.Exec(ctx, `UPDATE orders.checkout_keys SET reply = $3 WHERE scope = $1 AND key = $2 AND reply IS NULL`, k.Scope, k.Value, pg.JSON[stored]{V: r})
	return err
}

func forgetKey(ctx context.Context, tx *pg.Tx, k key) error {
	_, err := tx.Exec(ctx, `DELETE FROM orders.checkout_keys WHERE scope = $1 AND key = $2 AND reply IS NULL`, k.Scope, k.Value)
	return err
}

// forgetKeys deletes the keys that no client may repeat any more.
func forgetKeys(ctx context.Context, tx *pg.Tx, before time.Time) error {
	_, err := tx.Exec(ctx, `DELETE FROM orders.checkout_keys WHERE created_at < $1`, before)
	return err
}

func findCheckout(ctx context.Context, q pg.Queryer, id ids.ID) (*checkout, error) {
	var c checkout
	return &c, q.Get(ctx, &c, `SELECT `+checkoutColumns+` FROM orders.checkouts WHERE id = $1`, id)
}

// ownCheckout is a checkout that belongs to the user, to the holder of the cart's token, or to the order that a token shows.
func ownCheckout(ctx context.Context, q pg.Queryer, id, user ids.ID, guest string, shown ordersapi.ID) (*checkout, error) {
	var c checkout
	return &c, q.Get(ctx, &c, `SELECT `+checkoutColumns+` FROM orders.checkouts
		WHERE id = $1 AND (customer <> '' AND customer = $2 OR customer = '' AND guest <> '' AND guest = $3 OR customer = '' AND order_id = $4)`,
		id, user, guest, shown)
}

func activeCheckout(ctx context.Context, q pg.Queryer, cart cartapi.ID) (*checkout, error) {
	var c checkout
	return &c, q.Get(ctx, &c, `SELECT `+checkoutColumns+` FROM orders.checkouts
		WHERE cart = $1 AND state IN ('pending', 'action_required', 'payment_failed')`, cart)
}

// checkoutsIn reads those of a state that is rarer than placed by its index, which does not hold the placed ones; of these the
// newest are never far.
func checkoutsIn(ctx context.Context, q pg.Queryer, s checkoutState, before ids.ID, limit int64) (cs []checkout, err error) {
	if s == statePlaced {
		err = q.Select(ctx, &cs, `SELECT `+checkoutColumns+` FROM orders.checkouts
			WHERE state = 'placed' AND id < $1 ORDER BY id DESC LIMIT $2`, orBehindAll(before), limit)
	} else {
		err = q.Select(ctx, &cs, `SELECT `+checkoutColumns+` FROM orders.checkouts
			WHERE state = $1 AND state <> 'placed' AND id < $2 ORDER BY id DESC LIMIT $3`, string(s), orBehindAll(before), limit)
	}
	return cs, err
}

func checkoutsNeedingAttention(ctx context.Context, q pg.Queryer, before ids.ID, limit int64) ([]checkout, error) {
	var cs []checkout
	err := q.Select(ctx, &cs, `SELECT `+checkoutColumns+` FROM orders.checkouts
		WHERE attention AND id < $1 ORDER BY id DESC LIMIT $2`, orBehindAll(before), limit)
	return cs, err
}

// claimCheckout leases one open checkout that nobody holds. NoRows: somebody does, or it is done.
func claimCheckout(ctx context.Context, tx *pg.Tx, id ids.ID, lease time.Duration) (*checkout, error) {
	c := &checkout{held: true, leased: time.Now()}
	err := tx.Get(ctx, c, `UPDATE orders.checkouts SET lease_token = lease_token + 1, poked = false,
			lease_until = now() + $2::bigint * interval '1 microsecond', next_at = now() + $2::bigint * interval '1 microsecond'
		WHERE id = $1 AND next_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= now())
		RETURNING `+checkoutColumns, id, lease.Microseconds())
	return c, err
}

// anythingDue says whether there is something to claim: a plain read, so that looking in vain costs no transaction.
func anythingDue(ctx context.Context, q pg.Queryer) (due bool, err error) {
	err = q.Get(ctx, &due, `SELECT EXISTS (SELECT FROM orders.checkouts WHERE next_at <= now())
		OR EXISTS (SELECT FROM orders.cancellations WHERE next_at <= now())`)
	return due, err
}

// claimDue leases up to n checkouts that are due. A held one is due when its lease ends.
func claimDue(ctx context.Context, tx *pg.Tx, n int, lease time.Duration) ([]*checkout, error) {
	var cs []*checkout
	err := tx.Select(ctx, &cs, `UPDATE orders.checkouts SET lease_token = lease_token + 1, poked = false,
			lease_until = now() + $2::bigint * interval '1 microsecond', next_at = now() + $2::bigint * interval '1 microsecond'
		WHERE id = ANY(ARRAY(SELECT id FROM orders.checkouts WHERE next_at <= now() ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED))
		RETURNING `+checkoutColumns, n, lease.Microseconds())
	for _, c := range cs {
		c.held, c.leased = true, time.Now()
	}
	return cs, err
}

// pokeCheckout makes an open checkout due. One that is held is looked at again as soon as its holder lets go.
func pokeCheckout(ctx context.Context, tx *pg.Tx, id ids.ID) error {
	_, err := tx.Exec(ctx, `UPDATE orders.checkouts SET poked = true, next_at = CASE WHEN lease_until > now() THEN next_at ELSE now() END
		WHERE id = $1 AND next_at IS NOT NULL`, id)
	return err
}

// keep says what becomes of the lease when a saga is saved.
type keep struct {
	hold bool          // go on: the lease is renewed
	done bool          // nobody need ever look again
	wait time.Duration // otherwise: look after that long
}

// saveCheckout writes a saga's progress under its lease.
func saveCheckout(ctx context.Context, tx *pg.Tx, c *checkout, k keep, lease time.Duration) error {
	n, err := tx.Exec(ctx, `UPDATE orders.checkouts SET state = $3, step = $4, tries = $5, attention = $6, deadline = $7, payment = $8,
			secrets = $9, next_action = $10, failure = $11, last_error = $12, updated_at = now(),
			lease_until = CASE WHEN $13 THEN now() + $15::bigint * interval '1 microsecond' END,
			next_at = CASE WHEN $13 THEN now() + $15::bigint * interval '1 microsecond' WHEN $14 THEN NULL WHEN poked THEN now()
				ELSE now() + $16::bigint * interval '1 microsecond' END,
			poked = poked AND $13, attempt = $17
		WHERE id = $1`+fenced,
		c.ID, c.Token, string(c.State), string(c.Step), c.Tries, c.Attention, c.Deadline, c.Payment, c.Secrets, c.Next, c.Failure, c.LastError,
		k.hold, k.done, lease.Microseconds(), k.wait.Microseconds(), c.Attempt)
	if err != nil {
		return err
	}
	if n == 0 {
		return errLease
	}
	return nil
}

func deleteCheckout(ctx context.Context, tx *pg.Tx, id ids.ID) error {
	_, err := tx.Exec(ctx, `DELETE FROM orders.checkouts WHERE id = $1`, id)
	return err
}

const cancellationColumns = `id, order_id, scope, key, hash, state, lines, whole, restock, reason, actor, currency, refund, attempt,
	tries, attention, failure, last_error, lease_token, created_at`

func insertCancellation(ctx context.Context, tx *pg.Tx, c *cancellation, lease time.Duration) (bool, error) {
	n, err := tx.Exec(ctx, `INSERT INTO orders.cancellations (id, order_id, scope, key, hash, state, lines, whole, restock, reason, actor,
			currency, refund, attempt, lease_token, lease_until, next_at, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 1, 1, now() + $14::bigint * interval '1 microsecond',
			now() + $14::bigint * interval '1 microsecond', $15, $15) ON CONFLICT (scope, key) DO NOTHING`,
		c.ID, c.Order, c.Scope, c.Key, c.Hash, c.State, c.Lines, c.Whole, c.Restock, c.Reason, c.Actor, c.Currency, c.Refund,
		lease.Microseconds(), c.CreatedAt)
	return n == 1, err
}

func findCancellation(ctx context.Context, q pg.Queryer, k key) (*cancellation, error) {
	var c cancellation
	return &c, q.Get(ctx, &c, `SELECT `+cancellationColumns+` FROM orders.cancellations WHERE scope = $1 AND key = $2`, k.Scope, k.Value)
}

func openCancellations(ctx context.Context, q pg.Queryer, id ordersapi.ID) ([]*cancellation, error) {
	var cs []*cancellation
	err := q.Select(ctx, &cs, `SELECT `+cancellationColumns+` FROM orders.cancellations WHERE order_id = $1 AND state = 'pending' ORDER BY id`, id)
	return cs, err
}

func cancellationsNeedingAttention(ctx context.Context, q pg.Queryer, before ids.ID, limit int64) ([]cancellation, error) {
	var cs []cancellation
	err := q.Select(ctx, &cs, `SELECT `+cancellationColumns+` FROM orders.cancellations
		WHERE attention AND id < $1 ORDER BY id DESC LIMIT $2`, orBehindAll(before), limit)
	return cs, err
}

func claimCancellation(ctx context.Context, tx *pg.Tx, id ids.ID, lease time.Duration) (*cancellation, error) {
	var c cancellation
	return &c, tx.Get(ctx, &c, `UPDATE orders.cancellations SET lease_token = lease_token + 1,
			lease_until = now() + $2::bigint * interval '1 microsecond', next_at = now() + $2::bigint * interval '1 microsecond'
		WHERE id = $1 AND next_at IS NOT NULL AND (lease_until IS NULL OR lease_until <= now())
		RETURNING `+cancellationColumns, id, lease.Microseconds())
}

func claimCancellationsDue(ctx context.Context, tx *pg.Tx, n int, lease time.Duration) ([]*cancellation, error) {
	var cs []*cancellation
	err := tx.Select(ctx, &cs, `UPDATE orders.cancellations SET lease_token = lease_token + 1,
			lease_until = now() + $2::bigint * interval '1 microsecond', next_at = now() + $2::bigint * interval '1 microsecond'
		WHERE id = ANY(ARRAY(SELECT id FROM orders.cancellations WHERE next_at <= now() ORDER BY next_at LIMIT $1 FOR UPDATE SKIP LOCKED))
		RETURNING `+cancellationColumns, n, lease.Microseconds())
	return cs, err
}

func saveCancellation(ctx context.Context, tx *pg.Tx, c *cancellation, k keep) error {
	n, err := tx.Exec(ctx, `UPDATE orders.cancellations SET state = $3, attempt = $4, tries = $5, attention = $6, failure = $7, last_error = $8,
			lease_until = NULL, next_at = CASE WHEN $9 THEN NULL ELSE now() + $10::bigint * interval '1 microsecond' END, updated_at = now()
		WHERE id = $1`+fenced,
		c.ID, c.Token, c.State, c.Attempt, c.Tries, c.Attention, c.Failure, c.LastError, k.done, k.wait.Microseconds())
	if err != nil {
		return err
	}
	if n == 0 {
		return errLease
	}
	return nil
}

// jsonOf is for values that are plain data and always encode.
func jsonOf(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
