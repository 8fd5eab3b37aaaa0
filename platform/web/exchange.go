package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/labstack/echo/v4"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// exchange is one request and its answer, read from top to bottom in run. It is echo's context, huma's context and the
// handler's ctx in one allocation; none of it is pooled, since a handler may leave ctx with work that outlives it.
type exchange struct {
	server   *Server
	c        echo.Context // not to be used after run
	carrier  carrier
	ctx      exchangeContext
	started  time.Time
	urgent   urgency.Request
	id       string
	idHeader [1]string
	ip       string
	route    *route
	served   *served
	identity auth.Identity
	vouched  bool // a gateway has checked who asks, and counted it
	limits   [3]string
	body     *boundedBody // of a request that goes on to another process

	query    url.Values
	buffer   *bytes.Buffer
	reader   bytes.Reader
	key      Key
	keyed    bool   // the client sent a key
	claimed  string // our token on the key's row
	saved    *savedReply
	replayed bool

	result    answer
	err       error
	finished  bool
	abandoned bool
}

// carrier brings the exchange through echo's router.
type carrier struct {
	echo.Context
	x *exchange
}

// exchangeContext is the handler's ctx. Only what stays true after the exchange may be asked through it.
type exchangeContext struct {
	context.Context
	x *exchange
}

type exchangeKey struct{}

func (c *exchangeContext) Value(key any) any {
	switch key {
	case exchangeKey{}:
		return c.x
	case urgency.Key{}:
		return &c.x.urgent
	}
	return c.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// answer is what a handler wants said.
type answer struct {
	status                                    int
	etag, location, contentType, cacheControl string
	json                                      any
	raw                                       []byte
}

// face is the one middleware: what holds for every request, found or not.
func (s *Server) face(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		x := &exchange{server: s, c: c, started: time.Now()}
		x.carrier, x.ctx = carrier{c, x}, exchangeContext{c.Request().Context(), x}
		x.run(next)
		return nil
	}
}

func (x *exchange) run(next echo.HandlerFunc) {
	s, r := x.server, x.c.Request()
	x.id = requestID(r.Header)
	x.idHeader[0] = x.id
	x.ip = s.echo.IPExtractor(r)
	if s.config.Tracer != nil {
		defer x.trace()()
	}
	defer x.end()
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { // a proxy's way to hang up
				panic(p)
			}
			s.log.ErrorContext(x.Context(), "handler panicked", "request", x.id, "route", x.routeName(), "panic", p, "stack", string(debug.Stack()))
			if !x.c.Response().Committed {
				x.fail(errPanicked)
			}
		}
	}()
	if s.leaving.Load() {
		h := x.c.Response().Header()
		h["Connection"], h["Banyan-Draining"] = closeConnection, drainingMark
	}
	if !canonical(r.URL) {
		x.fail(refuse(http.StatusBadRequest, "malformed_path", "The path is not in its plain form."))
		return
	}
	if tooManyHeaders(r.Header) {
		x.fail(refuse(http.StatusRequestHeaderFieldsTooLarge, "too_many_headers", "There are more than 100 header fields."))
		return
	}
	if err := next(&x.carrier); err != nil { // echo's own: handlers of ours return none
		x.unmatched(err)
	}
}

// errPanicked is logged where the stack is.
var errPanicked = errors.New("handler panicked")

func (x *exchange) unmatched(err error) {
	if !x.admit() {
		return
	}
	if errors.Is(err, echo.ErrMethodNotAllowed) {
		x.fail(refuse(http.StatusMethodNotAllowed, "method_not_allowed", "The method is not among those in the Allow header."))
		return
	}
	x.fail(notFound())
}

// end counts the request and gives the body's buffer back.
func (x *exchange) end() {
	putBuffer(x.buffer)
	x.buffer = nil
	if x.server.config.Observe != nil {
		status := x.c.Response().Status
		if x.abandoned {
			status = 499
		}
		o := Observed{Method: x.method(), Route: x.routeName(), Forwarded: x.vouched, Status: status, Took: time.Since(x.started)}
		if x.route != nil {
			o.Module = x.route.module
		}
		x.server.config.Observe(o)
	}
}

// serve is the way of a declared route.
func (x *exchange) serve(sv *served) {
	if slices.ContainsFunc(x.c.ParamValues(), func(v string) bool { return strings.IndexByte(v, '/') >= 0 }) {
		x.unmatched(echo.ErrNotFound) // echo's last parameter takes in whatever follows
		return
	}
	rt := sv.route
	x.served, x.route, x.urgent.Criticality = sv, rt, rt.Criticality
	if !rt.LongPoll && !rt.Stream { // which are old, and in no hurry
		x.urgent.Came = x.started
	}
	if sv.killed.Load() {
		x.fail(errKilled)
		return
	}
	if err := x.authenticate(); err != nil {
		if x.admit() {
			x.fail(err)
		}
		return
	}
	if !x.admit() {
		return
	}
	if err := x.permit(); err != nil {
		x.fail(err)
		return
	}
	// A gateway keeps answers itself. It may have heard of a change that this process has not: what was kept here would be new there.
	if rt.Cache.For > 0 && x.server.cache != nil && !x.vouched {
		x.recall()
		return
	}
	x.perform()
}

// perform does what the route is for, here or elsewhere.
func (x *exchange) perform() {
	leave, ok := x.enter()
	if !ok {
		return
	}
	defer leave()
	rt := x.route
	if rt.Stream {
		x.lift()
	}
	if rt.remote != nil {
		x.forward()
		return
	}
	for _, step := range [...]func() error{x.readQuery, x.readBody, x.readKey} {
		if err := step(); err != nil {
			x.fail(err)
			return
		}
	}
	rt.serve(x)
	if !x.finished { // refused before the handler
		x.finish()
	}
}

// handle runs the handler behind the request's key, if there is one.
func (x *exchange) handle(ctx context.Context, h func() (answer, error)) {
	if x.keyed && x.route.Idempotency != KeyHandled {
		if done := x.claim(ctx); done {
			return
		}
		defer x.release(ctx)
	}
	result, err := h()
	if err != nil {
		x.refuse(err)
		return
	}
	x.result = result
}

func (x *exchange) authenticate() error {
	h := x.c.Request().Header
	if tokens, ok := h[GatewayHeader]; ok {
		return x.vouch(tokens)
	}
	header := h["Authorization"]
	if len(header) == 0 || x.route.IgnoreToken {
		return nil
	}
	scheme, token, _ := strings.Cut(header[0], " ")
	if len(header) != 1 || !strings.EqualFold(scheme, "Bearer") || token == "" || x.server.config.Verify == nil {
		return errs.New(errs.Unauthenticated, "token_invalid", "Authorization is one Bearer token.")
	}
	id, err := x.server.config.Verify(x.Context(), token)
	if err != nil {
		return err
	}
	x.be(id)
	return nil
}

func (x *exchange) permit() error {
	p := x.route.permission
	switch {
	case p == Public:
		return nil
	case x.identity.Anonymous():
		return errs.New(errs.Unauthenticated, "", "This needs an access token.")
	case p == SignedIn && !x.identity.SignedIn():
		return errs.New(errs.Forbidden, "", "This is for a person who signed in, not for an API key.")
	case p != SignedIn && !x.identity.Has(p.name):
		return errs.New(errs.Forbidden, "", "This needs the permission %s.", p.name)
	}
	return nil
}

// readQuery refuses parameters the route does not know, and the same one twice.
func (x *exchange) readQuery() error {
	raw := x.c.Request().URL.RawQuery
	if raw == "" {
		return nil
	}
	q, err := url.ParseQuery(raw)
	if err != nil || !isText(q) {
		return errs.New(errs.Malformed, "malformed_query", "The query is not properly percent-encoded UTF-8.")
	}
	x.query = q
	var wrong *errs.Error
	for name, values := range q {
		repeats, known := x.route.queries[name]
		code := ""
		switch {
		case !known && !slices.ContainsFunc(x.route.deepQueries, func(p string) bool { return strings.HasPrefix(name, p) }):
			code = "unknown"
		case len(values) > 1 && !repeats:
			code = "repeated"
		default:
			continue
		}
		if wrong == nil {
			wrong = errs.Invalidf("validation_failed", "Parts of the request are not valid.")
		}
		if len(wrong.Fields) < 32 {
			wrong.WithField(pointerOf("query."+name), code)
		}
	}
	if wrong == nil {
		return nil
	}
	slices.SortFunc(wrong.Fields, func(a, b errs.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	return wrong
}

// isText says whether all of a query is UTF-8 without U+0000, as everything that goes into the database must be.
func isText(q url.Values) bool {
	text := func(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }
	for name, values := range q {
		if !text(name) || slices.ContainsFunc(values, func(v string) bool { return !text(v) }) {
			return false
		}
	}
	return true
}

// readBody takes the whole body into a buffer, within the route's limit.
func (x *exchange) readBody() error {
	r := x.c.Request()
	if r.Body == nil || r.Body == http.NoBody || r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	limit := x.route.MaxBody
	if r.ContentLength > limit {
		return bodyTooLarge(limit)
	}
	x.buffer = getBuffer()
	n, err := x.buffer.ReadFrom(io.LimitReader(r.Body, limit+1))
	if n > limit {
		return bodyTooLarge(limit)
	}
	if err != nil {
		return errs.New(errs.Malformed, "malformed_body", "The body broke off.").Because(err)
	}
	if n == 0 {
		return nil
	}
	return x.checkType(r.Header)
}

func (x *exchange) checkType(h http.Header) error {
	wrong := refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "Send application/json in UTF-8, not encoded further.")
	if e := h.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return wrong
	}
	switch x.route.body {
	case noBody:
		if s := bytes.TrimSpace(x.buffer.Bytes()); len(s) > 0 && string(s) != "{}" {
			return errs.Invalidf("validation_failed", "This route takes no body.").WithField("", "unknown")
		}
	case jsonBody:
		t := h.Get("Content-Type")
		if t == "application/json" || t == "" {
			return nil
		}
		media, params, err := mime.ParseMediaType(t)
		charset := params["charset"]
		if err != nil || media != "application/json" && !strings.HasSuffix(media, "+json") || charset != "" && !strings.EqualFold(charset, "utf-8") {
			return wrong
		}
	}
	return nil
}

// finish writes what came out of the handler.
func (x *exchange) finish() {
	x.finished = true
	if x.vouched {
		if report := x.urgent.Report(); report != "" {
			x.c.Response().Header()[WaitedHeader] = []string{report}
		}
	}
	switch {
	case x.c.Response().Committed: // a handler that streams
	case x.err != nil:
		x.fail(x.err)
	case x.saved != nil:
		x.writeSaved()
	default:
		x.writeAnswer()
	}
}

func (x *exchange) status() int {
	switch {
	case x.result.status != 0:
		return x.result.status
	case x.route.Status != 0:
		return x.route.Status
	case x.route.method == http.MethodPost && x.result.location != "":
		return http.StatusCreated
	}
	return http.StatusOK
}

func (x *exchange) writeAnswer() {
	a, h, status := &x.result, x.c.Response().Header(), x.status()
	if a.location != "" {
		h["Location"] = []string{a.location}
	}
	if x.tagged(a.etag, a.cacheControl, status) {
		return
	}
	if status == http.StatusNoContent {
		x.write(status, "", nil)
		return
	}
	if a.json == nil {
		x.write(status, a.contentType, a.raw)
		return
	}
	b := getBuffer()
	defer putBuffer(b)
	if err := encode(b, a.json); err != nil {
		x.fail(err)
		return
	}
	x.write(status, jsonType, b.Bytes())
}

// tagged sets the headers of caching, and answers 304 itself when the client has this version already.
func (x *exchange) tagged(etag, cacheControl string, status int) bool {
	h := x.c.Response().Header()
	if cacheControl != "" {
		h["Cache-Control"] = []string{cacheControl}
	}
	if etag == "" {
		return false
	}
	h["Etag"] = []string{etag}
	if cacheControl == "" {
		h["Cache-Control"] = revalidate
	}
	r := x.c.Request()
	if status != http.StatusOK || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	known := r.Header.Get("If-None-Match")
	if known == "" || !matches(known, etag) {
		return false
	}
	x.write(http.StatusNotModified, "", nil)
	return true
}

const jsonType = "application/json"

// Values of headers that every answer has, shared: nobody appends to them in place.
var (
	typeJSON    = []string{jsonType}
	typeProblem = []string{problemType}
	noSniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
	revalidate  = []string{"private, no-cache"}
	noReferrer  = []string{"no-referrer"}
	noFrames    = []string{"DENY"}
	apiPolicy   = []string{"default-src 'none'; frame-ancestors 'none'"}

	closeConnection = []string{"close"}
	drainingMark    = []string{"1"}
)

// write is the only place an answer of ours leaves by.
func (x *exchange) write(status int, contentType string, body []byte) {
	w := x.c.Response()
	h := w.Header()
	h["X-Request-Id"] = x.idHeader[:]
	h["X-Content-Type-Options"] = noSniff
	h["Referrer-Policy"] = noReferrer
	h["X-Frame-Options"] = noFrames
	if _, ok := h["Cache-Control"]; !ok || status >= http.StatusBadRequest {
		h["Cache-Control"] = noStore
	}
	if _, ok := h["Content-Security-Policy"]; !ok {
		h["Content-Security-Policy"] = apiPolicy
	}
	switch contentType {
	case "":
	case jsonType:
		h["Content-Type"] = typeJSON
	case problemType:
		h["Content-Type"] = typeProblem
	default:
		h["Content-Type"] = []string{contentType}
	}
	if len(body) > 2048 { // net/http counts shorter ones itself
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	if len(body) > 0 {
		_, _ = w.Write(body) // an error means that the client has gone
	}
}

func (x *exchange) routeName() string {
	if x.route != nil {
		return x.route.path
	}
	return "unmatched"
}

// method is one of a closed set, because it becomes a label.
func (x *exchange) method() string {
	if x.route != nil {
		return x.route.method
	}
	switch m := x.c.Request().Method; m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// requestID is the caller's id if it can go into headers and logs as it is, else a fresh one. It is no secret.
func requestID(h http.Header) string {
	if in := h["X-Request-Id"]; len(in) == 1 && len(in[0]) > 0 && len(in[0]) <= 64 && strings.Trim(in[0], idCharacters) == "" {
		return in[0]
	}
	var b [16]byte
	copy(b[:], "req_")
	n := rand.Uint64()
	for i := 4; i < len(b); i++ {
		b[i] = idCharacters[n&31]
		n >>= 5
	}
	return string(b[:])
}

const idCharacters = "0123456789abcdefghjkmnpqrstvwxyzilouABCDEFGHIJKLMNOPQRSTUVWXYZ-_."

// canonical says whether a path is in the one form that routes, caches and logs agree about.
func canonical(u *url.URL) bool {
	p := u.Path
	if p == "" || p[0] != '/' {
		return p == "*"
	}
	if !utf8.ValidString(p) {
		return false
	}
	for i := 0; i < len(p); i++ {
		switch c := p[i]; {
		case c < 0x20 || c == 0x7f || c == '\\' || c == ';' || c == '%':
			return false
		case c == '/' && i+1 < len(p):
			next := p[i+1:]
			if next[0] == '/' || next == "." || next == ".." || strings.HasPrefix(next, "./") || strings.HasPrefix(next, "../") {
				return false
			}
		}
	}
	if u.RawPath == "" {
		return true
	}
	raw := strings.ToLower(u.RawPath)
	for _, tricky := range [...]string{"%2f", "%5c", "%2e", "%3b"} {
		if strings.Contains(raw, tricky) {
			return false
		}
	}
	return true
}

// trace starts the request's span and returns what ends it.
func (x *exchange) trace() func() {
	r := x.c.Request()
	ctx := propagation.TraceContext{}.Extract(x.ctx.Context, propagation.HeaderCarrier(r.Header))
	ctx, span := x.server.config.Tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", x.method()), attribute.String("request.id", x.id)))
	x.ctx.Context = ctx
	return func() {
		status := x.c.Response().Status
		span.SetName(x.method() + " " + x.routeName())
		span.SetAttributes(attribute.String("http.route", x.routeName()), attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, http.StatusText(status))
		}
		span.End()
	}
}

// What follows is huma's view of the exchange. Its writing half leads nowhere: exchanges write their answers themselves.

var _ huma.Context = (*exchange)(nil)

func (x *exchange) Operation() *huma.Operation { return nil }
func (x *exchange) Context() context.Context   { return &x.ctx }
func (x *exchange) TLS() *tls.ConnectionState  { return x.c.Request().TLS }
func (x *exchange) Method() string             { return x.c.Request().Method }
func (x *exchange) Host() string               { return x.c.Request().Host }
func (x *exchange) RemoteAddr() string         { return x.c.Request().RemoteAddr }
func (x *exchange) URL() url.URL               { return *x.c.Request().URL }
func (x *exchange) Param(name string) string   { return x.c.Param(name) }
func (x *exchange) Query(name string) string   { return x.query.Get(name) }

func (x *exchange) Version() huma.ProtoVersion {
	r := x.c.Request()
	return huma.ProtoVersion{Proto: r.Proto, ProtoMajor: r.ProtoMajor, ProtoMinor: r.ProtoMinor}
}

func (x *exchange) Header(name string) string {
	if name == "Content-Type" && x.route.body == jsonBody {
		return jsonType // checked before; huma would stumble over its spelling
	}
	return x.c.Request().Header.Get(name)
}

func (x *exchange) EachHeader(f func(name, value string)) {
	for name, values := range x.c.Request().Header {
		for _, v := range values {
			f(name, v)
		}
	}
}

func (x *exchange) BodyReader() io.Reader {
	if x.buffer == nil {
		return nil
	}
	x.reader.Reset(x.buffer.Bytes())
	return &x.reader
}

func (x *exchange) GetMultipartForm() (*multipart.Form, error) {
	r := x.c.Request()
	if x.buffer != nil {
		r.Body = io.NopCloser(bytes.NewReader(x.buffer.Bytes()))
	}
	err := r.ParseMultipartForm(x.route.MaxBody)
	return r.MultipartForm, err
}

func (x *exchange) SetReadDeadline(time.Time) error { return nil } // the body has been read
func (x *exchange) SetStatus(int)                   {}
func (x *exchange) Status() int                     { return 0 }
func (x *exchange) SetHeader(string, string)        {}
func (x *exchange) AppendHeader(string, string)     {}
func (x *exchange) BodyWriter() io.Writer           { return io.Discard }
