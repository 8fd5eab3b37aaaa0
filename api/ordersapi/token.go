package ordersapi

import (
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
)

const tokenPurpose = "order-token"

// SealOrderToken makes the token by which a guest sees an order until it expires. Every module that shows something of an
// order to a guest checks it by itself, with OpenOrderToken.
func SealOrderToken(s auth.Secret, order ID, expires time.Time) string {
	return s.Seal(tokenPurpose, string(order)+"|"+strconv.FormatInt(expires.Unix(), 10))
}

// OpenOrderToken is the order a token shows; false for a forged or expired one.
func OpenOrderToken(s auth.Secret, token string, now time.Time) (ID, bool) {
	payload, ok := s.Open(tokenPurpose, token)
	if !ok {
		return "", false
	}
	order, expiry, _ := strings.Cut(payload, "|")
	unix, err := strconv.ParseInt(expiry, 10, 64)
	if err != nil || now.Unix() >= unix {
		return "", false
	}
	return ID(order), true
}
