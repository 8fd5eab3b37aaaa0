// Package orderstest has a Fake of orders in memory, and the Suite that both the Fake and the module pass. Only tests import it.
package orderstest

import (
	"context"
	"slices"
	"sync"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/platform/errs"
)

// Fake is orders in memory. Its zero value is empty and works.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Order"; what it returns is the method's error.
	Fail func(method string) error

	mu     sync.Mutex
	orders []entry
}

type entry struct {
	order   ordersapi.Order
	contact ordersapi.Contact
}

var _ ordersapi.Orders = (*Fake)(nil)

// Put adds an order, or replaces the one with its id. A guest's is one without a customer: it has an e-mail, and c.Token is
// the token that shows it.
func (f *Fake) Put(o ordersapi.Order, c ordersapi.Contact) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.Customer, c.Number = o.Customer, o.Number
	f.orders = slices.DeleteFunc(f.orders, func(e entry) bool { return e.order.ID == o.ID })
	f.orders = append(f.orders, entry{o, c})
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.Fail != nil {
		return f.Fail(method)
	}
	return nil
}

// Order: see ordersapi.
func (f *Fake) Order(_ context.Context, r ordersapi.OrderRequest) (ordersapi.Order, error) {
	defer f.mu.Unlock()
	if err := f.enter("Order"); err != nil {
		return ordersapi.Order{}, err
	}
	for _, e := range f.orders {
		mine := e.order.Customer != "" && e.order.Customer == r.User
		shown := e.order.Customer == "" && r.Token != "" && e.contact.Token == r.Token
		if e.order.ID == r.ID && (mine || shown) {
			return e.order, nil
		}
	}
	return ordersapi.Order{}, errs.NotFoundf("no such order")
}

// Recent: see ordersapi.
func (f *Fake) Recent(_ context.Context, r ordersapi.RecentRequest) (ordersapi.List, error) {
	defer f.mu.Unlock()
	if err := f.enter("Recent"); err != nil {
		return ordersapi.List{}, err
	}
	l := ordersapi.List{Orders: []ordersapi.Order{}}
	for _, e := range slices.Backward(f.orders) {
		if r.User != "" && e.order.Customer == r.User && int64(len(l.Orders)) < r.Limit {
			o := e.order
			o.Lines, o.History = []ordersapi.Line{}, []ordersapi.Entry{}
			l.Orders = append(l.Orders, o)
		}
	}
	return l, nil
}

// Contact: see ordersapi.
func (f *Fake) Contact(_ context.Context, r ordersapi.ContactRequest) (ordersapi.Contact, error) {
	defer f.mu.Unlock()
	if err := f.enter("Contact"); err != nil {
		return ordersapi.Contact{}, err
	}
	for _, e := range f.orders {
		if e.order.ID == r.ID {
			return e.contact, nil
		}
	}
	return ordersapi.Contact{}, errs.NotFoundf("no such order")
}
