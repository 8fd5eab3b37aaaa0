// Package jetstream carries events over NATS JetStream.
package jetstream

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"github.com/banyan-shop/banyan/platform/events"
)

type Config struct {
	URL string
	Log *slog.Logger
}

type carrier struct {
	nc *nats.Conn
	js js.JetStream
}

func New(ctx context.Context, c Config) (events.Carrier, error) {
	nc, err := nats.Connect(c.URL, nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	j, err := js.New(nc)
	if err != nil {
		return nil, err
	}
	_, err = j.CreateOrUpdateStream(ctx, js.StreamConfig{Name: "banyan", Subjects: []string{"banyan.>"}, MaxAge: 8 * 24 * time.Hour})
	return &carrier{nc, j}, err
}

func subject(topic string) string { return "banyan." + strings.ReplaceAll(topic, "/", ".") }

func (c *carrier) Publisher() message.Publisher                    { return c }
func (c *carrier) Subscriber(g string) (message.Subscriber, error) { return &subscriber{c, g}, nil }
func (c *carrier) Close() error                                    { c.nc.Close(); return nil }

func (c *carrier) Publish(topic string, ms ...*message.Message) error {
	for _, m := range ms {
		n := nats.NewMsg(subject(topic))
		n.Data = m.Payload
		n.Header.Set("uuid", m.UUID)
		for k, v := range m.Metadata {
			n.Header.Set("m-"+k, v)
		}
		if _, err := c.js.PublishMsg(m.Context(), n); err != nil {
			return err
		}
	}
	return nil
}

type subscriber struct {
	c     *carrier
	group string
}

func (s *subscriber) Close() error { return nil }

func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	config := js.ConsumerConfig{FilterSubject: subject(topic), AckPolicy: js.AckExplicitPolicy, MaxAckPending: 1, AckWait: 30 * time.Second}
	if s.group == "" {
		config.DeliverPolicy, config.InactiveThreshold = js.DeliverNewPolicy, time.Minute
	} else {
		config.Durable = strings.NewReplacer(".", "_", "/", "_").Replace(s.group + "_" + topic)
	}
	con, err := s.c.js.CreateOrUpdateConsumer(ctx, "banyan", config)
	if err != nil {
		return nil, err
	}
	out := make(chan *message.Message)
	cc, err := con.Consume(func(n js.Msg) {
		m := message.NewMessage(n.Headers().Get("uuid"), n.Data())
		for k := range n.Headers() {
			if name, ok := strings.CutPrefix(k, "m-"); ok {
				m.Metadata.Set(name, n.Headers().Get(k))
			}
		}
		m.SetContext(ctx)
		select {
		case out <- m:
		case <-ctx.Done():
			return
		}
		select {
		case <-m.Acked():
			n.Ack()
		case <-m.Nacked():
			n.Nak()
		case <-ctx.Done():
		}
	}, js.PullMaxMessages(1))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, cc.Stop)
	return out, nil
}
