// Package shippingapi is what other modules may ask of shipping: what delivery costs, and where the parcels are.
package shippingapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// ShipmentID names a parcel: shp_….
type ShipmentID ids.ID

// Shipping quotes delivery and keeps the parcels of orders.
type Shipping interface {
	// Quote lists the ways to deliver, cheapest first. Option ids are stable for the same destination and basket. May be
	// repeated. As an estimate it may be up to fifteen minutes old (rpc.AllowStale), in a price never. Codes: no_shipping_zone
	// (invalid) when nobody delivers there.
	Quote(ctx context.Context, r QuoteRequest) (Quotes, error)

	// Shipments are the parcels of orders, oldest first. May be repeated.
	Shipments(ctx context.Context, r ShipmentsRequest) (Shipments, error)

	// CancelLines takes quantities of an order out of what is to be shipped: all or none. It decides between cancelling and
	// shipping. Repeat it with the same Key. Codes: already_shipped (conflict).
	CancelLines(ctx context.Context, r CancelLinesRequest) (CancelledLines, error)
}

// QuoteRequest describes a destination and a basket.
type QuoteRequest struct {
	Country     string       `json:"country"` // ISO 3166 alpha-2
	Region      string       `json:"region"`
	Postcode    string       `json:"postcode"`
	Subtotal    money.Amount `json:"subtotal"` // goods after discount, in the currency the answer is in
	WeightGrams int64        `json:"weight_grams"`
	Items       int64        `json:"items"`
}

// Quotes are the ways to deliver.
type Quotes struct {
	Options []Option `json:"options"`
}

// Option is one way to deliver.
type Option struct {
	ID        string       `json:"id"`
	Carrier   string       `json:"carrier"`
	Service   string       `json:"service"`
	Price     money.Amount `json:"price"`     // as the shop shows prices: tax included where they are
	Estimated bool         `json:"estimated"` // the carrier did not answer, this is the table's rate
}

// ShipmentsRequest asks for the parcels of orders.
type ShipmentsRequest struct {
	Orders []ids.ID `json:"orders"`
}

// Shipments are parcels.
type Shipments struct {
	Shipments []Shipment `json:"shipments"`
}

// Shipment is one parcel.
type Shipment struct {
	ID             ShipmentID      `json:"id"`
	Order          ids.ID          `json:"order"`
	Status         string          `json:"status"` // pending, shipped, in_transit, out_for_delivery, delivered, returned, cancelled
	Carrier        string          `json:"carrier"`
	Service        string          `json:"service"`
	TrackingNumber string          `json:"tracking_number"`
	Lines          []Line          `json:"lines"`
	Events         []TrackingEvent `json:"events"`
	CreatedAt      time.Time       `json:"created_at"`
}

// Line is a number of one SKU.
type Line struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// TrackingEvent is one thing that happened to a parcel.
type TrackingEvent struct {
	Status     string    `json:"status"`
	Message    string    `json:"message"`
	OccurredAt time.Time `json:"occurred_at"`
}

// CancelLinesRequest takes Lines of Order out. Ordered is the whole order, so that the request may come before the order's
// own event.
type CancelLinesRequest struct {
	Key     string `json:"key"`
	Order   ids.ID `json:"order"`
	Ordered []Line `json:"ordered"`
	Lines   []Line `json:"lines"`
}

// CancelledLines says what is left to ship.
type CancelledLines struct {
	Left []Line `json:"left"`
}
