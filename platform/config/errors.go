package config

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one mistake in the settings and where it stands.
type Problem struct {
	Place   string // shop.yaml:4:3, SHOP_LISTEN or --listen; "" when a default is at fault
	Message string
	Excerpt string // the offending line with a caret below it; "" outside a file
}

func (p Problem) String() string {
	text := p.Message
	if p.Place != "" {
		text = p.Place + ": " + p.Message
	}
	if p.Excerpt != "" {
		text += "\n" + p.Excerpt
	}
	return text
}

// Errors is every mistake found in one pass.
type Errors struct{ Problems []Problem }

func (e *Errors) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (e *Errors) add(p Problem) { e.Problems = append(e.Problems, p) }

func (e *Errors) err() error {
	if len(e.Problems) == 0 {
		return nil
	}
	return e
}

// Join makes one *Errors of several errors of this package; any other error becomes a problem without a place. nils are left out.
func Join(errs ...error) error {
	var all Errors
	for _, err := range errs {
		if err == nil {
			continue
		}
		var e *Errors
		if errors.As(err, &e) {
			all.Problems = append(all.Problems, e.Problems...)
		} else {
			all.add(Problem{Message: err.Error()})
		}
	}
	return all.err()
}

// keyError is a complaint of a Validate about one key.
type keyError struct{ key, message string }

func (e *keyError) Error() string { return e.key + " " + e.message }

// Bad is for Validate: the value of key (relative to the validated block, dots nest) is wrong, and the message says what to
// do: config.Bad("pool", "must be at least 2: one connection is kept for the relay").
func Bad(key, format string, args ...any) error {
	return &keyError{key, fmt.Sprintf(format, args...)}
}

// DidYouMean is "; did you mean "listen"?" when a candidate is near enough, else "".
func DidYouMean(word string, candidates []string) string {
	best, near := "", 1+len(word)/3
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d <= near && (best == "" || d < distance(strings.ToLower(word), best)) {
			best = c
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is how many letters must be added, dropped, changed or swapped with their neighbour to make b of a.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
