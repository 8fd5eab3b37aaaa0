package shipping

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// An order begins with one shipment that collects all of it. Parcels are split off it; what is cancelled leaves it. At any
// time what the shipments hold is what was ordered less what was cancelled.

// Subscribe says what shipping hears. Cancellations are not heard: orders asks CancelLines, which decides.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "record-order", m.onOrderPlaced)
}

// onOrderPlaced records what is to be shipped, less what was cancelled before this event came.
func (m *Module) onOrderPlaced(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error {
	o := order{ID: ids.ID(e.Order), Number: e.Number, Customer: e.Customer, Carrier: e.Carrier, Service: e.Service}
	fresh, err := placeOrder(ctx, tx, o, e.PlacedAt)
	if err != nil {
		return fmt.Errorf("record order %s: %w", o.ID, err)
	}
	if !fresh {
		return nil
	}
	ordered := content{}
	for _, l := range e.Lines {
		ordered[l.SKU] += l.Quantity
	}
	if err := noteLines(ctx, tx, o.ID, ordered); err != nil {
		return fmt.Errorf("record lines of order %s: %w", o.ID, err)
	}
	left, err := leftToShip(ctx, tx, o.ID)
	if err != nil || left.empty() {
		return err
	}
	s := shipment{ID: ids.New[shippingapi.ShipmentID]("shp"), Collecting: true, Status: pending}
	return insertShipment(ctx, tx, o, s, left, m.Now())
}

// split makes a parcel of lines that are in none yet, or of all that are left.
func (m *Module) split(ctx context.Context, tx *pg.Tx, id ids.ID, lines []shippingapi.Line) (shippingapi.ShipmentID, error) {
	want, err := contentOf(lines)
	if err != nil {
		return "", err
	}
	o, err := lockOrder(ctx, tx, id)
	if pg.NoRows(err) || err == nil && !o.Placed {
		return "", errs.NotFoundf("no such order")
	}
	if err != nil {
		return "", err
	}
	all, err := loadWaiting(ctx, tx, id)
	if err != nil {
		return "", err
	}
	if len(all) == 0 || !all[0].Collecting {
		return "", errs.Conflictf("nothing_to_ship", "all of the order is in a parcel, or cancelled")
	}
	from := all[0]
	if len(lines) > 0 {
		moved := from.content.take(want)
		if !want.empty() {
			return "", errs.Conflictf("nothing_to_ship", "some of this is in a parcel already, cancelled or was not ordered").
				WithDetails(shippingapi.CancelledLines{Left: from.content.lines()})
		}
		if !from.content.empty() {
			s := shipment{ID: ids.New[shippingapi.ShipmentID]("shp"), Status: pending}
			if err := setContent(ctx, tx, from.ID, from.content); err != nil {
				return "", err
			}
			return s.ID, insertShipment(ctx, tx, o, s, moved, m.Now())
		}
	}
	// All that was collected goes into this parcel: it is the parcel.
	from.Collecting = false
	return from.ID, updateShipment(ctx, tx, from.shipment)
}

// trackingEvent is what somebody tells of a parcel, with the number it travels under.
type trackingEvent struct {
	shippingapi.TrackingEvent
	Number string
}

// track appends an event to a parcel's history and does what follows from it, each consequence once.
func (m *Module) track(ctx context.Context, tx *pg.Tx, id shippingapi.ShipmentID, e trackingEvent) (ids.ID, error) {
	owner, err := orderOf(ctx, tx, id)
	if pg.NoRows(err) {
		return "", errs.NotFoundf("no such shipment")
	}
	if err != nil {
		return "", err
	}
	o, err := lockOrder(ctx, tx, owner)
	if err != nil {
		return "", err
	}
	s, err := loadShipment(ctx, tx, id)
	if err != nil {
		return "", err
	}
	left, arrived, err := s.hear(e.Status)
	if err != nil {
		return "", err
	}
	fresh, err := insertEvent(ctx, tx, id, e.TrackingEvent, e.Number, m.Now())
	if err != nil || !fresh {
		return o.ID, err
	}
	if e.Number != "" {
		if err := noteTracking(ctx, tx, id, e.Number, e.OccurredAt); err != nil {
			return "", err
		}
	}
	if err := updateShipment(ctx, tx, s); err != nil {
		return "", err
	}
	if !left && !arrived {
		return o.ID, nil
	}
	return o.ID, m.announce(ctx, tx, o, id, e.OccurredAt, left, arrived)
}

// announce tells the other modules that a parcel has left, arrived, or both.
func (m *Module) announce(ctx context.Context, tx *pg.Tx, o order, id shippingapi.ShipmentID, at time.Time, left, arrived bool) error {
	all, err := loadShipments(ctx, tx, []string{string(o.ID)})
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.ID != id {
			continue
		}
		held, err := contentOf(s.Lines)
		if err != nil {
			return err
		}
		if left {
			if err := shipLines(ctx, tx, o.ID, held); err != nil {
				return err
			}
			err := events.Publish(ctx, tx, shippingapi.ShipmentShipped{
				Shipment: id, Order: o.ID, Customer: o.Customer, Carrier: s.Carrier, TrackingNumber: s.TrackingNumber,
				Lines: s.Lines, ShippedAt: at,
			})
			if err != nil {
				return err
			}
		}
		if arrived {
			return events.Publish(ctx, tx, shippingapi.ShipmentDelivered{
				Shipment: id, Order: o.ID, Customer: o.Customer, Lines: s.Lines, DeliveredAt: at,
			})
		}
	}
	return nil
}

// CancelLines takes quantities out of what is to be shipped. The condition is in the update's predicate, under the order's
// lock, so that what leaves the house meanwhile can't be cancelled and what is cancelled can't leave.
func (m *Module) CancelLines(ctx context.Context, r shippingapi.CancelLinesRequest) (shippingapi.CancelledLines, error) {
	var none shippingapi.CancelledLines
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return none, err
	}
	ordered, err := contentOf(r.Ordered)
	if err != nil {
		return none, err
	}
	out, err := contentOf(r.Lines)
	if err != nil {
		return none, err
	}
	op := pg.Operation{Key: r.Key, Method: "shipping.CancelLines", Request: r}
	return pg.Once(ctx, m.DB, op, func(tx *pg.Tx) (shippingapi.CancelledLines, error) {
		if err := noteOrder(ctx, tx, r.Order); err != nil {
			return none, fmt.Errorf("cancel lines of order %s: %w", r.Order, err)
		}
		if err := noteLines(ctx, tx, r.Order, ordered); err != nil {
			return none, fmt.Errorf("cancel lines of order %s: %w", r.Order, err)
		}
		done, err := cancelLines(ctx, tx, r.Order, out)
		if err != nil {
			return none, fmt.Errorf("cancel lines of order %s: %w", r.Order, err)
		}
		left, err := leftToShip(ctx, tx, r.Order)
		if err != nil {
			return none, err
		}
		if !done {
			return none, errs.Conflictf("already_shipped", "some of this has left the house, is cancelled already or was not ordered")
		}
		if err := m.empty(ctx, tx, r.Order, out); err != nil {
			return none, err
		}
		return shippingapi.CancelledLines{Left: left.lines()}, nil
	})
}

// empty takes cancelled quantities out of the shipments that have not left, the collecting one first. A shipment that holds
// nothing any more is cancelled.
func (m *Module) empty(ctx context.Context, tx *pg.Tx, id ids.ID, out content) error {
	all, err := loadWaiting(ctx, tx, id)
	if err != nil {
		return err
	}
	rest := content{}
	for sku, n := range out {
		rest[sku] = n // Once may run this again
	}
	for _, w := range all {
		if len(w.content.take(rest)) == 0 {
			continue
		}
		if err := setContent(ctx, tx, w.ID, w.content); err != nil {
			return err
		}
		if w.content.empty() {
			w.Status, w.Collecting = cancelled, false
			if err := updateShipment(ctx, tx, w.shipment); err != nil {
				return err
			}
		}
	}
	return nil
}
