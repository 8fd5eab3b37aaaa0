package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"go.opentelemetry.io/otel/trace"
)

// NewHandler is a slog handler that adds trace_id and span_id of the context. format is text, json, or auto ("" too): text
// when w is a terminal, else JSON. Text is coloured on a terminal unless NO_COLOR is set.
func NewHandler(w io.Writer, format string, level slog.Leveler) slog.Handler {
	terminal := false
	if f, ok := w.(*os.File); ok {
		terminal = isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd())
	}
	if format == "text" || format != "json" && terminal {
		return traced{&human{to: &output{w: w}, level: level, colour: terminal && os.Getenv("NO_COLOR") == ""}}
	}
	return traced{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})}
}

// traced adds the ids by which a log line is found from a trace, and a trace from a log line.
type traced struct{ slog.Handler }

func (h traced) Handle(ctx context.Context, r slog.Record) error {
	if s := trace.SpanContextFromContext(ctx); s.IsValid() {
		r.AddAttrs(slog.String("trace_id", s.TraceID().String()), slog.String("span_id", s.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{h.Handler.WithAttrs(attrs)} }
func (h traced) WithGroup(name string) slog.Handler       { return traced{h.Handler.WithGroup(name)} }

// human writes one line a record for people: time of day, level, message, then key=value.
type human struct {
	to     *output
	level  slog.Leveler
	colour bool
	prefix string // of groups: "order."
	given  string // attributes of WithAttrs, written out
}

type output struct {
	mu sync.Mutex
	w  io.Writer
}

func (h *human) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *human) Handle(_ context.Context, r slog.Record) error {
	var b bytes.Buffer
	if !r.Time.IsZero() {
		h.paint(&b, dim, r.Time.Format(time.TimeOnly))
		b.WriteByte(' ')
	}
	switch {
	case r.Level >= slog.LevelError:
		h.paint(&b, red, fmt.Sprintf("%-5s", r.Level))
	case r.Level >= slog.LevelWarn:
		h.paint(&b, yellow, fmt.Sprintf("%-5s", r.Level))
	default:
		h.paint(&b, dim, fmt.Sprintf("%-5s", r.Level))
	}
	b.WriteByte(' ')
	b.WriteString(plain(r.Message))
	b.WriteString(h.given)
	r.Attrs(func(a slog.Attr) bool {
		h.write(&b, h.prefix, a)
		return true
	})
	b.WriteByte('\n')
	h.to.mu.Lock()
	defer h.to.mu.Unlock()
	_, err := h.to.w.Write(b.Bytes())
	return err
}

func (h *human) WithAttrs(attrs []slog.Attr) slog.Handler {
	var b bytes.Buffer
	for _, a := range attrs {
		h.write(&b, h.prefix, a)
	}
	with := *h
	with.given += b.String()
	return &with
}

func (h *human) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.prefix += name + "."
	return &with
}

func (h *human) write(b *bytes.Buffer, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			prefix += a.Key + "."
		}
		for _, inner := range v.Group() {
			h.write(b, prefix, inner)
		}
		return
	}
	b.WriteByte(' ')
	h.paint(b, dim, plain(prefix+a.Key)+"=")
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().Format(time.RFC3339)
	}
	if text == "" || strings.ContainsAny(text, " \"=") || plain(text) != text {
		text = strconv.Quote(text)
	}
	b.WriteString(text)
}

const (
	dim    = "\x1b[2m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

func (h *human) paint(b *bytes.Buffer, colour, text string) {
	if !h.colour {
		b.WriteString(text)
		return
	}
	b.WriteString(colour)
	b.WriteString(text)
	b.WriteString(reset)
}

// plain takes out what would make a line two or steer the terminal: a message may hold a customer's text.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
