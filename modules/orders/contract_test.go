package orders

import (
	"context"
	"net/http"
	"testing"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/ordersapi/orderstest"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

func TestModulePassesTheSuite(t *testing.T) {
	t.Parallel()
	orderstest.Suite(t, func(t *testing.T) orderstest.Subject {
		b := setup(t)
		return orderstest.Subject{Orders: b.Module, As: func(caller string) context.Context { return auth.WithCaller(t.Context(), caller) },
			Buy: func(t *testing.T, customer ids.ID) (ordersapi.ID, string) {
				k := b.basket(cartapi.Owner{User: customer})
				a := b.checkout(k, string(k.id), "tok_approve")
				if a.status != http.StatusCreated {
					t.Fatalf("checkout: %d %s", a.status, a.raw)
				}
				return ordersapi.ID(a.text("order_id")), a.text("order_token")
			}}
	})
}

func TestOnlyThoseWhoNeedToAskForOrdersAndContacts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, caller := range []string{"", "storefront", "reviews"} {
		if _, err := b.Contact(auth.WithCaller(t.Context(), caller), ordersapi.ContactRequest{ID: "ord_x"}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("contact by %q: %v", caller, err)
		}
	}
	for _, caller := range []string{"", "notifications", "reviews"} {
		if _, err := b.Order(auth.WithCaller(t.Context(), caller), ordersapi.OrderRequest{ID: "ord_x", User: "usr_ann"}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("order by %q: %v", caller, err)
		}
		if _, err := b.Recent(auth.WithCaller(t.Context(), caller), ordersapi.RecentRequest{User: "usr_ann"}); !errs.Is(err, errs.Forbidden) {
			t.Errorf("orders by %q: %v", caller, err)
		}
	}
}
