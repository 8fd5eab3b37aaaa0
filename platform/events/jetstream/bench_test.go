package jetstream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/jetstream"
	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

type happened struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (happened) EventName() string  { return "teller.test_happened.v1" }
func (e happened) EventKey() string { return e.Key }

type process struct {
	teller, hearer *pg.DB
	server         *natsembed.Server
}

func newProcess(b *testing.B) *process {
	b.Helper()
	server, err := natsembed.Start(natsembed.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(server.Stop)
	open := func(module string) *pg.DB {
		c := shoptest.Config(b, module)
		c.MaxConns = 8
		return shoptest.Open(b, c)
	}
	return &process{open("teller"), open("hearer"), server}
}

// start runs a bus of one module, as a process of its own does.
func (p *process) start(b *testing.B, module string, db *pg.DB, subscribe func(*events.Subscriptions)) *events.Bus {
	b.Helper()
	c, err := jetstream.New(b.Context(), jetstream.Config{URL: p.server.URL()})
	if err != nil {
		b.Fatal(err)
	}
	bus := events.NewBus(events.Options{Carrier: c})
	if err := bus.Add(module, db, subscribe); err != nil {
		b.Fatal(err)
	}
	if err := bus.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := bus.Drain(ctx); err != nil {
			b.Error(err)
		}
	})
	return bus
}

func (p *process) publish(b *testing.B, es ...events.Event) {
	b.Helper()
	if err := p.teller.InTx(b.Context(), func(tx *pg.Tx) error { return events.Publish(b.Context(), tx, es...) }); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRelay empties an outbox into the stream: claim, publish, wait for the ack, mark.
func BenchmarkRelay(b *testing.B) {
	p := newProcess(b)
	for from := 0; from < b.N; from += 500 {
		var es []events.Event
		for n := from; n < min(from+500, b.N); n++ {
			es = append(es, happened{fmt.Sprint("key", n%200), n})
		}
		p.publish(b, es...)
	}
	b.ResetTimer()
	bus := p.start(b, "teller", p.teller, nil)
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	if err := bus.WaitIdle(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkLatency is from the commit of one event, alone, to the commit of its effect in another process.
func BenchmarkLatency(b *testing.B) {
	p := newProcess(b)
	arrived := make(chan struct{}, 1)
	p.start(b, "hearer", p.hearer, func(s *events.Subscriptions) {
		events.On(s, "test", func(ctx context.Context, tx *pg.Tx, e happened) error {
			tx.AfterCommit(func() { arrived <- struct{}{} })
			result, _ := json.Marshal(e)
			_, err := tx.Exec(ctx, `INSERT INTO hearer.operations (key, method, request_hash, result) VALUES ($1, 'seen', '', $2::jsonb)`,
				events.FromContext(ctx).ID, string(result))
			return err
		})
	})
	p.start(b, "teller", p.teller, nil)
	var took []time.Duration
	b.ResetTimer()
	for n := range b.N {
		p.publish(b, happened{fmt.Sprint("key", n%200), n})
		committed := time.Now()
		<-arrived
		took = append(took, time.Since(committed))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
