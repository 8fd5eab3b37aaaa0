// Package kafka carries events by Kafka: a topic for each event name with a partition for each shard, a consumer group for
// each consumer. An offset is committed only once the hearer has acknowledged.
//
// It does not use transactions: a repeat is what the hearer's inbox is for.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/internal/broker"
)

// Config says where the cluster is. Only URL is needed.
type Config struct {
	URL     string        // kafka://host1:9092,host2:9092, with user:password@ before them (SASL PLAIN); kafkas:// by TLS
	Log     *slog.Logger  // nil: nobody reads it
	Name    string        // before topics and groups; shops that share a cluster have different ones; "": banyan
	Keep    time.Duration // age at which new topics forget, longer than the outbox keeps what it sent; 0: 8 days
	Session time.Duration // after which another instance gets the partitions of one that says nothing more; 0: 15 s
}

type carrier struct {
	Config
	seeds []string
	opts  []kgo.Opt
	// Two keepers: one broker connection that breaks ends the session of those who publish, and need not disturb those who
	// hear.
	telling *broker.Keeper[*conn]
	hearing *broker.Keeper[*conn]
}

// New begins to connect and does not wait for a cluster that is away: its absence is logged and shows in the metrics. The
// error is of the configuration.
func New(ctx context.Context, c Config) (events.Carrier, error) {
	carrier := &carrier{Config: c}
	if err := carrier.parse(); err != nil {
		return nil, err
	}
	if c.Log == nil {
		carrier.Log = slog.New(slog.DiscardHandler)
	}
	if c.Name == "" {
		carrier.Name = "banyan"
	}
	if c.Keep <= 0 {
		carrier.Keep = 8 * 24 * time.Hour
	}
	if c.Session <= 0 {
		carrier.Session = 15 * time.Second
	}
	carrier.telling = broker.Keep(ctx, carrier.Log, func(ctx context.Context) (*conn, error) { return carrier.dial(ctx, true) })
	carrier.hearing = broker.Keep(ctx, slog.New(slog.DiscardHandler), func(ctx context.Context) (*conn, error) { return carrier.dial(ctx, false) })
	return carrier, nil
}

// parse reads the address. Its error does not repeat it: there may be a password in it.
func (c *carrier) parse() error {
	wrong := errors.New("the address of Kafka is not of the form kafka://host1:9092,host2:9092")
	scheme, rest, ok := strings.Cut(c.URL, "://")
	if !ok || scheme != "kafka" && scheme != "kafkas" {
		return wrong
	}
	if i := strings.LastIndex(rest, "@"); i >= 0 {
		// A user is read as in any other address.
		u, err := url.Parse("kafka://" + rest[:i] + "@host")
		if err != nil {
			return wrong
		}
		password, _ := u.User.Password()
		c.opts = append(c.opts, kgo.SASL(plain.Auth{User: u.User.Username(), Pass: password}.AsMechanism()))
		rest = rest[i+1:]
	}
	for seed := range strings.SplitSeq(strings.TrimSuffix(rest, "/"), ",") {
		if host, port, err := net.SplitHostPort(seed); err != nil || host == "" || port == "" {
			return wrong
		}
		c.seeds = append(c.seeds, seed)
	}
	return nil
}

func (c *carrier) Connect(ctx context.Context) (events.Connection, error) {
	return c.telling.Connect(ctx)
}
func (c *carrier) Publisher() message.Publisher { return publisher{c} }

func (c *carrier) Close() error {
	c.hearing.Close()
	c.telling.Close()
	return nil
}

type publisher struct{ *carrier }

func (p publisher) Publish(topic string, messages ...*message.Message) error {
	conn, err := p.telling.Current()
	if err != nil {
		return err
	}
	return conn.Publish(topic, messages...)
}

// conn is a client of the cluster. A strict one is lost with the first of its network connections, and opens no other then,
// so that no publish reaches a broker that was restarted unnoticed.
type conn struct {
	*carrier
	client *kgo.Client
	admin  *kadm.Client
	strict bool
	lost   chan struct{}
	lose   func()

	mu      sync.Mutex
	sockets map[net.Conn]bool
	made    map[string]bool // topics
}

func (c *carrier) dial(ctx context.Context, strict bool) (*conn, error) {
	conn := &conn{carrier: c, strict: strict, lost: make(chan struct{}), sockets: map[net.Conn]bool{}, made: map[string]bool{}}
	conn.lose = sync.OnceFunc(func() { close(conn.lost) })
	var err error
	conn.client, err = conn.newClient(
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.RecordDeliveryTimeout(10*time.Second),
		// The relay repeats what failed, once it knows what the broker holds.
		kgo.DisableIdempotentWrite(), kgo.RecordRetries(0),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	conn.admin = kadm.NewClient(conn.client)
	if err := conn.client.Ping(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to Kafka: %w", err)
	}
	go conn.watch()
	return conn, nil
}

func (c *conn) newClient(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(append([]kgo.Opt{
		kgo.SeedBrokers(c.seeds...), kgo.ClientID(c.Name), kgo.Dialer(c.socket), kgo.ConnIdleTimeout(15 * time.Minute),
		kgo.RequestRetries(3), kgo.RetryTimeout(10 * time.Second), kgo.DisableClientMetrics(),
	}, c.opts...), opts...)...)
}

// watch notices a cluster that is away while nothing is published.
func (c *conn) watch() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-c.lost:
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		if c.client.Ping(ctx) != nil {
			c.lose()
		}
		cancel()
	}
}

// socket opens one network connection.
func (c *conn) socket(ctx context.Context, network, addr string) (net.Conn, error) {
	select {
	case <-c.lost:
		return nil, broker.ErrAway
	default:
	}
	d := net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 5 * time.Second, Count: 2}}
	var nc net.Conn
	var err error
	if strings.HasPrefix(c.URL, "kafkas:") {
		nc, err = (&tls.Dialer{NetDialer: &d}).DialContext(ctx, network, addr)
	} else {
		nc, err = d.DialContext(ctx, network, addr)
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sockets[nc] = true
	return &socket{nc, c}, nil
}

type socket struct {
	net.Conn
	of *conn
}

func (s *socket) Close() error {
	if s.of.strict {
		s.of.lose()
	}
	s.of.mu.Lock()
	delete(s.of.sockets, s.Conn)
	s.of.mu.Unlock()
	return s.Conn.Close()
}

func (c *conn) Lost() <-chan struct{} { return c.lost }

func (c *conn) Close() {
	c.lose()
	c.client.Close()
}

// place of a topic: a topic of Kafka and a partition.
func (c *carrier) place(topic string) (string, int32, error) {
	name, shard, _ := strings.Cut(topic, "/")
	n, err := strconv.Atoi(shard)
	if err != nil || n < 0 || n >= events.Shards {
		return "", 0, fmt.Errorf("%q cannot be a partition of Kafka", topic)
	}
	return c.Name + "." + name, int32(n), nil
}

// make sees to it that a topic exists.
func (c *conn) make(ctx context.Context, topic string) error {
	c.mu.Lock()
	made := c.made[topic]
	c.mu.Unlock()
	if made {
		return nil
	}
	keep := strconv.FormatInt(c.Keep.Milliseconds(), 10)
	_, err := c.admin.CreateTopic(ctx, events.Shards, -1, map[string]*string{"retention.ms": &keep}, topic)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("make the topic %s: %w", topic, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.made[topic] = true
	return nil
}

// idHeader is where a message's id travels; the other headers are its metadata.
const idHeader = "event_id"

// Publish waits for the cluster's acknowledgement of each message before it sends the next: were they sent together, a later
// one of a key could be stored and an earlier one not. The first failure loses the connection, since what it sent may be
// stored or not.
func (c *conn) Publish(topic string, messages ...*message.Message) error {
	name, partition, err := c.place(topic)
	if err != nil {
		return err
	}
	for _, msg := range messages {
		ctx, cancel := context.WithTimeout(msg.Context(), 10*time.Second)
		if err = ctx.Err(); err == nil {
			err = c.make(ctx, name)
		}
		if err == nil {
			record := &kgo.Record{Topic: name, Partition: partition, Value: msg.Payload, Headers: []kgo.RecordHeader{{Key: idHeader, Value: []byte(msg.UUID)}}}
			for k, v := range msg.Metadata {
				record.Headers = append(record.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
			}
			if err = c.client.ProduceSync(ctx, record).FirstErr(); err != nil && msg.Context().Err() == nil {
				c.lose()
			}
		}
		cancel()
		if err != nil {
			return fmt.Errorf("publish by Kafka: %w", err)
		}
	}
	return nil
}

func read(r *kgo.Record) *message.Message {
	msg := message.NewMessage("", r.Value)
	for _, h := range r.Headers {
		if h.Key == idHeader {
			msg.UUID = string(h.Value)
		} else {
			msg.Metadata.Set(h.Key, string(h.Value))
		}
	}
	return msg
}

// Memory reads the last record of each partition.
func (c *conn) Memory(ctx context.Context, publisher string) (events.Memory, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	fail := func(err error) (events.Memory, error) {
		return events.Memory{}, fmt.Errorf("ask Kafka what it holds: %w", err)
	}
	topics, err := c.admin.ListTopics(ctx)
	if err != nil {
		return fail(err)
	}
	var names []string
	for name := range topics {
		if strings.HasPrefix(name, c.Name+"."+publisher+".") {
			names = append(names, name)
		}
	}
	newest := map[string]string{}
	if len(names) == 0 {
		return events.Memory{Newest: newest}, nil
	}
	starts, err := c.admin.ListStartOffsets(ctx, names...)
	if err != nil {
		return fail(err)
	}
	ends, err := c.admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return fail(err)
	}
	last := map[string]map[int32]kgo.Offset{}
	wanted := 0
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		err = errors.Join(err, end.Err, start.Err)
		if end.Offset > start.Offset {
			if last[end.Topic] == nil {
				last[end.Topic] = map[int32]kgo.Offset{}
			}
			last[end.Topic][end.Partition] = kgo.NewOffset().At(end.Offset - 1)
			wanted++
		}
	})
	if err != nil || wanted == 0 {
		if err != nil {
			return fail(err)
		}
		return events.Memory{Newest: newest}, nil
	}
	reader, err := c.newClient(kgo.ConsumePartitions(last), kgo.FetchMaxWait(100*time.Millisecond), kgo.Dialer((&net.Dialer{Timeout: 5 * time.Second}).DialContext))
	if err != nil {
		return fail(err)
	}
	defer reader.Close()
	for len(newest) < wanted {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return fail(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			newest[fmt.Sprintf("%s/%d", strings.TrimPrefix(r.Topic, c.Name+"."), r.Partition)] = read(r).UUID
		})
	}
	return events.Memory{Newest: newest}, nil
}
