package events

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Subscriptions is what one module hears.
type Subscriptions struct {
	module string
	list   []subscription
}

// Subscription is one entry, for the graph of events and its checks.
type Subscription struct {
	Module    string
	Consumer  string // "" for a broadcast
	Event     string // its name
	Type      string // its Go type, such as ordersapi.OrderPlaced
	Broadcast bool
}

type subscription struct {
	Subscription
	// decode binds a payload to the handler. Its error means that this payload will never be understood.
	decode func(payload []byte) (handling, error)
}

type handling func(ctx context.Context, tx *pg.Tx) error

// On subscribes h under a stable consumer name, unique in the module. h works in tx, which also records that this consumer
// has seen the event; it may be called late and again after a rollback. An error is retried with backoff, then parked.
func On[E Event](s *Subscriptions, consumer string, h func(ctx context.Context, tx *pg.Tx, e E) error) {
	if consumer == "" {
		panic(fmt.Sprintf("events: %s subscribes %T without a consumer name", s.module, h))
	}
	for _, other := range s.list {
		if other.Consumer == consumer {
			panic(fmt.Sprintf("events: %s has two consumers named %q: the name is the key of the inbox", s.module, consumer))
		}
	}
	s.list = append(s.list, subscription{describe[E](s.module, consumer), func(payload []byte) (handling, error) {
		var e E
		if err := json.Unmarshal(payload, &e); err != nil {
			return nil, err
		}
		return func(ctx context.Context, tx *pg.Tx) error { return h(ctx, tx, e) }, nil
	}})
}

// Broadcast subscribes every instance of the module: no inbox, no retry. For caches and the like, whose effect is idempotent
// and bounded by a time to live.
func Broadcast[E Event](s *Subscriptions, h func(ctx context.Context, e E)) {
	s.list = append(s.list, subscription{describe[E](s.module, ""), func(payload []byte) (handling, error) {
		var e E
		if err := json.Unmarshal(payload, &e); err != nil {
			return nil, err
		}
		return func(ctx context.Context, _ *pg.Tx) error { h(ctx, e); return nil }, nil
	}})
}

// describe asks the zero E for its name, which is why EventName must not look at the value.
func describe[E Event](module, consumer string) Subscription {
	var e E
	return Subscription{
		Module: module, Consumer: consumer, Event: e.EventName(), Type: reflect.TypeFor[E]().String(), Broadcast: consumer == "",
	}
}

// Collect lists what a module hears without a bus or a database: subscribe may be the method of a nil instance.
func Collect(module string, subscribe func(*Subscriptions)) []Subscription {
	s := &Subscriptions{module: module}
	subscribe(s)
	list := make([]Subscription, len(s.list))
	for i, sub := range s.list {
		list[i] = sub.Subscription
	}
	return list
}
