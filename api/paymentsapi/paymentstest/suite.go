package paymentstest

import (
	"context"
	"sync"
	"testing"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Suite is what every Payments must do. fresh gives one, and a context in which orders is calling.
func Suite(t *testing.T, fresh func(t *testing.T) (context.Context, paymentsapi.Payments)) {
	eur := func(minor int64) money.Amount { return money.Of(minor, "EUR") }
	authorize := func(t *testing.T, ctx context.Context, p paymentsapi.Payments, token string) paymentsapi.Payment {
		t.Helper()
		got, err := p.Authorize(ctx, request(token))
		if err != nil {
			t.Fatalf("authorize %s: %v", token, err)
		}
		return got
	}

	t.Run("tokens lead to their states", func(t *testing.T) {
		for token, want := range map[string]paymentsapi.State{
			"tok_approve": paymentsapi.Authorised, "tok_decline": paymentsapi.Failed,
			"tok_3ds": paymentsapi.ActionRequired, "tok_timeout": paymentsapi.Unknown,
		} {
			ctx, p := fresh(t)
			got := authorize(t, ctx, p, token)
			if got.State != want {
				t.Errorf("%s: state %s, want %s", token, got.State, want)
			}
			if (got.NextAction.URL != "") != (want == paymentsapi.ActionRequired) {
				t.Errorf("%s: next action %+v", token, got.NextAction)
			}
			if (got.DeclineCode != "") != (want == paymentsapi.Failed) {
				t.Errorf("%s: decline code %q", token, got.DeclineCode)
			}
		}
	})
	t.Run("no answer is found out by asking", func(t *testing.T) {
		ctx, p := fresh(t)
		got := authorize(t, ctx, p, "tok_timeout")
		got, err := p.Payment(ctx, paymentsapi.PaymentRequest{ID: got.ID})
		if err != nil || got.State != paymentsapi.Authorised {
			t.Fatalf("state %s, err %v", got.State, err)
		}
	})
	t.Run("the same key is the same payment", func(t *testing.T) {
		ctx, p := fresh(t)
		r := request("tok_approve")
		first, err := p.Authorize(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := p.Authorize(ctx, r)
		if err != nil || again != first {
			t.Errorf("repeat: %+v, %v; want %+v", again, err, first)
		}
		r.Amount.Minor++
		if _, err := p.Authorize(ctx, r); !errs.Has(err, "key_reused") {
			t.Errorf("other amount under the key: %v", err)
		}
		r.Amount.Minor--
		r.Key = ids.New[string]("key")
		if _, err := p.Authorize(ctx, r); !errs.Has(err, "payment_active") {
			t.Errorf("second payment of the checkout: %v", err)
		}
	})
	t.Run("after a decline another method can be tried", func(t *testing.T) {
		ctx, p := fresh(t)
		r := request("tok_decline")
		if _, err := p.Authorize(ctx, r); err != nil {
			t.Fatal(err)
		}
		r.Token, r.Key = "tok_approve", ids.New[string]("key")
		if got, err := p.Authorize(ctx, r); err != nil || got.State != paymentsapi.Authorised {
			t.Errorf("second method: %+v, %v", got, err)
		}
	})
	t.Run("captures and refunds keep to their limits", func(t *testing.T) {
		ctx, p := fresh(t)
		pay := authorize(t, ctx, p, "tok_approve")
		if _, err := p.Refund(ctx, paymentsapi.RefundRequest{Key: "r0", ID: pay.ID, Amount: eur(1)}); !errs.Has(err, "refund_exceeds_captured") {
			t.Errorf("refund before capture: %v", err)
		}
		for _, amount := range []int64{0, -5} {
			if _, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: "zero", ID: pay.ID, Amount: eur(amount)}); !errs.Is(err, errs.Invalid) {
				t.Errorf("capture of %d: %v", amount, err)
			}
			if _, err := p.Refund(ctx, paymentsapi.RefundRequest{Key: "zero", ID: pay.ID, Amount: eur(amount)}); !errs.Is(err, errs.Invalid) {
				t.Errorf("refund of %d: %v", amount, err)
			}
		}
		for range 2 { // the repeat takes nothing more
			got, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: "c1", ID: pay.ID, Amount: eur(600)})
			if err != nil || got.State != paymentsapi.Captured || got.Captured != eur(600) {
				t.Fatalf("capture: %+v, %v", got, err)
			}
		}
		if _, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: "c2", ID: pay.ID, Amount: eur(401)}); !errs.Has(err, "capture_exceeds_authorised") {
			t.Errorf("capture beyond the limit: %v", err)
		}
		for range 2 {
			got, err := p.Refund(ctx, paymentsapi.RefundRequest{Key: "r1", ID: pay.ID, Amount: eur(600)})
			if err != nil || got.State != paymentsapi.Refunded || got.Refunded != eur(600) {
				t.Fatalf("refund: %+v, %v", got, err)
			}
		}
		if _, err := p.Refund(ctx, paymentsapi.RefundRequest{Key: "r2", ID: pay.ID, Amount: eur(1)}); !errs.Has(err, "refund_exceeds_captured") {
			t.Errorf("refund beyond the limit: %v", err)
		}
	})
	t.Run("concurrent captures and refunds never pass the limit", func(t *testing.T) {
		ctx, p := fresh(t)
		pay := authorize(t, ctx, p, "tok_approve")
		race := func(f func(key string) error) (won int) {
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range 16 {
				wg.Go(func() {
					if f(ids.New[string]("key")) == nil {
						mu.Lock()
						won++
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			return won
		}
		if won := race(func(key string) error {
			_, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: key, ID: pay.ID, Amount: eur(300)})
			return err
		}); won != 3 {
			t.Errorf("%d of 16 captures of 300 out of 1000 went through, want 3", won)
		}
		if won := race(func(key string) error {
			_, err := p.Refund(ctx, paymentsapi.RefundRequest{Key: key, ID: pay.ID, Amount: eur(200)})
			return err
		}); won != 4 {
			t.Errorf("%d of 16 refunds of 200 out of 900 went through, want 4", won)
		}
	})
	t.Run("void gives the hold back, but not what was captured", func(t *testing.T) {
		ctx, p := fresh(t)
		pay := authorize(t, ctx, p, "tok_3ds")
		for range 2 {
			if got, err := p.Void(ctx, paymentsapi.VoidRequest{Key: "v1", ID: pay.ID}); err != nil || got.State != paymentsapi.Voided {
				t.Fatalf("void: %+v, %v", got, err)
			}
		}
		if _, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: "c1", ID: pay.ID, Amount: eur(1)}); !errs.Has(err, "not_capturable") {
			t.Errorf("capture of a void payment: %v", err)
		}
		pay = authorize(t, ctx, p, "tok_approve")
		if _, err := p.Capture(ctx, paymentsapi.CaptureRequest{Key: "c2", ID: pay.ID, Amount: eur(1000)}); err != nil {
			t.Fatal(err)
		}
		if got, err := p.Void(ctx, paymentsapi.VoidRequest{Key: "v2", ID: pay.ID}); err != nil || got.State != paymentsapi.Captured {
			t.Errorf("void of captured money: %+v, %v", got, err)
		}
	})
	t.Run("payments are found by order, unknown ones are not", func(t *testing.T) {
		ctx, p := fresh(t)
		r := request("tok_approve")
		if _, err := p.Authorize(ctx, r); err != nil {
			t.Fatal(err)
		}
		list, err := p.ByOrder(ctx, paymentsapi.ByOrderRequest{Orders: []ids.ID{r.Order, "ord_none"}})
		if err != nil || len(list.Payments) != 1 || list.Payments[0].Order != r.Order {
			t.Errorf("by order: %+v, %v", list, err)
		}
		if _, err := p.Payment(ctx, paymentsapi.PaymentRequest{ID: "pay_none"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("unknown payment: %v", err)
		}
	})
	t.Run("what makes no sense is refused", func(t *testing.T) {
		ctx, p := fresh(t)
		r := request("tok_nonsense")
		if _, err := p.Authorize(ctx, r); !errs.Is(err, errs.Invalid) {
			t.Errorf("unknown token: %v", err)
		}
		r = request("tok_approve")
		r.Amount.Minor = 0
		if _, err := p.Authorize(ctx, r); !errs.Is(err, errs.Invalid) {
			t.Errorf("nothing to pay: %v", err)
		}
	})
}

// request asks for 10.00 EUR for a checkout of its own.
func request(token string) paymentsapi.AuthorizeRequest {
	return paymentsapi.AuthorizeRequest{
		Key: ids.New[string]("key"), Checkout: ids.New[ids.ID]("chk"), Order: ids.New[ids.ID]("ord"),
		Amount: money.Of(1000, "EUR"), Provider: "simulator", Token: token,
	}
}
