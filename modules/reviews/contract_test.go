package reviews

import (
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi/reviewstest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestModulePassesTheSuite(t *testing.T) {
	t.Parallel()
	reviewstest.Suite(t, func(t *testing.T) reviewstest.Subject {
		m, clock := setup(t), shoptest.NewClock()
		m.Now = clock.Now
		return reviewstest.Subject{Reviews: m, Write: func(t *testing.T, product ids.ID, rating int64) reviewsapi.ID {
			clock.Advance(time.Second)
			return m.must(t, product, ids.New[ids.ID]("usr"), rating).ID
		}}
	})
}
