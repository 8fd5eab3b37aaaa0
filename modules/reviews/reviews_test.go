package reviews

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func setup(t *testing.T) *Module {
	t.Helper()
	return &Module{
		DB: shoptest.DB(t, "reviews"), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: shoptest.NewClock().Now, Config: Defaults(),
	}
}

func (m *Module) must(t *testing.T, product, author ids.ID, rating int64) review {
	t.Helper()
	rv, err := m.write(t.Context(), review{Product: product, Author: author, Rating: rating, Title: "t", Text: "x"})
	if err != nil {
		t.Fatal(err)
	}
	return rv
}

func (m *Module) summaryOf(t *testing.T, product ids.ID) reviewsapi.Summary {
	t.Helper()
	s, err := m.Summaries(t.Context(), reviewsapi.SummariesRequest{Products: []ids.ID{product}})
	if err != nil {
		t.Fatal(err)
	}
	return s.Summaries[0]
}

func TestRatingsAddUpExactly(t *testing.T) {
	t.Parallel()
	m := setup(t)
	for i, stars := range []int64{5, 5, 4, 1} {
		m.must(t, "prd_a", ids.New[ids.ID]("usr"), stars)
		if s := m.summaryOf(t, "prd_a"); s.Count != int64(i+1) {
			t.Errorf("count %d after %d reviews", s.Count, i+1)
		}
	}
	s := m.summaryOf(t, "prd_a")
	if s.Sum != 15 || s.Average() != 375 || s.Histogram[4] != 2 || s.Histogram[3] != 1 || s.Histogram[0] != 1 {
		t.Errorf("summary %+v", s)
	}
	if other := m.summaryOf(t, "prd_b"); other.Count != 0 || other.Average() != 0 {
		t.Errorf("a product without reviews: %+v", other)
	}
}

func TestOneReviewEach(t *testing.T) {
	t.Parallel()
	m := setup(t)
	m.must(t, "prd_a", "usr_eve", 5)
	_, err := m.write(t.Context(), review{Product: "prd_a", Author: "usr_eve", Rating: 1, Title: "t", Text: "x"})
	if !errs.Has(err, "already_reviewed") {
		t.Errorf("second review: %v", err)
	}
	if s := m.summaryOf(t, "prd_a"); s.Count != 1 || s.Sum != 5 {
		t.Errorf("the refused review counted: %+v", s)
	}
}

func TestConcurrentReviewsAllCount(t *testing.T) {
	t.Parallel()
	m := setup(t)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { m.must(t, "prd_a", ids.New[ids.ID]("usr"), 3) })
	}
	wg.Wait()
	if s := m.summaryOf(t, "prd_a"); s.Count != 20 || s.Sum != 60 {
		t.Errorf("%+v after 20 reviews of 3 stars", s)
	}
}

func TestAPurchaseVerifiesReviewsBeforeAndAfterIt(t *testing.T) {
	t.Parallel()
	m := setup(t)
	before := m.must(t, "prd_a", "usr_eve", 5)
	placed := ordersapi.OrderPlaced{
		Customer: "usr_eve", PlacedAt: m.Now(), Lines: []ordersapi.PlacedLine{{Product: "prd_a"}, {Product: "prd_b"}, {Product: "prd_b"}},
	}
	for range 2 { // an event may come twice
		err := m.DB.InTx(t.Context(), func(tx *pg.Tx) error { return m.onOrderPlaced(t.Context(), tx, placed) })
		if err != nil {
			t.Fatal(err)
		}
	}
	if before.Verified {
		t.Error("verified before the purchase")
	}
	if after := m.must(t, "prd_b", "usr_eve", 4); !after.Verified {
		t.Error("not verified although bought")
	}
	if stranger := m.must(t, "prd_b", "usr_mallory", 1); stranger.Verified {
		t.Error("a stranger's review is verified")
	}
	list, err := m.Recent(t.Context(), reviewsapi.RecentRequest{Product: "prd_a", Limit: 5})
	if err != nil || len(list.Reviews) != 1 || !list.Reviews[0].VerifiedPurchase {
		t.Errorf("the earlier review: %+v, %v", list.Reviews, err)
	}
	guest := ordersapi.OrderPlaced{Lines: []ordersapi.PlacedLine{{Product: "prd_a"}}}
	err = m.DB.InTx(t.Context(), func(tx *pg.Tx) error { return m.onOrderPlaced(t.Context(), tx, guest) })
	if err != nil {
		t.Errorf("a guest's order: %v", err)
	}
}

func TestAReviewAndItsPurchaseAtTheSameMomentFindEachOther(t *testing.T) {
	t.Parallel()
	m := setup(t)
	for range 50 {
		eve := ids.New[ids.ID]("usr")
		var wg sync.WaitGroup
		wg.Go(func() { m.must(t, "prd_a", eve, 5) })
		wg.Go(func() {
			placed := ordersapi.OrderPlaced{Customer: eve, PlacedAt: m.Now(), Lines: []ordersapi.PlacedLine{{Product: "prd_a"}}}
			if err := m.DB.InTx(t.Context(), func(tx *pg.Tx) error { return m.onOrderPlaced(t.Context(), tx, placed) }); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
	var missed int
	err := m.DB.Get(t.Context(), &missed, `SELECT count(*) FROM reviews.reviews WHERE NOT verified_purchase`)
	if err != nil || missed > 0 {
		t.Errorf("%d of 50 bought and reviewed, and not verified, %v", missed, err)
	}
}

func TestPagesAreCompleteAndNewestFirst(t *testing.T) {
	t.Parallel()
	m := setup(t)
	clock := shoptest.NewClock()
	m.Now = clock.Now
	for range 7 {
		m.must(t, "prd_a", ids.New[ids.ID]("usr"), 5)
		clock.Advance(time.Second)
	}
	var before position
	seen := map[reviewsapi.ID]bool{}
	last := clock.Now()
	for {
		rows, err := published(t.Context(), m.DB, "prd_a", before, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			if seen[r.ID] || r.CreatedAt.After(last) {
				t.Fatalf("review %s at %s twice or out of order", r.ID, r.CreatedAt)
			}
			seen[r.ID], last, before = true, r.CreatedAt, position{r.CreatedAt, r.ID}
		}
		if len(rows) < 3 {
			break
		}
	}
	if len(seen) != 7 {
		t.Errorf("%d of 7 reviews", len(seen))
	}
}

// Whatever is written, published and rejected in whatever order, the ratings stay what the reviews add up to.
func TestModerationKeepsRatingsExact(t *testing.T) {
	t.Parallel()
	m := setup(t)
	m.Config.Moderation = "on"
	rapid.Check(t, func(rt *rapid.T) {
		product := ids.New[ids.ID]("prd")
		var all []reviewsapi.ID
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if len(all) == 0 || rapid.Bool().Draw(rt, "write") {
				all = append(all, m.must(t, product, ids.New[ids.ID]("usr"), rapid.Int64Range(1, 5).Draw(rt, "stars")).ID)
				continue
			}
			id := rapid.SampledFrom(all).Draw(rt, "review")
			if _, err := m.moderate(context.Background(), id, rapid.SampledFrom([]string{"published", "rejected"}).Draw(rt, "to")); err != nil {
				rt.Fatal(err)
			}
		}
	})
	wrong, err := m.CheckRatings(t.Context())
	if err != nil || len(wrong) > 0 {
		t.Errorf("ratings that do not add up: %+v, %v", wrong, err)
	}
	if _, err := m.moderate(t.Context(), "rev_none", "published"); !errs.Is(err, errs.NotFound) {
		t.Errorf("unknown review: %v", err)
	}
}

func TestTheCheckFindsAWrongRating(t *testing.T) {
	t.Parallel()
	m := setup(t)
	m.must(t, "prd_a", "usr_eve", 5)
	err := m.DB.InTx(t.Context(), func(tx *pg.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE reviews.ratings SET stars5 = stars5 + 1`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if wrong, err := m.CheckRatings(t.Context()); err != nil || len(wrong) != 1 {
		t.Errorf("%+v, %v; want one wrong rating", wrong, err)
	}
}

// shelf is a catalog that holds every demo product.
type shelf struct{ catalogapi.Catalog }

func (shelf) Products(_ context.Context, r catalogapi.ProductsRequest) (catalogapi.Products, error) {
	var out catalogapi.Products
	for _, id := range r.IDs {
		out.Products = append(out.Products, catalogapi.ProductCard{ID: id})
	}
	return out, nil
}

func TestDemoReviewsAddUpAndAreMadeOnce(t *testing.T) {
	t.Parallel()
	m := setup(t)
	m.Catalog = shelf{}
	counts := make([]int, 2)
	for i := range counts {
		if err := m.Seed(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.DB.Get(t.Context(), &counts[i], `SELECT count(*) FROM reviews.reviews`); err != nil {
			t.Fatal(err)
		}
	}
	if counts[0] < 1000 || counts[0] != counts[1] {
		t.Errorf("%d reviews, then %d", counts[0], counts[1])
	}
	if wrong, err := m.CheckRatings(t.Context()); err != nil || len(wrong) > 0 {
		t.Errorf("ratings that do not add up: %+v, %v", wrong, err)
	}
}
