package web

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	jsonv1 "github.com/go-json-experiment/json/v1"
)

const maxDepth = 32

// strict is how bodies are read: twice, first into maps for validation against the schema, then into the handler's struct.
// Its Marshal is never used, because exchanges write answers themselves.
var strict = huma.Format{
	Marshal: func(io.Writer, any) error { return nil },
	Unmarshal: func(data []byte, v any) error {
		if _, ok := v.(*any); ok {
			return readStrictly(data, v)
		}
		if err := json.Unmarshal(data, v, jsontext.AllowDuplicateNames(true)); err != nil {
			// What is well formed and yet does not fit, such as 1e30 for a whole number.
			var e *json.SemanticError
			if errors.As(err, &e) {
				return bodyError{pointer: string(e.JSONPointer)}
			}
			return bodyError{}
		}
		return nil
	},
}

// bodyError reaches us as text inside huma's errors: why as words, where as a pointer, never a value.
type bodyError struct {
	why     string
	pointer string
}

const bodyErrorMark = "body\x00"

func (e bodyError) Error() string { return bodyErrorMark + e.why + "\x00" + e.pointer }

func parseBodyError(text string) (bodyError, bool) {
	rest, ok := strings.CutPrefix(text, bodyErrorMark)
	why, pointer, _ := strings.Cut(rest, "\x00")
	return bodyError{why, pointer}, ok
}

func readStrictly(data []byte, v any) error {
	switch deep, nul := scan(data); {
	case deep:
		return bodyError{why: "it is nested more than 32 levels deep"}
	case nul:
		return bodyError{why: "a string holds the character U+0000"} // which no text of ours may, and PostgreSQL can't keep
	}
	err := json.Unmarshal(data, v)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jsontext.ErrDuplicateName):
		return bodyError{why: "a member appears twice"}
	default:
		return bodyError{why: "it is not one well-formed JSON value in UTF-8"}
	}
}

// scan counts brackets outside strings, before any decoder recurses into them, and looks for U+0000 inside.
func scan(data []byte) (deep, nul bool) {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			nul = nul || bytes.HasPrefix(data[i+1:], []byte("u0000"))
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			if depth++; depth > maxDepth {
				return true, nul
			}
		case c == ']' || c == '}':
			depth--
		}
	}
	return false, nul
}

// written is how answers are encoded: no null for an empty list, omitempty as everybody knows it, maps in order. Our own
// structs have no name twice, so nobody looks for it.
var written = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true),
	jsonv1.OmitEmptyWithLegacySemantics(true), json.Deterministic(true))

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer {
	b := buffers.Get().(*bytes.Buffer)
	b.Reset()
	return b
}

func putBuffer(b *bytes.Buffer) {
	if b != nil && b.Cap() <= 1<<20 { // one large body must not stay for ever
		buffers.Put(b)
	}
}

func encode(b *bytes.Buffer, v any) error { return json.MarshalWrite(b, v, written) }
