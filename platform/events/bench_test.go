package events_test

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func benchmark(b *testing.B) *bundle {
	b.Helper()
	open := func(module string) *pg.DB {
		c := shoptest.Config(b, module)
		c.MaxConns = 8
		return shoptest.Open(b, c)
	}
	return &bundle{teller: open("teller"), hearer: open("hearer"), o: events.Options{}}
}

func (b *bundle) fill(t testing.TB, count int) {
	t.Helper()
	for from := 0; from < count; from += 500 {
		var es []events.Event
		for n := from; n < min(from+500, count); n++ {
			es = append(es, happened{fmt.Sprint("key", n%200), n})
		}
		b.publishOne(t, es...)
	}
}

// BenchmarkPublish is a transaction that does nothing but publish one event.
func BenchmarkPublish(b *testing.B) {
	s := benchmark(b)
	b.ResetTimer()
	for n := range b.N {
		s.publishOne(b, happened{fmt.Sprint("key", n%200), n})
	}
}

// BenchmarkRelay empties an outbox to which nobody listens: claim, publish, mark.
func BenchmarkRelay(b *testing.B) {
	s := benchmark(b)
	s.fill(b, b.N)
	b.ResetTimer()
	bus := events.NewBus(s.o)
	s.add(b, bus, "teller", s.teller, nil)
	run(b, bus)
	idle(b, bus)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkDelivery empties an outbox into a hearer whose effect is one INSERT.
func BenchmarkDelivery(b *testing.B) {
	s := benchmark(b)
	s.fill(b, b.N)
	b.ResetTimer()
	bus := events.NewBus(s.o)
	s.add(b, bus, "teller", s.teller, nil)
	s.add(b, bus, "hearer", s.hearer, func(sub *events.Subscriptions) { events.On(sub, "test", handler(seen)) })
	run(b, bus)
	idle(b, bus)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func seen(ctx context.Context, tx *pg.Tx, e happened) error {
	_, err := tx.Exec(ctx, `INSERT INTO hearer.operations (key, method, request_hash, result) VALUES ($1, 'seen', '', '{}')`, events.FromContext(ctx).ID)
	return err
}

// BenchmarkLatency is from the commit of one event, alone, to its handler's last line.
func BenchmarkLatency(b *testing.B) {
	s := benchmark(b)
	arrived := make(chan struct{}, 1)
	s.start(b, func(ctx context.Context, tx *pg.Tx, e happened) error {
		err := seen(ctx, tx, e)
		arrived <- struct{}{}
		return err
	})
	var mu sync.Mutex
	var took []time.Duration
	b.ResetTimer()
	for n := range b.N {
		s.publishOne(b, happened{fmt.Sprint("key", n%200), n})
		committed := time.Now()
		<-arrived
		mu.Lock()
		took = append(took, time.Since(committed))
		mu.Unlock()
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
