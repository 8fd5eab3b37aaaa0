// Package jetstream carries events by NATS JetStream. All of a shop's events lie in one stream, which keeps them longer than
// an outbox does; each consumer group has a durable consumer for each topic, which has one message on its way at a time.
//
// It does not trust the stream to be the store: that is the outbox, and what a server forgot is sent again.
package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/internal/broker"
)

// Config says where the server is. Only URL is needed.
type Config struct {
	URL     string        // nats://host:4222, with user:password@ or token@ if the server asks for one; several with commas
	Log     *slog.Logger  // nil: nobody reads it
	Name    string        // of the stream and before its subjects; shops that share a server have different ones; "": banyan
	Keep    time.Duration // age at which the stream forgets, longer than the outbox keeps what it sent; 0: 8 days
	AckWait time.Duration // after which another instance gets a message of one that says nothing more; 0: 30 s
}

type carrier struct {
	Config
	keeper *broker.Keeper[*conn]
}

// New begins to connect and does not wait for a server that is away: its absence is logged and shows in the metrics. The
// error is of the configuration.
func New(ctx context.Context, c Config) (events.Carrier, error) {
	for u := range strings.SplitSeq(c.URL, ",") {
		// The error of url.Parse would repeat what it could not read, a password among it.
		if p, err := url.Parse(strings.TrimSpace(u)); err != nil || p.Host == "" || p.Scheme != "nats" && p.Scheme != "tls" {
			return nil, errors.New("the address of NATS is not of the form nats://host:4222")
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Name == "" {
		c.Name = "banyan"
	}
	if strings.ContainsAny(c.Name, ". *>/\\\t\r\n") {
		return nil, fmt.Errorf("%q cannot name a stream: letters, digits, - and _ can", c.Name)
	}
	if c.Keep <= 0 {
		c.Keep = 8 * 24 * time.Hour
	}
	if c.AckWait <= 0 {
		c.AckWait = 30 * time.Second
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

// conn is one connection to one server, with the stream there.
type conn struct {
	*carrier
	nc   *nats.Conn
	js   jetstream.JetStream
	lost chan struct{}
}

// maxConsumers is above what a large shop has: each hearer one for each sixteenth of a topic. The server's own limit is 1,000, which
// sixty hearers reach: who comes after would hear nothing.
const maxConsumers = 100_000

// dial switches the library's own reconnecting off: it would carry what was published before a loss over to what comes after.
func (c *carrier) dial(ctx context.Context) (*conn, error) {
	conn := &conn{carrier: c, lost: make(chan struct{})}
	lose := sync.OnceFunc(func() { close(conn.lost) })
	nc, err := nats.Connect(c.URL, nats.Name(c.Name), nats.NoReconnect(), nats.Timeout(5*time.Second),
		nats.PingInterval(5*time.Second), nats.MaxPingsOutstanding(2),
		nats.ClosedHandler(func(*nats.Conn) { lose() }), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS: %w", plain(err))
	}
	conn.nc = nc
	conn.js, err = jetstream.New(nc)
	if err == nil {
		_, err = conn.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: c.Name, Subjects: []string{c.Name + ".>"}, Retention: jetstream.LimitsPolicy, MaxAge: c.Keep,
			Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxConsumers: maxConsumers,
		})
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("make the stream %s: %w", c.Name, err)
	}
	return conn, nil
}

// plain leaves out an error that repeats the address and what is in it.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return errors.New("its address cannot be read")
	}
	return err
}

func (c *conn) Lost() <-chan struct{} { return c.lost }
func (c *conn) Close()                { c.nc.Close() }

// idHeader is where a message's id travels; the other headers are its metadata.
const idHeader = "Event-Id"

// Publish waits for the stream's acknowledgement of each message before it sends the next: were they sent together, a later
// one of a key could be stored and an earlier one not.
func (c *conn) Publish(topic string, messages ...*message.Message) error {
	subject, err := c.subject(topic)
	if err != nil {
		return err
	}
	for _, msg := range messages {
		m := &nats.Msg{Subject: subject, Data: msg.Payload, Header: nats.Header{idHeader: {url.PathEscape(msg.UUID)}}}
		for k, v := range msg.Metadata {
			m.Header[k] = []string{url.PathEscape(v)} // a header is one line
		}
		if _, err := c.js.PublishMsg(msg.Context(), m, jetstream.WithRetryAttempts(0)); err != nil {
			return fmt.Errorf("publish by NATS: %w", err)
		}
	}
	return nil
}

func read(header nats.Header, data []byte) *message.Message {
	value := func(s string) string {
		if v, err := url.PathUnescape(s); err == nil {
			return v
		}
		return s
	}
	msg := message.NewMessage(value(header.Get(idHeader)), data)
	for k := range header {
		if k != idHeader {
			msg.Metadata.Set(k, value(header.Get(k)))
		}
	}
	return msg
}

// subject of a topic: its name is a path of dots already, its shard becomes the last step.
func (c *carrier) subject(topic string) (string, error) {
	name, shard, ok := strings.Cut(topic, "/")
	if !ok || strings.ContainsAny(name, " *>\t\r\n") || strings.Contains("."+name+".", "..") {
		return "", fmt.Errorf("%q cannot be a subject of NATS", topic)
	}
	return c.Name + "." + name + "." + shard, nil
}

func (c *carrier) topic(subject string) string {
	rest := strings.TrimPrefix(subject, c.Name+".")
	i := strings.LastIndex(rest, ".")
	return rest[:i] + "/" + rest[i+1:]
}

// Memory asks for the newest message of each subject.
func (c *conn) Memory(ctx context.Context, publisher string) (events.Memory, error) {
	stream, err := c.js.Stream(ctx, c.Name)
	if err != nil {
		return events.Memory{}, fmt.Errorf("look at the stream %s: %w", c.Name, err)
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(c.Name+"."+publisher+".>"))
	if err != nil {
		return events.Memory{}, fmt.Errorf("look at the stream %s: %w", c.Name, err)
	}
	newest := make(map[string]string, len(info.State.Subjects))
	for subject := range info.State.Subjects {
		m, err := stream.GetLastMsgForSubject(ctx, subject)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it came of age just now
		}
		if err != nil {
			return events.Memory{}, fmt.Errorf("newest message of %s: %w", subject, err)
		}
		id, err := url.PathUnescape(m.Header.Get(idHeader))
		if err != nil {
			id = m.Header.Get(idHeader)
		}
		newest[c.topic(subject)] = id
	}
	return events.Memory{Newest: newest}, nil
}

func (c *carrier) Subscriber(group string) (message.Subscriber, error) {
	if strings.ContainsAny(group, " *>/\\\t\r\n") {
		return nil, fmt.Errorf("%q cannot name a consumer of NATS", group)
	}
	return &subscriber{c, group}, nil
}

type subscriber struct {
	*carrier
	group string
}

func (s *subscriber) Close() error { return nil } // a subscription ends with its context, and with the carrier

// Subscribe hears one topic until ctx ends or the carrier closes.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	subject, err := s.subject(topic)
	if err != nil {
		return nil, err
	}
	if _, err := s.keeper.Current(); errors.Is(err, broker.ErrClosed) {
		return nil, err
	}
	config := jetstream.ConsumerConfig{
		FilterSubject: subject, AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.AckWait, MaxAckPending: 1, MaxDeliver: -1,
	}
	hear := func(ctx context.Context, c *conn, out chan<- *message.Message, ready func()) error {
		return c.listen(ctx, subject, out, ready)
	}
	if s.group != "" {
		// A new group hears all that the stream still has. Its consumer's name has no dots: NATS would not take them.
		config.Durable = strings.ReplaceAll(s.group+"-"+strings.ReplaceAll(topic, "/", "-"), ".", "-")
		config.DeliverPolicy = jetstream.DeliverAllPolicy
		hear = func(ctx context.Context, c *conn, out chan<- *message.Message, ready func()) error {
			return c.consume(ctx, config, out, ready)
		}
	}
	out := make(chan *message.Message)
	s.keeper.Attach(ctx, s.Log, topic, func(ctx context.Context, c *conn, ready func()) error {
		return hear(ctx, c, out, ready)
	}, func() { close(out) })
	return out, nil
}

// listen hears a broadcast, which is for who is there when it is told, by a plain subscription. A consumer for each process, topic
// and shard, kept for a while after each death, would reach the thousand or so that a server allows: a process that starts then
// could not hear, and so not start, until some of the dead are forgotten.
func (c *conn) listen(ctx context.Context, subject string, out chan<- *message.Message, ready func()) error {
	sub, err := c.nc.SubscribeSync(subject)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // which fails if the connection is lost
	if err := c.nc.FlushTimeout(5 * time.Second); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	ready()
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if broker.Hand(ctx, out, read(m.Header, m.Data), 0, nil) == broker.Gone {
			return ctx.Err()
		}
	}
}

func (c *conn) consume(ctx context.Context, config jetstream.ConsumerConfig, out chan<- *message.Message, ready func()) error {
	consumer, err := c.js.CreateOrUpdateConsumer(ctx, c.Name, config)
	if err != nil {
		return fmt.Errorf("make the consumer: %w", err)
	}
	// Many requests ahead, so that the next message leaves with the ack of the one before. One is on its way all the same.
	messages, err := consumer.Messages(jetstream.PullMaxMessages(16), jetstream.PullExpiry(30*time.Second),
		jetstream.PullHeartbeat(10*time.Second), jetstream.WithMessagesErrOnMissingHeartbeat(true))
	if err != nil {
		return fmt.Errorf("ask for messages: %w", err)
	}
	defer messages.Stop()
	ready()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return fmt.Errorf("ask for messages: %w", err)
		}
		switch broker.Hand(ctx, out, read(m.Headers(), m.Data()), c.AckWait/3, func() { _ = m.InProgress() }) {
		case broker.Acked:
			err = m.Ack()
		case broker.Nacked:
			err = m.Nak()
		case broker.Gone:
			_ = m.Nak() // for another instance, if the connection still is
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("acknowledge: %w", err)
		}
	}
}
