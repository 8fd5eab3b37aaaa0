package discovery

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// Seed makes the draws of t repeatable.
func (t *Target) Seed(seed uint64) {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, 0))
	t.rand = func() uint64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Uint64()
	}
}

// Stub answers in place of all instances.
func (t *Target) Stub(rt interface {
	http.RoundTripper
	CloseIdleConnections()
}) {
	for _, in := range t.instances {
		in.transport = rt
	}
}

// SetMean sets the latency that is expected of an instance.
func (t *Target) SetMean(address string, mean time.Duration) {
	for _, in := range t.instances {
		if in.address == address {
			in.latency.Store(int64(mean))
			in.measured.Store(t.clock())
		}
	}
}
