package money_test

import (
	"flag"
	"math"
	"math/big"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
)

// The properties are tried a million times in all, and a hundred times each with -short or when -rapid.checks says how often.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "rapid.checks" })
	if !said && !testing.Short() {
		if err := flag.Set("rapid.checks", "200000"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

var currencies = []string{"EUR", "JPY", "KWD"} // 2, 0 and 3 digits

// anyMinor draws small numbers, large ones and those at the edges of 64 bits.
func anyMinor(t *rapid.T, name string) int64 {
	return rapid.OneOf(
		rapid.Int64Range(-1000, 1000), rapid.Int64(),
		rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1}),
	).Draw(t, name)
}

func anyRate(t *rapid.T) money.Rate {
	return money.Rate(rapid.OneOf(rapid.Int64Range(0, 10_000), rapid.SampledFrom([]int64{0, 700, 1900, 2550, 10_000, 1_000_000})).Draw(t, "rate"))
}

func bigOf(n int64) *big.Int { return big.NewInt(n) }

// agrees checks an exact result against one that may refuse: refused if and only if it does not fit.
func agrees(t *rapid.T, got money.Amount, err error, exact *big.Int) {
	t.Helper()
	if !exact.IsInt64() {
		if !errs.Has(err, "amount_too_large") {
			t.Fatalf("%s does not fit, got %v %v", exact, got, err)
		}
		return
	}
	if err != nil || got != money.Of(exact.Int64(), "EUR") {
		t.Fatalf("want %s, got %v %v", exact, got, err)
	}
}

func TestArithmeticIsExactOrRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyMinor(t, "a"), anyMinor(t, "b")
		x, y := money.Of(a, "EUR"), money.Of(b, "EUR")
		sum, err := x.Add(y)
		agrees(t, sum, err, new(big.Int).Add(bigOf(a), bigOf(b)))
		difference, err := x.Sub(y)
		agrees(t, difference, err, new(big.Int).Sub(bigOf(a), bigOf(b)))
		product, err := x.Times(b)
		agrees(t, product, err, new(big.Int).Mul(bigOf(a), bigOf(b)))
	})
}

// halfAwayFromZero is round(a × b ÷ c) by the definition.
func halfAwayFromZero(a, b, c int64) *big.Int {
	p := new(big.Int).Mul(new(big.Int).Abs(bigOf(a)), bigOf(b))
	p.Mul(p, bigOf(2)).Add(p, bigOf(c)).Div(p, bigOf(2*c))
	if a < 0 {
		p.Neg(p)
	}
	return p
}

func TestRatesRoundOnceHalfUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minor, r := anyMinor(t, "amount"), anyRate(t)
		a := money.Of(minor, "EUR")
		if want := halfAwayFromZero(minor, int64(r), 10_000); want.IsInt64() {
			if got := a.Part(r); got != money.Of(want.Int64(), "EUR") {
				t.Fatalf("part: want %s, got %v", want, got)
			}
			if got := a.TaxAdded(r); got.Minor != want.Int64() {
				t.Fatalf("tax added: want %s, got %v", want, got)
			}
		} else if got := a.Part(r); got.Minor != map[bool]int64{false: math.MaxInt64, true: math.MinInt64}[minor < 0] {
			t.Fatalf("part: %s does not fit, got %v instead of a limit", want, got)
		}
		if net := halfAwayFromZero(minor, 10_000, 10_000+int64(r)); net.IsInt64() {
			if got := a.TaxIncluded(r); bigOf(got.Minor).Cmp(new(big.Int).Sub(bigOf(minor), net)) != 0 {
				t.Fatalf("tax included: want %d − %s, got %v", minor, net, got)
			}
		}
	})
}

// What is paid is the same whether tax is taken out of the gross or put on the net that remains, to the last cent.
func TestTaxInAndOutAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gross := money.Of(rapid.Int64Range(0, 1<<50).Draw(t, "gross"), "EUR")
		r := money.Rate(rapid.Int64Range(0, 10_000).Draw(t, "rate"))
		tax := gross.TaxIncluded(r)
		if tax.Minor < 0 || tax.Minor > gross.Minor {
			t.Fatalf("tax %v of %v", tax, gross)
		}
		net, err := gross.Sub(tax)
		if err != nil {
			t.Fatal(err)
		}
		again, err := net.Add(net.TaxAdded(r))
		if err != nil {
			t.Fatal(err)
		}
		if d := again.Minor - gross.Minor; d < -1 || d > 1 {
			t.Fatalf("%v at %d: net %v is %v again", gross, r, net, again)
		}
	})
}

func TestSpreadSumsAndIsFair(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minor := rapid.OneOf(rapid.Int64Range(-1000, 100_000), rapid.Int64()).Draw(t, "amount")
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(0, 1_000_000), rapid.Int64Range(0, math.MaxInt64/8)), 0, 12).Draw(t, "weights")
		parts := money.Of(minor, "EUR").Spread(weights)
		if len(parts) != len(weights) {
			t.Fatalf("%d parts of %d weights", len(parts), len(weights))
		}
		if len(parts) == 0 {
			return
		}
		sum, total := new(big.Int), new(big.Int)
		for i, p := range parts {
			if p.Currency != "EUR" {
				t.Fatalf("part %d is in %q", i, p.Currency)
			}
			sum.Add(sum, bigOf(p.Minor))
			total.Add(total, bigOf(weights[i]))
		}
		if sum.Cmp(bigOf(minor)) != 0 {
			t.Fatalf("parts %v sum to %s", parts, sum)
		}
		if total.Sign() == 0 {
			return
		}
		for i, p := range parts {
			// |part × total − amount × weight| < total: less than a cent from the exact share, and nothing without a weight
			off := new(big.Int).Sub(new(big.Int).Mul(bigOf(p.Minor), total), new(big.Int).Mul(bigOf(minor), bigOf(weights[i])))
			if off.CmpAbs(total) >= 0 || weights[i] == 0 && p.Minor != 0 {
				t.Fatalf("part %d of %v by %v is unfair", i, parts, weights)
			}
		}
	})
}

func TestDecimalsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := money.Of(anyMinor(t, "amount"), rapid.SampledFrom(currencies).Draw(t, "currency"))
		got, err := money.Parse(a.Decimal(), a.Currency)
		if err != nil || got != a {
			t.Fatalf("%s is %v %v", a.Decimal(), got, err)
		}
	})
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text, currency string
		want           int64
		code           string
	}{
		{"129.99", "EUR", 12999, ""}, {"0.05", "EUR", 5, ""}, {"-0.05", "EUR", -5, ""}, {"7", "EUR", 700, ""}, {"7.5", "EUR", 750, ""},
		{"007.50", "EUR", 750, ""}, {"500", "JPY", 500, ""}, {"1.234", "KWD", 1234, ""},
		{"92233720368547758.07", "EUR", math.MaxInt64, ""}, {"-92233720368547758.08", "EUR", math.MinInt64, ""},
		{"92233720368547758.08", "EUR", 0, "invalid_amount"}, {"1.999", "EUR", 0, "invalid_amount"}, {"1.0", "JPY", 0, "invalid_amount"},
		{"", "EUR", 0, "invalid_amount"}, {"-", "EUR", 0, "invalid_amount"}, {".5", "EUR", 0, "invalid_amount"}, {"5.", "EUR", 0, "invalid_amount"},
		{"+5", "EUR", 0, "invalid_amount"}, {"--5", "EUR", 0, "invalid_amount"}, {"1e3", "EUR", 0, "invalid_amount"}, {"1,5", "EUR", 0, "invalid_amount"},
		{"1.-5", "EUR", 0, "invalid_amount"}, {"٣", "EUR", 0, "invalid_amount"}, {" 1", "EUR", 0, "invalid_amount"}, {"1_0", "EUR", 0, "invalid_amount"},
		{"1", "EURO", 0, "unknown_currency"}, {"1", "eur", 0, "unknown_currency"}, {"1", "", 0, "unknown_currency"},
	} {
		got, err := money.Parse(c.text, c.currency)
		if errs.CodeOf(err) != c.code || err == nil && got != money.Of(c.want, c.currency) {
			t.Errorf("%q %s: got %v %v", c.text, c.currency, got, err)
		}
	}
}

func TestDecimal(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		amount money.Amount
		want   string
	}{
		{money.Of(0, "EUR"), "0.00 EUR"}, {money.Of(5, "EUR"), "0.05 EUR"}, {money.Of(-5, "EUR"), "-0.05 EUR"}, {money.Of(12999, "EUR"), "129.99 EUR"},
		{money.Of(500, "JPY"), "500 JPY"}, {money.Of(-1234, "KWD"), "-1.234 KWD"}, {money.Of(math.MinInt64, "EUR"), "-92233720368547758.08 EUR"},
	} {
		if got := c.amount.String(); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		minor   int64
		weights []int64
		want    []int64
	}{
		{"evenly", 9, []int64{1, 1, 1}, []int64{3, 3, 3}},
		{"the first of equals gets the cent", 10, []int64{1, 1, 1}, []int64{4, 3, 3}},
		{"the larger remainder gets it", 10, []int64{1, 2}, []int64{3, 7}},
		{"by weight", 100, []int64{999, 1001}, []int64{50, 50}},
		{"nothing to no weight", 5, []int64{0, 1, 0}, []int64{0, 5, 0}},
		{"all to the first when nothing weighs", 5, []int64{0, 0}, []int64{5, 0}},
		{"a negative amount", -10, []int64{1, 1, 1}, []int64{-4, -3, -3}},
		{"among nobody", 5, nil, nil},
	} {
		got := money.Of(c.minor, "EUR").Spread(c.weights)
		if len(got) != len(c.want) {
			t.Fatalf("%s: %v", c.name, got)
		}
		for i, p := range got {
			if p.Minor != c.want[i] {
				t.Errorf("%s: got %v", c.name, got)
			}
		}
	}
}

func TestSpreadRefusesWeightsThatAreNone(t *testing.T) {
	t.Parallel()
	for _, weights := range [][]int64{{1, -1}, {math.MaxInt64, math.MaxInt64, math.MaxInt64}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("spread by %v", weights)
				}
			}()
			money.Of(1, "EUR").Spread(weights)
		}()
	}
}

func TestCurrenciesDoNotMix(t *testing.T) {
	t.Parallel()
	euro, yen := money.Of(1, "EUR"), money.Of(1, "JPY")
	_, add := euro.Add(yen)
	_, sub := euro.Sub(yen)
	_, sum := money.Sum("EUR", euro, yen)
	for i, err := range []error{add, sub, sum} {
		if !errs.Has(err, "currency_mismatch") {
			t.Errorf("%d: %v", i, err)
		}
	}
	if s, err := money.Sum("EUR"); err != nil || s != money.Of(0, "EUR") {
		t.Errorf("the sum of nothing: %v %v", s, err)
	}
	if d, ok := money.Digits("XXX"); ok {
		t.Errorf("XXX is no currency to pay with, got %d digits", d)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"129.99", "-0.05", "0", "", ".", "-.", "1e9", "9223372036854775807", "00.00", "1.2.3"} {
		f.Add(s, "EUR")
		f.Add(s, "JPY")
		f.Add(s, "KWD")
	}
	f.Fuzz(func(t *testing.T, text, code string) {
		a, err := money.Parse(text, code)
		if err != nil {
			if a != (money.Amount{}) || errs.KindOf(err) != errs.Invalid {
				t.Errorf("%q %q: %v %v", text, code, a, err)
			}
			return
		}
		again, err := money.Parse(a.Decimal(), code)
		if err != nil || again != a {
			t.Errorf("%q is %s, which is %v %v", text, a.Decimal(), again, err)
		}
		if strings.ContainsAny(text, "eE+_ ") {
			t.Errorf("%q was taken for %v", text, a)
		}
	})
}
