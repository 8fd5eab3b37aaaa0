// Package shippingtest holds shipping in memory for the tests of those who call it, and the suite that it passes together with
// the real one. It keeps the rules of the contract, not those of the shop around it: no zones but countries, no carriers.
package shippingtest

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Fake is shipping in memory. It delivers within DE and AT: "standard" for 4.90 and "express" for 9.90 of any currency. Its
// zero value works.
type Fake struct {
	// Fail, if set, is asked before every method, by name such as "Quote"; what it returns is the method's error.
	Fail func(method string) error

	mu         sync.Mutex
	prices     map[string]int64
	lines      map[ids.ID]map[string]*line
	shipments  []shippingapi.Shipment
	operations map[string]operation
}

var _ shippingapi.Shipping = (*Fake)(nil)

type line struct{ quantity, shipped, cancelled int64 }

type operation struct {
	request string
	result  shippingapi.CancelledLines
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.lines == nil {
		f.lines, f.operations = map[ids.ID]map[string]*line{}, map[string]operation{}
	}
	if f.prices == nil {
		f.prices = map[string]int64{"standard": 490, "express": 990}
	}
	if f.Fail != nil && method != "" {
		return f.Fail(method)
	}
	return nil
}

// SetPrice changes what an option costs, in minor units of any currency.
func (f *Fake) SetPrice(option string, minor int64) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.prices[option] = minor
}

// Quote lists the options.
func (f *Fake) Quote(_ context.Context, r shippingapi.QuoteRequest) (shippingapi.Quotes, error) {
	err := f.enter("Quote")
	defer f.mu.Unlock()
	if err != nil {
		return shippingapi.Quotes{}, err
	}
	if r.Country != "DE" && r.Country != "AT" {
		return shippingapi.Quotes{}, errs.Invalidf("no_shipping_zone", "the shop does not deliver there")
	}
	q := shippingapi.Quotes{Options: []shippingapi.Option{}}
	for id, minor := range f.prices {
		q.Options = append(q.Options, shippingapi.Option{ID: id, Carrier: "Fake Post", Service: id, Price: money.Of(minor, r.Subtotal.Currency)})
	}
	slices.SortFunc(q.Options, func(a, b shippingapi.Option) int {
		return cmp.Or(cmp.Compare(a.Price.Minor, b.Price.Minor), cmp.Compare(a.ID, b.ID))
	})
	return q, nil
}

// Place is what hearing of a placed order does: one pending shipment of what was not cancelled before.
func (f *Fake) Place(order, customer ids.ID, lines []shippingapi.Line) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.note(order, lines)
	left := f.left(order)
	if len(left) > 0 {
		f.shipments = append(f.shipments, shippingapi.Shipment{
			ID: ids.New[shippingapi.ShipmentID]("shp"), Order: order, Status: "pending", Carrier: "Fake Post", Service: "standard",
			Lines: left, Events: []shippingapi.TrackingEvent{}, CreatedAt: time.Now().UTC(),
		})
	}
}

// Ship lets an order's pending shipments leave the house.
func (f *Fake) Ship(order ids.ID) {
	_ = f.enter("")
	defer f.mu.Unlock()
	for i := range f.shipments {
		s := &f.shipments[i]
		if s.Order != order || s.Status != "pending" {
			continue
		}
		s.Status = "shipped"
		s.Events = append(s.Events, shippingapi.TrackingEvent{Status: "shipped", OccurredAt: time.Now().UTC()})
		for _, l := range s.Lines {
			f.lines[order][l.SKU].shipped += l.Quantity
		}
	}
}

func (f *Fake) note(order ids.ID, lines []shippingapi.Line) {
	if f.lines[order] != nil {
		return
	}
	f.lines[order] = map[string]*line{}
	for _, l := range lines {
		if f.lines[order][l.SKU] == nil {
			f.lines[order][l.SKU] = &line{}
		}
		f.lines[order][l.SKU].quantity += l.Quantity
	}
}

func (f *Fake) left(order ids.ID) []shippingapi.Line {
	left := []shippingapi.Line{}
	for sku, l := range f.lines[order] {
		if n := l.quantity - l.shipped - l.cancelled; n > 0 {
			left = append(left, shippingapi.Line{SKU: sku, Quantity: n})
		}
	}
	slices.SortFunc(left, func(a, b shippingapi.Line) int { return cmp.Compare(a.SKU, b.SKU) })
	return left
}

// Shipments are the parcels of orders.
func (f *Fake) Shipments(_ context.Context, r shippingapi.ShipmentsRequest) (shippingapi.Shipments, error) {
	err := f.enter("Shipments")
	defer f.mu.Unlock()
	if err != nil {
		return shippingapi.Shipments{}, err
	}
	all := shippingapi.Shipments{Shipments: []shippingapi.Shipment{}}
	for _, s := range f.shipments {
		if slices.Contains(r.Orders, s.Order) {
			s.Lines, s.Events = slices.Clone(s.Lines), slices.Clone(s.Events)
			all.Shipments = append(all.Shipments, s)
		}
	}
	return all, nil
}

// CancelLines takes quantities out of what is to be shipped.
func (f *Fake) CancelLines(_ context.Context, r shippingapi.CancelLinesRequest) (shippingapi.CancelledLines, error) {
	err := f.enter("CancelLines")
	defer f.mu.Unlock()
	if err != nil {
		return shippingapi.CancelledLines{}, err
	}
	request, err := json.Marshal(r)
	if err != nil {
		return shippingapi.CancelledLines{}, err
	}
	if done, ok := f.operations[r.Key]; ok {
		if done.request != string(request) {
			return shippingapi.CancelledLines{}, errs.Conflictf("key_reused", "the key was used before with another request")
		}
		return done.result, nil
	}
	for _, l := range append(slices.Clone(r.Ordered), r.Lines...) {
		if l.SKU == "" || l.Quantity <= 0 {
			return shippingapi.CancelledLines{}, errs.Invalidf("", "a line is a SKU and a positive quantity")
		}
	}
	f.note(r.Order, r.Ordered)
	want := map[string]int64{}
	for _, l := range r.Lines {
		want[l.SKU] += l.Quantity
	}
	for sku, n := range want {
		if l := f.lines[r.Order][sku]; l == nil || l.shipped+l.cancelled+n > l.quantity {
			return shippingapi.CancelledLines{}, errs.Conflictf("already_shipped", "some of this has left the house")
		}
	}
	for sku, n := range want {
		f.lines[r.Order][sku].cancelled += n
	}
	for i := range f.shipments {
		s := &f.shipments[i]
		if s.Order == r.Order && s.Status == "pending" {
			if s.Lines = f.left(r.Order); len(s.Lines) == 0 {
				s.Status = "cancelled"
			}
		}
	}
	result := shippingapi.CancelledLines{Left: f.left(r.Order)}
	f.operations[r.Key] = operation{string(request), result}
	return result, nil
}
