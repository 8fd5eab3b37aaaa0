// Package paymentstest has a Fake of payments in memory, and the Suite that both the Fake and the module pass. Only tests
// import it.
package paymentstest

import (
	"context"
	"sync"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Fake is payments without a provider. It understands the simulator's tokens tok_approve, tok_decline, tok_3ds and
// tok_timeout, whose authorisation is told by Payment only.
type Fake struct {
	mu       sync.Mutex
	payments map[paymentsapi.ID]*paymentsapi.Payment
	tokens   map[paymentsapi.ID]string
	done     map[string]string // command key → what it asked

	// Fail, if set, is asked before every call by method name and key; an error is returned as if the call had not arrived.
	Fail func(method, key string) error
}

var _ paymentsapi.Payments = (*Fake)(nil)

// New is a Fake with no payments.
func New() *Fake {
	return &Fake{payments: map[paymentsapi.ID]*paymentsapi.Payment{}, tokens: map[paymentsapi.ID]string{}, done: map[string]string{}}
}

func (f *Fake) fail(method, key string) error {
	if f.Fail == nil {
		return nil
	}
	return f.Fail(method, key)
}

func (f *Fake) Authorize(_ context.Context, r paymentsapi.AuthorizeRequest) (paymentsapi.Payment, error) {
	if err := f.fail("Authorize", r.Key); err != nil {
		return paymentsapi.Payment{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Amount.Minor <= 0 {
		return paymentsapi.Payment{}, errs.Invalidf("invalid_amount", "an amount to pay is above zero")
	}
	state, ok := map[string]paymentsapi.State{
		"tok_approve": paymentsapi.Authorised, "tok_decline": paymentsapi.Failed, "tok_3ds": paymentsapi.ActionRequired,
		"tok_timeout": paymentsapi.Unknown,
	}[r.Token]
	if !ok || r.Provider != "simulator" {
		return paymentsapi.Payment{}, errs.Invalidf("unknown_payment_token", "the provider does not know this payment token")
	}
	id := ids.Derived[paymentsapi.ID]("pay", r.Key, "payment")
	if p, ok := f.payments[id]; ok {
		if p.Amount != r.Amount || p.Checkout != r.Checkout {
			return paymentsapi.Payment{}, errs.Conflictf("key_reused", "this key was used for another payment")
		}
		if p.State == paymentsapi.Unknown {
			p.State = paymentsapi.Authorised
		}
		return *p, nil
	}
	for _, p := range f.payments {
		if p.Checkout == r.Checkout && p.State != paymentsapi.Failed && p.State != paymentsapi.Voided {
			return paymentsapi.Payment{}, errs.Conflictf("payment_active", "the checkout has another payment under way")
		}
	}
	zero := money.Of(0, r.Amount.Currency)
	p := &paymentsapi.Payment{
		ID: id, Checkout: r.Checkout, Order: r.Order, Provider: r.Provider, State: state, Amount: r.Amount, Captured: zero, Refunded: zero,
	}
	switch state {
	case paymentsapi.Failed:
		p.DeclineCode = "card_declined"
	case paymentsapi.ActionRequired:
		p.NextAction = paymentsapi.NextAction{Type: "redirect", URL: "http://fake.invalid/" + string(id)}
	}
	f.payments[id], f.tokens[id] = p, r.Token
	return *p, nil
}

// Confirm is the shopper's answer to 3-D Secure.
func (f *Fake) Confirm(id paymentsapi.ID, approve bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.payments[id]
	if p.State != paymentsapi.ActionRequired {
		return
	}
	p.NextAction = paymentsapi.NextAction{}
	p.State = paymentsapi.Failed
	if approve {
		p.State = paymentsapi.Authorised
	}
}

// All are the payments as they are.
func (f *Fake) All() []paymentsapi.Payment {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []paymentsapi.Payment
	for _, p := range f.payments {
		all = append(all, *p)
	}
	return all
}

func (f *Fake) Payment(_ context.Context, r paymentsapi.PaymentRequest) (paymentsapi.Payment, error) {
	if err := f.fail("Payment", string(r.ID)); err != nil {
		return paymentsapi.Payment{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.payments[r.ID]
	if !ok {
		return paymentsapi.Payment{}, errs.NotFoundf("no such payment")
	}
	if p.State == paymentsapi.Unknown {
		p.State = paymentsapi.Authorised
	}
	return *p, nil
}

func (f *Fake) ByOrder(_ context.Context, r paymentsapi.ByOrderRequest) (paymentsapi.List, error) {
	if err := f.fail("ByOrder", ""); err != nil {
		return paymentsapi.List{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	list := paymentsapi.List{Payments: []paymentsapi.Payment{}}
	for _, o := range r.Orders {
		for _, p := range f.payments {
			if p.Order == o {
				list.Payments = append(list.Payments, *p)
			}
		}
	}
	return list, nil
}

// once runs a command the first time its key comes, and finds the payment in any case.
func (f *Fake) once(method, key string, id paymentsapi.ID, asked string, move func(*paymentsapi.Payment) error) (paymentsapi.Payment, error) {
	if err := f.fail(method, key); err != nil {
		return paymentsapi.Payment{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.payments[id]
	if !ok {
		return paymentsapi.Payment{}, errs.NotFoundf("no such payment")
	}
	asked = method + string(id) + asked
	if before, ok := f.done[key]; ok {
		if before != asked {
			return paymentsapi.Payment{}, errs.Conflictf("key_reused", "this key was used for something else")
		}
		return *p, nil
	}
	if err := move(p); err != nil {
		return paymentsapi.Payment{}, err
	}
	f.done[key] = asked
	return *p, nil
}

func (f *Fake) Capture(_ context.Context, r paymentsapi.CaptureRequest) (paymentsapi.Payment, error) {
	return f.once("Capture", r.Key, r.ID, r.Amount.String(), func(p *paymentsapi.Payment) error {
		switch {
		case r.Amount.Minor <= 0:
			return errs.Invalidf("invalid_amount", "an amount to move is above zero and has a key")
		case p.State != paymentsapi.Authorised && p.State != paymentsapi.Captured:
			return errs.Conflictf("not_capturable", "a payment that is %s can't be captured", p.State)
		case p.Captured.Minor+r.Amount.Minor > p.Amount.Minor:
			return errs.Conflictf("capture_exceeds_authorised", "more than what is authorised can't be captured")
		}
		p.Captured.Minor += r.Amount.Minor
		p.State = paymentsapi.Captured
		return nil
	})
}

func (f *Fake) Void(_ context.Context, r paymentsapi.VoidRequest) (paymentsapi.Payment, error) {
	return f.once("Void", r.Key, r.ID, "", func(p *paymentsapi.Payment) error {
		switch p.State {
		case paymentsapi.Unknown, paymentsapi.ActionRequired, paymentsapi.Authorised, paymentsapi.Initiated:
			p.State = paymentsapi.Voided
		}
		return nil
	})
}

func (f *Fake) Refund(_ context.Context, r paymentsapi.RefundRequest) (paymentsapi.Payment, error) {
	return f.once("Refund", r.Key, r.ID, r.Amount.String(), func(p *paymentsapi.Payment) error {
		switch {
		case r.Amount.Minor <= 0:
			return errs.Invalidf("invalid_amount", "an amount to move is above zero and has a key")
		case p.Refunded.Minor+r.Amount.Minor > p.Captured.Minor:
			return errs.Conflictf("refund_exceeds_captured", "more than what was captured can't be refunded")
		}
		p.Refunded.Minor += r.Amount.Minor
		p.State = paymentsapi.Refunded
		return nil
	})
}
