package events_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// ledger is a broker that remembers what it took, until it is told to forget.
type ledger struct {
	mu      sync.Mutex
	taken   []entry
	current *link
}

type entry struct{ topic, id, key string }

type link struct {
	of   *ledger
	lost chan struct{}
}

func (l *ledger) Publisher() message.Publisher                  { return nil }
func (l *ledger) Subscriber(string) (message.Subscriber, error) { return nil, nil }
func (l *ledger) Close() error                                  { return nil }

func (l *ledger) Connect(ctx context.Context) (events.Connection, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.current == nil {
		l.current = &link{l, make(chan struct{})}
	}
	return l.current, ctx.Err()
}

func (c *link) Lost() <-chan struct{} { return c.lost }

func (c *link) Publish(topic string, messages ...*message.Message) error {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.of.current != c {
		return fmt.Errorf("a publish on a connection that is lost")
	}
	for _, msg := range messages {
		c.of.taken = append(c.of.taken, entry{topic, msg.UUID, msg.Metadata["event_key"]})
	}
	return nil
}

func (c *link) Memory(context.Context, string) (events.Memory, error) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	newest := map[string]string{}
	for _, e := range c.of.taken {
		newest[e.topic] = e.id
	}
	return events.Memory{Newest: newest}, nil
}

// restart comes back without the last n, and returns them.
func (l *ledger) restart(n int) []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	forgotten := append([]entry(nil), l.taken[len(l.taken)-n:]...)
	l.taken = l.taken[:len(l.taken)-n]
	close(l.current.lost)
	l.current = nil
	return forgotten
}

func (l *ledger) holds() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	held := map[string]int{}
	for _, e := range l.taken {
		held[e.id]++
	}
	return held
}

func TestWhatABrokerForgotIsSentAgain(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		forget func(total int) int
		late   bool // the last to be sent was the first to be written
	}{
		{"nothing", func(int) int { return 0 }, false},
		{"the last one", func(int) int { return 1 }, false},
		{"the last one, which was written first", func(int) int { return 1 }, true},
		{"the last ten", func(int) int { return 10 }, true},
		{"all but one", func(total int) int { return total - 1 }, false},
		{"all", func(total int) int { return total }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			broker, counts := &ledger{}, prometheus.NewRegistry()
			b.o.Carrier, b.o.Metrics = broker, counts
			bus := events.NewBus(b.o)
			b.add(t, bus, "teller", b.teller, nil)
			run(t, bus)
			commit := func() {}
			if c.late {
				commit = hold(t, b.teller, happened{"late", 0})
			}
			var es []events.Event // of one transaction, so that many are marked together
			for n := range 60 {
				es = append(es, happened{fmt.Sprint("key", n%9), n})
			}
			b.publishOne(t, es...)
			idle(t, bus)
			commit()
			idle(t, bus)

			before := broker.holds()
			forgotten := broker.restart(c.forget(len(before)))
			shoptest.WaitFor(t, "all to be there again", func() bool { return len(broker.holds()) == len(before) })
			b.publish(t, 1, 1) // goes after the comparison
			idle(t, bus)
			for id, times := range broker.holds() {
				if times > 1 {
					t.Errorf("%s is held %d times: it was not forgotten", id, times)
				}
			}
			if got := sum(t, counts, "banyan_events_resent_total"); got != float64(len(forgotten)) {
				t.Errorf("%v were sent again, want %d", got, len(forgotten))
			}
			// A key's events come again in their order.
			i := map[string]int{}
			for _, e := range forgotten {
				i[e.id] = len(i)
			}
			last := map[string]int{}
			for _, e := range broker.taken {
				if n, ok := i[e.id]; ok {
					if n < last[e.key] {
						t.Errorf("%s of %s came again too late", e.id, e.key)
					}
					last[e.key] = n
				}
			}
		})
	}
}

func sum(t *testing.T, counts *prometheus.Registry, name string) (total float64) {
	t.Helper()
	families, err := counts.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				total += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return total
}
