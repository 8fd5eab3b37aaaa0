// Package shipping says what delivery costs and keeps the parcels of orders, from the day an order is placed until they
// arrive. It decides whether a piece of an order can still be cancelled or has left the house. It does not price goods, and
// keeps neither addresses nor stock.
package shipping

import (
	"context"
	"log/slog"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
)

// Module is shipping.
type Module struct {
	DB      *pg.DB
	Log     *slog.Logger
	Now     func() time.Time
	Secret  auth.Secret
	Carrier Carrier // asked for the rates of live services; nil for none
	Answers *otter.Cache[parcel, answer]
	Config  Config

	table rateTable `wire:"-"`
}

var _ shippingapi.Shipping = (*Module)(nil)

// Config is the block "shipping" of the settings.
type Config struct {
	// Carrier whose rates are asked for: none (the shop's own table decides alone) or simulator. Default none.
	Carrier string `yaml:"carrier" oneof:"none simulator"`
	// CarrierTimeout is how long its answer is waited for before the table's rate stands in. Default 2s.
	CarrierTimeout time.Duration `yaml:"carrier_timeout" min:"1ms"`
	// CarrierCache is how long an answer for the same parcel holds. Default 15m.
	CarrierCache time.Duration `yaml:"carrier_cache" min:"0s"`
	// Refresh is how often the zones and rates are read again: a change is seen after it. Default 30s.
	Refresh time.Duration `yaml:"refresh" min:"0s"`
}

// Defaults are the settings of a shop that says nothing.
func Defaults() Config {
	return Config{Carrier: "none", CarrierTimeout: 2 * time.Second, CarrierCache: 15 * time.Minute, Refresh: 30 * time.Second}
}

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { shippingapi.Mount(s, m) }

// Shipments are the parcels of orders, oldest first.
func (m *Module) Shipments(ctx context.Context, r shippingapi.ShipmentsRequest) (shippingapi.Shipments, error) {
	if err := auth.RequireModule(ctx, "orders", "notifications", "storefront"); err != nil {
		return shippingapi.Shipments{}, err
	}
	orders := make([]string, len(r.Orders))
	for i, id := range r.Orders {
		orders[i] = string(id)
	}
	all, err := loadShipments(ctx, m.DB, orders)
	return shippingapi.Shipments{Shipments: all}, err
}
