// Package errs is the one error type that callers act on. An Error crosses module and process borders as its kind,
// code, message, fields and details; whatever it wraps stays at home and only reaches the log.
//
// An error without a kind is Internal: the caller can do nothing with it, and its text is never shown to a client.
package errs

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// Kind says what a caller can do about an error. Kinds cross the wire: append, never rename.
type Kind string

const (
	Malformed            Kind = "malformed"             // the request can't be read: 400
	Unauthenticated      Kind = "unauthenticated"       // no or no valid credentials: 401
	Declined             Kind = "declined"              // the payment was refused: 402
	Forbidden            Kind = "forbidden"             // known caller, not allowed: 403
	NotFound             Kind = "not_found"             // absent, or not the caller's: 404
	Conflict             Kind = "conflict"              // the state does not allow it now: 409
	PreconditionFailed   Kind = "precondition_failed"   // If-Match is stale: 412
	TooLarge             Kind = "too_large"             // 413
	Invalid              Kind = "invalid"               // readable, but a value is out of its range: 422
	PreconditionRequired Kind = "precondition_required" // If-Match or Idempotency-Key is missing: 428
	RateLimited          Kind = "rate_limited"          // 429
	Internal             Kind = "internal"              // 500
	Unavailable          Kind = "unavailable"           // nothing happened, try again: 503
	NoAnswer             Kind = "no_answer"             // it may have happened: ask again with the same key: 504
)

// Error is a refusal or failure that a caller may act on.
type Error struct {
	Kind    Kind            `json:"kind"`
	Code    string          `json:"code"`              // stable, snake_case, documented; defaults to the kind
	Message string          `json:"message"`           // for people; never holds a rejected value, SQL or a secret
	Fields  []Field         `json:"fields,omitempty"`  // which parts of the request are wrong
	Details json.RawMessage `json:"details,omitempty"` // what a client needs to go on, such as the changed cart
	cause   error
}

// Field points at one wrong part of a request.
type Field struct {
	Pointer string `json:"pointer"` // JSON pointer into the body, or "query.limit", "path.id", "header.If-Match"
	Code    string `json:"code"`    // such as required, unknown, out_of_range
}

func (e *Error) Error() string {
	if e.cause != nil {
		return e.Message + ": " + e.cause.Error()
	}
	return e.Message
}

func (e *Error) Unwrap() error { return e.cause }

// CodeOverloaded is the code of Overloaded.
const CodeOverloaded = "overloaded"

// Overloaded is the refusal of what there is no time for. Nothing has happened, and asking at once again makes it worse.
func Overloaded() *Error {
	return New(Unavailable, CodeOverloaded, "There is more to do than can be done.")
}

// New makes a coded error. An empty code means the kind's own name.
func New(kind Kind, code, format string, args ...any) *Error {
	if code == "" {
		code = string(kind)
	}
	return &Error{Kind: kind, Code: code, Message: fmt.Sprintf(format, args...)}
}

// Because keeps err as the cause, for the log alone, and returns e.
func (e *Error) Because(err error) *Error {
	e.cause = err
	return e
}

// NotFoundf says that something is absent, or not the caller's.
func NotFoundf(format string, args ...any) *Error { return New(NotFound, "", format, args...) }

// Invalidf says that a readable value is out of its range.
func Invalidf(code, format string, args ...any) *Error { return New(Invalid, code, format, args...) }

// Conflictf says that the state does not allow the request now.
func Conflictf(code, format string, args ...any) *Error { return New(Conflict, code, format, args...) }

// Unavailablef says that nothing happened and a later try may succeed.
func Unavailablef(format string, args ...any) *Error { return New(Unavailable, "", format, args...) }

// WithField adds a pointer to a wrong part of the request and returns e.
func (e *Error) WithField(pointer, code string) *Error {
	e.Fields = append(e.Fields, Field{Pointer: pointer, Code: code})
	return e
}

// WithDetails attaches v as JSON and returns e. v must be encodable.
func (e *Error) WithDetails(v any) *Error {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("errs: details of %s: %v", e.Code, err))
	}
	e.Details = b
	return e
}

// DetailsInto decodes the details of err, if it has any, into v and says whether it did.
func DetailsInto(err error, v any) bool {
	var e *Error
	return errors.As(err, &e) && len(e.Details) > 0 && json.Unmarshal(e.Details, v) == nil
}

// KindOf is err's kind; Internal for an error without one, "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is says whether err has the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// CodeOf is err's code; "internal" for an error without one, "" for nil.
func CodeOf(err error) string {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return string(Internal)
}

// Has says whether err has the code.
func Has(err error, code string) bool { return err != nil && CodeOf(err) == code }

var statuses = map[Kind]int{
	Malformed: http.StatusBadRequest, Unauthenticated: http.StatusUnauthorized, Declined: http.StatusPaymentRequired,
	Forbidden: http.StatusForbidden, NotFound: http.StatusNotFound, Conflict: http.StatusConflict,
	PreconditionFailed: http.StatusPreconditionFailed, TooLarge: http.StatusRequestEntityTooLarge,
	Invalid: http.StatusUnprocessableEntity, PreconditionRequired: http.StatusPreconditionRequired,
	RateLimited: http.StatusTooManyRequests, Internal: http.StatusInternalServerError,
	Unavailable: http.StatusServiceUnavailable, NoAnswer: http.StatusGatewayTimeout,
}

// Status is the HTTP status of a kind; 500 for one that is not known.
func (k Kind) Status() int {
	if s, ok := statuses[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}
