package orders

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// claim leases one checkout to us, if it is open and nobody holds it; else the error is one of pg.NoRows.
func (m *Module) claim(ctx context.Context, id ids.ID) (c *checkout, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		c, err = claimCheckout(ctx, tx, id, m.Config.Lease)
		return err
	})
	return c, err
}

// resume takes a checkout on from where it stands, and says whether it did: somebody else may be doing that. It is what a
// confirmation, a webhook and a deadline have in common: none of them decides anything, each only asks to look.
func (m *Module) resume(ctx context.Context, id ids.ID) (bool, error) {
	c, err := m.claim(ctx, id)
	if pg.NoRows(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = m.drive(ctx, c)
	if errors.Is(err, errLease) {
		return false, nil // whoever has it now goes on
	}
	return true, err
}

// Run finishes or gives back what crashes, webhooks and deadlines left: checkouts and cancellations whose time has come and
// that nobody holds. It ends when ctx does and the steps in hand are done.
func (m *Module) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { m.watch(ctx) })
	free := make(chan struct{}, m.Config.Workers)
	for range m.Config.Workers {
		free <- struct{}{}
	}
	steps := context.WithoutCancel(ctx) // a step that has begun is finished; each is bounded by its lease
	cleaned := time.Time{}
	for {
		n := m.take(ctx, free)
		if n == 0 {
			return
		}
		work, err := m.due(steps, n)
		if err != nil {
			m.Log.Error("look for work", "err", err)
		}
		for range n - len(work) {
			free <- struct{}{}
		}
		for _, f := range work {
			running.Add(1)
			go func() {
				defer func() { running.Done(); free <- struct{}{} }()
				f()
			}()
		}
		if now := time.Now(); now.Sub(cleaned) > time.Hour {
			cleaned = now
			m.forget(steps)
		}
		if len(work) == n { // there may be more
			continue
		}
		t := time.NewTimer(m.Config.Poll)
		select {
		case <-ctx.Done():
		case <-m.Signals.work:
		case <-t.C:
		}
		t.Stop()
	}
}

// take waits for a free worker and takes all that are; none when ctx has ended.
func (m *Module) take(ctx context.Context, free chan struct{}) (n int) {
	select {
	case <-ctx.Done():
		return 0
	case <-free:
	}
	for n = 1; ; n++ {
		select {
		case <-free:
		default:
			if ctx.Err() != nil {
				return 0
			}
			return n
		}
	}
}

// due leases up to n sagas that are due, and says what to do with each.
func (m *Module) due(ctx context.Context, n int) (work []func(), err error) {
	if waiting, err := anythingDue(ctx, m.DB); err != nil || !waiting {
		return nil, err
	}
	var checkouts []*checkout
	var cancellations []*cancellation
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if checkouts, err = claimDue(ctx, tx, n, m.Config.Lease); err != nil || len(checkouts) == n {
			return err
		}
		cancellations, err = claimCancellationsDue(ctx, tx, n-len(checkouts), m.Config.Lease)
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, c := range checkouts {
		work = append(work, func() { m.log("resume checkout", c.ID, m.drive(ctx, c)) })
	}
	for _, c := range cancellations {
		work = append(work, func() { m.log("resume cancellation", c.ID, m.driveCancellation(ctx, c)) })
	}
	return work, nil
}

func (m *Module) log(what string, id ids.ID, err error) {
	if err != nil && !errors.Is(err, errLease) {
		m.Log.Error(what, "id", id, "err", err)
	}
}

// keysLast is how long a client may repeat a checkout's key.
const keysLast = 7 * 24 * time.Hour

func (m *Module) forget(ctx context.Context) {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return forgetKeys(ctx, tx, m.now().Add(-keysLast)) })
	if err != nil {
		m.Log.Error("forget old idempotency keys", "err", err)
	}
}
