package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/web"
)

// A bad is one way to call a route wrongly, and what must come of it: alternatives such as "404 not_found|422 validation_failed".
type bad struct {
	why  string
	call call
	want string
}

// canary is a value that must not come back in any refusal.
const canary = "kestrel7f3a91"

// face is one route with a right call of it, from which wrong ones are made.
type face struct {
	*world
	row
	web.RouteInfo
	base call
	mine *estate
}

// TestBadInput calls every route with every kind of bad input. Each call is refused with a problem whose code has a page, the
// refusal tells nothing, and nothing changes. At the end the right call still works, which shows that it was right.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"users.login_delays": "false"})
	byID := w.known()
	total := 0
	for _, rt := range w.doc.routes {
		r := byID[rt.ID]
		t.Run(rt.ID, func(t *testing.T) {
			w.t = t
			e := w.fresh("owner")
			f := face{world: w, row: r, RouteInfo: rt, mine: e}
			f.base = w.rightly(r, rt.Permission, e, r.make(w, e))
			bads := f.bads()
			w.quiet()
			before := w.sum()
			for _, b := range bads {
				w.refused(b)
			}
			w.unchanged("a refused "+rt.ID, before)
			f.rightAtLast()
			total += len(bads)
		})
		w.t = t
	}
	w.platformRoutes()
	t.Logf("%d refusals of %d routes", total, len(rows))
}

// refused sends a bad call and looks at its refusal.
func (w *world) refused(b bad) {
	w.t.Helper()
	a := w.send(b.call)
	got := fmt.Sprintf("%d %s", a.status, a.text("code"))
	if !slices.Contains(strings.Split(b.want, "|"), got) {
		w.t.Errorf("%s: got %q, want %s: %s", b.why, got, b.want, a)
		return
	}
	w.tellsNothing(b.why, a)
}

var leaks = []string{"select ", "insert into", "pq:", "sqlstate", "dial tcp", "goroutine", ".go:", "runtime error", "127.0.0.1:", "/tmp/", canary}

// tellsNothing looks at a refusal: it is a problem with a page and holds nothing of ours and nothing of what was sent.
func (w *world) tellsNothing(why string, a answer) {
	w.t.Helper()
	var p struct {
		Type, Title, Instance, Code string
		Status                      int
		RequestID                   string `json:"request_id"`
	}
	if err := json.Unmarshal(a.body, &p); err != nil || a.header.Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("%s: not a problem: %s", why, a)
		return
	}
	if !w.shut[p.Code] || p.Type != "/problems/"+p.Code || p.Status != a.status || p.Title == "" || p.RequestID == "" ||
		p.RequestID != a.header.Get("X-Request-Id") || !strings.HasSuffix(p.Instance, p.RequestID) {
		w.t.Errorf("%s: a problem that is not whole: %s", why, a)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		w.t.Errorf("%s: headers of a refusal: %v", why, a.header)
	}
	if a.status == 401 && a.header.Get("WWW-Authenticate") == "" {
		w.t.Errorf("%s: 401 without WWW-Authenticate", why)
	}
	said := strings.ToLower(string(a.body))
	for _, leak := range leaks {
		if strings.Contains(said, leak) {
			w.t.Errorf("%s: the refusal tells %q: %s", why, leak, a)
		}
	}
}

func (f *face) bads() (all []bad) {
	all = append(all, f.badTokens()...)
	all = append(all, f.badBodies()...)
	all = append(all, f.badQueries()...)
	all = append(all, f.badPaths()...)
	all = append(all, f.badKeys()...)
	all = append(all, f.badVersions()...)
	all = append(all, f.badCards()...)
	return all
}

// keyed is the call with a key of its own, where the route takes one: a refused call must not use up the right one's.
func (f *face) keyed(c call) call {
	if c.header.Get("Idempotency-Key") != "" {
		return c.with("Idempotency-Key", f.key1())
	}
	return c
}

// operation is the route in the document; nil for hidden ones.
func (f *face) has(in, name string) bool {
	for _, p := range f.doc.Paths[f.Path][strings.ToLower(f.Method)].Parameters {
		if p.In == in && p.Name == name {
			return true
		}
	}
	return false
}

func (f *face) bodySchema() schema {
	s := f.doc.Paths[f.Path][strings.ToLower(f.Method)].RequestBody.Content["application/json"].Schema
	return f.doc.resolve(s)
}

// ignoresToken are the routes by which one gets a token: a stale one must not be in the way.
var ignoresToken = []string{"register", "login", "refresh", "verifyEmail", "requestPasswordReset", "confirmPasswordReset"}

func (f *face) badTokens() (all []bad) {
	if slices.Contains(ignoresToken, f.ID) {
		return nil
	}
	w := f.world
	none := func(string) []byte { return nil }
	public := w.key.Public().(ed25519.PublicKey)
	hs := func(s string) []byte {
		mac := hmac.New(sha256.New, public)
		mac.Write([]byte(s))
		return mac.Sum(nil)
	}
	_, strange, err := ed25519.GenerateKey(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now().Unix()
	good := w.sign(nil, nil)
	flipped := good[:len(good)-10] + string('A'+(good[len(good)-10]-'A'+1)%26) + good[len(good)-9:]
	for why, token := range map[string]string{
		"no algorithm":       w.forge(claims{"alg": "none", "typ": "at+jwt", "kid": w.kid}, w.claims(nil), none),
		"public key as HMAC": w.forge(claims{"alg": "HS256", "typ": "at+jwt", "kid": w.kid}, w.claims(nil), hs),
		"a stranger's key":   w.forge(claims{"alg": "EdDSA", "typ": "at+jwt", "kid": w.kid}, w.claims(nil), func(s string) []byte { return ed25519.Sign(strange, []byte(s)) }),
		"unknown kid":        w.sign(claims{"kid": "../../../dev/null"}, nil),
		"kid as SQL":         w.sign(claims{"kid": "' OR 1=1 --"}, nil),
		"header jku":         w.sign(claims{"jku": "https://example.com/keys"}, nil),
		"header jwk":         w.sign(claims{"jwk": map[string]string{"kty": "OKP"}}, nil),
		"header crit":        w.sign(claims{"crit": []string{"exp"}}, nil),
		"a module's token":   w.sign(claims{"typ": "mod+jwt"}, nil),
		"another type":       w.sign(claims{"typ": "JWT"}, nil),
		"wrong audience":     w.sign(nil, claims{"aud": "orders"}),
		"wrong issuer":       w.sign(nil, claims{"iss": "https://example.com"}),
		"no expiry":          w.sign(nil, claims{"exp": nil}),
		"a year of life":     w.sign(nil, claims{"exp": now + 365*86400}),
		"from the future":    w.sign(nil, claims{"iat": now + 3600, "exp": now + 3700}),
		"no subject":         w.sign(nil, claims{"sub": nil}),
		"names a module":     w.sign(nil, claims{"mod": "orders"}),
		"flipped signature":  flipped,
		"no signature":       good[:strings.LastIndex(good, ".")+1],
		"garbage":            canary,
		"dots":               strings.Repeat(".", 8000),
		"revoked":            w.tokens["revoked"],
	} {
		c := f.keyed(f.base)
		c.token = token
		all = append(all, bad{why + " token", c, "401 token_invalid"})
	}
	c := f.keyed(f.base)
	c.token = w.tokens["expired"]
	all = append(all, bad{"expired token", c, "401 token_expired"})
	c.token = w.sign(nil, claims{"exp": 0})
	all = append(all, bad{"expiry 0", c, "401 token_expired"})
	c.token = ""
	for _, h := range [][]string{{"Basic " + canary}, {"Bearer "}, {"Bearer"}, {good}, {"Bearer " + good, "Bearer " + good}, {"Bearer  " + good}} {
		all = append(all, bad{fmt.Sprintf("Authorization %.12q", h), c.with("Authorization", h...), "401 token_invalid"})
	}
	return all
}

func (f *face) badBodies() (all []bad) {
	add := func(why string, c call, want string) {
		if f.raw && want[:3] != "413" {
			want = "401 invalid_signature"
		}
		all = append(all, bad{why, f.keyed(c), want})
	}
	if f.Method == "GET" {
		return nil // whose bodies nobody reads
	}
	huge := `{"a":"` + strings.Repeat("x", 10<<20) + `"}`
	add("10 MB", f.base.saying(huge), "413 body_too_large")
	streamed := f.base.saying(huge)
	streamed.stream = true
	add("10 MB in chunks", streamed, "413 body_too_large")
	if f.base.body == "" {
		add("a body where none belongs", f.base.saying(`{"`+canary+`":1}`), "422 validation_failed")
		add("no JSON where none belongs", f.base.saying(canary), "422 validation_failed")
		return all
	}
	const broken, invalid, typed = "400 malformed_body", "422 validation_failed", "415 unsupported_media_type"
	body := f.base.body
	say := func(why, body, want string) { add(why, f.base.saying(body), want) }
	members := strings.TrimSpace(body)[1:]
	comma := ","
	if strings.TrimSpace(members) == "}" {
		comma = ""
	}
	say("unknown key", `{"zz_unknown":"`+canary+`"`+comma+members, invalid)
	say("key that injects", `{"is_admin":true,"roles":["admin"]`+comma+members, invalid)
	say("duplicate key", `{"dup":1,"dup":2`+comma+members, broken)
	say("trailing object", body+`{}`, broken)
	say("trailing text", body+canary, broken)
	say("half a body", body[:len(body)-1], broken)
	say("a comma too many", strings.TrimSuffix(body, "}")+",}", broken)
	say("not JSON", canary, broken)
	say("single quotes", strings.ReplaceAll(body, `"`, `'`)+"'", broken)
	say("invalid UTF-8", `{"zz":"`+"\xff\xfe"+`"`+comma+members, broken)
	say("half a surrogate", `{"zz":"\ud800"`+comma+members, broken)
	say("NUL in a string", `{"zz":"\u0000"`+comma+members, broken)
	say("depth 10,000", strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000), broken)
	say("depth 10,000 inside", `{"zz":`+strings.Repeat(`{"a":`, 10_000)+"1"+strings.Repeat("}", 10_000)+comma+members, broken)
	say("depth 33", `{"zz":`+strings.Repeat("[", 33)+strings.Repeat("]", 33)+comma+members, broken)
	say("a list", "["+body+"]", invalid)
	say("a number", "7", invalid)
	say("a text", `"`+canary+`"`, invalid)
	say("10,000 keys", `{`+manyKeys(5000)+comma+members, invalid+"|"+broken)
	for _, t := range []string{"text/plain", "text/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json; charset=latin1", "garbage"} {
		if !f.raw {
			add("Content-Type "+t, f.base.with("Content-Type", t), typed)
		}
	}
	add("gzip", f.base.with("Content-Encoding", "gzip"), map[bool]string{true: "401 invalid_signature", false: typed}[false])
	if f.raw {
		all[len(all)-1].want = typed
		return all
	}
	f.wrongFields(func(why string, v any, want string) {
		b, err := json.Marshal(v)
		if err != nil {
			f.t.Fatal(err)
		}
		say(why, string(b), want)
	})
	return all
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"k%d":1`, i)
	}
	return b.String()
}

// wrongFields takes the right body and its schema and makes each field wrong in each way that its schema forbids.
func (f *face) wrongFields(say func(why string, v any, want string)) {
	const invalid = "422 validation_failed"
	var body map[string]any
	if err := json.Unmarshal([]byte(f.base.body), &body); err != nil {
		f.t.Fatal(err)
	}
	var walk func(at string, s schema, in map[string]any)
	walk = func(at string, s schema, in map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p, here := f.doc.resolve(s.Properties[name]), at+"/"+name
			was, there := in[name]
			try := func(why string, v any, want string) {
				in[name] = v
				say(here+" "+why, body, want)
				if delete(in, name); there {
					in[name] = was
				}
			}
			if there {
				delete(in, name)
				in[strings.ToUpper(name[:1])+name[1:]] = was
				say(here+" in the wrong case", body, invalid)
				delete(in, strings.ToUpper(name[:1])+name[1:])
				in[name] = was
			}
			if slices.Contains(s.Required, name) {
				delete(in, name)
				say(here+" missing", body, invalid)
				in[name] = was
				try("null", nil, invalid)
			}
			switch {
			case p.is("string"):
				try("a number", 4711, invalid)
				try("a list", []string{canary}, invalid)
				try("NUL", "a\x00b", "400 malformed_body")
				if p.MaxLength > 0 {
					try("too long", strings.Repeat("x", p.MaxLength+1), invalid)
				} else if len(p.Enum) == 0 && p.Pattern == "" && p.Format == "" {
					try("of 60,000 characters", strings.Repeat("x", 60_000), invalid+"|422 unknown_currency")
				}
				if len(p.Enum) > 0 || p.Pattern != "" || p.Format != "" {
					try("of another form", canary, invalid)
				}
			case p.is("integer"):
				try("a text", "1", invalid)
				try("a fraction", 1.5, invalid)
				try("out of all range", json.Number("1e30"), invalid)
				try("one above int64", json.Number("9223372036854775808"), invalid)
			case p.is("boolean"):
				try("a text", "true", invalid)
			case p.is("array"):
				try("an object", map[string]any{canary: 1}, invalid)
				if p.MaxItems > 0 {
					try("too long", slices.Repeat([]any{map[string]any{}}, p.MaxItems+1), invalid)
				} else {
					f.t.Errorf("%s has no end: give it maxItems", here)
				}
			case p.is("object"):
				try("a text", canary, invalid)
				try("with an unknown key", map[string]any{"zz_unknown": canary}, invalid)
				if inner, ok := was.(map[string]any); ok {
					walk(here, p, inner)
				}
			}
		}
	}
	s := f.bodySchema()
	if len(s.Properties) == 0 {
		f.t.Errorf("%s has no schema for its body", f.ID)
	}
	walk("", s, body)
}

func (f *face) badQueries() (all []bad) {
	const invalid = "422 validation_failed"
	add := func(why, query, want string) {
		c := f.keyed(f.base)
		path, old, _ := strings.Cut(c.target, "?")
		name, _, _ := strings.Cut(query, "=")
		kept := slices.DeleteFunc(strings.Split(old, "&"), func(p string) bool { return p == "" || strings.HasPrefix(p, name+"=") })
		c.target = path + "?" + strings.Join(append(kept, query), "&")
		all = append(all, bad{why, c, want})
	}
	add("unknown parameter", "zz_unknown="+canary, invalid)
	add("parameter in the wrong case", "Limit=5", invalid)
	add("unknown filter", "filter[zz]="+canary, invalid)
	add("a number as a name", "4111111111111111="+canary, invalid)
	add("bad escapes", "%zz=1", "400 malformed_query")
	add("NUL", "zz=%00", "400 malformed_query")
	add("invalid UTF-8", "zz=%ff%fe", "400 malformed_query")
	add("semicolons", "a=1;b=2", "400 malformed_query")
	if !f.has("query", "limit") {
		add("limit where none is", "limit=1000000000", invalid)
	}
	for _, p := range f.doc.Paths[f.Path][strings.ToLower(f.Method)].Parameters {
		if p.In != "query" {
			continue
		}
		s, name := f.doc.resolve(p.Schema), url.QueryEscape(p.Name)
		if !s.is("array") {
			all = append(all, bad{p.Name + " twice", f.base.asking(name + "=1&" + name + "=1"), invalid})
		}
		add(p.Name+" with NUL", name+"=a%00b", "400 malformed_query")
		add(p.Name+" no UTF-8", name+"=%c3%28", "400 malformed_query")
		switch {
		case s.is("integer"):
			for _, v := range []string{"abc", "1.5", "1e3", "99999999999999999999", "-1", "0x10", "%201", "%EF%BC%91", ""} {
				if v == "" {
					continue
				}
				add(p.Name+"="+v, name+"="+v, invalid)
			}
			if p.Name == "limit" {
				add("limit=1e9", "limit=1000000000", invalid)
				add("limit=101", "limit=101", invalid)
				add("limit=0", "limit=0", invalid)
			}
		case len(s.Enum) > 0 || s.Items != nil && len(s.Items.Enum) > 0:
			add(p.Name+" unknown", name+"="+canary, invalid)
			add(p.Name+" as SQL", name+"=name%3BDROP%20TABLE%20x", invalid)
		case p.Name == "wait":
			for _, v := range []string{"abc", "-5s", "10", "9999999h9"} {
				add("wait="+v, "wait="+v, invalid)
			}
		}
		if s.MaxLength > 0 && len(s.Enum) == 0 {
			add(p.Name+" too long", name+"="+strings.Repeat("x", s.MaxLength+1), invalid)
		}
		if p.Name == "cursor" {
			foreign := web.NewCursors(f.secret.Derive("cursors")).Encode("another list", map[string]string{"id": "x"})
			for why, v := range map[string]string{"garbage": canary, "of another list": foreign, "flipped": foreign[:5] + "x" + foreign[6:], "SQL": "%27%20OR%201%3D1"} {
				add("cursor "+why, "cursor="+v, "422 invalid_cursor")
			}
		}
	}
	return all
}

var parameter = regexp.MustCompile(`\{[^}]*\}`)

// segments are where a parameter stands in the path.
func (f *face) segments() (at []int, parts []string) {
	path, _, _ := strings.Cut(f.base.target, "?")
	parts = strings.Split(path, "/")
	for i, p := range strings.Split(f.Path, "/") {
		if strings.HasPrefix(p, "{") {
			at = append(at, i)
		}
	}
	return at, parts
}

func (f *face) badPaths() (all []bad) {
	const nothing = "404 not_found"
	_, query, asked := strings.Cut(f.base.target, "?")
	if asked {
		query = "?" + query
	}
	add := func(why string, parts []string, want string) {
		c := f.keyed(f.base)
		c.target = strings.Join(parts, "/") + query
		all = append(all, bad{why, c, want})
	}
	at, parts := f.segments()
	for _, i := range at {
		put := func(why, v, want string) {
			p := slices.Clone(parts)
			p[i] = v
			add(why+" in the path", p, want)
		}
		for _, v := range []string{"nope", "ord_1", "0", "-1", "null", canary, "%27%20OR%20%271%27%3D%271", "1%20UNION%20SELECT%20version()", "%F0%9F%8C%B3", strings.ToUpper(parts[i]) + "X", parts[i] + "x"} {
			put(v, v, nothing)
		}
		put("300 characters", strings.Repeat("x", 300), nothing+"|422 validation_failed")
		for _, v := range []string{"%00", "a%00b", "%ff%fe", "..%2f..%2fetc%2fpasswd", "%2e%2e", "a%5cb", "a;b=c", "a%3bb", "%09", "%0d%0aSet-Cookie:%20a=b", "%252e%252e"} {
			put(v, v, "400 malformed_path")
		}
	}
	trick := func(why string, path string, want string) {
		c := f.keyed(f.base)
		c.target = path + query
		all = append(all, bad{why, c, want})
	}
	path := strings.Join(parts, "/")
	trick("two slashes", "/"+path, "400 malformed_path")
	trick("two slashes inside", strings.Replace(path, "/", "//", 2), "400 malformed_path")
	trick("a dot segment", "/."+path, "400 malformed_path")
	trick("up and down again", "/x/.."+path, "400 malformed_path")
	trick("encoded dots", "/x/%2e%2e"+path, "400 malformed_path")
	trick("a backslash", path[:strings.LastIndex(path, "/")]+"\\"+path[strings.LastIndex(path, "/")+1:], "400 malformed_path")
	trick("a parameter of the path", path+";jsessionid=1", "400 malformed_path")
	trick("a slash at the end", path+"/", nothing+"|405 method_not_allowed")
	trick("something below", path+"/"+canary, nothing+"|405 method_not_allowed|422 validation_failed") // 422: what is below is a route of its own
	trick("upper case", strings.ToUpper(path), nothing)
	var declared []string
	for _, rt := range f.doc.routes {
		if parameter.ReplaceAllString(rt.Path, "{}") == parameter.ReplaceAllString(f.Path, "{}") {
			declared = append(declared, rt.Method)
		}
	}
	if slices.Contains(declared, "GET") {
		declared = append(declared, "HEAD")
	}
	for _, m := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND"} {
		c := f.keyed(f.base)
		if c.method = m; !slices.Contains(declared, m) {
			all = append(all, bad{"method " + m, c, "405 method_not_allowed"})
		}
		for _, over := range []string{"X-HTTP-Method-Override", "X-Method-Override"} {
			if c := c.with(over, f.Method); !slices.Contains(declared, m) {
				all = append(all, bad{over, c, "405 method_not_allowed"})
			}
		}
	}
	// What is somebody else's, and what is nobody's, are not there.
	switch f.kind {
	case ofCart, ofOrder, ofParcels, ofCheckout, ofEntry:
		all = append(all, bad{"somebody else's", f.mine.as(f.make(f.world, f.of("other"))), nothing})
		all = append(all, bad{"a guest's", f.mine.as(f.make(f.world, f.of("guest"))), nothing})
		fallthrough
	case ofAll, ofStaff:
		c := f.world.rightly(f.row, f.Permission, f.mine, f.make(f.world, f.of("nobody")))
		all = append(all, bad{"nobody's", c, nothing})
	}
	return all
}

func (f *face) badKeys() (all []bad) {
	if !f.has("header", "Idempotency-Key") {
		return nil
	}
	for why, v := range map[string][]string{
		"empty": {""}, "of 256": {strings.Repeat("k", 256)}, "with a space": {"a b"}, "with a tab": {"a\tb"}, "not ASCII": {"schlüssel"}, "twice": {"a", "b"},
	} {
		all = append(all, bad{"Idempotency-Key " + why, f.base.with("Idempotency-Key", v...), "422 invalid_idempotency_key"})
	}
	for _, p := range f.doc.Paths[f.Path][strings.ToLower(f.Method)].Parameters {
		if p.Name == "Idempotency-Key" && p.Required {
			c := f.base
			c.header = c.header.Clone()
			c.header.Del("Idempotency-Key")
			all = append(all, bad{"no Idempotency-Key", c, "428 idempotency_key_required"})
		}
	}
	return all
}

func (f *face) badVersions() (all []bad) {
	if !f.has("header", "If-Match") || f.Method == "GET" {
		return nil
	}
	add := func(why string, c call, want string) { all = append(all, bad{"If-Match " + why, f.keyed(c), want}) }
	for _, v := range []string{`"999999"`, `"0"`, `"-1"`, `"1e3"`, `W/"1"`, `"` + canary + `"`, `"99999999999999999999"`} {
		add(v, f.base.with("If-Match", v), "412 precondition_failed")
	}
	for _, v := range []string{canary, "7", `"7`, `'7'`, `"1", "2"`} {
		add(v, f.base.with("If-Match", v), "400 invalid_if_match")
	}
	if f.base.header.Get("If-Match") != "" {
		c := f.base
		c.header = c.header.Clone()
		c.header.Del("If-Match")
		add("missing", c, "428 precondition_required")
	}
	return all
}

// cardNumbers are well known test cards and ways to hide one.
var cardNumbers = []string{
	"4111111111111111", "4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "6011111111111117", "card 4012888888881881, 12/29", "x4242424242424242x", "3530111333300000",
}

// badCards puts card numbers where checkouts and cancellations take text.
func (f *face) badCards() (all []bad) {
	if f.ID != "createCheckout" && f.ID != "cancelOrder" && f.ID != "cancelAnyOrder" {
		return nil
	}
	var walk func(in, s map[string]any)
	var body map[string]any
	if err := json.Unmarshal([]byte(f.base.body), &body); err != nil {
		f.t.Fatal(err)
	}
	walk = func(in, _ map[string]any) {
		for _, name := range slices.Sorted(maps.Keys(in)) {
			switch was := in[name].(type) {
			case string:
				for _, n := range cardNumbers {
					in[name] = n
					if b, err := json.Marshal(body); err == nil {
						want := "422 card_number_refused|422 validation_failed"
						if name == "cart_id" {
							want += "|404 not_found"
						}
						all = append(all, bad{"a card number as " + name, f.keyed(f.base.saying(string(b))), want})
					}
				}
				in[name] = was
			case map[string]any:
				walk(was, nil)
			}
		}
	}
	walk(body, nil)
	return all
}

// rightAtLast makes the right call, and tries its key again: with the same body it is answered again, with another refused.
func (f *face) rightAtLast() {
	w := f.world
	keyed := f.has("header", "Idempotency-Key")
	c := f.base
	if keyed {
		c = c.with("Idempotency-Key", f.key1())
	}
	first := w.send(c)
	if first.status != f.status {
		w.t.Errorf("the right call was not answered %d, so the refusals may have been of something else: %s", f.status, first)
		return
	}
	if f.leaves {
		w.tokens["owner"] = w.login("owner")
	}
	if !keyed {
		return
	}
	w.quiet()
	before := w.sum()
	again := w.send(c)
	if again.status != first.status || !bytes.Equal(again.body, first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		w.t.Errorf("the same key and body: %s\nfirst: %s", again, first)
	}
	w.refused(bad{"the same key with another body", c.saying(c.body + " "), "422 idempotency_key_reused|422 key_reused"})
	w.unchanged("a repeated "+f.ID, before)
}

// platformRoutes are those that no module declares.
func (w *world) platformRoutes() {
	for _, path := range []string{"/healthz", "/readyz", "/version", "/openapi.json", "/openapi.yaml", "/docs", "/problems", "/problems/not_found"} {
		w.must(w.send(call{method: "GET", target: path}), 200)
		for _, m := range []string{"POST", "PUT", "PATCH", "DELETE", "TRACE"} {
			w.refused(bad{"method", call{method: m, target: path, body: "{}"}, "405 method_not_allowed"})
		}
		w.refused(bad{"slashes", call{method: "GET", target: "/" + path}, "400 malformed_path"})
		w.refused(bad{"dots", call{method: "GET", target: path + "/%2e%2e/version"}, "400 malformed_path"})
	}
	index := string(w.must(w.send(call{method: "GET", target: "/problems"}), 200).body)
	for code := range w.shut {
		page := w.must(w.send(call{method: "GET", target: "/problems/" + code}), 200)
		if !strings.Contains(string(page.body), code) || !strings.Contains(index, `href="/problems/`+code+`"`) {
			w.t.Errorf("the page of %s, or the way to it, is not there: %s", code, page)
		}
	}
	for _, path := range []string{"/", "/problems/" + canary, "/docs/../go.mod", "/docs/%2e%2e/secret", "/debug/pprof/", "/metrics", "/.git/config", "/v1", "/v2/products", "/internal", "/rpc"} {
		w.refused(bad{"not there", call{method: "GET", target: path}, "404 not_found|400 malformed_path"})
	}
	if a := w.send(call{method: "GET", target: "/version"}); http.StatusText(a.status) != "OK" || len(a.body) > 60 {
		w.t.Errorf("/version tells more than a version: %s", a)
	}
}
