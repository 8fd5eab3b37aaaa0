package orderstest_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/ordersapi/orderstest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	orderstest.Suite(t, func(t *testing.T) orderstest.Subject {
		f, n := &orderstest.Fake{}, 0
		return orderstest.Subject{Orders: f, As: func(string) context.Context { return context.Background() }, Buy: func(_ *testing.T, customer ids.ID) (ordersapi.ID, string) {
			n++
			o := ordersapi.Order{ID: ids.New[ordersapi.ID]("ord"), Number: fmt.Sprint("B-", n), State: "placed", Customer: customer, Lines: []ordersapi.Line{{SKU: "mug", Quantity: 1}}}
			c := ordersapi.Contact{}
			if customer == "" {
				c = ordersapi.Contact{Email: "gus@example.com", Token: fmt.Sprint("token ", n)}
			}
			f.Put(o, c)
			return o.ID, c.Token
		}}
	})
}

func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	rpctest.Complete(t, "orders", ordersapi.Dial, ordersapi.Mount)
}
