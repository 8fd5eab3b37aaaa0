// Package reviews keeps what shoppers think of products and adds it up. It does not know the products themselves, nor orders:
// it asks the catalog whether a product exists and remembers from OrderPlaced who bought what.
package reviews

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Module is the reviews module.
type Module struct {
	DB      *pg.DB
	Catalog catalogapi.Catalog
	Cursors web.Cursors
	Log     *slog.Logger
	Now     func() time.Time
	Config  Config
}

// Config is the block "reviews" of the settings.
type Config struct {
	// Moderation is "off" to publish a review at once, "on" to let somebody look at it first. Default off.
	Moderation string `yaml:"moderation"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config { return Config{Moderation: "off"} }

// Validate says what to change.
func (c Config) Validate() error {
	if c.Moderation != "on" && c.Moderation != "off" {
		return fmt.Errorf("moderation must be on or off")
	}
	return nil
}

var _ reviewsapi.Reviews = (*Module)(nil)

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { reviewsapi.Mount(s, m) }

// Summaries are published ratings. See reviewsapi.
func (m *Module) Summaries(ctx context.Context, r reviewsapi.SummariesRequest) (reviewsapi.Summaries, error) {
	found, err := ratingsOf(ctx, m.DB, r.Products)
	if err != nil {
		return reviewsapi.Summaries{}, err
	}
	out := reviewsapi.Summaries{Summaries: make([]reviewsapi.Summary, len(r.Products))}
	for i, p := range r.Products {
		out.Summaries[i] = found[p].summary(p)
	}
	return out, nil
}

// Recent are the newest published reviews of a product. See reviewsapi.
func (m *Module) Recent(ctx context.Context, r reviewsapi.RecentRequest) (reviewsapi.List, error) {
	rows, err := published(ctx, m.DB, r.Product, position{}, min(max(r.Limit, 1), 100))
	if err != nil {
		return reviewsapi.List{}, err
	}
	list := reviewsapi.List{Reviews: make([]reviewsapi.Review, len(rows))}
	for i, row := range rows {
		list.Reviews[i] = row.view()
	}
	return list, nil
}

// write stores an author's review of a product; it counts at once unless it is to be moderated.
func (m *Module) write(ctx context.Context, rv review) (review, error) {
	rv.ID, rv.State, rv.CreatedAt = ids.New[reviewsapi.ID]("rev"), "published", m.Now().UTC().Truncate(time.Microsecond) // as the database keeps it
	if m.Config.Moderation == "on" {
		rv.State = "pending"
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		err := lockCustomer(ctx, tx, rv.Author)
		if err != nil {
			return err
		}
		if rv.Verified, err = insertReview(ctx, tx, rv); err != nil {
			return err
		}
		if rv.State == "published" {
			if err := m.count(ctx, tx, rv, +1); err != nil {
				return err
			}
		}
		return web.SaveReply(ctx, tx, 201, "", rv.body())
	})
	if pg.IsUnique(err, "one_review_each") {
		return review{}, errs.Conflictf("already_reviewed", "you have reviewed this product")
	}
	if err != nil {
		return review{}, fmt.Errorf("review of %s: %w", rv.Product, err)
	}
	return rv, nil
}

// moderate publishes or rejects a review and moves the rating with it.
func (m *Module) moderate(ctx context.Context, id reviewsapi.ID, to string) (review, error) {
	var rv review
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		var err error
		if rv, err = lockReview(ctx, tx, id); err != nil {
			return err
		}
		was := rv.State
		if was == to {
			return nil
		}
		rv.State = to
		if err := setState(ctx, tx, id, to); err != nil {
			return err
		}
		switch {
		case to == "published":
			return m.count(ctx, tx, rv, +1)
		case was == "published":
			return m.count(ctx, tx, rv, -1)
		}
		return nil
	})
	if pg.NoRows(err) {
		return review{}, errs.NotFoundf("no such review")
	}
	if err != nil {
		return review{}, fmt.Errorf("moderate review %s: %w", id, err)
	}
	return rv, nil
}

// count adds or takes one review of the product's rating and tells what it now is.
func (m *Module) count(ctx context.Context, tx *pg.Tx, rv review, by int64) error {
	r, err := addRating(ctx, tx, rv.Product, rv.Rating, by)
	if err != nil {
		return err
	}
	s := r.summary(rv.Product)
	return events.Publish(ctx, tx, reviewsapi.RatingChanged{Product: rv.Product, Count: s.Count, Sum: s.Sum, Version: r.Version})
}

// product is the id behind an id or slug. Codes: not_found.
func (m *Module) product(ctx context.Context, ref string) (ids.ID, error) {
	p, err := m.Catalog.Product(ctx, catalogapi.ProductRequest{Ref: ref})
	return ids.ID(p.ID), err
}
