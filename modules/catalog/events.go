package catalog

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscribe hears what becomes of an order's goods, what shoppers think of a product, and, in every instance, that the catalogue
// has changed.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "give_back_stock", m.onOrderCancelled)
	events.On(s, "book_out_stock", m.onShipmentShipped)
	events.On(s, "keep_rating", m.onRatingChanged)
	events.Broadcast(s, m.onProductsChanged)
}

// changed tells who keeps what the catalogue shows that it is old from this transaction on: one event for all that changes at
// once.
func changed(ctx context.Context, tx *pg.Tx, categories bool, products ...catalogapi.ProductID) error {
	if len(products) > catalogapi.MaxChanged {
		products = nil
	}
	e := catalogapi.ProductsChanged{Products: append([]catalogapi.ProductID{}, products...), Categories: categories}
	if err := events.Publish(ctx, tx, e); err != nil {
		return fmt.Errorf("tell of changed products: %w", err)
	}
	return nil
}

// onProductsChanged forgets what this instance has kept: another may have changed it.
func (m *Module) onProductsChanged(context.Context, catalogapi.ProductsChanged) { m.cache.forget() }

// onOrderCancelled ends an order's claim on its goods. They were never taken from on hand, so giving them back is only to
// promise fewer; goods that are lost are also written off.
func (m *Module) onOrderCancelled(ctx context.Context, tx *pg.Tx, e ordersapi.OrderCancelled) error {
	if !e.Allocated {
		return nil
	}
	lines := make([]change, len(e.Lines))
	for i, l := range e.Lines {
		lines[i] = change{SKU: l.SKU, Reserved: -l.Quantity}
	}
	lines = sumChanges(lines)
	open, err := openAllocations(ctx, tx, ids.ID(e.Order), lines)
	if err != nil {
		return fmt.Errorf("cancel allocation of %s: %w", e.Order, err)
	}
	var moved []change
	for i, l := range lines {
		if -l.Reserved > open[l.SKU] {
			// Shipped meanwhile, or never allocated: those units are no longer ours to give back.
			m.Log.WarnContext(ctx, "more is cancelled than was allocated", "order", e.Order, "sku", l.SKU, "cancelled", -l.Reserved, "open", open[l.SKU])
			lines[i].Reserved = -open[l.SKU]
		}
		if !e.Restock {
			lines[i].OnHand = lines[i].Reserved
			moved = append(moved, lines[i])
		}
	}
	if err := settleAllocations(ctx, tx, ids.ID(e.Order), lines, true); err != nil {
		return fmt.Errorf("cancel allocation of %s: %w", e.Order, err)
	}
	if err := addMovements(ctx, tx, e.Cancellation, "write_off", m.Now(), moved); err != nil {
		return fmt.Errorf("write off goods of %s: %w", e.Order, err)
	}
	return m.settle(ctx, tx, lines)
}

// onShipmentShipped books out what left the house, from the order's allocation as far as that goes. What was shipped beyond
// it comes out of what is free; if even that is not there the books are wrong, and the event is parked for somebody to look at.
func (m *Module) onShipmentShipped(ctx context.Context, tx *pg.Tx, e shippingapi.ShipmentShipped) error {
	lines := make([]change, len(e.Lines))
	for i, l := range e.Lines {
		lines[i] = change{SKU: l.SKU, OnHand: -l.Quantity, Reserved: -l.Quantity}
	}
	lines = sumChanges(lines)
	open, err := openAllocations(ctx, tx, e.Order, lines)
	if err != nil {
		return fmt.Errorf("ship %s: %w", e.Shipment, err)
	}
	for i, l := range lines {
		if -l.Reserved > open[l.SKU] {
			m.Log.WarnContext(ctx, "more is shipped than was allocated", "shipment", e.Shipment, "sku", l.SKU, "shipped", -l.OnHand, "open", open[l.SKU])
			lines[i].Reserved = -open[l.SKU]
		}
	}
	if err := settleAllocations(ctx, tx, e.Order, lines, false); err != nil {
		return fmt.Errorf("ship %s: %w", e.Shipment, err)
	}
	if err := addMovements(ctx, tx, ids.ID(e.Shipment), "shipped", m.Now(), lines); err != nil {
		return fmt.Errorf("ship %s: %w", e.Shipment, err)
	}
	return m.settle(ctx, tx, lines)
}

func (m *Module) settle(ctx context.Context, tx *pg.Tx, lines []change) error {
	lines = slices.DeleteFunc(lines, func(c change) bool { return c.OnHand == 0 && c.Reserved == 0 })
	if len(lines) == 0 {
		return nil
	}
	changed, err := move(ctx, tx, lines)
	if err != nil {
		return err
	}
	if len(changed) < len(lines) {
		return fmt.Errorf("the stock of %d of %d SKUs would fall below what is promised", len(lines)-len(changed), len(lines))
	}
	return nil
}

// onRatingChanged keeps what the newest version says, whatever the order of arrival.
func (m *Module) onRatingChanged(ctx context.Context, tx *pg.Tx, e reviewsapi.RatingChanged) error {
	n, err := tx.Exec(ctx, `
		UPDATE catalog.products SET rating_count = $2, rating_sum = $3, rating_version = $4
		WHERE id = $1 AND rating_version < $4`, e.Product, e.Count, e.Sum, e.Version)
	if err != nil {
		return fmt.Errorf("keep rating of %s: %w", e.Product, err)
	}
	if n == 0 {
		return nil
	}
	return changed(ctx, tx, false, catalogapi.ProductID(e.Product))
}

// sumChanges adds up the changes of each SKU, in order of SKU.
func sumChanges(all []change) (out []change) {
	for _, c := range all {
		if i := slices.IndexFunc(out, func(o change) bool { return o.SKU == c.SKU }); i >= 0 {
			out[i].OnHand += c.OnHand
			out[i].Reserved += c.Reserved
		} else {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b change) int { return strings.Compare(a.SKU, b.SKU) })
	return out
}

// openAllocations locks an order's allocations of some SKUs and tells how much of each is neither shipped nor cancelled.
func openAllocations(ctx context.Context, tx *pg.Tx, order ids.ID, lines []change) (map[string]int64, error) {
	skus := make([]string, len(lines))
	for i, l := range lines {
		skus[i] = l.SKU
	}
	var rows []struct {
		SKU  string
		Open int64
	}
	err := tx.Select(ctx, &rows, `
		SELECT a.sku, a.quantity - a.shipped - a.cancelled AS open FROM catalog.allocations a
		WHERE a.order_id = $1 AND a.sku = ANY ($2) ORDER BY a.sku FOR UPDATE`, order, pg.Array(skus))
	open := make(map[string]int64, len(rows))
	for _, r := range rows {
		open[r.SKU] = r.Open
	}
	return open, err
}

// settleAllocations counts what lines take from reserved as cancelled, else as shipped.
func settleAllocations(ctx context.Context, tx *pg.Tx, order ids.ID, lines []change, cancelled bool) error {
	skus, quantities := make([]string, len(lines)), make([]int64, len(lines))
	for i, l := range lines {
		skus[i], quantities[i] = l.SKU, -l.Reserved
	}
	_, err := tx.Exec(ctx, `
		UPDATE catalog.allocations AS a SET
			cancelled = a.cancelled + CASE WHEN $4 THEN d.n ELSE 0 END, shipped = a.shipped + CASE WHEN $4 THEN 0 ELSE d.n END
		FROM unnest($2::text[], $3::bigint[]) AS d (sku, n) WHERE a.order_id = $1 AND a.sku = d.sku`,
		order, pg.Array(skus), pg.Array(quantities), cancelled)
	return err
}

// addMovements writes why on hand changes to the ledger. The reference makes sure that one cause is booked once.
func addMovements(ctx context.Context, tx *pg.Tx, reference ids.ID, reason string, now time.Time, lines []change) error {
	skus, deltas := make([]string, 0, len(lines)), make([]int64, 0, len(lines))
	for _, l := range lines {
		if l.OnHand != 0 {
			skus, deltas = append(skus, l.SKU), append(deltas, l.OnHand)
		}
	}
	if len(skus) == 0 {
		return nil
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO catalog.movements (reference, sku, location, delta, reason, moved_at)
		SELECT $1, d.sku, 'main', d.delta, $2, $3 FROM unnest($4::text[], $5::bigint[]) AS d (sku, delta)`,
		reference, reason, now, pg.Array(skus), pg.Array(deltas))
	return err
}
