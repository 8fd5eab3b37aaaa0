package orders

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestMetricsTellOfCheckoutsThatNeedSomebody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := prometheus.NewRegistry()
	b.Metrics = newMetrics(registry)
	down := true
	b.calls.before = func(method string) error {
		if down && method == "Capture" {
			return errs.Unavailablef("not now")
		}
		return nil
	}
	b.checkout(b.guestBasket(), "one", "tok_approve")
	b.work()
	b.exec(`UPDATE orders.checkouts SET next_at = now() - interval '90 seconds' WHERE next_at IS NOT NULL`)
	want := func(when, name string, want float64, labels ...string) {
		t.Helper()
		if got := shoptest.Metric(t, registry, name, labels...); got < want || got > want+10 {
			t.Errorf("%s: %s %v is %v, want %v", when, name, labels, got, want)
		}
	}
	if err := b.Module.count(t.Context()); err != nil {
		t.Fatal(err)
	}
	want("stuck", "banyan_orders_open", 1, "checkout")
	want("stuck", "banyan_orders_attention", 1, "checkout")
	want("stuck", "banyan_orders_overdue_seconds", 90, "checkout")
	want("stuck", "banyan_orders_overdue_seconds", 0, "cancellation")
	want("stuck", "banyan_orders_checkouts_total", 0, "placed")

	down = false
	b.work()
	if err := b.Module.count(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := shoptest.Metric(t, registry, "banyan_orders_attention", "checkout"); got != 0 {
		t.Errorf("finished: %v need attention", got)
	}
	if got := shoptest.Metric(t, registry, "banyan_orders_overdue_seconds", "checkout"); got != 0 {
		t.Errorf("finished: overdue by %v s", got)
	}
	want("finished", "banyan_orders_checkouts_total", 1, "placed")
}
