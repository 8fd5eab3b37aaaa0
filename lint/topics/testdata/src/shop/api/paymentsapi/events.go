package paymentsapi

type PaymentCaptured struct{ Payment string }

func (PaymentCaptured) EventName() string  { return "payments.payment_captured.v1" }
func (e PaymentCaptured) EventKey() string { return e.Payment }
