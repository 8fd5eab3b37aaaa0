package reviews

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// demoReviewed is how many of the demo products have reviews: every third.
const demoReviewed = 3

// opinion is a review that fits any product.
type opinion struct {
	stars       int64
	title, text string
}

func opinions() []opinion {
	return []opinion{
		{5, "Would buy it again", "Well made, just as described, and it arrived when it was meant to."},
		{4, "Very good", "Does what it should. One star less because the instructions are thin."},
		{5, "Better than the one it replaced", "I was not sure at the price, but it feels like something that lasts."},
		{3, "All right", "It is fine. The colour is a little darker than in the picture."},
		{5, "A present that was a hit", "Bought for my sister, who now wants a second one."},
		{2, "Not for me", "Good quality, but not what I expected from the name. The shop took it back without fuss."},
		{4, "Solid", "Half a year of daily use and still like new."},
		{1, "Broke", "It broke in the second week. Perhaps mine was a bad one."},
	}
}

// Seed makes reviews of the demo products that are there, always the same.
func (m *Module) Seed(ctx context.Context) error {
	var wanted []catalogapi.ProductID
	for n := demoReviewed; n <= catalogapi.DemoProducts; n += demoReviewed {
		wanted = append(wanted, catalogapi.DemoProductID(n))
	}
	there, err := m.Catalog.Products(ctx, catalogapi.ProductsRequest{IDs: wanted})
	if err != nil {
		return fmt.Errorf("demo products: %w", err)
	}
	known := make(map[catalogapi.ProductID]bool, len(there.Products))
	for _, p := range there.Products {
		known[p.ID] = true
	}
	var rows []review
	for i, product := range wanted {
		if known[product] {
			rows = append(rows, demoReviews(i, ids.ID(product))...)
		}
	}
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		changed, err := insertDemo(ctx, tx, rows)
		if err != nil {
			return err
		}
		news := make([]events.Event, len(changed))
		for i, r := range changed {
			s := r.summary(r.Product)
			news[i] = reviewsapi.RatingChanged{Product: r.Product, Count: s.Count, Sum: s.Sum, Version: r.Version}
		}
		return events.Publish(ctx, tx, news...)
	})
	if err != nil {
		return fmt.Errorf("demo reviews: %w", err)
	}
	return nil
}

// demoReviews are the reviews of the i-th reviewed product: one to five, from people who do not exist.
func demoReviews(i int, product ids.ID) []review {
	all := opinions()
	rows := make([]review, 1+i*7%5)
	for k := range rows {
		o := all[(i*3+k*5)%len(all)]
		author := ids.Derived[ids.ID]("usr", "demo-reviewer", fmt.Sprint(i+k*101))
		rows[k] = review{
			ID: ids.Derived[reviewsapi.ID]("rev", string(product), string(author)), Product: product, Author: author, Rating: o.stars,
			Title: o.title, Text: o.text, Verified: (i+k)%3 > 0, CreatedAt: time.Date(2025, 6, 1, 9, i%60, k, 0, time.UTC).AddDate(0, 0, i%200),
		}
	}
	return rows
}
