package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/gateway"
	"github.com/banyan-shop/banyan/platform/urgency"
	"github.com/banyan-shop/banyan/platform/web"
)

// bundle is a gateway process and the process of the module behind it.
type bundle struct {
	gateway, module string // addresses
	edge, inner     *web.Server
	tokens          *auth.Internal // of the gateway's process
	keys            auth.Keys      // of people
	log             *syncLog       // of both

	mu   sync.Mutex
	seen []*http.Request // by the module's process
}

type syncLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *syncLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type change struct {
	target     http.RoundTripper // nil is the module's process
	edge       func(*web.Config)
	inner      func(*web.Config)
	declare    func(*web.Router)
	token      func(context.Context, auth.Identity) (string, error)
	unknownKey bool // the module's process does not know the gateway's
}

func setup(t *testing.T, changes ...func(*change)) *bundle {
	t.Helper()
	b := &bundle{log: &syncLog{}}
	c := change{declare: func(*web.Router) {}}
	for _, f := range changes {
		f(&c)
	}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	keys, err := auth.NewKeys()
	fatal(t, err)
	b.keys = keys
	verifier := auth.NewVerifier(func(context.Context) (auth.JWKS, error) { return keys.JWKS(), nil }, nil)
	b.tokens = process(t)
	inner := b.tokens
	if c.unknownKey {
		inner = process(t)
	}

	r := web.NewRouter()
	declare(r.Module("shop", nil))
	c.declare(r.Module("shop", nil))
	config := web.Config{Router: r, Log: log, Verify: verifier.Verify, Gateway: inner.VerifyForwarded, Limit: web.Limit{PerSecond: 0.001, Burst: 3}}
	if c.inner != nil {
		c.inner(&config)
	}
	b.inner, err = web.NewServer(config)
	fatal(t, err)
	b.module = serve(t, b.inner, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b.mu.Lock()
			b.seen = append(b.seen, r.Clone(context.Background()))
			b.mu.Unlock()
			h.ServeHTTP(w, r)
		})
	})

	if c.target == nil {
		tr := transport()
		c.target = to{b.module, tr}
		t.Cleanup(tr.CloseIdleConnections)
	}
	if c.token == nil {
		c.token = func(_ context.Context, id auth.Identity) (string, error) {
			return b.tokens.IssueInternal(auth.Gateway, "shop", id)
		}
	}
	r = web.NewRouter()
	remote := r.Remote("shop", gateway.Forward(gateway.ForwardOptions{Module: "shop", Target: c.target, Log: log, Token: c.token}))
	declare(remote)
	c.declare(remote)
	config = web.Config{Router: r, Log: log, Verify: verifier.Verify, Gateway: b.tokens.VerifyForwarded}
	if c.edge != nil {
		c.edge(&config)
	}
	b.edge, err = web.NewServer(config)
	fatal(t, err)
	b.gateway = serve(t, b.edge, func(h http.Handler) http.Handler { return h })
	return b
}

// process is one of a shop of its own: those of one shop share the key.
func process(t *testing.T) *auth.Internal {
	t.Helper()
	key, err := auth.NewKey()
	fatal(t, err)
	return auth.NewInternal(key, nil, nil)
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve runs the server on a port of its own, with its own limits, behind what wrap makes of it.
func serve(t *testing.T, s *web.Server, wrap func(http.Handler) http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	h := &http.Server{Handler: wrap(s.Handler()), ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)}
	done := make(chan struct{})
	go func() { defer close(done); h.Serve(l) }()
	t.Cleanup(func() { h.Close(); <-done })
	return l.Addr().String()
}

// token is an access token of somebody with the scopes.
func (b *bundle) token(t *testing.T, scopes ...string) string {
	t.Helper()
	token, err := auth.NewSigner(b.keys, nil).Access(auth.Identity{User: "usr_ann", Session: "ses_1", Roles: []string{"customer"}, Scopes: scopes}, time.Minute)
	fatal(t, err)
	return token
}

func (b *bundle) last(t *testing.T) *http.Request {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.seen) == 0 {
		t.Fatal("nothing reached the module")
	}
	return b.seen[len(b.seen)-1]
}

func (b *bundle) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.seen)
}

// answer is a response, read.
type answer struct {
	*http.Response
	body string
	code string // of a problem
}

// ask does one request. Headers are "Name: value".
func ask(t *testing.T, addr, method, target, body string, headers ...string) answer {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+target, reader)
	fatal(t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header[name] = append(r.Header[name], value)
	}
	a, err := do(r)
	fatal(t, err)
	return a
}

func do(r *http.Request) (answer, error) {
	response, err := (&http.Transport{DisableKeepAlives: true, DisableCompression: true}).RoundTrip(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	a := answer{Response: response, body: string(b)}
	var p struct{ Code string }
	if json.Unmarshal(b, &p) == nil {
		a.code = p.Code
	}
	return a, err
}

type whoami struct {
	User, Session, Module, IP, Proto, Request string
	Roles, Scopes                             []string
}

func declare(r *web.Router) {
	who := func(ctx context.Context) *web.Reply[whoami] {
		id := auth.From(ctx)
		return &web.Reply[whoami]{Body: whoami{string(id.User), string(id.Session), id.Module, web.ClientIP(ctx), web.Proto(ctx), web.RequestID(ctx), id.Roles, id.Scopes}}
	}
	web.Get(r, "/v1/who", web.Public, web.Route{ID: "who"}, func(ctx context.Context, _ *struct{}) (*web.Reply[whoami], error) { return who(ctx), nil })
	web.Get(r, "/v1/me", web.SignedIn, web.Route{ID: "me"}, func(ctx context.Context, _ *struct{}) (*web.Reply[whoami], error) { return who(ctx), nil })
	web.Get(r, "/v1/admin", web.Scope("orders:read"), web.Route{ID: "admin"}, func(ctx context.Context, _ *struct{}) (*web.Reply[whoami], error) { return who(ctx), nil })
	web.Post(r, "/v1/login", web.Public, web.Route{ID: "login", IgnoreToken: true}, func(ctx context.Context, _ *struct {
		Body struct {
			Name string `json:"name"`
		}
	}) (*web.Reply[whoami], error) {
		return who(ctx), nil
	})
	web.Get(r, "/v1/things/{id}", web.Public, web.Route{ID: "thing"}, func(_ context.Context, in *struct {
		ID   string `path:"id" maxLength:"20"`
		Sort string `query:"sort"`
	}) (*web.Reply[map[string]string], error) {
		if in.ID == "none" {
			return nil, errs.NotFoundf("no such thing")
		}
		return &web.Reply[map[string]string]{ETag: web.ETag(7), Body: map[string]string{"id": in.ID, "sort": in.Sort}}, nil
	})
	web.Post(r, "/v1/things", web.Public, web.Route{ID: "makeThing", MaxBody: 1000, Timeout: time.Minute}, func(_ context.Context, in *struct{ RawBody []byte }) (*web.Raw, error) {
		return &web.Raw{Status: 201, ContentType: "text/plain", Body: []byte(fmt.Sprint(len(in.RawBody)))}, nil
	})
}

func TestForwardSaysWhoAsks(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bearer := "Authorization: Bearer " + b.token(t, "orders:read", "x:y")
	for name, c := range map[string]struct {
		method, target, body string
		headers              []string
		status               int
		want                 whoami
	}{
		"a guest":                      {"GET", "/v1/who", "", nil, 200, whoami{IP: "127.0.0.1", Proto: "http"}},
		"a user":                       {"GET", "/v1/me", "", []string{bearer}, 200, whoami{User: "usr_ann", Session: "ses_1", IP: "127.0.0.1", Proto: "http", Roles: []string{"customer"}, Scopes: []string{"orders:read", "x:y"}}},
		"a scope":                      {"GET", "/v1/admin", "", []string{bearer}, 200, whoami{User: "usr_ann", Session: "ses_1", IP: "127.0.0.1", Proto: "http", Roles: []string{"customer"}, Scopes: []string{"orders:read", "x:y"}}},
		"a token that is left unread":  {"POST", "/v1/login", `{"name":"ann"}`, []string{"Authorization: Bearer expired"}, 200, whoami{IP: "127.0.0.1", Proto: "http"}},
		"an address that is not ours":  {"GET", "/v1/who", "", []string{"X-Forwarded-For: 9.9.9.9", "Forwarded: for=9.9.9.9", "X-Real-Ip: 9.9.9.9"}, 200, whoami{IP: "127.0.0.1", Proto: "http"}},
		"a scheme that is not so":      {"GET", "/v1/who", "", []string{"X-Forwarded-Proto: https"}, 200, whoami{IP: "127.0.0.1", Proto: "http"}},
		"nobody, where somebody must":  {"GET", "/v1/me", "", nil, 401, whoami{}},
		"somebody without the scope":   {"GET", "/v1/admin", "", []string{"Authorization: Bearer " + b.token(t, "orders:write")}, 403, whoami{}},
		"a token of somebody else":     {"GET", "/v1/me", "", []string{"Authorization: Bearer a.b.c"}, 401, whoami{}},
		"a token on an open route":     {"GET", "/v1/who", "", []string{bearer}, 200, whoami{User: "usr_ann", Session: "ses_1", IP: "127.0.0.1", Proto: "http", Roles: []string{"customer"}, Scopes: []string{"orders:read", "x:y"}}},
		"a gateway's token of its own": {"GET", "/v1/who", "", []string{"Banyan-Gateway: a.b.c"}, 401, whoami{}},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, b.gateway, c.method, c.target, c.body, append(c.headers, "X-Request-Id: req-1")...)
			if a.StatusCode != c.status {
				t.Fatalf("got %d %s", a.StatusCode, a.body)
			}
			if c.status != 200 {
				return
			}
			var got whoami
			fatal(t, json.Unmarshal([]byte(a.body), &got))
			c.want.Request = "req-1"
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			if a.Header.Get("X-Request-Id") != "req-1" || len(a.Header["X-Request-Id"]) != 1 {
				t.Errorf("request id: %v", a.Header["X-Request-Id"])
			}
		})
	}
}

func TestATrustedProxyBeforeTheGatewayIsBelieved(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) { c.edge = func(w *web.Config) { w.TrustedProxies = []string{"127.0.0.0/8"} } })
	a := ask(t, b.gateway, "GET", "/v1/who", "", "X-Forwarded-For: 6.6.6.6, 9.9.9.9", "X-Forwarded-Proto: https")
	if !strings.Contains(a.body, `"IP":"9.9.9.9","Proto":"https"`) {
		t.Errorf("got %s", a.body)
	}
	if r := b.last(t); r.Header.Get("X-Forwarded-Proto") != "https" || r.Header.Get("X-Forwarded-Host") != b.gateway || r.Host != b.module {
		t.Errorf("got %v, host %s", r.Header, r.Host)
	}
}

// forged are headers by which a client may try to be somebody.
var forged = []string{
	"Banyan-Identity", "Banyan-User", "Banyan-Scopes", "Banyan-Draining", "Banyan-Module", "X-User", "X-User-Id", "X-User-Name", "X-User-Roles",
	"X-User-Email", "X-User-Scopes", "X-Identity-Id", "X-Identity-Roles", "X-Identity-Token", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups",
	"X-Forwarded-Preferred-Username", "X-Forwarded-Access-Token", "X-Forwarded-Client-Cert", "X-Forwarded", "Forwarded", "X-Real-Ip", "X-Client-Ip",
	"X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "X-Auth-Request-User", "X-Auth-Request-Email", "X-Auth-User", "X-Auth-Token",
	"X-Authenticated-User", "X-Authenticated-Userid", "X-Authenticated-Scope", "X-Remote-User", "X-Remote-Ip", "X-Remote-Addr", "X-Original-Url",
	"X-Original-Host", "X-Original-Forwarded-For", "X-Rewrite-Url", "X_user_id", "X_forwarded_for", "Banyan_gateway", "X_identity_id", "X_real_ip",
}

func TestForgedHeadersStayOutside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	if len(forged) < 50 {
		t.Fatal("fewer than fifty")
	}
	for _, name := range forged {
		for _, connection := range []string{"", name, "keep-alive, " + name} {
			headers := []string{name + ": usr_evil"}
			if connection != "" {
				headers = append(headers, "Connection: "+connection)
			}
			a := ask(t, b.gateway, "GET", "/v1/who", "", headers...)
			if a.StatusCode != 200 || strings.Contains(a.body, "usr_evil") || !strings.Contains(a.body, `"IP":"127.0.0.1"`) {
				t.Errorf("%s: %d %s", name, a.StatusCode, a.body)
			}
			for n, values := range b.last(t).Header {
				if strings.Contains(strings.Join(values, " "), "usr_evil") {
					t.Errorf("%s reaches the module as %s: %v", name, n, values)
				}
			}
		}
	}
}

func TestTheConnectionHeaderTakesNothingAway(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bearer := "Authorization: Bearer " + b.token(t)
	for _, connection := range []string{"Banyan-Gateway", "banyan-gateway", "X-Request-Id", "X-Forwarded-For", "Authorization", "close, Banyan-Gateway, X-Request-Id", "Traceparent", "Host"} {
		a := ask(t, b.gateway, "GET", "/v1/me", "", bearer, "X-Request-Id: req-2", "Connection: "+connection)
		if a.StatusCode != 200 || !strings.Contains(a.body, `"User":"usr_ann"`) || !strings.Contains(a.body, `"IP":"127.0.0.1"`) || !strings.Contains(a.body, `"Request":"req-2"`) {
			t.Errorf("Connection: %s: %d %s", connection, a.StatusCode, a.body)
		}
	}
	if h := b.last(t).Header; h.Get("Authorization") != "" {
		t.Errorf("the client's token goes on: %v", h)
	}
}

func TestTheModuleBelievesGatewaysOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) { c.inner = func(w *web.Config) { w.Limit = web.Limit{} } })
	issue := func(tokens *auth.Internal, caller, callee string, user string) string {
		id := auth.Identity{Scopes: []string{"orders:read"}}
		if user != "" {
			id.User = "usr_eve"
		}
		token, err := tokens.IssueInternal(caller, callee, id)
		fatal(t, err)
		return "Banyan-Gateway: " + token
	}
	good := issue(b.tokens, auth.Gateway, "shop", "eve")
	from := "X-Forwarded-For: 9.9.9.9"
	for name, c := range map[string]struct {
		target  string
		headers []string
		status  int
		code    string
	}{
		"a gateway":                           {"/v1/me", []string{good, from}, 200, ""},
		"a token for another module":          {"/v1/me", []string{issue(b.tokens, auth.Gateway, "payments", "eve"), from}, 401, "token_invalid"},
		"a token of a module":                 {"/v1/me", []string{issue(b.tokens, "orders", "shop", "eve"), from}, 401, "token_invalid"},
		"a token by an unknown key":           {"/v1/me", []string{issue(process(t), auth.Gateway, "shop", "eve"), from}, 401, "token_invalid"},
		"an access token in its place":        {"/v1/me", []string{"Banyan-Gateway: " + b.token(t), from}, 401, "token_invalid"},
		"a gateway's token in place of one":   {"/v1/me", []string{"Authorization: Bearer " + strings.TrimPrefix(good, "Banyan-Gateway: ")}, 401, "token_invalid"},
		"two tokens":                          {"/v1/me", []string{good, good, from}, 401, "token_invalid"},
		"an empty token":                      {"/v1/who", []string{"Banyan-Gateway: ", from}, 401, "token_invalid"},
		"a bad token beside a good one":       {"/v1/me", []string{"Banyan-Gateway: x.y.z", from, "Authorization: Bearer " + b.token(t)}, 401, "token_invalid"},
		"a gateway that names no address":     {"/v1/me", []string{good}, 401, "token_invalid"},
		"a gateway that names two":            {"/v1/me", []string{good, "X-Forwarded-For: 1.1.1.1, 2.2.2.2"}, 401, "token_invalid"},
		"a gateway that names none":           {"/v1/me", []string{good, "X-Forwarded-For: evil"}, 401, "token_invalid"},
		"a gateway for a guest, with a JWT":   {"/v1/me", []string{issue(b.tokens, auth.Gateway, "shop", ""), from, "Authorization: Bearer " + b.token(t)}, 401, "unauthenticated"},
		"a gateway without the scope":         {"/v1/admin", []string{good, from}, 200, ""},
		"a JWT and no gateway":                {"/v1/me", []string{"Authorization: Bearer " + b.token(t), from}, 200, ""},
		"nobody, with an address":             {"/v1/who", []string{from}, 200, ""},
		"a token in a header of another name": {"/v1/me", []string{strings.Replace(good, "-", "_", 1), from}, 401, "unauthenticated"},
	} {
		t.Run(name, func(t *testing.T) {
			a := ask(t, b.module, "GET", c.target, "", c.headers...)
			if a.StatusCode != c.status || a.code != c.code {
				t.Fatalf("got %d %s", a.StatusCode, a.body)
			}
			if c.status == 200 && strings.Contains(a.body, "9.9.9.9") != strings.HasPrefix(c.headers[0], "Banyan-") {
				t.Errorf("the address: %s", a.body)
			}
		})
	}
}

func TestTheModuleDoesNotCountAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) { c.edge = func(w *web.Config) { w.Limit = web.Limit{PerSecond: 0.001, Burst: 5} } })
	for i := range 5 {
		a := ask(t, b.gateway, "GET", "/v1/who", "")
		if a.StatusCode != 200 || len(a.Header["Ratelimit-Remaining"]) != 1 || a.Header.Get("RateLimit-Remaining") != fmt.Sprint(4-i) {
			t.Fatalf("%d: %d %v", i, a.StatusCode, a.Header)
		}
	}
	if a := ask(t, b.gateway, "GET", "/v1/who", ""); a.StatusCode != 429 || a.Header.Get("Retry-After") == "" {
		t.Errorf("the gateway does not count: %d", a.StatusCode)
	}
	if b.count() != 5 {
		t.Errorf("%d requests reached the module", b.count())
	}
	for range 3 {
		ask(t, b.module, "GET", "/v1/who", "")
	}
	if a := ask(t, b.module, "GET", "/v1/who", ""); a.StatusCode != 429 {
		t.Errorf("the module does not count who comes by itself: %d", a.StatusCode)
	}
}

// broken is an upstream that does one thing to each connection.
func broken(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() }) // connections end with the gateway, which is closed before
	return l.Addr().String()
}

// readRequest takes one request in.
func readRequest(c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		io.Copy(io.Discard, r.Body)
	}
}

type targetFunc func(*http.Request) (*http.Response, error)

func (f targetFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestWhatGoesWrongHasACodeAndNamesNobody(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	nobody := closed.Addr().String()
	closed.Close()
	says := func(text string) string {
		return broken(t, func(c net.Conn) { readRequest(c); io.WriteString(c, text) })
	}
	hang := func(c net.Conn) { readRequest(c); io.Copy(io.Discard, c) } // until the other end hangs up
	for name, c := range map[string]struct {
		target     http.RoundTripper
		addr       string
		status     int
		code       string
		unknownKey bool
		badToken   bool
	}{
		"nobody listens": {addr: nobody, status: 503, code: "unavailable"},
		"no instance": {target: targetFunc(func(*http.Request) (*http.Response, error) {
			return nil, errs.New(errs.Unavailable, "not_served", "no instance of shop at 10.1.2.3")
		}), status: 503, code: "not_served"},
		"an open breaker": {target: targetFunc(func(*http.Request) (*http.Response, error) {
			return nil, errs.New(errs.Unavailable, "circuit_open", "shop at 10.1.2.3 rests")
		}), status: 503, code: "circuit_open"},
		"no token":                    {badToken: true, status: 503, code: "unavailable"},
		"a closed connection":         {addr: broken(t, readRequest), status: 502, code: "no_answer"},
		"no HTTP":                     {addr: says("SSH-2.0-10.1.2.3\r\n"), status: 502, code: "no_answer"},
		"half a header":               {addr: says("HTTP/1.1 200 OK\r\nContent-Le"), status: 502, code: "no_answer"},
		"endless headers":             {addr: says("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 128<<10) + "\r\n\r\n"), status: 502, code: "no_answer"},
		"an upgrade nobody asked for": {addr: says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"), status: 502, code: "no_answer"},
		"a proxy's 503":               {addr: says("HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 18\r\n\r\nno upstream 10.1.2"), status: 503, code: "unavailable"},
		"a proxy's 502":               {addr: says("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 18\r\n\r\nno upstream 10.1.2"), status: 502, code: "no_answer"},
		"a proxy's 504":               {addr: says("HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 18\r\n\r\nno upstream 10.1.2"), status: 502, code: "no_answer"},
		"no answer":                   {addr: broken(t, hang), status: 504, code: "no_answer"},
		"a refused token":             {unknownKey: true, status: 503, code: "not_served"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, func(ch *change) {
				ch.unknownKey = c.unknownKey
				if c.target != nil {
					ch.target = c.target
				} else if c.addr != "" {
					tr := transport()
					tr.MaxResponseHeaderBytes = 64 << 10
					ch.target = to{c.addr, tr}
					t.Cleanup(tr.CloseIdleConnections)
				}
				if c.badToken {
					ch.token = func(context.Context, auth.Identity) (string, error) { return "", fmt.Errorf("no key of 10.1.2.3") }
				}
				ch.declare = func(r *web.Router) {
					web.Post(r, "/v1/quick", web.Public, web.Route{ID: "quick", Timeout: 2 * time.Second}, func(context.Context, *struct{}) (*web.Reply[struct{}], error) { return nil, nil })
				}
			})
			a := ask(t, b.gateway, "POST", "/v1/quick", "")
			if a.StatusCode != c.status || a.code != c.code || a.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got %d %v %s", a.StatusCode, a.Header, a.body)
			}
			if c.status != 502 && a.Header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After")
			}
			for name := range a.Header {
				if strings.HasPrefix(name, "Banyan-") {
					t.Errorf("%s reaches the client", name)
				}
			}
			for _, leak := range []string{"10.1.2", "127.0.0.1", "dial", "tcp", "EOF", "malformed"} {
				if strings.Contains(a.body, leak) {
					t.Errorf("the answer tells of %q: %s", leak, a.body)
				}
			}
			if !strings.Contains(b.log.String(), "level=ERROR") {
				t.Errorf("nothing in the log")
			}
		})
	}
}

func TestForwardingGoesOneWayOnly(t *testing.T) {
	t.Parallel()
	inner := setup(t)
	b := setup(t, func(c *change) {
		c.target = to{inner.gateway, transport()} // which has the module elsewhere, too
		c.token = func(_ context.Context, id auth.Identity) (string, error) {
			return inner.tokens.IssueInternal(auth.Gateway, "shop", id)
		}
	})
	a := ask(t, b.gateway, "GET", "/v1/who", "")
	if a.StatusCode != 503 || a.code != "not_served" || inner.count() != 0 {
		t.Errorf("got %d %s, %d reached the module", a.StatusCode, a.body, inner.count())
	}
	token, err := inner.tokens.IssueInternal(auth.Gateway, "shop", auth.Identity{})
	fatal(t, err)
	if a := ask(t, inner.gateway, "GET", "/v1/who", "", "Banyan-Gateway: "+token, "X-Forwarded-For: 9.9.9.9"); a.StatusCode != 421 || a.code != "misrouted" || a.Header.Get("Banyan-Gateway") != "refused" {
		t.Errorf("got %d %v %s", a.StatusCode, a.Header, a.body)
	}
}

func TestNothingIsTriedTwice(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"POST", "GET"} {
		var tries atomic.Int64
		b := setup(t, func(c *change) {
			c.target = to{broken(t, func(conn net.Conn) { readRequest(conn); tries.Add(1) }), transport()}
		})
		target, body := "/v1/who", ""
		if method == "POST" {
			target, body = "/v1/things", "x"
		}
		if a := ask(t, b.gateway, method, target, body); a.StatusCode != 502 {
			t.Errorf("%s: %d", method, a.StatusCode)
		}
		if tries.Load() != 1 {
			t.Errorf("%s was sent %d times", method, tries.Load())
		}
	}
}

func TestAnAnswerThatBreaksOffDoesNotEndWell(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) {
		addr := broken(t, func(conn net.Conn) {
			readRequest(conn)
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
		})
		c.target = to{addr, transport()}
	})
	r, err := http.NewRequest("GET", "http://"+b.gateway+"/v1/who", nil)
	fatal(t, err)
	if a, err := do(r); err == nil {
		t.Errorf("the client takes it for whole: %d %s", a.StatusCode, a.body)
	}
}

func TestBodiesKeepToTheRoutesSize(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, c := range map[string]struct {
		size    int
		chunked bool
		status  int
		want    string
	}{
		"fits":                {1000, false, 201, "1000"},
		"one more":            {1001, false, 413, "body_too_large"},
		"far more":            {100 << 10, false, 413, "body_too_large"},
		"chunks that fit":     {1000, true, 201, "1000"},
		"chunks one more":     {1001, true, 413, "body_too_large"},
		"chunks far too many": {100 << 10, true, 413, "body_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest("POST", "http://"+b.gateway+"/v1/things", strings.NewReader(strings.Repeat("x", c.size)))
			fatal(t, err)
			r.Header.Set("Content-Type", "application/octet-stream")
			if c.chunked {
				r.ContentLength = -1
			}
			a, err := do(r)
			fatal(t, err)
			if a.StatusCode != c.status || a.body != c.want && a.code != c.want {
				t.Errorf("got %d %s", a.StatusCode, a.body)
			}
		})
	}
}

func TestABodyThatBreaksOffIsTheClientsFault(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := net.Dial("tcp", b.gateway)
	fatal(t, err)
	defer c.Close()
	fmt.Fprint(c, "POST /v1/things HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nZZ\r\n")
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	fatal(t, err)
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	if r.StatusCode != 400 || !strings.Contains(string(body), "malformed_body") {
		t.Errorf("got %d %s", r.StatusCode, body)
	}
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := net.Dial("tcp", b.gateway)
	fatal(t, err)
	defer c.Close()
	in := bufio.NewReader(c)
	fmt.Fprint(c, "POST /v1/things HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("got %q %v", line, err)
	}
	in.ReadString('\n')
	fmt.Fprint(c, "hello")
	r, err := http.ReadResponse(in, nil)
	fatal(t, err)
	defer r.Body.Close()
	if body, _ := io.ReadAll(r.Body); r.StatusCode != 201 || string(body) != "5" {
		t.Errorf("got %d %s", r.StatusCode, body)
	}
}

func TestEarlyHintsDoNotSpoilTheAnswer(t *testing.T) {
	t.Parallel()
	b := setup(t, func(c *change) {
		addr := broken(t, func(conn net.Conn) {
			readRequest(conn)
			io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		})
		c.target = to{addr, transport()}
	})
	if a := ask(t, b.gateway, "GET", "/v1/who", ""); a.StatusCode != 200 || a.body != "ok" {
		t.Errorf("got %d %s", a.StatusCode, a.body)
	}
}

// stream is a module's process that is no face of ours: it streams and upgrades.
func stream(t *testing.T, h http.HandlerFunc) *bundle {
	return setup(t, func(c *change) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		fatal(t, err)
		s := &http.Server{Handler: h}
		done := make(chan struct{})
		go func() { defer close(done); s.Serve(l) }()
		t.Cleanup(func() { s.Close(); <-done })
		c.target = to{l.Addr().String(), transport()}
		c.declare = func(r *web.Router) {
			web.Get(r, "/v1/events", web.Public, web.Route{ID: "events", Stream: true, Timeout: time.Millisecond}, func(context.Context, *struct{}) (*web.Reply[struct{}], error) { return nil, nil })
		}
	})
}

func TestEventsArriveAtOnce(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	gone := make(chan struct{})
	b := stream(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for e := range next {
			fmt.Fprintf(w, "data: %s\n\n", e)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
		close(gone)
	})
	c, err := net.Dial("tcp", b.gateway)
	fatal(t, err)
	defer c.Close()
	fmt.Fprint(c, "GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	in := bufio.NewReader(c)
	next <- "one"
	r, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection is closed as a whole
	fatal(t, err)
	lines := bufio.NewReader(r.Body)
	for _, want := range []string{"one", "two", "three"} {
		if line, err := lines.ReadString('\n'); err != nil || line != "data: "+want+"\n" {
			t.Fatalf("got %q %v", line, err)
		}
		lines.ReadString('\n')
		if want != "three" {
			next <- map[string]string{"one": "two", "two": "three"}[want] // sent only after the one before has arrived
		}
	}
	close(next)
	c.Close()
	<-gone // the module learns that nobody listens
}

func TestWebSocketsPass(t *testing.T) {
	t.Parallel()
	b := stream(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Banyan-Gateway") == "" {
			w.WriteHeader(400)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		rw.Flush()
		io.Copy(c, rw)
	})
	c, err := net.Dial("tcp", b.gateway)
	fatal(t, err)
	defer c.Close()
	fmt.Fprint(c, "GET /v1/events HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	r, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection is closed as a whole
	fatal(t, err)
	if r.StatusCode != 101 {
		t.Fatalf("got %d", r.StatusCode)
	}
	for _, frame := range []string{"hello", "again"} {
		fmt.Fprint(c, frame)
		got := make([]byte, len(frame))
		if _, err := io.ReadFull(in, got); err != nil || string(got) != frame {
			t.Fatalf("got %q %v", got, err)
		}
	}
}

func TestNoOtherProtocolPasses(t *testing.T) {
	t.Parallel()
	b := stream(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("Upgrade"), r.Header.Get("Http2-Settings"))
	})
	for _, headers := range [][]string{
		{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Http2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"},
		{"Connection: Upgrade", "Upgrade: websocket, h2c"}, {"Connection: Upgrade", "Upgrade: TLS/1.0"},
	} {
		if a := ask(t, b.gateway, "GET", "/v1/events", "", headers...); a.StatusCode != 200 || a.body != "" {
			t.Errorf("%v: %d %s", headers, a.StatusCode, a.body)
		}
	}
	if a := ask(t, b.gateway, "GET", "/v1/who", "", "Connection: Upgrade", "Upgrade: websocket"); a.StatusCode != 200 || a.body != "" {
		t.Errorf("a route that does not stream: %d %s", a.StatusCode, a.body)
	}
}

func TestDrainingIsSaidByTheProcessThatDrains(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.inner.SetDraining()
	if a := ask(t, b.gateway, "GET", "/v1/who", ""); a.StatusCode != 200 || a.Header.Get("Banyan-Draining") != "" || a.Header.Get("Connection") == "close" && !a.Close {
		t.Errorf("got %d %v", a.StatusCode, a.Header)
	}
	if a := ask(t, b.module, "GET", "/v1/who", ""); a.StatusCode != 200 || a.Header.Get("Banyan-Draining") != "1" || !a.Close {
		t.Errorf("got %d %v", a.StatusCode, a.Header)
	}
	b.edge.SetDraining()
	if a := ask(t, b.gateway, "GET", "/v1/who", ""); a.StatusCode != 200 || a.Header.Get("Banyan-Draining") != "1" || !a.Close {
		t.Errorf("got %d %v", a.StatusCode, a.Header)
	}
}

// TestTheGatewayLearnsHowLongARequestHasWaited in the module's process, and nobody else does.
func TestTheGatewayLearnsHowLongARequestHasWaited(t *testing.T) {
	t.Parallel()
	var seen atomic.Pointer[urgency.Request]
	b := setup(t, func(c *change) {
		c.declare = func(r *web.Router) {
			web.Get(r, "/v1/queue", web.Public, web.Route{ID: "queue", Criticality: web.Critical}, func(ctx context.Context, _ *struct{}) (*web.Reply[string], error) {
				r := urgency.Of(ctx)
				r.Wait(time.Now(), 40*time.Millisecond)
				return &web.Reply[string]{Body: r.String()}, nil
			})
		}
	})
	inner := transport()
	t.Cleanup(inner.CloseIdleConnections)
	edge := setup(t, func(c *change) {
		c.declare = func(r *web.Router) {
			web.Get(r, "/v1/queue", web.Public, web.Route{ID: "queue", Criticality: web.Critical}, func(context.Context, *struct{}) (*web.Reply[string], error) { return nil, nil })
		}
		c.target = targetFunc(func(r *http.Request) (*http.Response, error) {
			seen.Store(urgency.Of(r.Context()))
			return to{b.module, inner}.RoundTrip(r)
		})
		c.token = func(_ context.Context, id auth.Identity) (string, error) {
			return b.tokens.IssueInternal(auth.Gateway, "shop", id)
		}
	})
	a := ask(t, edge.gateway, "GET", "/v1/queue", "")
	if a.StatusCode != 200 || !strings.Contains(a.body, "critical") {
		t.Fatalf("got %d %s", a.StatusCode, a.body)
	}
	if waited := seen.Load().Waited(); waited != 40*time.Millisecond {
		t.Errorf("the gateway thinks that it waited for %s", waited)
	}
	if h := a.Header.Get("Banyan-Waited"); h != "" {
		t.Errorf("the client is told %s", h)
	}
	if h := ask(t, b.module, "GET", "/v1/queue", "").Header.Get("Banyan-Waited"); h != "" {
		t.Errorf("who is no gateway is told %s", h)
	}
}
