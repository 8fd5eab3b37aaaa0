package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/jetstream"
	"github.com/banyan-shop/banyan/platform/events/kafka"
	"github.com/banyan-shop/banyan/platform/events/rabbitmq"
)

// carrier opens the bus by its scheme. The brokers' clients are heavy to compile, so only this program knows them.
func carrier(ctx context.Context, bus string, log *slog.Logger) (events.Carrier, error) {
	scheme, _, _ := strings.Cut(bus, "://")
	switch scheme {
	case "nats", "tls":
		return jetstream.New(ctx, jetstream.Config{URL: bus, Log: log})
	case "amqp", "amqps":
		return rabbitmq.New(ctx, rabbitmq.Config{URL: bus, Log: log, Subscriptions: heard()})
	case "kafka", "kafkas":
		return kafka.New(ctx, kafka.Config{URL: bus, Log: log})
	}
	return nil, fmt.Errorf("there is no carrier %q: write nats://host:4222, amqp://user:password@host:5672/ or kafka://host:9092", scheme)
}

// heard is what all modules hear, wherever they run: RabbitMQ keeps an event only for queues that are there when it comes.
func heard() []events.Subscription {
	var all []events.Subscription
	for _, m := range modules {
		all = append(all, events.Collect(m.Name, m.Nil.Subscribe)...)
	}
	return all
}
