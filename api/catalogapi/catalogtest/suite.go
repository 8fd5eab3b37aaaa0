package catalogtest

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Bench is an empty catalog under test, called as orders would call it.
type Bench struct {
	Catalog catalogapi.Catalog
	Now     func() time.Time
	Advance func(time.Duration)                       // turns the catalog's clock, and lets it do what is due
	Stock   func(sku string) (onHand, reserved int64) // what it holds
}

// Suite is what every catalog does, whatever it is made of.
func Suite(t *testing.T, setup func(t *testing.T) Bench) {
	euros := func(cents int64) money.Amount { return money.Of(cents, "EUR") }
	row := func(id string, cents, stock int64) catalogapi.ImportRow {
		return catalogapi.ImportRow{Line: 2, ExternalID: id, Name: "Mug " + id, Brand: "Tarn", Category: "Mugs", Description: "A mug.",
			Price: euros(cents), Stock: stock, WeightGrams: 300}
	}
	put := func(t *testing.T, b Bench, rows ...catalogapi.ImportRow) {
		t.Helper()
		res, err := b.Catalog.Import(t.Context(), catalogapi.ImportRequest{Rows: rows})
		if err != nil || len(res.Errors) > 0 {
			t.Fatalf("import: %v %v", err, res.Errors)
		}
	}
	of := func(sku string, n int64) catalogapi.Quantity { return catalogapi.Quantity{SKU: sku, Quantity: n} }
	reserve := func(b Bench, key string, checkout ids.ID, lines ...catalogapi.Quantity) (catalogapi.Reservation, error) {
		return b.Catalog.Reserve(context.Background(), catalogapi.ReserveRequest{Key: key, Checkout: checkout, Lines: lines,
			Until: b.Now().Add(15 * time.Minute).UTC()})
	}
	allocate := func(b Bench, key string, checkout, order ids.ID, lines ...catalogapi.Quantity) (catalogapi.Allocation, error) {
		return b.Catalog.Allocate(context.Background(), catalogapi.AllocateRequest{Key: key, Checkout: checkout, Order: order, Lines: lines})
	}
	expect := func(t *testing.T, b Bench, sku string, onHand, reserved int64) {
		t.Helper()
		if h, r := b.Stock(sku); h != onHand || r != reserved {
			t.Errorf("%s has %d on hand and %d reserved, want %d and %d", sku, h, r, onHand, reserved)
		}
	}
	short := func(t *testing.T, err error, want ...catalogapi.Shortage) {
		t.Helper()
		var got catalogapi.Shortages
		if !errs.Is(err, errs.Conflict) || !errs.Has(err, "insufficient_stock") || !errs.DetailsInto(err, &got) {
			t.Fatalf("got %v, want insufficient_stock with details", err)
		}
		if d := cmp.Diff(want, got.Lines); d != "" {
			t.Errorf("shortages (-want +got):\n%s", d)
		}
	}
	test := func(name string, f func(t *testing.T, b Bench)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, setup(t))
		})
	}

	test("imports, and tells of what was imported", func(t *testing.T, b Bench) {
		put(t, b, row("A", 1250, 7), row("B", 990, 0))
		got, err := b.Catalog.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{"A", "B", "C", "A"}, Currency: "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		want := []catalogapi.Offer{
			{SKU: "A", Name: "Mug A", Price: euros(1250), TaxClass: "standard", WeightGrams: 300, Available: 7},
			{SKU: "B", Name: "Mug B", Price: euros(990), TaxClass: "standard", WeightGrams: 300},
		}
		less := func(a, b catalogapi.Offer) bool { return a.SKU < b.SKU }
		if d := cmp.Diff(want, got.Offers, cmpopts.IgnoreFields(catalogapi.Offer{}, "Product"), cmpopts.SortSlices(less)); d != "" {
			t.Errorf("offers (-want +got):\n%s", d)
		}
		none, err := b.Catalog.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{"A"}, Currency: "USD"})
		if err != nil || len(none.Offers) != 0 {
			t.Errorf("in a currency without a price there are %d offers, %v", len(none.Offers), err)
		}
		id := got.Offers[0].Product
		cards, err := b.Catalog.Products(t.Context(), catalogapi.ProductsRequest{IDs: []catalogapi.ProductID{id, "prd_unknown"}})
		if err != nil || len(cards.Products) != 1 || cards.Products[0].ID != id {
			t.Errorf("products by id: %v, %v", cards, err)
		}
		p, err := b.Catalog.Product(t.Context(), catalogapi.ProductRequest{Ref: string(id)})
		if err != nil || len(p.Variants) != 1 || p.Variants[0].SKU != got.Offers[0].SKU {
			t.Errorf("product by id: %v, %v", p, err)
		}
		if again, err := b.Catalog.Product(t.Context(), catalogapi.ProductRequest{Ref: p.Slug}); err != nil || again.ID != id {
			t.Errorf("product by slug: %v, %v", again, err)
		}
		if _, err := b.Catalog.Product(t.Context(), catalogapi.ProductRequest{Ref: "nothing"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("unknown product: %v", err)
		}
	})

	test("leaves a repeated import alone and reports wrong rows", func(t *testing.T, b Bench) {
		bad := row("", 1, 1)
		bad.Line = 9
		rows := []catalogapi.ImportRow{row("A", 100, 1), row("B", 100, 1), bad}
		var got []catalogapi.ImportResult
		for _, dry := range []bool{true, false, false} {
			res, err := b.Catalog.Import(t.Context(), catalogapi.ImportRequest{Rows: rows, DryRun: dry})
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, res)
		}
		rows[0].Stock, rows[1].Price = 5, euros(150)
		res, err := b.Catalog.Import(t.Context(), catalogapi.ImportRequest{Rows: rows})
		if err != nil {
			t.Fatal(err)
		}
		wrong := []catalogapi.RowError{{Line: 9, Column: "external_id", Code: "required", Message: "the column is empty"}}
		want := []catalogapi.ImportResult{{Created: 2, Errors: wrong}, {Created: 2, Errors: wrong}, {Unchanged: 2, Errors: wrong}, {Updated: 2, Errors: wrong}}
		if d := cmp.Diff(want, append(got, res)); d != "" {
			t.Errorf("results (-want +got):\n%s", d)
		}
		expect(t, b, "A", 5, 0)
	})

	test("reserves all lines or none, and sums lines of one SKU", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5), row("B", 100, 1))
		_, err := reserve(b, "k1", "chk_1", of("B", 2), of("A", 3), of("A", 3), of("C", 1))
		short(t, err, catalogapi.Shortage{SKU: "A", Requested: 6, Available: 5}, catalogapi.Shortage{SKU: "B", Requested: 2, Available: 1},
			catalogapi.Shortage{SKU: "C", Requested: 1})
		expect(t, b, "A", 5, 0)
		expect(t, b, "B", 1, 0)
		held, err := reserve(b, "k2", "chk_1", of("B", 1), of("A", 2), of("A", 3))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff([]catalogapi.Quantity{of("A", 5), of("B", 1)}, held.Lines); d != "" {
			t.Errorf("lines (-want +got):\n%s", d)
		}
		expect(t, b, "A", 5, 5)
		_, err = reserve(b, "k3", "chk_2", of("A", 1))
		short(t, err, catalogapi.Shortage{SKU: "A", Requested: 1})
		for _, lines := range [][]catalogapi.Quantity{nil, {of("A", 0)}, {of("A", -1)}, {of("", 1)}} {
			if _, err := reserve(b, "k4", "chk_3", lines...); !errs.Is(err, errs.Invalid) {
				t.Errorf("reserving %v: %v, want invalid", lines, err)
			}
		}
	})

	test("answers a repeated key as before and refuses it for another request", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5))
		first, err := reserve(b, "k", "chk_1", of("A", 2))
		if err != nil {
			t.Fatal(err)
		}
		again, err := reserve(b, "k", "chk_1", of("A", 2))
		if err != nil || !first.Until.Equal(again.Until) || !cmp.Equal(first.Lines, again.Lines) {
			t.Errorf("the repeat gave %v, %v, the first %v", again, err, first)
		}
		if _, err := reserve(b, "k", "chk_1", of("A", 3)); !errs.Has(err, "key_reused") {
			t.Errorf("another request with the key: %v", err)
		}
		expect(t, b, "A", 5, 2)
	})

	test("replaces what a checkout holds when it asks with a new key", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5), row("B", 100, 5))
		for key, lines := range map[string][]catalogapi.Quantity{"k1": {of("A", 4)}} {
			if _, err := reserve(b, key, "chk_1", lines...); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := reserve(b, "k2", "chk_1", of("A", 5), of("B", 1)); err != nil {
			t.Fatal(err)
		}
		expect(t, b, "A", 5, 5)
		expect(t, b, "B", 5, 1)
	})

	test("releases once", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5), row("B", 100, 5))
		if _, err := reserve(b, "k", "chk_1", of("A", 2), of("B", 1)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []bool{true, false} {
			got, err := b.Catalog.Release(t.Context(), catalogapi.ReleaseRequest{Checkout: "chk_1"})
			if err != nil || got.Released != want {
				t.Errorf("released %v, %v, want %v", got, err, want)
			}
		}
		expect(t, b, "A", 5, 0)
		expect(t, b, "B", 5, 0)
	})

	test("frees a reservation that lapsed, and extends one that lives", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5))
		for key, checkout := range map[string]ids.ID{"k1": "chk_1", "k2": "chk_2"} {
			if _, err := reserve(b, key, checkout, of("A", 2)); err != nil {
				t.Fatal(err)
			}
		}
		held, err := b.Catalog.Extend(t.Context(), catalogapi.ExtendRequest{Checkout: "chk_2", Until: b.Now().Add(time.Hour)})
		if err != nil || !cmp.Equal(held.Lines, []catalogapi.Quantity{of("A", 2)}) || !held.Until.Equal(b.Now().Add(time.Hour)) {
			t.Errorf("extended to %v, %v", held, err)
		}
		held, err = b.Catalog.Extend(t.Context(), catalogapi.ExtendRequest{Checkout: "chk_2", Until: b.Now()})
		if err != nil || !held.Until.Equal(b.Now().Add(time.Hour)) {
			t.Errorf("extended to an earlier time: %v, %v", held, err)
		}
		b.Advance(16 * time.Minute)
		if _, err := b.Catalog.Extend(t.Context(), catalogapi.ExtendRequest{Checkout: "chk_1", Until: b.Now().Add(time.Hour)}); !errs.Is(err, errs.NotFound) {
			t.Errorf("extended a lapsed reservation: %v", err)
		}
		expect(t, b, "A", 5, 2)
	})

	test("turns a reservation into an allocation", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5), row("B", 100, 5))
		if _, err := reserve(b, "k1", "chk_1", of("A", 5), of("B", 2)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := allocate(b, "k2", "chk_1", "ord_1", of("B", 2), of("A", 5))
			if err != nil || !cmp.Equal(got, catalogapi.Allocation{Order: "ord_1", Lines: []catalogapi.Quantity{of("A", 5), of("B", 2)}}) {
				t.Errorf("allocated %v, %v", got, err)
			}
		}
		expect(t, b, "A", 5, 5)
		if got, err := b.Catalog.Release(t.Context(), catalogapi.ReleaseRequest{Checkout: "chk_1"}); err != nil || got.Released {
			t.Errorf("released what was allocated: %v, %v", got, err)
		}
		b.Advance(time.Hour)
		expect(t, b, "A", 5, 5)
	})

	test("reserves again for an order whose reservation lapsed", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5))
		if _, err := reserve(b, "k1", "chk_1", of("A", 4)); err != nil {
			t.Fatal(err)
		}
		b.Advance(16 * time.Minute)
		if _, err := reserve(b, "k2", "chk_2", of("A", 2)); err != nil {
			t.Fatal(err)
		}
		_, err := allocate(b, "k3", "chk_1", "ord_1", of("A", 4))
		short(t, err, catalogapi.Shortage{SKU: "A", Requested: 4, Available: 3})
		expect(t, b, "A", 5, 2)
		if _, err := b.Catalog.Release(t.Context(), catalogapi.ReleaseRequest{Checkout: "chk_2"}); err != nil {
			t.Fatal(err)
		}
		if _, err := allocate(b, "k3", "chk_1", "ord_1", of("A", 4)); err != nil {
			t.Errorf("with the stock back: %v", err)
		}
		expect(t, b, "A", 5, 4)
	})

	test("allocates more or less than was reserved by the difference", func(t *testing.T, b Bench) {
		put(t, b, row("A", 100, 5), row("B", 100, 5), row("C", 100, 5))
		if _, err := reserve(b, "k1", "chk_1", of("A", 4), of("B", 1)); err != nil {
			t.Fatal(err)
		}
		_, err := allocate(b, "k2", "chk_1", "ord_1", of("A", 6), of("C", 1))
		short(t, err, catalogapi.Shortage{SKU: "A", Requested: 6, Available: 5})
		if _, err := allocate(b, "k3", "chk_1", "ord_1", of("A", 2), of("C", 3)); err != nil {
			t.Fatal(err)
		}
		expect(t, b, "A", 5, 2)
		expect(t, b, "B", 5, 0)
		expect(t, b, "C", 5, 3)
	})
}
