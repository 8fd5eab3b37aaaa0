package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
)

// observeEvery is how many local calls share one measured duration: reading the clock twice costs as much as the call.
const observeEvery = 16

// callLocal is a plain call with what a wire would add: a deadline, the caller's identity, and errors without their causes'
// types.
func (b *binding[Req, Res]) callLocal(ctx context.Context, r Req) (Res, error) {
	measured := b.stats.calls.Add(1)%observeEvery == 1
	var span trace.Span
	if trace.SpanFromContext(ctx).IsRecording() {
		ctx, span = b.span(ctx, trace.SpanKindInternal)
	}
	var start time.Time
	if measured {
		start = time.Now()
	}
	var d *deadline
	if _, has := ctx.Deadline(); !has {
		d = &deadline{Context: ctx, at: time.Now().Add(b.conn.wiring.deadline())}
		ctx = d
	}
	res, err := b.invoke(auth.WithCaller(ctx, b.conn.caller), r)
	if d != nil {
		d.end()
	}
	if measured {
		b.stats.observe(time.Since(start))
	}
	if err != nil {
		err = b.failed(atHome(err))
	}
	if span != nil {
		endSpan(span, err)
	}
	return res, err
}

// invoke turns a panic into an error, so that a broken callee looks the same here and far away.
func (b *binding[Req, Res]) invoke(ctx context.Context, r Req) (res Res, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(ctx, b.conn.wiring.log(), b.method.name, p)
		}
	}()
	return b.local(ctx, r)
}

func (b *binding[Req, Res]) failed(err error) error {
	b.stats.failed(err)
	return err
}

func (b *binding[Req, Res]) span(ctx context.Context, kind trace.SpanKind) (context.Context, trace.Span) {
	tracer := trace.SpanFromContext(ctx).TracerProvider().Tracer("banyan/rpc")
	return tracer.Start(ctx, b.method.name, trace.WithSpanKind(kind), trace.WithAttributes(
		attribute.String("rpc.system", "banyan"), attribute.String("banyan.caller", b.conn.caller), attribute.String("banyan.callee", b.conn.callee)))
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

func panicked(ctx context.Context, log *slog.Logger, method string, p any) error {
	log.ErrorContext(ctx, "panic in "+method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return internal(fmt.Errorf("panic: %v", p))
}
