package web

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/banyan-shop/banyan/platform/errs"
)

// Cursors signs and reads keyset cursors.
type Cursors struct{ key []byte }

// NewCursors derives the signing key from the shop's secret.
func NewCursors(key []byte) Cursors { return Cursors{key} }

const (
	cursorVersion = 1
	cursorMAC     = 16   // half of SHA-256 is as hard to forge as anybody needs, and cursors go into addresses
	maxCursor     = 1024 // room for a sort by a long name
)

// Encode makes a cursor of the last row's sort key; list names the list, its sort and its filters, so that a cursor of
// another list is refused.
func (c Cursors) Encode(list string, position any) string {
	payload, err := json.Marshal(position, json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("web: cursor of %s: %v", list, err)) // a position is a struct of plain values
	}
	b := append([]byte{cursorVersion}, c.sign(list, payload)...)
	text := base64.RawURLEncoding.EncodeToString(append(b, payload...))
	if len(text) > maxCursor {
		panic(fmt.Sprintf("web: cursor of %s: a position of %d bytes is too long", list, len(payload)))
	}
	return text
}

// Decode reads a cursor into position. "" leaves it alone and returns false. A foreign or forged one is errs.Invalid with
// code invalid_cursor.
func (c Cursors) Decode(list, cursor string, position any) (bool, error) {
	if cursor == "" {
		return false, nil
	}
	invalid := errs.Invalidf("invalid_cursor", "The cursor is not one of this list.").WithField("query.cursor", "wrong_format")
	if len(cursor) > maxCursor || strings.ContainsAny(cursor, "\r\n") { // the decoder skips line ends
		return false, invalid
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(b) < 1+cursorMAC || b[0] != cursorVersion {
		return false, invalid
	}
	mac, payload := b[1:1+cursorMAC], b[1+cursorMAC:]
	if !hmac.Equal(mac, c.sign(list, payload)) {
		return false, invalid
	}
	if err := json.Unmarshal(payload, position); err != nil {
		return false, invalid // made by an older release with another position
	}
	return true, nil
}

func (c Cursors) sign(list string, payload []byte) []byte {
	mac := hmac.New(sha256.New, c.key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(list))) // so that list and payload can't trade characters
	mac.Write([]byte{cursorVersion})
	mac.Write(n[:])
	mac.Write([]byte(list))
	mac.Write(payload)
	return mac.Sum(nil)[:cursorMAC]
}
