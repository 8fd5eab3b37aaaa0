package reviewstest

import (
	"slices"
	"testing"

	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/ids"
)

// Subject is reviews under test, and how somebody writes one there.
type Subject struct {
	Reviews reviewsapi.Reviews
	// Write publishes a review by somebody new, later than those before, titled "t".
	Write func(t *testing.T, product ids.ID, rating int64) reviewsapi.ID
}

// Suite is what all reviews do.
func Suite(t *testing.T, setup func(t *testing.T) Subject) {
	t.Run("summaries add up, in the order asked, and are zero without reviews", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		for _, stars := range []int64{5, 4, 4, 1} {
			s.Write(t, "prd_mug", stars)
		}
		s.Write(t, "prd_bag", 3)
		got, err := s.Reviews.Summaries(t.Context(), reviewsapi.SummariesRequest{Products: []ids.ID{"prd_bag", "prd_none", "prd_mug"}})
		if err != nil {
			t.Fatal(err)
		}
		want := []reviewsapi.Summary{
			{Product: "prd_bag", Count: 1, Sum: 3, Histogram: []int64{0, 0, 1, 0, 0}},
			{Product: "prd_none", Histogram: []int64{0, 0, 0, 0, 0}},
			{Product: "prd_mug", Count: 4, Sum: 14, Histogram: []int64{1, 0, 0, 2, 1}},
		}
		same := func(a, b reviewsapi.Summary) bool {
			return a.Product == b.Product && a.Count == b.Count && a.Sum == b.Sum && slices.Equal(a.Histogram, b.Histogram)
		}
		if !slices.EqualFunc(got.Summaries, want, same) {
			t.Errorf("got %+v, want %+v", got.Summaries, want)
		}
	})
	t.Run("recent reviews are a product's own, newest first", func(t *testing.T) {
		t.Parallel()
		s := setup(t)
		var written []reviewsapi.ID
		for stars := range int64(3) {
			written = append(written, s.Write(t, "prd_mug", stars+1))
		}
		s.Write(t, "prd_bag", 5)
		l, err := s.Reviews.Recent(t.Context(), reviewsapi.RecentRequest{Product: "prd_mug", Limit: 2})
		if err != nil || len(l.Reviews) != 2 || l.Reviews[0].ID != written[2] || l.Reviews[1].ID != written[1] {
			t.Fatalf("got %+v, %v; want the last two of %v", l.Reviews, err, written)
		}
		if r := l.Reviews[0]; r.Product != "prd_mug" || r.Rating != 3 || r.Title != "t" || r.CreatedAt.IsZero() {
			t.Errorf("got %+v", r)
		}
		if l, err := s.Reviews.Recent(t.Context(), reviewsapi.RecentRequest{Product: "prd_none", Limit: 5}); err != nil || l.Reviews == nil || len(l.Reviews) != 0 {
			t.Errorf("of a product without any: %+v, %v", l, err)
		}
	})
}
