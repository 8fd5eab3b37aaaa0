package orders

import (
	"sync"

	"github.com/banyan-shop/banyan/platform/ids"
)

// Signals tell, within this process, that a checkout has changed or that there is work. They are hints: whoever waits for one
// also looks again after a while, since the change may have been made by another process.
type Signals struct {
	mu      sync.Mutex
	waiting map[ids.ID]map[chan struct{}]struct{}
	work    chan struct{}
	crash   func(name string) // tests end a step here, as a kill would
}

// NewSignals has nobody waiting.
func NewSignals() *Signals {
	return &Signals{waiting: map[ids.ID]map[chan struct{}]struct{}{}, work: make(chan struct{}, 1)}
}

// changed wakes those who wait for a checkout.
func (s *Signals) changed(id ids.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.waiting[id] {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// wait gives a channel that is told of changes until stop is called.
func (s *Signals) wait(id ids.ID) (changes <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting[id] == nil {
		s.waiting[id] = map[chan struct{}]struct{}{}
	}
	s.waiting[id][c] = struct{}{}
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting[id], c)
		if len(s.waiting[id]) == 0 {
			delete(s.waiting, id)
		}
	}
}

// wake tells the worker to look.
func (s *Signals) wake() {
	select {
	case s.work <- struct{}{}:
	default:
	}
}
