package payments

import (
	"context"
	"net/http"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/web"
)

// confirmationPath is where the shopper answers the simulator's 3-D Secure, followed by the intent.
const confirmationPath = "/v1/simulator/intents/"

// Routes are the public routes of payments.
func (m *Module) Routes(r *web.Router) {
	for _, p := range [...][3]string{
		{"invalid_signature", "The webhook's signature is not valid", "The signature is an HMAC over the raw body with a live secret, not older than five minutes."},
		{"already_decided", "The payment is decided", "The shopper has answered before, or the payment was cancelled. The first answer counts."},
		{"unknown_provider", "There is no such payment provider", "The shop takes payments by the providers it was set up with."},
		{"unknown_payment_token", "The payment token is unknown", "The provider does not know this payment method. Get a token from the provider first."},
		{"payment_active", "Another payment is under way", "A checkout has one payment at a time. Follow that one to its end."},
		{"capture_exceeds_authorised", "More than was authorised", "The sum of all captures stays within what the shopper agreed to."},
		{"refund_exceeds_captured", "More than was captured", "The sum of all refunds stays within what was taken."},
		{"not_capturable", "The payment can't be captured", "Only a payment that is authorised can be captured."},
		{"capture_declined", "The provider refused the capture", "The provider did not give the money it had held. A new payment is needed."},
		{"void_declined", "The provider did not let go", "What was held could not be given back yet. It lapses by itself."},
		{"refund_declined", "The provider refused the refund", "Nothing was given back. The provider's own records say why."},
	} {
		r.Problem(p[0], p[1], p[2])
	}
	r.Tag("payments", "What payment providers tell, and the simulator of one.")
	web.Post(r, "/v1/hooks/{provider}", web.Public, web.Route{
		ID: "receiveWebhook", Tag: "payments", Summary: "A payment provider's webhook, signed over its raw body", Criticality: web.Critical,
	}, m.postHook)
	web.Post(r, confirmationPath+"{id}", web.Public, web.Route{
		ID: "confirmSimulatedPayment", Tag: "payments", Summary: "The shopper's answer to the payment simulator's 3-D Secure", Criticality: web.Critical,
	}, m.postConfirmation)
}

type hookInput struct {
	Provider  string `path:"provider" maxLength:"40"`
	Signature string `header:"Simulator-Signature" maxLength:"200" doc:"t=Unix seconds,v1=HMAC-SHA256 over t, a dot and the raw body, in hexadecimal"`
	RawBody   []byte `contentType:"application/json"`
}

type received struct {
	Received bool `json:"received"`
}

func (m *Module) postHook(ctx context.Context, in *hookInput) (*web.Reply[received], error) {
	if err := m.receive(ctx, in.Provider, in.Signature, in.RawBody); err != nil {
		return nil, err
	}
	return &web.Reply[received]{Status: http.StatusOK, Body: received{true}}, nil
}

type confirmationInput struct {
	ID   string `path:"id" maxLength:"40"`
	Body struct {
		Outcome string `json:"outcome" enum:"approve,decline" doc:"What the shopper did"`
	}
}

type confirmation struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
}

func (m *Module) postConfirmation(ctx context.Context, in *confirmationInput) (*web.Reply[confirmation], error) {
	if m.Simulator == nil {
		return nil, errs.NotFoundf("no such payment")
	}
	if err := m.Simulator.confirm(ctx, in.ID, in.Body.Outcome); err != nil {
		return nil, err
	}
	return &web.Reply[confirmation]{Status: http.StatusOK, Body: confirmation{in.ID, in.Body.Outcome}}, nil
}
