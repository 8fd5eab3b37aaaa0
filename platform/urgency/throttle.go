package urgency

import (
	"math/rand/v2"
	"sync"
	"time"
)

// Throttle spares somebody who turns most requests away the work of doing so: it lets twice as many through as were not turned away of
// late, the adaptive throttling of Google's SRE book. What matters more is counted by itself. What has begun, and the shop's own work, is
// neither held back nor counted. The zero Throttle lets all through.
type Throttle struct {
	mu    sync.Mutex
	kinds [len(names)]struct {
		asked, refused float64
		at             time.Time
	}
}

const (
	throttleHalf  = 500 * time.Millisecond // after which a count is worth half
	throttleMost  = 2                      // times what was not turned away
	throttleSpare = 10                     // may be turned away before anything is made of it
)

// Allow says whether to ask for r.
func (t *Throttle) Allow(r *Request, now time.Time) bool {
	if r == nil || r.Begun() {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := &t.kinds[r.Criticality]
	for ; now.Sub(k.at) >= throttleHalf; k.at = k.at.Add(throttleHalf) {
		if k.asked < 1 {
			k.asked, k.refused, k.at = 0, 0, now
			break
		}
		k.asked, k.refused = k.asked/2, k.refused/2
	}
	k.asked++
	if rand.Float64()*k.asked >= k.asked-throttleMost*(k.asked-k.refused)-throttleSpare {
		return true
	}
	k.refused++
	return false
}

// Refused says that r, which was let through, was turned away.
func (t *Throttle) Refused(r *Request) {
	if r == nil || r.Begun() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k := &t.kinds[r.Criticality]
	k.refused = min(k.refused+1, k.asked) // a refusal that comes late is of a time that counts for less by now
}
