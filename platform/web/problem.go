package web

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/banyan-shop/banyan/platform/errs"
)

// problem is the body of every refusal and failure (RFC 9457).
type problem struct {
	Type      string          `json:"type" doc:"The page that explains the code" example:"/problems/not_found"`
	Title     string          `json:"title" doc:"What the code means"`
	Status    int             `json:"status" doc:"The HTTP status"`
	Detail    string          `json:"detail,omitempty" doc:"What happened this time, for people"`
	Instance  string          `json:"instance" doc:"This occurrence"`
	Code      string          `json:"code" doc:"Stable, for programs" example:"not_found"`
	Errors    []errs.Field    `json:"errors,omitempty" doc:"The parts of the request that are wrong"`
	Details   json.RawMessage `json:"details,omitempty" doc:"What a client needs to go on, depending on the code"`
	RequestID string          `json:"request_id" doc:"Name it when asking for help"`
}

// Error and the two below make problem what huma takes for an error, so that its schema is the documented one.
func (p *problem) Error() string             { return p.Code }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return problemType }

const problemType = "application/problem+json"

// refusal is an error with a status that errs has no kind for.
type refusal struct {
	status int
	e      *errs.Error
}

func (r *refusal) Error() string { return r.e.Error() }
func (r *refusal) Unwrap() error { return r.e }

func refuse(status int, code, detail string) error {
	return &refusal{status, errs.New("", code, "%s", detail)}
}

func notFound() error { return errs.NotFoundf("There is nothing at this address.") }

// retryAfter is the seconds to wait by code, where waiting helps.
var retryAfter = map[string]string{
	string(errs.RateLimited): "1", string(errs.Unavailable): "1", string(errs.NoAnswer): "2",
	"request_in_progress": "1", "checkout_in_progress": "2", "circuit_open": "5", "bulkhead_full": "1", "not_served": "5",
	"overloaded": "1", "switched_off": "30",
}

// unlogged are refusals that come in masses, on purpose, and are counted by their status.
var unlogged = map[string]bool{"overloaded": true, "switched_off": true}

// upstream are the codes of calls between modules that failed on their way.
var upstream = map[string]bool{string(errs.Unavailable): true, string(errs.NoAnswer): true, "circuit_open": true, "bulkhead_full": true, "not_served": true}

// fail writes err as a problem and logs it if it is our fault.
func (x *exchange) fail(err error) {
	status, e := http.StatusInternalServerError, (*errs.Error)(nil)
	var r *refusal
	switch {
	case errors.As(err, &r):
		status, e = r.status, r.e
	case errors.As(err, &e):
		status = e.Kind.Status()
	}
	if e == nil || status == http.StatusInternalServerError {
		if errors.Is(err, context.Canceled) && x.Context().Err() != nil {
			x.abandoned = true // the client has left: nobody reads an answer, and nobody is to blame
			return
		}
		e = errs.New(errs.Internal, "", "Something went wrong on our side. The request id helps us to find it.")
	}
	if status >= http.StatusInternalServerError && err != errPanicked && !unlogged[e.Code] {
		x.server.log.ErrorContext(x.Context(), "request failed", "request", x.id, "route", x.routeName(), "code", e.Code, "err", err)
	}
	if e.Code == errs.CodeOverloaded && x.server.config.Shed != nil && x.route != nil {
		x.server.config.Shed(x.route.Criticality) // at the door, or at a pool, here or in a module that was called
	}
	detail := e.Message
	if upstream[e.Code] {
		detail = "" // the words name modules and hosts; the title says what a client can know
	}
	p := problem{Type: "/problems/" + e.Code, Title: x.server.title(e.Code, status), Status: status, Detail: detail,
		Instance: "urn:banyan:request:" + x.id, Code: e.Code, Errors: e.Fields, Details: e.Details, RequestID: x.id}
	h := x.c.Response().Header()
	var told struct {
		RetryAfter int64 `json:"retry_after"` // seconds, where the handler knows them
	}
	if errs.DetailsInto(e, &told) && told.RetryAfter > 0 {
		h.Set("Retry-After", strconv.FormatInt(told.RetryAfter, 10))
	} else if s, ok := retryAfter[e.Code]; ok && h.Get("Retry-After") == "" {
		h.Set("Retry-After", s)
	} else if status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1")
	}
	if status == http.StatusUnauthorized {
		challenge := `Bearer realm="banyan"`
		if strings.HasPrefix(e.Code, "token_") {
			challenge += `, error="invalid_token"`
		}
		h.Set("WWW-Authenticate", challenge)
	}
	b := getBuffer()
	defer putBuffer(b)
	if err := encode(b, &p); err != nil {
		// Only details that are not JSON can do that; the code is worth more than they are.
		b.Reset()
		p.Details = nil
		_ = encode(b, &p)
	}
	x.write(status, problemType, b.Bytes())
}

// refuse keeps an error until the exchange is written.
func (x *exchange) refuse(err error) { x.err = err }

// fromHuma is the error for one of huma's, which echo values and speak of locations.
func fromHuma(status int, details []error) error {
	if status == http.StatusBadRequest {
		detail := "The body is missing or can't be read."
		if len(details) > 0 {
			var d huma.ErrorDetailer
			if errors.As(details[0], &d) {
				if e, ok := parseBodyError(d.ErrorDetail().Message); ok && e.why != "" {
					detail = "The body can't be read: " + e.why + "."
				}
			}
		}
		return errs.New(errs.Malformed, "malformed_body", "%s", detail)
	}
	if status != http.StatusUnprocessableEntity {
		return refuse(status, "malformed", http.StatusText(status))
	}
	e := errs.Invalidf("validation_failed", "Parts of the request are not valid.")
	for i, d := range details {
		if i == 32 { // enough to mend, too few to flood
			break
		}
		e.Fields = append(e.Fields, fieldOf(d))
	}
	return e
}

// messages tells a stable code from huma's words. The first prefix that fits wins.
var messages = []struct{ prefix, code string }{
	{"unexpected property", "unknown"}, {"unknown query parameter", "unknown"},
	{"required ", "required"}, {"expected property ", "required"},
	{"expected boolean", "wrong_type"}, {"expected number >", "out_of_range"}, {"expected number <", "out_of_range"},
	{"expected number to be a multiple", "out_of_range"}, {"expected number", "wrong_type"}, {"expected integer", "wrong_type"},
	{"expected string to", "wrong_format"}, {"expected string", "wrong_type"},
	{"expected array length >=", "too_few"}, {"expected array length <=", "too_many"}, {"expected array items", "repeated"},
	{"expected array", "wrong_type"}, {"expected object with at least", "too_few"}, {"expected object with at most", "too_many"},
	{"expected object", "wrong_type"}, {"expected length >=", "too_short"}, {"expected length <=", "too_long"},
	{"expected value to be one of", "not_allowed"}, {"expected at most one value", "repeated"},
	{"expected ", "wrong_format"}, {"invalid integer", "wrong_type"}, {"invalid float", "wrong_type"},
	{"invalid boolean", "wrong_type"}, {"invalid date", "wrong_format"},
}

func fieldOf(err error) errs.Field {
	var d huma.ErrorDetailer
	if !errors.As(err, &d) {
		var e *errs.Error
		if errors.As(err, &e) { // from a resolver of ours
			return errs.Field{Code: e.Code}
		}
		return errs.Field{Code: "invalid"}
	}
	detail := d.ErrorDetail()
	if e, ok := parseBodyError(detail.Message); ok {
		return errs.Field{Pointer: e.pointer, Code: "out_of_range"}
	}
	pointer := pointerOf(detail.Location)
	if rest, ok := strings.CutPrefix(detail.Message, "expected required property "); ok {
		name, _, _ := strings.Cut(rest, " to be present")
		return errs.Field{Pointer: pointer + "/" + name, Code: "required"}
	}
	for _, m := range messages {
		if strings.HasPrefix(detail.Message, m.prefix) {
			return errs.Field{Pointer: pointer, Code: m.code}
		}
	}
	return errs.Field{Pointer: pointer, Code: "invalid"}
}

// pointerOf turns body.lines[0].sku into /lines/0/sku and leaves query.limit. Names that a client made up are shown only
// when they look like names: a value put where a name belongs is not echoed.
func pointerOf(location string) string {
	rest, ok := strings.CutPrefix(location, "body")
	if !ok {
		if place, name, _ := strings.Cut(location, "."); !nameLike(name) {
			return place
		}
		return location
	}
	var b strings.Builder
	for _, part := range strings.FieldsFunc(rest, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		if !nameLike(part) {
			break
		}
		b.WriteByte('/')
		b.WriteString(part)
	}
	return b.String()
}

func nameLike(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	digits := 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '-', c == '[', c == ']':
		default:
			return false
		}
	}
	return digits < 8 // a card number has more
}
