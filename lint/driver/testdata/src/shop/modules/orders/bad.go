package orders

import (
	"database/sql"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq" // want `only platform/pg imports lib/pq`

	"shop/platform/money"
)

var _ = pq.Array

func open() {
	sql.Open("postgres", "")     // want `sql.Open is for platform/pg`
	sqlx.Connect("postgres", "") // want `sqlx.Connect is for platform/pg`
	f := sqlx.Open               // want `sqlx.Open is for platform/pg`
	_ = f
}

type bad struct {
	UnitPrice float64            // want `UnitPrice is a float: money is whole minor units`
	Fees      *float32           // want `Fees is a float`
	fee       *float32           // want `fee is a float`
	taxes     []float64          // want `taxes is a float`
	byTotal   map[string]float64 // want `byTotal is a float`
}

type amount float64 // want `amount is a float`

func subtotal(x money.Amount, n int64) float64 { // want `subtotal returns a float`
	share := float64(x.Minor) / float64(n) // want `money turned into a float`
	total := share * 2                     // want `total is a float`

	//shop:allow driver until=2999-01-31 owner=@orders for a chart
	cost := share
	return total + cost
}
