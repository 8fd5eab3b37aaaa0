package catalogapi

import (
	"strings"
	"unicode/utf8"

	"github.com/banyan-shop/banyan/platform/money"
)

// MaxImportRows is the size of a batch.
const MaxImportRows = 500

// Longest values a row may hold, in characters.
const (
	MaxExternalID  = 100
	MaxName        = 200
	MaxDescription = 20_000
)

// Problem is the first thing wrong with a row taken by itself, or the zero RowError.
func (r ImportRow) Problem() RowError {
	bad := func(column, code, message string) RowError {
		return RowError{Line: r.Line, Column: column, Code: code, Message: message}
	}
	for _, text := range []struct {
		column, value string
		longest       int
		required      bool
	}{
		{"external_id", r.ExternalID, MaxExternalID, true},
		{"sku", r.SKU, MaxExternalID, false},
		{"name", r.Name, MaxName, true},
		{"brand", r.Brand, MaxName, false},
		{"category", r.Category, MaxName, true},
		{"description", r.Description, MaxDescription, false},
		{"image", r.ImageName, MaxName, false},
	} {
		switch {
		case text.required && strings.TrimSpace(text.value) == "":
			return bad(text.column, "required", "the column is empty")
		case !utf8.ValidString(text.value) || strings.ContainsRune(text.value, 0):
			return bad(text.column, "invalid_text", "the text is not UTF-8")
		case utf8.RuneCountInString(text.value) > text.longest:
			return bad(text.column, "too_long", "the text is too long")
		}
	}
	if _, ok := money.Digits(r.Price.Currency); !ok {
		return bad("currency", "unknown_currency", "the currency is not an ISO 4217 code")
	}
	switch {
	case r.Price.Minor < 0:
		return bad("price", "out_of_range", "the price is negative")
	case r.Stock < 0 || r.Stock > 1_000_000_000:
		return bad("stock", "out_of_range", "the stock is not between 0 and 1,000,000,000")
	case r.WeightGrams < 0 || r.WeightGrams > 100_000_000:
		return bad("weight_grams", "out_of_range", "the weight is not between 0 and 100,000,000 g")
	}
	return RowError{}
}
