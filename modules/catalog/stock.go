package catalog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// How stock is kept from being sold twice: reserved only rises by an UPDATE that has the condition in it, and the CHECK
// never_oversold stands behind that. Rows are locked in one order everywhere, a checkout's or order's own rows first and
// then levels by SKU, each transaction touching levels in one last statement: so nobody waits in a circle, and a hot SKU is
// held only from that statement to the commit.

// Reserve: see catalogapi.
func (m *Module) Reserve(ctx context.Context, r catalogapi.ReserveRequest) (catalogapi.Reservation, error) {
	var none catalogapi.Reservation
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return none, err
	}
	lines, err := sumLines(r.Lines)
	if err != nil {
		return none, err
	}
	if !r.Until.After(m.Now()) {
		return none, errs.Invalidf("already_over", "a reservation must end in the future")
	}
	held := catalogapi.Reservation{Checkout: r.Checkout, Lines: lines, Until: r.Until}
	return retryStock(func() (catalogapi.Reservation, error) {
		res, err := pg.Once(ctx, m.DB, pg.Operation{Key: r.Key, Method: "catalog.Reserve", Request: r},
			func(tx *pg.Tx) (catalogapi.Reservation, error) {
				return held, reserve(ctx, tx, r.Checkout, lines, r.Until)
			})
		if pg.IsUnique(err, "reservations_pkey") {
			// The checkout holds stock under another key: what it asks for now takes the place of that.
			if _, err := m.release(ctx, r.Checkout); err != nil {
				return none, err
			}
			return none, errAgain
		}
		return res, err
	})
}

// Extend: see catalogapi.
func (m *Module) Extend(ctx context.Context, r catalogapi.ExtendRequest) (catalogapi.Reservation, error) {
	var none catalogapi.Reservation
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return none, err
	}
	held := catalogapi.Reservation{Checkout: r.Checkout, Until: r.Until}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		rows, err := extendReservation(ctx, tx, r.Checkout, r.Until, m.Now())
		if err != nil {
			return fmt.Errorf("extend reservation of %s: %w", r.Checkout, err)
		}
		held.Lines = make([]catalogapi.Quantity, len(rows))
		for i, row := range rows {
			held.Lines[i] = catalogapi.Quantity{SKU: row.SKU, Quantity: row.Quantity}
			held.Until = row.Until
		}
		return nil
	})
	if err != nil {
		return none, err
	}
	if len(held.Lines) == 0 {
		return none, errs.NotFoundf("no stock is reserved for checkout %s", r.Checkout)
	}
	slices.SortFunc(held.Lines, bySKU)
	return held, nil
}

// Release: see catalogapi.
func (m *Module) Release(ctx context.Context, r catalogapi.ReleaseRequest) (catalogapi.Released, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return catalogapi.Released{}, err
	}
	n, err := m.release(ctx, r.Checkout)
	return catalogapi.Released{Released: n > 0}, err
}

func (m *Module) release(ctx context.Context, checkout ids.ID) (n int64, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err = releaseReservation(ctx, tx, checkout)
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("release reservation of %s: %w", checkout, err)
	}
	return n, nil
}

// Allocate: see catalogapi.
func (m *Module) Allocate(ctx context.Context, r catalogapi.AllocateRequest) (catalogapi.Allocation, error) {
	var none catalogapi.Allocation
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return none, err
	}
	lines, err := sumLines(r.Lines)
	if err != nil {
		return none, err
	}
	mine := catalogapi.Allocation{Order: r.Order, Lines: lines}
	return retryStock(func() (catalogapi.Allocation, error) {
		res, err := pg.Once(ctx, m.DB, pg.Operation{Key: r.Key, Method: "catalog.Allocate", Request: r},
			func(tx *pg.Tx) (catalogapi.Allocation, error) {
				return mine, allocate(ctx, tx, r.Checkout, r.Order, lines)
			})
		if pg.IsUnique(err, "allocations_pkey") {
			return none, errs.Conflictf("already_allocated", "stock is allocated to order %s already", r.Order)
		}
		return res, err
	})
}

// Sweep frees the reservations that have lapsed, a chunk a transaction, and returns how many lines they had. Those that
// somebody is allocating, extending or releasing right now are left to him.
func (m *Module) Sweep(ctx context.Context) (int64, error) {
	for freed := int64(0); ; {
		var n int64
		err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
			n, err = sweepChunk(ctx, tx, m.Now())
			return err
		})
		freed += n
		if err != nil || n < sweepRows || ctx.Err() != nil {
			return freed, err
		}
	}
}

// errAgain is told by a try that lost a race it did not need to lose.
var errAgain = errors.New("stock changed meanwhile")

func retryStock[T any](try func() (T, error)) (T, error) {
	for range 5 {
		res, err := try()
		if !errors.Is(err, errAgain) {
			return res, err
		}
	}
	var none T
	return none, errs.Unavailablef("the stock changes too quickly")
}

const (
	maxLines    = 200
	maxQuantity = 1_000_000
)

func bySKU(a, b catalogapi.Quantity) int { return strings.Compare(a.SKU, b.SKU) }

// sumLines adds up the quantities of each SKU, in order of SKU.
func sumLines(lines []catalogapi.Quantity) ([]catalogapi.Quantity, error) {
	if len(lines) == 0 {
		return nil, errs.Invalidf("no_lines", "there is nothing to reserve")
	}
	if len(lines) > maxLines {
		return nil, errs.Invalidf("too_many_lines", "there are more than %d lines", maxLines)
	}
	out := make([]catalogapi.Quantity, 0, len(lines))
	for _, l := range lines {
		if l.SKU == "" || l.Quantity < 1 || l.Quantity > maxQuantity {
			return nil, errs.Invalidf("invalid_quantity", "each line needs a SKU and a quantity from 1 to %d", maxQuantity)
		}
		if i := slices.IndexFunc(out, func(o catalogapi.Quantity) bool { return o.SKU == l.SKU }); i >= 0 {
			out[i].Quantity += l.Quantity
		} else {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, bySKU)
	return out, nil
}

func columns(lines []catalogapi.Quantity) (skus []string, quantities []int64) {
	skus, quantities = make([]string, len(lines)), make([]int64, len(lines))
	for i, l := range lines {
		skus[i], quantities[i] = l.SKU, l.Quantity
	}
	return skus, quantities
}

// reserve promises the lines to the checkout, all or none.
func reserve(ctx context.Context, tx *pg.Tx, checkout ids.ID, lines []catalogapi.Quantity, until time.Time) error {
	taken, err := take(ctx, tx, checkout, lines, until)
	if err != nil {
		return fmt.Errorf("reserve for %s: %w", checkout, err)
	}
	if len(taken) < len(lines) {
		return shortage(ctx, tx, lines, lines, taken)
	}
	return nil
}

// change is what happens to the level of a SKU.
type change struct {
	SKU              string
	OnHand, Reserved int64 // added
}

// move changes levels, those that would fall below nothing left out, and returns the SKUs it changed.
func move(ctx context.Context, tx *pg.Tx, changes []change) (changed []string, err error) {
	skus, onHand, reserved := make([]string, len(changes)), make([]int64, len(changes)), make([]int64, len(changes))
	for i, c := range changes {
		skus[i], onHand[i], reserved[i] = c.SKU, c.OnHand, c.Reserved
	}
	err = tx.Select(ctx, &changed, `
		WITH locked AS (
			SELECT l.sku FROM catalog.levels l WHERE l.sku = ANY ($1) AND l.location = 'main' ORDER BY l.sku FOR UPDATE)
		UPDATE catalog.levels AS l SET on_hand = l.on_hand + d.hand, reserved = l.reserved + d.held
		FROM locked k JOIN unnest($1::text[], $2::bigint[], $3::bigint[]) AS d (sku, hand, held) ON d.sku = k.sku
		WHERE l.sku = k.sku AND l.location = 'main' AND l.on_hand + d.hand >= l.reserved + d.held AND l.reserved + d.held >= 0
		RETURNING l.sku`, pg.Array(skus), pg.Array(onHand), pg.Array(reserved))
	return changed, err
}

// allocate moves the promise from the checkout to the order; levels are touched only by the difference, which there is when
// the reservation has lapsed.
func allocate(ctx context.Context, tx *pg.Tx, checkout, order ids.ID, lines []catalogapi.Quantity) error {
	skus, quantities := columns(lines)
	var differences []struct {
		SKU string
		N   int64
	}
	err := tx.Select(ctx, &differences, `
		WITH gone AS (
			DELETE FROM catalog.reservations r WHERE r.checkout = $1 RETURNING r.sku, r.quantity),
		want AS (
			SELECT w.sku, w.n FROM unnest($3::text[], $4::bigint[]) AS w (sku, n)),
		kept AS (
			INSERT INTO catalog.allocations (order_id, sku, quantity) SELECT $2, w.sku, w.n FROM want w)
		SELECT coalesce(w.sku, g.sku) AS sku, coalesce(w.n, 0) - coalesce(g.quantity, 0) AS n
		FROM want w FULL JOIN gone g ON g.sku = w.sku
		WHERE coalesce(w.n, 0) <> coalesce(g.quantity, 0)`,
		checkout, order, pg.Array(skus), pg.Array(quantities))
	if err != nil {
		return fmt.Errorf("allocate to %s: %w", order, err)
	}
	if len(differences) == 0 {
		return nil
	}
	changes := make([]change, len(differences))
	missing := make([]catalogapi.Quantity, 0, len(differences))
	for i, d := range differences {
		changes[i] = change{SKU: d.SKU, Reserved: d.N}
		if d.N > 0 {
			missing = append(missing, catalogapi.Quantity{SKU: d.SKU, Quantity: d.N})
		}
	}
	changed, err := move(ctx, tx, changes)
	if err != nil {
		return fmt.Errorf("allocate to %s: %w", order, err)
	}
	if len(changed) < len(changes) {
		return shortage(ctx, tx, lines, missing, changed)
	}
	return nil
}

// shortage says which of the lines could not be had. missing is what had to be taken from the level, and taken the SKUs where that
// went well. If there is enough after all, somebody gave back in between, and it is worth another try.
func shortage(ctx context.Context, tx *pg.Tx, lines, missing []catalogapi.Quantity, taken []string) error {
	var out catalogapi.Shortages
	failed := make([]string, 0, len(missing))
	for _, l := range missing {
		if !contains(taken, l.SKU) {
			failed = append(failed, l.SKU)
		}
	}
	var levels []struct {
		SKU       string
		Available int64
	}
	err := tx.Select(ctx, &levels, `
		SELECT l.sku, l.on_hand - l.reserved AS available FROM catalog.levels l WHERE l.sku = ANY ($1) AND l.location = 'main'`,
		pg.Array(failed))
	if err != nil {
		return fmt.Errorf("find what is short: %w", err)
	}
	for _, l := range missing {
		if !contains(failed, l.SKU) {
			continue
		}
		short := catalogapi.Shortage{SKU: l.SKU}
		for _, level := range levels {
			if level.SKU == l.SKU {
				short.Available = level.Available
			}
		}
		if short.Available >= l.Quantity {
			continue
		}
		for _, line := range lines {
			if line.SKU == l.SKU {
				short.Requested = line.Quantity
				short.Available += line.Quantity - l.Quantity // what the checkout held of it already
			}
		}
		out.Lines = append(out.Lines, short)
	}
	if len(out.Lines) == 0 {
		return errAgain
	}
	return errs.Conflictf("insufficient_stock", "There is not enough in stock.").WithDetails(out)
}

type reservation struct {
	SKU      string
	Quantity int64
	Until    time.Time
}

func extendReservation(ctx context.Context, tx *pg.Tx, checkout ids.ID, until, now time.Time) (rows []reservation, err error) {
	err = tx.Select(ctx, &rows, `
		UPDATE catalog.reservations SET until = greatest(until, $2) WHERE checkout = $1 AND until > $3
		RETURNING sku, quantity, until`, checkout, until, now)
	return rows, err
}

// releaseReservation returns how many lines it gave back.
func releaseReservation(ctx context.Context, tx *pg.Tx, checkout ids.ID) (n int64, err error) {
	err = tx.Get(ctx, &n, `
		WITH gone AS (
			DELETE FROM catalog.reservations r WHERE r.checkout = $1 RETURNING r.sku, r.quantity),
		locked AS (
			SELECT l.sku FROM catalog.levels l WHERE l.sku IN (SELECT g.sku FROM gone g) AND l.location = 'main' ORDER BY l.sku FOR UPDATE),
		back AS (
			UPDATE catalog.levels AS l SET reserved = l.reserved - g.quantity FROM locked k JOIN gone g ON g.sku = k.sku
			WHERE l.sku = k.sku AND l.location = 'main')
		SELECT count(*) FROM gone`, checkout)
	return n, err
}

const sweepRows = 200

func sweepChunk(ctx context.Context, tx *pg.Tx, now time.Time) (n int64, err error) {
	err = tx.Get(ctx, &n, `
		WITH due AS (
			SELECT r.checkout, r.sku FROM catalog.reservations r WHERE r.until <= $1 ORDER BY r.until LIMIT 200 FOR UPDATE SKIP LOCKED),
		gone AS (
			DELETE FROM catalog.reservations r USING due d WHERE r.checkout = d.checkout AND r.sku = d.sku RETURNING r.sku, r.quantity),
		sums AS (
			SELECT g.sku, sum(g.quantity)::bigint AS n FROM gone g GROUP BY g.sku),
		locked AS (
			SELECT l.sku FROM catalog.levels l WHERE l.sku IN (SELECT s.sku FROM sums s) AND l.location = 'main' ORDER BY l.sku FOR UPDATE),
		back AS (
			UPDATE catalog.levels AS l SET reserved = l.reserved - s.n FROM locked k JOIN sums s ON s.sku = k.sku
			WHERE l.sku = k.sku AND l.location = 'main')
		SELECT count(*) FROM gone`, now)
	return n, err
}

// Mismatch is a level that is not what its ledger and promises add up to.
type Mismatch struct {
	SKU, Location string
	OnHand, Moved int64 // Moved is the sum of the movements
	Reserved      int64
	Promised      int64 // the sum of reservations and open allocations
}

// CheckStock adds up the ledger and the promises of every SKU and returns those whose level says otherwise: there are none,
// or something writes past this module. One statement, so one moment.
func (m *Module) CheckStock(ctx context.Context) (wrong []Mismatch, err error) {
	err = m.DB.Select(ctx, &wrong, `
		SELECT l.sku, l.location, l.on_hand AS onhand, coalesce(m.n, 0) AS moved, l.reserved, coalesce(r.n, 0) + coalesce(a.n, 0) AS promised
		FROM catalog.levels l
		LEFT JOIN (SELECT v.sku, v.location, sum(v.delta)::bigint AS n FROM catalog.movements v GROUP BY v.sku, v.location) m
			ON m.sku = l.sku AND m.location = l.location
		LEFT JOIN (SELECT v.sku, sum(v.quantity)::bigint AS n FROM catalog.reservations v GROUP BY v.sku) r ON r.sku = l.sku
		LEFT JOIN (SELECT v.sku, sum(v.quantity - v.shipped - v.cancelled)::bigint AS n FROM catalog.allocations v GROUP BY v.sku) a
			ON a.sku = l.sku
		WHERE l.on_hand <> coalesce(m.n, 0) OR l.reserved <> coalesce(r.n, 0) + coalesce(a.n, 0)
		ORDER BY l.sku`)
	return wrong, err
}
