package reviews

import (
	"context"
	"strconv"
	"time"

	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/web"
)

// Routes are the public routes of reviews.
func (m *Module) Routes(r *web.Router) {
	r.Problem("already_reviewed", "Already reviewed", "Each shopper writes one review of a product.")
	r.Tag("reviews", "What shoppers say of products.")
	web.Get(r, "/v1/products/{id}/reviews", web.Public, web.Route{
		ID: "listReviews", Tag: "reviews", Summary: "Published reviews of a product, newest first, with what they add up to", Criticality: web.Sheddable,
	}, m.list)
	web.Post(r, "/v1/products/{id}/reviews", web.SignedIn, web.Route{
		ID: "writeReview", Tag: "reviews", Summary: "Review a product, once", Status: 201, Idempotency: web.Keyed,
	}, m.post)
	web.Post(r, "/v1/admin/reviews/{id}/moderation", web.Scope("reviews:moderate"), web.Route{
		ID: "moderateReview", Tag: "reviews", Summary: "Publish or reject a review",
	}, m.postModeration)
}

// body is a review as clients see it.
type body struct {
	ID               reviewsapi.ID `json:"id"`
	Rating           int64         `json:"rating"`
	Title            string        `json:"title"`
	Text             string        `json:"text"`
	VerifiedPurchase bool          `json:"verified_purchase"`
	State            string        `json:"state"`
	CreatedAt        time.Time     `json:"created_at"`
}

func (r review) body() body {
	return body{r.ID, r.Rating, r.Title, r.Text, r.Verified, r.State, r.CreatedAt}
}

type summary struct {
	Average   web.Hundredths   `json:"average"`
	Count     int64            `json:"count"`
	Histogram map[string]int64 `json:"histogram"`
}

func summaryOf(s reviewsapi.Summary) summary {
	out := summary{Average: web.Hundredths(s.Average()), Count: s.Count, Histogram: make(map[string]int64, 5)}
	for i, n := range s.Histogram {
		out.Histogram[strconv.Itoa(i+1)] = n
	}
	return out
}

type listInput struct {
	ID     string `path:"id" maxLength:"200"`
	Limit  int64  `query:"limit" default:"20" minimum:"1" maximum:"100"`
	Cursor string `query:"cursor" maxLength:"512"`
}

type listBody struct {
	web.Page[body]
	Summary summary `json:"summary"`
}

func (m *Module) list(ctx context.Context, in *listInput) (*web.Reply[listBody], error) {
	product := ids.ID(in.ID)
	if !ids.Valid(product, "prd") {
		var err error
		if product, err = m.product(ctx, in.ID); err != nil {
			return nil, err
		}
	}
	var before position
	if _, err := m.Cursors.Decode("reviews/"+string(product), in.Cursor, &before); err != nil {
		return nil, err
	}
	rows, err := published(ctx, m.DB, product, before, in.Limit+1)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 && ids.Valid(ids.ID(in.ID), "prd") {
		if _, err := m.product(ctx, in.ID); err != nil { // a product without reviews, or no product at all
			return nil, err
		}
	}
	sums, err := m.Summaries(ctx, reviewsapi.SummariesRequest{Products: []ids.ID{product}})
	if err != nil {
		return nil, err
	}
	out := listBody{Summary: summaryOf(sums.Summaries[0])}
	if int64(len(rows)) > in.Limit {
		rows = rows[:in.Limit]
		last := rows[len(rows)-1]
		out.NextCursor = m.Cursors.Encode("reviews/"+string(product), position{last.CreatedAt, last.ID})
	}
	out.Data = make([]body, len(rows))
	for i, r := range rows {
		out.Data[i] = r.body()
	}
	return &web.Reply[listBody]{Body: out}, nil
}

type postInput struct {
	ID   string `path:"id" maxLength:"200"`
	Body struct {
		Rating int64  `json:"rating" minimum:"1" maximum:"5" example:"5"`
		Title  string `json:"title" minLength:"1" maxLength:"120" example:"Good"`
		Text   string `json:"text" minLength:"1" maxLength:"4000" example:"It does what it says."`
	}
}

func (m *Module) post(ctx context.Context, in *postInput) (*web.Reply[body], error) {
	product, err := m.product(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	rv, err := m.write(ctx, review{
		Product: product, Author: auth.From(ctx).User, Rating: in.Body.Rating, Title: in.Body.Title, Text: in.Body.Text,
	})
	if err != nil {
		return nil, err
	}
	return &web.Reply[body]{Status: 201, Body: rv.body()}, nil
}

type moderationInput struct {
	ID   reviewsapi.ID `path:"id" maxLength:"40"`
	Body struct {
		State string `json:"state" enum:"published,rejected"`
	}
}

func (m *Module) postModeration(ctx context.Context, in *moderationInput) (*web.Reply[body], error) {
	rv, err := m.moderate(ctx, in.ID, in.Body.State)
	if err != nil {
		return nil, err
	}
	return &web.Reply[body]{Body: rv.body()}, nil
}
