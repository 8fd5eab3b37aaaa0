package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

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
		if isFinal(err) {
			cause = finalCause{opaque{err}}
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

// finalCause marks an error about which all has been done that may be: this process, or one further down, has retried it as far
// as its budget went, or was not allowed to ask at all. It crosses the wire, since one layer retries and not each.
type finalCause struct{ opaque }

// final marks err, an *errs.Error, and keeps what it is.
func final(err error) error {
	var e *errs.Error
	if !errors.As(err, &e) || isFinal(e) {
		return err
	}
	cause := e.Unwrap()
	if cause == nil {
		cause = errors.New("not asked again")
	}
	return (&errs.Error{Kind: e.Kind, Code: e.Code, Message: e.Message, Fields: e.Fields, Details: e.Details}).Because(finalCause{opaque{cause}})
}

func isFinal(err error) bool {
	var f finalCause
	return errors.As(err, &f)
}

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

func malformed(text string) *errs.Error { return errs.New(errs.Malformed, "", "%s", text) }

func tooLarge() error {
	return errs.New(errs.TooLarge, "", "a call between modules carries at most 16 MiB")
}

// connectCode is a kind in the words of the Connect protocol, for those who speak only that.
type connectCode struct {
	name   string
	status int
}

var connectCodes = map[errs.Kind]connectCode{
	errs.Malformed: {"invalid_argument", 400}, errs.Invalid: {"invalid_argument", 400}, errs.TooLarge: {"invalid_argument", 400},
	errs.Unauthenticated: {"unauthenticated", 401}, errs.Forbidden: {"permission_denied", 403},
	errs.NotFound: {"not_found", 404}, errs.Conflict: {"aborted", 409}, errs.Declined: {"failed_precondition", 400},
	errs.PreconditionFailed: {"failed_precondition", 400}, errs.PreconditionRequired: {"failed_precondition", 400},
	errs.RateLimited: {"resource_exhausted", 429}, errs.Internal: {"internal", 500},
	errs.Unavailable: {"unavailable", 503}, errs.NoAnswer: {"deadline_exceeded", 504},
}

func codeOf(k errs.Kind) string {
	if c, ok := connectCodes[k]; ok {
		return c.name
	}
	return connectCodes[errs.Internal].name
}

func statusOf(k errs.Kind) int {
	if c, ok := connectCodes[k]; ok {
		return c.status
	}
	return connectCodes[errs.Internal].status
}

// outcome is what a try came to; the zero outcome is an answer.
type outcome struct {
	err    error // an *errs.Error
	retry  bool  // another try may help: nobody answered, or the callee said unavailable
	health health
}

// unanswered reads a transport's failure, which came after so long.
func unanswered(ctx context.Context, err error, after time.Duration) outcome {
	var said *errs.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return outcome{err: noAnswer(err), health: unclear}
	case ctx.Err() != nil && after < fairTime:
		return outcome{err: noAnswer(err), health: unclear}
	case ctx.Err() != nil:
		return outcome{err: noAnswer(err), health: sick}
	case errors.As(err, &said) && said.Kind == errs.Unavailable:
		e := &errs.Error{Kind: said.Kind, Code: said.Code, Message: said.Message}
		return outcome{err: e.Because(opaque{err}), retry: true, health: sick}
	case neverSent(err):
		return outcome{err: errs.Unavailablef("nobody listens there").Because(opaque{err}), retry: true, health: sick}
	}
	return outcome{err: noAnswer(err), retry: true, health: sick}
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

// refused reads an answer that is an error.
func refused(answer *http.Response, body []byte) outcome {
	var w wireError
	if json.Unmarshal(body, &w) != nil || w.Code == "" {
		return refusedByStatus(answer.StatusCode)
	}
	e, ours := w.error()
	if !ours {
		kind := kindOf(w.Code)
		e = &errs.Error{Kind: kind, Code: string(kind), Message: "the answer was " + w.Code}
	}
	switch {
	case answer.Header.Get(retriedHeader) != "":
		return outcome{err: final(e)}
	case e.Code == errs.CodeOverloaded: // it is well, and to ask again would be more of what it has too much of
		return outcome{err: final(e)}
	case e.Kind == errs.Unavailable && w.Code != "unimplemented":
		return outcome{err: e, retry: true, health: sick}
	}
	return outcome{err: e}
}

// refusedByStatus reads an answer that is not of this protocol: a proxy's, or of a server that does not know the method.
func refusedByStatus(status int) outcome {
	e := errs.New(errs.NoAnswer, "", "no answer in time: it may have happened")
	o := outcome{}
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType: // somebody answered, but nothing happened
		e = errs.New(errs.Unavailable, "not_served", "the callee does not answer this method")
	case http.StatusUnauthorized:
		e = errs.New(errs.Unauthenticated, "", "the answer was %s", http.StatusText(status))
	case http.StatusForbidden:
		e = errs.New(errs.Forbidden, "", "the answer was %s", http.StatusText(status))
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		e = errs.Unavailablef("the answer was %s", http.StatusText(status))
		o = outcome{retry: true, health: sick}
	case http.StatusBadGateway, http.StatusGatewayTimeout: // whoever is between us may have asked
		o = outcome{retry: true, health: sick}
	}
	o.err = e.Because(opaque{errors.New("the answer was " + http.StatusText(status))})
	return o
}

// kindOf reads a code of a server that is not ours.
func kindOf(code string) errs.Kind {
	switch code {
	case "invalid_argument", "out_of_range":
		return errs.Malformed
	case "unauthenticated":
		return errs.Unauthenticated
	case "permission_denied":
		return errs.Forbidden
	case "not_found":
		return errs.NotFound
	case "already_exists", "aborted", "failed_precondition":
		return errs.Conflict
	case "unimplemented", "unavailable":
		return errs.Unavailable
	case "resource_exhausted":
		return errs.RateLimited
	case "deadline_exceeded", "canceled", "unknown":
		return errs.NoAnswer
	}
	return errs.Internal
}

func joined(list []error) error { return errors.Join(list...) }
