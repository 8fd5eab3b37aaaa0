package orders

import (
	"strings"

	"github.com/banyan-shop/banyan/platform/errs"
)

// refuseCards refuses a request that holds a card number anywhere: the shop takes a provider's tokens and wants to see no
// card, let alone store or log one.
func refuseCards(fields map[string]string) error {
	for pointer, text := range fields {
		if pointer == "/shipping_address/phone" && strings.HasPrefix(text, "+") && len(text) <= 16 {
			continue // an international phone number, one in ten of which looks like a card's
		}
		if holdsCard(text) {
			return errs.Invalidf("card_number_refused", "a card number must not be sent here: use a token of the payment provider").
				WithField(pointer, "card_number_refused")
		}
	}
	return nil
}

// holdsCard finds 13 to 19 digits with a card's check digit, in one piece anywhere or in groups that stand alone: groups that
// touch a letter are parts of a UUID more often than of a card.
func holdsCard(s string) bool {
	var digits []byte
	groups, touching := 0, false
	check := func() bool {
		n := len(digits)
		if groups > 1 && touching {
			return false
		}
		if n >= 13 && n <= 19 && luhn(digits) {
			return true
		}
		for size := 15; size < n && size <= 19; size++ { // hidden in a longer number
			for from := 0; from+size <= n; from++ {
				if d := digits[from : from+size]; d[0] >= '2' && d[0] <= '6' && luhn(d) {
					return true
				}
			}
		}
		return false
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			if i == 0 || s[i-1] < '0' || s[i-1] > '9' {
				groups++
				touching = touching || i > 0 && letter(s[i-1])
			}
			digits = append(digits, c)
		case c == ' ' || c == '-' || c == '.' || c == '\t':
			// a separator between groups
		default:
			touching = touching || letter(c) && i > 0 && s[i-1] >= '0' && s[i-1] <= '9'
			if check() {
				return true
			}
			digits, groups, touching = digits[:0], 0, false
		}
	}
	return check()
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80 }

func luhn(d []byte) bool {
	sum := 0
	for i := range d {
		n := int(d[len(d)-1-i] - '0')
		if i%2 == 1 {
			if n *= 2; n > 9 {
				n -= 9
			}
		}
		sum += n
	}
	return sum%10 == 0
}
