package jetstream

import (
	"testing"

	"github.com/banyan-shop/banyan/platform/events"
)

// Crash ends a carrier as the death of its process does: what it holds it can't give back.
func Crash(t testing.TB, c events.Carrier) {
	t.Helper()
	conn, err := c.(*carrier).keeper.Current()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
