package events_test

import (
	"testing"

	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/events/carriertest"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestInProcess(t *testing.T) {
	t.Parallel()
	carriertest.Run(t, func(t testing.TB) carriertest.Setup {
		c := events.InProcess()
		t.Cleanup(func() { c.Close() })
		return carriertest.Setup{Database: shoptest.Config, Carrier: func(testing.TB) events.Carrier { return c }}
	})
}
