package storefront

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/cartapi/carttest"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/ordersapi/orderstest"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/paymentsapi/paymentstest"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi/reviewstest"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/shippingapi/shippingtest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// bundle is a storefront among fakes that hold a mug, a cart with it, and an order of Ann's that is paid and on its way.
type bundle struct {
	*Module
	mug   catalogapi.ProductID
	cart  cartapi.CartRequest
	order ordersapi.OrderRequest

	catalog  *catalogtest.Fake
	carts    *carttest.Fake
	shipping *shippingtest.Fake
	payments *paymentstest.Fake
	orders   *orderstest.Fake
	reviews  *reviewstest.Fake
}

func setup(t *testing.T) bundle {
	t.Helper()
	b := bundle{
		catalog: &catalogtest.Fake{}, carts: &carttest.Fake{}, shipping: &shippingtest.Fake{}, payments: paymentstest.New(),
		orders: &orderstest.Fake{}, reviews: &reviewstest.Fake{},
	}
	price := money.Of(1290, "EUR")
	b.mug = b.catalog.Add("mug", "Mug", price, 5)
	b.reviews.Put(reviewsapi.Review{ID: "rev_1", Product: ids.ID(b.mug), Rating: 4, Title: "Good"})
	b.cart.ID, b.cart.Owner = b.carts.Add(cartapi.Owner{User: "usr_ann"}, "EUR", cartapi.Line{SKU: "mug", Product: ids.ID(b.mug), Quantity: 1, UnitPrice: price})
	b.order = ordersapi.OrderRequest{ID: "ord_1", User: "usr_ann"}
	b.orders.Put(ordersapi.Order{ID: b.order.ID, Number: "B-1", Customer: "usr_ann", State: "placed", Total: price}, ordersapi.Contact{})
	b.shipping.Place("ord_1", "usr_ann", []shippingapi.Line{{SKU: "mug", Quantity: 1}})
	_, err := b.payments.Authorize(t.Context(), paymentsapi.AuthorizeRequest{
		Key: "k", Checkout: "chk_1", Order: "ord_1", Amount: price, Provider: "simulator", Token: "tok_approve",
	})
	if err != nil {
		t.Fatal(err)
	}
	b.Module = &Module{
		Catalog: b.catalog, Cart: b.carts, Shipping: b.shipping, Payments: b.payments, Orders: b.orders, Reviews: b.reviews,
		Log: slog.New(slog.DiscardHandler), Config: Defaults(),
	}
	return b
}

// fail lets one method of whichever fake has it fail.
func (b bundle) fail(method string, with error) {
	f := func(m string) error {
		if m == method {
			return with
		}
		return nil
	}
	b.catalog.Fail, b.carts.Fail, b.shipping.Fail, b.orders.Fail, b.reviews.Fail = f, f, f, f, f
	b.payments.Fail = func(m, _ string) error { return f(m) }
}

// pages are the pages of the storefront as JSON.
func (b bundle) pages() map[string]func(context.Context) (any, error) {
	return map[string]func(context.Context) (any, error){
		"product": func(ctx context.Context) (any, error) { return b.productPage(ctx, string(b.mug)) },
		"cart":    func(ctx context.Context) (any, error) { return b.cartPage(ctx, b.cart) },
		"order":   func(ctx context.Context) (any, error) { return b.orderPage(ctx, b.order) },
		"account": func(ctx context.Context) (any, error) { return b.accountPage(ctx, "usr_ann") },
	}
}

// shown is a page as its reader gets it, and what it says is missing.
func shown(t *testing.T, page any) (map[string]any, []string) {
	t.Helper()
	raw, err := json.Marshal(page)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	var missing struct{ Unavailable []string }
	if json.Unmarshal(raw, &fields) != nil || json.Unmarshal(raw, &missing) != nil {
		t.Fatalf("page %s", raw)
	}
	for name, v := range fields {
		if v == nil {
			t.Errorf("%s is null: a list without anything is empty", name)
		}
	}
	return fields, missing.Unavailable
}

func size(v any) int {
	l, _ := v.([]any)
	return len(l)
}

func TestAPageIsWholeWhenEverybodyAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, want := range map[string]map[string]int{
		"product": {"variants": 1, "reviews": 1, "shipping": 2}, "cart": {"products": 1}, "order": {"payments": 1, "shipments": 1}, "account": {"orders": 1},
	} {
		page, err := b.pages()[name](t.Context())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		fields, missing := shown(t, page)
		if len(missing) > 0 {
			t.Errorf("%s lacks %v", name, missing)
		}
		for field, n := range want {
			if size(fields[field]) != n {
				t.Errorf("%s of the %s page: %v, want %d", field, name, fields[field], n)
			}
		}
	}
	account, err := b.accountPage(t.Context(), "usr_ann")
	if err != nil || !slices.Equal(account.Orders[0].Shipments, []string{"pending"}) {
		t.Errorf("account %+v, %v", account, err)
	}
}

func TestAPageDoesWithoutAPartThatFails(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ page, method, part, still string }{
		{"product", "Summaries", "reviews", "shipping"},
		{"product", "Recent", "reviews", "shipping"},
		{"product", "Quote", "shipping", "reviews"},
		{"cart", "Products", "products", ""},
		{"order", "ByOrder", "payments", "shipments"},
		{"order", "Shipments", "shipments", "payments"},
		{"account", "Shipments", "shipments", "orders"},
	} {
		t.Run(c.page+" without "+c.method, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			b.fail(c.method, errs.Unavailablef("away"))
			page, err := b.pages()[c.page](t.Context())
			if err != nil {
				t.Fatal(err)
			}
			fields, missing := shown(t, page)
			if !slices.Equal(missing, []string{c.part}) {
				t.Errorf("says %v is missing, want %s", missing, c.part)
			}
			if c.still != "" && size(fields[c.still]) == 0 {
				t.Errorf("lost %s too", c.still)
			}
		})
	}
}

// dialled is b with its catalog and shipping behind connections, as the host builds it, and not the fakes themselves.
func (b bundle) dialled() bundle {
	catalog, shipping := rpc.NewServer("catalog"), rpc.NewServer("shipping")
	catalogapi.Mount(catalog, b.catalog)
	shippingapi.Mount(shipping, b.shipping)
	d := rpc.Local("storefront", catalog, shipping)
	b.Catalog, b.Shipping = catalogapi.Dial(d), shippingapi.Dial(d)
	return b
}

func TestAProductPageSurvivesItsCatalog(t *testing.T) {
	t.Parallel()
	b := setup(t).dialled()
	ann := auth.WithIdentity(t.Context(), auth.Identity{User: "usr_ann"})
	fresh, err := b.productPage(ann, string(b.mug))
	if err != nil || len(fresh.Stale) > 0 {
		t.Fatalf("%+v, %v", fresh, err)
	}
	if fields, _ := shown(t, fresh); fields["stale"] != nil {
		t.Error("a fresh page speaks of stale parts")
	}
	for _, c := range []struct{ method, part string }{{"Product", "product"}, {"Quote", "shipping"}} {
		method, part := c.method, c.part
		for _, with := range []*errs.Error{errs.Unavailablef("away"), errs.New(errs.NoAnswer, "", "slow")} {
			b.fail(method, with)
			page, err := b.productPage(ann, string(b.mug))
			if err != nil || !slices.Equal(page.Stale, []string{part}) || len(page.Unavailable) > 0 {
				t.Fatalf("%s %s: %+v, %v", method, with.Kind, page, err)
			}
			page.Stale = nil
			if diff := cmp.Diff(fresh, page); diff != "" {
				t.Errorf("%s %s (-fresh +old):\n%s", method, with.Kind, diff)
			}
			if page, err := b.productPage(t.Context(), string(b.mug)); err == nil && part == "product" {
				t.Errorf("a stranger got the page that was made for Ann: %+v", page)
			}
		}
	}
	b.fail("Product", errs.NotFoundf("deleted"))
	if page, err := b.productPage(ann, string(b.mug)); !errs.Is(err, errs.NotFound) {
		t.Errorf("a product that is gone: %+v, %v", page, err)
	}
	b.fail("Summaries", errs.Unavailablef("away"))
	if page, err := b.productPage(ann, string(b.mug)); err != nil || !slices.Equal(page.Unavailable, []string{"reviews"}) || len(page.Stale) > 0 {
		t.Errorf("without reviews: %+v, %v", page, err)
	}
}

func TestNoPageButTheProductsShowsOldThings(t *testing.T) {
	t.Parallel()
	b := setup(t).dialled()
	if _, err := b.productPage(t.Context(), string(b.mug)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.cartPage(t.Context(), b.cart); err != nil {
		t.Fatal(err)
	}
	b.fail("Products", errs.Unavailablef("away"))
	if page, err := b.cartPage(t.Context(), b.cart); err != nil || !slices.Equal(page.Unavailable, []string{"products"}) {
		t.Errorf("%+v, %v", page, err)
	}
}

func TestAPageIsNothingWithoutWhatItIsAbout(t *testing.T) {
	t.Parallel()
	for page, method := range map[string]string{"product": "Product", "cart": "Cart", "order": "Order"} {
		for _, with := range []*errs.Error{errs.NotFoundf("no such thing"), errs.Unavailablef("away")} {
			b := setup(t)
			b.fail(method, with)
			if got, err := b.pages()[page](t.Context()); !errs.Is(err, with.Kind) {
				t.Errorf("%s page when it is %s: %+v, %v", page, with.Kind, got, err)
			}
		}
	}
}

// slow is reviews that answer when they are no longer waited for.
type slow struct{ reviewsapi.Reviews }

func (slow) Summaries(ctx context.Context, _ reviewsapi.SummariesRequest) (reviewsapi.Summaries, error) {
	<-ctx.Done()
	return reviewsapi.Summaries{}, ctx.Err()
}

func TestAPageDoesNotWaitForASlowPart(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Reviews, b.Config.PartTimeout = slow{}, 10*time.Millisecond
	page, err := b.productPage(t.Context(), string(b.mug))
	if err != nil || !slices.Equal(page.Unavailable, []string{"reviews"}) || len(page.Shipping) == 0 {
		t.Errorf("%+v, %v", page, err)
	}
}

// silent is reviews of another version, which answer with less than was asked.
type silent struct{ reviewsapi.Reviews }

func (silent) Summaries(context.Context, reviewsapi.SummariesRequest) (reviewsapi.Summaries, error) {
	return reviewsapi.Summaries{}, nil
}

func TestAnAnswerThatLacksSomethingBreaksNoPage(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Reviews = silent{}
	if page, err := b.productPage(t.Context(), string(b.mug)); err != nil || page.Rating != nil {
		t.Errorf("%+v, %v", page.Rating, err)
	}
}

func TestAPageShowsNobodyElsesThings(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if page, err := b.cartPage(t.Context(), cartapi.CartRequest{ID: b.cart.ID, Owner: cartapi.Owner{User: "usr_bob"}}); !errs.Is(err, errs.NotFound) {
		t.Errorf("cart: %+v, %v", page, err)
	}
	if page, err := b.orderPage(t.Context(), ordersapi.OrderRequest{ID: b.order.ID, User: "usr_bob"}); !errs.Is(err, errs.NotFound) {
		t.Errorf("order: %+v, %v", page, err)
	}
	if page, err := b.accountPage(t.Context(), "usr_bob"); err != nil || len(page.Orders) != 0 {
		t.Errorf("account: %+v, %v", page, err)
	}
}
