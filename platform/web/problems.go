package web

import (
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"sort"
	"strings"
)

// Problem explains one code: its page is /problems/{code}.
type Problem struct{ Code, Title, Explanation string }

var codeShape = regexp.MustCompile(`^[a-z][a-z0-9_]{1,63}$`)

// Problem declares a code that the module's routes answer with. Declaring it twice with the same words is no harm.
func (r *Router) Problem(code, title, explanation string) {
	if !codeShape.MatchString(code) {
		panic("web: a problem's code is snake_case, not " + code)
	}
	p := Problem{code, title, explanation}
	if old, ok := r.app.problems[code]; ok && old != p {
		panic(fmt.Sprintf("web: the code %s is already explained: %q", code, old.Explanation))
	}
	r.app.problems[code] = p
}

// Problems lists every declared code.
func (r *Router) Problems() []Problem {
	all := make([]Problem, 0, len(r.app.problems))
	for _, p := range r.app.problems {
		all = append(all, p)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Code < all[j].Code })
	return all
}

// platformProblems are the codes of this package, of platform/errs' kinds, of platform/auth and of platform/pg.
var platformProblems = []Problem{
	{"malformed", "The request can't be read", "The request breaks the rules of HTTP or JSON. Sending it again unchanged will not help."},
	{"malformed_body", "The body can't be read", "The body is not one well-formed JSON value: a syntax error, text after its end, a member that appears twice, the character U+0000, or nesting deeper than 32 levels."},
	{"malformed_query", "The query can't be read", "The part of the address after the question mark is not properly percent-encoded UTF-8."},
	{"malformed_path", "The path can't be read", "The path holds empty or dot segments, encoded slashes, backslashes, semicolons or control characters. Send it in its plain form."},
	{"body_too_large", "The body is too large", "Most routes take up to 64 KiB. Split the request, or use the import for large amounts."},
	{"too_large", "The request is too large", "A part of the request is larger than the route takes."},
	{"unsupported_media_type", "The body is of the wrong type", "Send JSON as Content-Type: application/json in UTF-8 and without Content-Encoding, unless the route's description says otherwise."},
	{"validation_failed", "Parts of the request are not valid", "Each entry of errors names one part by a JSON pointer into the body, or as query.…, path.… or header.…, and says what is wrong with it: unknown, required, wrong_type, wrong_format, out_of_range, too_short, too_long, too_few, too_many, repeated or not_allowed."},
	{"invalid", "A value is not valid", "The request is readable, but a value is outside of what the route accepts."},
	{"invalid_cursor", "The cursor is not valid", "Cursors come from next_cursor and fit only the list, sort and filters they were made for. Start again without one."},
	{"invalid_if_match", "If-Match is not an entity tag", "Send the ETag of the last answer as it was, with its quotes: If-Match: \"7\"."},
	{"invalid_idempotency_key", "The Idempotency-Key is not valid", "A key has 1 to 255 visible ASCII characters. A random UUID is a good one."},
	{"idempotency_key_required", "An Idempotency-Key is required", "This route moves money or places orders. Send a key of your own making, and the same one when you try again: you will get the first answer."},
	{"idempotency_key_reused", "The Idempotency-Key was used for another request", "The same key came with another body. Use a new key for a new request."},
	{"key_reused", "The key was used for another request", "The same operation key came with other content. Use a new key for a new request."},
	{"key_required", "A key is required", "The operation must be repeatable, and needs a key of the caller's own making for that."},
	{"deadline_exceeded", "No time was left", "The time for the request was used up before all parts of the shop were asked. Nothing has happened in those not asked; try again."},
	{"cancelled", "The caller has gone", "The request was given up before all parts of the shop were asked."},
	{"request_in_progress", "The same request is being worked on", "A request with this Idempotency-Key has not ended yet. Try again after the seconds in Retry-After; you will get its answer."},
	{"unauthenticated", "Sign in first", "The route needs an access token: Authorization: Bearer …"},
	{"token_expired", "The access token has expired", "Get a new one with the refresh token and try again."},
	{"token_invalid", "The access token is not valid", "The token is malformed, was not made by this shop, or was revoked. Sign in again."},
	{"forbidden", "Not allowed", "The account lacks the permission that the route needs."},
	{"not_found", "Not found", "Nothing is there, or it belongs to somebody else."},
	{"method_not_allowed", "The method is not allowed", "The path exists, with the methods in the Allow header."},
	{"conflict", "The state does not allow it", "The request is valid, but not now. Read the object again to see why."},
	{"precondition_failed", "The object has changed", "If-Match names a version that is no longer the current one. Read it again, and repeat the change if it still makes sense."},
	{"precondition_required", "If-Match is required", "Send the ETag of the version that you want to change, so that nobody's change is lost."},
	{"declined", "The payment was declined", "The payment provider refused. Try another payment method."},
	{"rate_limited", "Too many requests", "The limit for this caller is used up. Wait for the seconds in Retry-After; RateLimit-Remaining tells how much is left."},
	{"internal", "Something went wrong on our side", "It is logged under the request id. Trying again may help."},
	{"unavailable", "Not available at the moment", "Nothing has happened. Try again after the seconds in Retry-After."},
	{"bulkhead_full", "A part of the shop is busy", "It has as many requests under way as it can take. Nothing has happened; try again after the seconds in Retry-After."},
	{"overloaded", "Too much to do", "More is asked of the shop than it can do at the moment, so it does what matters most. Nothing has happened; try again after the seconds in Retry-After."},
	{"switched_off", "Switched off", "The people who run the shop have switched this part of it off. Nothing has happened; try again later."},
	{"misrouted", "Runs elsewhere", "The request reached a process that does not run this part of the shop. Nothing has happened; try again."},
	{"too_many_headers", "Too many header fields", "A request has at most 100 header fields."},
	{"circuit_open", "A part of the shop is resting", "Too many calls to it failed, so it is left alone for a moment. Nothing has happened; try again after the seconds in Retry-After."},
	{"not_served", "Not served here", "No process serves this part of the shop at the moment. Nothing has happened; try again later."},
	{"no_answer", "No answer", "A part of the shop did not answer, and the request may have taken effect. Ask again with the same Idempotency-Key, or look at the object."},
	{"amount_too_large", "The amount is too large", "A sum of money does not fit."},
	{"currency_mismatch", "The currencies differ", "Amounts of different currencies can't be combined."},
	{"invalid_amount", "The amount is not valid", "An amount is digits, with at most as many after the point as its currency has."},
	{"unknown_currency", "The currency is unknown", "A currency is an ISO 4217 code such as EUR."},
}

// title is the code's title, or what the status means when nobody declared the code.
func (s *Server) title(code string, status int) string {
	if p, ok := s.problems[code]; ok {
		return p.Title
	}
	return http.StatusText(status)
}

var problemPage = template.Must(template.New("problem").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{{.Code}}</title></head>
<body>
<h1>{{.Title}}</h1>
<p><code>{{.Code}}</code></p>
<p>{{.Explanation}}</p>
<p><a href="/problems">All codes</a></p>
</body>
</html>
`))

var problemIndex = template.Must(template.New("problems").Parse(`<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Problems</title></head>
<body>
<h1>Problems</h1>
<dl>
{{range .}}<dt><a href="/problems/{{.Code}}"><code>{{.Code}}</code></a></dt><dd>{{.Title}}</dd>
{{end}}</dl>
</body>
</html>
`))

func (x *exchange) problemPage(code string) {
	var b strings.Builder
	if code == "" {
		_ = problemIndex.Execute(&b, x.server.router.Problems())
	} else if p, ok := x.server.problems[code]; ok {
		_ = problemPage.Execute(&b, p)
	} else {
		x.fail(notFound())
		return
	}
	x.write(http.StatusOK, "text/html; charset=utf-8", []byte(b.String()))
}
