package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/web"
)

// world is a running shop with people in it, for tests that try every route.
type world struct {
	t      *testing.T
	h      *host.Host
	secret auth.Secret
	key    ed25519.PrivateKey // the shop's own signing key
	kid    string
	admin  *pg.DB            // as superuser
	tokens map[string]string // access tokens by name
	users  map[string]string // ids by name
	seq    int
	doc    document
	shut   map[string]bool // codes that have a page

	estates map[string]*estate
}

const worldSecret = "a-secret-of-the-tests-that-is-long-enough"

// password of everybody in the world.
const password = "correct horse battery staple"

// staff are the people who are made on the command line; owner and other are customers.
var staff = map[string]string{"owner": "customer", "other": "customer", "support": "support", "merchant": "merchant", "admin": "admin"}

func newWorld(t *testing.T, flags map[string]string) *world {
	t.Helper()
	all := map[string]string{
		"listen": "127.0.0.1:0", "ops_listen": "", "database_url": shoptest.URL(t), "data_dir": t.TempDir(), "secret": worldSecret,
		"pool.max": "3", "events.poll": "20ms", "catalog.demo_products": "30",
	}
	maps.Copy(all, flags)
	settings, err := config.Load(config.Options{Flags: all})
	if err != nil {
		t.Fatal(err)
	}
	o := shop(settings)
	o.Development = true
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&locked{w: &log}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	h, err := host.Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Errorf("stop the shop: %v", err)
		}
		if t.Failed() && log.Len() > 0 {
			t.Logf("the shop's log:\n%s", log.String())
		}
	})
	w := &world{t: t, h: h, tokens: map[string]string{}, users: map[string]string{}, estates: map[string]*estate{}, shut: map[string]bool{}}
	if w.secret, err = auth.ParseSecret(worldSecret); err != nil {
		t.Fatal(err)
	}
	w.admin = shoptest.Open(t, pg.Config{URL: shoptest.URL(t), Schema: "public", MaxConns: 2})
	shoptest.Exec(t, sums)
	router := host.Routes(o)
	for _, p := range router.Problems() {
		w.shut[p.Code] = true
	}
	_, doc, err := web.OpenAPI(router)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(doc, &w.doc); err != nil {
		t.Fatal(err)
	}
	w.doc.routes = router.Routes()
	w.people()
	return w
}

// sums is a function that adds up every table, so that a test can say that nothing changed.
const sums = `
CREATE FUNCTION public.sums() RETURNS TABLE (name text, rows bigint, sum text) LANGUAGE plpgsql AS $$
DECLARE t record;
BEGIN
	FOR t IN SELECT table_schema AS s, table_name AS n FROM information_schema.tables
		WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema', 'public')
	LOOP
		RETURN QUERY EXECUTE format('SELECT %L, count(*), md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '''')) FROM %I.%I t',
			t.s || '.' || t.n, t.s, t.n);
	END LOOP;
END $$;`

// sum is what all tables hold, but for those that a refused request may write: its key, and that a login failed.
func (w *world) sum() map[string]string {
	w.t.Helper()
	w.idle()
	var rows []struct {
		Name string `db:"name"`
		Rows int64  `db:"rows"`
		Sum  string `db:"sum"`
	}
	if err := w.admin.Select(w.t.Context(), &rows, `SELECT name, rows, sum FROM public.sums()`); err != nil {
		w.t.Fatal(err)
	}
	all := map[string]string{}
	for _, r := range rows {
		if strings.HasSuffix(r.Name, ".idempotency_keys") || r.Name == "users.login_failures" {
			continue
		}
		all[r.Name] = fmt.Sprintf("%d rows, %s", r.Rows, r.Sum)
	}
	if len(all) < 40 {
		w.t.Fatalf("only %d tables: the search for them is wrong", len(all))
	}
	return all
}

// unchanged fails the test for every table that is not as it was.
func (w *world) unchanged(what string, before map[string]string) {
	w.t.Helper()
	for name, sum := range w.sum() {
		if before[name] != sum {
			w.t.Errorf("%s changed %s: %s, before %s", what, name, sum, before[name])
		}
	}
}

func (w *world) idle() {
	w.t.Helper()
	if err := w.h.Idle(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

// quiet waits until every mail is sent, every webhook handled and every event heard, so that what changes from here on was asked for.
// Within one process an event is unsent until it has been heard, or waits for another try, so that one look sees all. A checkout may go
// on waiting for its customer.
func (w *world) quiet() {
	w.t.Helper()
	due := maps.Clone(works)
	due["orders"] = []string{`orders.checkouts WHERE poked OR lease_until > now() OR next_at <= now()`, `orders.cancellations WHERE next_at IS NOT NULL`}
	query := leftOf(due, schemas...)
	shoptest.WaitFor(w.t, "mails, webhooks and events to come to rest", func() bool {
		var left int
		if err := w.admin.Get(w.t.Context(), &left, query); err != nil {
			w.t.Fatal(err)
		}
		return left == 0
	})
}

func (w *world) people() {
	w.t.Helper()
	u := usersapi.Dial(w.h.Dialer("shop"))
	for name, role := range staff {
		made, err := u.Create(w.t.Context(), usersapi.CreateRequest{Key: name, Email: name + "@example.com", Password: password, Name: name, Role: role})
		if err != nil {
			w.t.Fatal(err)
		}
		w.users[name] = string(made.ID)
	}
	var sealed []byte
	if err := w.admin.Get(w.t.Context(), &sealed, `SELECT sealed FROM users.signing_keys WHERE state = 'current'`); err != nil {
		w.t.Fatal(err)
	}
	k, err := auth.OpenKey(w.secret, sealed)
	if err != nil {
		w.t.Fatal(err)
	}
	seed, _ := w.secret.Decrypt("signing-keys", sealed)
	w.key, w.kid = ed25519.NewKeyFromSeed(seed), k.ID

	w.tokens["revoked"] = w.login("owner")
	w.must(w.send(call{method: "POST", target: "/v1/auth/logout-everywhere", token: w.tokens["revoked"]}), 204)
	shoptest.WaitFor(w.t, "the sessions to end", func() bool {
		return w.send(call{method: "GET", target: "/v1/me", token: w.tokens["revoked"]}).status == 401
	})
	for name := range staff {
		w.tokens[name] = w.login(name)
	}
	w.tokens["expired"] = w.sign(nil, claims{"exp": time.Now().Add(-time.Minute).Unix(), "iat": time.Now().Add(-6 * time.Minute).Unix()})
	w.tokens["forged"] = w.forge(map[string]any{"alg": "none", "typ": "at+jwt", "kid": w.kid}, w.claims(nil), func(string) []byte { return nil })
}

func (w *world) login(name string) string {
	w.t.Helper()
	a := w.must(w.send(call{method: "POST", target: "/v1/auth/login", body: fmt.Sprintf(`{"email":%q,"password":%q}`, name+"@example.com", password)}), 200)
	return a.text("access_token")
}

type claims map[string]any

// claims are those of a good token of the admin, with some changed.
func (w *world) claims(change claims) claims {
	now := time.Now()
	c := claims{
		"iss": "banyan", "aud": "shop", "sub": w.users["admin"], "iat": now.Unix(), "iat_ms": now.UnixMilli(), "nbf": now.Unix() - 1,
		"exp": now.Add(4 * time.Minute).Unix(), "jti": "tok_forged", "sid": "ses_forged", "roles": []string{"admin"}, "scopes": []string{"orders:read_all", "catalog:write"},
	}
	for k, v := range change {
		if v == nil {
			delete(c, k)
			continue
		}
		c[k] = v
	}
	if iat, ok := change["iat"].(int64); ok {
		c["iat_ms"], c["nbf"] = iat*1000, iat
	}
	return c
}

// sign makes a token with the shop's own key and other headers and claims than its own.
func (w *world) sign(header, change claims) string {
	h := map[string]any{"alg": "EdDSA", "typ": "at+jwt", "kid": w.kid}
	for k, v := range header {
		h[k] = v
	}
	return w.forge(h, w.claims(change), func(s string) []byte { return ed25519.Sign(w.key, []byte(s)) })
}

func (w *world) forge(header map[string]any, c claims, sign func(string) []byte) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			w.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(header) + "." + part(c)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

// call is one request.
type call struct {
	method string
	target string // path and query, sent as it stands
	token  string // Bearer
	header http.Header
	body   string
	stream bool // of unknown length
}

// with is the call with another header.
func (c call) with(name string, values ...string) call {
	h := c.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h[name] = values
	c.header = h
	return c
}

func (c call) saying(body string) call { c.body = body; return c }

func (c call) asking(query string) call {
	if strings.Contains(c.target, "?") {
		c.target += "&" + query
	} else {
		c.target += "?" + query
	}
	return c
}

// answer is what came back.
type answer struct {
	call   call
	status int
	header http.Header
	body   []byte
}

func (a answer) String() string {
	return fmt.Sprintf("%s %.200s %.300s\n  -> %d %.600s", a.call.method, a.call.target, a.call.body, a.status, a.body)
}

// at is the value under a path such as lines.0.id, nil if there is none.
func (a answer) at(path string) any {
	var v any
	if json.Unmarshal(a.body, &v) != nil {
		return nil
	}
	for _, p := range strings.Split(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[p]
		case []any:
			var i int
			if _, err := fmt.Sscan(p, &i); err != nil || i >= len(x) {
				return nil
			}
			v = x[i]
		default:
			return nil
		}
	}
	return v
}

func (a answer) text(path string) string { s, _ := a.at(path).(string); return s }

func (w *world) send(c call) answer {
	w.t.Helper()
	base, err := url.Parse(w.h.URL())
	if err != nil {
		w.t.Fatal(err)
	}
	var body io.Reader
	if c.body != "" {
		body = strings.NewReader(c.body)
		if c.stream {
			body = io.MultiReader(body) // whose length nobody knows
		}
	}
	r, err := http.NewRequestWithContext(w.t.Context(), c.method, w.h.URL(), body)
	if err != nil {
		w.t.Fatal(err)
	}
	path, query, _ := strings.Cut(c.target, "?")
	r.URL = &url.URL{Scheme: "http", Host: base.Host, Opaque: path, RawQuery: query}
	if strings.HasPrefix(path, "//") {
		r.URL.Opaque = "//" + base.Host + path
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for k, v := range c.header {
		r.Header[k] = v
	}
	got, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatalf("%s %.200s: %v", c.method, c.target, err)
	}
	defer got.Body.Close()
	b, err := io.ReadAll(got.Body)
	if err != nil {
		w.t.Fatalf("%s %.200s: %v", c.method, c.target, err)
	}
	return answer{c, got.StatusCode, got.Header, b}
}

func (w *world) must(a answer, status int) answer {
	w.t.Helper()
	if a.status != status {
		w.t.Fatalf("want %d: %s", status, a)
	}
	return a
}

// next is a number nobody has used.
func (w *world) next() int { w.seq++; return w.seq }

// estate is what one owner has, made when it is first asked for. The owner is a customer, guest, or nobody, whose things
// have ids that look right and name nothing.
type estate struct {
	w     *world
	owner string

	cartID, cartToken, line string
	option                  string
	total                   any
	checkout, order         string
	orderToken              string
	shipment, address, key  string
	review, product         string
}

// of is the owner's estate; fresh makes one that nobody has used.
func (w *world) of(owner string) *estate {
	if e, ok := w.estates[owner]; ok {
		return e
	}
	e := w.fresh(owner)
	w.estates[owner] = e
	return e
}

func (w *world) fresh(owner string) *estate { return &estate{w: w, owner: owner} }

// nothing is an id that nobody has.
func nothing(kind string) string { return string(ids.New[ids.ID](kind)) }

// as is a call by the owner himself.
func (e *estate) as(c call) call {
	if e.owner != "guest" {
		c.token = e.w.tokens[e.owner]
		return c
	}
	if e.cartToken != "" {
		c = c.with("X-Cart-Token", e.cartToken)
	}
	if e.orderToken != "" {
		c = c.with("X-Order-Token", e.orderToken)
	}
	return c
}

const home = `{"name":"Gina Guest","line1":"Hauptstr. 1","city":"Berlin","postcode":"10115","country":"DE"}`

// cart is a cart with one line.
func (e *estate) cart() string {
	w := e.w
	if e.cartID != "" {
		return e.cartID
	}
	if e.owner == "nobody" {
		e.cartID, e.line, e.option, e.total = nothing("crt"), nothing("cln"), "standard", map[string]any{"amount": 100, "currency": "EUR"}
		return e.cartID
	}
	a := w.must(w.send(e.as(call{method: "POST", target: "/v1/carts", body: `{"currency":"EUR"}`})), 201)
	e.cartID, e.cartToken = a.text("id"), a.text("token")
	a = w.must(w.send(e.as(call{method: "POST", target: "/v1/carts/" + e.cartID + "/items", body: fmt.Sprintf(`{"sku":%q,"quantity":2}`, w.sku())})), 200)
	e.line = a.text("lines.0.id")
	return e.cartID
}

// version is the cart's entity tag as it is now.
func (e *estate) version() string {
	if e.cart(); e.owner == "nobody" {
		return `"1"`
	}
	return e.w.must(e.w.send(e.as(call{method: "GET", target: "/v1/carts/" + e.cartID})), 200).header.Get("ETag")
}

// quoted is a cart with a way to deliver chosen.
func (e *estate) quoted() string {
	e.cart()
	if e.option == "" {
		a := e.w.must(e.w.send(e.as(call{method: "POST", target: "/v1/carts/" + e.cartID + "/shipping-quotes", body: `{"address":` + home + `}`})), 200)
		e.option, e.total = a.text("data.0.id"), a.at("data.0.total")
	}
	return e.cartID
}

// checkoutBody buys the cart.
func (e *estate) checkoutBody(token string) string {
	e.quoted()
	total, err := json.Marshal(e.total)
	if err != nil {
		e.w.t.Fatal(err)
	}
	return fmt.Sprintf(`{"cart_id":%q,"email":"gina@example.com","shipping_address":%s,"shipping_option":%q,"expected_total":%s,"payment":{"provider":"simulator","token":%q}}`,
		e.cartID, home, e.option, total, token)
}

// bought is an order and its checkout.
func (e *estate) bought() string {
	w := e.w
	if e.order != "" {
		return e.order
	}
	if e.owner == "nobody" {
		e.order, e.checkout = nothing("ord"), nothing("chk")
		return e.order
	}
	o := w.fresh(e.owner) // another cart: this one may be wanted as it is
	body := o.checkoutBody("tok_approve")
	a := w.must(w.send(o.as(call{method: "POST", target: "/v1/checkouts", body: body}).with("Idempotency-Key", w.key1())), 201)
	e.checkout, e.order, e.orderToken = a.text("id"), a.text("order_id"), a.text("order_token")
	return e.order
}

func (w *world) key1() string { return fmt.Sprintf("key-%d", w.next()) }

// checkoutID is a checkout that came to an order.
func (e *estate) checkoutID() string { e.bought(); return e.checkout }

// parcel is the shipment of an order.
func (e *estate) parcel() string {
	if e.shipment == "" && e.owner == "nobody" {
		e.shipment = nothing("shp")
	}
	if e.shipment == "" {
		e.bought()
		e.w.idle()
		a := e.w.must(e.w.send(call{method: "GET", target: "/v1/orders/" + e.order + "/shipments", token: e.w.tokens["admin"]}), 200)
		e.shipment = a.text("data.0.id")
	}
	return e.shipment
}

// entry is an address of the owner's book.
func (e *estate) entry() string {
	if e.address == "" && (e.owner == "nobody" || e.owner == "guest") {
		e.address = nothing("adr")
	}
	if e.address == "" {
		e.address = e.w.must(e.w.send(e.as(call{method: "POST", target: "/v1/me/addresses", body: home})), 201).text("id")
	}
	return e.address
}

// apiKey is a key of the owner, made when he was staff.
func (e *estate) apiKey() string {
	user, known := e.w.users[e.owner]
	if e.key == "" {
		e.key = nothing("key")
		if known {
			err := e.w.admin.InTx(e.w.t.Context(), func(tx *pg.Tx) error {
				_, err := tx.Exec(e.w.t.Context(), `
					INSERT INTO users.api_keys (id, user_id, name, prefix, hash, scopes, created_at) VALUES ($1, $2, 'scanner', 'byk_', $1, '{}', now())`, e.key, user)
				return err
			})
			if err != nil {
				e.w.t.Fatal(err)
			}
		}
	}
	return e.key
}

// article is a product.
func (e *estate) article() string {
	if e.product == "" {
		e.product = nothing("prd")
		if e.owner != "nobody" {
			e.product = string(catalogapi.DemoProductID(e.w.next()%30 + 1))
		}
	}
	return e.product
}

// opinion is a review by the admin of a product made for it.
func (e *estate) opinion() string {
	w := e.w
	if e.review == "" && e.owner == "nobody" {
		e.review = nothing("rev")
	}
	if e.review == "" {
		product := w.must(w.send(call{method: "POST", target: "/v1/admin/products", token: w.tokens["admin"], body: w.newProduct()}), 201).text("id")
		e.review = w.must(w.send(call{method: "POST", target: "/v1/products/" + product + "/reviews", token: w.tokens["admin"], body: `{"rating":4,"title":"Good","text":"It does what it says."}`}), 201).text("id")
	}
	return e.review
}

func (w *world) newProduct() string {
	n := w.next()
	return fmt.Sprintf(`{"name":"Thing %d","category":%q,"sku":"THING-%d","price":{"amount":1200,"currency":"EUR"},"stock":10}`, n, w.category(), n)
}

// intent is a payment that waits for the shopper.
func (w *world) intent() string {
	e := w.fresh("owner")
	a := w.must(w.send(e.as(call{method: "POST", target: "/v1/checkouts", body: e.checkoutBody("tok_3ds")}).with("Idempotency-Key", w.key1())), 202)
	at := a.text("next_action.url")
	return at[strings.LastIndex(at, "/")+1:]
}

// sku is an article with enough in stock.
func (w *world) sku() string {
	a := w.must(w.send(call{method: "GET", target: "/v1/products/" + string(catalogapi.DemoProductID(w.next()%20+1))}), 200)
	variants, _ := a.at("variants").([]any)
	for _, v := range variants {
		if v := v.(map[string]any); v["available"].(float64) > 5 {
			return v["sku"].(string)
		}
	}
	w.must(w.send(call{method: "POST", target: "/v1/admin/stock-adjustments", token: w.tokens["admin"], body: fmt.Sprintf(`{"sku":%q,"delta":100,"reason":"tests"}`, a.text("variants.0.sku"))}), 201)
	return a.text("variants.0.sku")
}

func (w *world) category() string {
	return w.must(w.send(call{method: "GET", target: "/v1/products/" + string(catalogapi.DemoProductID(1))}), 200).text("category")
}

// webhook is a signed message of the payment simulator.
func (w *world) webhook(body string) call {
	at := fmt.Sprint(time.Now().Unix())
	mac := hmac.New(sha256.New, w.secret.Derive("simulator-webhooks"))
	mac.Write([]byte(at + "." + body))
	c := call{method: "POST", target: "/v1/hooks/simulator", body: body}
	return c.with("Simulator-Signature", "t="+at+",v1="+hex.EncodeToString(mac.Sum(nil)))
}

// orderTokenOf is a token that shows any order, made with the shop's secret.
func (w *world) orderTokenOf(order string, expires time.Time) string {
	return ordersapi.SealOrderToken(w.secret, ordersapi.ID(order), expires)
}

// mailToken is the secret of the newest mail of a kind to an address.
func (w *world) mailToken(kind, email string) string {
	w.t.Helper()
	var id string
	err := w.admin.Get(w.t.Context(), &id, `SELECT id FROM users.mails WHERE kind = $1 AND email = $2 ORDER BY created_at DESC LIMIT 1`, kind, email)
	if err != nil {
		w.t.Fatal(err)
	}
	link, err := usersapi.Dial(w.h.Dialer("notifications")).MailLink(w.t.Context(), usersapi.MailLinkRequest{Mail: ids.ID(id)})
	if err != nil {
		w.t.Fatal(err)
	}
	return link.Token
}

// document is what tests need of the OpenAPI document.
type document struct {
	routes []web.RouteInfo
	Paths  map[string]map[string]struct {
		ID         string `json:"operationId"`
		Parameters []struct {
			Name     string `json:"name"`
			In       string `json:"in"`
			Required bool   `json:"required"`
			Schema   schema `json:"schema"`
		} `json:"parameters"`
		RequestBody struct {
			Required bool `json:"required"`
			Content  map[string]struct {
				Schema schema `json:"schema"`
			} `json:"content"`
		} `json:"requestBody"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]schema `json:"schemas"`
	} `json:"components"`
}

type schema struct {
	Ref        string            `json:"$ref"`
	Type       any               `json:"type"`
	Properties map[string]schema `json:"properties"`
	Items      *schema           `json:"items"`
	Required   []string          `json:"required"`
	MaxLength  int               `json:"maxLength"`
	MaxItems   int               `json:"maxItems"`
	Enum       []any             `json:"enum"`
	Pattern    string            `json:"pattern"`
	Format     string            `json:"format"`
}

// is says whether the schema is of the type, perhaps or null.
func (s schema) is(name string) bool {
	switch t := s.Type.(type) {
	case string:
		return t == name
	case []any:
		for _, v := range t {
			if v == name {
				return true
			}
		}
	}
	return false
}

func (d document) resolve(s schema) schema {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		return d.Components.Schemas[name]
	}
	return s
}
