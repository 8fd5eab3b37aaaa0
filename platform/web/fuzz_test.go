package web_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/web"
)

func FuzzCursor(f *testing.F) {
	c := web.NewCursors([]byte("0123456789abcdef0123456789abcdef"))
	good := c.Encode("list", []string{"a"})
	f.Add("list", good)
	f.Add("list", "")
	f.Add("lis", good)
	f.Add("list", good[:20]+"\n"+good[20:])
	f.Add("list", strings.Repeat("A", 2000))
	f.Fuzz(func(t *testing.T, list, cursor string) {
		var position []string
		ok, err := c.Decode(list, cursor, &position)
		if ok && (cursor != good || list != "list") {
			t.Fatalf("a cursor nobody made is taken: %q for %q", cursor, list)
		}
		if !ok && cursor != "" && !errs.Has(err, "invalid_cursor") {
			t.Fatalf("refused without its code: %v", err)
		}
	})
}

func FuzzIfMatch(f *testing.F) {
	for _, s := range []string{`"7"`, `W/"7"`, "*", "", `"`, `"7", "8"`, `"99999999999999999999"`, `"٧"`, "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		v, err := web.IfMatch(header, true)
		if err == nil && v != 0 && web.ETag(v) != strings.TrimSpace(header) {
			t.Fatalf("%q is taken for version %d", header, v)
		}
		if err == nil && v == 0 && strings.TrimSpace(header) != "*" {
			t.Fatalf("%q counts as any version", header)
		}
		if err != nil && errs.KindOf(err) == errs.Internal {
			t.Fatalf("%q is our fault: %v", header, err)
		}
	})
}

func FuzzIdempotencyKey(f *testing.F) {
	h := setup(f)
	for _, s := range []string{"a", "", " ", "a b", "ü", "\x7f", strings.Repeat("a", 255), strings.Repeat("a", 256), `"quoted"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, key string) {
		r := httptest.NewRequest("POST", "/v1/checkouts", strings.NewReader(`{"sku":"a","quantity":1}`))
		r.Header["Idempotency-Key"] = []string{key}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		good := key != "" && len(key) <= 255 && strings.IndexFunc(key, func(c rune) bool { return c <= ' ' || c > '~' }) < 0
		if (w.Code == http.StatusAccepted) != good || !good && w.Code != http.StatusUnprocessableEntity {
			t.Fatalf("%q: %d", key, w.Code)
		}
		if good {
			var k web.Key
			if json.Unmarshal(w.Body.Bytes(), &k); k.Value != key {
				t.Fatalf("%q became %q", key, k.Value)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	var reached string
	h := setup(f, func(s *shop) {
		s.routes = func(r *web.Router) {
			web.Get(r, "/v1/secret/{id}", web.Scope("nobody"), web.Route{ID: "secret"}, func(_ context.Context, in *struct {
				ID string `path:"id"`
			}) (*web.Reply[string], error) {
				reached = in.ID
				return &web.Reply[string]{}, nil
			})
		}
	})
	for _, s := range []string{"/v1/secret/x", "/v1/hello/../secret/x", "/v1/%73ecret/x", "/v1/hello%2f..%2fsecret/x", "//v1/secret/x", "/v1/secret/x;/../hello", "/v1/secret\\x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Host != "" {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = u
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if reached != "" {
			t.Fatalf("%q got past the guard", path)
		}
		if w.Code >= 500 {
			t.Fatalf("%q: %d", path, w.Code)
		}
	})
}

func FuzzBody(f *testing.F) {
	h := setup(f)
	for _, s := range []string{`{"sku":"a","quantity":1}`, `{"a":`, `[[[[`, `{"sku":"a","sku":"b"}`, `"\ud800"`, "\xff", `1e999`, `{"quantity":9223372036854775808,"sku":"a"}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w := send(t, h, "POST", "/v1/baskets/b1/lines", body)
		switch w.Code {
		case 201, 400, 413, 422:
		default:
			t.Fatalf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
