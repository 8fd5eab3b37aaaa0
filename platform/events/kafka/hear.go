package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/internal/broker"
)

func (c *carrier) Subscriber(group string) (message.Subscriber, error) {
	return &subscriber{carrier: c, group: group, names: map[string]*name{}}, nil
}

// subscriber has one member of the consumer group for each event name, which hears all its partitions.
type subscriber struct {
	*carrier
	group string
	mu    sync.Mutex
	names map[string]*name
}

// name is the subscription to one topic of Kafka. Its partitions are heard by those who subscribed to their topics.
type name struct {
	topic string
	outs  [events.Shards]chan *message.Message
	heard [events.Shards]chan struct{} // closed when somebody subscribed
}

func (s *subscriber) Close() error { return nil } // a subscription ends with its context, and with the carrier

// Subscribe hears one topic until the context of the first subscription to its event name ends or the carrier closes.
func (s *subscriber) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	place, partition, err := s.place(topic)
	if err != nil {
		return nil, err
	}
	if _, err := s.hearing.Current(); errors.Is(err, broker.ErrClosed) {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, known := s.names[place]
	if !known {
		n = &name{topic: place}
		for i := range n.outs {
			n.outs[i], n.heard[i] = make(chan *message.Message), make(chan struct{})
		}
		s.names[place] = n
	}
	select {
	case <-n.heard[partition]:
		return nil, fmt.Errorf("%s is heard by this subscriber already", topic)
	default:
		close(n.heard[partition])
	}
	if !known {
		s.hearing.Attach(ctx, s.Log, place, func(ctx context.Context, c *conn, ready func()) error {
			return c.consume(ctx, s.group, n, ready)
		}, func() {
			for _, out := range n.outs {
				close(out)
			}
		})
	}
	return n.outs[partition], nil
}

// consume is one life of a member.
func (c *conn) consume(ctx context.Context, group string, n *name, ready func()) error {
	if err := c.make(ctx, n.topic); err != nil {
		return err
	}
	m := &member{group: group, name: n, workers: map[int32]*worker{}}
	opts := []kgo.Opt{kgo.FetchMaxWait(time.Second)}
	if group == "" {
		// New messages only, from exactly now.
		ends, err := c.admin.ListEndOffsets(ctx, n.topic)
		if err != nil {
			return err
		}
		from := map[int32]kgo.Offset{}
		ends.Each(func(end kadm.ListedOffset) {
			from[end.Partition] = kgo.NewOffset().At(end.Offset)
			err = errors.Join(err, end.Err)
		})
		if err != nil {
			return err
		}
		opts = append(opts, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{n.topic: from}))
	} else {
		opts = append(opts,
			kgo.ConsumerGroup(c.Name+"."+group), kgo.ConsumeTopics(n.topic), kgo.ConsumeStartOffset(kgo.NewOffset().AtStart()),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(c.Session), kgo.HeartbeatInterval(c.Session/5),
			kgo.AutoCommitMarks(), kgo.AutoCommitInterval(200*time.Millisecond), kgo.BlockRebalanceOnPoll(),
			// Whoever gets a partition next begins after what was acknowledged here. What is revoked may be nothing: then nothing stops, for
			// what has been fetched of a partition that stays would not be fetched again.
			kgo.OnPartitionsRevoked(func(ctx context.Context, cl *kgo.Client, revoked map[string][]int32) {
				m.stop(cl, revoked[n.topic])
				_ = cl.CommitMarkedOffsets(ctx) // what is not committed comes again
			}),
			kgo.OnPartitionsLost(func(_ context.Context, cl *kgo.Client, lost map[string][]int32) { m.stop(cl, lost[n.topic]) }),
		)
	}
	client, err := c.newClient(opts...)
	if err != nil {
		return err
	}
	defer func() {
		client.AllowRebalance()
		m.stop(client, m.partitions())
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		if group != "" {
			_ = client.CommitMarkedOffsets(bye)
			_ = client.LeaveGroupContext(bye) // else the group notices by itself
		}
		client.CloseAllowingRebalance()
	}()
	ready()
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		var failed error
		fetches.EachError(func(_ string, _ int32, err error) { failed = errors.Join(failed, err) })
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) > 0 {
				m.take(ctx, client, p.Partition, p.Records)
			}
		})
		client.AllowRebalance()
		if failed != nil {
			return fmt.Errorf("fetch from Kafka: %w", failed)
		}
	}
}

// member hands the records of each partition over one by one.
type member struct {
	group string
	name  *name

	mu      sync.Mutex
	workers map[int32]*worker
}

type worker struct {
	stop context.CancelFunc
	done chan struct{}
}

// take starts a worker for records of a partition that has none, and lets Kafka wait with more until it is done.
func (m *member) take(ctx context.Context, client *kgo.Client, partition int32, records []*kgo.Record) {
	paused := map[string][]int32{m.name.topic: {partition}}
	client.PauseFetchPartitions(paused)
	ctx, stop := context.WithCancel(ctx)
	w := &worker{stop: stop, done: make(chan struct{})}
	m.mu.Lock()
	before := m.workers[partition]
	m.workers[partition] = w
	m.mu.Unlock()
	go func() {
		defer close(w.done)
		defer stop()
		if before != nil {
			<-before.done
		}
		for _, r := range records {
			if !m.hand(ctx, client, r) {
				return
			}
		}
		client.ResumeFetchPartitions(paused)
	}()
}

// hand hands over one record until it is acknowledged.
func (m *member) hand(ctx context.Context, client *kgo.Client, r *kgo.Record) bool {
	select {
	case <-m.name.heard[r.Partition]:
	case <-ctx.Done():
		return false
	}
	for {
		switch broker.Hand(ctx, m.name.outs[r.Partition], read(r), 0, nil) {
		case broker.Acked:
			if m.group != "" {
				client.MarkCommitRecords(r)
			}
			return true
		case broker.Gone:
			return false
		}
	}
}

// partitions are those that have a worker.
func (m *member) partitions() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.workers))
}

// stop ends the workers of partitions, and waits for them.
func (m *member) stop(client *kgo.Client, partitions []int32) {
	m.mu.Lock()
	var stopped []*worker
	for _, p := range partitions {
		if w := m.workers[p]; w != nil {
			w.stop()
			stopped = append(stopped, w)
			delete(m.workers, p)
		}
	}
	m.mu.Unlock()
	for _, w := range stopped {
		<-w.done
	}
	client.ResumeFetchPartitions(map[string][]int32{m.name.topic: partitions}) // a partition may come back
}
