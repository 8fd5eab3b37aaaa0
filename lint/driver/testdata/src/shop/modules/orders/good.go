package orders

import "shop/platform/money"

type line struct {
	price  money.Amount
	weight float64
	total  int64
}

func average(stars, n int) float64 { return float64(stars) / float64(n) }
