//go:build unix

package rabbitmq_test

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/carriertest"
	"github.com/banyan-shop/banyan/platform/events/rabbitmq"
	"github.com/banyan-shop/banyan/platform/events/rabbitmq/rabbittest"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestCarrier(t *testing.T) {
	t.Parallel()
	node := rabbittest.New(t)
	var shops atomic.Int64
	carriertest.Run(t, func(t testing.TB) carriertest.Setup {
		config := rabbitmq.Config{
			URL: node.URL(), Name: fmt.Sprint("shop", shops.Add(1)), Log: slog.New(slog.DiscardHandler),
			Subscriptions: []events.Subscription{{Module: "hearer", Consumer: "test", Event: "teller.test_happened.v1"}},
		}
		return carriertest.Setup{
			Database: shoptest.Config,
			Carrier: func(t testing.TB) events.Carrier {
				c, err := rabbitmq.New(t.Context(), config)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.Close() })
				return c
			},
			Broker: &carriertest.Broker{
				Stop: node.Stop, Start: node.Start, Save: node.Save, Restore: node.Restore, Crash: rabbitmq.Crash,
			},
		}
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://user:secret@host", "amqp://user:secret@ho st/", "amqp://user:secret@host:x/"} {
		if _, err := rabbitmq.New(t.Context(), rabbitmq.Config{URL: url}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// What goes wrong with the address is logged without what is secret in it.
func TestAnAbsentBrokerIsNoErrorAndNamesNoSecret(t *testing.T) {
	t.Parallel()
	var said strings.Builder
	c, err := rabbitmq.New(t.Context(), rabbitmq.Config{URL: "amqp://user:secret@127.0.0.1:1/", Log: slog.New(slog.NewTextHandler(&said, nil))})
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
