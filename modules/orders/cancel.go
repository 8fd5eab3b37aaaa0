package orders

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// A cancellation is a saga of three steps: shipping takes the lines out, which decides between cancelling and shipping; the
// money goes back; the order says so, in one transaction with OrderCancelled. The row is written before the first and claims
// its pieces and its share of the money among the other cancellations of the order. Every run asks again with the same
// keys, so no step between needs recording, and until the money is back nothing is claimed to be.

const (
	cancelPending = "pending"
	cancelDone    = "done"
	cancelRefused = "refused" // shipping was faster
)

// cancellation is a row of orders.cancellations.
type cancellation struct {
	ID        ids.ID                      `db:"id"`
	Order     ordersapi.ID                `db:"order_id"`
	Scope     string                      `db:"scope"`
	Key       string                      `db:"key"`
	Hash      []byte                      `db:"hash"`
	State     string                      `db:"state"`
	Lines     pg.JSON[[]shippingapi.Line] `db:"lines"`
	Whole     bool                        `db:"whole"`
	Restock   bool                        `db:"restock"`
	Reason    string                      `db:"reason"`
	Actor     string                      `db:"actor"`
	Currency  string                      `db:"currency"`
	Refund    int64                       `db:"refund"`
	Attempt   int64                       `db:"attempt"`
	Tries     int64                       `db:"tries"`
	Attention bool                        `db:"attention"`
	Failure   pg.JSON[*errs.Error]        `db:"failure"`
	LastError string                      `db:"last_error"`
	Token     int64                       `db:"lease_token"`
	CreatedAt time.Time                   `db:"created_at"`
}

func (c *cancellation) planned() planned {
	return planned{Lines: c.Lines.V, Refund: c.Refund, Whole: c.Whole}
}

// errKeyTaken says that the key has a cancellation already.
var errKeyTaken = errors.New("the key is taken")

// cancel begins a cancellation of lines (none: all that is open), and drives it. The order is one that the caller may cancel.
// A repeat of the key finds what the first try made.
func (m *Module) cancel(ctx context.Context, c *cancellation, want []shippingapi.Line, byStaff bool) (*cancellation, error) {
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		o, err := lockOrder(ctx, tx, c.Order)
		if err != nil {
			return err
		}
		open, err := openCancellations(ctx, tx, c.Order)
		if err != nil {
			return err
		}
		others := make([]planned, 0, len(open))
		for _, other := range open {
			if other.Scope == c.Scope && other.Key == c.Key {
				return errKeyTaken
			}
			others = append(others, other.planned())
		}
		p, refusal := o.plan(want, byStaff, others)
		if refusal == nil {
			c.State, c.Lines.V, c.Whole, c.Refund, c.Currency, c.Attempt, c.Token = cancelPending, p.Lines, p.Whole, p.Refund, o.Currency, 1, 1
			ok, err := insertCancellation(ctx, tx, c, m.Config.Lease)
			if err != nil {
				return err
			}
			if ok {
				m.hit("orders.cancel.before-commit")
				return nil
			}
			return errKeyTaken
		}
		switch _, err := findCancellation(ctx, tx, key{c.Scope, c.Key}); {
		case err == nil:
			return errKeyTaken // it is done, which is why it can't be done again
		case !pg.NoRows(err):
			return err
		}
		return refusal
	})
	m.hit("orders.cancel.after-commit")
	if errors.Is(err, errKeyTaken) {
		return m.cancelAgain(ctx, c)
	}
	if err != nil {
		return nil, fmt.Errorf("cancel order %s: %w", c.Order, err)
	}
	return m.driven(ctx, c)
}

func (m *Module) cancelAgain(ctx context.Context, c *cancellation) (*cancellation, error) {
	first, err := findCancellation(ctx, m.DB, key{c.Scope, c.Key})
	if err != nil {
		return nil, err
	}
	if string(first.Hash) != string(c.Hash) || first.Order != c.Order {
		return nil, errs.Invalidf("idempotency_key_reused", "This Idempotency-Key was used with another request.")
	}
	if first.State != cancelPending {
		return first, nil
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		claimed, err := claimCancellation(ctx, tx, first.ID, m.Config.Lease)
		if err == nil {
			first = claimed
		}
		return err
	})
	if pg.NoRows(err) {
		return first, nil
	}
	if err != nil {
		return nil, err
	}
	return m.driven(ctx, first)
}

// driven is c after a drive: a step that failed is the worker's now, and no failure of the request.
func (m *Module) driven(ctx context.Context, c *cancellation) (*cancellation, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.Config.Lease-m.Config.Lease/5)
	defer cancel()
	err := m.driveCancellation(ctx, c)
	if err == nil {
		return c, nil
	}
	m.log("cancel", c.ID, err)
	return findCancellation(context.WithoutCancel(ctx), m.DB, key{c.Scope, c.Key})
}

// driveCancellation takes a leased cancellation to its end, or puts it off.
func (m *Module) driveCancellation(ctx context.Context, c *cancellation) error {
	err := m.runCancellation(ctx, c)
	if err == nil || errors.Is(err, errLease) {
		return err
	}
	next := *c
	next.Tries++
	next.LastError = err.Error()
	if errs.Is(err, errs.Declined) {
		next.Attempt++ // a refusal is an answer: the next try is another refund
	}
	if next.Tries >= m.Config.Tries {
		next.Attention = true
	}
	level := m.Log.Warn
	if next.Attention && !c.Attention {
		level = m.Log.Error
	}
	level("cancellation postponed", "cancellation", c.ID, "order", c.Order, "tries", next.Tries, "attention", next.Attention, "err", err)
	e := m.DB.InTx(ctx, func(tx *pg.Tx) error { return saveCancellation(ctx, tx, &next, keep{wait: backoff(next.Tries)}) })
	if e == nil {
		*c = next
	}
	return e
}

func (m *Module) runCancellation(ctx context.Context, c *cancellation) error {
	o, err := findOrder(ctx, m.DB, c.Order)
	if err != nil {
		return err
	}
	m.hit("orders.cancel-lines.before-call")
	_, err = m.Shipping.CancelLines(ctx, shippingapi.CancelLinesRequest{Key: operation(c.ID, "lines"), Order: ids.ID(o.ID), Ordered: o.ordered(), Lines: c.Lines.V})
	m.hit("orders.cancel-lines.after-call")
	if refusal := refused(err); refusal != nil {
		next := *c
		next.State, next.Failure.V, next.Attention, next.LastError = cancelRefused, refusal, false, ""
		err := m.DB.InTx(ctx, func(tx *pg.Tx) error { return saveCancellation(ctx, tx, &next, keep{done: true}) })
		if err == nil {
			*c = next
		}
		return err
	}
	if err != nil {
		return fmt.Errorf("take lines out of order %s: %w", o.ID, err)
	}

	captured, refunded, err := m.giveBack(ctx, c, o)
	if err != nil {
		return err
	}
	next := *c
	next.State, next.Attention, next.LastError = cancelDone, false, ""
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := saveCancellation(ctx, tx, &next, keep{done: true}); err != nil {
			return err
		}
		o, err := lockOrder(ctx, tx, c.Order)
		if err != nil {
			return err
		}
		o.Captured = max(o.Captured, captured)
		if err := o.cancel(c.planned(), refunded, c.Actor, c.Reason, m.now()); err != nil {
			return err
		}
		if err := saveOrder(ctx, tx, o); err != nil {
			return err
		}
		if err := events.Publish(ctx, tx, cancelledEvent(o, c.ID, c.planned(), refunded, true, c.Restock, c.Reason, m.now())); err != nil {
			return err
		}
		m.hit("orders.cancelled.before-commit")
		return nil
	})
	m.hit("orders.cancelled.after-commit")
	if err == nil {
		*c = next
	}
	return err
}

// giveBack returns the cancellation's share of the money: the hold if all of it goes back untaken, else a refund of what
// was taken. What is not taken yet is taken first, since a hold is given back whole or not at all.
func (m *Module) giveBack(ctx context.Context, c *cancellation, o *order) (captured, refunded int64, err error) {
	if c.Refund == 0 || o.Payment == "" {
		return o.Captured, 0, nil
	}
	m.hit("orders.refund.before-call")
	defer m.hit("orders.refund.after-call")
	p, err := m.Payments.Payment(ctx, paymentsapi.PaymentRequest{ID: o.Payment})
	if err != nil {
		return 0, 0, fmt.Errorf("ask about payment %s: %w", o.Payment, err)
	}
	if p.State == paymentsapi.Authorised && c.Whole && c.Refund == o.Total {
		p, err = m.Payments.Void(ctx, paymentsapi.VoidRequest{Key: operation(c.ID, "void"), ID: p.ID})
		if err != nil {
			return 0, 0, fmt.Errorf("void payment %s: %w", o.Payment, err)
		}
	}
	if p.State == paymentsapi.Voided {
		return 0, 0, nil
	}
	if p.Captured.Minor < o.Total && p.State == paymentsapi.Authorised {
		p, err = m.Payments.Capture(ctx, paymentsapi.CaptureRequest{Key: operation(o.ID, "capture/"+string(p.ID)), ID: p.ID, Amount: o.amount(o.Total)})
		if err != nil {
			return 0, 0, fmt.Errorf("capture payment %s: %w", o.Payment, err)
		}
	}
	back, err := m.Payments.Refund(ctx, paymentsapi.RefundRequest{
		Key: operation(c.ID, fmt.Sprintf("refund/%d", c.Attempt)), ID: p.ID, Amount: o.amount(c.Refund), Reason: c.Reason,
	})
	if err != nil {
		return 0, 0, fmt.Errorf("refund payment %s: %w", o.Payment, err)
	}
	return back.Captured.Minor, c.Refund, nil
}
