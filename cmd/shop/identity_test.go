package main

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// atLeast is how many different lies each port is told.
const atLeast = 50

// TestForgedIdentityIsBelievedNowhere tells every port of every process of a split shop, public, internal and operators', that
// somebody else is asking: by headers, by tokens that are made up, expired, of another secret, of another kind, for another module.
// Nothing is shown and nothing changes. The true tokens, sent the same way, are believed at the one place they are for.
func TestForgedIdentityIsBelievedNowhere(t *testing.T) {
	t.Parallel()
	f := newForger(t)
	f.theTruthIsBelieved()
	before := f.sums()
	refused, ports := 0, 0
	for _, name := range slices.Sorted(maps.Keys(f.hosts)) {
		h := f.hosts[name]
		for _, port := range []struct {
			kind, url string
			lies      []lie
		}{
			{"public", h.URL(), f.toFace(name, h)},
			{"rpc", h.RPCURL(), f.toContracts(name, h)},
			{"ops", h.OpsURL(), f.toOps()},
		} {
			if len(port.lies) < atLeast {
				t.Errorf("%s %s: only %d lies", name, port.kind, len(port.lies))
			}
			ports++
			for _, l := range port.lies {
				f.tell(name+" "+port.kind, port.url, l)
				refused++
			}
		}
	}
	f.unchanged(before)
	f.replayed()
	t.Logf("%d lies told at %d ports, none believed", refused, ports)
	if ports != 3*len(f.hosts) {
		t.Errorf("%d ports of %d processes", ports, len(f.hosts))
	}
}

// forger knows everything of the shop but nobody's word for what he says: and, so that his lies differ from the truth in one thing
// alone, even its secret.
type forger struct {
	*world
	*running
	internal  ed25519.PrivateKey
	kid       string
	databases map[string]string // by process
	things    map[string][]call // of the owner, and of staff, by module: each would show or change something
	methods   map[string][]string
}

func newForger(t *testing.T) *forger {
	t.Helper()
	f := &forger{databases: map[string]string{}, things: map[string][]call{}, methods: contractMethods(t)}
	f.running = bootAll(t, "split", nil, map[string]string{"ops_listen": "127.0.0.1:0", "users.login_delays": "false", "catalog.demo_products": "30", "calls.deadline": "20s"}, func(all map[string]upProcess) any {
		for name, p := range all {
			if p.DatabaseURL != "" {
				f.databases[name] = p.DatabaseURL
			}
		}
		return all
	})
	f.world = &world{t: t, h: f.front, tokens: map[string]string{}, users: map[string]string{}, estates: map[string]*estate{}, shut: map[string]bool{}}
	var err error
	if f.secret, err = auth.ParseSecret(worldSecret); err != nil {
		t.Fatal(err)
	}
	f.admin = shoptest.Open(t, pg.Config{URL: f.databases["users"], Schema: "public", MaxConns: 2})
	f.people()
	f.internal = ed25519.NewKeyFromSeed(f.secret.Derive("internal tokens"))
	f.kid = auth.InternalKey(f.secret).ID

	e := f.of("owner")
	order, cart, address := e.bought(), e.cart(), e.entry()
	f.idleAll()
	get := func(path string) call { return call{method: "GET", target: path} }
	post := func(path, body string) call {
		return call{method: "POST", target: path, body: body}.with("Idempotency-Key", f.key1())
	}
	review := f.of("admin").opinion()
	f.things["users"] = []call{get("/v1/me"), {method: "PATCH", target: "/v1/me", body: `{"name":"Mallory"}`}, get("/v1/me/addresses"), {method: "DELETE", target: "/v1/me/addresses/" + address}}
	f.things["catalog"] = []call{post("/v1/admin/stock-adjustments", fmt.Sprintf(`{"sku":%q,"delta":-1,"reason":"theft"}`, f.sku())), get("/v1/admin/stock-levels")}
	f.things["shipping"] = []call{get("/v1/orders/" + order + "/shipments"), post("/v1/admin/orders/"+order+"/shipments", `{"lines":[]}`)}
	f.things["cart"] = []call{get("/v1/carts/" + cart), post("/v1/carts/"+cart+"/items", fmt.Sprintf(`{"sku":%q,"quantity":1}`, f.sku())), call{method: "DELETE", target: "/v1/carts/" + cart + "/items/" + e.line}.with("If-Match", e.version())}
	f.things["payments"] = []call{post("/v1/hooks/simulator", `{"id":"evt_1","type":"payment.captured"}`)}
	f.things["orders"] = []call{get("/v1/orders/" + order), post("/v1/orders/"+order+"/cancellations", `{"reason":"spite"}`), get("/v1/orders"), get("/v1/admin/orders")}
	f.things["reviews"] = []call{post("/v1/admin/reviews/"+review+"/moderation", `{"decision":"reject"}`)}
	f.things["storefront"] = []call{get("/v1/storefront/orders/" + order), get("/v1/storefront/account"), get("/v1/storefront/carts/" + cart)}
	f.idleAll()
	return f
}

// contractMethods are the names of all contract methods, by module, as their bindings in api say.
func contractMethods(t *testing.T) map[string][]string {
	t.Helper()
	files, err := filepath.Glob("../../api/*/rpc.go")
	if err != nil {
		t.Fatal(err)
	}
	binding := regexp.MustCompile(`NewMethod\[[^\]]*\]\("([a-z]+)\.([A-Za-z]+)"`)
	all, n := map[string][]string{}, 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range binding.FindAllStringSubmatch(string(text), -1) {
			all[m[1]] = append(all[m[1]], m[2])
			n++
		}
	}
	if n < 30 {
		t.Fatalf("only %d contract methods found in the source", n)
	}
	return all
}

// lie is a request in somebody's name.
type lie struct {
	what string
	call
}

// theTruthIsBelieved sends what the lies are variations of. Were it refused, their refusal would say nothing.
func (f *forger) theTruthIsBelieved() {
	f.t.Helper()
	admin := auth.Identity{User: ids.ID(f.users["admin"]), Roles: []string{"admin"}, Scopes: []string{"catalog:read_all", "orders:read_all"}}
	owner := auth.Identity{User: ids.ID(f.users["owner"]), Roles: []string{"customer"}}
	for module, things := range f.things {
		for _, c := range things {
			if c.method != "GET" {
				continue
			}
			who := owner
			if strings.HasPrefix(c.target, "/v1/admin/") {
				who = admin
			}
			token := f.issue(auth.Gateway, module, who)
			h := f.Host(module)
			if got := f.ask(h.URL(), f.vouched(c, token)); got.status != 200 {
				f.t.Errorf("the gateway's own token at %s: %s", module, got)
			}
			for _, other := range modules { // stolen there, it opens nothing anywhere else
				if at := f.Host(other.Name); other.Name != module {
					for _, stolen := range f.things[other.Name] {
						f.tell(other.Name+" public", at.URL(), lie{"a token stolen on its way to " + module, f.vouched(stolen, token)})
					}
				}
			}
			for _, at := range f.hosts {
				f.tell("rpc", at.RPCURL(), lie{"a token stolen on its way to the public face of " + module, f.bearer(f.method("users", 0), token)})
			}
		}
	}
	callers := []string{"shop", "host"} // who is no module: commands, and the process itself
	for _, m := range modules {
		callers = append(callers, m.Name)
	}
	for module, methods := range f.methods {
		for i, method := range methods {
			believed := slices.ContainsFunc(callers, func(caller string) bool {
				got := f.ask(f.Host(module).RPCURL(), f.bearer(f.method(module, i), f.issue(caller, module, auth.Identity{})))
				return got.status != 401 && got.status != 403 && got.status < 500
			})
			if !believed {
				f.t.Errorf("%s.%s answers nobody", module, method)
			}
		}
	}
	f.idleAll()
}

// replayed is a token that was good, and is sent again when it has expired.
func (f *forger) replayed() {
	f.t.Helper()
	issued := time.Now().Add(-58 * time.Second) // of its time, and the tolerance for clocks, a moment is left
	token := f.token(nil, claims{"aud": "users", "mod": "orders", "iat": issued.Unix(), "exp": issued.Add(30 * time.Second).Unix()})
	c := f.bearer(f.method("users", 0), token)
	at := f.Host("users").RPCURL()
	if got := f.ask(at, c); got.status != 200 {
		f.t.Errorf("a token in its last moment: %s", got)
	}
	shoptest.WaitFor(f.t, "the token to expire", func() bool { return f.ask(at, c).status == 401 })
}

func (f *forger) issue(caller, callee string, id auth.Identity) string {
	f.t.Helper()
	token, err := auth.NewInternal(auth.InternalKey(f.secret), nil, time.Now).IssueInternal(caller, callee, id)
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

// token is an internal token of the shop's own key, of the admin from the gateway, but for what is changed.
func (f *forger) token(header, change claims) string {
	return f.signed(header, change, func(s string) []byte { return ed25519.Sign(f.internal, []byte(s)) })
}

func (f *forger) signed(header, change claims, sign func(string) []byte) string {
	now := time.Now()
	all := claims{
		"iss": "banyan", "sub": f.users["admin"], "mod": auth.Gateway, "iat": now.Unix(), "iat_ms": now.UnixMilli(), "nbf": now.Unix() - 1,
		"exp": now.Add(40 * time.Second).Unix(), "jti": "tok_forged", "roles": []string{"admin"}, "scopes": []string{"orders:read_all", "catalog:write", "stock:write"},
	}
	for k, v := range change {
		if all[k] = v; v == nil {
			delete(all, k)
		}
	}
	if iat, ok := change["iat"].(int64); ok {
		all["iat_ms"], all["nbf"] = iat*1000, iat
	}
	h := map[string]any{"alg": "EdDSA", "typ": "mod+jwt", "kid": f.kid}
	maps.Copy(h, header)
	return f.forge(h, all, sign)
}

// method is a call of a contract.
func (f *forger) method(module string, i int) call {
	names := f.methods[module]
	body := "{}"
	name := names[i%len(names)]
	if module+"."+name == "users.Create" {
		body = fmt.Sprintf(`{"key":"forged-%d","email":"mallory-%d@example.com","password":"correct horse battery staple","name":"Mallory","role":"admin"}`, i, i)
	}
	return call{method: "POST", target: "/rpc/" + module + "/" + name, body: body}
}

func (f *forger) bearer(c call, token string) call { return c.with("Authorization", "Bearer "+token) }

// vouched is a request as the gateway forwards it.
func (f *forger) vouched(c call, token string) call {
	return c.with("Banyan-Gateway", token).with("X-Forwarded-For", "203.0.113.7").with("X-Forwarded-Proto", "https")
}

// forgedTokens are internal tokens for a module by name, each wrong in one thing. true ones have callers that may ask it.
func (f *forger) forgedTokens(module, caller string) map[string]string {
	now := time.Now().Unix()
	good := claims{"aud": module, "mod": caller}
	but := func(k string, v any) claims { c := maps.Clone(good); c[k] = v; return c }
	valid := f.token(nil, good)
	parts := strings.Split(valid, ".")
	stranger := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	public := f.internal.Public().(ed25519.PublicKey)
	mac := func(key []byte) func(string) []byte {
		return func(s string) []byte { h := hmac.New(sha256.New, key); h.Write([]byte(s)); return h.Sum(nil) }
	}
	none := func(string) []byte { return nil }
	all := map[string]string{
		"nothing": "", "null": "null", "junk": "a.b.c", "two dots": "..", "an id": f.users["admin"],
		"expired":                      f.token(nil, claims{"aud": module, "mod": caller, "iat": now - 120, "exp": now - 61}),
		"not yet":                      f.token(nil, claims{"aud": module, "mod": caller, "iat": now + 300, "exp": now + 340}),
		"of an hour":                   f.token(nil, but("exp", now+3600)),
		"without end":                  f.token(nil, but("exp", nil)),
		"end zero":                     f.token(nil, but("exp", 0)),
		"without beginning":            f.token(nil, but("iat", nil)),
		"nbf in the future":            f.token(nil, but("nbf", now+300)),
		"of another issuer":            f.token(nil, but("iss", "mallory")),
		"without issuer":               f.token(nil, but("iss", nil)),
		"for nobody":                   f.token(nil, but("aud", nil)),
		"for the public":               f.token(nil, but("aud", "shop")),
		"for the host":                 f.token(nil, but("aud", "host")),
		"for the gateway":              f.token(nil, but("aud", auth.Gateway)),
		"from nobody":                  f.token(nil, but("mod", nil)),
		"for a user and a key":         f.token(nil, but("key", "key_1")),
		"of another type":              f.token(claims{"typ": "at+jwt"}, good),
		"of no type":                   f.token(claims{"typ": "JWT"}, good),
		"of another key's name":        f.token(claims{"kid": f.world.kid}, good),
		"of no key":                    f.token(claims{"kid": ""}, good),
		"of a key in a file":           f.token(claims{"kid": "../../../dev/null"}, good),
		"with a key of its own":        f.token(claims{"jwk": map[string]string{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(public)}}, good),
		"with keys elsewhere":          f.token(claims{"jku": "http://127.0.0.1:1/keys"}, good),
		"critical":                     f.token(claims{"crit": []string{"exp"}}, good),
		"alg none":                     f.signed(claims{"alg": "none"}, good, none),
		"alg None":                     f.signed(claims{"alg": "None"}, good, none),
		"alg EdDSA, unsigned":          f.signed(nil, good, none),
		"alg HS256 by the public key":  f.signed(claims{"alg": "HS256"}, good, mac(public)),
		"alg HS256 by nothing":         f.signed(claims{"alg": "HS256"}, good, mac(nil)),
		"alg HS512":                    f.signed(claims{"alg": "HS512"}, good, mac(public)),
		"of another secret":            f.signed(nil, good, func(s string) []byte { return ed25519.Sign(stranger, []byte(s)) }),
		"by the key of access tokens":  f.signed(nil, good, func(s string) []byte { return ed25519.Sign(f.key, []byte(s)) }),
		"an access token of the admin": f.tokens["admin"],
		"an access token of the owner": f.tokens["owner"],
		"an expired access token":      f.tokens["expired"],
		"an access token, unsigned":    f.tokens["forged"],
		"the signature cut off":        parts[0] + "." + parts[1] + ".",
		"the signature cut short":      valid[:len(valid)-2],
		"the signature of another":     parts[0] + "." + parts[1] + "." + strings.Split(f.token(nil, but("sub", f.users["owner"])), ".")[2],
		"the payload of another":       parts[0] + "." + strings.Split(f.token(nil, but("sub", f.users["owner"])), ".")[1] + "." + parts[2],
		"a line end in it":             valid[:10] + " " + valid[10:],
		"too long":                     f.token(nil, but("pad", strings.Repeat("x", 9000))),
		"the token in quotes":          `"` + valid + `"`,
	}
	for _, other := range modules {
		if other.Name != module {
			all["for "+other.Name] = f.token(nil, but("aud", other.Name))
		}
	}
	return all
}

// saidOf are headers that say who asks, to whoever believes headers.
func (f *forger) saidOf() []http.Header {
	var all []http.Header
	for _, name := range []string{"X-User-Id", "X-User", "X-User-Email", "X-Remote-User", "Remote-User", "X-Forwarded-User", "X-Authenticated-User", "X-Authenticated-Userid",
		"X-Auth-User", "X-Auth-Request-User", "X-Identity-User", "X-Consumer-Id", "X-Goog-Authenticated-User-Id", "X-Amzn-Oidc-Identity", "Banyan-User", "Banyan_Gateway", "X-Banyan-Gateway", "From"} {
		all = append(all, http.Header{name: {f.users["admin"]}, "X-Roles": {"admin"}, "X-Scopes": {"orders:read_all orders:write"}})
	}
	access := "Bearer " + f.tokens["admin"]
	return append(all,
		http.Header{"X-Module": {"orders"}, "X-Internal-Token": {f.token(nil, claims{"aud": "orders"})}},
		http.Header{"Cookie": {"session=" + f.tokens["admin"] + "; Authorization=" + f.tokens["admin"]}},
		http.Header{"X-Original-Url": {"/v1/products"}, "X-Rewrite-Url": {"/healthz"}, "X-Http-Method-Override": {"GET"}},
		http.Header{"X-Forwarded-For": {"127.0.0.1"}, "X-Real-Ip": {"127.0.0.1"}, "Forwarded": {"for=127.0.0.1;by=127.0.0.1"}},
		http.Header{"X-Original-Authorization": {access}, "Proxy-Authorization": {access}, "X-Authorization": {access}},
		http.Header{"Authorization": {"Basic YWRtaW46YWRtaW4="}},
		http.Header{"Authorization": {f.users["admin"]}},
		http.Header{"Authorization": {"Bearer " + f.users["admin"]}},
		http.Header{"Authorization": {"Bearer"}},
		http.Header{"Authorization": {"Negotiate " + f.tokens["admin"]}},
		http.Header{"Authorization": {"Bearer " + f.tokens["expired"]}},
		http.Header{"Authorization": {"Bearer " + f.tokens["forged"]}},
		http.Header{"Authorization": {"Bearer " + f.tokens["revoked"]}},
		http.Header{"X-Ssl-Client-Verify": {"SUCCESS"}, "X-Client-Cert": {"CN=orders"}},
	)
}

// with adds headers to a call.
func (l lie) with(h http.Header) lie {
	for name, values := range h {
		l.call = l.call.with(name, values...)
	}
	return l
}

// toFace are lies to the public port of a process.
func (f *forger) toFace(process string, h *host.Host) []lie {
	things, module := f.things[process], process
	if h.Plan.Gateway {
		module = "orders"
		for _, of := range f.things {
			things = append(things, of...)
		}
	}
	if len(things) == 0 { // it shows nobody's data: then not another's either
		things = f.things["users"]
	}
	var lies []lie
	n := 0
	next := func(what string) lie { n++; return lie{what, things[n%len(things)]} }
	for range things { // each lie is told of each thing in turn
		for i, said := range f.saidOf() {
			lies = append(lies, next(fmt.Sprintf("header set %d", i)).with(said))
		}
		tokens := f.forgedTokens(module, auth.Gateway)
		for _, what := range slices.Sorted(maps.Keys(tokens)) {
			l := next("as the gateway: " + what)
			l.call = f.vouched(l.call, tokens[what])
			lies = append(lies, l)
		}
		good := f.token(nil, claims{"aud": module})
		for _, caller := range modules {
			l := next("as the gateway, a token of " + caller.Name)
			l.call = f.vouched(l.call, f.token(nil, claims{"aud": module, "mod": caller.Name}))
			lies = append(lies, l, next("a module's token of "+caller.Name+" as a customer's").with(http.Header{"Authorization": {"Bearer " + f.token(nil, claims{"aud": module, "mod": caller.Name})}}))
		}
		lies = append(lies,
			next("the gateway's token as a customer's").with(http.Header{"Authorization": {"Bearer " + good}}),
			next("two tokens").with(http.Header{"Banyan-Gateway": {good, good}, "X-Forwarded-For": {"203.0.113.7"}}),
			next("no address").with(http.Header{"Banyan-Gateway": {good}}),
			next("two addresses").with(http.Header{"Banyan-Gateway": {good}, "X-Forwarded-For": {"203.0.113.7", "127.0.0.1"}}),
			next("a list of addresses").with(http.Header{"Banyan-Gateway": {good}, "X-Forwarded-For": {"203.0.113.7, 127.0.0.1"}}),
			next("Connection takes headers away").with(http.Header{"Connection": {"Banyan-Gateway, Authorization, X-Forwarded-For"}, "X-User-Id": {f.users["admin"]}}),
			next("Connection and a token of another").with(http.Header{"Connection": {"X-Forwarded-For"}, "Banyan-Gateway": {f.token(nil, claims{"aud": "host"})}, "X-Forwarded-For": {"203.0.113.7"}}),
		)
		if h.Plan.Gateway { // even what is true comes from nobody else's gateway
			l := next("a true token, to the gateway itself")
			l.call = f.vouched(l.call, good)
			lies = append(lies, l)
		}
	}
	return lies
}

// toContracts are lies to the rpc port of a process.
func (f *forger) toContracts(process string, h *host.Host) []lie {
	module := process
	if len(f.methods[module]) == 0 { // it answers no calls: then not another's either
		module = "users"
	}
	var lies []lie
	caller := modules[len(modules)-1].Name
	tokens := f.forgedTokens(module, caller)
	if module != process {
		tokens = map[string]string{}
		for what, token := range f.forgedTokens("users", caller) {
			tokens[what] = token
		}
		tokens["true, at a process that does not run the module"] = f.token(nil, claims{"aud": "users", "mod": caller})
	}
	for i, what := range slices.Sorted(maps.Keys(tokens)) {
		lies = append(lies, lie{what, f.bearer(f.method(module, i), tokens[what])})
	}
	lies = append(lies, lie{"the gateway's own, true", f.bearer(f.method(module, 0), f.token(nil, claims{"aud": module}))})
	for _, m := range modules { // who is below may not be called by who is above
		lies = append(lies, lie{"the gateway's for " + m.Name, f.bearer(f.method(module, 1), f.token(nil, claims{"aud": m.Name}))})
		if m.Name == module {
			break
		}
		lies = append(lies, lie{"up the list, from " + m.Name, f.bearer(f.method(module, 2), f.token(nil, claims{"aud": module, "mod": m.Name}))})
	}
	for i := range f.methods[module] {
		lies = append(lies, lie{"no token", f.method(module, i)})
	}
	for i, said := range f.saidOf() {
		lies = append(lies, lie{fmt.Sprintf("header set %d", i), f.method(module, i)}.with(said))
	}
	status := call{method: "GET", target: "/status"}
	lies = append(lies, lie{"status, no token", status})
	for what, token := range f.forgedTokens("host", caller) {
		if what != "for the host" {
			lies = append(lies, lie{"status: " + what, f.bearer(status, token)})
		}
	}
	for _, c := range f.things[process] { // the public face through the back door
		lies = append(lies, lie{"public route without a gateway", c}, lie{"public route, a customer's token", c.with("Authorization", "Bearer "+f.tokens["admin"])})
		for what, token := range f.forgedTokens(process, auth.Gateway) {
			lies = append(lies, lie{"public route, as the gateway: " + what, f.vouched(c, token)})
		}
	}
	return lies
}

// toOps are requests to the operators' port, which has nobody's data, whoever asks.
func (f *forger) toOps() []lie {
	var lies []lie
	said := f.saidOf()
	i := 0
	for _, of := range f.things {
		for _, c := range of {
			i++
			lies = append(lies, lie{"as the gateway", f.vouched(c, f.token(nil, claims{"aud": "orders"}))}, lie{"headers", c}.with(said[i%len(said)]))
		}
	}
	for module, names := range f.methods {
		for i := range names {
			lies = append(lies, lie{"a module's token", f.bearer(f.method(module, i), f.token(nil, claims{"aud": module, "mod": "storefront"}))})
		}
	}
	return append(lies, lie{"status", f.bearer(call{method: "GET", target: "/status"}, f.token(nil, claims{"aud": "host", "mod": "shop"}))})
}

// tell tells a lie. It must be refused, and the refusal must say nothing.
func (f *forger) tell(port, url string, l lie) {
	f.t.Helper()
	got := f.ask(url, l.call)
	switch got.status {
	case 401, 403, 404, 421: // 404: there is no such thing for strangers; 421: not here
	case 400, 422:
		if !strings.HasPrefix(l.target, "/v1/hooks/") && !strings.Contains(l.what, "header") {
			f.t.Errorf("%s, %s: it was read before it was refused: %s", port, l.what, got)
		}
	default:
		f.t.Errorf("%s, %s: %s", port, l.what, got)
	}
	for _, secret := range []string{"owner@example.com", "Hauptstr", "Gina"} {
		if strings.Contains(string(got.body), secret) {
			f.t.Errorf("%s, %s: it was told %s: %s", port, l.what, secret, got)
		}
	}
}

// ask sends a call to one process.
func (f *forger) ask(base string, c call) answer {
	f.t.Helper()
	r, err := http.NewRequestWithContext(f.t.Context(), c.method, base+c.target, strings.NewReader(c.body))
	if err != nil {
		f.t.Fatal(err)
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		r.Header[k] = v
	}
	got, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		f.t.Fatalf("%s %s%s: %v", c.method, base, c.target, err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return answer{c, got.StatusCode, got.Header, body}
}

// sums are those of every table of every process, but for what a refused request may write; see world.sum.
func (f *forger) sums() map[string]string {
	f.t.Helper()
	f.idleAll()
	all := map[string]string{}
	for process, url := range f.databases {
		db := database(f.t, url)
		if _, err := db.ExecContext(f.t.Context(), strings.Replace(sums, "CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)); err != nil {
			f.t.Fatal(err)
		}
		rows, err := db.QueryContext(f.t.Context(), `SELECT name, rows || ' rows, ' || sum FROM public.sums()`)
		if err != nil {
			f.t.Fatal(err)
		}
		for rows.Next() {
			var name, sum string
			if err := rows.Scan(&name, &sum); err != nil {
				f.t.Fatal(err)
			}
			if !strings.HasSuffix(name, ".idempotency_keys") && name != "users.login_failures" {
				all[process+" "+name] = sum
			}
		}
		if err := rows.Err(); err != nil {
			f.t.Fatal(err)
		}
		rows.Close()
	}
	if len(all) < 40 {
		f.t.Fatalf("only %d tables: the search for them is wrong", len(all))
	}
	return all
}

func (f *forger) unchanged(before map[string]string) {
	f.t.Helper()
	after := f.sums()
	for name, sum := range after {
		if before[name] != sum {
			f.t.Errorf("lies changed %s: %s, before %s", name, sum, before[name])
		}
	}
	if len(after) != len(before) {
		f.t.Errorf("%d tables, before %d", len(after), len(before))
	}
}

func (f *forger) idleAll() {
	f.t.Helper()
	if err := f.running.Idle(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}
