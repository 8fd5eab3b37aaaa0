package orders

import (
	"context"

	"shop/api/ordersapi"
	"shop/api/paymentsapi"
	"shop/platform/events"
	"shop/platform/pg"
)

type note struct{}

func (note) EventName() string { return "orders.noted.v1" } // want `event note has no owner here: declare it in api/ordersapi/events.go`
func (note) EventKey() string  { return "" }

func publish(ctx context.Context, tx *pg.Tx) {
	events.Publish(ctx, tx, ordersapi.OrderPlaced{Order: "1"}, &ordersapi.OrderCancelled{})
	events.Publish(ctx, tx, paymentsapi.PaymentCaptured{Payment: "1"}) // want `orders must not publish PaymentCaptured: it is a fact of payments` `orders must not make PaymentCaptured`
	events.Publish(ctx, tx, note{})                                    // want `note is no event of api/ordersapi`

	var es []events.Event
	es = append(es, ordersapi.OrderPlaced{Order: "2"})
	es = append(es, paymentsapi.PaymentCaptured{Payment: "2"}) // want `orders must not make PaymentCaptured`
	events.Publish(ctx, tx, es...)
}

func subscribe(s *events.Subscriptions, name string) {
	events.On(s, "capture", onCaptured)
	events.On[paymentsapi.PaymentCaptured](s, "capture", onCaptured) // want `consumer "capture" is there twice`
	events.On(s, name, onCaptured)                                   // want `the consumer's name must be a constant`
	events.On(s, "any", onAny)                                       // want `subscribe to one event by its type`
	events.On(s, "note", onNote)                                     // want `note has no owner`
}

func onCaptured(ctx context.Context, tx *pg.Tx, e paymentsapi.PaymentCaptured) error { return nil }
func onAny(ctx context.Context, tx *pg.Tx, e events.Event) error                     { return nil }
func onNote(ctx context.Context, tx *pg.Tx, e note) error                            { return nil }
