// Package sqltext reads PostgreSQL well enough to tell which schemas a statement names. It is a tokenizer and a walk over the
// few places where a relation can stand; it does not judge whether the statement is valid, PostgreSQL does that.
package sqltext

import "strings"

type kind int

const (
	word    kind = iota // an identifier or keyword: text is folded to lower case, or as written between double quotes
	str                 // a string: text is its content
	body                // a dollar-quoted string
	number              // a number or $1
	punct               // one character, or ::
	hidden              // something that hides a name: U&"…"
	badText             // an unterminated string or comment
)

type token struct {
	kind   kind
	text   string
	quoted bool // a word in double quotes, never a keyword
	pos    int  // byte offset of the token; for a body of its content
}

func (t token) is(keyword string) bool { return t.kind == word && !t.quoted && t.text == keyword }

func (t token) isAny(keywords ...string) bool {
	for _, k := range keywords {
		if t.is(k) {
			return true
		}
	}
	return false
}

func (t token) punct(s string) bool { return t.kind == punct && t.text == s }

func letter(c byte) bool { return c == '_' || c >= 0x80 || 'a' <= c|0x20 && c|0x20 <= 'z' }
func digit(c byte) bool  { return '0' <= c && c <= '9' }

// scan cuts a text into tokens; comments and blanks vanish.
func scan(s string) (out []token) {
	for i := 0; i < len(s); {
		c := s[i]
		start := i
		add := func(k kind, text string, end int) {
			out = append(out, token{kind: k, text: text, pos: start})
			i = end
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			i++
		case strings.HasPrefix(s[i:], "--"):
			if n := strings.IndexAny(s[i:], "\r\n"); n >= 0 {
				i += n
			} else {
				i = len(s)
			}
		case strings.HasPrefix(s[i:], "/*"):
			end := comment(s, i)
			if end < 0 {
				add(badText, "comment", len(s))
			} else {
				i = end
			}
		case c == '\'':
			text, end := quote(s, i, '\'', false)
			if end < 0 {
				add(badText, "string", len(s))
			} else {
				add(str, text, end)
			}
		case c == '"':
			text, end := quote(s, i, '"', false)
			if end < 0 {
				add(badText, "identifier", len(s))
			} else {
				add(word, text, end)
				out[len(out)-1].quoted = true
			}
		case (c|0x20 == 'e' || c|0x20 == 'b' || c|0x20 == 'x' || c|0x20 == 'n') && i+1 < len(s) && s[i+1] == '\'':
			text, end := quote(s, i+1, '\'', c|0x20 == 'e')
			if end < 0 {
				add(badText, "string", len(s))
			} else {
				add(str, text, end)
			}
		case c|0x20 == 'u' && strings.HasPrefix(s[i+1:], "&"):
			if i+2 < len(s) && (s[i+2] == '"' || s[i+2] == '\'') {
				_, end := quote(s, i+2, s[i+2], false)
				if end < 0 {
					end = len(s)
				}
				add(hidden, s[i:end], end)
			} else {
				add(word, "u", i+1)
			}
		case c == '$':
			if text, at, end, ok := dollar(s, i); ok {
				out = append(out, token{kind: body, text: text, pos: at})
				i = end
				break
			}
			j := i + 1
			for j < len(s) && digit(s[j]) {
				j++
			}
			add(number, s[i:j], j)
		case letter(c):
			j := i + 1
			for j < len(s) && (letter(s[j]) || digit(s[j]) || s[j] == '$') {
				j++
			}
			add(word, strings.ToLower(s[i:j]), j)
		case digit(c):
			j := i + 1
			for j < len(s) && (digit(s[j]) || letter(s[j]) || s[j] == '.' && j+1 < len(s) && digit(s[j+1])) {
				j++
			}
			add(number, s[i:j], j)
		case strings.HasPrefix(s[i:], "::"):
			add(punct, "::", i+2)
		default:
			add(punct, s[i:i+1], i+1)
		}
	}
	return out
}

// comment is the end of the block comment at i; they nest.
func comment(s string, i int) int {
	depth := 0
	for i < len(s) {
		switch {
		case strings.HasPrefix(s[i:], "/*"):
			depth++
			i += 2
		case strings.HasPrefix(s[i:], "*/"):
			depth--
			i += 2
			if depth == 0 {
				return i
			}
		default:
			i++
		}
	}
	return -1
}

// quote reads from the opening q at i to its end; a doubled q is one, and escapes makes backslashes hide the next character.
func quote(s string, i int, q byte, escapes bool) (string, int) {
	var b strings.Builder
	for i++; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == q && i+1 < len(s) && s[i+1] == q:
			b.WriteByte(q)
			i++
		case s[i] == q:
			return b.String(), i + 1
		default:
			b.WriteByte(s[i])
		}
	}
	return "", -1
}

// dollar reads $tag$…$tag$ at i: its content, where that begins, and where the whole ends.
func dollar(s string, i int) (text string, at, end int, ok bool) {
	j := i + 1
	for j < len(s) && (letter(s[j]) || digit(s[j]) && j > i+1) {
		j++
	}
	if j >= len(s) || s[j] != '$' {
		return "", 0, 0, false
	}
	tag := s[i : j+1]
	n := strings.Index(s[j+1:], tag)
	if n < 0 {
		return "", 0, 0, false
	}
	return s[j+1 : j+1+n], j + 1, j + 1 + n + len(tag), true
}
