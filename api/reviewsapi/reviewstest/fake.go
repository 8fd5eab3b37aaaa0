// Package reviewstest has a Fake of reviews in memory, and the Suite that both the Fake and the module pass. Only tests import
// it.
package reviewstest

import (
	"context"
	"slices"
	"sync"

	"github.com/banyan-shop/banyan/api/reviewsapi"
)

// Fake is reviews in memory. Its zero value is empty and works.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Recent"; what it returns is the method's error.
	Fail func(method string) error

	mu      sync.Mutex
	reviews []reviewsapi.Review
}

var _ reviewsapi.Reviews = (*Fake)(nil)

// Put publishes a review, newer than those before.
func (f *Fake) Put(r reviewsapi.Review) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reviews = append(f.reviews, r)
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.Fail != nil {
		return f.Fail(method)
	}
	return nil
}

// Summaries: see reviewsapi.
func (f *Fake) Summaries(_ context.Context, r reviewsapi.SummariesRequest) (reviewsapi.Summaries, error) {
	defer f.mu.Unlock()
	if err := f.enter("Summaries"); err != nil {
		return reviewsapi.Summaries{}, err
	}
	out := reviewsapi.Summaries{Summaries: make([]reviewsapi.Summary, len(r.Products))}
	for i, p := range r.Products {
		s := reviewsapi.Summary{Product: p, Histogram: make([]int64, 5)}
		for _, rv := range f.reviews {
			if rv.Product == p {
				s.Count++
				s.Sum += rv.Rating
				s.Histogram[rv.Rating-1]++
			}
		}
		out.Summaries[i] = s
	}
	return out, nil
}

// Recent: see reviewsapi.
func (f *Fake) Recent(_ context.Context, r reviewsapi.RecentRequest) (reviewsapi.List, error) {
	defer f.mu.Unlock()
	if err := f.enter("Recent"); err != nil {
		return reviewsapi.List{}, err
	}
	l := reviewsapi.List{Reviews: []reviewsapi.Review{}}
	for _, rv := range slices.Backward(f.reviews) {
		if rv.Product == r.Product && int64(len(l.Reviews)) < r.Limit {
			l.Reviews = append(l.Reviews, rv)
		}
	}
	return l, nil
}
