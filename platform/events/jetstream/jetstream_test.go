package jetstream_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/carriertest"
	"github.com/banyan-shop/banyan/platform/events/jetstream"
	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestCarrier(t *testing.T) {
	t.Parallel()
	carriertest.Run(t, setup)
}

func setup(t testing.TB) carriertest.Setup {
	dir, saved := filepath.Join(t.TempDir(), "nats"), filepath.Join(t.TempDir(), "saved")
	var server *natsembed.Server
	addr := ""
	start := func(t testing.TB) {
		t.Helper()
		var err error
		if server, err = natsembed.Start(natsembed.Options{Dir: dir, Addr: addr}); err != nil {
			t.Fatal(err)
		}
		addr = server.URL()[strings.Index(server.URL(), "@")+1:]
	}
	start(t)
	t.Cleanup(func() { server.Stop() })
	return carriertest.Setup{
		Database: shoptest.Config,
		Carrier: func(t testing.TB) events.Carrier {
			c, err := jetstream.New(t.Context(), jetstream.Config{URL: server.URL(), AckWait: time.Second, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			return c
		},
		Broker: &carriertest.Broker{
			Stop:  func(testing.TB) { server.Stop() },
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
			Crash: jetstream.Crash,
		},
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []jetstream.Config{
		{}, {URL: "http://secret@host:4222"}, {URL: "nats://secret@ho st:4222"}, {URL: "nats://secret@"}, {URL: "nats://host", Name: "a.b"},
	} {
		if _, err := jetstream.New(t.Context(), c); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

// What goes wrong with the address is logged without what is secret in it.
func TestAnAbsentServerIsNoErrorAndNamesNoSecret(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	c, err := jetstream.New(t.Context(), jetstream.Config{URL: "nats://user:secret@127.0.0.1:1", Log: slog.New(slog.NewTextHandler(&said, nil))})
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
