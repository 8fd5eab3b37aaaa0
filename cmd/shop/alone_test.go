package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// lonely is what each module does when all others are away: the status of some of its routes, by their ids. A 503 is a problem that
// says that nothing has happened; a 504, that it may have. A checkout is kept and says that it is not done, and pages answer with
// the parts they have.
var lonely = map[string]map[string]int{
	"users":         {"register": 201, "me": 200, "jwks": 200},
	"catalog":       {"listProducts": 200},
	"shipping":      {"listOrderShipments": 404},
	"cart":          {"createCart": 201, "getCart": 404},
	"payments":      {"confirmSimulatedPayment": 404, "receiveWebhook": 200},
	"orders":        {"createCheckout": 202, "listOrders": 200},
	"notifications": {"listMails": 200},
	"reviews":       {"writeReview": 503, "moderateReview": 404},
	"storefront":    {"productPage": 503, "cartPage": 503, "accountPage": 200},
}

// TestEachModuleAlone boots each module in a process whose neighbours nobody has started. It serves all of its routes and its whole
// contract, says that it is ready, and stops when it is told.
func TestEachModuleAlone(t *testing.T) {
	t.Parallel()
	for _, m := range modules {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			a := alone(t, m.Name, "http://"+ownAddress(t), true)
			a.routesAnswer()
			a.contractAnswers(m)
			a.stops()
		})
	}
}

// TestAModuleWhoseNeighboursAreSilent is not kept longer than its calls may take: a neighbour that takes connections and says nothing
// is as good as none.
func TestAModuleWhoseNeighboursAreSilent(t *testing.T) {
	t.Parallel()
	for _, module := range []string{"cart", "orders", "reviews", "storefront"} {
		t.Run(module, func(t *testing.T) {
			t.Parallel()
			a := alone(t, module, "http://"+silence(t), true, "calls.deadline", "200ms")
			for id, status := range lonely[module] {
				switch got := a.try(id, a.staffs("usr_ann")); {
				case status == 503 && (got.status == 503 || got.status == 504) && got.text("code") != "":
				case status != 503 && got.status == status:
				default:
					t.Errorf("%s, of which %d is expected: %s", id, status, got)
				}
			}
			a.stops()
		})
	}
	t.Run("who can't know whose token it is", func(t *testing.T) {
		t.Parallel()
		a := alone(t, "orders", "http://"+silence(t), false, "calls.deadline", "200ms")
		if got := a.try("listOrders", a.token("usr_ann")); got.status != 503 && got.status != 504 || got.text("code") == "" {
			t.Errorf("with a token that users alone could know: %s", got)
		}
		a.stops()
	})
}

// silence is an address that takes connections and never says a word.
func silence(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var held []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			held = append(held, c)
		}
		for _, c := range held {
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// alone starts a module's process, with or without a copy of the public keys from when users was there.
func alone(t *testing.T, module, elsewhere string, kept bool, settings ...string) *apart {
	t.Helper()
	a := &apart{world: &world{t: t, estates: map[string]*estate{}}, module: module, clock: shoptest.NewClock(), carrier: events.InProcess()}
	a.clock.Advance(time.Since(a.clock.Now())) // what a row signs is of now
	var err error
	if a.secret, err = auth.ParseSecret(worldSecret); err != nil {
		t.Fatal(err)
	}
	keys, err := auth.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if kept {
		text, err := json.Marshal(map[string]any{"kept_at": time.Now().UTC(), "keys": keys.JWKS().Keys})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "keys-"+a.module+".json"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a.h = a.boot(elsewhere, false, append(settings, "data_dir", dir, "orders.reply_within", "1s")...)
	a.signer = auth.NewSigner(keys, a.clock.Now)
	if a.module == "users" {
		a.signer = auth.NewSigner(auth.Keys{Current: a.ownKey()}, a.clock.Now)
	}
	source, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.doc.routes = host.Routes(shop(source)).Routes()
	if got := a.send(call{method: "GET", target: "/readyz"}); got.status != http.StatusOK {
		t.Errorf("not ready: %s", got)
	}
	return a
}

// stops lets go of the process, which must not wait for those who are away.
func (a *apart) stops() {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.h.Close(ctx); err != nil {
		a.t.Errorf("it does not stop: %v", err)
	}
}

// bodies are valid, where a row would ask the shop for its own.
var bodies = map[string]string{
	"refresh":              `{"refresh_token":"a-token-that-nobody-has"}`,
	"verifyEmail":          `{"token":"a-token-that-nobody-has"}`,
	"confirmPasswordReset": `{"token":"a-token-that-nobody-has","password":"another horse battery staple"}`,
	"createProduct":        `{"name":"Thing","category":"things","sku":"THING-1","price":{"amount":1200,"currency":"EUR"},"stock":10}`,
	"adjustStock":          `{"sku":"THING-1","delta":3,"reason":"found behind the shelf"}`,
	"addCartItem":          `{"sku":"THING-1","quantity":1}`,
}

// try calls a route about things that nobody has.
func (a *apart) try(id, token string) answer {
	a.t.Helper()
	for _, rt := range a.doc.routes {
		if rt.ID != id {
			continue
		}
		c := call{method: rt.Method, body: bodies[id], target: strings.Replace(rt.Path, "{id}", nothing("crt"), 1)}
		if c.body == "" {
			i := slices.IndexFunc(rows, func(r row) bool { return r.id == id })
			c = rows[i].make(a.world, a.of("nobody"))
		}
		c.token = token
		return a.send(c)
	}
	a.t.Fatalf("there is no route %s", id)
	return answer{}
}

// staffs is a token of somebody who may do everything, later than what ended sessions before.
func (a *apart) staffs(user ids.ID) string {
	a.clock.Advance(time.Second)
	return a.token(user, "catalog:write", "catalog:read_all", "stock:write", "orders:read_all", "orders:write", "shipments:write", "reviews:moderate", "users:write")
}

// routesAnswer calls every route of the module as somebody who may do everything.
func (a *apart) routesAnswer() {
	a.t.Helper()
	admin := ids.ID("usr_admin")
	if a.module == "users" {
		admin = ids.ID(a.must(a.try("register", ""), 201).text("user.id"))
	}
	tried := 0
	for _, rt := range a.doc.routes {
		if rt.Module != a.module {
			continue
		}
		tried++
		want, stated := lonely[a.module][rt.ID]
		got := a.try(rt.ID, a.staffs(admin))
		switch {
		case stated && got.status != want:
			a.t.Errorf("%s: want %d: %s", rt.ID, want, got)
		case got.status >= 500 && got.status != 503 && got.status != 504:
			a.t.Errorf("%s: %s", rt.ID, got)
		case got.status >= 500 && (got.text("code") == "" || got.header.Get("Content-Type") != "application/problem+json"):
			a.t.Errorf("%s is no problem: %s", rt.ID, got)
		}
	}
	if tried == 0 {
		a.t.Error("it has no routes")
	}
	if a.module == "storefront" {
		if got := a.try("accountPage", a.staffs(admin)); len(got.at("unavailable").([]any)) == 0 {
			a.t.Errorf("a page without its parts does not say so: %s", got)
		}
	}
}

// contractAnswers calls every method of the module's contract with an empty request.
func (a *apart) contractAnswers(m host.Module) {
	a.t.Helper()
	server := rpc.NewServer(m.Name)
	m.Nil.Serve(server)
	tokens := auth.NewInternal(auth.InternalKey(a.secret), nil, time.Now)
	token, err := tokens.IssueInternal("storefront", m.Name, auth.Identity{User: ids.ID("usr_ann")})
	if err != nil {
		a.t.Fatal(err)
	}
	for _, method := range server.Methods() {
		r, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, a.h.RPCURL()+method.Path(), strings.NewReader("{}"))
		if err != nil {
			a.t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+token)
		got, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			a.t.Fatal(err)
		}
		text, err := io.ReadAll(got.Body)
		if err := errors.Join(err, got.Body.Close()); err != nil {
			a.t.Fatal(err)
		}
		var problem struct{ Code string }
		if got.StatusCode != 200 && (json.Unmarshal(text, &problem) != nil || problem.Code == "" || problem.Code == "internal" || problem.Code == "unimplemented" || problem.Code == "unknown") {
			a.t.Errorf("%s: %d %s", method.Name, got.StatusCode, text)
		}
	}
}
