package users

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestMetricsTellOfPeopleWhoTryToBeSomebodyElse(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := prometheus.NewRegistry()
	b.Metrics = newMetrics(registry)
	first, err := b.register(t.Context(), "eve@example.com", password, "Eve")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.login(t.Context(), "eve@example.com", password, "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	for range freeByAccount + 1 {
		if _, err := b.login(t.Context(), "eve@example.com", "wrong", "192.0.2.1"); !errs.Has(err, "invalid_credentials") {
			t.Fatalf("wrong password: %v", err)
		}
	}
	if _, err := b.login(t.Context(), "eve@example.com", password, "192.0.2.1"); !errs.Has(err, "login_delayed") {
		t.Fatalf("after too many: %v", err)
	}
	second, err := b.refresh(t.Context(), first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.refresh(t.Context(), second.RefreshToken); err != nil {
		t.Fatal(err)
	}
	if _, err := b.refresh(t.Context(), first.RefreshToken); !errs.Has(err, "invalid_refresh_token") {
		t.Fatalf("an old token: %v", err)
	}
	for outcome, want := range map[string]float64{"ok": 1, "wrong": freeByAccount + 1, "delayed": 1} {
		if got := shoptest.Metric(t, registry, "banyan_users_logins_total", outcome); got != want {
			t.Errorf("%v logins %s, want %v", got, outcome, want)
		}
	}
	if got := shoptest.Metric(t, registry, "banyan_users_refresh_reuse_total"); got != 1 {
		t.Errorf("%v sessions ended by an old token, want 1", got)
	}
}
