package web_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/web"
)

// What no database keeps, and what is no text, is refused at the door.
func TestOnlyTextIsLetIn(t *testing.T) {
	t.Parallel()
	h := setup(t)
	for name, c := range map[string]struct{ method, target, body, code string }{
		"U+0000 in a body":            {"POST", "/v1/baskets/b1/lines", `{"sku":"a\u0000b","quantity":1}`, "malformed_body"},
		"U+0000 as a name":            {"POST", "/v1/baskets/b1/lines", `{"sku":"a","quantity":1,"\u0000":1}`, "malformed_body"},
		"U+0000 in a query":           {"GET", "/v1/baskets?cursor=a%00b", "", "malformed_query"},
		"U+0000 as a parameter":       {"GET", "/v1/baskets?%00=1", "", "malformed_query"},
		"no UTF-8 in a query":         {"GET", "/v1/baskets?cursor=%ff", "", "malformed_query"},
		"no UTF-8 in a path":          {"GET", "/v1/baskets/%ff", "", "malformed_path"},
		"more segments than declared": {"GET", "/v1/status/200/more", "", "not_found"},
	} {
		if p := readProblem(t, send(t, h, c.method, c.target, c.body)); p.Code != c.code {
			t.Errorf("%s: %s, want %s", name, p.Code, c.code)
		}
	}
	if w := send(t, h, "POST", "/v1/baskets/b1/lines", `{"sku":"a\\u0000b","quantity":1}`); w.Code != http.StatusOK && w.Code != http.StatusCreated {
		t.Errorf("a backslash before u0000 is a text like any other: %d %s", w.Code, w.Body)
	}
}

// A webhook's signature is over the bytes as they came, so they are not looked into, whatever type they are said to have.
func TestARawBodyComesAsItWas(t *testing.T) {
	t.Parallel()
	h := setup(t, func(s *shop) {
		s.routes = func(r *web.Router) {
			web.Post(r, "/v1/hooks", web.Public, web.Route{ID: "hook"}, func(_ context.Context, in *struct {
				RawBody []byte `contentType:"application/json"`
			}) (*web.Raw, error) {
				return &web.Raw{ContentType: "text/plain", Body: in.RawBody}, nil
			})
		}
	})
	for _, body := range []string{`{"id": "evt_1"}`, `[1,2`, `"text"`, "\x00\xff", strings.Repeat("[", 1000)} {
		if w := send(t, h, "POST", "/v1/hooks", body, "Content-Type: application/json"); w.Code != http.StatusOK || w.Body.String() != body {
			t.Errorf("%.20q came as %d %.20q", body, w.Code, w.Body)
		}
	}
}
