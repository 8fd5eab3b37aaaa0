// Package telemetry sets up what a process tells about itself: its log, its traces and its metrics, and the listener that
// operators ask. When no collector is named, tracing is off and costs nothing.
//
// It decides nothing about what is worth telling: modules log where an error stops, and rpc, web, events and pg count and
// trace for all of them. It serves no request of a customer.
package telemetry

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config is what a process tells, and to whom. The zero value logs to stderr from Info on, and traces nothing.
type Config struct {
	Service string // the name in traces; "": shop
	Process string // which process of the placement, such as main; "" leaves it out
	Version string // of the binary; "" leaves it out

	LogLevel  slog.Level
	LogFormat string    // text, json or auto, which is text on a terminal and JSON elsewhere; "": auto
	LogTo     io.Writer // nil: stderr

	// TraceTo is the URL of an OTLP/HTTP collector, such as http://127.0.0.1:4318, with a path if that is not /v1/traces; "": OTEL_EXPORTER_OTLP_ENDPOINT, and if
	// that is empty too, no tracing.
	TraceTo string
	// TraceRatio is the part of traces that is kept, from 0 to 1. Who calls us decides for its own traces.
	TraceRatio float64
}

// Validate says what to change.
func (c Config) Validate() error {
	switch c.LogFormat {
	case "", "auto", "text", "json":
	default:
		return fmt.Errorf("log format %q: write text, json or auto", c.LogFormat)
	}
	if c.TraceRatio < 0 || c.TraceRatio > 1 {
		return fmt.Errorf("trace ratio %v: write a part from 0 to 1, such as 0.05", c.TraceRatio)
	}
	return nil
}

// Telemetry is what Setup made.
type Telemetry struct {
	Log     *slog.Logger
	Metrics *prometheus.Registry
	Tracer  trace.TracerProvider // no-op when tracing is off
	Tracing bool

	shutdown func(context.Context) error
}

// Setup makes the log, the registry and the tracer, which whoever makes spans is given: none is the process's own, so that several
// in a process tell of themselves. Only what the exporter itself complains of goes to the log of the last.
func Setup(ctx context.Context, c Config) (*Telemetry, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	t := &Telemetry{
		Log:      slog.New(NewHandler(cmp.Or[io.Writer](c.LogTo, os.Stderr), c.LogFormat, c.LogLevel)),
		Metrics:  prometheus.NewRegistry(),
		Tracer:   noop.NewTracerProvider(),
		shutdown: func(context.Context) error { return nil },
	}
	t.Metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	var options []otlptracehttp.Option
	switch {
	case c.TraceTo != "":
		to, err := url.Parse(c.TraceTo)
		if err != nil {
			return nil, fmt.Errorf("trace to %s: %w", c.TraceTo, err)
		}
		if strings.Trim(to.Path, "/") == "" { // the exporter would take the URL at its word
			to.Path = "/v1/traces"
		}
		options = append(options, otlptracehttp.WithEndpointURL(to.String()))
	case os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "":
		return t, nil
	}
	exporter, err := otlptracehttp.New(ctx, options...) // it reads the environment itself
	if err != nil {
		return nil, fmt.Errorf("trace to %s: %w", c.TraceTo, err)
	}
	attributes := []attribute.KeyValue{attribute.String("service.name", cmp.Or(c.Service, "shop"))}
	if c.Process != "" {
		attributes = append(attributes, attribute.String("service.instance.id", c.Process))
	}
	if c.Version != "" {
		attributes = append(attributes, attribute.String("service.version", c.Version))
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(resource.NewSchemaless(attributes...)),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.TraceRatio))),
	)
	// A collector that is away is worth a line, not a flood of them on stderr.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { t.Log.Debug("trace", "err", err) }))
	t.Tracer, t.Tracing, t.shutdown = provider, true, provider.Shutdown
	return t, nil
}

// Shutdown sends what traces are left.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	if err := t.shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}
