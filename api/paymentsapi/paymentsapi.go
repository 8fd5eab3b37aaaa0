// Package paymentsapi is what other modules may ask of payments: hold, take and give back money.
package paymentsapi

import (
	"context"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// ID names a payment: pay_….
type ID ids.ID

// State of a payment. The set is open: treat an unknown one as unknown.
type State string

const (
	Initiated      State = "initiated"       // recorded, the provider not yet asked
	Unknown        State = "unknown"         // asked, no answer: ask Payment again
	ActionRequired State = "action_required" // the shopper must act, see NextAction
	Authorised     State = "authorised"      // money is held
	Captured       State = "captured"        // money is taken, in part or whole
	Refunded       State = "refunded"        // money is given back, in part or whole
	Voided         State = "voided"          // the hold is given back
	Failed         State = "failed"          // declined; see DeclineCode
)

// Payments moves money for checkouts and orders.
type Payments interface {
	// Authorize holds the amount on the customer's payment method. The key is written before the provider is asked, so repeat
	// it with the same Key until State is not unknown: the provider is then asked what became of it. A decline is a Payment in
	// state failed, not an error. Codes: invalid (unknown provider or token), payment_active (conflict) when the checkout has
	// another payment under way.
	Authorize(ctx context.Context, r AuthorizeRequest) (Payment, error)

	// Payment is the present truth: an unknown or waiting one is asked of the provider first. May be repeated. Codes: not_found.
	Payment(ctx context.Context, r PaymentRequest) (Payment, error)

	// ByOrder are the payments of orders as recorded. May be repeated.
	ByOrder(ctx context.Context, r ByOrderRequest) (List, error)

	// Capture takes part or all of what is held. Repeat it with the same Key. Codes: capture_exceeds_authorised (conflict),
	// not_capturable (conflict), unavailable and no_answer: repeat.
	Capture(ctx context.Context, r CaptureRequest) (Payment, error)

	// Void gives the hold back, or cancels what waits for the shopper. The answer may be a Payment that is already authorised or captured: look
	// at its State; captured money is refunded, not voided. Repeat it with the same Key. Codes: unavailable and no_answer: repeat.
	Void(ctx context.Context, r VoidRequest) (Payment, error)

	// Refund gives captured money back. Repeat it with the same Key. Codes: refund_exceeds_captured (conflict), invalid (zero
	// or negative), refund_declined (declined), unavailable and no_answer: repeat.
	Refund(ctx context.Context, r RefundRequest) (Payment, error)
}

// AuthorizeRequest holds Amount for Checkout.
type AuthorizeRequest struct {
	Key      string       `json:"key"`
	Checkout ids.ID       `json:"checkout"`
	Order    ids.ID       `json:"order"`
	Customer ids.ID       `json:"customer"` // "" for a guest
	Amount   money.Amount `json:"amount"`
	Provider string       `json:"provider"`
	Token    string       `json:"token"` // the provider's name for a payment method; never a card number
}

// Payment is money asked of one payment method for one checkout.
type Payment struct {
	ID          ID           `json:"id"`
	Checkout    ids.ID       `json:"checkout"`
	Order       ids.ID       `json:"order"`
	Provider    string       `json:"provider"`
	State       State        `json:"state"`
	Amount      money.Amount `json:"amount"`
	Captured    money.Amount `json:"captured"`
	Refunded    money.Amount `json:"refunded"`
	DeclineCode string       `json:"decline_code"`
	NextAction  NextAction   `json:"next_action"`
}

// NextAction is what the shopper must do; zero when nothing.
type NextAction struct {
	Type string `json:"type"` // redirect
	URL  string `json:"url"`
}

// PaymentRequest asks for a payment.
type PaymentRequest struct {
	ID ID `json:"id"`
}

// ByOrderRequest asks for the payments of orders.
type ByOrderRequest struct {
	Orders []ids.ID `json:"orders"`
}

// List is payments, oldest first.
type List struct {
	Payments []Payment `json:"payments"`
}

// CaptureRequest takes Amount of what is held.
type CaptureRequest struct {
	Key    string       `json:"key"`
	ID     ID           `json:"id"`
	Amount money.Amount `json:"amount"`
}

// VoidRequest gives a hold back.
type VoidRequest struct {
	Key string `json:"key"`
	ID  ID     `json:"id"`
}

// RefundRequest gives Amount of what was captured back.
type RefundRequest struct {
	Key    string       `json:"key"`
	ID     ID           `json:"id"`
	Amount money.Amount `json:"amount"`
	Reason string       `json:"reason"`
}
