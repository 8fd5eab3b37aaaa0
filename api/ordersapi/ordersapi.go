// Package ordersapi is what other modules may ask of orders, and what orders tell.
package ordersapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// ID names an order: ord_….
type ID ids.ID

// Orders keeps what was bought.
type Orders interface {
	// Order is an order as its owner sees it. May be repeated. Codes: not_found, also for somebody else's.
	Order(ctx context.Context, r OrderRequest) (Order, error)

	// Recent are a customer's newest orders, without lines and history. May be repeated.
	Recent(ctx context.Context, r RecentRequest) (List, error)

	// Contact tells where to write about an order: the guest's e-mail, or the customer to ask users about. Only for
	// notifications, at the time of sending. May be repeated. Codes: not_found.
	Contact(ctx context.Context, r ContactRequest) (Contact, error)
}

// OrderRequest asks for an order as User, or as the guest who holds Token.
type OrderRequest struct {
	ID    ID     `json:"id"`
	User  ids.ID `json:"user"`
	Token string `json:"token"`
}

// Order is an order with its immutable snapshot of what was bought.
type Order struct {
	ID               ID           `json:"id"`
	Number           string       `json:"number"`
	State            string       `json:"state"` // pending_payment, placed, partially_fulfilled, fulfilled, completed, cancelled, expired
	PaymentStatus    string       `json:"payment_status"`
	FulfilmentStatus string       `json:"fulfilment_status"`
	Customer         ids.ID       `json:"customer"`
	Lines            []Line       `json:"lines"`
	Subtotal         money.Amount `json:"subtotal"`
	Discount         money.Amount `json:"discount"`
	Shipping         money.Amount `json:"shipping"`
	Tax              money.Amount `json:"tax"`
	Total            money.Amount `json:"total"`
	Refunded         money.Amount `json:"refunded"`
	Carrier          string       `json:"carrier"`
	Service          string       `json:"service"`
	ShippingAddress  Address      `json:"shipping_address"`
	Version          int64        `json:"version"`
	History          []Entry      `json:"history"`
	PlacedAt         time.Time    `json:"placed_at"`
	CreatedAt        time.Time    `json:"created_at"`
}

// Address is where an order goes: a copy, whatever becomes of the address book.
type Address struct {
	Name     string `json:"name"`
	Line1    string `json:"line1"`
	Line2    string `json:"line2"`
	City     string `json:"city"`
	Region   string `json:"region"`
	Postcode string `json:"postcode"`
	Country  string `json:"country"`
	Phone    string `json:"phone"`
}

// Line is a line of an order.
type Line struct {
	ID        ids.ID       `json:"id"`
	SKU       string       `json:"sku"`
	Product   ids.ID       `json:"product"`
	Name      string       `json:"name"`
	Quantity  int64        `json:"quantity"`
	Cancelled int64        `json:"cancelled"`
	Shipped   int64        `json:"shipped"`
	UnitPrice money.Amount `json:"unit_price"`
	Discount  money.Amount `json:"discount"`
	TaxRate   money.Rate   `json:"tax_rate"`
	Tax       money.Amount `json:"tax"`
	Total     money.Amount `json:"total"`
}

// Entry is one step in an order's history.
type Entry struct {
	State string    `json:"state"`
	Actor string    `json:"actor"` // customer, guest, system, admin
	Note  string    `json:"note"`
	At    time.Time `json:"at"`
}

// RecentRequest asks for at most Limit orders of User.
type RecentRequest struct {
	User  ids.ID `json:"user"`
	Limit int64  `json:"limit"`
}

// List is orders, newest first.
type List struct {
	Orders []Order `json:"orders"`
}

// ContactRequest asks whom to write to.
type ContactRequest struct {
	ID ID `json:"id"`
}

// Contact is whom to write to about an order: Email for a guest, Customer otherwise.
type Contact struct {
	Customer ids.ID `json:"customer"`
	Email    string `json:"email"`
	Name     string `json:"name"`
	Number   string `json:"number"`
	Token    string `json:"token"` // the guest's signed order token, for the link
}
