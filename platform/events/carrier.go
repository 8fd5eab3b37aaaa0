package events

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// Carrier hands messages from relays to hearers through Watermill. What it must do: deliver each message of a topic to every
// group at least once, to one member of a group at a time and in order of publishing, the next only after the ack of the one
// before; return from Publish only once the message is safe or taken; and end Publish with an error, never with nil, when it
// is closed before that.
type Carrier interface {
	Publisher() message.Publisher
	// Subscriber is for one consumer group, <module>.<consumer>; "" is a group of its own for each caller.
	Subscriber(group string) (message.Subscriber, error)
	// Close comes after the last handler and the last relay.
	Close() error
}

// Broker is a carrier whose messages lie in a process of their own. That may be away for a while, and may come back without
// the last of what it had acknowledged, when a backup was restored or its disk had not written yet.
type Broker interface {
	Carrier
	// Connect waits for a connection. Its error is that of ctx, or that the carrier is closed.
	Connect(ctx context.Context) (Connection, error)
}

// Connection lasts until it is lost, and does not heal: what was published by it can't arrive after what is published by the
// next. A relay is bound to one, so that it notices each time the broker may have forgotten something.
type Connection interface {
	// Publish is that of message.Publisher.
	Publish(topic string, messages ...*message.Message) error
	Lost() <-chan struct{}
	// Memory says what the broker holds of the events named <publisher>.….
	Memory(ctx context.Context, publisher string) (Memory, error)
}

// Memory is what a broker can say of the messages it holds: that it has all, or how far it got, or nothing.
type Memory struct {
	Intact bool // nothing was forgotten
	// Newest is the id of the newest message of each topic. A topic of which the broker holds nothing is not in it. nil: the
	// broker can't tell.
	Newest map[string]string
	// Settled is called once all that was forgotten waits in the outbox again; may be nil.
	Settled func(ctx context.Context) error
}

// Shards is how many topics carry one event name. Keys are spread over them: a slow key holds up a sixteenth.
const Shards = 16

// Topic is where events of that name and key travel: <name>/<shard>.
func Topic(name, key string) string { return topicOf(name, shardOf(key)) }

func topicOf(name string, shard int) string { return fmt.Sprintf("%s/%d", name, shard) }

func shardOf(key string) int {
	h := fnv.New32a()
	h.Write([]byte(key))
	return int(h.Sum32() % Shards)
}

var errCarrierClosed = errors.New("carrier is closed")

// inProcess carries within one process: Publish returns when every hearer has acknowledged.
type inProcess struct {
	channel *gochannel.GoChannel
	once    sync.Once
	closed  chan struct{}
}

// InProcess is the carrier for when all modules run in one process. There a group has one member, so groups need no help.
func InProcess() Carrier {
	return &inProcess{
		channel: gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, nil),
		closed:  make(chan struct{}),
	}
}

func (c *inProcess) Publisher() message.Publisher                        { return c }
func (c *inProcess) Subscriber(group string) (message.Subscriber, error) { return c.channel, nil }

// Publish gives up when a message's context ends or the carrier closes. It mends what would lose events: a GoChannel that is
// closed while a message waits for its hearer returns nil, as if it had been acknowledged.
func (c *inProcess) Publish(topic string, messages ...*message.Message) error {
	for _, msg := range messages {
		acked := make(chan error, 1)
		go func() { acked <- c.channel.Publish(topic, msg) }()
		select {
		case err := <-acked:
			if err != nil {
				return err
			}
			select {
			case <-c.closed:
				return errCarrierClosed
			default:
			}
		case <-msg.Context().Done():
			return msg.Context().Err()
		case <-c.closed:
			return errCarrierClosed
		}
	}
	return nil
}

func (c *inProcess) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.channel.Close()
}
