// Command process is a whole shop of two modules, teller and hearer, that the crash test kills: it publishes as many events
// as it is told, says which of them are committed, and ends when all have taken effect.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/pg"
)

type happened struct {
	Key string `json:"key"`
	N   int    `json:"n"`
}

func (happened) EventName() string  { return "teller.test_happened.v1" }
func (e happened) EventKey() string { return e.Key }

type noted struct {
	EventID string `json:"event_id"`
	Key     string `json:"key"`
	N       int    `json:"n"`
}

func (noted) EventName() string  { return "hearer.test_noted.v1" }
func (e noted) EventKey() string { return e.Key }

func main() {
	count, err := strconv.Atoi(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	if err := run(context.Background(), count); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, count int) error {
	teller, err := pg.Open(ctx, pg.Config{URL: os.Getenv("TELLER_URL"), Schema: "teller", MaxConns: 2})
	if err != nil {
		return err
	}
	hearer, err := pg.Open(ctx, pg.Config{URL: os.Getenv("HEARER_URL"), Schema: "hearer", MaxConns: 2})
	if err != nil {
		return err
	}
	bus := events.NewBus(events.Options{Backoff: 5 * time.Millisecond, Poll: 20 * time.Millisecond, Lease: 500 * time.Millisecond})
	tries := 0
	hear := func(s *events.Subscriptions) {
		events.On(s, "test", func(ctx context.Context, tx *pg.Tx, e happened) error {
			if e.N == 2 && tries < 2 { // by one goroutine at a time: it is one event
				tries++
				return errors.New("not the first time, nor the second")
			}
			return events.Publish(ctx, tx, noted{events.FromContext(ctx).ID, e.Key, e.N})
		})
	}
	if err := errors.Join(bus.Add("teller", teller, nil), bus.Add("hearer", hearer, hear), bus.Start(ctx)); err != nil {
		return err
	}
	for n := range count {
		err := teller.InTx(ctx, func(tx *pg.Tx) error {
			return events.Publish(ctx, tx, happened{fmt.Sprint("key", n%2), n})
		})
		if err != nil {
			return err
		}
		fmt.Println(n)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return errors.Join(bus.WaitIdle(ctx), bus.Drain(ctx), hearer.Close(), teller.Close())
}
