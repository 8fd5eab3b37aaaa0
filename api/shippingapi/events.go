package shippingapi

import (
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
)

// ShipmentShipped says that a parcel left the house. Its key is the order.
type ShipmentShipped struct {
	Shipment       ShipmentID `json:"shipment"`
	Order          ids.ID     `json:"order"`
	Customer       ids.ID     `json:"customer"` // "" for a guest
	Carrier        string     `json:"carrier"`
	TrackingNumber string     `json:"tracking_number"`
	Lines          []Line     `json:"lines"`
	ShippedAt      time.Time  `json:"shipped_at"`
}

func (ShipmentShipped) EventName() string  { return "shipping.shipment_shipped.v1" }
func (e ShipmentShipped) EventKey() string { return string(e.Order) }

// ShipmentDelivered says that a parcel arrived. Its key is the order.
type ShipmentDelivered struct {
	Shipment    ShipmentID `json:"shipment"`
	Order       ids.ID     `json:"order"`
	Customer    ids.ID     `json:"customer"`
	Lines       []Line     `json:"lines"`
	DeliveredAt time.Time  `json:"delivered_at"`
}

func (ShipmentDelivered) EventName() string  { return "shipping.shipment_delivered.v1" }
func (e ShipmentDelivered) EventKey() string { return string(e.Order) }
