package paymentsapi

import "github.com/banyan-shop/banyan/platform/ids"

// PaymentChanged says that a payment reached a state in another way than by an answer to a call: a webhook, the shopper's
// confirmation, a late reply. Its key is the payment. Hearers ask Payment for the truth; this is only the signal.
type PaymentChanged struct {
	Payment  ID     `json:"payment"`
	Checkout ids.ID `json:"checkout"`
	Order    ids.ID `json:"order"`
	State    State  `json:"state"`
}

func (PaymentChanged) EventName() string  { return "payments.payment_changed.v1" }
func (e PaymentChanged) EventKey() string { return string(e.Payment) }
