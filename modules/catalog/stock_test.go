package catalog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// put makes one product a SKU.
func (b bench) put(t testing.TB, stock int64, skus ...string) {
	t.Helper()
	rows := make([]catalogapi.ImportRow, len(skus))
	for i, sku := range skus {
		rows[i] = catalogapi.ImportRow{Line: int64(i + 2), ExternalID: sku, Name: "Thing " + sku, Category: "Things",
			Price: money.Of(100, "EUR"), Stock: stock}
	}
	for batch := range slices.Chunk(rows, catalogapi.MaxImportRows) {
		if res, err := b.Import(t.Context(), catalogapi.ImportRequest{Rows: batch}); err != nil || len(res.Errors) > 0 {
			t.Fatalf("put %v: %v %v", skus, err, res.Errors)
		}
	}
}

func (b bench) hold(key string, checkout ids.ID, lines ...catalogapi.Quantity) error {
	_, err := b.orders.Reserve(context.Background(), catalogapi.ReserveRequest{Key: key, Checkout: checkout, Lines: lines,
		Until: b.Now().Add(15 * time.Minute)})
	return err
}

func (b bench) keep(key string, checkout, order ids.ID, lines ...catalogapi.Quantity) error {
	_, err := b.orders.Allocate(context.Background(), catalogapi.AllocateRequest{Key: key, Checkout: checkout, Order: order, Lines: lines})
	return err
}

// parallelDB is a pool wide enough for buyers to meet in the database and not before it.
func parallelDB(t testing.TB, conns int) *pg.DB {
	c := shoptest.Config(t, "catalog")
	c.MaxConns = conns
	c.TxTimeout = 30 * time.Second
	return shoptest.Open(t, c)
}

// T1: many buyers want the last few of several SKUs, each in an order of his own.
func TestSixtyFourBuyersOfTheLastTen(t *testing.T) {
	t.Parallel()
	const buyers, left, kinds = 64, 10, 5
	b := setupOn(t, parallelDB(t, 16))
	var skus []string
	for i := range kinds {
		skus = append(skus, fmt.Sprintf("SKU-%d", i))
	}
	b.put(t, left, skus...)
	var sold [kinds]atomic.Int64
	var work sync.WaitGroup
	for buyer := range buyers {
		work.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(buyer)))
			mine := slices.Clone(skus)
			r.Shuffle(kinds, func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
			mine = mine[:1+r.IntN(kinds)]
			var lines []catalogapi.Quantity
			for _, sku := range mine {
				lines = append(lines, catalogapi.Quantity{SKU: sku, Quantity: 1})
			}
			checkout := ids.ID(fmt.Sprintf("chk_%d", buyer))
			switch err := b.hold("hold "+string(checkout), checkout, lines...); {
			case err == nil:
				for _, sku := range mine {
					sold[slices.Index(skus, sku)].Add(1)
				}
				if err := b.keep("keep "+string(checkout), checkout, "ord_"+checkout, lines...); err != nil {
					t.Errorf("%s has it reserved but not allocated: %v", checkout, err)
				}
			case !errs.Has(err, "insufficient_stock"):
				t.Errorf("%s: %v", checkout, err)
			}
		})
	}
	work.Wait()
	for i, sku := range skus {
		if _, reserved := b.stock(t, sku); reserved != sold[i].Load() || reserved > left {
			t.Errorf("%s: %d reserved, %d sold of %d", sku, reserved, sold[i].Load(), left)
		}
		// Whoever still wants one gets it, until none is left: nothing was lost between the buyers.
		for n := sold[i].Load(); n < left; n++ {
			if err := b.hold(fmt.Sprint("late ", sku, n), ids.ID(fmt.Sprint("chk_late_", sku, n)), catalogapi.Quantity{SKU: sku, Quantity: 1}); err != nil {
				t.Errorf("the %dth of %s: %v", n+1, sku, err)
			}
		}
		if err := b.hold("too late "+sku, ids.ID("chk_too_late_"+sku), catalogapi.Quantity{SKU: sku, Quantity: 1}); !errs.Has(err, "insufficient_stock") {
			t.Errorf("one more of %s: %v", sku, err)
		}
	}
	b.addsUp(t)
}

// T2: two lines of one SKU never exceed its stock together.
func TestTwoLinesOfOneSKU(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 5, "A")
	of := func(n int64) catalogapi.Quantity { return catalogapi.Quantity{SKU: "A", Quantity: n} }
	if err := b.hold("k1", "chk_1", of(3), of(3)); !errs.Has(err, "insufficient_stock") {
		t.Errorf("3 + 3 of 5: %v", err)
	}
	if err := b.hold("k2", "chk_1", of(3), of(2)); err != nil {
		t.Errorf("3 + 2 of 5: %v", err)
	}
	if err := b.keep("k3", "chk_1", "ord_1", of(3), of(3)); !errs.Has(err, "insufficient_stock") {
		t.Errorf("an order of 3 + 3: %v", err)
	}
	if err := b.keep("k4", "chk_1", "ord_1", of(2), of(3)); err != nil {
		t.Errorf("an order of 2 + 3: %v", err)
	}
	b.addsUp(t)
}

// T3: whatever is done in whatever order, levels are what the ledger and the promises add up to, and never negative.
func TestRandomLifeOfStock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	skus := []string{"A", "B", "C"}
	b.put(t, 20, skus...)
	n := 0
	next := func() string { n++; return fmt.Sprint(n) }
	rapid.Check(t, func(rt *rapid.T) {
		lines := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) catalogapi.Quantity {
			return catalogapi.Quantity{SKU: rapid.SampledFrom(skus).Draw(rt, "sku"), Quantity: rapid.Int64Range(1, 6).Draw(rt, "quantity")}
		}), 1, 4)
		var checkouts, orders []ids.ID
		one := func(from []ids.ID, label string) ids.ID {
			if len(from) == 0 {
				return "none"
			}
			return rapid.SampledFrom(from).Draw(rt, label)
		}
		must := func(err error) {
			if err != nil && !errs.Has(err, "insufficient_stock") && !errs.Is(err, errs.NotFound) && !errs.Has(err, "already_allocated") {
				rt.Fatal(err)
			}
		}
		inTx := func(f func(tx *pg.Tx) error) { must(b.DB.InTx(context.Background(), f)) }
		rt.Repeat(map[string]func(*rapid.T){
			"reserve": func(rt *rapid.T) {
				checkout := ids.ID("chk_" + next())
				if rapid.Bool().Draw(rt, "again") {
					checkout = one(checkouts, "checkout")
				}
				checkouts = append(checkouts, checkout)
				must(b.hold(next(), checkout, lines.Draw(rt, "lines")...))
			},
			"extend": func(rt *rapid.T) {
				_, err := b.orders.Extend(context.Background(), catalogapi.ExtendRequest{Checkout: one(checkouts, "checkout"), Until: b.Now().Add(time.Hour)})
				must(err)
			},
			"release": func(rt *rapid.T) {
				_, err := b.orders.Release(context.Background(), catalogapi.ReleaseRequest{Checkout: one(checkouts, "checkout")})
				must(err)
			},
			"expire": func(rt *rapid.T) {
				b.clock.Advance(time.Duration(rapid.IntRange(0, 20).Draw(rt, "minutes")) * time.Minute)
				_, err := b.Sweep(context.Background())
				must(err)
			},
			"allocate": func(rt *rapid.T) {
				order := ids.ID("ord_" + next())
				orders = append(orders, order)
				must(b.keep(next(), one(checkouts, "checkout"), order, lines.Draw(rt, "lines")...))
			},
			"ship": func(rt *rapid.T) {
				e := shippingapi.ShipmentShipped{Shipment: shippingapi.ShipmentID("shp_" + next()), Order: one(orders, "order")}
				for _, l := range lines.Draw(rt, "lines") {
					e.Lines = append(e.Lines, shippingapi.Line{SKU: l.SKU, Quantity: l.Quantity})
				}
				// What was never allocated and is not there can't be shipped: such an event is parked, and changes nothing.
				_ = b.DB.InTx(context.Background(), func(tx *pg.Tx) error { return b.onShipmentShipped(context.Background(), tx, e) })
			},
			"cancel": func(rt *rapid.T) {
				e := ordersapi.OrderCancelled{Order: ordersapi.ID(one(orders, "order")), Cancellation: ids.ID("can_" + next()),
					Allocated: rapid.Bool().Draw(rt, "allocated"), Restock: rapid.Bool().Draw(rt, "restock")}
				for _, l := range lines.Draw(rt, "lines") {
					e.Lines = append(e.Lines, ordersapi.CancelLine{SKU: l.SKU, Quantity: l.Quantity})
				}
				inTx(func(tx *pg.Tx) error { return b.onOrderCancelled(context.Background(), tx, e) })
			},
			"adjust": func(rt *rapid.T) {
				delta := rapid.Int64Range(-5, 10).Filter(func(n int64) bool { return n != 0 }).Draw(rt, "delta")
				_, err := b.adjust(context.Background(), rapid.SampledFrom(skus).Draw(rt, "sku"), delta, "count")
				must(err)
			},
			"import": func(rt *rapid.T) {
				_, err := b.Import(context.Background(), catalogapi.ImportRequest{Rows: []catalogapi.ImportRow{{Line: 2, ExternalID: "A", Name: "Thing A",
					Category: "Things", Price: money.Of(100, "EUR"), Stock: rapid.Int64Range(0, 30).Draw(rt, "stock")}}})
				must(err)
			},
			"": func(rt *rapid.T) {
				wrong, err := b.CheckStock(context.Background())
				if err != nil || len(wrong) > 0 {
					rt.Fatalf("stock does not add up: %+v %v", wrong, err)
				}
			},
		})
	})
}

// Sweeper, allocation, extension and release meet at one reservation: one of them has it, and nothing is freed or kept twice.
func TestSweepAgainstThoseWhoStillWantIt(t *testing.T) {
	t.Parallel()
	b := setupOn(t, parallelDB(t, 8))
	const rounds = 60
	b.put(t, 1000, "A", "B")
	lines := []catalogapi.Quantity{{SKU: "A", Quantity: 2}, {SKU: "B", Quantity: 1}}
	for i := range rounds {
		if err := b.hold(fmt.Sprint("hold ", i), ids.ID(fmt.Sprint("chk_", i)), lines...); err != nil {
			t.Fatal(err)
		}
	}
	b.clock.Advance(15 * time.Minute)
	var allocated atomic.Int64
	var work sync.WaitGroup
	for i := range rounds {
		checkout := ids.ID(fmt.Sprint("chk_", i))
		work.Go(func() {
			if err := b.keep(fmt.Sprint("keep ", i), checkout, "ord_"+checkout, lines...); err != nil {
				t.Error(err)
			}
			allocated.Add(1)
		})
		if i%3 == 0 {
			work.Go(func() {
				if _, err := b.Sweep(context.Background()); err != nil {
					t.Error(err)
				}
			})
		}
		if i%5 == 0 {
			work.Go(func() {
				if _, err := b.orders.Release(context.Background(), catalogapi.ReleaseRequest{Checkout: checkout}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	work.Wait()
	b.addsUp(t)
	if _, reserved := b.stock(t, "A"); reserved != 2*allocated.Load() {
		t.Errorf("%d reserved for %d orders of 2", reserved, allocated.Load())
	}
}

func TestWhatBecomesOfAnOrdersGoods(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		event            func(b bench, tx *pg.Tx) error
		onHand, reserved int64
	}{
		"shipped": {func(b bench, tx *pg.Tx) error {
			return b.onShipmentShipped(context.Background(), tx, shippingapi.ShipmentShipped{Shipment: "shp_1", Order: "ord_1", Lines: []shippingapi.Line{{SKU: "A", Quantity: 4}}})
		}, 6, 0},
		"shipped in part": {func(b bench, tx *pg.Tx) error {
			return b.onShipmentShipped(context.Background(), tx, shippingapi.ShipmentShipped{Shipment: "shp_1", Order: "ord_1", Lines: []shippingapi.Line{{SKU: "A", Quantity: 1}, {SKU: "A", Quantity: 2}}})
		}, 7, 1},
		"shipped though nothing was allocated": {func(b bench, tx *pg.Tx) error {
			return b.onShipmentShipped(context.Background(), tx, shippingapi.ShipmentShipped{Shipment: "shp_1", Order: "ord_unknown", Lines: []shippingapi.Line{{SKU: "A", Quantity: 3}}})
		}, 7, 4},
		"cancelled": {func(b bench, tx *pg.Tx) error {
			return b.onOrderCancelled(context.Background(), tx, ordersapi.OrderCancelled{Order: "ord_1", Cancellation: "can_1", Allocated: true, Restock: true, Lines: []ordersapi.CancelLine{{SKU: "A", Quantity: 4}}})
		}, 10, 0},
		"cancelled and lost": {func(b bench, tx *pg.Tx) error {
			return b.onOrderCancelled(context.Background(), tx, ordersapi.OrderCancelled{Order: "ord_1", Cancellation: "can_1", Allocated: true, Lines: []ordersapi.CancelLine{{SKU: "A", Quantity: 3}}})
		}, 7, 1},
		"cancelled before it was allocated": {func(b bench, tx *pg.Tx) error {
			return b.onOrderCancelled(context.Background(), tx, ordersapi.OrderCancelled{Order: "ord_1", Cancellation: "can_1", Restock: true, Lines: []ordersapi.CancelLine{{SKU: "A", Quantity: 3}}})
		}, 10, 4},
		"cancelled though nothing was allocated": {func(b bench, tx *pg.Tx) error {
			return b.onOrderCancelled(context.Background(), tx, ordersapi.OrderCancelled{Order: "ord_unknown", Cancellation: "can_1", Allocated: true, Lines: []ordersapi.CancelLine{{SKU: "A", Quantity: 3}}})
		}, 10, 4},
		"cancelled after it was shipped": {func(b bench, tx *pg.Tx) error {
			err := b.onShipmentShipped(context.Background(), tx, shippingapi.ShipmentShipped{Shipment: "shp_1", Order: "ord_1", Lines: []shippingapi.Line{{SKU: "A", Quantity: 3}}})
			if err != nil {
				return err
			}
			return b.onOrderCancelled(context.Background(), tx, ordersapi.OrderCancelled{Order: "ord_1", Cancellation: "can_1", Allocated: true, Restock: true, Lines: []ordersapi.CancelLine{{SKU: "A", Quantity: 4}}})
		}, 7, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.put(t, 10, "A")
			line := catalogapi.Quantity{SKU: "A", Quantity: 4}
			if err := b.hold("k1", "chk_1", line); err != nil {
				t.Fatal(err)
			}
			if err := b.keep("k2", "chk_1", "ord_1", line); err != nil {
				t.Fatal(err)
			}
			if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return c.event(b, tx) }); err != nil {
				t.Fatal(err)
			}
			if onHand, reserved := b.stock(t, "A"); onHand != c.onHand || reserved != c.reserved {
				t.Errorf("%d on hand, %d reserved, want %d and %d", onHand, reserved, c.onHand, c.reserved)
			}
			b.addsUp(t)
		})
	}
}

func TestNewestRatingStays(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 1, "A")
	p, err := b.Product(t.Context(), catalogapi.ProductRequest{Ref: "thing-a"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []reviewsapi.RatingChanged{{Count: 1, Sum: 5, Version: 1}, {Count: 3, Sum: 13, Version: 3}, {Count: 2, Sum: 9, Version: 2}} {
		e.Product = ids.ID(p.ID)
		if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return b.onRatingChanged(t.Context(), tx, e) }); err != nil {
			t.Fatal(err)
		}
	}
	if p, err = b.Product(t.Context(), catalogapi.ProductRequest{Ref: "thing-a"}); err != nil || p.Rating != (catalogapi.Rating{AverageHundredths: 433, Count: 3}) {
		t.Errorf("rating %v, %v, want 4.33 of 3", p.Rating, err)
	}
}

func TestTheLedgerIsOnlyAddedTo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 3, "A")
	for _, change := range []func(tx *pg.Tx) error{
		func(tx *pg.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE catalog.movements SET delta = 0`)
			return err
		},
		func(tx *pg.Tx) error { _, err := tx.Exec(t.Context(), `DELETE FROM catalog.movements`); return err },
	} {
		if err := b.DB.InTx(t.Context(), change); err == nil {
			t.Error("the ledger was changed")
		}
	}
	err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE catalog.levels SET reserved = on_hand + 1 WHERE sku = 'A'`)
		return err
	})
	if !pg.IsCheck(err, "never_oversold") {
		t.Errorf("reserving past the stock: %v", err)
	}
}

func TestOnlyOrdersTouchStock(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.put(t, 3, "A")
	line := []catalogapi.Quantity{{SKU: "A", Quantity: 1}}
	ctx := t.Context()
	calls := map[string]func() error{
		"reserve": func() error {
			_, err := b.Reserve(ctx, catalogapi.ReserveRequest{Key: "k", Checkout: "chk_1", Lines: line, Until: b.Now().Add(time.Hour)})
			return err
		},
		"extend":  func() error { _, err := b.Extend(ctx, catalogapi.ExtendRequest{Checkout: "chk_1"}); return err },
		"release": func() error { _, err := b.Release(ctx, catalogapi.ReleaseRequest{Checkout: "chk_1"}); return err },
		"allocate": func() error {
			_, err := b.Allocate(ctx, catalogapi.AllocateRequest{Key: "k", Checkout: "chk_1", Order: "ord_1", Lines: line})
			return err
		},
	}
	for name, call := range calls {
		if err := call(); !errs.Is(err, errs.Forbidden) {
			t.Errorf("%s by nobody: %v, want forbidden", name, err)
		}
	}
}
