package orders

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/banyan-shop/banyan/api/cartapi"
)

// A checkout costs orders three transactions of six statements, twelve round trips with BEGIN and COMMIT: begun, ordered,
// placed. Each commit more is paid by every customer.
func TestACheckoutCostsThreeTransactions(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for i := range 3 {
		k := b.basket(cartapi.Owner{User: ann})
		queries, transactions := b.DB.Counts()
		if a := b.checkout(k, fmt.Sprint(i), "tok_approve"); a.status != http.StatusCreated {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		q, tx := b.DB.Counts()
		if tx-transactions != 3 || i > 0 && q-queries != 12 { // the first prepares its statements
			t.Errorf("checkout %d took %d round trips in %d transactions", i, q-queries, tx-transactions)
		}
	}
}

func BenchmarkCheckout(b *testing.B) {
	s := setup(b)
	s.catalog.SetStock("mug", 1<<40)
	s.catalog.SetStock("tea", 1<<40)
	var n atomic.Int64
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			k := s.basket(cartapi.Owner{User: ann})
			if a := s.checkout(k, fmt.Sprint(n.Add(1)), "tok_approve"); a.status != http.StatusCreated {
				b.Errorf("got %d %s", a.status, a.raw)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "checkouts/s")
}
