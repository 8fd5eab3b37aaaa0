package shippingtest_test

import (
	"testing"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/shippingapi/shippingtest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	shippingtest.Suite(t, func(t *testing.T) shippingtest.Subject {
		f := &shippingtest.Fake{}
		return shippingtest.Subject{
			Shipping: f,
			Place: func(t *testing.T, order, customer ids.ID, lines []shippingapi.Line) {
				f.Place(order, customer, lines)
			},
			Ship: func(t *testing.T, order ids.ID) { f.Ship(order) },
		}
	})
}

func TestContractIsComplete(t *testing.T) {
	rpctest.Complete(t, "shipping", shippingapi.Dial, shippingapi.Mount)
}
