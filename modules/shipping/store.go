package shipping

import (
	"context"
	"fmt"
	"time"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// loadRates reads the whole table of rates.
func loadRates(ctx context.Context, q pg.Queryer) (*rates, error) {
	var places []place
	err := q.Select(ctx, &places, `SELECT country, region, postcode_from, postcode_to, zone_id FROM shipping.zone_places`)
	if err != nil {
		return nil, err
	}
	var services []service
	err = q.Select(ctx, &services, `SELECT id, zone_id, carrier, service, basis, live FROM shipping.services ORDER BY id`)
	if err != nil {
		return nil, err
	}
	var bands []band
	err = q.Select(ctx, &bands, `SELECT service_id, currency, from_value, to_value, price FROM shipping.bands ORDER BY service_id, currency, from_value`)
	if err != nil {
		return nil, err
	}
	var free []struct {
		Service  string `db:"service_id"`
		Currency string `db:"currency"`
		Subtotal int64  `db:"subtotal"`
	}
	err = q.Select(ctx, &free, `SELECT service_id, currency, subtotal FROM shipping.free_above`)
	if err != nil {
		return nil, err
	}
	t := &rates{map[string][]place{}, map[string][]service{}}
	for _, p := range places {
		t.places[p.Country] = append(t.places[p.Country], p)
	}
	for _, s := range services {
		s.bands, s.free = map[string][]band{}, map[string]int64{}
		for _, b := range bands {
			if b.Service == s.ID {
				s.bands[b.Currency] = append(s.bands[b.Currency], b)
			}
		}
		for _, f := range free {
			if f.Service == s.ID {
				s.free[f.Currency] = f.Subtotal
			}
		}
		t.services[s.Zone] = append(t.services[s.Zone], s)
	}
	return t, nil
}

// order is the row under whose lock everything of an order changes.
type order struct {
	ID       ids.ID `db:"order_id"`
	Number   string `db:"number"`
	Customer ids.ID `db:"customer_id"`
	Carrier  string `db:"carrier"`
	Service  string `db:"service"`
	Placed   bool   `db:"placed"`
}

// lockOrder locks an order. It finds nothing (pg.NoRows) before anything was heard of it.
func lockOrder(ctx context.Context, tx *pg.Tx, id ids.ID) (order, error) {
	var o order
	err := tx.Get(ctx, &o, `
		SELECT order_id, number, customer_id, carrier, service, placed_at IS NOT NULL AS placed
		FROM shipping.orders
		WHERE order_id = $1
		FOR UPDATE`, id)
	return o, err
}

// noteOrder makes sure an order is there, and locks it.
func noteOrder(ctx context.Context, tx *pg.Tx, id ids.ID) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO shipping.orders AS o (order_id) VALUES ($1)
		ON CONFLICT (order_id) DO UPDATE SET order_id = o.order_id`, id)
	return err
}

// placeOrder records what OrderPlaced tells, and locks the order. It says false if that was recorded before.
func placeOrder(ctx context.Context, tx *pg.Tx, o order, at time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `
		INSERT INTO shipping.orders AS o (order_id, number, customer_id, carrier, service, placed_at)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (order_id) DO UPDATE
		SET number = excluded.number, customer_id = excluded.customer_id, carrier = excluded.carrier, service = excluded.service,
		    placed_at = excluded.placed_at
		WHERE o.placed_at IS NULL`, o.ID, o.Number, o.Customer, o.Carrier, o.Service, at)
	return n > 0, err
}

// noteLines records what was ordered; what is recorded already stays.
func noteLines(ctx context.Context, tx *pg.Tx, id ids.ID, ordered content) error {
	skus, quantities := ordered.arrays()
	_, err := tx.Exec(ctx, `
		INSERT INTO shipping.order_lines (order_id, sku, quantity)
		SELECT $1, n.sku, n.quantity FROM unnest($2::text[], $3::bigint[]) AS n (sku, quantity)
		ON CONFLICT (order_id, sku) DO NOTHING`, id, skus, quantities)
	return err
}

// cancelLines takes quantities out of what is to be shipped, and says false, having perhaps taken some, when something has
// left the house or was never ordered.
func cancelLines(ctx context.Context, tx *pg.Tx, id ids.ID, c content) (bool, error) {
	skus, quantities := c.arrays()
	n, err := tx.Exec(ctx, `
		UPDATE shipping.order_lines l SET cancelled = l.cancelled + n.quantity
		FROM unnest($2::text[], $3::bigint[]) AS n (sku, quantity)
		WHERE l.order_id = $1 AND l.sku = n.sku AND l.shipped + l.cancelled + n.quantity <= l.quantity`, id, skus, quantities)
	return n == int64(len(c)), err
}

// shipLines notes that quantities have left the house.
func shipLines(ctx context.Context, tx *pg.Tx, id ids.ID, c content) error {
	skus, quantities := c.arrays()
	_, err := tx.Exec(ctx, `
		UPDATE shipping.order_lines l SET shipped = l.shipped + n.quantity
		FROM unnest($2::text[], $3::bigint[]) AS n (sku, quantity)
		WHERE l.order_id = $1 AND l.sku = n.sku`, id, skus, quantities)
	return err
}

// leftToShip is what is neither shipped nor cancelled.
func leftToShip(ctx context.Context, q pg.Queryer, id ids.ID) (content, error) {
	var rows []shippingapi.Line
	err := q.Select(ctx, &rows, `
		SELECT sku, quantity - shipped - cancelled AS quantity
		FROM shipping.order_lines
		WHERE order_id = $1 AND quantity > shipped + cancelled`, id)
	if err != nil {
		return nil, err
	}
	return contentOf(rows)
}

// waiting is a shipment that has not left, with what it holds.
type waiting struct {
	shipment
	content content
}

// loadWaiting reads the shipments of a locked order that have not left, the collecting one first.
func loadWaiting(ctx context.Context, q pg.Queryer, id ids.ID) ([]waiting, error) {
	var rows []struct {
		shipment
		SKU      string `db:"sku"`
		Quantity int64  `db:"quantity"`
	}
	err := q.Select(ctx, &rows, `
		SELECT s.id, s.collecting, s.status, s.left_house, s.arrived, l.sku, l.quantity
		FROM shipping.shipments s
		JOIN shipping.shipment_lines l ON l.shipment_id = s.id
		WHERE s.order_id = $1 AND s.status = 'pending'
		ORDER BY s.collecting DESC, s.created_at, s.id, l.sku`, id)
	if err != nil {
		return nil, err
	}
	var all []waiting
	for _, r := range rows {
		if len(all) == 0 || all[len(all)-1].ID != r.ID {
			all = append(all, waiting{r.shipment, content{}})
		}
		all[len(all)-1].content[r.SKU] = r.Quantity
	}
	return all, nil
}

func insertShipment(ctx context.Context, tx *pg.Tx, o order, s shipment, c content, now time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO shipping.shipments (id, order_id, collecting, status, carrier, service, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, s.ID, o.ID, s.Collecting, s.Status, o.Carrier, o.Service, now)
	if err != nil {
		return err
	}
	return setContent(ctx, tx, s.ID, c)
}

// setContent makes a shipment hold exactly c.
func setContent(ctx context.Context, tx *pg.Tx, id shippingapi.ShipmentID, c content) error {
	skus, quantities := c.arrays()
	_, err := tx.Exec(ctx, `
		DELETE FROM shipping.shipment_lines WHERE shipment_id = $1 AND sku <> ALL ($2::text[])`, id, skus)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `
		INSERT INTO shipping.shipment_lines (shipment_id, sku, quantity)
		SELECT $1, n.sku, n.quantity FROM unnest($2::text[], $3::bigint[]) AS n (sku, quantity)
		ON CONFLICT (shipment_id, sku) DO UPDATE SET quantity = excluded.quantity`, id, skus, quantities)
	return err
}

func updateShipment(ctx context.Context, tx *pg.Tx, s shipment) error {
	_, err := tx.Exec(ctx, `
		UPDATE shipping.shipments SET collecting = $2, status = $3, left_house = $4, arrived = $5
		WHERE id = $1`, s.ID, s.Collecting, s.Status, s.LeftHouse, s.Arrived)
	return err
}

func loadShipment(ctx context.Context, q pg.Queryer, id shippingapi.ShipmentID) (shipment, error) {
	var s shipment
	err := q.Get(ctx, &s, `SELECT id, collecting, status, left_house, arrived FROM shipping.shipments WHERE id = $1`, id)
	return s, err
}

// orderOf is the order of a shipment. It finds nothing (pg.NoRows) when there is no such shipment.
func orderOf(ctx context.Context, q pg.Queryer, id shippingapi.ShipmentID) (ids.ID, error) {
	var order ids.ID
	err := q.Get(ctx, &order, `SELECT order_id FROM shipping.shipments WHERE id = $1`, id)
	return order, err
}

// insertEvent appends to a parcel's history, and says false for what is in it already.
func insertEvent(ctx context.Context, tx *pg.Tx, id shippingapi.ShipmentID, e shippingapi.TrackingEvent, number string, now time.Time) (bool, error) {
	n, err := tx.Exec(ctx, `
		INSERT INTO shipping.tracking_events (shipment_id, status, occurred_at, message, tracking_number, recorded_at)
		VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (shipment_id, occurred_at, status, message) DO NOTHING`, id, e.Status, e.OccurredAt, e.Message, number, now)
	return n > 0, err
}

// noteTracking keeps the number that the latest event told, whatever order events come in.
func noteTracking(ctx context.Context, tx *pg.Tx, id shippingapi.ShipmentID, number string, at time.Time) error {
	_, err := tx.Exec(ctx, `
		UPDATE shipping.shipments SET tracking_number = $2, tracking_at = $3
		WHERE id = $1 AND (tracking_at IS NULL OR (tracking_at, tracking_number) < ($3, $2))`, id, number, at)
	return err
}

// known says whether there is such an order, as far as shipping has heard.
func known(ctx context.Context, q pg.Queryer, id ids.ID) (bool, error) {
	var found bool
	err := q.Get(ctx, &found, `SELECT EXISTS (SELECT FROM shipping.orders WHERE order_id = $1)`, id)
	return found, err
}

// visible says whether the order belongs to the customer.
func visible(ctx context.Context, q pg.Queryer, id ids.ID, customer ids.ID) (bool, error) {
	var found bool
	err := q.Get(ctx, &found, `
		SELECT EXISTS (SELECT FROM shipping.orders WHERE order_id = $1 AND customer_id = $2 AND customer_id <> '')`, id, customer)
	return found, err
}

// loadShipments reads parcels with their lines and events: three queries however many orders.
func loadShipments(ctx context.Context, q pg.Queryer, orders []string) ([]shippingapi.Shipment, error) {
	var rows []struct {
		ID             shippingapi.ShipmentID `db:"id"`
		Order          ids.ID                 `db:"order_id"`
		Status         string                 `db:"status"`
		Carrier        string                 `db:"carrier"`
		Service        string                 `db:"service"`
		TrackingNumber string                 `db:"tracking_number"`
		CreatedAt      time.Time              `db:"created_at"`
	}
	err := q.Select(ctx, &rows, `
		SELECT id, order_id, status, carrier, service, tracking_number, created_at
		FROM shipping.shipments
		WHERE order_id = ANY ($1)
		ORDER BY created_at, id`, pg.Array(orders))
	if err != nil {
		return nil, fmt.Errorf("load shipments: %w", err)
	}
	all := make([]shippingapi.Shipment, len(rows))
	at, names := map[shippingapi.ShipmentID]*shippingapi.Shipment{}, make([]string, len(rows))
	for i, r := range rows {
		all[i] = shippingapi.Shipment{
			ID: r.ID, Order: r.Order, Status: r.Status, Carrier: r.Carrier, Service: r.Service, TrackingNumber: r.TrackingNumber,
			Lines: []shippingapi.Line{}, Events: []shippingapi.TrackingEvent{}, CreatedAt: r.CreatedAt.UTC(),
		}
		at[r.ID], names[i] = &all[i], string(r.ID)
	}
	if len(all) == 0 {
		return all, nil
	}
	var lines []struct {
		Shipment shippingapi.ShipmentID `db:"shipment_id"`
		SKU      string                 `db:"sku"`
		Quantity int64                  `db:"quantity"`
	}
	err = q.Select(ctx, &lines, `
		SELECT shipment_id, sku, quantity FROM shipping.shipment_lines
		WHERE shipment_id = ANY ($1) ORDER BY shipment_id, sku`, pg.Array(names))
	if err != nil {
		return nil, fmt.Errorf("load shipment lines: %w", err)
	}
	for _, l := range lines {
		at[l.Shipment].Lines = append(at[l.Shipment].Lines, shippingapi.Line{SKU: l.SKU, Quantity: l.Quantity})
	}
	var events []struct {
		Shipment   shippingapi.ShipmentID `db:"shipment_id"`
		Status     string                 `db:"status"`
		Message    string                 `db:"message"`
		OccurredAt time.Time              `db:"occurred_at"`
	}
	err = q.Select(ctx, &events, `
		SELECT shipment_id, status, message, occurred_at FROM shipping.tracking_events
		WHERE shipment_id = ANY ($1) ORDER BY shipment_id, occurred_at, status, message`, pg.Array(names))
	if err != nil {
		return nil, fmt.Errorf("load tracking events: %w", err)
	}
	for _, e := range events {
		at[e.Shipment].Events = append(at[e.Shipment].Events, shippingapi.TrackingEvent{Status: e.Status, Message: e.Message, OccurredAt: e.OccurredAt.UTC()})
	}
	return all, nil
}

// arrays is the content as parameters of a statement, in order of SKU so that rows are locked in one order.
func (c content) arrays() (skus, quantities any) {
	lines := c.lines()
	s, n := make([]string, len(lines)), make([]int64, len(lines))
	for i, l := range lines {
		s[i], n[i] = l.SKU, l.Quantity
	}
	return pg.Array(s), pg.Array(n)
}
