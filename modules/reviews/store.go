package reviews

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// review is a row of reviews.reviews.
type review struct {
	ID        reviewsapi.ID `db:"id"`
	Product   ids.ID        `db:"product"`
	Author    ids.ID        `db:"author"`
	Rating    int64         `db:"rating"`
	Title     string        `db:"title"`
	Text      string        `db:"text"`
	State     string        `db:"state"`
	Verified  bool          `db:"verified_purchase"`
	CreatedAt time.Time     `db:"created_at"`
}

func (r review) view() reviewsapi.Review {
	return reviewsapi.Review{
		ID: r.ID, Product: r.Product, Rating: r.Rating, Title: r.Title, Text: r.Text, VerifiedPurchase: r.Verified, CreatedAt: r.CreatedAt,
	}
}

// rating is a row of reviews.ratings.
type rating struct {
	Product ids.ID `db:"product"`
	Stars1  int64  `db:"stars1"`
	Stars2  int64  `db:"stars2"`
	Stars3  int64  `db:"stars3"`
	Stars4  int64  `db:"stars4"`
	Stars5  int64  `db:"stars5"`
	Version int64  `db:"version"`
}

func (r rating) summary(product ids.ID) reviewsapi.Summary {
	s := reviewsapi.Summary{Product: product, Histogram: []int64{r.Stars1, r.Stars2, r.Stars3, r.Stars4, r.Stars5}}
	for i, n := range s.Histogram {
		s.Count += n
		s.Sum += n * int64(i+1)
	}
	return s
}

// lockCustomer puts what a customer buys and what they write one after the other: of two transactions at the same moment neither
// would see the other's row, and the review would never be verified.
func lockCustomer(ctx context.Context, tx *pg.Tx, customer ids.ID) error {
	_, err := tx.Exec(ctx, `SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('reviews'), pg_catalog.hashtext($1))`, customer)
	return err
}

// insertReview stores a review and says whether its author bought the product.
func insertReview(ctx context.Context, tx *pg.Tx, r review) (verified bool, err error) {
	err = tx.Get(ctx, &verified, `
		INSERT INTO reviews.reviews (id, product, author, rating, title, text, state, created_at, verified_purchase)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
			EXISTS (SELECT FROM reviews.purchases WHERE customer = $3 AND product = $2))
		RETURNING verified_purchase`,
		r.ID, r.Product, r.Author, r.Rating, r.Title, r.Text, r.State, r.CreatedAt)
	return verified, err
}

func lockReview(ctx context.Context, tx *pg.Tx, id reviewsapi.ID) (review, error) {
	var r review
	err := tx.Get(ctx, &r, `
		SELECT id, product, author, rating, title, text, state, verified_purchase, created_at
		FROM reviews.reviews WHERE id = $1 FOR UPDATE`, id)
	return r, err
}

func setState(ctx context.Context, tx *pg.Tx, id reviewsapi.ID, state string) error {
	_, err := tx.Exec(ctx, `UPDATE reviews.reviews SET state = $2 WHERE id = $1`, id, state)
	return err
}

// addRating moves one star count of a product and returns the whole rating. The row proposed is never negative: PostgreSQL
// checks it before it finds the conflict.
func addRating(ctx context.Context, tx *pg.Tx, product ids.ID, stars, by int64) (rating, error) {
	var r rating
	err := tx.Get(ctx, &r, `
		INSERT INTO reviews.ratings AS r (product, stars1, stars2, stars3, stars4, stars5, version)
		VALUES ($1, ($2 = 1)::int * greatest($3::bigint, 0), ($2 = 2)::int * greatest($3::bigint, 0), ($2 = 3)::int * greatest($3::bigint, 0),
			($2 = 4)::int * greatest($3::bigint, 0), ($2 = 5)::int * greatest($3::bigint, 0), 1)
		ON CONFLICT (product) DO UPDATE SET
			stars1 = r.stars1 + ($2 = 1)::int * $3::bigint, stars2 = r.stars2 + ($2 = 2)::int * $3::bigint,
			stars3 = r.stars3 + ($2 = 3)::int * $3::bigint, stars4 = r.stars4 + ($2 = 4)::int * $3::bigint,
			stars5 = r.stars5 + ($2 = 5)::int * $3::bigint, version = r.version + 1
		RETURNING product, stars1, stars2, stars3, stars4, stars5, version`, product, stars, by)
	return r, err
}

func ratingsOf(ctx context.Context, q pg.Queryer, products []ids.ID) (map[ids.ID]rating, error) {
	of := make([]string, len(products))
	for i, p := range products {
		of[i] = string(p)
	}
	var rows []rating
	err := q.Select(ctx, &rows, `
		SELECT product, stars1, stars2, stars3, stars4, stars5, version FROM reviews.ratings WHERE product = ANY($1)`, pg.Array(of))
	if err != nil {
		return nil, fmt.Errorf("ratings of %d products: %w", len(products), err)
	}
	found := make(map[ids.ID]rating, len(rows))
	for _, r := range rows {
		found[r.Product] = r
	}
	return found, nil
}

// position is where a page of reviews ended.
type position struct {
	CreatedAt time.Time     `json:"t"`
	ID        reviewsapi.ID `json:"i"`
}

// published are at most limit reviews of a product before a position, newest first; the zero position is the start.
func published(ctx context.Context, q pg.Queryer, product ids.ID, before position, limit int64) ([]review, error) {
	if before.ID == "" {
		before = position{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), "~"}
	}
	var rows []review
	err := q.Select(ctx, &rows, `
		SELECT id, product, author, rating, title, text, state, verified_purchase, created_at
		FROM reviews.reviews
		WHERE product = $1 AND state = 'published' AND (created_at, id) < ($2, $3)
		ORDER BY created_at DESC, id DESC LIMIT $4`, product, before.CreatedAt, before.ID, limit)
	if err != nil {
		return nil, fmt.Errorf("reviews of %s: %w", product, err)
	}
	return rows, nil
}

// insertPurchases remembers what a customer bought, and verifies what they had already written about it.
func insertPurchases(ctx context.Context, tx *pg.Tx, customer ids.ID, products []string, at time.Time) error {
	_, err := tx.Exec(ctx, `
		WITH bought AS (
			INSERT INTO reviews.purchases (customer, product, placed_at)
			SELECT DISTINCT $1, p, $3::timestamptz FROM unnest($2::text[]) AS p
			ON CONFLICT (customer, product) DO NOTHING
		)
		UPDATE reviews.reviews SET verified_purchase = true WHERE author = $1 AND product = ANY($2::text[])`,
		customer, pg.Array(products), at)
	return err
}

// Mismatch is a product whose rating is not what its published reviews add up to.
type Mismatch struct {
	Product ids.ID `db:"product"`
	Kept    int64  `db:"kept"`
	Counted int64  `db:"counted"`
}

// CheckRatings compares every rating with the reviews it was made of, as Σ of rating × 1,000,000 + count.
func (m *Module) CheckRatings(ctx context.Context) ([]Mismatch, error) {
	var wrong []Mismatch
	err := m.DB.Select(ctx, &wrong, `
		WITH counted AS (
			SELECT product, sum(rating) * 1000000 + count(*) AS n FROM reviews.reviews WHERE state = 'published' GROUP BY product
		), kept AS (
			SELECT product, (stars1 + 2 * stars2 + 3 * stars3 + 4 * stars4 + 5 * stars5) * 1000000
				+ stars1 + stars2 + stars3 + stars4 + stars5 AS n
			FROM reviews.ratings
		)
		SELECT product, coalesce(kept.n, 0)::bigint AS kept, coalesce(counted.n, 0)::bigint AS counted
		FROM kept FULL JOIN counted USING (product)
		WHERE coalesce(kept.n, 0) <> coalesce(counted.n, 0)
		ORDER BY product`)
	if err != nil {
		return nil, fmt.Errorf("check ratings: %w", err)
	}
	return wrong, nil
}

// insertDemo stores published reviews that are not there yet, and returns the ratings that changed with them.
func insertDemo(ctx context.Context, tx *pg.Tx, rows []review) ([]rating, error) {
	var id, product, author, title, text []string
	var stars []int64
	var verified []bool
	var at []time.Time
	for _, r := range rows {
		id, product, author = append(id, string(r.ID)), append(product, string(r.Product)), append(author, string(r.Author))
		title, text = append(title, r.Title), append(text, r.Text)
		stars, verified, at = append(stars, r.Rating), append(verified, r.Verified), append(at, r.CreatedAt)
	}
	var changed []rating
	err := tx.Select(ctx, &changed, `
		WITH fresh AS (
			INSERT INTO reviews.reviews (id, product, author, rating, title, text, state, verified_purchase, created_at)
			SELECT id, product, author, rating, title, body, 'published', verified, at
			FROM unnest($1::text[], $2::text[], $3::text[], $4::int[], $5::text[], $6::text[], $7::bool[], $8::timestamptz[])
				AS r (id, product, author, rating, title, body, verified, at)
			ON CONFLICT DO NOTHING
			RETURNING product, rating
		)
		INSERT INTO reviews.ratings AS r (product, stars1, stars2, stars3, stars4, stars5, version)
		SELECT product, count(*) FILTER (WHERE rating = 1), count(*) FILTER (WHERE rating = 2), count(*) FILTER (WHERE rating = 3),
			count(*) FILTER (WHERE rating = 4), count(*) FILTER (WHERE rating = 5), 1
		FROM fresh GROUP BY product
		ON CONFLICT (product) DO UPDATE SET
			stars1 = r.stars1 + excluded.stars1, stars2 = r.stars2 + excluded.stars2, stars3 = r.stars3 + excluded.stars3,
			stars4 = r.stars4 + excluded.stars4, stars5 = r.stars5 + excluded.stars5, version = r.version + 1
		RETURNING product, stars1, stars2, stars3, stars4, stars5, version`,
		pg.Array(id), pg.Array(product), pg.Array(author), pg.Array(stars), pg.Array(title), pg.Array(text), pg.Array(verified), pg.Array(at))
	return changed, err
}
