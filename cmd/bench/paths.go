package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
)

// path is one thing that customers do, with what we want of it.
type path struct {
	name  string
	title string
	do    func(*stock) operation
	// prepare makes what the path uses up, before each load.
	prepare func(context.Context, *stock, int) error
	drains  bool // leaves events and mails behind, whose handling counts
	apart   bool // of interest only where modules run apart

	rate   float64       // wanted at the highest number of clients
	median time.Duration // wanted at one client
	ratio  float64       // wanted of the raw limit

	replay replay
}

// replay says how the path's statements become scripts of pgbench.
type replay struct {
	samples  int  // requests that are listened to
	aligned  bool // values that differ between samples are drawn from all of them, those of one sample together
	carts    bool // its cart is drawn from many copies, since it is there beforehand
	products bool // products are drawn, at random
}

// stock is what the demo catalogue holds, found through the public routes.
type stock struct {
	address  string
	pages    []string // of the product list, by cursor
	products []product
	skus     []sku // those that can be bought often: restocked
	words    []string
	carts    [][]cart // of each client
	serial   atomic.Int64
}

type product struct {
	ID   string `json:"id"`
	Slug string `json:"slug"`
	Name string `json:"name"`
}

type sku struct{ sku, product string }

type cart struct{ id, token string }

func pick[T any](rng *rand.Rand, all []T) T { return all[rng.IntN(len(all))] }

var paths = []path{
	{
		name: "list", title: "product list (20)", rate: 3000, median: time.Millisecond, ratio: 0.35,
		do: func(s *stock) operation {
			return func(w *worker) error {
				_, err := w.want(http.StatusOK, "GET", pick(w.rng, s.pages), "", "")
				return err
			}
		},
		replay: replay{samples: 80, aligned: true},
	},
	{
		name: "page", title: "product page", rate: 4000, median: time.Millisecond, ratio: 0.35,
		do: func(s *stock) operation {
			return func(w *worker) error {
				_, err := w.want(http.StatusOK, "GET", "/v1/products/"+pick(w.rng, s.products).Slug, "", "")
				return err
			}
		},
		replay: replay{samples: 128, aligned: true},
	},
	{
		name: "search", title: "search with facets, uncached", rate: 1200, median: 3 * time.Millisecond, ratio: 0.5,
		do: func(s *stock) operation {
			return func(w *worker) error {
				// A highest price that nobody asked for before makes every count a new one, and hides few hits.
				price := 1_000_000 + s.serial.Add(1)
				_, err := w.want(http.StatusOK, "GET", search(pick(w.rng, s.words))+"&filter%5Bmax_price%5D="+strconv.FormatInt(price, 10), "", "")
				return err
			}
		},
		replay: replay{samples: 80, aligned: true},
	},
	{
		name: "search-cached", title: "search with facets, counts cached", rate: 1200, median: 3 * time.Millisecond, ratio: 0.5,
		prepare: func(_ context.Context, s *stock, _ int) error {
			c := &client{address: s.address}
			defer c.close()
			for _, word := range s.popular() {
				if _, err := c.want(http.StatusOK, "GET", search(word), "", ""); err != nil {
					return err
				}
			}
			return nil
		},
		do: func(s *stock) operation {
			return func(w *worker) error {
				_, err := w.want(http.StatusOK, "GET", search(pick(w.rng, s.popular())), "", "")
				return err
			}
		},
		replay: replay{samples: 80, aligned: true},
	},
	{
		name: "add", title: "add to cart", rate: 1200, median: 3 * time.Millisecond, ratio: 0.4,
		prepare: func(ctx context.Context, s *stock, clients int) error { return s.makeCarts(ctx, clients) },
		do: func(s *stock) operation {
			return func(w *worker) error {
				// Three articles a cart, then the next cart.
				all := s.carts[w.id%len(s.carts)]
				c := all[w.n/3%len(all)]
				_, err := w.want(http.StatusOK, "POST", "/v1/carts/"+c.id+"/items", "X-Cart-Token: "+c.token+"\r\n", item(pick(w.rng, s.skus).sku))
				return err
			}
		},
		replay: replay{samples: 128, aligned: true, carts: true},
	},
	{
		name: "storefront", title: "product page of four modules", apart: true,
		do: func(s *stock) operation {
			return func(w *worker) error {
				answer, err := w.want(http.StatusOK, "GET", "/v1/storefront/products/"+pick(w.rng, s.products).Slug, "", "")
				if err == nil && !bytes.Contains(answer, []byte(`"unavailable":[]`)) {
					err = fmt.Errorf("the page does not say that it is whole: %.2000s", answer)
				}
				return err
			}
		},
	},
	{
		name: "checkout", title: "complete checkout, events drained", rate: 120, median: 30 * time.Millisecond, ratio: 0.4, drains: true,
		do: func(s *stock) operation {
			return func(w *worker) error { return s.checkout(w) }
		},
		replay: replay{samples: 12, products: true},
	},
}

// popular are words that many search for, so that their counts are fresh.
func (s *stock) popular() []string { return s.words[:min(40, len(s.words))] }

func search(word string) string {
	return "/v1/search?q=" + url.QueryEscape(word) + "&facets=category,brand"
}

func item(sku string) string { return `{"sku":"` + sku + `","quantity":1}` }

// checkout is the whole way of a guest: cart, article, quote, payment, placed.
func (s *stock) checkout(w *worker) error {
	answer, err := w.want(http.StatusCreated, "POST", "/v1/carts", "", `{"currency":"EUR"}`)
	if err != nil {
		return err
	}
	id, token := field(answer, "id"), "X-Cart-Token: "+field(answer, "token")+"\r\n"
	if _, err := w.want(http.StatusOK, "POST", "/v1/carts/"+id+"/items", token, item(pick(w.rng, s.skus).sku)); err != nil {
		return err
	}
	n := s.serial.Add(1)
	address := fmt.Sprintf(`{"name":"Bea Bench","line1":"Long Street %d","city":"Berlin","postcode":"10115","country":"DE"}`, n)
	if answer, err = w.want(http.StatusOK, "POST", "/v1/carts/"+id+"/shipping-quotes", token, `{"address":`+address+`}`); err != nil {
		return err
	}
	var quotes struct {
		Data []struct {
			ID    string
			Total json.RawMessage
		}
	}
	if err := json.Unmarshal(answer, &quotes); err != nil || len(quotes.Data) == 0 {
		return fmt.Errorf("no shipping quote in %s: %w", answer, err)
	}
	body := fmt.Sprintf(`{"cart_id":%q,"email":"bench%d@example.com","shipping_address":%s,"shipping_option":%q,"expected_total":%s,`+
		`"payment":{"provider":"simulator","token":"tok_approve"}}`, id, n, address, quotes.Data[0].ID, quotes.Data[0].Total)
	key := fmt.Sprintf("Idempotency-Key: bench-%d-%016x\r\n", n, w.rng.Uint64())
	answer, err = w.want(http.StatusCreated, "POST", "/v1/checkouts", token+key, body)
	if err == nil && field(answer, "state") != "placed" {
		err = fmt.Errorf("the checkout is not placed: %s", answer)
	}
	return err
}

// together does n things, eight at a time, each with a connection of its worker.
func together(ctx context.Context, address string, n int, do func(w *worker, i int) error) error {
	var (
		next  atomic.Int64
		group sync.WaitGroup
		mu    sync.Mutex
		all   []error
	)
	for id := range 8 {
		group.Go(func() {
			w := newWorker(address, id)
			defer w.close()
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil {
					return
				}
				if err := do(w, i); err != nil {
					next.Store(int64(n))
					mu.Lock()
					all = append(all, err)
					mu.Unlock()
				}
			}
		})
	}
	group.Wait()
	return errors.Join(append(all, ctx.Err())...)
}

// sold is how many SKUs are bought from: so many that 32 clients rarely want the same at once.
const sold = 1500

// look reads the catalogue and fills up what the checkouts will buy.
func look(ctx context.Context, address string) (*stock, error) {
	s := &stock{address: address}
	c := &client{address: address}
	defer c.close()
	words := map[string]bool{}
	for next := "/v1/products?limit=20"; next != ""; {
		answer, err := c.want(http.StatusOK, "GET", next, "", "")
		if err != nil {
			return nil, err
		}
		var page struct {
			Data       []product
			NextCursor string `json:"next_cursor"`
		}
		if err := json.Unmarshal(answer, &page); err != nil {
			return nil, err
		}
		s.pages = append(s.pages, next)
		s.products = append(s.products, page.Data...)
		for _, p := range page.Data {
			for _, word := range strings.Fields(strings.ToLower(p.Name)) {
				if len(word) > 3 {
					words[word] = true
				}
			}
		}
		next = ""
		if page.NextCursor != "" {
			next = "/v1/products?limit=20&cursor=" + url.QueryEscape(page.NextCursor)
		}
	}
	if len(s.products) < 100 {
		return nil, fmt.Errorf("the catalogue holds only %d products", len(s.products))
	}
	for word := range words {
		s.words = append(s.words, word)
	}
	slices.Sort(s.words) // so that every run picks the same

	found := make([][]sku, len(s.products))
	err := together(ctx, address, len(s.products), func(w *worker, i int) error {
		answer, err := w.want(http.StatusOK, "GET", "/v1/products/"+s.products[i].ID, "", "")
		if err != nil {
			return err
		}
		var p struct {
			Variants []struct{ SKU string }
		}
		if err := json.Unmarshal(answer, &p); err != nil {
			return err
		}
		for _, v := range p.Variants {
			found[i] = append(found[i], sku{v.SKU, s.products[i].ID})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := slices.Concat(found...)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	s.skus = all[:min(sold, len(all))]
	return s, s.restock(ctx)
}

// restock makes sure that nothing is sold out during the bench.
func (s *stock) restock(ctx context.Context) error {
	c := &client{address: s.address}
	defer c.close()
	answer, err := c.want(http.StatusOK, "POST", "/v1/auth/login", "",
		fmt.Sprintf(`{"email":%q,"password":%q}`, usersapi.DemoAdmin, usersapi.DemoAdminPassword))
	if err != nil {
		return err
	}
	bearer := "Authorization: Bearer " + field(answer, "access_token") + "\r\n"
	return together(ctx, s.address, len(s.skus), func(w *worker, i int) error {
		_, err := w.want(http.StatusCreated, "POST", "/v1/admin/stock-adjustments", bearer,
			fmt.Sprintf(`{"sku":%q,"delta":1000000,"reason":"bench"}`, s.skus[i].sku))
		return err
	})
}

// cartsInAll is how many carts the adding clients share out among them.
const cartsInAll = 3200

func (s *stock) makeCarts(ctx context.Context, clients int) error {
	all := make([]cart, cartsInAll)
	if err := together(ctx, s.address, len(all), func(w *worker, i int) (err error) {
		all[i], err = makeCart(&w.client)
		return err
	}); err != nil {
		return err
	}
	s.carts = nil
	for chunk := range slices.Chunk(all, cartsInAll/clients) {
		s.carts = append(s.carts, chunk)
	}
	return nil
}

func makeCart(c *client) (cart, error) {
	answer, err := c.want(http.StatusCreated, "POST", "/v1/carts", "", `{"currency":"EUR"}`)
	return cart{field(answer, "id"), field(answer, "token")}, err
}
