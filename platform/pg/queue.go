package pg

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// queue lets no more in than the pool has connections, and of those who wait the one first whose request came in first, see package
// urgency. database/sql would choose by chance, so that under load some wait many times as long as others, and whoever needs many
// connections one after the other waits each time among all who have just come.
//
// A request for which nothing has been done yet is turned away if it would wait longer than patience, or the share of that which its
// criticality may use: there, before any work, is where a database that is asked for too much is best felt.
type queue struct {
	size     int           // connections
	patience time.Duration // 0 turns nobody away

	mu      sync.Mutex
	busy    int
	waiting waiters
	usual   time.Duration // that a connection is held for
	waits   int64
	waited  time.Duration
}

// enter waits for a place, until ctx ends or the time has come. It returns when it was given, for leave, or errs.Overloaded.
func (q *queue) enter(ctx context.Context, at time.Time) (time.Time, error) {
	r := urgency.Of(ctx)
	now := time.Now()
	q.mu.Lock()
	if q.busy < q.size {
		q.busy++
		q.mu.Unlock()
		return now, nil
	}
	w := &waiter{since: now, ready: make(chan struct{})}
	if r != nil {
		if !r.Came.IsZero() {
			w.since = r.Came
		}
		if q.patience > 0 && !r.Begun() && q.tooLong(w.since, time.Duration(r.Share()*float64(q.patience))) {
			q.mu.Unlock()
			return now, errs.Overloaded()
		}
	}
	heap.Push(&q.waiting, w)
	q.waits++
	q.mu.Unlock()

	var err error
	timer := time.NewTimer(at.Sub(now))
	select {
	case <-w.ready:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = context.DeadlineExceeded
	}
	timer.Stop()
	let := time.Now()
	r.Wait(let, let.Sub(now))
	q.mu.Lock()
	q.waited += let.Sub(now)
	given := w.place < 0
	if !given {
		heap.Remove(&q.waiting, w.place)
	}
	q.mu.Unlock()
	if err != nil && given {
		q.leave(let)
	}
	return let, err
}

// tooLong says that to serve who came before a request of that age takes longer than patience. Two for each connection are no crowd,
// however slow things are or have just been. q.mu is held.
func (q *queue) tooLong(since time.Time, patience time.Duration) bool {
	before := 0
	for _, w := range q.waiting {
		if w.since.Before(since) {
			before++
		}
	}
	return before >= 2*q.size && time.Duration(before+1)*q.usual/time.Duration(q.size) > patience
}

// leave gives back the place that was given then.
func (q *queue) leave(given time.Time) {
	held := time.Since(given)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.usual += (held - q.usual) / 32
	if len(q.waiting) == 0 {
		q.busy--
		return
	}
	close(heap.Pop(&q.waiting).(*waiter).ready)
}

// stats is how many have waited and for how long in all.
func (q *queue) stats() (waits int64, waited time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waits, q.waited
}

type waiter struct {
	since time.Time
	ready chan struct{} // closed when it is let in
	place int           // among the waiting, -1 when it is no longer one of them
}

// waiters is a heap by since.
type waiters []*waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].since.Before(w[j].since) }
func (w waiters) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].place, w[j].place = i, j
}

func (w *waiters) Push(x any) {
	x.(*waiter).place = len(*w)
	*w = append(*w, x.(*waiter))
}

func (w *waiters) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	x.place = -1
	return x
}
