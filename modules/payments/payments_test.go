package payments

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/paymentsapi/paymentstest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

type bundle struct {
	*Module
	ctx   context.Context
	clock *shoptest.Clock
	hooks *httptest.Server
}

// setup is a module with the simulator, whose webhooks come to it over HTTP.
func setup(t *testing.T) bundle {
	t.Helper()
	clock := shoptest.NewClock()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	m := &Module{DB: shoptest.DB(t, "payments"), Log: log, Now: clock.Now, Config: Defaults(), HookSecrets: HookSecrets{[]byte("secret")}, Woken: woken()}
	hooks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := m.receive(r.Context(), "simulator", r.Header.Get("Simulator-Signature"), body); err != nil {
			w.WriteHeader(errs.KindOf(err).Status())
		}
	}))
	t.Cleanup(hooks.Close)
	m.Simulator = &Simulator{
		DB: m.DB, Log: log, Now: clock.Now, Late: 2 * time.Second, PublicURL: hooks.URL, WebhookURL: hooks.URL, Secret: []byte("secret"),
		Client: hooks.Client(), Poll: time.Second, wake: make(chan struct{}, 1),
	}
	m.Providers = Providers{"simulator": m.Simulator}
	return bundle{m, auth.WithCaller(t.Context(), "orders"), clock, hooks}
}

func TestModulePassesTheSuite(t *testing.T) {
	t.Parallel()
	paymentstest.Suite(t, func(t *testing.T) (context.Context, paymentsapi.Payments) {
		b := setup(t)
		return b.ctx, b.Module
	})
}

func TestFakePassesTheSuite(t *testing.T) {
	t.Parallel()
	paymentstest.Suite(t, func(t *testing.T) (context.Context, paymentsapi.Payments) { return t.Context(), paymentstest.New() })
}

func authorize(t *testing.T, b bundle, token string) paymentsapi.Payment {
	t.Helper()
	p, err := b.Authorize(b.ctx, paymentsapi.AuthorizeRequest{
		Key: ids.New[string]("key"), Checkout: ids.New[ids.ID]("chk"), Order: ids.New[ids.ID]("ord"), Amount: money.Of(1000, "EUR"),
		Provider: "simulator", Token: token,
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestOnlyOrdersMoveMoney(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, caller := range []string{"", "cart", "storefront"} {
		ctx := auth.WithCaller(t.Context(), caller)
		if _, err := b.Authorize(ctx, paymentsapi.AuthorizeRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("authorize by %q: %v", caller, err)
		}
		if _, err := b.Capture(ctx, paymentsapi.CaptureRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("capture by %q: %v", caller, err)
		}
		if _, err := b.Refund(ctx, paymentsapi.RefundRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("refund by %q: %v", caller, err)
		}
		if _, err := b.Void(ctx, paymentsapi.VoidRequest{}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("void by %q: %v", caller, err)
		}
	}
}

// lossy is the simulator behind a line that loses answers.
type lossy struct {
	*Simulator
	mu   sync.Mutex
	lose int
}

func (l *lossy) drop() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lose == 0 {
		return nil
	}
	l.lose--
	return errors.New("connection reset")
}

func (l *lossy) Capture(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	in, err := l.Simulator.Capture(ctx, key, intent, a)
	return in, errors.Join(err, l.drop())
}

func (l *lossy) Refund(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	in, err := l.Simulator.Refund(ctx, key, intent, a)
	return in, errors.Join(err, l.drop())
}

func (l *lossy) Void(ctx context.Context, key string) (Intent, error) {
	in, err := l.Simulator.Void(ctx, key)
	return in, errors.Join(err, l.drop())
}

func TestAnAnswerThatIsLostIsAskedForAgainAndMovesMoneyOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := &lossy{Simulator: b.Simulator, lose: 3}
	b.Providers["simulator"] = l
	pay := authorize(t, b, "tok_approve")
	capture := paymentsapi.CaptureRequest{Key: "c", ID: pay.ID, Amount: money.Of(1000, "EUR")}
	for range 3 {
		if _, err := b.Capture(b.ctx, capture); !errs.Is(err, errs.NoAnswer) {
			t.Fatalf("lost capture: %v", err)
		}
	}
	got, err := b.Capture(b.ctx, capture)
	if err != nil || got.Captured.Minor != 1000 {
		t.Fatalf("capture in the end: %+v, %v", got, err)
	}
	l.lose = 1
	refund := paymentsapi.RefundRequest{Key: "r", ID: pay.ID, Amount: money.Of(400, "EUR")}
	if _, err := b.Refund(b.ctx, refund); !errs.Is(err, errs.NoAnswer) {
		t.Fatalf("lost refund: %v", err)
	}
	if got, err = b.Refund(b.ctx, refund); err != nil || got.Refunded.Minor != 400 {
		t.Fatalf("refund in the end: %+v, %v", got, err)
	}
	var provider struct{ Captured, Refunded int64 }
	if err := b.DB.Get(t.Context(), &provider, `SELECT captured, refunded FROM payments.simulator_intents`); err != nil {
		t.Fatal(err)
	}
	if provider.Captured != 1000 || provider.Refunded != 400 {
		t.Errorf("the provider's books: %+v", provider)
	}
	var sum, entries int64
	if err := b.DB.Get(t.Context(), &sum, `SELECT sum(amount)::bigint FROM payments.entries`); err != nil || sum != 0 {
		t.Errorf("Σ of the ledger is %d, %v; want 0", sum, err)
	}
	if err := b.DB.Get(t.Context(), &entries, `SELECT sum(amount)::bigint FROM payments.entries WHERE account = 'provider'`); err != nil || entries != 600 {
		t.Errorf("the provider owes %d, %v; want 600", entries, err)
	}
}

// refusing is the simulator that refuses the second refund.
type refusing struct {
	*Simulator
	refunds int
}

func (r *refusing) Refund(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	if r.refunds++; r.refunds == 2 {
		return Intent{}, ErrRefused
	}
	return r.Simulator.Refund(ctx, key, intent, a)
}

func TestProviderRefusesTheSecondOfThreeRefunds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Providers["simulator"] = &refusing{Simulator: b.Simulator}
	pay := authorize(t, b, "tok_approve")
	if _, err := b.Capture(b.ctx, paymentsapi.CaptureRequest{Key: "c", ID: pay.ID, Amount: money.Of(1000, "EUR")}); err != nil {
		t.Fatal(err)
	}
	refund := func(key string) error {
		_, err := b.Refund(b.ctx, paymentsapi.RefundRequest{Key: key, ID: pay.ID, Amount: money.Of(300, "EUR")})
		return err
	}
	if err := refund("1"); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the no is remembered with its key
		if err := refund("2"); !errs.Has(err, "refund_declined") {
			t.Fatalf("refused refund: %v", err)
		}
	}
	if err := refund("3"); err != nil {
		t.Fatal(err)
	}
	got, err := b.Payment(b.ctx, paymentsapi.PaymentRequest{ID: pay.ID})
	if err != nil || got.Refunded.Minor != 600 {
		t.Errorf("refunded %+v, %v; want 600: nothing is claimed of a refused one", got.Refunded, err)
	}
	if err := refund("4"); err != nil {
		t.Errorf("the refused amount can be refunded later: %v", err)
	}
}

func TestWebhooksSettleAPaymentOnceHoweverOftenTheyCome(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pay := authorize(t, b, "tok_late_webhook")
	if pay.State != paymentsapi.Initiated && pay.State != paymentsapi.Unknown {
		t.Fatalf("state %s before it settles", pay.State)
	}
	b.clock.Advance(3 * time.Second)
	if n, err := b.Simulator.deliver(t.Context()); err != nil || n != 2 {
		t.Fatalf("%d webhooks delivered, %v; want the event twice", n, err)
	}
	for range 2 {
		if _, err := b.handleHooks(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	var hooks, changed int
	if err := b.DB.Get(t.Context(), &hooks, `SELECT count(*) FROM payments.hooks WHERE processed_at IS NOT NULL`); err != nil || hooks != 1 {
		t.Errorf("%d webhooks processed, %v; want 1", hooks, err)
	}
	if err := b.DB.Get(t.Context(), &changed, `SELECT count(*) FROM payments.outbox WHERE name = 'payments.payment_changed.v1'`); err != nil || changed != 1 {
		t.Errorf("PaymentChanged published %d times, %v; want once", changed, err)
	}
	got, err := b.ByOrder(b.ctx, paymentsapi.ByOrderRequest{Orders: []ids.ID{pay.Order}})
	if err != nil || got.Payments[0].State != paymentsapi.Authorised {
		t.Errorf("recorded: %+v, %v", got, err)
	}
}

func TestALateWebhookNeverUndoesWhatCameAfterIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pay := authorize(t, b, "tok_timeout")
	got, err := b.Void(b.ctx, paymentsapi.VoidRequest{Key: "v", ID: pay.ID})
	if err != nil || got.State != paymentsapi.Voided {
		t.Fatalf("void: %+v, %v", got, err)
	}
	for _, old := range []paymentsapi.State{paymentsapi.Initiated, paymentsapi.ActionRequired, paymentsapi.Authorised, paymentsapi.Failed, paymentsapi.Captured} {
		if _, moved, err := b.record(t.Context(), pay.ID, Intent{State: old}, &hook{}); err != nil || moved {
			t.Errorf("a void payment moved to %s: %v", old, err)
		}
	}
}

func TestAnAuthorisationThatArrivesAfterItsVoidHoldsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if in, err := b.Simulator.Void(t.Context(), "pay_x"); err != nil || in.State != paymentsapi.Voided {
		t.Fatalf("void of an unseen key: %+v, %v", in, err)
	}
	if in, err := b.Simulator.Authorize(t.Context(), "pay_x", "tok_approve", money.Of(1000, "EUR")); err != nil || in.State != paymentsapi.Voided {
		t.Errorf("authorisation after its void: %+v, %v", in, err)
	}
}

func TestThreeDSecure(t *testing.T) {
	t.Parallel()
	for outcome, want := range map[string]paymentsapi.State{"approve": paymentsapi.Authorised, "decline": paymentsapi.Failed} {
		b := setup(t)
		pay := authorize(t, b, "tok_3ds")
		intent := pay.NextAction.URL[len(b.hooks.URL+confirmationPath):]
		for range 2 { // a second press of the button changes nothing
			if err := b.Simulator.confirm(t.Context(), intent, outcome); err != nil {
				t.Fatalf("%s: %v", outcome, err)
			}
		}
		other := map[string]string{"approve": "decline", "decline": "approve"}[outcome]
		if err := b.Simulator.confirm(t.Context(), intent, other); !errs.Has(err, "already_decided") {
			t.Errorf("%s after %s: %v", other, outcome, err)
		}
		got, err := b.Payment(b.ctx, paymentsapi.PaymentRequest{ID: pay.ID})
		if err != nil || got.State != want {
			t.Errorf("%s: state %s, %v; want %s", outcome, got.State, err, want)
		}
	}
	b := setup(t)
	if err := b.Simulator.confirm(t.Context(), "sim_none", "approve"); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown intent: %v", err)
	}
}

func TestForgedWebhooksAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	now := b.Now()
	body := webhook{ID: "whk_1"}
	body.Data.Key = ids.New[string]("pay")
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	good := sign([]byte("secret"), now, raw)
	if err := b.receive(t.Context(), "simulator", good, raw); err != nil {
		t.Fatalf("genuine: %v", err)
	}
	b.HookSecrets = append(HookSecrets{[]byte("new secret")}, b.HookSecrets...)
	if err := b.receive(t.Context(), "simulator", good, raw); err != nil {
		t.Errorf("the secret before is still live: %v", err)
	}
	for name, forged := range map[string]struct {
		signature string
		body      []byte
	}{
		"other secret":    {sign([]byte("other"), now, raw), raw},
		"stale":           {sign([]byte("secret"), now.Add(-301*time.Second), raw), raw},
		"from the future": {sign([]byte("secret"), now.Add(301*time.Second), raw), raw},
		"changed body":    {good, bytes.Replace(raw, []byte("whk_1"), []byte("whk_2"), 1)},
		"no signature":    {"", raw},
		"garbage":         {"t=1,v1=zz", raw},
		"changed time":    {"t=2" + good[3:], raw},
	} {
		if err := b.receive(t.Context(), "simulator", forged.signature, forged.body); !errs.Is(err, errs.Unauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := b.receive(t.Context(), "stripe", good, raw); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown provider: %v", err)
	}
}

func TestARepeatThatMeetsTheFirstTryIsTheSamePayment(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range 20 {
		r := paymentsapi.AuthorizeRequest{
			Key: ids.New[string]("key"), Checkout: ids.New[ids.ID]("chk"), Order: ids.New[ids.ID]("ord"), Amount: money.Of(1000, "EUR"),
			Provider: "simulator", Token: "tok_approve",
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if p, err := b.Authorize(b.ctx, r); err != nil || p.State != paymentsapi.Authorised {
					t.Errorf("%s, %v", p.State, err)
				}
			})
		}
		wg.Wait()
	}
	var intents int
	if err := b.DB.Get(t.Context(), &intents, `SELECT count(*) FROM payments.simulator_intents`); err != nil || intents != 20 {
		t.Errorf("%d intents of 20 keys, %v", intents, err)
	}
}

// The settings may change while money is under way: then nobody can say how a payment stands, which is not a no.
func TestAProviderThatIsSetUpNoMoreDoesNotAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	open, held := authorize(t, b, "tok_3ds"), authorize(t, b, "tok_approve")
	if err := b.Simulator.confirm(t.Context(), open.NextAction.URL[len(b.hooks.URL+confirmationPath):], "approve"); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Simulator.deliver(t.Context()); err != nil || n != 1 {
		t.Fatalf("%d webhooks, %v", n, err)
	}
	b.Providers = Providers{}
	if _, err := b.handleHooks(t.Context()); err == nil {
		t.Error("a webhook of nobody was handled")
	}
	if p, err := b.Payment(b.ctx, paymentsapi.PaymentRequest{ID: open.ID}); err != nil || p.State != paymentsapi.Unknown {
		t.Errorf("payment: %s, %v", p.State, err)
	}
	if _, err := b.Capture(b.ctx, paymentsapi.CaptureRequest{Key: "c", ID: held.ID, Amount: held.Amount}); !errs.Is(err, errs.NoAnswer) {
		t.Errorf("capture: %v", err)
	}
	if _, err := b.Void(b.ctx, paymentsapi.VoidRequest{Key: "v", ID: held.ID}); !errs.Is(err, errs.NoAnswer) {
		t.Errorf("void: %v", err)
	}
	b.Providers = Providers{"simulator": b.Simulator}
	b.clock.Advance(time.Minute)
	if _, err := b.handleHooks(t.Context()); err != nil {
		t.Error(err)
	}
	if p, err := b.Payment(b.ctx, paymentsapi.PaymentRequest{ID: open.ID}); err != nil || p.State != paymentsapi.Authorised {
		t.Errorf("when it is back: %s, %v", p.State, err)
	}
}

func TestAWebhookThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	b := setup(t)
	good := authorize(t, b, "tok_3ds")
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		for provider, id := range map[string]paymentsapi.ID{"gone": "pay_x", "simulator": good.ID} {
			if _, err := insertHook(t.Context(), tx, provider, "whk_"+provider, id, b.Now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.handleHooks(t.Context()); err == nil {
		t.Error("the failure is not told")
	}
	var done []string
	if err := b.DB.Select(t.Context(), &done, `SELECT event_id FROM payments.hooks WHERE processed_at IS NOT NULL`); err != nil || len(done) != 1 || done[0] != "whk_simulator" {
		t.Errorf("handled %v, %v", done, err)
	}
}

func TestAKeyOfAnotherCommandVoidsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	l := &lossy{Simulator: b.Simulator, lose: 1}
	b.Providers["simulator"] = l
	pay := authorize(t, b, "tok_approve")
	if _, err := b.Capture(b.ctx, paymentsapi.CaptureRequest{Key: "c", ID: pay.ID, Amount: money.Of(400, "EUR")}); !errs.Is(err, errs.NoAnswer) {
		t.Fatalf("lost capture: %v", err)
	}
	if _, err := b.Void(b.ctx, paymentsapi.VoidRequest{Key: "c", ID: pay.ID}); !errs.Has(err, "key_reused") {
		t.Errorf("void under the capture's key: %v", err)
	}
	if _, err := b.Void(b.ctx, paymentsapi.VoidRequest{ID: pay.ID}); !errs.Is(err, errs.Invalid) {
		t.Errorf("void without a key: %v", err)
	}
	got, err := b.Capture(b.ctx, paymentsapi.CaptureRequest{Key: "c", ID: pay.ID, Amount: money.Of(400, "EUR")})
	if err != nil || got.Captured.Minor != 400 {
		t.Errorf("the capture in the end: %+v, %v", got, err)
	}
}

// An order may be cancelled while it is not known whether its capture has reached the provider.
// meanwhile is a provider at which something happens before it tells of a capture.
type meanwhile struct {
	Provider
	happens func()
	answer  error
}

func (m meanwhile) Capture(ctx context.Context, key, intent string, a money.Amount) (Intent, error) {
	i, err := m.Provider.Capture(ctx, key, intent, a)
	m.happens()
	return i, errors.Join(err, m.answer)
}

func TestAProviderThatAnswersOtherwiseTheSecondTimeIsToldOf(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for first, then := range map[string]error{"refused": nil, "done": ErrRefused} { // what another try of the same key was told before
		pay := authorize(t, b, "tok_approve")
		b.Providers = Providers{"simulator": meanwhile{b.Simulator, func() {
			if _, err := b.book(b.ctx, command{Key: first, Payment: pay.ID, Kind: "capture", Amount: pay.Amount.Minor}, first == "done"); err != nil {
				t.Error(err)
			}
		}, then}}
		_, err := b.Capture(b.ctx, paymentsapi.CaptureRequest{Key: first, ID: pay.ID, Amount: pay.Amount})
		if err == nil || errs.Is(err, errs.Declined) || !strings.Contains(err.Error(), "when it was "+first) {
			t.Errorf("after it was %s: %v", first, err)
		}
	}
}

func TestAVoidEndsACaptureThatNeverArrived(t *testing.T) {
	t.Parallel()
	b := setup(t)
	pay := authorize(t, b, "tok_approve")
	capture := paymentsapi.CaptureRequest{Key: "c", ID: pay.ID, Amount: pay.Amount}
	b.Providers = Providers{}
	if _, err := b.Capture(b.ctx, capture); !errs.Is(err, errs.NoAnswer) {
		t.Fatalf("capture: %v", err)
	}
	b.Providers = Providers{"simulator": b.Simulator}
	if got, err := b.Void(b.ctx, paymentsapi.VoidRequest{Key: "v", ID: pay.ID}); err != nil || got.State != paymentsapi.Voided {
		t.Fatalf("void: %s, %v", got.State, err)
	}
	var open struct{ Claimed, Waiting int64 }
	if err := b.DB.Get(t.Context(), &open, `SELECT p.capture_claimed AS claimed, count(c.key) AS waiting
		FROM payments.payments p LEFT JOIN payments.commands c ON c.payment = p.id AND c.state = 'initiated'
		WHERE p.id = $1 GROUP BY p.id`, pay.ID); err != nil {
		t.Fatal(err)
	}
	if open.Claimed != 0 || open.Waiting != 0 {
		t.Errorf("%d are claimed of nothing, and %d commands wait for ever", open.Claimed, open.Waiting)
	}
	if _, err := b.Capture(b.ctx, capture); !errs.Has(err, "capture_declined") {
		t.Errorf("the capture, asked for again: %v", err)
	}
}
