// Package topics defines an analyzer that keeps every event with the module that owns it.
//
// # Analyzer topics
//
// topics: refuse events without an owner, and publishing another module's events
//
// An event is a struct of api/ordersapi whose EventName, on a value receiver, returns one constant: "orders.order_placed.v1",
// that is the owner, what happened, and a version. Only module orders makes and publishes it. Hearers subscribe with
// events.On[ordersapi.OrderPlaced](s, "confirm order", …) under a constant consumer name that is unique in the module. A module
// without db/<module> has no outbox and no inbox, so it neither publishes nor hears; Broadcast needs neither.
//
// Whether every event heard is published by somebody is for the whole-program run of shoplint: no single package can tell.
//
// Bad:
//
//	events.Publish(ctx, tx, paymentsapi.PaymentCaptured{…}) // in orders
//	func (e OrderPlaced) EventName() string { return "order." + e.Kind }
//
// Good:
//
//	events.Publish(ctx, tx, ordersapi.OrderPlaced{…}) // in orders
//	func (OrderPlaced) EventName() string { return "orders.order_placed.v1" }
package topics
