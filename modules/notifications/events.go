package notifications

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscribe hears what people are told.
func (m *Module) Subscribe(s *events.Subscriptions) {
	events.On(s, "users-mail", m.onMailRequested)
	events.On(s, "order-confirmation", m.onOrderPlaced)
	events.On(s, "order-cancelled", m.onOrderCancelled)
	events.On(s, "payment-declined", m.onPaymentDeclined)
	events.On(s, "shipment-shipped", m.onShipmentShipped)
	events.On(s, "shipment-delivered", m.onShipmentDelivered)
}

func (m *Module) onMailRequested(ctx context.Context, tx *pg.Tx, e usersapi.MailRequested) error {
	return m.keep(ctx, tx, e.Kind, "mail:"+string(e.Mail), struct{}{})
}

func (m *Module) onOrderPlaced(ctx context.Context, tx *pg.Tx, e ordersapi.OrderPlaced) error {
	return m.keep(ctx, tx, "order_confirmation", "order:"+string(e.Order), e)
}

func (m *Module) onOrderCancelled(ctx context.Context, tx *pg.Tx, e ordersapi.OrderCancelled) error {
	return m.keep(ctx, tx, "order_cancelled", "order:"+string(e.Order), e)
}

func (m *Module) onPaymentDeclined(ctx context.Context, tx *pg.Tx, e ordersapi.PaymentDeclined) error {
	return m.keep(ctx, tx, "payment_declined", "order:"+string(e.Order), e)
}

func (m *Module) onShipmentShipped(ctx context.Context, tx *pg.Tx, e shippingapi.ShipmentShipped) error {
	return m.keep(ctx, tx, "shipment_shipped", "order:"+string(e.Order), e)
}

func (m *Module) onShipmentDelivered(ctx context.Context, tx *pg.Tx, e shippingapi.ShipmentDelivered) error {
	return m.keep(ctx, tx, "shipment_delivered", "order:"+string(e.Order), e)
}

// keep writes the message that an event asks for, once.
func (m *Module) keep(ctx context.Context, tx *pg.Tx, template, recipient string, data any) error {
	b, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("keep %s: %w", template, err)
	}
	now := m.Now().UTC()
	err = insertMessage(ctx, tx, message{
		ID: ids.New[ids.ID]("msg"), Event: events.FromContext(ctx).ID, Template: template, Recipient: recipient, Locale: "en",
		Data: b, Next: now, CreatedAt: now,
	})
	if err != nil {
		return err
	}
	tx.AfterCommit(func() {
		select {
		case m.Woken <- struct{}{}:
		default:
		}
	})
	return nil
}
