package payments

import (
	"context"
	"errors"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/money"
)

// Provider moves money outside. Every call carries a key; a provider answers a repeated key as it answered the first time.
// An error is "no answer": it may have happened, except for those named below.
type Provider interface {
	// Accepts says whether the token is one of the provider's.
	Accepts(token string) bool
	// Authorize holds the amount. A decline is an Intent in state failed.
	Authorize(ctx context.Context, key, token string, a money.Amount) (Intent, error)
	// Find is the intent that Authorize made for the key; state initiated if the provider knows of none.
	Find(ctx context.Context, key string) (Intent, error)
	// Capture takes part of what intent holds. Error: ErrRefused.
	Capture(ctx context.Context, key, intent string, a money.Amount) (Intent, error)
	// Void gives back the hold made or yet to be made under authorizeKey: an Authorize that arrives later finds it void. An
	// intent that can't be voided any more is returned as it is.
	Void(ctx context.Context, authorizeKey string) (Intent, error)
	// Refund gives part of what was captured back. Error: ErrRefused.
	Refund(ctx context.Context, key, intent string, a money.Amount) (Intent, error)
}

// ErrRefused is a provider's certain no: nothing happened and nothing will.
var ErrRefused = errors.New("refused by the provider")

// Intent is a provider's view of a payment.
type Intent struct {
	Reference   string
	State       paymentsapi.State // initiated while the provider knows nothing or has not decided
	DeclineCode string
	NextAction  paymentsapi.NextAction
}
