package reviewstest_test

import (
	"testing"

	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi/reviewstest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc/rpctest"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestFakeKeepsTheContract(t *testing.T) {
	t.Parallel()
	reviewstest.Suite(t, func(*testing.T) reviewstest.Subject {
		f, now := &reviewstest.Fake{}, shoptest.NewClock().Now()
		return reviewstest.Subject{Reviews: f, Write: func(_ *testing.T, product ids.ID, rating int64) reviewsapi.ID {
			r := reviewsapi.Review{ID: ids.New[reviewsapi.ID]("rev"), Product: product, Rating: rating, Title: "t", CreatedAt: now}
			f.Put(r)
			return r.ID
		}}
	})
}

func TestContractIsComplete(t *testing.T) {
	t.Parallel()
	rpctest.Complete(t, "reviews", reviewsapi.Dial, reviewsapi.Mount)
}
