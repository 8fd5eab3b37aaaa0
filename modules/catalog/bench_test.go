package catalog

import (
	"fmt"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/ids"
)

// The reads of shoppers, through the public face but without a socket, by eight at a time on the demo catalogue.
func BenchmarkReads(b *testing.B) {
	c := setupOn(b, parallelDB(b, 8))
	c.Config = Defaults()
	if err := c.Seed(b.Context()); err != nil {
		b.Fatal(err)
	}
	words := []string{"tent", "running+shoes", "wool", "coffee", "lamp", "knife+steel", "oak", "headphones"}
	slug := make([]string, 200)
	for i := range slug {
		slug[i] = slugify(demoProduct(i + 1).name)
	}
	for _, bench := range []struct {
		name string
		path func(n int64) string
	}{
		{"list", func(n int64) string { return "/v1/products?limit=20" }},
		{"list by price", func(n int64) string { return "/v1/products?limit=20&sort=price" }},
		{"list of a category", func(n int64) string { return "/v1/products?limit=20&filter[category]=outdoor" }},
		{"page", func(n int64) string { return "/v1/products/" + slug[n%200] }},
		{"search with facets", func(n int64) string { return "/v1/search?limit=20&facets=category,brand&q=" + words[n%8] }},
		{"search with facets never counted", func(n int64) string {
			return fmt.Sprintf("/v1/search?limit=20&facets=category,brand&q=%s&filter[max_price]=%d", words[n%8], 100_000_000+n)
		}},
		{"image", func(n int64) string { return fmt.Sprintf("/v1/images/demo-%04d.svg", n%2000+1) }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					w := httptest.NewRecorder()
					c.server.ServeHTTP(w, httptest.NewRequest("GET", bench.path(n.Add(1)), nil))
					if w.Code != 200 {
						b.Errorf("%d %s", w.Code, w.Body)
					}
				}
			})
		})
	}
}

// A checkout's stock: reserved, then allocated. One hot SKU is the worst case, many the usual one.
func BenchmarkStock(b *testing.B) {
	c := setupOn(b, parallelDB(b, 16))
	var skus []string
	for i := range 500 {
		skus = append(skus, fmt.Sprintf("SKU-%03d", i))
	}
	c.put(b, 1_000_000_000, skus...)
	var n atomic.Int64
	for _, bench := range []struct {
		name  string
		lines func(n int64) []catalogapi.Quantity
	}{
		{"one line", func(n int64) []catalogapi.Quantity { return []catalogapi.Quantity{{SKU: skus[n%500], Quantity: 1}} }},
		{"three lines", func(n int64) []catalogapi.Quantity {
			return []catalogapi.Quantity{{SKU: skus[n%500], Quantity: 1}, {SKU: skus[n*7%500], Quantity: 1}, {SKU: skus[n*13%500], Quantity: 1}}
		}},
		{"one line of one SKU", func(n int64) []catalogapi.Quantity { return []catalogapi.Quantity{{SKU: skus[0], Quantity: 1}} }},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					n := n.Add(1)
					checkout := ids.ID(fmt.Sprint("chk_", n))
					if err := c.hold(fmt.Sprint("h", n), checkout, bench.lines(n)...); err != nil {
						b.Error(err)
					}
					if err := c.keep(fmt.Sprint("k", n), checkout, "ord_"+checkout, bench.lines(n)...); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
	c.addsUp(b)
}
