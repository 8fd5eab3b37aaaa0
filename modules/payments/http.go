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
	web.Post(r, "/v1/hooks/{provider}", web.Public, web.Route{
		ID: "receiveWebhook", Tag: "payments", Summary: "A payment provider's webhook, signed over its raw body",
	}, m.postHook)
	web.Post(r, confirmationPath+"{id}", web.Public, web.Route{
		ID: "confirmSimulatedPayment", Tag: "payments", Summary: "The shopper's answer to the payment simulator's 3-D Secure",
	}, m.postConfirmation)
}

type hookInput struct {
	Provider  string `path:"provider" maxLength:"40"`
	Signature string `header:"Simulator-Signature" maxLength:"200"`
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
