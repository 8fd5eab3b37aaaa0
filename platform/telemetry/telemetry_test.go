package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/banyan-shop/banyan/platform/telemetry"
)

const hush = "hunter2"

func TestSecretsAreNeverPrinted(t *testing.T) {
	t.Parallel()
	type login struct {
		Mail     telemetry.PII
		Password telemetry.Secret
		More     map[string]telemetry.Secret
	}
	l := login{hush, hush, map[string]telemetry.Secret{"again": hush}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%10s", "%T"} {
		for _, v := range []any{l, &l, l.Password, l.Mail, []telemetry.Secret{hush}, []any{l.Mail}} {
			says(t, format, fmt.Sprintf(format, v))
		}
	}
	says(t, "error", fmt.Errorf("log in %v: %w", l.Password, errors.New("no")).Error())
	b, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	says(t, "JSON", string(b))
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log := slog.New(telemetry.NewHandler(&out, format, slog.LevelInfo))
		log.With("mail", l.Mail).Info("in", "password", l.Password, "login", l, slog.Group("g", "s", l.Password))
		says(t, format+" log", out.String())
	}
	if l.Password.Reveal() != hush || l.Mail.Reveal() != hush {
		t.Error("Reveal does not reveal")
	}
}

func says(t *testing.T, how, text string) {
	t.Helper()
	for _, form := range []string{hush, fmt.Sprintf("%x", hush), fmt.Sprintf("%X", hush)} {
		if strings.Contains(text, form) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
}

func TestALineNamesItsTrace(t *testing.T) {
	t.Parallel()
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
	}))
	for _, format := range []string{"text", "json", "auto"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			log := slog.New(telemetry.NewHandler(&out, format, slog.LevelInfo)).With("module", "orders")
			log.InfoContext(ctx, "placed", "order", "ord_1")
			line := out.String()
			for _, want := range []string{"trace_id", "01000000000000000000000000000000", "span_id", "0200000000000000", "placed", "ord_1", "orders"} {
				if !strings.Contains(line, want) {
					t.Errorf("no %s in %s", want, line)
				}
			}
			out.Reset()
			log.InfoContext(t.Context(), "placed")
			if strings.Contains(out.String(), "trace_id") {
				t.Errorf("a trace out of nowhere: %s", out.String())
			}
		})
	}
}

func TestTextIsForPeople(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	h := telemetry.NewHandler(&out, "text", slog.LevelInfo)
	at := time.Date(2026, 11, 23, 9, 30, 0, 0, time.UTC)
	say := func(h slog.Handler, level slog.Level, message string, attrs ...slog.Attr) {
		r := slog.NewRecord(at, level, message, 0)
		r.AddAttrs(attrs...)
		if err := h.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	say(h, slog.LevelInfo, "listening", slog.String("at", "127.0.0.1:8080"))
	say(h.WithAttrs([]slog.Attr{slog.String("module", "orders")}), slog.LevelError, "resume checkout", slog.Any("err", errors.New("no answer")))
	say(h.WithGroup("order"), slog.LevelWarn, "odd", slog.Int("lines", 3), slog.Group("buyer", "id", "usr_1"), slog.String("note", ""))
	say(h, slog.LevelInfo, "a customer's\ntext \x1b[31m", slog.String("note", "two\nlines"))
	want := `09:30:00 INFO  listening at=127.0.0.1:8080
09:30:00 ERROR resume checkout module=orders err="no answer"
09:30:00 WARN  odd order.lines=3 order.buyer.id=usr_1 order.note=""
09:30:00 INFO  a customer's�text �[31m note="two\nlines"
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if h.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("debug lines are on")
	}
}

func TestAnImpossibleConfigIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []telemetry.Config{{LogFormat: "xml"}, {TraceRatio: 2}, {TraceRatio: -1}} {
		if _, err := telemetry.Setup(t.Context(), c); err == nil {
			t.Errorf("%+v is taken", c)
		}
	}
}

// Setup reads the environment, so this one is not parallel and tells its story in order.
func TestSetup(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
	off, err := telemetry.Setup(t.Context(), telemetry.Config{LogTo: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if _, span := off.Tracer.Tracer("test").Start(t.Context(), "nothing"); span.IsRecording() || off.Tracing {
		t.Error("it traces though no collector is named")
	}

	var at atomic.Value // the path of the last
	received := make(chan *collector.ExportTraceServiceRequest, 8)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		var req collector.ExportTraceServiceRequest
		if err := proto.Unmarshal(b, &req); err != nil {
			t.Errorf("not OTLP at %s: %v", r.URL, err)
		}
		at.Store(r.URL.Path)
		received <- &req
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	for to, path := range map[string]string{"": "/v1/traces", server.URL: "/v1/traces", server.URL + "/": "/v1/traces", server.URL + "/v9/spans": "/v9/spans"} {
		named, err := telemetry.Setup(t.Context(), telemetry.Config{TraceTo: to, TraceRatio: 1, LogTo: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		_, span := named.Tracer.Tracer("test").Start(t.Context(), "knock")
		span.End()
		if err := named.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if <-received; at.Load() != path {
			t.Errorf("traces to %q come to %s, want %s", to, at.Load(), path)
		}
	}
	on, err := telemetry.Setup(t.Context(), telemetry.Config{Process: "main", Version: "v1", TraceRatio: 1, LogTo: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	_, span := on.Tracer.Tracer("test").Start(t.Context(), "place order")
	span.End()
	if err := on.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := (<-received).ResourceSpans[0]
	if name := got.ScopeSpans[0].Spans[0].Name; name != "place order" {
		t.Errorf("the collector got span %q", name)
	}
	if text := got.Resource.String(); !strings.Contains(text, `"shop"`) || !strings.Contains(text, `"main"`) {
		t.Errorf("the collector got resource %s", text)
	}
}

func TestOperatorsSeeMetrics(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{LogTo: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	red := telemetry.NewRED(tel.Metrics, "http", "requests", "route")
	red.Observe(3*time.Millisecond, "ok", "GET /v1/products")
	red.Observe(3*time.Millisecond, "not_found", "GET /v1/products")
	ops := tel.Ops()
	for path, want := range map[string]string{
		"/metrics":                  `banyan_http_total{outcome="not_found",route="GET /v1/products"} 1`,
		"/debug/pprof/":             "goroutine",
		"/debug/pprof/heap?debug=1": "heap profile",
	} {
		w := httptest.NewRecorder()
		ops.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), "GET", path, nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d, without %q", path, w.Code, want)
		}
	}
}
