// Package payments holds, takes and gives back money through providers, and keeps the books of it. It does not know what is
// bought, decides no order's fate and stores no card: a payment method is a provider's token.
//
// Every call to a provider has a key that was committed before the call. An answer that does not come is not a no: the same
// key is asked again until the provider has told.
package payments

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Module is the payments module.
type Module struct {
	DB          *pg.DB
	Log         *slog.Logger
	Now         func() time.Time
	Config      Config
	Providers   Providers
	Simulator   *Simulator // nil unless it is switched on
	HookSecrets HookSecrets
	Woken       Woken
}

// HookSecrets are the live secrets of webhooks: the present one and, while it is rotated, the one before.
type HookSecrets [][]byte

// Woken tells the worker that a webhook came.
type Woken chan struct{}

// Providers are the payment providers by name.
type Providers map[string]Provider

// Config is the block "payments" of the settings.
type Config struct {
	// ProviderTimeout bounds one call to a provider. Default 10s.
	ProviderTimeout time.Duration `yaml:"provider_timeout"`
	// Simulator accepts the simulator's tokens: auto (with the embedded database only), on or off. Default auto.
	Simulator string `yaml:"simulator"`
	// WebhookURL is where the simulator sends its webhooks. Default: /v1/hooks/simulator at the public URL.
	WebhookURL string `yaml:"webhook_url"`
	// LateWebhook is how long tok_late_webhook takes to settle. Default 2s.
	LateWebhook time.Duration `yaml:"late_webhook"`
	// Poll is how often webhooks that wait are looked for, beside being told. Default 250ms.
	Poll time.Duration `yaml:"poll"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config {
	return Config{ProviderTimeout: 10 * time.Second, Simulator: "auto", LateWebhook: 2 * time.Second, Poll: 250 * time.Millisecond}
}

// Validate says what to change.
func (c Config) Validate() error {
	switch {
	case c.ProviderTimeout <= 0 || c.ProviderTimeout > time.Minute:
		return fmt.Errorf("provider_timeout must be above 0 and at most 1m")
	case c.Simulator != "auto" && c.Simulator != "on" && c.Simulator != "off":
		return fmt.Errorf("simulator must be auto, on or off")
	case c.Poll <= 0:
		return fmt.Errorf("poll must be above 0")
	}
	return nil
}

var _ paymentsapi.Payments = (*Module)(nil)

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { paymentsapi.Mount(s, m) }

// Subscribe hears nothing: money moves only when told to.
func (m *Module) Subscribe(*events.Subscriptions) {}

// Authorize holds money. See paymentsapi.
func (m *Module) Authorize(ctx context.Context, r paymentsapi.AuthorizeRequest) (paymentsapi.Payment, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return paymentsapi.Payment{}, err
	}
	provider, ok := m.Providers[r.Provider]
	switch {
	case !ok:
		return paymentsapi.Payment{}, errs.Invalidf("unknown_provider", "no such payment provider").WithField("/payment/provider", "unknown")
	case !provider.Accepts(r.Token):
		return paymentsapi.Payment{}, errs.Invalidf("unknown_payment_token", "the provider does not know this payment token").WithField("/payment/token", "unknown")
	case r.Amount.Minor <= 0:
		return paymentsapi.Payment{}, errs.Invalidf("invalid_amount", "an amount to pay is above zero")
	case r.Key == "" || r.Checkout == "":
		return paymentsapi.Payment{}, errs.Invalidf("", "a payment needs a key and a checkout")
	}
	now := m.Now()
	p := payment{
		ID: paymentID(r.Key), RequestHash: hash(r), Checkout: string(r.Checkout), Order: string(r.Order), Customer: string(r.Customer),
		Provider: r.Provider, Token: r.Token, State: paymentsapi.Initiated, Currency: r.Amount.Currency, Amount: r.Amount.Minor,
		CreatedAt: now, UpdatedAt: now,
	}
	stored, created, err := m.begin(ctx, p)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	if !created && string(stored.RequestHash) != string(p.RequestHash) {
		return paymentsapi.Payment{}, errs.Conflictf("key_reused", "this key was used for another payment")
	}
	if stored.State != paymentsapi.Initiated {
		return m.refresh(ctx, stored)
	}
	// The first try, a repeat after an answer that did not come, and a restart all arrive here and do the same: the provider
	// makes one intent for one key.
	return m.ask(ctx, stored, func(ctx context.Context, p Provider) (Intent, error) {
		return p.Authorize(ctx, string(stored.ID), stored.Token, stored.amount())
	})
}

// begin writes the payment before the provider is asked, or finds the one an earlier try wrote.
func (m *Module) begin(ctx context.Context, p payment) (stored payment, created bool, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		n, err := insertPayment(ctx, tx, p)
		if err != nil {
			return err
		}
		if stored, created = p, n == 1; created {
			return nil
		}
		stored, err = paymentByID(ctx, tx, p.ID)
		return err
	})
	if pg.IsUnique(err, "one_active_payment") {
		// The other payment is this one, if the first try is being written at this moment.
		if stored, err = paymentByID(ctx, m.DB, p.ID); pg.NoRows(err) {
			return payment{}, false, errs.Conflictf("payment_active", "the checkout has another payment under way")
		}
	}
	if err != nil {
		return payment{}, false, fmt.Errorf("begin payment %s: %w", p.ID, err)
	}
	return stored, created, nil
}

// Payment is the present truth of a payment. See paymentsapi.
func (m *Module) Payment(ctx context.Context, r paymentsapi.PaymentRequest) (paymentsapi.Payment, error) {
	if err := auth.RequireModule(ctx, "orders"); err != nil {
		return paymentsapi.Payment{}, err
	}
	p, err := m.find(ctx, r.ID)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	return m.refresh(ctx, p)
}

// refresh asks the provider about a payment whose fate is open, and records what it says.
func (m *Module) refresh(ctx context.Context, p payment) (paymentsapi.Payment, error) {
	if p.State != paymentsapi.Initiated && p.State != paymentsapi.ActionRequired {
		return p.view(), nil
	}
	return m.ask(ctx, p, func(ctx context.Context, from Provider) (Intent, error) { return from.Find(ctx, string(p.ID)) })
}

// ask calls the provider and records its answer. No answer leaves the payment as it is and is told as state unknown.
func (m *Module) ask(ctx context.Context, p payment, call func(context.Context, Provider) (Intent, error)) (paymentsapi.Payment, error) {
	intent, err := m.call(ctx, p.Provider, call)
	if err != nil {
		m.Log.WarnContext(ctx, "provider did not answer", "payment", p.ID, "provider", p.Provider, "err", err)
		v := p.view()
		v.State = paymentsapi.Unknown
		return v, nil
	}
	recorded, _, err := m.record(ctx, p.ID, intent, nil)
	if err != nil {
		return paymentsapi.Payment{}, err
	}
	return recorded.view(), nil
}

// call bounds one call to a provider. One that the settings name no more gives no answer.
func (m *Module) call(ctx context.Context, provider string, f func(context.Context, Provider) (Intent, error)) (Intent, error) {
	p, ok := m.Providers[provider]
	if !ok {
		return Intent{}, fmt.Errorf("payment provider %s is not set up any more", provider)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.Config.ProviderTimeout)
	defer cancel()
	return f(ctx, p)
}

// record moves the payment to where the provider says it is, never backwards, and says whether it moved. When a webhook was
// the cause, that is done with it, and PaymentChanged tells those who did not ask.
func (m *Module) record(ctx context.Context, id paymentsapi.ID, in Intent, cause *hook) (p payment, moved bool, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		p, err = movePayment(ctx, tx, id, in, m.Now())
		if moved = err == nil; pg.NoRows(err) { // old news
			p, err = paymentByID(ctx, tx, id)
		}
		if err != nil {
			return err
		}
		if p.State == paymentsapi.Voided || p.State == paymentsapi.Failed { // who asked for a void or a capture may not live to end it
			if err := endCommands(ctx, tx, id, p.State == paymentsapi.Voided, m.Now()); err != nil {
				return err
			}
		}
		if cause == nil {
			return nil
		}
		if err := endHook(ctx, tx, *cause, m.Now()); err != nil || !moved {
			return err
		}
		return events.Publish(ctx, tx, paymentsapi.PaymentChanged{
			Payment: id, Checkout: ids.ID(p.Checkout), Order: ids.ID(p.Order), State: p.State,
		})
	})
	if err != nil {
		return payment{}, false, fmt.Errorf("record payment %s as %s: %w", id, in.State, err)
	}
	return p, moved, nil
}

// ByOrder are the payments of orders. See paymentsapi.
func (m *Module) ByOrder(ctx context.Context, r paymentsapi.ByOrderRequest) (paymentsapi.List, error) {
	if err := auth.RequireModule(ctx, "orders", "storefront"); err != nil {
		return paymentsapi.List{}, err
	}
	rows, err := paymentsByOrder(ctx, m.DB, r.Orders)
	if err != nil {
		return paymentsapi.List{}, err
	}
	list := paymentsapi.List{Payments: make([]paymentsapi.Payment, len(rows))}
	for i, p := range rows {
		list.Payments[i] = p.view()
	}
	return list, nil
}

func (m *Module) find(ctx context.Context, id paymentsapi.ID) (payment, error) {
	p, err := paymentByID(ctx, m.DB, id)
	if pg.NoRows(err) {
		return payment{}, errs.NotFoundf("no such payment")
	}
	if err != nil {
		return payment{}, fmt.Errorf("payment %s: %w", id, err)
	}
	return p, nil
}

// paymentID is the payment an Authorize key stands for.
func paymentID(key string) paymentsapi.ID { return ids.Derived[paymentsapi.ID]("pay", key, "payment") }

// hash tells two requests under one key apart.
func hash(r paymentsapi.AuthorizeRequest) []byte {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%s\x00%d\x00%s\x00%s\x00%s", r.Checkout, r.Order, r.Customer, r.Amount.Minor, r.Amount.Currency, r.Provider, r.Token))
	return sum[:]
}
