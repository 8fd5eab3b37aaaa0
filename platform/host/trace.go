package host

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// tracer makes the spans of this process; nil when its log was given, which makes none.
func (h *Host) tracer() trace.TracerProvider {
	if h.telemetry == nil {
		return nil
	}
	return h.telemetry.Tracer
}

// traceSQL makes a span of each statement that belongs to a sampled trace; nil when tracing is off. The span holds the
// statement as it is written in the source, never its parameters.
func (h *Host) traceSQL() func(ctx context.Context, query string) func(error) {
	if h.telemetry == nil || !h.telemetry.Tracing {
		return nil
	}
	tracer := h.telemetry.Tracer.Tracer("banyan/pg")
	return func(ctx context.Context, query string) func(error) {
		if !trace.SpanFromContext(ctx).IsRecording() {
			return nil
		}
		_, span := tracer.Start(ctx, "sql", trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(
			attribute.String("db.system", "postgresql"), attribute.String("db.query.text", query)))
		return func(err error) {
			if err != nil {
				span.SetStatus(codes.Error, "failed") // the text may hold values
			}
			span.End()
		}
	}
}
