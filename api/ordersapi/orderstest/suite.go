package orderstest

import (
	"context"
	"testing"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Subject is orders under test, and how something is bought there.
type Subject struct {
	Orders ordersapi.Orders
	// As is the context of a call by a module.
	As func(caller string) context.Context
	// Buy makes an order of one or more lines for a customer, or for the guest gus@example.com, and returns its id and a guest's token.
	Buy func(t *testing.T, customer ids.ID) (id ordersapi.ID, token string)
}

// Suite is what all orders do.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	const ann, bob = ids.ID("usr_ann"), ids.ID("usr_bob")
	t.Run("an order is seen by its customer alone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		id, _ := s.Buy(t, ann)
		o, err := s.Orders.Order(s.As("storefront"), ordersapi.OrderRequest{ID: id, User: ann})
		if err != nil || o.ID != id || o.Customer != ann || o.State != "placed" || len(o.Lines) == 0 || o.Number == "" {
			t.Errorf("got %+v, %v", o, err)
		}
		_, guests := s.Buy(t, "")
		for _, r := range []ordersapi.OrderRequest{{ID: id}, {ID: id, User: bob}, {ID: id, Token: guests}, {ID: id, Token: "guess"}, {ID: "ord_none", User: ann}} {
			if _, err := s.Orders.Order(s.As("storefront"), r); !errs.Is(err, errs.NotFound) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("a guest's order is seen with its token alone", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		id, token := s.Buy(t, "")
		if o, err := s.Orders.Order(s.As("storefront"), ordersapi.OrderRequest{ID: id, Token: token}); err != nil || o.ID != id {
			t.Errorf("got %+v, %v", o, err)
		}
		_, other := s.Buy(t, "")
		for _, r := range []ordersapi.OrderRequest{{ID: id}, {ID: id, User: ann}, {ID: id, Token: other}, {ID: id, Token: "guess"}} {
			if _, err := s.Orders.Order(s.As("storefront"), r); !errs.Is(err, errs.NotFound) {
				t.Errorf("%+v: %v", r, err)
			}
		}
	})
	t.Run("recent orders are a customer's own, newest first, without lines and history", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		var bought []ordersapi.ID
		for range 3 {
			id, _ := s.Buy(t, ann)
			bought = append(bought, id)
		}
		s.Buy(t, bob)
		l, err := s.Orders.Recent(s.As("storefront"), ordersapi.RecentRequest{User: ann, Limit: 2})
		if err != nil || len(l.Orders) != 2 || l.Orders[0].ID != bought[2] || l.Orders[1].ID != bought[1] {
			t.Fatalf("got %+v, %v", l, err)
		}
		if len(l.Orders[0].Lines) != 0 || len(l.Orders[0].History) != 0 {
			t.Errorf("got %+v", l.Orders[0])
		}
		if l, err := s.Orders.Recent(s.As("storefront"), ordersapi.RecentRequest{Limit: 10}); err != nil || len(l.Orders) != 0 {
			t.Errorf("nobody's: %+v, %v", l, err)
		}
	})
	t.Run("a contact is the customer, or the guest's address and token", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		id, _ := s.Buy(t, ann)
		if c, err := s.Orders.Contact(s.As("notifications"), ordersapi.ContactRequest{ID: id}); err != nil || c.Customer != ann || c.Token != "" || c.Number == "" {
			t.Errorf("got %+v, %v", c, err)
		}
		id, _ = s.Buy(t, "")
		c, err := s.Orders.Contact(s.As("notifications"), ordersapi.ContactRequest{ID: id})
		if err != nil || c.Customer != "" || c.Email != "gus@example.com" {
			t.Fatalf("got %+v, %v", c, err)
		}
		if o, err := s.Orders.Order(s.As("storefront"), ordersapi.OrderRequest{ID: id, Token: c.Token}); err != nil || o.ID != id {
			t.Errorf("with its token: %+v, %v", o, err)
		}
		if _, err := s.Orders.Contact(s.As("notifications"), ordersapi.ContactRequest{ID: "ord_none"}); !errs.Is(err, errs.NotFound) {
			t.Errorf("of no order: %v", err)
		}
	})
}
