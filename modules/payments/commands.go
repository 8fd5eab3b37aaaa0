package payments

import (
	"context"
	"errors"
	"fmt"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Capture takes money that is held. See paymentsapi.
func (m *Module) Capture(ctx context.Context, r paymentsapi.CaptureRequest) (paymentsapi.Payment, error) {
	c := command{Key: r.Key, Payment: r.ID, Kind: "capture", Amount: r.Amount.Minor}
	return m.move(ctx, c, r.Amount, func(ctx context.Context, p payment, from Provider) (Intent, error) {
		failpoint.Hit("payments.capture.before-provider")
		defer failpoint.Hit("payments.capture.after-provider")
		return from.Capture(ctx, r.Key, p.Reference, r.Amount)
	})
}

// Refund gives captured money back. See paymentsapi.
func (m *Module) Refund(ctx context.Context, r paymentsapi.RefundRequest) (paymentsapi.Payment, error) {
	c := command{Key: r.Key, Payment: r.ID, Kind: "refund", Amount: r.Amount.Minor, Reason: r.Reason}
	return m.move(ctx, c, r.Amount, func(ctx context.Context, p payment, from Provider) (Intent, error) {
		failpoint.Hit("payments.refund.before-provider")
		defer failpoint.Hit("payments.refund.after-provider")
		return from.Refund(ctx, r.Key, p.Reference, r.Amount)
	})
}

// move takes or gives back money in three steps: claim the amount under the payment's row lock and write the key, ask the
// provider, book it. A crash or silence between the steps leaves the claim; the same key goes on from there.
func (m *Module) move(ctx context.Context, c command, a money.Amount, call func(context.Context, payment, Provider) (Intent, error)) (paymentsapi.Payment, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return paymentsapi.Payment{}, err
	}
	if c.Key == "" || a.Minor <= 0 {
		return paymentsapi.Payment{}, errs.Invalidf("invalid_amount", "an amount to move is above zero and has a key")
	}
	c.CreatedAt = m.Now()
	p, c, err := m.claim(ctx, c, a.Currency)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	switch c.State {
	case "done":
		return p.view(), nil
	case "refused":
		return paymentsapi.Payment{}, refused(c.Kind)
	}
	_, err = m.call(ctx, p.Provider, func(ctx context.Context, from Provider) (Intent, error) { return call(ctx, p, from) })
	if err != nil && !errors.Is(err, ErrRefused) {
		return paymentsapi.Payment{}, errs.New(errs.NoAnswer, "", "the provider did not answer").Because(err)
	}
	p, bookErr := m.book(ctx, c, err == nil)
	if bookErr != nil {
		return paymentsapi.Payment{}, bookErr
	}
	if err != nil {
		return paymentsapi.Payment{}, refused(c.Kind)
	}
	return p.view(), nil
}

func refused(kind string) error {
	return errs.New(errs.Declined, kind+"_declined", "the provider refused the %s", kind)
}

// claim writes the command and raises what is claimed of the payment, if its limit allows; or finds what an earlier try wrote.
func (m *Module) claim(ctx context.Context, c command, currency string) (p payment, stored command, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := insertCommand(ctx, tx, c)
		if err != nil {
			return err
		}
		if n == 0 {
			if stored, err = firstCommand(ctx, tx, c); err != nil {
				return err
			}
			p, err = paymentByID(ctx, tx, c.Payment)
			return err
		}
		stored = c
		stored.State = "initiated"
		p, err = claimAmount(ctx, tx, c, currency)
		if !pg.NoRows(err) {
			return err
		}
		return m.whyNot(ctx, tx, c, currency)
	})
	if err != nil {
		return payment{}, command{}, fmt.Errorf("%s of payment %s: %w", c.Kind, c.Payment, err)
	}
	return p, stored, nil
}

// firstCommand is what an earlier try of c wrote.
func firstCommand(ctx context.Context, tx *pg.Tx, c command) (command, error) {
	first, err := commandByKey(ctx, tx, c.Key)
	if err == nil && (first.Payment != c.Payment || first.Kind != c.Kind || first.Amount != c.Amount) {
		return command{}, errs.Conflictf("key_reused", "this key was used for another %s", first.Kind)
	}
	return first, err
}

// whyNot explains a claim that did not fit.
func (m *Module) whyNot(ctx context.Context, tx *pg.Tx, c command, currency string) error {
	p, err := paymentByID(ctx, tx, c.Payment)
	switch {
	case pg.NoRows(err):
		return errs.NotFoundf("no such payment")
	case err != nil:
		return err
	case p.Currency != currency:
		return errs.Invalidf("currency_mismatch", "the payment is in another currency")
	case c.Kind == "refund":
		return errs.Conflictf("refund_exceeds_captured", "more than what was captured can't be refunded")
	case p.State != paymentsapi.Authorised && p.State != paymentsapi.Captured:
		return errs.Conflictf("not_capturable", "a payment that is %s can't be captured", p.State)
	}
	return errs.Conflictf("capture_exceeds_authorised", "more than what is authorised can't be captured")
}

// book ends a command: done moves the amount and writes the ledger's two entries, refused gives the claim back.
func (m *Module) book(ctx context.Context, c command, done bool) (p payment, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := endCommand(ctx, tx, c.Key, done, m.Now())
		if err != nil {
			return err
		}
		if n == 0 { // another try of the same key booked it, or a void ended it
			first, err := commandByKey(ctx, tx, c.Key)
			if err != nil {
				return err
			}
			if done != (first.State == "done") {
				return fmt.Errorf("the provider answers otherwise than when it was %s", first.State)
			}
			p, err = paymentByID(ctx, tx, c.Payment)
			return err
		}
		p, err = bookAmount(ctx, tx, c, done, m.Now())
		return err
	})
	if err != nil {
		return payment{}, fmt.Errorf("book %s of payment %s: %w", c.Kind, c.Payment, err)
	}
	return p, nil
}

// Void gives a hold back. See paymentsapi.
func (m *Module) Void(ctx context.Context, r paymentsapi.VoidRequest) (paymentsapi.Payment, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return paymentsapi.Payment{}, err
	}
	if r.Key == "" {
		return paymentsapi.Payment{}, errs.Invalidf("", "a void needs a key")
	}
	p, err := m.find(ctx, r.ID)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	switch p.State {
	case paymentsapi.Voided, paymentsapi.Failed, paymentsapi.Captured, paymentsapi.Refunded:
		return p.view(), nil
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		c := command{Key: r.Key, Payment: r.ID, Kind: "void", CreatedAt: m.Now()}
		n, err := insertCommand(ctx, tx, c)
		if err == nil && n == 0 {
			_, err = firstCommand(ctx, tx, c)
		}
		return err
	})
	if err != nil {
		return paymentsapi.Payment{}, fmt.Errorf("void payment %s: %w", r.ID, err)
	}
	failpoint.Hit("payments.void.before-provider")
	intent, err := m.call(ctx, p.Provider, func(ctx context.Context, from Provider) (Intent, error) { return from.Void(ctx, string(p.ID)) })
	failpoint.Hit("payments.void.after-provider")
	if err != nil {
		return paymentsapi.Payment{}, errs.New(errs.NoAnswer, "", "the provider did not answer").Because(err)
	}
	p, _, err = m.record(ctx, r.ID, intent, nil)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		_, err := endCommand(ctx, tx, r.Key, p.State == paymentsapi.Voided, m.Now())
		return err
	})
	if err != nil {
		return paymentsapi.Payment{}, fmt.Errorf("end void of payment %s: %w", r.ID, err)
	}
	return p.view(), nil
}
