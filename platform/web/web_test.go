package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/web"
)

type line struct {
	SKU      string       `json:"sku" minLength:"1" maxLength:"20"`
	Quantity int          `json:"quantity" minimum:"1" maximum:"999"`
	Price    money.Amount `json:"price,omitempty"`
	Note     string       `json:"note,omitempty" enum:"gift,fragile"`
}

type basket struct {
	ID    string    `json:"id"`
	Lines []line    `json:"lines"`
	At    time.Time `json:"at"`
	Extra string    `json:"extra,omitempty"`
}

type listIn struct {
	Limit    int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor   string `query:"cursor"`
	Category string `query:"filter[category]"`
}

type lineIn struct {
	ID      string `path:"id"`
	IfMatch string `header:"If-Match"`
	Body    line
}

type shop struct {
	routes func(r *web.Router)
	config web.Config
	log    *strings.Builder
}

// setup is a server with a small shop on it. No module stands behind it: these are tests of the face.
func setup(t testing.TB, change ...func(*shop)) http.Handler {
	t.Helper()
	s := &shop{log: &strings.Builder{}}
	s.config = web.Config{Version: "1.2.3", Verify: verify, Log: slog.New(slog.NewTextHandler(s.log, nil))}
	for _, f := range change {
		f(s)
	}
	r := web.NewRouter()
	declare(r.Module("test", nil))
	if s.routes != nil {
		s.routes(r.Module("extra", nil))
	}
	s.config.Router = r
	server, err := web.NewServer(s.config)
	if err != nil {
		t.Fatal(err)
	}
	return server.Handler()
}

func verify(_ context.Context, token string) (auth.Identity, error) {
	switch token {
	case "ann":
		return auth.Identity{User: "usr_ann", Scopes: []string{"orders:read"}}, nil
	case "old":
		return auth.Identity{}, errs.New(errs.Unauthenticated, "token_expired", "the token has expired")
	}
	return auth.Identity{}, errs.New(errs.Unauthenticated, "token_invalid", "the token is not valid")
}

func declare(r *web.Router) {
	web.Get(r, "/v1/hello", web.Public, web.Route{ID: "hello"}, func(context.Context, *struct{}) (*web.Reply[map[string]string], error) {
		return &web.Reply[map[string]string]{Body: map[string]string{"hello": "world"}}, nil
	})
	web.Get(r, "/v1/baskets", web.Public, web.Route{ID: "listBaskets"}, func(_ context.Context, in *listIn) (*web.Reply[web.Page[basket]], error) {
		return &web.Reply[web.Page[basket]]{Body: web.Page[basket]{NextCursor: fmt.Sprint(in.Limit, in.Category)}}, nil
	})
	web.Post(r, "/v1/baskets/{id}/lines", web.Public, web.Route{ID: "addLine"}, func(_ context.Context, in *lineIn) (*web.Reply[basket], error) {
		return &web.Reply[basket]{Body: basket{ID: in.ID, Lines: []line{in.Body}}, Location: "/v1/baskets/" + in.ID, ETag: web.ETag(7)}, nil
	})
	web.Get(r, "/v1/baskets/{id}", web.Public, web.Route{ID: "getBasket"}, func(_ context.Context, in *struct {
		ID string `path:"id"`
	}) (*web.Reply[basket], error) {
		return &web.Reply[basket]{Body: basket{ID: in.ID}, ETag: web.ETag(7)}, nil
	})
	web.Get(r, "/v1/me", web.SignedIn, web.Route{ID: "me"}, func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
		return &web.Reply[string]{Body: string(auth.From(ctx).User)}, nil
	})
	web.Get(r, "/v1/admin/orders", web.Scope("orders:read"), web.Route{ID: "adminOrders"}, nothing)
	web.Get(r, "/v1/admin/refunds", web.Scope("orders:refund"), web.Route{ID: "adminRefunds"}, nothing)
	web.Post(r, "/v1/auth/login", web.Public, web.Route{ID: "login", IgnoreToken: true}, nothing)
	web.Get(r, "/v1/status/{code}", web.Public, web.Route{ID: "status"}, func(_ context.Context, in *struct {
		Code int `path:"code"`
	}) (*web.Reply[basket], error) {
		return &web.Reply[basket]{Status: in.Code}, nil
	})
	web.Get(r, "/v1/fail/{how}", web.Public, web.Route{ID: "fail"}, func(_ context.Context, in *struct {
		How string `path:"how"`
	}) (*web.Reply[basket], error) {
		return nil, failures[in.How]()
	})
	web.Post(r, "/v1/upload", web.Public, web.Route{ID: "upload", MaxBody: 10}, func(_ context.Context, in *struct{ RawBody []byte }) (*web.Raw, error) {
		return &web.Raw{ContentType: "text/plain", Body: in.RawBody}, nil
	})
	web.Post(r, "/v1/checkouts", web.Public, web.Route{ID: "checkout", Idempotency: web.KeyHandled}, func(ctx context.Context, in *struct{ Body line }) (*web.Reply[web.Key], error) {
		k, _ := web.KeyFrom(ctx)
		return &web.Reply[web.Key]{Status: http.StatusAccepted, Body: k}, nil
	})
}

func nothing(context.Context, *struct{}) (*web.Reply[struct{}], error) {
	return &web.Reply[struct{}]{Status: http.StatusNoContent}, nil
}

var failures = map[string]func() error{
	"plain":   func() error { return errors.New(`pq: duplicate key (SELECT 1) dial tcp 10.0.0.1 x.go:12 goroutine 1`) },
	"wrapped": func() error { return fmt.Errorf("x.go:12: %w", errs.NotFoundf("no such order")) },
	"caused": func() error {
		return errs.Unavailablef("catalog at 10.0.0.1 is down").Because(errors.New("dial tcp 10.0.0.1: pq: boom"))
	},
	"details": func() error {
		return errs.Conflictf("cart_changed", "prices moved").WithDetails(map[string]int{"total": 5})
	},
	"delayed": func() error {
		return errs.New(errs.RateLimited, "", "wait").WithDetails(map[string]int{"retry_after": 42})
	},
	"declined": func() error { return errs.New(errs.Declined, "payment_declined", "the card was declined") },
	"panic":    func() error { panic("pq: boom in x.go:99") },
}

type problem struct {
	Type, Title, Detail, Instance, Code string
	Status                              int
	Errors                              []errs.Field
	Details                             map[string]int
	RequestID                           string `json:"request_id"`
}

// send does one request. Headers are "Name: value".
func send(t testing.TB, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r := httptest.NewRequest(method, target, reader)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func readProblem(t testing.TB, w *httptest.ResponseRecorder) problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != "application/problem+json" {
		t.Fatalf("content type %q, body %s", got, w.Body)
	}
	var p problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if p.Status != w.Code || p.Type != "/problems/"+p.Code || p.RequestID == "" || p.RequestID != w.Header().Get("X-Request-Id") || p.Title == "" {
		t.Errorf("problem does not hold together: %s", w.Body)
	}
	return p
}

func TestRequestsThatAreNotStrict(t *testing.T) {
	t.Parallel()
	h := setup(t)
	const path = "/v1/baskets/b1/lines"
	for name, c := range map[string]struct {
		target, body, header string
		status               int
		code                 string
		fields               []errs.Field
	}{
		"syntax error":           {body: `{"sku":`, status: 400, code: "malformed_body"},
		"trailing data":          {body: `{"sku":"a","quantity":1} x`, status: 400, code: "malformed_body"},
		"second value":           {body: `{"sku":"a","quantity":1}{}`, status: 400, code: "malformed_body"},
		"duplicate key":          {body: `{"sku":"a","sku":"b","quantity":1}`, status: 400, code: "malformed_body"},
		"duplicate, escaped":     {body: `{"sku":"a","\u0073ku":"b","quantity":1}`, status: 400, code: "malformed_body"},
		"broken UTF-8":           {body: "{\"sku\":\"\xff\",\"quantity\":1}", status: 400, code: "malformed_body"},
		"depth 33":               {body: strings.Repeat("[", 33) + strings.Repeat("]", 33), status: 400, code: "malformed_body"},
		"depth 10,000":           {body: strings.Repeat(`{"a":`, 10_000), status: 400, code: "malformed_body"},
		"no body":                {status: 400, code: "malformed_body"},
		"body too large":         {body: `{"sku":"` + strings.Repeat("a", 64<<10) + `"}`, status: 413, code: "body_too_large"},
		"form":                   {body: `sku=a`, header: "Content-Type: application/x-www-form-urlencoded", status: 415, code: "unsupported_media_type"},
		"another charset":        {body: `{}`, header: "Content-Type: application/json; charset=latin1", status: 415, code: "unsupported_media_type"},
		"gzip":                   {body: `{}`, header: "Content-Encoding: gzip", status: 415, code: "unsupported_media_type"},
		"unknown field":          {body: `{"sku":"a","quantity":1,"is_admin":true}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/is_admin", Code: "unknown"}}},
		"wrong case":             {body: `{"SKU":"a","sku":"a","quantity":1}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/SKU", Code: "unknown"}}},
		"nested unknown":         {body: `{"sku":"a","quantity":1,"price":{"amount":1,"currency":"EUR","x":1}}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/price/x", Code: "unknown"}}},
		"missing field":          {body: `{"sku":"a"}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/quantity", Code: "required"}}},
		"too small":              {body: `{"sku":"a","quantity":0}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/quantity", Code: "out_of_range"}}},
		"too large a number":     {body: `{"sku":"a","quantity":1,"price":{"amount":1e30,"currency":"EUR"}}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/price/amount", Code: "out_of_range"}}},
		"a fraction":             {body: `{"sku":"a","quantity":1.5}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/quantity", Code: "wrong_type"}}},
		"wrong type":             {body: `{"sku":1,"quantity":1}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/sku", Code: "wrong_type"}}},
		"too long":               {body: `{"sku":"` + strings.Repeat("a", 21) + `","quantity":1}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/sku", Code: "too_long"}}},
		"not in the enum":        {body: `{"sku":"a","quantity":1,"note":"4111111111111111"}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "/note", Code: "not_allowed"}}},
		"a value as a name":      {body: `{"sku":"a","quantity":1,"4111111111111111":1}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "", Code: "unknown"}}},
		"unknown query":          {target: path + "?is_admin=1", body: `{"sku":"a","quantity":1}`, status: 422, code: "validation_failed", fields: []errs.Field{{Pointer: "query.is_admin", Code: "unknown"}}},
		"broken query":           {target: path + "?a=%zz", body: `{"sku":"a","quantity":1}`, status: 400, code: "malformed_query"},
		"null for a whole body":  {body: `null`, status: 422, code: "validation_failed", fields: []errs.Field{{Code: "wrong_type"}}},
		"array for a whole body": {body: `[]`, status: 422, code: "validation_failed", fields: []errs.Field{{Code: "wrong_type"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := c.target
			if target == "" {
				target = path
			}
			w := send(t, h, "POST", target, c.body, c.header)
			p := readProblem(t, w)
			if w.Code != c.status || p.Code != c.code {
				t.Fatalf("got %d %s, want %d %s: %s", w.Code, p.Code, c.status, c.code, w.Body)
			}
			if diff := cmp.Diff(c.fields, p.Errors); diff != "" {
				t.Errorf("errors (-want +got):\n%s", diff)
			}
			for _, value := range []string{"4111111111111111", "latin1", "1e30"} {
				if strings.Contains(w.Body.String(), value) {
					t.Errorf("the rejected value is echoed: %s", w.Body)
				}
			}
		})
	}
}

func TestQueryIsChecked(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for target, want := range map[string]string{
		"/v1/baskets":                           "",
		"/v1/baskets?limit=100&cursor=":         "",
		"/v1/baskets?filter[category]=shoes":    "",
		"/v1/baskets?limit=101":                 "query.limit out_of_range",
		"/v1/baskets?limit=1e9":                 "query.limit wrong_type",
		"/v1/baskets?limit=0":                   "query.limit out_of_range",
		"/v1/baskets?limit=1&limit=2":           "query.limit repeated",
		"/v1/baskets?Limit=1":                   "query.Limit unknown",
		"/v1/baskets?filter[colour]=4111111111": "query.filter[colour] unknown",
	} {
		w := send(t, h, "GET", target, "")
		if want == "" {
			if w.Code != 200 {
				t.Errorf("%s: %d %s", target, w.Code, w.Body)
			}
			continue
		}
		p := readProblem(t, w)
		if w.Code != 422 || len(p.Errors) != 1 || p.Errors[0].Pointer+" "+p.Errors[0].Code != want {
			t.Errorf("%s: got %d %v, want %s", target, w.Code, p.Errors, want)
		}
	}
	if w := send(t, h, "GET", "/v1/baskets?filter[category]=shoes", ""); w.Body.String() != `{"data":[],"next_cursor":"20shoes"}` {
		t.Errorf("defaults and empty lists: %s", w.Body)
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	h := setup(t)
	w := send(t, h, "POST", "/v1/baskets/b1/lines", `{"sku":"a","quantity":2}`, "Content-Type: application/json; charset=UTF-8")
	want := `{"id":"b1","lines":[{"sku":"a","quantity":2,"price":{"amount":0,"currency":""}}],"at":"0001-01-01T00:00:00Z"}`
	if w.Code != 201 || w.Body.String() != want {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
	for name, value := range map[string]string{
		"Location": "/v1/baskets/b1", "ETag": `"7"`, "Content-Type": "application/json", "X-Content-Type-Options": "nosniff", "Cache-Control": "private, no-cache",
	} {
		if got := w.Header().Get(name); got != value {
			t.Errorf("%s: got %q, want %q", name, got, value)
		}
	}
	for _, status := range []int{200, 201, 202, 402, 204} {
		w := send(t, h, "GET", fmt.Sprintf("/v1/status/%d", status), "")
		if w.Code != status || (status == 204) != (w.Body.Len() == 0) {
			t.Errorf("status %d: got %d %q", status, w.Code, w.Body)
		}
		if _, ok := w.Header()["Etag"]; ok {
			t.Error("an empty ETag is sent")
		}
	}
	if w := send(t, h, "POST", "/v1/upload", "hello", "Content-Type: image/png"); w.Body.String() != "hello" || w.Header().Get("Content-Type") != "text/plain" {
		t.Errorf("raw: %d %s", w.Code, w.Body)
	}
	if w := send(t, h, "POST", "/v1/upload", "hello world", "Content-Type: image/png"); w.Code != 413 {
		t.Errorf("raw over its limit: %d", w.Code)
	}
	if w := send(t, h, "HEAD", "/v1/baskets/b1", ""); w.Code != 200 || w.Header().Get("ETag") != `"7"` {
		t.Errorf("HEAD: %d %v", w.Code, w.Header())
	}
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for header, want := range map[string]int{`"7"`: 304, `W/"7"`: 304, `"6", "7"`: 304, `*`: 304, `"8"`: 200, `7`: 200, ``: 200} {
		w := send(t, h, "GET", "/v1/baskets/b1", "", "If-None-Match: "+header)
		if w.Code != want || (want == 304) != (w.Body.Len() == 0) || w.Header().Get("ETag") != `"7"` {
			t.Errorf("%s: got %d, want %d", header, w.Code, want)
		}
	}
}

func TestFailuresTellTheClientNothingInside(t *testing.T) {
	t.Parallel()
	var log *strings.Builder
	h := setup(t, func(s *shop) { log = s.log })
	for how, want := range map[string]string{
		"plain": "500 internal", "wrapped": "404 not_found", "caused": "503 unavailable", "details": "409 cart_changed",
		"declined": "402 payment_declined", "panic": "500 internal", "delayed": "429 rate_limited",
	} {
		w := send(t, h, "GET", "/v1/fail/"+how, "")
		p := readProblem(t, w)
		if got := fmt.Sprint(w.Code, " ", p.Code); got != want {
			t.Errorf("%s: got %s, want %s", how, got, want)
		}
		for _, leak := range []string{"SELECT", "pq:", "dial tcp", "goroutine", ".go:", "10.0.0.1"} {
			if strings.Contains(w.Body.String(), leak) {
				t.Errorf("%s leaks %q: %s", how, leak, w.Body)
			}
		}
		if how == "details" && p.Details["total"] != 5 {
			t.Errorf("details are lost: %s", w.Body)
		}
		if after := w.Header().Get("Retry-After"); how == "delayed" && after != "42" {
			t.Errorf("Retry-After is %q, the handler said 42", after)
		}
		if how == "caused" && w.Header().Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		if p.Status >= 500 && strings.Count(log.String(), "request="+p.RequestID+" ") == 0 {
			t.Errorf("%s is not in the log with its request id", how)
		}
	}
	if !strings.Contains(log.String(), "pq: duplicate key") || !strings.Contains(log.String(), "web_test.go") {
		t.Error("the log lacks the cause or the stack")
	}
}

func TestAddressesThatLeadNowhere(t *testing.T) {
	t.Parallel()
	h := setup(t)
	if p := readProblem(t, send(t, h, "GET", "/v1/nope", "")); p.Status != 404 || p.Code != "not_found" {
		t.Errorf("unknown route: %+v", p)
	}
	w := send(t, h, "DELETE", "/v1/hello", "")
	if p := readProblem(t, w); p.Status != 405 || !strings.Contains(w.Header().Get("Allow"), "GET") {
		t.Errorf("wrong method: %+v %v", p, w.Header())
	}
	for _, path := range []string{
		"/v1//hello", "/v1/./hello", "/v1/../v1/hello", "/v1/%2e%2e/hello", "/v1%2fhello", "/v1/hello%5c", "/v1/hello;x=1", "/v1/..;/hello",
		"/v1/hello%09", "/v1/hello%00", "/v1/hello%0d%0aX:%20y", "/v1/%252e%252e/hello", "/v1/hello/%2E", "/v1/hello/..",
	} {
		if p := readProblem(t, send(t, h, "GET", path, "")); p.Status != 400 || p.Code != "malformed_path" {
			t.Errorf("%s: %d %s", path, p.Status, p.Code)
		}
	}
	if p := readProblem(t, send(t, h, "GET", "/v1/hello/", "")); p.Status != 404 {
		t.Errorf("trailing slash: %d", p.Status)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for _, c := range []struct{ target, token, want string }{
		{"/v1/me", "", "401 unauthenticated"}, {"/v1/me", "Bearer ann", "200"}, {"/v1/me", "bearer ann", "200"},
		{"/v1/me", "Bearer old", "401 token_expired"}, {"/v1/me", "Bearer x", "401 token_invalid"}, {"/v1/me", "Basic YTpi", "401 token_invalid"},
		{"/v1/hello", "Bearer old", "401 token_expired"}, {"/v1/hello", "", "200"},
		{"/v1/admin/orders", "", "401 unauthenticated"}, {"/v1/admin/orders", "Bearer ann", "204"}, {"/v1/admin/refunds", "Bearer ann", "403 forbidden"},
	} {
		w := send(t, h, "GET", c.target, "", "Authorization: "+c.token)
		if c.token == "" {
			w = send(t, h, "GET", c.target, "")
		}
		got := fmt.Sprint(w.Code)
		if w.Code >= 400 {
			got += " " + readProblem(t, w).Code
		}
		if got != c.want || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s with %q: got %s, want %s", c.target, c.token, got, c.want)
		}
	}
	if w := send(t, h, "POST", "/v1/auth/login", "", "Authorization: Bearer old"); w.Code != 204 {
		t.Errorf("an expired token stops a sign-in: %d", w.Code)
	}
}

func TestRoutesWithoutAPermissionDoNotBuild(t *testing.T) {
	t.Parallel()
	for name, declare := range map[string]func(r *web.Router){
		"say who may use it": func(r *web.Router) { web.Get(r, "/v1/x", web.Permission{}, web.Route{ID: "x"}, nothing) },
		"give it an ID":      func(r *web.Router) { web.Get(r, "/v1/x", web.Public, web.Route{}, nothing) },
		"only a POST": func(r *web.Router) {
			web.Get(r, "/v1/x", web.Public, web.Route{ID: "x", Idempotency: web.Keyed}, nothing)
		},
		"answers with": func(r *web.Router) {
			web.Get(r, "/v1/x", web.Public, web.Route{ID: "x"}, func(context.Context, *struct{}) (*struct{}, error) { return nil, nil })
		},
	} {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.Contains(p, name) || !strings.Contains(p, "GET /v1/x") {
					t.Errorf("want a panic with %q, got %s", name, p)
				}
			}()
			declare(web.NewRouter())
		}()
	}
}

func TestKeyedRoutesNeedADatabase(t *testing.T) {
	t.Parallel()
	r := web.NewRouter()
	web.Post(r.Module("test", nil), "/v1/x", web.Public, web.Route{ID: "x", Idempotency: web.Keyed}, nothing)
	if _, _, err := web.OpenAPI(r); err != nil {
		t.Error(err)
	}
	if _, err := web.NewServer(web.Config{Router: r}); err == nil {
		t.Error("served without a place for its keys")
	}
}

func TestKeysAreChecked(t *testing.T) {
	t.Parallel()
	h := setup(t)
	body := `{"sku":"a","quantity":1}`
	if p := readProblem(t, send(t, h, "POST", "/v1/checkouts", body)); p.Status != 428 || p.Code != "idempotency_key_required" {
		t.Errorf("no key: %+v", p)
	}
	for _, key := range []string{"", "a b", "ü", "a\tb", strings.Repeat("a", 256)} {
		w := send(t, h, "POST", "/v1/checkouts", body, "Idempotency-Key: "+key)
		if p := readProblem(t, w); p.Status != 422 || p.Code != "invalid_idempotency_key" {
			t.Errorf("key %q: %+v", key, p)
		}
	}
	caller := func(headers ...string) string {
		var k web.Key
		w := send(t, h, "POST", "/v1/checkouts", body, append(headers, "Idempotency-Key: "+strings.Repeat("~", 255))...)
		if err := json.Unmarshal(w.Body.Bytes(), &k); err != nil || w.Code != 202 {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
		if k.Route != "POST /v1/checkouts" || len(k.Hash) != 32 {
			t.Errorf("%+v", k)
		}
		return k.Caller
	}
	seen := map[string]bool{}
	for _, headers := range [][]string{{"Authorization: Bearer ann"}, {"X-Cart-Token: a"}, {"X-Cart-Token: b"}, {"X-Order-Token: a"}, {"X-None: "}} {
		c := caller(headers...)
		if seen[c] {
			t.Errorf("%v shares a caller with another", headers)
		}
		seen[c] = true
	}
	if !seen["usr_ann"] {
		t.Error("a user's keys are not the user's")
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for in, keep := range map[string]bool{"abc-123_X.y": true, "": false, "a b": false, "<script>": false, strings.Repeat("a", 65): false} {
		got := send(t, h, "GET", "/v1/hello", "", "X-Request-Id: "+in).Header().Get("X-Request-Id")
		if (got == in) != keep || got == "" {
			t.Errorf("sent %q, got %q", in, got)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	h := setup(t, func(s *shop) { s.config.Limit = web.Limit{PerSecond: 0.01, Burst: 2} })
	for i, want := range []int{200, 200, 429} {
		w := send(t, h, "GET", "/v1/hello", "", "X-Forwarded-For: 10.0.0."+fmt.Sprint(i))
		if w.Code != want || w.Header().Get("RateLimit-Limit") != "2" || (want == 429) != (w.Header().Get("Retry-After") != "") {
			t.Errorf("request %d: got %d %v", i, w.Code, w.Header())
		}
	}
	if w := send(t, h, "GET", "/v1/me", "", "Authorization: Bearer ann"); w.Code != 200 {
		t.Errorf("a user shares the address's bucket: %d", w.Code)
	}
	if w := send(t, h, "GET", "/v1/me", "", "Authorization: Bearer forged"); w.Code != 429 {
		t.Errorf("forged tokens are free: %d", w.Code)
	}
	if w := send(t, h, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("health is limited: %d", w.Code)
	}
}

func TestForwardedAddressesAreBelievedFromProxiesOnly(t *testing.T) {
	t.Parallel()
	ip := func(proxies []string, peer, forwarded string) (got string) {
		h := setup(t, func(s *shop) {
			s.config.TrustedProxies = proxies
			s.routes = func(r *web.Router) {
				web.Get(r, "/v1/ip", web.Public, web.Route{ID: "ip"}, func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
					return &web.Reply[string]{Body: web.ClientIP(ctx)}, nil
				})
			}
		})
		r := httptest.NewRequest("GET", "/v1/ip", nil)
		r.RemoteAddr = peer
		r.Header.Set("X-Forwarded-For", forwarded)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		json.Unmarshal(w.Body.Bytes(), &got)
		return got
	}
	for _, c := range []struct {
		proxies               []string
		peer, forwarded, want string
	}{
		{nil, "127.0.0.1:99", "1.2.3.4", "127.0.0.1"},
		{[]string{"10.0.0.0/8"}, "127.0.0.1:99", "1.2.3.4", "127.0.0.1"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:99", "1.2.3.4", "1.2.3.4"},
		{[]string{"10.0.0.0/8"}, "10.0.0.1:99", "6.6.6.6, 1.2.3.4, 10.0.0.2", "1.2.3.4"},
	} {
		if got := ip(c.proxies, c.peer, c.forwarded); got != c.want {
			t.Errorf("%+v: got %s", c, got)
		}
	}
	if _, err := web.NewServer(web.Config{Router: web.NewRouter(), TrustedProxies: []string{"everybody"}}); err == nil {
		t.Error("a proxy that is no network is accepted")
	}
}

func TestThePlatformsOwnRoutes(t *testing.T) {
	t.Parallel()
	ready := web.Readiness{Modules: map[string]string{"orders": "database unreachable", "cart": ""}}
	h := setup(t, func(s *shop) { s.config.Ready = func(context.Context) web.Readiness { return ready } })
	if w := send(t, h, "GET", "/healthz", ""); w.Code != 200 {
		t.Errorf("healthz: %d", w.Code)
	}
	if w := send(t, h, "GET", "/readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"details":{"modules":{"cart":"ready","orders":"database unreachable"}}`) {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	ready = web.Readiness{Process: "stopping"}
	if w := send(t, h, "GET", "/readyz", ""); w.Code != 503 || !strings.Contains(w.Body.String(), `"process":"stopping"`) {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	ready = web.Readiness{Modules: map[string]string{"orders": "", "cart": ""}}
	if w := send(t, h, "GET", "/readyz", ""); w.Code != 200 || w.Body.String() != `{"status":"ready","modules":{"cart":"ready","orders":"ready"}}` {
		t.Errorf("readyz: %d %s", w.Code, w.Body)
	}
	if w := send(t, h, "GET", "/version", ""); w.Body.String() != `{"version":"1.2.3"}` {
		t.Errorf("version: %s", w.Body)
	}
	if w := send(t, h, "GET", "/docs", ""); w.Code != 200 || strings.Contains(w.Body.String(), "http") {
		t.Errorf("docs: %d %s", w.Code, w.Body)
	}
	for _, file := range []string{"swagger-ui.css", "swagger-ui-bundle.js", "viewer.js", "favicon.png", "LICENSE"} {
		if w := send(t, h, "GET", "/docs/"+file, ""); w.Code != 200 || w.Body.Len() == 0 || w.Header().Get("Content-Type") == "" {
			t.Errorf("%s: %d", file, w.Code)
		}
	}
	if w := send(t, h, "GET", "/problems/not_found", ""); w.Code != 200 || !strings.Contains(w.Body.String(), "<h1>Not found</h1>") {
		t.Errorf("problem page: %d %s", w.Code, w.Body)
	}
	if w := send(t, h, "GET", "/problems", ""); !strings.Contains(w.Body.String(), "rate_limited") {
		t.Errorf("problem index: %s", w.Body)
	}
	if p := readProblem(t, send(t, h, "GET", "/problems/made_up", "")); p.Status != 404 {
		t.Errorf("unknown problem: %d", p.Status)
	}
}

func TestEveryKindHasAPage(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, p := range web.NewRouter().Problems() {
		known[p.Code] = true
		if p.Title == "" || len(p.Explanation) < 20 {
			t.Errorf("%s is hardly explained", p.Code)
		}
	}
	for _, k := range []errs.Kind{errs.Malformed, errs.Unauthenticated, errs.Declined, errs.Forbidden, errs.NotFound, errs.Conflict, errs.PreconditionFailed,
		errs.TooLarge, errs.Invalid, errs.PreconditionRequired, errs.RateLimited, errs.Internal, errs.Unavailable, errs.NoAnswer} {
		if !known[string(k)] {
			t.Errorf("no page for %s", k)
		}
	}
}

func TestTheDocumentIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	make := func() (string, string) {
		r := web.NewRouter()
		declare(r.Module("test", nil))
		yaml, json, err := web.OpenAPI(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(yaml), string(json)
	}
	yaml, doc := make()
	for range 5 {
		if y, d := make(); y != yaml || d != doc {
			t.Fatal("two makings differ")
		}
	}
	for _, want := range []string{"openapi: 3.1.0", "x-permission: orders:refund", "/v1/baskets/{id}/lines", "Idempotency-Key", "application/problem+json", "filter[category]", "If-Match", "#/components/schemas/Problem", "bearer"} {
		if !strings.Contains(yaml, want) {
			t.Errorf("the document lacks %s", want)
		}
	}
	for name, closed := range map[string]bool{"Basket": false, "Line": true} {
		_, schema, ok := strings.Cut(yaml, "\n    "+name+":\n")
		schema, _, _ = strings.Cut(schema, "\n      type: object")
		if !ok || strings.Contains(schema, "additionalProperties: false") != closed {
			t.Errorf("%s closed: want %v:\n%s", name, closed, schema)
		}
	}
	for _, not := range []string{"$schema", "platform/web", "github.com"} {
		if strings.Contains(yaml, not) {
			t.Errorf("the document has %s", not)
		}
	}
}

func TestRemoteRoutesAreGuardedAndForwarded(t *testing.T) {
	t.Parallel()
	r := web.NewRouter()
	declare(r.Remote("test", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "there ", r.Header.Get("X-Request-Id") != "", r.URL.RawQuery)
	})))
	s, err := web.NewServer(web.Config{Router: r, Verify: verify})
	if err != nil {
		t.Fatal(err)
	}
	if w := send(t, s.Handler(), "GET", "/v1/hello?any=thing", ""); w.Body.String() != "there trueany=thing" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := send(t, s.Handler(), "GET", "/v1/admin/orders", ""); w.Code != 401 {
		t.Errorf("not guarded: %d", w.Code)
	}
}

func TestIfMatch(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		header   string
		required bool
		version  int64
		kind     errs.Kind
	}{
		{`"7"`, true, 7, ""}, {` "7" `, false, 7, ""}, {"", false, 0, ""}, {"*", true, 0, ""}, {"", true, 0, errs.PreconditionRequired},
		{`W/"7"`, true, 0, errs.PreconditionFailed}, {`"abc"`, true, 0, errs.PreconditionFailed}, {`"07"`, true, 0, errs.PreconditionFailed},
		{`"-1"`, true, 0, errs.PreconditionFailed}, {`"0"`, true, 0, errs.PreconditionFailed},
		{`7`, true, 0, errs.Malformed}, {`"7`, true, 0, errs.Malformed}, {`"7", "8"`, true, 0, errs.Malformed},
	} {
		v, err := web.IfMatch(c.header, c.required)
		if v != c.version || errs.KindOf(err) != c.kind {
			t.Errorf("%q: got %d %v", c.header, v, err)
		}
	}
}

func TestCursors(t *testing.T) {
	t.Parallel()
	type position struct {
		Price int64  `json:"price"`
		ID    string `json:"id"`
	}
	c := web.NewCursors([]byte("0123456789abcdef0123456789abcdef"))
	text := c.Encode("products sort=price", position{5, "prd_1"})
	var got position
	if ok, err := c.Decode("products sort=price", text, &got); !ok || err != nil || got != (position{5, "prd_1"}) {
		t.Fatalf("%v %v %+v", ok, err, got)
	}
	if ok, err := c.Decode("products", "", &got); ok || err != nil {
		t.Errorf("no cursor: %v %v", ok, err)
	}
	flipped := []byte(text)
	flipped[len(flipped)/2] ^= 1
	for name, try := range map[string]struct {
		c            web.Cursors
		list, cursor string
	}{
		"another list": {c, "products sort=name", text}, "another key": {web.NewCursors([]byte("x")), "products sort=price", text},
		"flipped": {c, "products sort=price", string(flipped)}, "cut": {c, "products sort=price", text[:10]}, "long": {c, "products sort=price", strings.Repeat("A", 5000)},
		"line end": {c, "products sort=price", text + "\n"}, "padded": {c, "products sort=price", text + "="},
	} {
		if ok, err := try.c.Decode(try.list, try.cursor, &got); ok || !errs.Has(err, "invalid_cursor") || !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v %v", name, ok, err)
		}
	}
}
