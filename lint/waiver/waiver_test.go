package waiver_test

import (
	"testing"
	"time"

	"github.com/banyan-shop/banyan/lint/linttest"
	"github.com/banyan-shop/banyan/lint/waiver"
)

func TestWaivers(t *testing.T) {
	linttest.Run(t, waiver.NewAnalyzer("boundary"), "shop/modules/orders")
}

func TestAWaiverHoldsToTheEndOfItsDay(t *testing.T) {
	t.Parallel()
	w, ok, err := waiver.Parse("shop:allow boundary until=2027-01-31 owner=@orders until the move")
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	for at, want := range map[string]bool{"2027-01-31T23:59:59Z": false, "2027-02-01T00:00:00Z": true} {
		now, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.Expired(now); got != want {
			t.Errorf("expired at %s: %v, want %v", at, got, want)
		}
	}
}
