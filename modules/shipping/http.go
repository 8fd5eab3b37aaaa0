package shipping

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

const write = "shipments:write"

// Routes declares shipping's public face.
func (m *Module) Routes(r *web.Router) {
	for _, p := range [...][3]string{
		{"no_shipping_zone", "The shop does not deliver there", "No way to deliver is offered to this country or postcode."},
		{"already_shipped", "It has left the house", "Some of what was named is on its way, cancelled already, or was not ordered."},
		{"nothing_to_ship", "There is nothing left to put into a parcel", "What was asked for is in a parcel already, cancelled, or was not ordered."},
		{"shipment_cancelled", "The shipment is cancelled", "All that it held was cancelled before it left."},
		{"unknown_status", "There is no such status", "A parcel becomes shipped, in_transit, out_for_delivery, delivered or returned."},
	} {
		r.Problem(p[0], p[1], p[2])
	}
	r.Tag("shipping", "Parcels and where they are.")
	web.Get(r, "/v1/orders/{id}/shipments", web.Public,
		web.Route{ID: "listOrderShipments", Summary: "Parcels of an order", Tag: "shipping"}, m.listShipments)
	web.Post(r, "/v1/admin/orders/{id}/shipments", web.Scope(write),
		web.Route{ID: "createShipment", Summary: "Put lines of an order into a parcel of their own", Tag: "shipping", Status: 201, Idempotency: web.KeyRequired, KeyTTL: 7 * 24 * time.Hour}, m.createShipment)
	web.Post(r, "/v1/admin/shipments/{id}/events", web.Scope(write),
		web.Route{ID: "addShipmentEvent", Summary: "Tell what happened to a parcel", Tag: "shipping", Status: 201, Idempotency: web.Keyed}, m.addEvent)
}

type listInput struct {
	ID    string `path:"id" maxLength:"40" doc:"The order's id"`
	Token string `header:"X-Order-Token" maxLength:"500" doc:"The token of a guest's order"`
}

// listShipments shows parcels to the customer, to whoever works in the warehouse, and to the guest who holds the order's
// token, which is checked here: it needs no question to orders.
func (m *Module) listShipments(ctx context.Context, in *listInput) (*web.Reply[web.Page[shippingapi.Shipment]], error) {
	id, caller := ids.ID(in.ID), auth.From(ctx)
	allowed := caller.Has(write)
	if !allowed && in.Token != "" {
		order, ok := ordersapi.OpenOrderToken(m.Secret, in.Token, m.Now())
		allowed = ok && ids.ID(order) == id
	}
	var err error
	switch {
	case allowed && caller.Has(write):
		if allowed, err = known(ctx, m.DB, id); err != nil {
			return nil, err
		}
	case !allowed && caller.SignedIn():
		if allowed, err = visible(ctx, m.DB, id, caller.User); err != nil {
			return nil, err
		}
	}
	if !allowed {
		return nil, errs.NotFoundf("no such order")
	}
	all, err := loadShipments(ctx, m.DB, []string{in.ID})
	if err != nil {
		return nil, err
	}
	return &web.Reply[web.Page[shippingapi.Shipment]]{Body: web.Page[shippingapi.Shipment]{Data: all}}, nil
}

type shipmentReply = web.Reply[shippingapi.Shipment]

type createInput struct {
	ID   string `path:"id" maxLength:"40" doc:"The order's id"`
	Body struct {
		Lines []shippingapi.Line `json:"lines,omitempty" maxItems:"100" doc:"What goes into the parcel; all that is left if absent"`
	}
}

func (m *Module) createShipment(ctx context.Context, in *createInput) (*shipmentReply, error) {
	return m.change(ctx, func(tx *pg.Tx) (shippingapi.ShipmentID, ids.ID, error) {
		id, err := m.split(ctx, tx, ids.ID(in.ID), in.Body.Lines)
		return id, ids.ID(in.ID), err
	})
}

type eventInput struct {
	ID   string `path:"id" maxLength:"40" doc:"The shipment's id"`
	Body struct {
		Status         string    `json:"status" maxLength:"30" doc:"shipped, in_transit, out_for_delivery, delivered or returned"`
		Message        string    `json:"message,omitempty" maxLength:"500"`
		TrackingNumber string    `json:"tracking_number,omitempty" maxLength:"100"`
		OccurredAt     time.Time `json:"occurred_at,omitempty" doc:"Now if absent"`
	}
}

func (m *Module) addEvent(ctx context.Context, in *eventInput) (*shipmentReply, error) {
	e := trackingEvent{shippingapi.TrackingEvent{Status: in.Body.Status, Message: in.Body.Message, OccurredAt: in.Body.OccurredAt}, in.Body.TrackingNumber}
	if e.OccurredAt.IsZero() {
		e.OccurredAt = m.Now()
	}
	// PostgreSQL keeps microseconds; the same event told again must find itself.
	e.OccurredAt = e.OccurredAt.UTC().Truncate(time.Microsecond)
	id := shippingapi.ShipmentID(in.ID)
	return m.change(ctx, func(tx *pg.Tx) (shippingapi.ShipmentID, ids.ID, error) {
		order, err := m.track(ctx, tx, id, e)
		return id, order, err
	})
}

// change runs a change of one shipment and answers with it as it is then.
func (m *Module) change(ctx context.Context, do func(*pg.Tx) (shippingapi.ShipmentID, ids.ID, error)) (*shipmentReply, error) {
	var answer shippingapi.Shipment
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		id, order, err := do(tx)
		if err != nil {
			return err
		}
		all, err := loadShipments(ctx, tx, []string{string(order)})
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.ID == id {
				answer = s
			}
		}
		return web.SaveReply(ctx, tx, 201, "", answer)
	})
	if err != nil {
		return nil, err
	}
	return &shipmentReply{Status: 201, Body: answer}, nil
}
