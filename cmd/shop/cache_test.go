package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// TestAGatewayForgetsWhatHasChanged keeps answers for a minute in a gateway whose modules are all elsewhere. What a merchant or
// the time changes is shown at once all the same, and no basket is made of what is kept.
func TestAGatewayForgetsWhatHasChanged(t *testing.T) {
	if testing.Short() {
		t.Skip("a topology of ten hosts: not in -short")
	}
	t.Parallel()
	var c clock
	r := bootAll(t, "split", c.now, map[string]string{"gateway.cache_for": "1m", "catalog.demo_products": "30", "catalog.sweep_every": "50ms"})
	patient, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.Idle(patient); err != nil {
		t.Fatal(err)
	}
	s := &shopper{t: t, url: r.URL()}
	admin := s.login(usersapi.DemoAdmin, usersapi.DemoAdminPassword)
	const lists, page, sku = "/v1/products?limit=100", "/v1/products/ridge-daypack", "DEMO-0003-SND"
	var product struct{ ID string }
	s.do("GET", page, "", nil).into(t, &product)

	price := func(a response) (amount int64) {
		var cards struct {
			Data []struct {
				ID     string
				Price  struct{ Amount int64 }
				Rating *struct{ Count int64 }
			}
		}
		a.into(t, &cards)
		for _, card := range cards.Data {
			if card.ID == product.ID {
				return card.Price.Amount
			}
		}
		return -1
	}
	// kept reads until the answer comes out of the cache.
	kept := func(target string) (a response) {
		t.Helper()
		shoptest.WaitFor(t, target+" out of the cache", func() bool {
			a = s.do("GET", target, "", nil)
			return a.header.Get("X-Cache") == "hit"
		})
		return a
	}
	becomes := func(what string, want int64) {
		t.Helper()
		shoptest.WaitFor(t, what+" in the list", func() bool { return price(s.do("GET", lists, "", nil)) == want })
	}
	patch := func(body string) {
		t.Helper()
		if a := s.do("PATCH", "/v1/admin/products/"+product.ID, body, http.Header{"Authorization": {"Bearer " + admin}}); a.status != 200 {
			t.Fatalf("PATCH %s: %d %s", body, a.status, a.body)
		}
	}

	before := kept(lists)
	etag := before.header.Get("ETag")
	if a := s.do("GET", lists, "", http.Header{"If-None-Match": {etag}}); a.status != http.StatusNotModified || a.header.Get("X-Cache") != "hit" || len(a.body) > 0 {
		t.Errorf("asked again with its ETag: %d, %q from the cache, %d bytes", a.status, a.header.Get("X-Cache"), len(a.body))
	}
	was := price(before)
	patch(`{"price": {"amount": 4321, "currency": "EUR"}}`)
	becomes("a price", 4321)
	if a := s.do("GET", lists, "", http.Header{"If-None-Match": {etag}}); a.status != 200 {
		t.Errorf("asked with the ETag of before: %d, want all of it", a.status)
	}
	if was == 4321 {
		t.Fatal("nothing has changed")
	}

	// A cart asks the catalogue, never a cache: the page is kept as it was, the basket is not.
	kept(page)
	patch(`{"price": {"amount": 1234, "currency": "EUR"}}`)
	var cart struct{ ID, Token string }
	s.do("POST", "/v1/carts", `{"currency": "EUR"}`, nil).into(t, &cart)
	var basket struct {
		Lines []struct {
			Price struct{ Amount int64 } `json:"unit_price"`
		}
	}
	a := s.do("POST", "/v1/carts/"+cart.ID+"/items", fmt.Sprintf(`{"sku": %q, "quantity": 1}`, sku), http.Header{"X-Cart-Token": {cart.Token}})
	a.into(t, &basket)
	if len(basket.Lines) != 1 || basket.Lines[0].Price.Amount != 1234 {
		t.Errorf("the basket is %s, want one line at 12.34", a.body)
	}
	becomes("another price", 1234)
	if h := a.header.Get("X-Cache"); h != "" {
		t.Errorf("a basket is a %q", h)
	}

	kept(lists)
	starts := c.now().Add(time.Hour).UTC()
	patch(fmt.Sprintf(`{"prices": [{"sku": %q, "price": {"amount": 1234, "currency": "EUR"}, "sale": {"amount": 99, "currency": "EUR"}, "sale_from": %q, "sale_to": %q}]}`,
		sku, starts.Format(time.RFC3339), starts.Add(time.Hour).Format(time.RFC3339)))
	if err := r.Idle(patient); err != nil {
		t.Fatal(err)
	}
	kept(lists)
	c.advance(61 * time.Minute)
	becomes("a sale that begins", 99)
	kept(lists)
	admin = s.login(usersapi.DemoAdmin, usersapi.DemoAdminPassword) // the clock has left the token behind
	patch(`{"archived": true}`)
	becomes("a product that is gone", -1)
}

// shopper asks over HTTP and keeps nothing.
type shopper struct {
	t   *testing.T
	url string
}

// response is an answer as it came.
type response struct {
	status int
	header http.Header
	body   []byte
}

func (a response) into(t *testing.T, v any) {
	t.Helper()
	if a.status >= 300 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		t.Fatalf("%v in %s", err, a.body)
	}
}

func (s *shopper) do(method, target, body string, header http.Header) response {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+target, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if header != nil {
		r.Header = header.Clone()
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return response{answer.StatusCode, answer.Header, text}
}

func (s *shopper) login(email, password string) string {
	s.t.Helper()
	body, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		s.t.Fatal(err)
	}
	var in struct {
		Token string `json:"access_token"`
	}
	s.do("POST", "/v1/auth/login", string(body), nil).into(s.t, &in)
	return in.Token
}
