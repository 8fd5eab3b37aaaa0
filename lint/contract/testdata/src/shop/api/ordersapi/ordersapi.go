package ordersapi

import (
	"context"
	"time"

	"shop/platform/ids"
	"shop/platform/money"
)

type ID string

type Status string

// Orders is a good contract.
type Orders interface {
	Order(ctx context.Context, r OrderRequest) (Order, error)
	Place(ctx context.Context, r PlaceRequest) (Order, error)
}

type OrderRequest struct {
	ID ID `json:"id"`
}

type PlaceRequest struct {
	Key   string            `json:"key"`
	Lines []Line            `json:"lines"`
	Notes map[string]string `json:"notes,omitempty"`
}

type Line struct {
	Product ids.ID       `json:"product"`
	Price   money.Amount `json:"price"`
	Weight  float64      `json:"weight"`
	Parts   []Line       `json:"parts"`
}

type Stamp struct {
	PlacedAt time.Time     `json:"placed_at"`
	Took     time.Duration `json:"took"`
}

type Order struct {
	Stamp
	ID     ID      `json:"id"`
	Status Status  `json:"status"`
	Lines  []Line  `json:"lines"`
	Photo  []byte  `json:"photo"`
	Point  [2]int8 `json:"point"`
}

func (s Status) Done() bool { return s == "done" }

type OrderPlaced struct {
	Order ID           `json:"order"`
	Total money.Amount `json:"total"`
}

func (OrderPlaced) EventName() string  { return "orders.order_placed.v1" }
func (e OrderPlaced) EventKey() string { return string(e.Order) }
