package cart

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// owner is who asks, as the SQL compares it. A null matches nothing.
type owner struct {
	user      *string
	tokenHash []byte
}

// loadCart reads a cart with its promo code and lines in one statement. Somebody else's cart is not found, nor is one that has
// expired; a cart that a checkout holds does not expire.
func loadCart(ctx context.Context, q pg.Queryer, id cartapi.ID, o owner, now time.Time) (*basket, error) {
	var rows []struct {
		basket
		promo
		line
	}
	err := q.Select(ctx, &rows, `
		SELECT c.id, c.currency, c.state, c.version, c.locked_by,
		       COALESCE(p.code, '') AS code, COALESCE(p.kind, '') AS kind, COALESCE(p.value, 0) AS value,
		       COALESCE(p.currency, '') AS promo_currency, COALESCE(p.valid_from, c.created_at) AS valid_from,
		       COALESCE(p.valid_until, c.created_at) AS valid_until, COALESCE(p.usage_limit, 0) AS usage_limit,
		       COALESCE(p.used, 0) AS used, r.checkout IS NOT NULL AS redeemed,
		       COALESCE(l.id, '') AS line_id, COALESCE(l.sku, '') AS sku, COALESCE(l.product_id, '') AS product_id,
		       COALESCE(l.name, '') AS name, COALESCE(l.image, '') AS image, COALESCE(l.tax_class, '') AS tax_class,
		       COALESCE(l.weight_grams, 0) AS weight_grams, COALESCE(l.unit_price, 0) AS unit_price,
		       COALESCE(l.quantity, 0) AS quantity, COALESCE(l.available, 0) AS available, COALESCE(l.change, '') AS change,
		       COALESCE(l.change_version, 0) AS change_version, COALESCE(l.refreshed_at, c.created_at) AS refreshed_at
		FROM cart.carts c
		LEFT JOIN cart.promo_codes p ON p.code = c.promo_code
		LEFT JOIN cart.redemptions r ON r.checkout = c.locked_by
		LEFT JOIN cart.lines l ON l.cart_id = c.id
		WHERE c.id = $1 AND (c.user_id = $2 OR c.token_hash = $3) AND (c.expires_at > $4 OR c.state = 'locked')
		ORDER BY l.added_at, l.id`, id, o.user, o.tokenHash, now)
	if err != nil {
		return nil, fmt.Errorf("load cart %s: %w", id, err)
	}
	if len(rows) == 0 {
		return nil, errs.NotFoundf("no such cart")
	}
	b := rows[0].basket
	b.Promo = rows[0].promo
	for _, r := range rows {
		if r.line.ID != "" {
			b.Lines = append(b.Lines, r.line)
		}
	}
	return &b, nil
}

func insertCart(ctx context.Context, tx *pg.Tx, b *basket, o owner, now, expires time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO cart.carts (id, user_id, token_hash, currency, state, version, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		b.ID, o.user, o.tokenHash, b.Currency, b.State, b.Version, now, expires)
	return err
}

// added is what addToLine left behind.
type added struct {
	Version       int64  `db:"version"`
	Quantity      int64  `db:"quantity"`
	Change        string `db:"change"`
	ChangeVersion int64  `db:"change_version"`
}

// addToLine puts n more of a SKU into an active cart, which it makes its next version, in one statement. The row of the cart
// is the lock: of two that add at the same time the second sees what the first left. expected 0 is any version. It finds
// nothing (pg.NoRows) when the cart is no longer as the caller saw it.
func addToLine(ctx context.Context, tx *pg.Tx, b *basket, o owner, expected int64, l line, n int64, now, expires time.Time) (added, error) {
	var a added
	err := tx.Get(ctx, &a, `
		WITH c AS (
			UPDATE cart.carts
			SET version = version + 1,
			    -- moved once a day, so that most updates touch no index
			    expires_at = CASE WHEN expires_at < $6::timestamptz - interval '1 day' THEN $6 ELSE expires_at END
			WHERE id = $1 AND (user_id = $2 OR token_hash = $3) AND state = 'active' AND expires_at > $4 AND ($5::bigint = 0 OR version = $5)
			RETURNING id, version
		)
		INSERT INTO cart.lines AS l (cart_id, sku, id, product_id, name, image, tax_class, weight_grams, unit_price, quantity,
		                             available, added_at, refreshed_at)
		SELECT c.id, $7::text, $8::text, $9::text, $10::text, $11::text, $12::text, $13::bigint, $14::bigint, $15::bigint,
		       $16::bigint, $4, $4
		FROM c
		ON CONFLICT (cart_id, sku) DO UPDATE
		SET product_id = excluded.product_id, name = excluded.name, image = excluded.image, tax_class = excluded.tax_class,
		    weight_grams = excluded.weight_grams, unit_price = excluded.unit_price, available = excluded.available,
		    quantity = l.quantity + excluded.quantity, refreshed_at = excluded.refreshed_at,
		    change = CASE WHEN l.unit_price = excluded.unit_price THEN '' ELSE 'price_changed' END,
		    change_version = (SELECT version FROM c)
		RETURNING (SELECT version FROM c) AS version, quantity, change, change_version`,
		b.ID, o.user, o.tokenHash, now, expected, expires,
		l.SKU, l.ID, l.Product, l.Name, l.Image, l.TaxClass, l.WeightGrams, l.UnitPrice, n, l.Available)
	return a, err
}

// setQuantity makes the cart its next version with another quantity of a line, or without the line for 0. It says false if the
// cart is no longer as b.
func setQuantity(ctx context.Context, tx *pg.Tx, b *basket, l line, now, expires time.Time) (bool, error) {
	if l.Quantity == 0 {
		return one(tx.Exec(ctx, `
			WITH c AS (
				UPDATE cart.carts SET version = version + 1, expires_at = greatest(expires_at, $4)
				WHERE id = $1 AND version = $2 AND state = 'active'
				RETURNING id
			)
			DELETE FROM cart.lines l USING c WHERE l.cart_id = c.id AND l.sku = $3`,
			b.ID, b.Version, l.SKU, expires))
	}
	return one(tx.Exec(ctx, `
		WITH c AS (
			UPDATE cart.carts SET version = version + 1, expires_at = greatest(expires_at, $4)
			WHERE id = $1 AND version = $2 AND state = 'active'
			RETURNING id
		)
		UPDATE cart.lines l
		SET quantity = $5, unit_price = $6, available = $7, name = $8, image = $9, tax_class = $10, weight_grams = $11,
		    refreshed_at = $12, change = $13, change_version = $14
		FROM c WHERE l.cart_id = c.id AND l.sku = $3`,
		b.ID, b.Version, l.SKU, expires, l.Quantity, l.UnitPrice, l.Available, l.Name, l.Image, l.TaxClass, l.WeightGrams,
		now, l.Change, l.ChangeVersion))
}

// setPromo makes the cart its next version with another promo code, "" for none. It says false if the cart is no longer as b.
func setPromo(ctx context.Context, tx *pg.Tx, b *basket, code string, expires time.Time) (bool, error) {
	return one(tx.Exec(ctx, `
		UPDATE cart.carts SET promo_code = $3, version = version + 1, expires_at = greatest(expires_at, $4)
		WHERE id = $1 AND version = $2 AND state = 'active'`, b.ID, b.Version, code, expires))
}

func loadPromo(ctx context.Context, q pg.Queryer, code string) (promo, error) {
	var p promo
	err := q.Get(ctx, &p, `
		SELECT code, kind, value, currency AS promo_currency, valid_from, valid_until, usage_limit, used, false AS redeemed
		FROM cart.promo_codes
		WHERE code = $1`, code)
	return p, err
}

// saveRefresh stores what a refresh found of a cart that was at version seen and is active, or held by the checkout. It says
// false if the cart has changed meanwhile.
func saveRefresh(ctx context.Context, tx *pg.Tx, b *basket, seen int64, checkout ids.ID) (bool, error) {
	n := len(b.Lines)
	sku, name, image, class, change := make([]string, n), make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	product := make([]string, n)
	weight, unit, quantity, available, version := make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n), make([]int64, n)
	refreshed := make([]time.Time, n)
	for i, l := range b.Lines {
		sku[i], name[i], image[i], class[i], change[i], product[i] = l.SKU, l.Name, l.Image, l.TaxClass, l.Change, string(l.Product)
		weight[i], unit[i], quantity[i], available[i], version[i] = l.WeightGrams, l.UnitPrice, l.Quantity, l.Available, l.ChangeVersion
		refreshed[i] = l.RefreshedAt
	}
	affected, err := tx.Exec(ctx, `
		WITH c AS (
			UPDATE cart.carts SET version = $2
			WHERE id = $1 AND version = $3 AND (state = 'active' OR state = 'locked' AND locked_by = $4)
			RETURNING id
		)
		UPDATE cart.lines l
		SET product_id = n.product_id, name = n.name, image = n.image, tax_class = n.tax_class, weight_grams = n.weight_grams,
		    unit_price = n.unit_price, quantity = n.quantity, available = n.available, change = n.change,
		    change_version = n.change_version, refreshed_at = n.refreshed_at
		FROM c, unnest($5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::bigint[], $12::bigint[],
		               $13::bigint[], $14::bigint[], $15::bigint[], $16::timestamptz[])
		     AS n (sku, name, image, tax_class, change, product_id, weight_grams, unit_price, quantity, available, change_version,
		           refreshed_at)
		WHERE l.cart_id = c.id AND l.sku = n.sku`,
		b.ID, b.Version, seen, checkout, pg.Array(sku), pg.Array(name), pg.Array(image), pg.Array(class), pg.Array(change),
		pg.Array(product), pg.Array(weight), pg.Array(unit), pg.Array(quantity), pg.Array(available), pg.Array(version),
		pg.Array(refreshed))
	return affected > 0, err
}

// lockCart gives the cart, as b has it, to a checkout and returns its version. A cart the same checkout holds stays as it is.
// It finds nothing (pg.NoRows) when the cart has changed meanwhile.
func lockCart(ctx context.Context, tx *pg.Tx, b *basket, checkout ids.ID) (int64, error) {
	var version int64
	err := tx.Get(ctx, &version, `
		UPDATE cart.carts
		SET state = 'locked', locked_by = $3, version = version + CASE state WHEN 'active' THEN 1 ELSE 0 END
		WHERE id = $1 AND version = $2 AND (state = 'active' OR state = 'locked' AND locked_by = $3)
		RETURNING version`, b.ID, b.Version, checkout)
	return version, err
}

// redemption is what redeem found and did.
type redemption struct {
	Held     bool   `db:"held"`     // the checkout holds the cart
	Code     string `db:"code"`     // the cart's
	Before   bool   `db:"before"`   // the checkout had redeemed a code already
	Redeemed bool   `db:"redeemed"` // the use was counted now
}

// redeem counts one use of the code of the cart that the checkout holds: the limit is in the predicate of the update, so that
// no two checkouts take the last use. The hot row of the code comes last.
func redeem(ctx context.Context, tx *pg.Tx, cart cartapi.ID, checkout ids.ID, now time.Time) (redemption, error) {
	var r redemption
	err := tx.Get(ctx, &r, `
		WITH c AS (
			SELECT promo_code FROM cart.carts WHERE id = $1 AND locked_by = $2 AND state = 'locked' FOR UPDATE
		), r AS (
			INSERT INTO cart.redemptions (checkout, code, cart_id, redeemed_at)
			SELECT $2, c.promo_code, $1, $3::timestamptz FROM c WHERE c.promo_code <> ''
			ON CONFLICT (checkout) DO NOTHING
			RETURNING code
		), u AS (
			UPDATE cart.promo_codes p SET used = p.used + 1 FROM r
			WHERE p.code = r.code AND p.used < p.usage_limit
			RETURNING p.code
		)
		SELECT EXISTS (SELECT FROM c) AS held, COALESCE((SELECT promo_code FROM c), '') AS code,
		       NOT EXISTS (SELECT FROM r) AS before, EXISTS (SELECT FROM u) AS redeemed`, cart, checkout, now)
	return r, err
}

// unlock gives a cart back if the checkout holds it, and with it the use of its promo code.
func unlock(ctx context.Context, tx *pg.Tx, cart cartapi.ID, checkout ids.ID, expires time.Time) (bool, error) {
	var held bool
	err := tx.Get(ctx, &held, `
		WITH c AS (
			UPDATE cart.carts
			SET state = 'active', locked_by = '', version = version + 1, expires_at = greatest(expires_at, $3)
			WHERE id = $1 AND locked_by = $2 AND state = 'locked'
			RETURNING id
		), r AS (
			DELETE FROM cart.redemptions r USING c WHERE r.checkout = $2 RETURNING r.code
		), u AS (
			UPDATE cart.promo_codes p SET used = p.used - 1 FROM r WHERE p.code = r.code RETURNING p.code
		)
		SELECT EXISTS (SELECT FROM c)`, cart, checkout, expires)
	return held, err
}

// complete ends a cart as bought with an order, whoever holds it: the order is paid. It says false for a cart that is not
// there or completed already.
func complete(ctx context.Context, tx *pg.Tx, cart cartapi.ID, order ids.ID) (bool, error) {
	return one(tx.Exec(ctx, `
		UPDATE cart.carts SET state = 'completed', order_id = $2, version = version + 1
		WHERE id = $1 AND state <> 'completed'`, cart, order))
}

// orderOf is the order a cart became, "" while it is none. It finds nothing (pg.NoRows) when there is no such cart.
func orderOf(ctx context.Context, q pg.Queryer, cart cartapi.ID) (ids.ID, error) {
	var order ids.ID
	err := q.Get(ctx, &order, `SELECT order_id FROM cart.carts WHERE id = $1`, cart)
	return order, err
}

// deleteExpired deletes at most n carts that have expired, with their lines. Locked ones never expire.
func deleteExpired(ctx context.Context, tx *pg.Tx, now time.Time, n int) (int64, error) {
	return tx.Exec(ctx, `
		DELETE FROM cart.carts
		WHERE id IN (
			SELECT id FROM cart.carts WHERE expires_at <= $1 AND state <> 'locked'
			ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
		)`, now, n)
}

func insertPromo(ctx context.Context, tx *pg.Tx, p promo) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO cart.promo_codes (code, kind, value, currency, valid_from, valid_until, usage_limit, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (code) DO NOTHING`, p.Code, p.Kind, p.Value, p.Currency, p.From, p.Until, p.Limit, p.Used)
	return err
}

func one(affected int64, err error) (bool, error) { return affected > 0, err }
