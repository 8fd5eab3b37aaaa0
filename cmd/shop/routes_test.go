package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
)

// kind says whose things a route's path, or the cart in its body, names, and so who may use it beside the declared permission.
type kind int

const (
	ofNobody   kind = iota // the route names nothing that has an owner
	ofAll                  // it names what all may see, such as a product
	ofStaff                // it names what staff handle, whoever owns it
	ofCart                 // a cart: its customer's, or of the guest who holds its token
	ofOrder                // an order, likewise
	ofParcels              // an order's parcels: those who see the order, and who packs them
	ofCheckout             // a checkout, seen by the cart's token or the order's
	ofEntry                // an entry of a customer's address book
)

// row is a valid call of a route. Every route has one; a route without one fails the tests that go through all of them.
type row struct {
	id     string
	kind   kind
	status int
	make   func(w *world, e *estate) call // without credentials
	needs  string                         // a permission that the route does not declare: the body gives it away
	spends bool                           // a call uses the owner's things up, so each valid one needs fresh ones
	raw    bool                           // the body is judged by its signature, not by its form
	leaves bool                           // it ends the caller's sessions
}

func get(target string) func(*world, *estate) call {
	return func(*world, *estate) call { return call{method: "GET", target: target} }
}

func post(target string, body func(w *world, e *estate) string) func(*world, *estate) call {
	return func(w *world, e *estate) call { return call{method: "POST", target: target, body: body(w, e)} }
}

func text(s string) func(*world, *estate) string { return func(*world, *estate) string { return s } }

// rows are all routes.
var rows = []row{
	{id: "register", status: 201, make: post("/v1/auth/register", func(w *world, _ *estate) string {
		return fmt.Sprintf(`{"email":"new%d@example.com","password":%q,"name":"Nora New"}`, w.next(), password)
	})},
	{id: "login", status: 200, make: post("/v1/auth/login", text(fmt.Sprintf(`{"email":"owner@example.com","password":%q}`, password)))},
	{id: "refresh", status: 200, spends: true, make: post("/v1/auth/refresh", func(w *world, _ *estate) string {
		a := w.must(w.send(call{method: "POST", target: "/v1/auth/login", body: fmt.Sprintf(`{"email":"owner@example.com","password":%q}`, password)}), 200)
		return fmt.Sprintf(`{"refresh_token":%q}`, a.text("refresh_token"))
	})},
	{id: "logout", status: 204, make: post("/v1/auth/logout", text(""))},
	{id: "logoutEverywhere", status: 204, leaves: true, make: post("/v1/auth/logout-everywhere", text(""))},
	{id: "verifyEmail", status: 204, spends: true, make: post("/v1/auth/verify", func(w *world, _ *estate) string {
		return fmt.Sprintf(`{"token":%q}`, w.mailToken("verify_email", w.stranger()))
	})},
	{id: "requestPasswordReset", status: 202, make: post("/v1/auth/password-resets", text(`{"email":"owner@example.com"}`))},
	{id: "confirmPasswordReset", status: 204, spends: true, make: post("/v1/auth/password-resets/confirm", func(w *world, _ *estate) string {
		email := w.stranger()
		w.must(w.send(call{method: "POST", target: "/v1/auth/password-resets", body: fmt.Sprintf(`{"email":%q}`, email)}), 202)
		return fmt.Sprintf(`{"token":%q,"password":"another horse battery staple"}`, w.mailToken("reset_password", email))
	})},
	{id: "me", status: 200, make: get("/v1/me")},
	{id: "changeMe", status: 200, make: func(*world, *estate) call {
		return call{method: "PATCH", target: "/v1/me", body: `{"name":"Olga Owner"}`}
	}},
	{id: "resendVerification", status: 202, make: post("/v1/me/verification-mail", text(""))},
	{id: "listAddresses", status: 200, make: get("/v1/me/addresses")},
	{id: "addAddress", status: 201, make: post("/v1/me/addresses", text(home))},
	{id: "removeAddress", status: 204, kind: ofEntry, spends: true, make: func(w *world, e *estate) call {
		return call{method: "DELETE", target: "/v1/me/addresses/" + e.entry()}
	}},
	{id: "createAPIKey", status: 201, needs: "orders:read_all", make: post("/v1/api-keys", text(`{"name":"scanner","scopes":["orders:read_all"],"expires_at":"2099-01-01T00:00:00Z"}`))},
	{id: "listAPIKeys", status: 200, make: get("/v1/api-keys")},
	{id: "revokeAPIKey", status: 204, kind: ofEntry, spends: true, make: func(w *world, e *estate) call {
		return call{method: "DELETE", target: "/v1/api-keys/" + e.apiKey()}
	}},
	{id: "jwks", status: 200, make: get("/.well-known/jwks.json")},

	{id: "listProducts", status: 200, make: get("/v1/products?limit=5&sort=price")},
	{id: "readProduct", status: 200, kind: ofAll, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/products/" + e.article()}
	}},
	{id: "listCategories", status: 200, make: get("/v1/categories")},
	{id: "searchProducts", status: 200, make: get("/v1/search?q=lamp&facets=category,brand&limit=5")},
	{id: "readImage", status: 200, kind: ofAll, make: func(w *world, e *estate) call {
		if e.owner == "nobody" {
			return call{method: "GET", target: "/v1/images/demo-9999999.svg"}
		}
		a := w.must(w.send(call{method: "GET", target: "/v1/products?limit=1"}), 200)
		u, err := url.Parse(a.text("data.0.image"))
		if err != nil {
			w.t.Fatal(err)
		}
		return call{method: "GET", target: u.Path}
	}},
	{id: "createProduct", status: 201, make: post("/v1/admin/products", func(w *world, _ *estate) string { return w.newProduct() })},
	{id: "readAnyProduct", status: 200, kind: ofStaff, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/admin/products/" + e.article()}
	}},
	{id: "updateProduct", status: 200, kind: ofStaff, make: func(w *world, e *estate) call {
		return call{method: "PATCH", target: "/v1/admin/products/" + e.article(), body: `{"description":"Better than before"}`}
	}},
	{id: "adjustStock", status: 201, make: post("/v1/admin/stock-adjustments", func(w *world, _ *estate) string {
		return fmt.Sprintf(`{"sku":%q,"delta":3,"reason":"found behind the shelf"}`, w.sku())
	})},
	{id: "listStockLevels", status: 200, make: get("/v1/admin/stock-levels?limit=3")},

	{id: "listOrderShipments", status: 200, kind: ofParcels, make: func(w *world, e *estate) call {
		e.parcel()
		return call{method: "GET", target: "/v1/orders/" + e.bought() + "/shipments"}
	}},
	{id: "createShipment", status: 201, kind: ofStaff, spends: true, make: func(w *world, e *estate) call {
		e.parcel()
		return call{method: "POST", target: "/v1/admin/orders/" + e.bought() + "/shipments", body: `{}`}.with("Idempotency-Key", w.key1())
	}},
	{id: "addShipmentEvent", status: 201, kind: ofStaff, spends: true, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/admin/shipments/" + e.parcel() + "/events", body: `{"status":"shipped","tracking_number":"TRACK-1","message":"on its way"}`}
	}},

	{id: "createCart", status: 201, make: post("/v1/carts", text(`{"currency":"EUR"}`))},
	{id: "getCart", status: 200, kind: ofCart, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/carts/" + e.cart()}
	}},
	{id: "addCartItem", status: 200, kind: ofCart, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/carts/" + e.cart() + "/items", body: fmt.Sprintf(`{"sku":%q,"quantity":1}`, w.sku())}
	}},
	{id: "changeCartItem", status: 200, kind: ofCart, spends: true, make: func(w *world, e *estate) call {
		return call{method: "PATCH", target: "/v1/carts/" + e.cart() + "/items/" + e.line, body: `{"quantity":1}`}.with("If-Match", e.version())
	}},
	{id: "removeCartItem", status: 200, kind: ofCart, spends: true, make: func(w *world, e *estate) call {
		return call{method: "DELETE", target: "/v1/carts/" + e.cart() + "/items/" + e.line}.with("If-Match", e.version())
	}},
	{id: "addCartPromoCode", status: 200, kind: ofCart, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/carts/" + e.cart() + "/promo-codes", body: `{"code":"WELCOME10"}`}
	}},
	{id: "removeCartPromoCode", status: 200, kind: ofCart, spends: true, make: func(w *world, e *estate) call {
		e.cart()
		if e.owner != "nobody" {
			w.must(w.send(e.as(call{method: "POST", target: "/v1/carts/" + e.cartID + "/promo-codes", body: `{"code":"WELCOME10"}`})), 200)
		}
		return call{method: "DELETE", target: "/v1/carts/" + e.cartID + "/promo-codes/WELCOME10"}
	}},
	{id: "quoteCartShipping", status: 200, kind: ofCart, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/carts/" + e.cart() + "/shipping-quotes", body: `{"address":` + home + `}`}
	}},

	{id: "receiveWebhook", status: 200, raw: true, make: func(w *world, _ *estate) call {
		return w.webhook(fmt.Sprintf(`{"id":"whk_test%d","type":"intent.changed","data":{"intent":"sim_none","key":%q,"state":"authorised"}}`, w.next(), nothing("pay")))
	}},
	{id: "confirmSimulatedPayment", status: 200, kind: ofAll, spends: true, make: func(w *world, e *estate) call {
		id := nothing("sim")
		if e.owner != "nobody" {
			id = w.intent()
		}
		return call{method: "POST", target: "/v1/simulator/intents/" + id, body: `{"outcome":"decline"}`}
	}},

	{id: "createCheckout", status: 201, kind: ofCart, spends: true, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/checkouts", body: e.checkoutBody("tok_approve")}.with("Idempotency-Key", w.key1())
	}},
	{id: "getCheckout", status: 200, kind: ofCheckout, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/checkouts/" + e.checkoutID()}
	}},
	{id: "confirmCheckout", status: 200, kind: ofCheckout, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/checkouts/" + e.checkoutID() + "/confirm"}
	}},
	{id: "listOrders", status: 200, make: get("/v1/orders?limit=2")},
	{id: "getOrder", status: 200, kind: ofOrder, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/orders/" + e.bought()}
	}},
	{id: "cancelOrder", status: 201, kind: ofOrder, spends: true, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/orders/" + e.bought() + "/cancellations", body: `{"reason":"changed my mind"}`}.with("Idempotency-Key", w.key1())
	}},
	{id: "listAllOrders", status: 200, make: get("/v1/admin/orders?limit=2&state=placed")},
	{id: "getAnyOrder", status: 200, kind: ofStaff, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/admin/orders/" + e.bought()}
	}},
	{id: "cancelAnyOrder", status: 201, kind: ofStaff, spends: true, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/admin/orders/" + e.bought() + "/cancellations", body: `{"reason":"the shopper called","restock":true}`}.with("Idempotency-Key", w.key1())
	}},
	{id: "listCheckouts", status: 200, make: get("/v1/admin/checkouts?limit=2")},
	{id: "listCancellations", status: 200, make: get("/v1/admin/cancellations?limit=2")},

	{id: "viewMails", status: 200, make: get("/dev/mail")},
	{id: "listMails", status: 200, make: get("/dev/mail.json?to=gina@example.com")},

	{id: "listReviews", status: 200, kind: ofAll, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/products/" + e.article() + "/reviews?limit=3"}
	}},
	{id: "writeReview", status: 201, kind: ofAll, spends: true, make: func(w *world, e *estate) call {
		if e.product == "" && e.owner != "nobody" {
			e.product = w.must(w.send(call{method: "POST", target: "/v1/admin/products", token: w.tokens["admin"], body: w.newProduct()}), 201).text("id")
		}
		return call{method: "POST", target: "/v1/products/" + e.article() + "/reviews", body: `{"rating":5,"title":"Fine","text":"As good as it looks."}`}
	}},
	{id: "moderateReview", status: 200, kind: ofStaff, make: func(w *world, e *estate) call {
		return call{method: "POST", target: "/v1/admin/reviews/" + e.opinion() + "/moderation", body: `{"state":"rejected"}`}
	}},

	{id: "productPage", status: 200, kind: ofAll, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/storefront/products/" + e.article()}
	}},
	{id: "orderPage", status: 200, kind: ofOrder, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/storefront/orders/" + e.bought()}
	}},
	{id: "cartPage", status: 200, kind: ofCart, make: func(w *world, e *estate) call {
		return call{method: "GET", target: "/v1/storefront/carts/" + e.cart()}
	}},
	{id: "accountPage", status: 200, make: get("/v1/storefront/account")},
}

// stranger is the address of somebody who has just registered.
func (w *world) stranger() string {
	email := fmt.Sprintf("stranger%d@example.com", w.next())
	w.must(w.send(call{method: http.MethodPost, target: "/v1/auth/register", body: fmt.Sprintf(`{"email":%q,"password":%q,"name":"Stella"}`, email, password)}), 201)
	return email
}

// known fails the test unless the rows are exactly the routes.
func (w *world) known() map[string]row {
	w.t.Helper()
	byID := map[string]row{}
	for _, r := range rows {
		if _, ok := byID[r.id]; ok {
			w.t.Errorf("two rows for %s", r.id)
		}
		byID[r.id] = r
	}
	declared := map[string]bool{}
	for _, rt := range w.doc.routes {
		declared[rt.ID] = true
		if _, ok := byID[rt.ID]; !ok {
			w.t.Errorf("%s %s (%s) has no row: add a valid call of it to rows, so that it is tried with bad input and by strangers", rt.Method, rt.Path, rt.ID)
		}
	}
	for id := range byID {
		if !declared[id] {
			w.t.Errorf("there is no route %s any more: remove its row", id)
		}
	}
	if w.t.Failed() {
		w.t.FailNow()
	}
	return byID
}

// rightly is the call by somebody who may make it.
func (w *world) rightly(r row, permission string, e *estate, c call) call {
	switch cmp.Or(r.needs, permission) {
	case "public", "signed_in":
		return e.as(c)
	}
	c.token = w.tokens["admin"]
	return c
}
