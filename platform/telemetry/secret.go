package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"net/url"
)

const hidden = "***"

// Secret is a text that must never be shown: it prints, logs and encodes as ***. Convert to make one, Reveal to use it. In an
// unexported field of a struct that is printed whole, fmt can't ask it and would show it: keep it in exported fields.
type Secret string

// PII is a text about a person, such as a mail address, that has no place in logs and traces. It hides as Secret does; the
// name says why.
type PII string

func (s Secret) Reveal() string { return string(s) }
func (s PII) Reveal() string    { return string(s) }

func (s Secret) String() string { return hidden }
func (s PII) String() string    { return hidden }

// Format covers every verb: %d of a plain string type prints its text inside a complaint.
func (s Secret) Format(f fmt.State, verb rune) { io.WriteString(f, hidden) }
func (s PII) Format(f fmt.State, verb rune)    { io.WriteString(f, hidden) }

func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
func (s PII) LogValue() slog.Value    { return slog.StringValue(hidden) }

// MarshalText hides it from JSON, YAML and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }
func (s PII) MarshalText() ([]byte, error)    { return []byte(hidden), nil }

// URL is a connection string: it shows without its password, and not at all where it isn't a URL, as key=value with a password
// perhaps is not.
type URL string

func (u URL) Reveal() string { return string(u) }

func (u URL) String() string {
	if u == "" {
		return ""
	}
	parsed, err := url.Parse(string(u))
	if err != nil || parsed.Host == "" && parsed.User == nil {
		return hidden
	}
	return parsed.Redacted()
}

// LogValue keeps the password out of the log.
func (u URL) LogValue() slog.Value { return slog.StringValue(u.String()) }
