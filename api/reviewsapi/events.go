package reviewsapi

import "github.com/banyan-shop/banyan/platform/ids"

// RatingChanged says what the published ratings of a product now add up to. Its key is the product; a smaller Version than
// one already seen is old news.
type RatingChanged struct {
	Product ids.ID `json:"product"`
	Count   int64  `json:"count"`
	Sum     int64  `json:"sum"`
	Version int64  `json:"version"`
}

func (RatingChanged) EventName() string  { return "reviews.rating_changed.v1" }
func (e RatingChanged) EventKey() string { return string(e.Product) }
