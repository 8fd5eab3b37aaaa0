// Package rabbitmq carries events by RabbitMQ: one exchange, and a durable queue for each consumer group and topic, of which
// one consumer at a time is active and holds one message.
//
// A queue holds what its group has not had, and no more, so RabbitMQ can't say what it held. What it may have forgotten is
// told from its having been restarted. It does not use quorum queues or streams.
package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/internal/broker"
)

// Config says where the broker is and who hears. Name and Log may be left out.
type Config struct {
	URL  string       // amqp://user:password@host:5672/vhost, or amqps://
	Log  *slog.Logger // nil: nobody reads it
	Name string       // of the exchange and before the queues; shops that share a virtual host have different ones; "": banyan
	// Subscriptions are those of all modules of the shop, wherever they run. Every process makes all their queues, since an
	// exchange drops what it has no queue for: an event published before its hearer's first start would be lost.
	Subscriptions []events.Subscription
}

type carrier struct {
	Config
	keeper *broker.Keeper[*conn]
}

// New begins to connect and does not wait for a broker that is away: its absence is logged and shows in the metrics. The
// error is of the configuration.
func New(ctx context.Context, c Config) (events.Carrier, error) {
	if _, err := amqp.ParseURI(c.URL); err != nil { // it may repeat what it could not read, a password among it
		return nil, errors.New("the address of RabbitMQ is not of the form amqp://user:password@host:5672/")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Name == "" {
		c.Name = "banyan"
	}
	carrier := &carrier{Config: c}
	carrier.keeper = broker.Keep(ctx, c.Log, carrier.dial)
	return carrier, nil
}

func (c *carrier) Connect(ctx context.Context) (events.Connection, error) {
	return c.keeper.Connect(ctx)
}
func (c *carrier) Publisher() message.Publisher { return publisher{c} }
func (c *carrier) Close() error                 { c.keeper.Close(); return nil }

type publisher struct{ *carrier }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	conn, err := p.keeper.Current()
	if err != nil {
		return err
	}
	return conn.Publish(topic, messages...)
}

// conn is two connections, lost together: a broker short of memory stops reading from those who publish, and acknowledgements
// must get through all the same.
type conn struct {
	*carrier
	telling, hearing *amqp.Connection
	confirms         *amqp.Channel
	blocked          atomic.Bool
	lost             chan struct{}
}

func (c *carrier) dial(ctx context.Context) (*conn, error) {
	conn := &conn{carrier: c, lost: make(chan struct{})}
	var err error
	if conn.telling, err = c.open(ctx); err == nil {
		conn.hearing, err = c.open(ctx)
	}
	if err == nil {
		err = conn.declare()
	}
	if err == nil {
		conn.confirms, err = conn.telling.Channel()
	}
	if err == nil {
		err = conn.confirms.Confirm(false)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to RabbitMQ: %w", err)
	}
	lose := sync.OnceFunc(func() { close(conn.lost) })
	for _, closed := range []chan *amqp.Error{
		conn.telling.NotifyClose(make(chan *amqp.Error, 1)),
		conn.hearing.NotifyClose(make(chan *amqp.Error, 1)),
		conn.confirms.NotifyClose(make(chan *amqp.Error, 1)),
	} {
		go func() { // ends with the connection
			for range closed {
			}
			lose()
		}()
	}
	blockings := conn.telling.NotifyBlocked(make(chan amqp.Blocking, 8))
	go func() {
		for b := range blockings {
			conn.blocked.Store(b.Active)
		}
	}()
	return conn, nil
}

func (c *carrier) open(ctx context.Context) (*amqp.Connection, error) {
	return amqp.DialConfig(c.URL, amqp.Config{
		Heartbeat: 10 * time.Second, Locale: "en_US", Properties: amqp.Table{"connection_name": c.Name},
		Dial: func(network, addr string) (net.Conn, error) {
			d := net.Dialer{Timeout: 5 * time.Second}
			nc, err := d.DialContext(ctx, network, addr)
			if err == nil {
				err = nc.SetDeadline(time.Now().Add(10 * time.Second)) // of the handshake; the library takes it off
			}
			return nc, err
		},
	})
}

// declare makes the exchange and all queues. They are told one after another and asked for at the end.
func (c *conn) declare() error {
	ch, err := c.hearing.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.ExchangeDeclare(c.Name, amqp.ExchangeDirect, true, false, false, false, nil); err != nil {
		return err
	}
	for _, sub := range c.Subscriptions {
		if sub.Broadcast {
			continue
		}
		for shard := range events.Shards {
			if err := c.queue(ch, sub.Module+"."+sub.Consumer, fmt.Sprintf("%s/%d", sub.Event, shard), true); err != nil {
				return err
			}
		}
	}
	return ch.Qos(1, 0, false) // has an answer, which comes after all the others
}

func (c *carrier) queueName(group, topic string) string { return c.Name + "." + group + ":" + topic }

func (c *carrier) queue(ch *amqp.Channel, group, topic string, noWait bool) error {
	name := c.queueName(group, topic)
	if _, err := ch.QueueDeclare(name, true, false, false, noWait, amqp.Table{"x-single-active-consumer": true}); err != nil {
		return err
	}
	return ch.QueueBind(name, topic, c.Name, noWait, nil)
}

func (c *conn) Lost() <-chan struct{} { return c.lost }

func (c *conn) Close() {
	for _, nc := range []*amqp.Connection{c.telling, c.hearing} {
		if nc != nil {
			_ = nc.CloseDeadline(time.Now().Add(2 * time.Second))
		}
	}
}

// Publish waits for the broker's confirmation of each message before it sends the next: were they sent together, a later one
// of a key could be stored and an earlier one not.
func (c *conn) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		if err := c.publish(topic, msg); err != nil {
			return fmt.Errorf("publish by RabbitMQ: %w", err)
		}
	}
	return nil
}

func (c *conn) publish(topic string, msg *message.Message) error {
	ctx, cancel := context.WithTimeout(msg.Context(), 10*time.Second)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return err
	}
	if c.blocked.Load() {
		return errors.New("the broker takes nothing: it is short of memory or disk")
	}
	headers := amqp.Table{}
	for k, v := range msg.Metadata {
		headers[k] = v
	}
	confirmation, err := c.confirms.PublishWithDeferredConfirm(c.Name, topic, false, false, amqp.Publishing{
		MessageId: msg.UUID, DeliveryMode: amqp.Persistent, Headers: headers, Body: msg.Payload,
	})
	if err != nil {
		return err
	}
	acked, err := confirmation.WaitContext(ctx)
	switch {
	case err != nil:
		return err
	case !acked:
		return errors.New("the broker did not take the message")
	}
	return nil
}

// Memory looks for a marker that a restart of the broker takes away: an exchange that is not durable.
func (c *conn) Memory(_ context.Context, publisher string) (events.Memory, error) {
	marker := c.Name + ".remembers." + publisher
	declare := func(f func(ch *amqp.Channel) error) error {
		ch, err := c.hearing.Channel()
		if err != nil {
			return err
		}
		defer ch.Close()
		return f(ch)
	}
	err := declare(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclarePassive(marker, amqp.ExchangeFanout, false, false, true, false, nil)
	})
	var refused *amqp.Error
	switch {
	case err == nil:
		return events.Memory{Intact: true}, nil
	case errors.As(err, &refused) && refused.Code == amqp.NotFound:
		return events.Memory{Settled: func(context.Context) error {
			return declare(func(ch *amqp.Channel) error {
				return ch.ExchangeDeclare(marker, amqp.ExchangeFanout, false, false, true, false, nil)
			})
		}}, nil
	}
	return events.Memory{}, fmt.Errorf("ask whether RabbitMQ was restarted: %w", err)
}

func (c *carrier) Subscriber(group string) (message.Subscriber, error) {
	return &subscriber{c, group}, nil
}

type subscriber struct {
	*carrier
	group string
}

func (s *subscriber) Close() error { return nil } // a subscription ends with its context, and with the carrier

// Subscribe hears one topic until ctx ends or the carrier closes.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	if _, err := s.keeper.Current(); errors.Is(err, broker.ErrClosed) {
		return nil, err
	}
	out := make(chan *message.Message)
	s.keeper.Attach(ctx, s.Log, topic, func(ctx context.Context, c *conn, ready func()) error {
		return c.consume(ctx, s.group, topic, out, ready)
	}, func() { close(out) })
	return out, nil
}

func (c *conn) consume(ctx context.Context, group, topic string, out chan<- *message.Message, ready func()) error {
	ch, err := c.hearing.Channel()
	if err != nil {
		return err
	}
	defer ch.Close() // what is not acknowledged goes back to its place in the queue
	if err := ch.Qos(1, 0, false); err != nil {
		return err
	}
	name := c.queueName(group, topic)
	if group != "" {
		err = c.queue(ch, group, topic, false)
	} else {
		var q amqp.Queue
		if q, err = ch.QueueDeclare("", false, true, true, false, nil); err == nil {
			name = q.Name
			err = ch.QueueBind(name, topic, c.Name, false, nil)
		}
	}
	if err != nil {
		return err
	}
	deliveries, err := ch.Consume(name, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	ready()
	for {
		var d amqp.Delivery
		var ok bool
		select {
		case <-ctx.Done():
			return ctx.Err()
		case d, ok = <-deliveries:
		}
		if !ok {
			return errors.New("the broker ended the subscription")
		}
		switch broker.Hand(ctx, out, read(d), 0, nil) {
		case broker.Acked:
			err = d.Ack(false)
		case broker.Nacked:
			err = d.Nack(false, true)
		case broker.Gone:
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
	}
}

func read(d amqp.Delivery) *message.Message {
	msg := message.NewMessage(d.MessageId, d.Body)
	for k, v := range d.Headers {
		if s, ok := v.(string); ok {
			msg.Metadata.Set(k, s)
		} else {
			msg.Metadata.Set(k, fmt.Sprint(v))
		}
	}
	return msg
}
