package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/banyan-shop/banyan/platform/errs"
)

// atHome is a callee's error as any caller sees it: an *errs.Error with the same kind, code, message, fields and details
// that the wire would carry. The rest is kept as text for the log, out of reach of errors.Is and errors.As.
func atHome(err error) error {
	var e *errs.Error
	if errors.As(err, &e) {
		if e == err && e.Unwrap() == nil {
			return e
		}
		var cause error = opaque{err}
		var r retriedCause
		if errors.As(err, &r) {
			cause = retriedCause{opaque{err}}
		}
		return (&errs.Error{Kind: e.Kind, Code: e.Code, Message: e.Message, Fields: e.Fields, Details: e.Details}).Because(cause)
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return noAnswer(err)
	}
	return internal(err)
}

// opaque keeps an error's text and hides its type.
type opaque struct{ err error }

func (o opaque) Error() string { return o.err.Error() }

func internal(cause error) error {
	return errs.New(errs.Internal, "", "something went wrong on our side").Because(opaque{cause})
}

// noAnswer is a call that was begun and whose outcome is unknown.
func noAnswer(cause error) error {
	return errs.New(errs.NoAnswer, "", "no answer in time: it may have happened").Because(opaque{cause})
}

// notSent is a call whose ctx had ended before it was begun.
func notSent(cause error) error {
	code, text := "deadline_exceeded", "no time was left to ask"
	if errors.Is(cause, context.Canceled) {
		code, text = "cancelled", "the caller has gone"
	}
	return errs.New(errs.Unavailable, code, "%s", text).Because(opaque{cause})
}

var toConnect = map[errs.Kind]connect.Code{
	errs.Malformed: connect.CodeInvalidArgument, errs.Invalid: connect.CodeInvalidArgument, errs.TooLarge: connect.CodeInvalidArgument,
	errs.Unauthenticated: connect.CodeUnauthenticated, errs.Forbidden: connect.CodePermissionDenied,
	errs.NotFound: connect.CodeNotFound, errs.Conflict: connect.CodeAborted, errs.Declined: connect.CodeFailedPrecondition,
	errs.PreconditionFailed: connect.CodeFailedPrecondition, errs.PreconditionRequired: connect.CodeFailedPrecondition,
	errs.RateLimited: connect.CodeResourceExhausted, errs.Internal: connect.CodeInternal,
	errs.Unavailable: connect.CodeUnavailable, errs.NoAnswer: connect.CodeDeadlineExceeded,
}

// retried marks an answer that is the end of the callee's own retries further down: one layer retries, not each.
const retriedHeader = "Rpc-Retried"

// toWire is an error of atHome for connect: its code for those who speak only that, and all of it as a detail.
func toWire(err error) *connect.Error {
	var e *errs.Error
	if !errors.As(err, &e) {
		errors.As(internal(err), &e)
	}
	code, ok := toConnect[e.Kind]
	if !ok {
		code = connect.CodeInternal
	}
	w := connect.NewError(code, errors.New(e.Message))
	if b, err := json.Marshal(e); err == nil {
		if d, err := connect.NewErrorDetail(wrapperspb.String(string(b))); err == nil {
			w.AddDetail(d)
		}
	}
	var r retriedCause
	if errors.As(e.Unwrap(), &r) {
		w.Meta().Set(retriedHeader, "1")
	}
	return w
}

// outcome is what a failed remote try means.
type outcome struct {
	err   error // an *errs.Error
	retry bool  // another try may help: nobody answered, or the callee said unavailable
	sick  bool  // the callee is at fault, so the breaker counts it
}

// fromWire reads what came back instead of an answer.
func fromWire(ctx context.Context, err error) outcome {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return outcome{err: noAnswer(err), retry: true, sick: true}
	}
	if connect.IsWireError(err) {
		if e, ok := detail(ce); ok {
			unavailable := e.Kind == errs.Unavailable && ce.Meta().Get(retriedHeader) == ""
			return outcome{err: e, retry: unavailable, sick: unavailable}
		}
		return outcome{err: fromStatus(ce), retry: ce.Code() == connect.CodeUnavailable, sick: ce.Code() == connect.CodeUnavailable}
	}
	if ce.Code() == connect.CodeUnimplemented { // somebody answered, but not for this method: nothing happened
		return outcome{err: errs.New(errs.Unavailable, "not_served", "the callee does not answer this method").Because(opaque{err})}
	}
	if ctx.Err() != nil {
		// Our own time is over: that tells of a slow callee, but not when the caller walked away.
		return outcome{err: noAnswer(err), sick: errors.Is(ctx.Err(), context.DeadlineExceeded)}
	}
	if neverSent(err) {
		return outcome{err: errs.Unavailablef("nobody listens there").Because(opaque{err}), retry: true, sick: true}
	}
	return outcome{err: noAnswer(err), retry: true, sick: true}
}

// neverSent says that no connection came about, so that nothing can have happened.
func neverSent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	var dns *net.DNSError
	return errors.As(err, &dns) || errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, io.EOF)
}

func detail(ce *connect.Error) (*errs.Error, bool) {
	for _, d := range ce.Details() {
		v, err := d.Value()
		if err != nil {
			continue
		}
		s, ok := v.(*wrapperspb.StringValue)
		if !ok {
			continue
		}
		var e errs.Error
		if json.Unmarshal([]byte(s.GetValue()), &e) == nil && e.Kind != "" {
			return &e, true
		}
	}
	return nil, false
}

// fromStatus reads an answer that is not of our Server: a proxy's, or connect's own before the handler.
func fromStatus(ce *connect.Error) error {
	kind := errs.Internal
	switch ce.Code() {
	case connect.CodeInvalidArgument:
		kind = errs.Malformed
	case connect.CodeUnauthenticated:
		kind = errs.Unauthenticated
	case connect.CodePermissionDenied:
		kind = errs.Forbidden
	case connect.CodeUnimplemented, connect.CodeUnavailable:
		kind = errs.Unavailable
	case connect.CodeResourceExhausted:
		kind = errs.RateLimited
	case connect.CodeDeadlineExceeded, connect.CodeCanceled, connect.CodeUnknown:
		kind = errs.NoAnswer
	}
	return errs.New(kind, "", "the answer was %s", ce.Code()).Because(opaque{ce})
}

// retriedCause marks an error that this process has retried already.
type retriedCause struct{ opaque }

func joined(list []error) error { return errors.Join(list...) }
