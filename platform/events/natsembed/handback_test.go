package natsembed_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/banyan-shop/banyan/platform/events/natsembed"
)

func TestWhatTheDeadHadOnItsWayIsHandedBack(t *testing.T) {
	t.Parallel()
	s, err := natsembed.Start(natsembed.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	join := func() (*nats.Conn, jetstream.Consumer) {
		nc, err := nats.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "s", Subjects: []string{"s.>"}})
		if err != nil {
			t.Fatal(err)
		}
		c, err := stream.CreateOrUpdateConsumer(t.Context(), jetstream.ConsumerConfig{
			Durable: "stock-levels", AckPolicy: jetstream.AckExplicitPolicy, AckWait: time.Hour, MaxAckPending: 1, MaxDeliver: -1,
		})
		if err != nil {
			t.Fatal(err)
		}
		return nc, c
	}
	victim, first := join()
	if err := victim.Publish("s.a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if m, err := first.Next(); err != nil || string(m.Data()) != "x" {
		t.Fatalf("got %v, %v", m, err)
	}
	victim.Close() // without an acknowledgement

	_, second := join()
	if err := s.HandBack("orders-"); err != nil {
		t.Fatal(err)
	}
	if info, err := second.Info(t.Context()); err != nil || info.NumAckPending != 1 {
		t.Errorf("somebody else's message was handed back: %+v, %v", info, err)
	}
	if err := s.HandBack("stock-"); err != nil {
		t.Fatal(err)
	}
	if m, err := second.Next(jetstream.FetchMaxWait(20 * time.Second)); err != nil || string(m.Data()) != "x" {
		t.Errorf("it did not come again: %v", err)
	}
}
