package ordersapi

import (
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// OrderPlaced says that an order is paid for and stands. Its key is the order. It names no person: whoever writes to the
// shopper asks Contact when sending.
type OrderPlaced struct {
	Order    ID           `json:"order"`
	Number   string       `json:"number"`
	Cart     ids.ID       `json:"cart"`
	Customer ids.ID       `json:"customer"` // "" for a guest
	Lines    []PlacedLine `json:"lines"`
	Carrier  string       `json:"carrier"`
	Service  string       `json:"service"`
	Country  string       `json:"country"`
	Shipping money.Amount `json:"shipping"`
	Tax      money.Amount `json:"tax"`
	Total    money.Amount `json:"total"`
	PlacedAt time.Time    `json:"placed_at"`
}

// PlacedLine is what was bought.
type PlacedLine struct {
	SKU       string       `json:"sku"`
	Product   ids.ID       `json:"product"`
	Name      string       `json:"name"`
	Quantity  int64        `json:"quantity"`
	UnitPrice money.Amount `json:"unit_price"`
	Total     money.Amount `json:"total"`
}

func (OrderPlaced) EventName() string  { return "orders.order_placed.v1" }
func (e OrderPlaced) EventKey() string { return string(e.Order) }

// OrderCancelled says that some or all of an order will not be delivered and is refunded. Its key is the order.
type OrderCancelled struct {
	Order        ID           `json:"order"`
	Number       string       `json:"number"`
	Customer     ids.ID       `json:"customer"`
	Cancellation ids.ID       `json:"cancellation"`
	Lines        []CancelLine `json:"lines"`
	Allocated    bool         `json:"allocated"` // stock had been allocated to the order: give it back
	Restock      bool         `json:"restock"`   // false: the goods are lost, write them off
	Whole        bool         `json:"whole"`
	Reason       string       `json:"reason"`
	Refund       money.Amount `json:"refund"`
	CancelledAt  time.Time    `json:"cancelled_at"`
}

// CancelLine is a number of one SKU.
type CancelLine struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

func (OrderCancelled) EventName() string  { return "orders.order_cancelled.v1" }
func (e OrderCancelled) EventKey() string { return string(e.Order) }

// PaymentDeclined says that a checkout's payment was refused and may be tried again until a time. Its key is the order.
type PaymentDeclined struct {
	Order      ID        `json:"order"`
	Customer   ids.ID    `json:"customer"`
	RetryUntil time.Time `json:"retry_until"`
}

func (PaymentDeclined) EventName() string  { return "orders.payment_declined.v1" }
func (e PaymentDeclined) EventKey() string { return string(e.Order) }
