package orders

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscribe hears how payments and parcels fare.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "payment-changed", m.onPaymentChanged)
	events.On(s, "shipment-shipped", m.onShipmentShipped)
	events.On(s, "shipment-delivered", m.onShipmentDelivered)
}

// onPaymentChanged only makes the checkout due: whoever takes it up asks payments for the truth.
func (m *Module) onPaymentChanged(ctx context.Context, tx *pg.Tx, e paymentsapi.PaymentChanged) error {
	tx.AfterCommit(m.Signals.wake)
	return pokeCheckout(ctx, tx, e.Checkout)
}

func (m *Module) onShipmentShipped(ctx context.Context, tx *pg.Tx, e shippingapi.ShipmentShipped) error {
	return m.change(ctx, tx, e.Order, func(o *order) error { return o.ship(e.Lines, "shipped: "+e.TrackingNumber, m.now()) })
}

func (m *Module) onShipmentDelivered(ctx context.Context, tx *pg.Tx, e shippingapi.ShipmentDelivered) error {
	return m.change(ctx, tx, e.Order, func(o *order) error { return o.deliver(e.Lines, m.now()) })
}

// change reads an order for update, applies a rule and writes it.
func (m *Module) change(ctx context.Context, tx *pg.Tx, id ids.ID, rule func(*order) error) error {
	o, err := lockOrder(ctx, tx, ordersapi.ID(id))
	if err != nil {
		return fmt.Errorf("order %s: %w", id, err)
	}
	if err := rule(o); err != nil {
		return fmt.Errorf("order %s: %w", id, err)
	}
	return saveOrder(ctx, tx, o)
}

// cancelledEvent tells of a cancellation, or of an order that could not be placed.
func cancelledEvent(o *order, id ids.ID, p planned, refunded int64, allocated, restock bool, reason string, now time.Time) ordersapi.OrderCancelled {
	e := ordersapi.OrderCancelled{
		Order: o.ID, Number: o.Number, Customer: o.Customer, Cancellation: id, Allocated: allocated, Restock: restock, Whole: o.State == cancelled,
		Reason: reason, Refund: o.amount(refunded), CancelledAt: now,
	}
	for _, l := range p.Lines {
		e.Lines = append(e.Lines, ordersapi.CancelLine{SKU: l.SKU, Quantity: l.Quantity})
	}
	return e
}
