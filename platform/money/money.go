// Package money is exact arithmetic on amounts: whole minor units and an ISO 4217 currency. There is no float in it, every
// sum is checked for overflow, and every rounding happens once, half up, where its comment says so.
package money

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/bojanz/currency"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Amount is a sum of money in minor units (cents, yen, fils) of a currency.
type Amount struct {
	Minor    int64  `json:"amount" doc:"In minor units: 12999 is 129.99 EUR" example:"12999"`
	Currency string `json:"currency" doc:"ISO 4217" example:"EUR" minLength:"3" maxLength:"3"`
}

// Rate is a share in 1/10,000: 1900 is 19 %.
type Rate int64

// Of makes an amount.
func Of(minor int64, currency string) Amount { return Amount{minor, currency} }

// Digits is the currency exponent (0, 2 or 3) and whether the code is an ISO 4217 currency.
func Digits(code string) (int, bool) {
	d, ok := currency.GetDigits(code)
	return int(d), ok
}

// Parse reads a decimal in major units such as "129.99". More digits than the currency has are an error, never rounded.
func Parse(decimal, code string) (Amount, error) {
	digits, ok := Digits(code)
	if !ok {
		return Amount{}, errs.Invalidf("unknown_currency", "the currency is not an ISO 4217 code")
	}
	bad := errs.Invalidf("invalid_amount", "an amount is digits, with at most %d after the point", digits)
	s, negative := strings.CutPrefix(decimal, "-")
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || point && fraction == "" || len(fraction) > digits {
		return Amount{}, bad
	}
	all := whole + fraction + strings.Repeat("0", digits-len(fraction))
	for _, c := range []byte(all) {
		if c < '0' || c > '9' {
			return Amount{}, bad
		}
	}
	abs, err := strconv.ParseUint(all, 10, 64)
	minor, fits := signed(negative, abs)
	if err != nil || !fits {
		return Amount{}, bad
	}
	return Amount{minor, code}, nil
}

// String is the amount in major units and its currency: "129.99 EUR".
func (a Amount) String() string { return a.Decimal() + " " + a.Currency }

// Decimal is the amount in major units: "129.99".
func (a Amount) Decimal() string {
	digits, _ := Digits(a.Currency)
	sign, s := "", strconv.FormatUint(magnitude(a.Minor), 10)
	if a.Minor < 0 {
		sign = "-"
	}
	if digits == 0 {
		return sign + s
	}
	if len(s) <= digits {
		s = strings.Repeat("0", digits-len(s)+1) + s
	}
	return sign + s[:len(s)-digits] + "." + s[len(s)-digits:]
}

// IsZero says whether the amount is nothing.
func (a Amount) IsZero() bool { return a.Minor == 0 }

// ErrOverflow is returned when a result has no room in 64 bits.
var ErrOverflow = errs.Invalidf("amount_too_large", "the amount is too large")

func (a Amount) same(b Amount) error {
	if a.Currency != b.Currency {
		return errs.Invalidf("currency_mismatch", "amounts of different currencies can't be combined")
	}
	return nil
}

// Add is a + b. Codes: currency_mismatch, amount_too_large.
func (a Amount) Add(b Amount) (Amount, error) {
	if err := a.same(b); err != nil {
		return Amount{}, err
	}
	sum := a.Minor + b.Minor
	if (sum > a.Minor) != (b.Minor > 0) {
		return Amount{}, ErrOverflow
	}
	return Amount{sum, a.Currency}, nil
}

// Sub is a − b. Codes: currency_mismatch, amount_too_large.
func (a Amount) Sub(b Amount) (Amount, error) {
	if err := a.same(b); err != nil {
		return Amount{}, err
	}
	difference := a.Minor - b.Minor
	if (difference < a.Minor) != (b.Minor > 0) {
		return Amount{}, ErrOverflow
	}
	return Amount{difference, a.Currency}, nil
}

// Times is a × n. Codes: amount_too_large.
func (a Amount) Times(n int64) (Amount, error) {
	hi, lo := bits.Mul64(magnitude(a.Minor), magnitude(n))
	p, fits := signed((a.Minor < 0) != (n < 0), lo)
	if hi != 0 || !fits {
		return Amount{}, ErrOverflow
	}
	return Amount{p, a.Currency}, nil
}

// magnitude is n without its sign; the smallest int64 has one too.
func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// signed puts a sign to a magnitude, and says whether that fits.
func signed(negative bool, abs uint64) (int64, bool) {
	if negative {
		return -int64(abs), abs <= 1<<63
	}
	return int64(abs), abs <= math.MaxInt64
}

// Sum adds amounts of one currency; of none it is zero of that currency.
func Sum(currency string, amounts ...Amount) (Amount, error) {
	total := Amount{0, currency}
	var err error
	for _, a := range amounts {
		if total, err = total.Add(a); err != nil {
			return Amount{}, err
		}
	}
	return total, nil
}

// Part is a × rate, rounded half up (away from zero for negative amounts) once.
func (a Amount) Part(r Rate) Amount { return Amount{mulDiv(a.Minor, int64(r), 10_000), a.Currency} }

// TaxIncluded is the tax inside a gross amount: gross − round(gross ÷ (1 + rate)).
func (a Amount) TaxIncluded(r Rate) Amount {
	return Amount{a.Minor - mulDiv(a.Minor, 10_000, 10_000+int64(r)), a.Currency}
}

// TaxAdded is the tax on top of a net amount: round(net × rate).
func (a Amount) TaxAdded(r Rate) Amount { return a.Part(r) }

// Spread divides a into parts in proportion to weights by the largest remainder, earlier parts first on a tie. The parts sum
// to a exactly. Weights are not negative and their sum has room in 64 bits, as that of amounts which were added before has; if
// all are zero the whole goes to the first part.
func (a Amount) Spread(weights []int64) []Amount {
	parts := make([]Amount, len(weights))
	var total, carry uint64
	for i, w := range weights {
		parts[i].Currency = a.Currency
		if w < 0 {
			panic("money: negative weight")
		}
		if total, carry = bits.Add64(total, uint64(w), 0); carry > 0 {
			panic("money: weights whose sum has no room in 64 bits")
		}
	}
	if len(parts) == 0 {
		return parts
	}
	if total == 0 {
		parts[0].Minor = a.Minor
		return parts
	}
	abs := magnitude(a.Minor)
	remainders := make([]uint64, len(weights))
	left := abs
	for i, w := range weights {
		hi, lo := bits.Mul64(abs, uint64(w))
		q, r := bits.Div64(hi, lo, total) // hi < total, as w ≤ total and abs < 2^64
		parts[i].Minor, remainders[i] = int64(q), r
		left -= q
	}
	for ; left > 0; left-- { // at most len(weights) − 1 turns
		best := 0
		for i, r := range remainders {
			if r > remainders[best] {
				best = i
			}
		}
		parts[best].Minor++
		remainders[best] = 0
	}
	if a.Minor < 0 {
		for i := range parts {
			parts[i].Minor = -parts[i].Minor
		}
	}
	return parts
}

// mulDiv is round(a × b ÷ c) half away from zero, with a 128-bit product. b ≥ 0, c > 0; a result that does not fit saturates,
// which a caller's checked sum then reports.
func mulDiv(a, b, c int64) int64 {
	if b < 0 || c <= 0 {
		panic(fmt.Sprintf("money: mulDiv by %d/%d", b, c))
	}
	hi, lo := bits.Mul64(magnitude(a), uint64(b))
	lo, carry := bits.Add64(lo, uint64(c)/2, 0)
	hi += carry
	if hi < uint64(c) {
		abs, _ := bits.Div64(hi, lo, uint64(c))
		if n, fits := signed(a < 0, abs); fits {
			return n
		}
	}
	if a < 0 {
		return math.MinInt64
	}
	return math.MaxInt64
}
