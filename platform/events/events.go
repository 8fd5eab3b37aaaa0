// Package events carries facts between modules: written with the change they tell of (outbox), delivered at least once in
// order of their key, taken effect once (inbox), retried and parked at the hearer.
//
// The path of an event: Publish writes a row of the publisher's outbox in the publisher's transaction. The module's relay,
// woken by the commit, claims rows and hands them to the carrier. A hearer takes each from there, records it in its own inbox
// and runs the handler in one transaction, and only then acknowledges. The outbox is the store and the carrier a mere
// hand-over: whatever is not acknowledged is sent again.
//
// It does not promise one delivery, nor an order between keys, nor between consumers. It carries no commands and no answers:
// those are calls.
package events

import (
	"context"
	"time"
)

// Event is a past-tense fact: a struct of values whose name never changes and whose key is the aggregate it tells of.
// Both methods have value receivers, and EventName does not look at the value.
type Event interface {
	EventName() string // such as orders.order_placed.v1; the part before the first dot is the publisher
	EventKey() string
}

// Envelope is what travels beside an event.
type Envelope struct {
	ID         string // evt_…; the same in every delivery
	Name       string
	Key        string
	OccurredAt time.Time
}

type envelopeKey struct{}

// FromContext is the envelope of the event being handled; zero outside a handler.
func FromContext(ctx context.Context) Envelope {
	e, _ := ctx.Value(envelopeKey{}).(Envelope)
	return e
}
