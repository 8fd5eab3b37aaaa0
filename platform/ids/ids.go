// Package ids makes and checks prefixed ids such as ord_01jd9v3k9rf2wbt8m8y5sgv7zc: a kind, an underscore and a UUID in
// 26 characters of Crockford's base32, so that ids sort by time of making and can be told apart by eye.
package ids

import (
	"crypto/sha1"
	"encoding/base32"
	"strings"

	"github.com/google/uuid"
)

// ID is a prefixed id of some module's object. A module names its own ids (ordersapi.ID); those of others are plain IDs.
type ID string

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// New is a fresh id with the prefix: a UUIDv7, so later ids sort after earlier ones.
func New[T ~string](prefix string) T { return T(encode(prefix, uuid.Must(uuid.NewV7()))) }

// Derived is always the same id for the same name within a parent, a UUIDv5: for operation keys and rows that a repeat
// must find again.
func Derived[T ~string](prefix, parent, name string) T {
	sum := sha1.Sum([]byte(parent + "\x00" + name))
	var u uuid.UUID
	copy(u[:], sum[:])
	u[6] = u[6]&0x0f | 0x50
	u[8] = u[8]&0x3f | 0x80
	return T(encode(prefix, u))
}

func encode(prefix string, u uuid.UUID) string {
	return prefix + "_" + encoding.EncodeToString(u[:])
}

// Valid says whether s is a well-formed id with the prefix.
func Valid[T ~string](s T, prefix string) bool {
	rest, ok := strings.CutPrefix(string(s), prefix+"_")
	if !ok || len(rest) != 26 {
		return false
	}
	for i := range len(rest) {
		if strings.IndexByte(alphabet, rest[i]) < 0 {
			return false
		}
	}
	return true
}
