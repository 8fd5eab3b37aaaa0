package carttest_test

import (
	"testing"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/cartapi/carttest"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	carttest.Suite(t, func(t *testing.T) carttest.Subject {
		f := &carttest.Fake{}
		return carttest.Subject{
			Cart: f,
			Fill: func(t *testing.T, lines ...cartapi.Line) (cartapi.ID, cartapi.Owner) {
				return f.Add(cartapi.Owner{}, "EUR", lines...)
			},
			SetPrice: func(t *testing.T, sku string, price money.Amount) { f.SetPrice(sku, price) },
			SetPromo: func(t *testing.T, cart cartapi.ID, _ cartapi.Owner, code string, n int64) {
				f.SetPromo(cart, code, 1000, n)
			},
		}
	})
}

func TestContractIsComplete(t *testing.T) { rpctest.Complete(t, "cart", cartapi.Dial, cartapi.Mount) }
