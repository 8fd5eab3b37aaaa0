package web

import (
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

// Hundredths is a whole number of hundredths that JSON shows as a decimal with two digits: 425 is 4.25. It is for averages
// and the like, so that no float comes near them.
type Hundredths int64

// MarshalJSON is the decimal.
func (h Hundredths) MarshalJSON() ([]byte, error) {
	b := make([]byte, 0, 8)
	n := int64(h)
	if n < 0 {
		b, n = append(b, '-'), -n
	}
	b = strconv.AppendInt(b, n/100, 10)
	return append(b, '.', byte('0'+n/10%10), byte('0'+n%10)), nil
}

// Schema says in the OpenAPI document that it is a number.
func (Hundredths) Schema(huma.Registry) *huma.Schema { return &huma.Schema{Type: huma.TypeNumber} }
