// Package reviewsapi is what other modules may ask of reviews, and what reviews tell.
package reviewsapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
)

// ID names a review: rev_….
type ID ids.ID

// Reviews knows what shoppers think of products.
type Reviews interface {
	// Summaries are the published ratings of products; a product without any has a zero one. May be repeated.
	Summaries(ctx context.Context, r SummariesRequest) (Summaries, error)

	// Recent are the newest published reviews of a product. May be repeated.
	Recent(ctx context.Context, r RecentRequest) (List, error)
}

// SummariesRequest asks for ratings by product.
type SummariesRequest struct {
	Products []ids.ID `json:"products"`
}

// Summaries are ratings, in the order asked.
type Summaries struct {
	Summaries []Summary `json:"summaries"`
}

// Summary is the published ratings of one product.
type Summary struct {
	Product   ids.ID  `json:"product"`
	Count     int64   `json:"count"`
	Sum       int64   `json:"sum"`       // of the stars
	Histogram []int64 `json:"histogram"` // five counts, of 1 to 5 stars
}

// Average is the mean of the stars in hundredths, rounded half up: 425 is 4.25. It is 0 without any review.
func (s Summary) Average() int64 {
	if s.Count == 0 {
		return 0
	}
	return (s.Sum*100 + s.Count/2) / s.Count
}

// RecentRequest asks for at most Limit reviews of Product.
type RecentRequest struct {
	Product ids.ID `json:"product"`
	Limit   int64  `json:"limit"`
}

// List is reviews, newest first.
type List struct {
	Reviews []Review `json:"reviews"`
}

// Review is a published review.
type Review struct {
	ID               ID        `json:"id"`
	Product          ids.ID    `json:"product"`
	Rating           int64     `json:"rating"`
	Title            string    `json:"title"`
	Text             string    `json:"text"`
	VerifiedPurchase bool      `json:"verified_purchase"`
	CreatedAt        time.Time `json:"created_at"`
}
