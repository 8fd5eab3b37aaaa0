package payments

import (
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// payment is a row of payments.payments.
type payment struct {
	ID             paymentsapi.ID    `db:"id"`
	RequestHash    []byte            `db:"request_hash"`
	Checkout       string            `db:"checkout"`
	Order          string            `db:"order_id"`
	Customer       string            `db:"customer"`
	Provider       string            `db:"provider"`
	Token          string            `db:"token"`
	Reference      string            `db:"reference"`
	State          paymentsapi.State `db:"state"`
	Currency       string            `db:"currency"`
	Amount         int64             `db:"amount"`
	CaptureClaimed int64             `db:"capture_claimed"`
	Captured       int64             `db:"captured"`
	RefundClaimed  int64             `db:"refund_claimed"`
	Refunded       int64             `db:"refunded"`
	DeclineCode    string            `db:"decline_code"`
	NextActionType string            `db:"next_action_type"`
	NextActionURL  string            `db:"next_action_url"`
	CreatedAt      time.Time         `db:"created_at"`
	UpdatedAt      time.Time         `db:"updated_at"`
}

func (p payment) amount() money.Amount { return money.Of(p.Amount, p.Currency) }

func (p payment) view() paymentsapi.Payment {
	v := paymentsapi.Payment{
		ID: p.ID, Checkout: ids.ID(p.Checkout), Order: ids.ID(p.Order), Provider: p.Provider, State: p.State, Amount: p.amount(),
		Captured: money.Of(p.Captured, p.Currency), Refunded: money.Of(p.Refunded, p.Currency), DeclineCode: p.DeclineCode,
	}
	if p.State == paymentsapi.ActionRequired {
		v.NextAction = paymentsapi.NextAction{Type: p.NextActionType, URL: p.NextActionURL}
	}
	return v
}

// earlier are the states from which a provider's word may move a payment to a state. What is not listed is old news: a late
// webhook never undoes what came after it.
func earlier(to paymentsapi.State) []string {
	switch to {
	case paymentsapi.ActionRequired:
		return []string{"initiated"}
	case paymentsapi.Authorised, paymentsapi.Failed:
		return []string{"initiated", "action_required"}
	case paymentsapi.Voided:
		return []string{"initiated", "action_required", "authorised"}
	default: // captured and refunded are moved by their own commands, which know the amounts
		return nil
	}
}
