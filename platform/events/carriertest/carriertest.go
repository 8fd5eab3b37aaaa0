// Package carriertest is what every carrier of events must do, as tests: the promises of events.Carrier by themselves, and
// those of a bus of two processes on PostgreSQL. Only tests import it.
package carriertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Setup is a carrier under test. Each test has a Setup of its own, with nothing published yet.
type Setup struct {
	// Carrier makes one more instance, as another process has.
	Carrier func(t testing.TB) events.Carrier
	// Broker is nil for a carrier within the process. It is what has one instance and no outage, and keeps nothing for those
	// who come late; all else holds for it too.
	Broker *Broker
	// Database is shoptest.Config, which only tests import.
	Database func(t testing.TB, module string) pg.Config
}

// Broker is the process between instances.
type Broker struct {
	Stop, Start func(t testing.TB)
	// Save and Restore are called while it is stopped: the second brings back what it was at the first.
	Save, Restore func(t testing.TB)
	// Crash ends an instance without a word to the broker.
	Crash func(t testing.TB, c events.Carrier)
}

const (
	name  = "teller.test_happened.v1"
	topic = name + "/3"
)

// Run runs all tests, one after another.
func Run(t *testing.T, setup func(t testing.TB) Setup) {
	for _, c := range []struct {
		name   string
		broker bool // it needs one
		test   func(t *testing.T, s Setup)
	}{
		{"every group hears everything in order", false, everyGroup},
		{"a nacked message comes again before the next", false, nack},
		{"what a message says arrives as it was said", false, content},
		{"broadcast reaches every instance", false, broadcast},
		{"a publish that nobody acknowledged is no success", false, unacknowledged},
		{"a poison event is parked and replayed", false, parking},
		{"instances of a group compete, one message at a time", true, competing},
		{"a new group hears what was before it", true, late},
		{"a hearer that dies leaves its message to another", true, dies},
		{"a hearer that goes leaves its message to another", true, goes},
		{"an outage ends", true, outage},
		{"an outage costs no attempts", true, busOutage},
		{"a forgotten tail is sent again", true, forgotten},
		{"a broker that forgot nothing is sent nothing again", true, remembered},
		{"thirty thousand events wait for the broker", true, backlog},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := setup(t)
			if c.broker && s.Broker == nil {
				return // declared in Setup: there is nothing to hold this against
			}
			c.test(t, s)
		})
	}
}

// listen notes what comes and leaves the verdict to the test.
func listen(t testing.TB, c events.Carrier, group string, topics ...string) <-chan *message.Message {
	t.Helper()
	sub, err := c.Subscriber(group)
	if err != nil {
		t.Fatal(err)
	}
	all := make(chan *message.Message)
	for _, topic := range topics {
		messages, err := sub.Subscribe(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for msg := range messages {
				select {
				case all <- msg:
				case <-t.Context().Done():
				}
			}
		}()
	}
	return all
}

// publish sends messages whose ids are from..to-1 and whose publisher waits as long as it takes.
func publish(t testing.TB, c events.Carrier, topic string, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := c.Publisher().Publish(topic, newMessage(t, fmt.Sprint(n))); err != nil {
			t.Errorf("publish %d: %v", n, err)
		}
	}
}

func newMessage(t testing.TB, id string) *message.Message {
	msg := message.NewMessage(id, []byte(`{"n": `+id+`}`))
	msg.SetContext(t.Context())
	return msg
}

func next(t testing.TB, ch <-chan *message.Message) *message.Message {
	t.Helper()
	select {
	case msg := <-ch:
		return msg
	case <-time.After(time.Minute):
		t.Fatal("no message in a minute")
		return nil
	}
}

// take acknowledges messages until it had n, and returns their ids. A repeat of the message before counts once: at least
// once is what is promised.
func take(t testing.TB, ch <-chan *message.Message, n int) []string {
	t.Helper()
	var ids []string
	for len(ids) < n {
		msg := next(t, ch)
		if len(ids) == 0 || ids[len(ids)-1] != msg.UUID {
			ids = append(ids, msg.UUID)
		}
		msg.Ack()
	}
	return ids
}

func want(t testing.TB, what string, got []string, from, to int) {
	t.Helper()
	var want []string
	for n := from; n < to; n++ {
		want = append(want, fmt.Sprint(n))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s got %v, want %d to %d in order", what, got, from, to-1)
	}
}

func everyGroup(t *testing.T, s Setup) {
	c := s.Carrier(t)
	one, two := listen(t, c, "hearer.one", topic), listen(t, c, "hearer.two", topic)
	var taking sync.WaitGroup
	for what, ch := range map[string]<-chan *message.Message{"one": one, "two": two} {
		taking.Go(func() {
			var ids []string
			for len(ids) < 100 {
				select {
				case msg := <-ch:
					ids = append(ids, msg.UUID)
					msg.Ack()
				case <-time.After(time.Minute):
					t.Errorf("%s waits", what)
					return
				}
			}
			want(t, what, ids, 0, 100)
		})
	}
	publish(t, c, topic, 0, 100)
	taking.Wait()
}

func nack(t *testing.T, s Setup) {
	c := s.Carrier(t)
	ch := listen(t, c, "hearer.test", topic)
	var publishing sync.WaitGroup
	publishing.Go(func() { publish(t, c, topic, 0, 6) })
	var got []string
	for refused := false; len(got) < 7; {
		msg := next(t, ch)
		got = append(got, msg.UUID)
		if msg.UUID == "3" && !refused {
			refused = true
			msg.Nack()
			continue
		}
		msg.Ack()
	}
	publishing.Wait()
	if s := strings.Join(got, " "); s != "0 1 2 3 3 4 5" {
		t.Errorf("got %s", s)
	}
}

func content(t *testing.T, s Setup) {
	c := s.Carrier(t)
	ch := listen(t, c, "hearer.test", topic)
	msg := newMessage(t, "evt_1")
	msg.Payload = []byte("{\"text\": \"Grüße\\u0000\n\"}")
	for k, v := range map[string]string{"event_name": name, "event_key": " ключ\n% a+b ", "occurred_at": "2026-03-04T12:00:00.123456Z", "traceparent": "00-01-02-03"} {
		msg.Metadata.Set(k, v)
	}
	var publishing sync.WaitGroup
	publishing.Go(func() {
		if err := c.Publisher().Publish(topic, msg); err != nil {
			t.Error(err)
		}
	})
	got := next(t, ch)
	got.Ack()
	publishing.Wait()
	if !got.Equals(msg) {
		t.Errorf("got %s %q %v, want %s %q %v", got.UUID, got.Payload, got.Metadata, msg.UUID, msg.Payload, msg.Metadata)
	}
}

func broadcast(t *testing.T, s Setup) {
	one := s.Carrier(t)
	two := one
	if s.Broker != nil {
		two = s.Carrier(t)
		publish(t, one, topic, 0, 3) // before anybody hears
	}
	heard := []<-chan *message.Message{listen(t, one, "", topic), listen(t, two, "", topic)}
	var hearing sync.WaitGroup
	for i, ch := range heard {
		hearing.Go(func() {
			var ids []string
			for len(ids) < 10 {
				select {
				case msg := <-ch:
					ids = append(ids, msg.UUID)
					msg.Ack()
				case <-time.After(time.Minute):
					t.Errorf("instance %d heard only %v", i, ids)
					return
				}
			}
			want(t, fmt.Sprint("instance ", i), ids, 3, 13)
		})
	}
	publish(t, one, topic, 3, 13)
	hearing.Wait()
}

func unacknowledged(t *testing.T, s Setup) {
	c := s.Carrier(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	msg := newMessage(t, "1")
	msg.SetContext(ctx)
	listen(t, c, "hearer.test", topic)
	var held <-chan *message.Message
	if s.Broker == nil { // all hearers come before all publishes: who waits for an ack lets nobody in
		held = listen(t, c, "hearer.other", topic+"1")
	}
	if err := c.Publisher().Publish(topic, msg); err == nil && s.Broker == nil {
		t.Error("a publish whose context has ended succeeded, and nobody acknowledged it")
	}
	if s.Broker == nil {
		done := make(chan error, 1)
		go func() { done <- c.Publisher().Publish(topic+"0", newMessage(t, "2")) }()
		go func() { done <- c.Publisher().Publish(topic+"1", newMessage(t, "3")) }()
		next(t, held) // taken and never acknowledged
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		failed := 0
		for range 2 {
			if err := <-done; err != nil {
				failed++
			}
		}
		if failed == 0 {
			t.Error("a publish succeeded that was cut off by the close")
		}
	} else {
		s.Broker.Stop(t)
		// The connection may take a moment to notice; no publish succeeds all the same.
		for n := range 5 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			msg := newMessage(t, fmt.Sprint(n))
			msg.SetContext(ctx)
			if err := c.Publisher().Publish(topic, msg); err == nil {
				t.Error("a publish succeeded without a broker")
			}
			cancel()
		}
		s.Broker.Start(t)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := c.Publisher().Publish(topic, newMessage(t, "9")); err == nil {
		t.Error("a publish succeeded after the close")
	}
}

func competing(t *testing.T, s Setup) {
	one, two := s.Carrier(t), s.Carrier(t)
	topics := []string{name + "/3", name + "/4", name + "/5", name + "/6"}
	var mu sync.Mutex
	seen, open := map[string][]string{}, map[string]int{}
	var count atomic.Int64
	hear := func(c events.Carrier) {
		sub, err := c.Subscriber("hearer.test")
		if err != nil {
			t.Fatal(err)
		}
		for _, topic := range topics {
			messages, err := sub.Subscribe(t.Context(), topic)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for msg := range messages {
					mu.Lock()
					if open[topic]++; open[topic] > 1 {
						t.Errorf("%s: two messages at once", topic)
					}
					mu.Unlock()
					pause(t.Context(), time.Millisecond)
					mu.Lock()
					open[topic]--
					if !slices.Contains(seen[topic], msg.UUID) {
						seen[topic] = append(seen[topic], msg.UUID)
						count.Add(1)
					}
					mu.Unlock()
					msg.Ack()
				}
			}()
		}
	}
	hear(one)
	for _, topic := range topics {
		publish(t, one, topic, 0, 20)
	}
	hear(two) // in the middle of it
	for _, topic := range topics {
		publish(t, two, topic, 20, 50)
	}
	waitFor(t, "all to be heard", func() bool { return count.Load() == int64(50*len(topics)) })
	mu.Lock()
	defer mu.Unlock()
	for _, topic := range topics {
		want(t, topic, seen[topic], 0, 50)
	}
}

func late(t *testing.T, s Setup) {
	c := s.Carrier(t)
	publish(t, c, topic, 0, 10)
	want(t, "a late group", take(t, listen(t, s.Carrier(t), "hearer.test", topic), 10), 0, 10)
}

func dies(t *testing.T, s Setup) { without(t, s, s.Broker.Crash) }

func goes(t *testing.T, s Setup) {
	without(t, s, func(t testing.TB, c events.Carrier) {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// without ends an instance that holds a message.
func without(t *testing.T, s Setup, end func(t testing.TB, c events.Carrier)) {
	one := s.Carrier(t)
	ch := listen(t, one, "hearer.test", topic)
	publish(t, one, topic, 0, 5)
	take(t, ch, 2)
	if msg := next(t, ch); msg.UUID != "2" {
		t.Fatalf("got %s, want 2", msg.UUID)
	}
	end(t, one)
	// What was acknowledged just before may come once more.
	var rest []string
	for ch := listen(t, s.Carrier(t), "hearer.test", topic); len(rest) == 0 || rest[len(rest)-1] != "4"; {
		rest = append(rest, take(t, ch, 1)...)
	}
	if all := []string{"0", "1", "2", "3", "4"}; len(rest) < 3 || len(rest) > 5 || !slices.Equal(rest, all[5-len(rest):]) {
		t.Errorf("the other got %v, want 2 to 4 in order", rest)
	}
}

func outage(t *testing.T, s Setup) {
	c := s.Carrier(t)
	ch := listen(t, c, "hearer.test", topic)
	publish(t, c, topic, 0, 5)
	want(t, "before the outage", take(t, ch, 5), 0, 5)
	s.Broker.Stop(t)
	waitFor(t, "an error", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		msg := newMessage(t, "99")
		msg.SetContext(ctx)
		return c.Publisher().Publish(topic, msg) != nil
	})
	s.Broker.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := c.(events.Broker).Connect(ctx); err != nil {
		t.Fatal(err)
	}
	publish(t, c, topic, 5, 10)
	got := take(t, ch, 5)
	for got[0] != "5" { // what was not acknowledged in time
		got = append(got[1:], take(t, ch, 1)...)
	}
	want(t, "after the outage", got, 5, 10)
}

// waitFor polls cond until it holds, for a minute.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !cond(); pause(t.Context(), 5*time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-ctx.Done()
}

var errPoison = errors.New("poison")

// happened is published by teller and heard by hearer, whose effect is an event of its own: a row with an order.
type happened struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (happened) EventName() string  { return name }
func (e happened) EventKey() string { return e.Key }

type noted struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (noted) EventName() string  { return "hearer.test_noted.v1" }
func (e noted) EventKey() string { return e.Key }

func note(ctx context.Context, tx *pg.Tx, e happened) error {
	return events.Publish(ctx, tx, noted(e))
}
