package storefront

import (
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/reviewsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/web"
)

// productPage is GET /v1/storefront/products/{ref}.
type productPage struct {
	ID          catalogapi.ProductID `json:"id"`
	Slug        string               `json:"slug"`
	Name        string               `json:"name"`
	Brand       string               `json:"brand"`
	Description string               `json:"description"`
	Category    string               `json:"category"`
	Images      []catalogapi.Image   `json:"images"`
	Variants    []catalogapi.Variant `json:"variants"`
	Rating      *rating              `json:"rating,omitempty"`
	Reviews     []reviewsapi.Review  `json:"reviews"`
	Shipping    []shippingapi.Option `json:"shipping"`
	Unavailable []string             `json:"unavailable"`
	Stale       []string             `json:"stale,omitempty" doc:"Parts shown as they were a while ago, because whoever knows them does not answer: product, shipping"`
}

// rating is what the reviews add up to.
type rating struct {
	Average   web.Hundredths `json:"average"`
	Count     int64          `json:"count"`
	Histogram []int64        `json:"histogram"` // of 1 to 5 stars
}

func newProductPage(p catalogapi.Product, s reviewsapi.Summaries, recent reviewsapi.List, q shippingapi.Quotes, missing, stale []string) productPage {
	page := productPage{
		ID: p.ID, Slug: p.Slug, Name: p.Name, Brand: p.Brand, Description: p.Description, Category: p.Category,
		Images: list(p.Images), Variants: list(p.Variants), Reviews: list(recent.Reviews), Shipping: list(q.Options), Unavailable: missing,
		Stale: stale,
	}
	if len(s.Summaries) == 1 {
		r := s.Summaries[0]
		page.Rating = &rating{Average: web.Hundredths(r.Average()), Count: r.Count, Histogram: r.Histogram}
	}
	return page
}

// orderPage is GET /v1/storefront/orders/{id}.
type orderPage struct {
	Order       ordersapi.Order        `json:"order"`
	Payments    []payment              `json:"payments"`
	Shipments   []shippingapi.Shipment `json:"shipments"`
	Unavailable []string               `json:"unavailable"`
}

// payment is a payment as the shopper sees it.
type payment struct {
	ID       paymentsapi.ID    `json:"id"`
	State    paymentsapi.State `json:"state"`
	Amount   money.Amount      `json:"amount"`
	Captured money.Amount      `json:"captured"`
	Refunded money.Amount      `json:"refunded"`
}

func newOrderPage(o ordersapi.Order, payments paymentsapi.List, shipments shippingapi.Shipments, missing []string) orderPage {
	page := orderPage{Order: o, Payments: []payment{}, Shipments: list(shipments.Shipments), Unavailable: missing}
	for _, p := range payments.Payments {
		page.Payments = append(page.Payments, payment{p.ID, p.State, p.Amount, p.Captured, p.Refunded})
	}
	return page
}

// cartPage is GET /v1/storefront/carts/{id}.
type cartPage struct {
	Cart        cartapi.View             `json:"cart"`
	Products    []catalogapi.ProductCard `json:"products"`
	Unavailable []string                 `json:"unavailable"`
}

func newCartPage(c cartapi.View, cards catalogapi.Products, missing []string) cartPage {
	return cartPage{Cart: c, Products: list(cards.Products), Unavailable: missing}
}

// accountPage is GET /v1/storefront/account.
type accountPage struct {
	Orders      []accountOrder `json:"orders"`
	Unavailable []string       `json:"unavailable"`
}

// accountOrder is an order in the account's list, with the states of its parcels.
type accountOrder struct {
	ID        ordersapi.ID `json:"id"`
	Number    string       `json:"number"`
	State     string       `json:"state"`
	Total     money.Amount `json:"total"`
	PlacedAt  time.Time    `json:"placed_at"`
	Shipments []string     `json:"shipments"`
}

func newAccountPage(orders ordersapi.List, shipments shippingapi.Shipments, missing []string) accountPage {
	states := map[ids.ID][]string{}
	for _, s := range shipments.Shipments {
		states[s.Order] = append(states[s.Order], s.Status)
	}
	page := accountPage{Orders: []accountOrder{}, Unavailable: missing}
	for _, o := range orders.Orders {
		page.Orders = append(page.Orders, accountOrder{o.ID, o.Number, o.State, o.Total, o.PlacedAt, list(states[ids.ID(o.ID)])})
	}
	return page
}

// list is s, never null in JSON.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
