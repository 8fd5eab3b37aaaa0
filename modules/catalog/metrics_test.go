package catalog

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestMetricsTellOfStockThatDoesNotAddUp(t *testing.T) {
	t.Parallel()
	b := setup(t)
	registry := prometheus.NewRegistry()
	b.Metrics = newMetrics(registry)
	b.put(t, 3, "A")
	add := func(n int) {
		t.Helper()
		err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE catalog.levels SET on_hand = on_hand + $1 WHERE sku = 'A'`, n)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		b.checkStock(t.Context())
	}
	if at := shoptest.Metric(t, registry, "banyan_catalog_stock_checked_timestamp_seconds"); at != 0 {
		t.Errorf("checked at %v before the first time", at)
	}
	add(1)
	if got := shoptest.Metric(t, registry, "banyan_catalog_stock_mismatches"); got != 1 {
		t.Errorf("%v mismatches with one unit from nowhere", got)
	}
	add(-1)
	if got := shoptest.Metric(t, registry, "banyan_catalog_stock_mismatches"); got != 0 {
		t.Errorf("%v mismatches after it was mended", got)
	}
	if at := shoptest.Metric(t, registry, "banyan_catalog_stock_checked_timestamp_seconds"); at == 0 {
		t.Error("the time of the check is not told")
	}
}
