package catalogtest_test

import (
	"testing"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestFake(t *testing.T) {
	t.Parallel()
	catalogtest.Suite(t, func(*testing.T) catalogtest.Bench {
		clock := shoptest.NewClock()
		f := &catalogtest.Fake{Clock: clock.Now}
		return catalogtest.Bench{Catalog: f, Now: clock.Now, Advance: clock.Advance, Stock: f.Stock}
	})
}

func TestEveryMethodIsBound(t *testing.T) {
	t.Parallel()
	rpctest.Complete[catalogapi.Catalog](t, "catalog", catalogapi.Dial, catalogapi.Mount)
}
