package catalog

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// letters that Unicode does not take apart, as people type them without the mark.
var letters = strings.NewReplacer("ß", "ss", "ø", "o", "ł", "l", "đ", "d", "ð", "d", "þ", "th", "æ", "ae", "œ", "oe", "ı", "i")

// fold is text in lower case and without marks: what is searched, and what is searched for, go through it alike.
func fold(text string) string {
	plain := true
	for i := range len(text) {
		if text[i] >= 0x80 {
			plain = false
			break
		}
	}
	text = strings.ToLower(text)
	if plain {
		return text
	}
	var b strings.Builder
	for _, r := range norm.NFKD.String(text) {
		if !unicode.Is(unicode.Mn, r) {
			b.WriteRune(r)
		}
	}
	return letters.Replace(b.String())
}

// slugify is a name as a part of an address: letters and digits with dashes between, never an underscore.
func slugify(name string) string {
	var b strings.Builder
	dash := false
	for _, r := range fold(name) {
		if r == '\'' || r == '’' {
			continue
		}
		if r != '_' && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			if dash && b.Len() > 0 {
				b.WriteByte('-')
			}
			dash = false
			b.WriteRune(r)
		} else {
			dash = true
		}
		if b.Len() >= 80 {
			break
		}
	}
	if b.Len() == 0 {
		return "product"
	}
	return b.String()
}

// maxWords bounds a search: each word is a scan of the index.
const maxWords = 12

// tsquery is what somebody typed as PostgreSQL's query: all words, the last one perhaps unfinished. "" when there is no word.
func tsquery(typed string) string {
	words := strings.FieldsFunc(fold(typed), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	if len(words) == 0 {
		return ""
	}
	if len(words) > maxWords {
		words = words[:maxWords]
	}
	return strings.Join(words, " & ") + ":*"
}
