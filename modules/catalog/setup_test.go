package catalog

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// bench is a catalog in a database of its own.
type bench struct {
	*Module
	clock  *shoptest.Clock
	orders catalogapi.Catalog // as orders calls it
}

func setup(t testing.TB) bench {
	t.Helper()
	return setupOn(t, shoptest.DB(t, "catalog"))
}

func setupOn(t testing.TB, db *pg.DB) bench {
	clock := shoptest.NewClock()
	m := &Module{DB: db, Cursors: web.NewCursors([]byte("tests")), Log: slog.New(slog.DiscardHandler), Now: clock.Now, Config: Defaults()}
	m.Config.DemoProducts = 300
	server := rpc.NewServer("catalog")
	m.Serve(server)
	return bench{m, clock, catalogapi.Dial(rpc.Local("orders", server))}
}

func (b bench) stock(t testing.TB, sku string) (onHand, reserved int64) {
	t.Helper()
	rows, err := levelsAfter(t.Context(), b.DB, sku, "", 1)
	if err != nil || len(rows) != 1 {
		t.Fatalf("level of %s: %v %v", sku, rows, err)
	}
	return rows[0].OnHand, rows[0].Reserved
}

// addsUp fails the test unless every level is what its ledger and promises say.
func (b bench) addsUp(t testing.TB) {
	t.Helper()
	wrong, err := b.CheckStock(t.Context())
	if err != nil || len(wrong) > 0 {
		t.Fatalf("stock does not add up: %+v %v", wrong, err)
	}
}

func TestModule(t *testing.T) {
	t.Parallel()
	catalogtest.Suite(t, func(t *testing.T) catalogtest.Bench {
		b := setup(t)
		t.Cleanup(func() {
			if wrong, err := b.CheckStock(context.Background()); err != nil || len(wrong) > 0 {
				t.Errorf("stock does not add up: %+v %v", wrong, err)
			}
		})
		return catalogtest.Bench{Catalog: b.orders, Now: b.clock.Now, Stock: func(sku string) (int64, int64) { return b.stock(t, sku) },
			Advance: func(d time.Duration) {
				b.clock.Advance(d)
				if _, err := b.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			}}
	})
}
