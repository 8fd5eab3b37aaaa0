package kafka_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/carriertest"
	"github.com/banyan-shop/banyan/platform/events/kafka"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// The cluster is franz-go's own: it speaks the real protocol and keeps its log in a directory.
func TestCarrier(t *testing.T) {
	t.Parallel()
	carriertest.Run(t, setup)
}

func setup(t testing.TB) carriertest.Setup {
	dir, saved := filepath.Join(t.TempDir(), "kafka"), filepath.Join(t.TempDir(), "saved")
	port := 0
	var cluster *kfake.Cluster
	start := func(t testing.TB) {
		t.Helper()
		opts := []kfake.Opt{kfake.NumBrokers(1), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(100 * time.Millisecond)}
		if port > 0 {
			opts = append(opts, kfake.Ports(port))
		}
		var err error
		if cluster, err = kfake.NewCluster(opts...); err != nil {
			t.Fatal(err)
		}
		_, p, _ := net.SplitHostPort(cluster.ListenAddrs()[0])
		port, _ = strconv.Atoi(p)
	}
	start(t)
	t.Cleanup(func() { cluster.Close() })
	return carriertest.Setup{
		Database: shoptest.Config,
		Carrier: func(t testing.TB) events.Carrier {
			c, err := kafka.New(t.Context(), kafka.Config{
				URL: "kafka://127.0.0.1:" + strconv.Itoa(port), Session: 2 * time.Second, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		},
		Broker: &carriertest.Broker{
			Stop:  func(testing.TB) { cluster.Close() },
			Start: start,
			Save: func(t testing.TB) {
				if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			},
			Restore: func(t testing.TB) {
				if err := os.RemoveAll(dir); err != nil {
					t.Fatal(err)
				}
				if err := os.CopyFS(dir, os.DirFS(saved)); err != nil {
					t.Fatal(err)
				}
			},
			Crash: kafka.Crash,
		},
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://user:secret@host:1", "kafka://user:secret@host", "kafka://user:secret@ho st", "kafka://user:se%cret@h:1"} {
		if _, err := kafka.New(t.Context(), kafka.Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What goes wrong with the address is logged without what is secret in it.
func TestAnAbsentClusterIsNoErrorAndNamesNoSecret(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	c, err := kafka.New(t.Context(), kafka.Config{URL: "kafka://user:secret@127.0.0.1:1", Log: slog.New(slog.NewTextHandler(&said, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(said.String(), "connect") || strings.Contains(said.String(), "secret") {
		t.Errorf("logged %q", said.String())
	}
}

// Of 16 partitions with five messages each one member holds the first, and another joins: what stays with the one is heard to its end,
// and so is what goes.
func TestNothingFetchedIsForgottenWhenAMemberJoins(t *testing.T) {
	t.Parallel()
	const each = 5
	s := setup(t)
	one, two := s.Carrier(t), s.Carrier(t)
	for shard := range events.Shards {
		for n := range each {
			msg := message.NewMessage(fmt.Sprintf("%d/%d", shard, n), []byte(`{}`))
			if err := one.Publisher().Publish(fmt.Sprintf("teller.test_happened.v1/%d", shard), msg); err != nil {
				t.Fatal(err)
			}
		}
	}
	var acked sync.Map
	hear := func(c events.Carrier, before func()) {
		sub, err := c.Subscriber("hearer.test")
		if err != nil {
			t.Fatal(err)
		}
		for shard := range events.Shards {
			messages, err := sub.Subscribe(t.Context(), fmt.Sprintf("teller.test_happened.v1/%d", shard))
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for msg := range messages {
					before()
					acked.Store(msg.UUID, true)
					msg.Ack()
				}
			}()
		}
	}
	var held, joined atomic.Int64
	release := make(chan struct{})
	hear(one, func() {
		held.Add(1)
		select {
		case <-release:
		case <-t.Context().Done():
		}
	})
	shoptest.WaitFor(t, "one to hold something of each partition", func() bool { return held.Load() == events.Shards })
	hear(two, func() { joined.Add(1) })
	shoptest.WaitFor(t, "two to be given something", func() bool { return joined.Load() > 0 })
	close(release)
	shoptest.WaitFor(t, "all to be heard", func() bool {
		n := 0
		acked.Range(func(any, any) bool { n++; return true })
		return n == each*events.Shards
	})
}
