package money

type Amount struct {
	Minor    int64  `json:"amount"`
	Currency string `json:"currency"`
}

func half(n int64) int64 {
	x := float64(n)       // want `x is a float` `money turned into a float`
	return int64(x * 0.5) // want `a float in package money`
}
