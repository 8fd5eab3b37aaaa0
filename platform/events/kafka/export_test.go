package kafka

import (
	"testing"

	"github.com/banyan-shop/banyan/platform/events"
)

// Crash ends a carrier as the death of its process does: it can't leave its groups.
func Crash(t testing.TB, c events.Carrier) {
	t.Helper()
	conn, err := c.(*carrier).hearing.Current()
	if err != nil {
		t.Fatal(err)
	}
	conn.lose()
	conn.mu.Lock()
	for nc := range conn.sockets {
		nc.Close()
	}
	conn.mu.Unlock()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
