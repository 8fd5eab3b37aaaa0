package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/cartapi/carttest"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/catalogapi/catalogtest"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/ordersapi/orderstest"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/paymentsapi/paymentstest"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi/reviewstest"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/shippingapi/shippingtest"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/api/usersapi/userstest"
	"github.com/banyan-shop/banyan/modules/catalog"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// TestContractsInSplit holds each module to its contract's suite from another process: calls travel with tokens between modules, and
// what the suite's people do they do over HTTP. The modules it calls are their owners' fakes, in a process of the test. Events go by
// the test's own carrier; the stories go by a broker.
func TestContractsInSplit(t *testing.T) {
	t.Parallel()
	t.Run("users", usersInSplit)
	t.Run("catalog", catalogInSplit)
	t.Run("shipping", shippingInSplit)
	t.Run("cart", cartInSplit)
	t.Run("payments", paymentsInSplit)
	t.Run("orders", ordersInSplit)
	t.Run("reviews", reviewsInSplit)
}

// apart is a process that runs one module, and whoever is around it: callers, and fakes of the modules it calls.
type apart struct {
	*world
	module  string
	clock   *shoptest.Clock
	signer  auth.Signer // of access tokens
	wiring  *rpc.Wiring // of the callers
	carrier events.Carrier
}

// stayOpen is a carrier that outlives the process it is lent to: the test publishes on it as well.
type stayOpen struct{ events.Carrier }

func (stayOpen) Close() error { return nil }

// moduleNames are all modules in their order.
func moduleNames() (names []string) {
	for _, m := range modules {
		names = append(names, m.Name)
	}
	return names
}

// bootApart boots a module on an empty database of its own. mount puts its neighbours' fakes where it finds them.
func bootApart(t *testing.T, module string, mount func(w *rpc.Wiring, now func() time.Time)) *apart {
	t.Helper()
	a := &apart{world: &world{t: t}, module: module, clock: shoptest.NewClock(), carrier: events.InProcess()}
	var err error
	if a.secret, err = auth.ParseSecret(worldSecret); err != nil {
		t.Fatal(err)
	}
	tokens := auth.NewInternal(auth.InternalKey(a.secret), nil, time.Now)
	keys, err := auth.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	around := rpc.NewWiring(rpc.Options{Modules: moduleNames(), Tokens: tokens})
	if module != "users" {
		jwks, err := json.Marshal(keys.JWKS())
		if err != nil {
			t.Fatal(err)
		}
		usersapi.Mount(around.Server("users"), signedBy{&userstest.Fake{Now: a.clock.Now}, string(jwks)})
	}
	if mount != nil {
		mount(around, a.clock.Now)
	}
	elsewhere := httptest.NewServer(around.Handler())
	t.Cleanup(elsewhere.Close)

	a.h = a.boot(elsewhere.URL, true)
	a.signer = auth.NewSigner(keys, a.clock.Now)
	if module == "users" {
		a.signer = auth.NewSigner(auth.Keys{Current: a.ownKey()}, a.clock.Now)
	}
	a.wiring = rpc.NewWiring(rpc.Options{Modules: moduleNames(), Tokens: tokens, Remotes: map[string]rpc.Remote{module: {Base: a.h.RPCURL()}}})
	t.Cleanup(func() {
		if err := a.wiring.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return a
}

// boot starts the process; all other modules are said to be at the address. Customers come here, or would come there. settings
// are pairs of a key and a value.
func (a *apart) boot(elsewhere string, gateway bool, settings ...string) *host.Host {
	a.t.Helper()
	own := map[string]any{"http": "http://" + ownAddress(a.t), "rpc": "http://" + ownAddress(a.t), "gateway": gateway, "modules": []string{a.module}}
	if a.module != "storefront" {
		own["database_url"] = shoptest.DatabaseOf(a.t, a.module)
	}
	others := slices.DeleteFunc(moduleNames(), func(m string) bool { return m == a.module })
	text, err := yaml.Marshal(map[string]any{a.module: own, "rest": map[string]any{"rpc": elsewhere, "gateway": !gateway, "modules": others}})
	if err != nil {
		a.t.Fatal(err)
	}
	all := map[string]string{
		"process": a.module, "processes": string(text), "bus": "nats://nobody.invalid", "secret": worldSecret, "mode": "development", "seed": "false",
		"ops_listen": "", "data_dir": a.t.TempDir(), "pool.max": "3", "events.poll": "50ms", "drain.delay": "1ms",
	}
	for i := 0; i < len(settings); i += 2 {
		all[settings[i]] = settings[i+1]
	}
	source, err := config.Load(config.Options{Flags: all})
	if err != nil {
		a.t.Fatal(err)
	}
	var log bytes.Buffer
	o := shop(source)
	o.Now = a.clock.Now
	o.Log = slog.New(slog.NewTextHandler(&locked{w: &log}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Carrier = func(context.Context, string, *slog.Logger) (events.Carrier, error) { return stayOpen{a.carrier}, nil }
	h, err := host.Boot(a.t.Context(), o)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			a.t.Errorf("stop %s: %v", a.module, err)
		}
		if err := a.carrier.Close(); err != nil {
			a.t.Error(err)
		}
		if a.t.Failed() && log.Len() > 0 {
			a.t.Logf("the log of %s:\n%s", a.module, log.String())
		}
	})
	return h
}

// ownAddress is one that nobody else is likely to take before it is listened on.
func ownAddress(t *testing.T) string {
	t.Helper()
	if ip := loopback(); ip != "127.0.0.1" {
		return ip + ":8080"
	}
	return freeAddress(t)
}

// signedBy is users whose access tokens the test signs.
type signedBy struct {
	*userstest.Fake
	jwks string
}

func (s signedBy) Keys(ctx context.Context, r usersapi.KeysRequest) (usersapi.Keys, error) {
	k, err := s.Fake.Keys(ctx, r)
	k.JWKS = s.jwks
	return k, err
}

// ownKey is the one that users signs with.
func (a *apart) ownKey() auth.Key {
	a.t.Helper()
	var sealed []byte
	if err := a.h.DB("users").Get(a.t.Context(), &sealed, `SELECT sealed FROM users.signing_keys WHERE state = 'current'`); err != nil {
		a.t.Fatal(err)
	}
	key, err := auth.OpenKey(a.secret, sealed)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// token is a user's, with scopes.
func (a *apart) token(user ids.ID, scopes ...string) string {
	a.t.Helper()
	token, err := a.signer.Access(auth.Identity{User: user, Session: "ses_test", Scopes: scopes}, time.Minute)
	if err != nil {
		a.t.Fatal(err)
	}
	return token
}

// by are the module's callers: dial gives each its client.
func by[C any](a *apart, dial func(rpc.Dialer) C, callers ...string) func(context.Context) C {
	clients := map[string]C{}
	for _, name := range callers {
		clients[name] = dial(a.wiring.Dialer(name))
	}
	return func(ctx context.Context) C {
		c, ok := clients[auth.From(ctx).Module]
		if !ok {
			a.t.Fatalf("the suite calls as %q", auth.From(ctx).Module)
		}
		return c
	}
}

func (a *apart) as(caller string) context.Context { return auth.WithCaller(a.t.Context(), caller) }

// usersBy calls users as the module that the context says.
type usersBy struct {
	as func(context.Context) usersapi.Users
}

func (u usersBy) Create(ctx context.Context, r usersapi.CreateRequest) (usersapi.User, error) {
	return u.as(ctx).Create(ctx, r)
}

func (u usersBy) Contact(ctx context.Context, r usersapi.ContactRequest) (usersapi.Contact, error) {
	return u.as(ctx).Contact(ctx, r)
}

func (u usersBy) MailLink(ctx context.Context, r usersapi.MailLinkRequest) (usersapi.MailLink, error) {
	return u.as(ctx).MailLink(ctx, r)
}

func (u usersBy) Address(ctx context.Context, r usersapi.AddressRequest) (usersapi.Address, error) {
	return u.as(ctx).Address(ctx, r)
}

func (u usersBy) Keys(ctx context.Context, r usersapi.KeysRequest) (usersapi.Keys, error) {
	return u.as(ctx).Keys(ctx, r)
}

func (u usersBy) VerifyKey(ctx context.Context, r usersapi.VerifyKeyRequest) (usersapi.APIKey, error) {
	return u.as(ctx).VerifyKey(ctx, r)
}

func usersInSplit(t *testing.T) {
	t.Parallel()
	userstest.Suite(t, func(t *testing.T) userstest.Subject {
		a := bootApart(t, "users", nil)
		return userstest.Subject{
			Users: usersBy{by(a, usersapi.Dial, "shop", "host", "orders", "notifications")}, As: a.as,
			AddAddress: func(t *testing.T, user usersapi.ID, at usersapi.Address) ids.ID {
				body, err := json.Marshal(map[string]string{"name": at.Name, "line1": at.Line1, "city": at.City, "postcode": at.Postcode, "country": at.Country})
				if err != nil {
					t.Fatal(err)
				}
				return ids.ID(a.must(a.send(call{method: "POST", target: "/v1/me/addresses", token: a.token(ids.ID(user)), body: string(body)}), 201).text("id"))
			},
			AskReset: func(t *testing.T, email string) (mail ids.ID) {
				a.must(a.send(call{method: "POST", target: "/v1/auth/password-resets", body: fmt.Sprintf(`{"email":%q}`, email)}), 202)
				if err := a.h.DB("users").Get(t.Context(), &mail, `SELECT id FROM users.mails ORDER BY id DESC LIMIT 1`); err != nil {
					t.Fatal(err)
				}
				return mail
			},
			Reset: func(t *testing.T, token string) {
				body := fmt.Sprintf(`{"token":%q,"password":"another fine password"}`, token)
				a.must(a.send(call{method: "POST", target: "/v1/auth/password-resets/confirm", body: body}), 204)
			},
			MakeKey: func(t *testing.T, user usersapi.ID, scopes []string, expires time.Time) (ids.ID, string) {
				body := map[string]any{"name": "scanner", "scopes": scopes}
				if !expires.IsZero() {
					body["expires_at"] = expires
				}
				text, err := json.Marshal(body)
				if err != nil {
					t.Fatal(err)
				}
				made := a.must(a.send(call{method: "POST", target: "/v1/api-keys", token: a.token(ids.ID(user), scopes...), body: string(text)}), 201)
				return ids.ID(made.text("id")), made.text("key")
			},
			RevokeKey: func(t *testing.T, user usersapi.ID, id ids.ID) {
				a.must(a.send(call{method: "DELETE", target: "/v1/api-keys/" + string(id), token: a.token(ids.ID(user))}), 204)
			},
			LogOut: func(t *testing.T, user usersapi.ID) {
				a.must(a.send(call{method: "POST", target: "/v1/auth/logout-everywhere", token: a.token(ids.ID(user))}), 204)
			},
			Now: a.clock.Now, Pass: a.clock.Advance,
		}
	})
}

// catalogBy is a catalog as orders calls it, and as the command line does where only that may.
type catalogBy struct {
	catalogapi.Catalog
	shop catalogapi.Catalog
}

func (c catalogBy) Import(ctx context.Context, r catalogapi.ImportRequest) (catalogapi.ImportResult, error) {
	return c.shop.Import(ctx, r)
}

func catalogInSplit(t *testing.T) {
	t.Parallel()
	catalogtest.Suite(t, func(t *testing.T) catalogtest.Bench {
		a := bootApart(t, "catalog", nil)
		m := a.h.Instance("catalog").(*catalog.Module)
		return catalogtest.Bench{
			Catalog: catalogBy{catalogapi.Dial(a.wiring.Dialer("orders")), catalogapi.Dial(a.wiring.Dialer("shop"))}, Now: a.clock.Now,
			Stock: func(sku string) (int64, int64) {
				var l struct {
					OnHand   int64 `db:"on_hand"`
					Reserved int64 `db:"reserved"`
				}
				if err := a.h.DB("catalog").Get(t.Context(), &l, `SELECT on_hand, reserved FROM catalog.levels WHERE sku = $1`, sku); err != nil {
					t.Fatal(err)
				}
				return l.OnHand, l.Reserved
			},
			Advance: func(d time.Duration) {
				a.clock.Advance(d)
				if _, err := m.Sweep(t.Context()); err != nil {
					t.Error(err)
				}
			},
		}
	})
}

func shippingInSplit(t *testing.T) {
	t.Parallel()
	shippingtest.Suite(t, func(t *testing.T) shippingtest.Subject {
		a := bootApart(t, "shipping", nil)
		orders := a.publisher("orders")
		contract := shippingapi.Dial(a.wiring.Dialer("orders"))
		return shippingtest.Subject{
			Shipping: contract,
			Place: func(t *testing.T, order, customer ids.ID, lines []shippingapi.Line) {
				e := ordersapi.OrderPlaced{Order: ordersapi.ID(order), Customer: customer, Carrier: "Banyan Post", Service: "Standard", PlacedAt: a.clock.Now()}
				for _, l := range lines {
					e.Lines = append(e.Lines, ordersapi.PlacedLine{SKU: l.SKU, Quantity: l.Quantity})
				}
				orders(e)
			},
			Ship: func(t *testing.T, order ids.ID) {
				all, err := contract.Shipments(t.Context(), shippingapi.ShipmentsRequest{Orders: []ids.ID{order}})
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range all.Shipments {
					a.must(a.send(call{method: "POST", target: "/v1/admin/shipments/" + string(s.ID) + "/events", token: a.token("usr_admin", "shipments:write"), body: `{"status":"shipped"}`}), 201)
				}
			},
		}
	})
}

// publisher tells events as another module would, from its own database, and comes back when the process has handled them.
func (a *apart) publisher(module string) func(events.Event) {
	a.t.Helper()
	db := shoptest.DB(a.t, module)
	bus := events.NewBus(events.Options{Carrier: stayOpen{a.carrier}, Poll: 50 * time.Millisecond})
	if err := bus.Add(module, db, nil); err != nil {
		a.t.Fatal(err)
	}
	if err := bus.Start(a.t.Context()); err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		if err := bus.Drain(context.WithoutCancel(a.t.Context())); err != nil {
			a.t.Error(err)
		}
	})
	return func(e events.Event) {
		a.t.Helper()
		err := db.InTx(a.t.Context(), func(tx *pg.Tx) error { return events.Publish(a.t.Context(), tx, e) })
		if err == nil {
			err = bus.WaitIdle(a.t.Context())
		}
		if err == nil {
			err = a.h.Idle(a.t.Context())
		}
		if err != nil {
			a.t.Fatal(err)
		}
	}
}

func cartInSplit(t *testing.T) {
	t.Parallel()
	carttest.Suite(t, func(t *testing.T) carttest.Subject {
		goods := catalogtest.NewFake()
		a := bootApart(t, "cart", func(w *rpc.Wiring, now func() time.Time) {
			goods.Clock = now
			catalogapi.Mount(w.Server("catalog"), goods)
			shippingapi.Mount(w.Server("shipping"), &shippingtest.Fake{})
		})
		guest := func(o cartapi.Owner, id, path, body string, status int) {
			t.Helper()
			a.must(a.send(call{method: "POST", target: "/v1/carts/" + id + path, body: body}.with("X-Cart-Token", o.Token)), status)
		}
		return carttest.Subject{
			Cart: cartapi.Dial(a.wiring.Dialer("orders")),
			Fill: func(t *testing.T, lines ...cartapi.Line) (cartapi.ID, cartapi.Owner) {
				made := a.must(a.send(call{method: "POST", target: "/v1/carts", body: `{"currency":"EUR"}`}), 201)
				id, owner := made.text("id"), cartapi.Owner{Token: made.text("token")}
				for _, l := range lines {
					if o, err := goods.Offers(t.Context(), catalogapi.OffersRequest{SKUs: []string{l.SKU}, Currency: "EUR"}); err != nil || len(o.Offers) == 0 {
						goods.Add(l.SKU, "Product "+l.SKU, l.UnitPrice, 1000)
					}
					guest(owner, id, "/items", fmt.Sprintf(`{"sku":%q,"quantity":%d}`, l.SKU, l.Quantity), 200)
				}
				return cartapi.ID(id), owner
			},
			SetPrice: func(t *testing.T, sku string, price money.Amount) { goods.SetPrice(sku, price) },
			SetPromo: func(t *testing.T, cart cartapi.ID, o cartapi.Owner, code string, n int64) {
				err := a.h.DB("cart").InTx(t.Context(), func(tx *pg.Tx) error {
					_, err := tx.Exec(t.Context(), `
						INSERT INTO cart.promo_codes (code, kind, value, valid_from, valid_until, usage_limit)
						VALUES ($1, 'percent', 1000, $2::timestamptz, $2::timestamptz + interval '1 hour', $3) ON CONFLICT (code) DO NOTHING`, code, a.clock.Now(), n)
					return err
				})
				if err != nil {
					t.Fatal(err)
				}
				guest(o, string(cart), "/promo-codes", fmt.Sprintf(`{"code":%q}`, code), 200)
			},
		}
	})
}

func paymentsInSplit(t *testing.T) {
	t.Parallel()
	paymentstest.Suite(t, func(t *testing.T) (context.Context, paymentsapi.Payments) {
		a := bootApart(t, "payments", nil)
		return t.Context(), paymentsapi.Dial(a.wiring.Dialer("orders"))
	})
}

// ordersBy calls orders as the module that the context says.
type ordersBy struct {
	as func(context.Context) ordersapi.Orders
}

func (o ordersBy) Order(ctx context.Context, r ordersapi.OrderRequest) (ordersapi.Order, error) {
	return o.as(ctx).Order(ctx, r)
}

func (o ordersBy) Recent(ctx context.Context, r ordersapi.RecentRequest) (ordersapi.List, error) {
	return o.as(ctx).Recent(ctx, r)
}

func (o ordersBy) Contact(ctx context.Context, r ordersapi.ContactRequest) (ordersapi.Contact, error) {
	return o.as(ctx).Contact(ctx, r)
}

func ordersInSplit(t *testing.T) {
	t.Parallel()
	orderstest.Suite(t, func(t *testing.T) orderstest.Subject {
		goods, carts := catalogtest.NewFake(), &carttest.Fake{}
		a := bootApart(t, "orders", func(w *rpc.Wiring, now func() time.Time) {
			goods.Clock = now
			goods.Add("mug", "Mug", money.Of(1500, "EUR"), 10)
			catalogapi.Mount(w.Server("catalog"), goods)
			cartapi.Mount(w.Server("cart"), carts)
			shippingapi.Mount(w.Server("shipping"), &shippingtest.Fake{})
			paymentsapi.Mount(w.Server("payments"), paymentstest.New())
		})
		return orderstest.Subject{
			Orders: ordersBy{by(a, ordersapi.Dial, "storefront", "notifications")}, As: a.as,
			Buy: func(t *testing.T, customer ids.ID) (ordersapi.ID, string) {
				cart, owner := carts.Add(cartapi.Owner{User: customer}, "EUR", cartapi.Line{SKU: "mug", Name: "Mug", Quantity: 1, UnitPrice: money.Of(1500, "EUR")})
				body := fmt.Sprintf(`{"cart_id":%q,"shipping_address":%s,"shipping_option":"standard","expected_total":{"amount":1990,"currency":"EUR"},"payment":{"provider":"simulator","token":"tok_approve"}`, cart, home)
				buy := call{method: "POST", target: "/v1/checkouts", body: body + "}"}.with("Idempotency-Key", string(cart))
				if customer == "" {
					buy = buy.saying(body+`,"email":"gus@example.com"}`).with("X-Cart-Token", owner.Token)
				} else {
					buy.token = a.token(customer)
				}
				bought := a.must(a.send(buy), 201)
				return ordersapi.ID(bought.text("order_id")), bought.text("order_token")
			},
		}
	})
}

func reviewsInSplit(t *testing.T) {
	t.Parallel()
	reviewstest.Suite(t, func(t *testing.T) reviewstest.Subject {
		a := bootApart(t, "reviews", func(w *rpc.Wiring, now func() time.Time) {
			goods := catalogtest.NewFake()
			goods.Clock = now
			for _, id := range []catalogapi.ProductID{"prd_mug", "prd_bag"} {
				goods.Put(catalogapi.Product{ID: id, Slug: strings.TrimPrefix(string(id), "prd_"), Name: "Thing", Version: 1}, "standard")
			}
			catalogapi.Mount(w.Server("catalog"), goods)
		})
		return reviewstest.Subject{
			Reviews: reviewsapi.Dial(a.wiring.Dialer("storefront")),
			Write: func(t *testing.T, product ids.ID, rating int64) reviewsapi.ID {
				a.clock.Advance(time.Second)
				body := fmt.Sprintf(`{"rating":%d,"title":"t","text":"x"}`, rating)
				review := call{method: "POST", target: "/v1/products/" + string(product) + "/reviews", token: a.token(ids.New[ids.ID]("usr")), body: body}
				return reviewsapi.ID(a.must(a.send(review), 201).text("id"))
			},
		}
	})
}
