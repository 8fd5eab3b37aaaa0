package pg

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// request is a context of a request that came so long ago.
func request(ctx context.Context, c urgency.Criticality, ago time.Duration) (context.Context, *urgency.Request) {
	r := &urgency.Request{Criticality: c, Came: time.Now().Add(-ago)}
	return urgency.With(ctx, r), r
}

func TestTheOldestRequestGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{size: 1}
		held, err := q.enter(t.Context(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var order []int
		var all sync.WaitGroup
		for i, ago := range []time.Duration{3, 1, 4, 2, 0} {
			all.Go(func() {
				ctx, r := request(t.Context(), urgency.Normal, ago*time.Second)
				if ago == 0 {
					ctx = t.Context() // work of the shop's own is as old as its wait
				}
				given, err := q.enter(ctx, time.Now().Add(time.Hour))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, i)
				mu.Unlock()
				if ago > 0 && r.Waited() < time.Second {
					t.Errorf("request %d is said to have waited %s", i, r.Waited())
				}
				<-time.After(10 * time.Millisecond)
				q.leave(given)
			})
		}
		<-time.After(time.Second)
		q.leave(held)
		all.Wait()
		if want := []int{2, 0, 3, 1, 4}; !slices.Equal(order, want) {
			t.Errorf("let in in the order %v, want %v", order, want)
		}
		if waits, waited := q.stats(); waits != 5 || waited < 5*time.Second {
			t.Errorf("%d waits of %s in all", waits, waited)
		}
		if q.busy != 0 || len(q.waiting) != 0 {
			t.Errorf("%d busy and %d waiting when all is done", q.busy, len(q.waiting))
		}
	})
}

func TestWhoWouldWaitTooLongIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{size: 2, patience: 100 * time.Millisecond}
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		join := func(ctx context.Context) {
			all.Go(func() { _, _ = q.enter(ctx, time.Now().Add(time.Hour)) })
			synctest.Wait()
		}
		join(ctx)
		join(ctx)
		refused := func(c urgency.Criticality, ago time.Duration) bool {
			asked, r := request(ctx, c, ago)
			over, end := context.WithTimeout(asked, time.Millisecond)
			defer end()
			_, err := q.enter(over, time.Now().Add(time.Hour))
			if errs.Has(err, "overloaded") == errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("got %v", err)
			}
			if r.Begun() {
				t.Error("to have waited is taken for something done")
			}
			return errs.Has(err, "overloaded")
		}
		// Each of those before takes 5 ms of the two connections.
		for _, step := range []struct {
			waiting int
			refused [3]bool
		}{
			{3, [...]bool{urgency.Normal: false, urgency.Sheddable: false, urgency.Critical: false}}, // though each takes a second
			{10, [...]bool{urgency.Normal: false, urgency.Sheddable: false, urgency.Critical: false}},
			{12, [...]bool{urgency.Normal: false, urgency.Sheddable: true, urgency.Critical: false}},
			{16, [...]bool{urgency.Normal: true, urgency.Sheddable: true, urgency.Critical: false}},
			{20, [...]bool{urgency.Normal: true, urgency.Sheddable: true, urgency.Critical: true}},
		} {
			q.usual = 10 * time.Millisecond
			if step.waiting == 3 {
				q.usual = time.Second
			}
			q.mu.Lock()
			q.waiting = nil
			for range step.waiting {
				q.waiting.Push(&waiter{since: time.Now().Add(-time.Second), ready: make(chan struct{})})
			}
			q.mu.Unlock()
			for c, want := range step.refused {
				if got := refused(urgency.Criticality(c), 0); got != want {
					t.Errorf("behind %d, a %s request is refused: %v", step.waiting, urgency.Criticality(c), got)
				}
				if refused(urgency.Criticality(c), 2*time.Second) {
					t.Errorf("a %s request that is older than %d others is refused", urgency.Criticality(c), step.waiting)
				}
			}
		}
		begun, r := request(ctx, urgency.Sheddable, 0)
		r.Begin()
		join(begun) // waits
		join(ctx)   // work of the shop's own, too
		if n := len(q.waiting); n != 22 {
			t.Errorf("%d wait, not what had begun and the shop's own work besides", n)
		}
		cancel()
		all.Wait()
	})
}

func TestWhoGivesUpTakesNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{size: 1}
		held, _ := q.enter(t.Context(), time.Now().Add(time.Hour))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.enter(ctx, time.Now().Add(time.Hour)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if _, err := q.enter(t.Context(), time.Now().Add(time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("when its time has come: %v", err)
		}
		q.leave(held)
		if q.busy != 0 || len(q.waiting) != 0 {
			t.Fatalf("%d busy, %d waiting", q.busy, len(q.waiting))
		}
		// Given a place and cancelled at once, in either order: the place is there again afterwards.
		for i := range 200 {
			held, _ := q.enter(t.Context(), time.Now().Add(time.Hour))
			ctx, cancel := context.WithCancel(t.Context())
			var one sync.WaitGroup
			one.Go(func() {
				if given, err := q.enter(ctx, time.Now().Add(time.Hour)); err == nil {
					q.leave(given)
				}
			})
			synctest.Wait()
			if i%2 == 0 {
				cancel()
			}
			q.leave(held)
			cancel()
			one.Wait()
		}
		if q.busy != 0 || len(q.waiting) != 0 {
			t.Errorf("%d busy, %d waiting", q.busy, len(q.waiting))
		}
	})
}
