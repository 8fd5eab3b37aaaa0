package urgency

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Throttle spares somebody who turns most requests away the work of doing so: it lets twice as many through as were taken of late, the
// adaptive throttling of Google's SRE book. What matters more is counted by itself. The zero Throttle lets all through.
type Throttle struct {
	mu    sync.Mutex
	kinds [len(names)]struct {
		asked, taken float64
		at           time.Time
	}
}

const (
	throttleHalf = 500 * time.Millisecond // after which a count is worth half
	throttleMost = 2                      // times what was taken
)

// Allow says whether to ask for r, which is counted as asked in either case. What has begun, and the shop's own work, is always let through.
func (t *Throttle) Allow(r *Request, now time.Time) bool {
	if r == nil || r.Begun() {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := &t.kinds[r.Criticality]
	for ; now.Sub(k.at) >= throttleHalf; k.at = k.at.Add(throttleHalf) {
		if k.asked < 1 {
			k.asked, k.taken, k.at = 0, 0, now
			break
		}
		k.asked, k.taken = k.asked/2, k.taken/2
	}
	k.asked++
	return rand.Float64()*k.asked >= k.asked-throttleMost*k.taken-throttleSpare
}

// throttleSpare is how many may be refused before anything is made of it.
const throttleSpare = 10

// Taken says that a request that was let through was not turned away.
func (t *Throttle) Taken(r *Request) {
	if r == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kinds[r.Criticality].taken++
}
