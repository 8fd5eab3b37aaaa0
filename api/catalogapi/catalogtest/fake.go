// Package catalogtest holds a catalog in memory for the tests of those who call it, and the suite that it passes together
// with the real one. It keeps the rules of the contract, not those of the shop around it: no sales, no search, no pictures'
// bytes.
package catalogtest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// Fake is a catalog in memory. Its zero value is empty and works.
type Fake struct {
	Clock func() time.Time // nil is time.Now

	// Fail, if set, is asked before every method, by name such as "Reserve"; what it returns is the method's error.
	Fail func(method string) error

	mu           sync.Mutex
	products     map[catalogapi.ProductID]*product
	external     map[string]catalogapi.ProductID
	levels       map[string]*level
	reservations map[ids.ID]catalogapi.Reservation
	allocations  map[ids.ID][]catalogapi.Quantity
	operations   map[string]operation
}

var _ catalogapi.Catalog = (*Fake)(nil)

type product struct {
	catalogapi.Product
	taxClass string
	archived bool
	row      map[string]catalogapi.ImportRow // by SKU, as last imported
}

type level struct{ onHand, reserved int64 }

type operation struct {
	request string
	result  json.RawMessage
}

// NewFake is an empty catalog.
func NewFake() *Fake { return &Fake{} }

func (f *Fake) now() time.Time {
	if f.Clock == nil {
		return time.Now()
	}
	return f.Clock()
}

func (f *Fake) enter(method string) error {
	f.mu.Lock()
	if f.products == nil {
		f.products = map[catalogapi.ProductID]*product{}
		f.external = map[string]catalogapi.ProductID{}
		f.levels = map[string]*level{}
		f.reservations = map[ids.ID]catalogapi.Reservation{}
		f.allocations = map[ids.ID][]catalogapi.Quantity{}
		f.operations = map[string]operation{}
	}
	if f.Fail != nil && method != "" {
		return f.Fail(method)
	}
	return nil
}

// Add puts a product with one variant on sale and returns its id.
func (f *Fake) Add(sku, name string, price money.Amount, stock int64) catalogapi.ProductID {
	id := ids.Derived[catalogapi.ProductID]("prd", "fake", sku)
	f.Put(catalogapi.Product{
		ID: id, Slug: strings.ToLower(sku), Name: name, Version: 1,
		Variants: []catalogapi.Variant{{SKU: sku, Price: price, ListPrice: price, Available: stock, WeightGrams: 500}},
	}, "standard")
	return id
}

// Put puts a product on sale, or replaces it. What its variants have available is what is on hand.
func (f *Fake) Put(p catalogapi.Product, taxClass string) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.products[p.ID] = &product{Product: p, taxClass: taxClass, row: map[string]catalogapi.ImportRow{}}
	for _, v := range p.Variants {
		f.levels[v.SKU] = &level{onHand: v.Available}
	}
}

// SetPrice changes what a SKU costs.
func (f *Fake) SetPrice(sku string, price money.Amount) {
	_ = f.enter("")
	defer f.mu.Unlock()
	_, v := f.variant(sku)
	v.Price, v.ListPrice = price, price
}

// SetStock changes how many of a SKU are on hand.
func (f *Fake) SetStock(sku string, onHand int64) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.levels[sku].onHand = onHand
}

// Archive takes a product off sale.
func (f *Fake) Archive(id catalogapi.ProductID) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.products[id].archived = true
}

// Stock tells how many of a SKU are on hand and how many of these are promised.
func (f *Fake) Stock(sku string) (onHand, reserved int64) {
	_ = f.enter("")
	defer f.mu.Unlock()
	f.lapse()
	l := f.levels[sku]
	return l.onHand, l.reserved
}

// Allocated is what belongs to an order.
func (f *Fake) Allocated(order ids.ID) []catalogapi.Quantity {
	_ = f.enter("")
	defer f.mu.Unlock()
	return slices.Clone(f.allocations[order])
}

func (f *Fake) variant(sku string) (*product, *catalogapi.Variant) {
	for _, p := range f.products {
		for i := range p.Variants {
			if p.Variants[i].SKU == sku {
				return p, &p.Variants[i]
			}
		}
	}
	return nil, nil
}

func (f *Fake) available(sku string) int64 {
	if l := f.levels[sku]; l != nil {
		return l.onHand - l.reserved
	}
	return 0
}

// Offers: see catalogapi.
func (f *Fake) Offers(_ context.Context, r catalogapi.OffersRequest) (catalogapi.Offers, error) {
	defer f.mu.Unlock()
	if err := f.enter("Offers"); err != nil {
		return catalogapi.Offers{}, err
	}
	f.lapse()
	out := catalogapi.Offers{Offers: []catalogapi.Offer{}}
	for _, sku := range distinct(r.SKUs) {
		p, v := f.variant(sku)
		if v == nil || p.archived || v.Price.Currency != r.Currency {
			continue
		}
		o := catalogapi.Offer{
			SKU: sku, Product: p.ID, Name: p.Name, Price: v.Price, TaxClass: p.taxClass,
			WeightGrams: v.WeightGrams, Available: f.available(sku), Image: p.image(),
		}
		if v.Name != "" {
			o.Name += ", " + v.Name
		}
		out.Offers = append(out.Offers, o)
	}
	return out, nil
}

// Products: see catalogapi.
func (f *Fake) Products(_ context.Context, r catalogapi.ProductsRequest) (catalogapi.Products, error) {
	defer f.mu.Unlock()
	if err := f.enter("Products"); err != nil {
		return catalogapi.Products{}, err
	}
	out := catalogapi.Products{Products: []catalogapi.ProductCard{}}
	for _, id := range distinct(r.IDs) {
		if p := f.products[id]; p != nil && !p.archived {
			c := catalogapi.ProductCard{ID: id, Slug: p.Slug, Name: p.Name, Brand: p.Brand, Image: p.image(), Rating: p.Rating}
			for i, v := range p.Variants {
				if i == 0 || v.Price.Minor < c.Price.Minor {
					c.Price = v.Price
				}
			}
			out.Products = append(out.Products, c)
		}
	}
	return out, nil
}

// Product: see catalogapi.
func (f *Fake) Product(_ context.Context, r catalogapi.ProductRequest) (catalogapi.Product, error) {
	defer f.mu.Unlock()
	if err := f.enter("Product"); err != nil {
		return catalogapi.Product{}, err
	}
	f.lapse()
	for _, p := range f.products {
		if (string(p.ID) == r.Ref || p.Slug == r.Ref) && !p.archived {
			out := p.Product
			out.Variants = slices.Clone(p.Variants)
			for i, v := range out.Variants {
				out.Variants[i].Available = f.available(v.SKU)
			}
			return out, nil
		}
	}
	return catalogapi.Product{}, errs.NotFoundf("there is no such product")
}

// Reserve: see catalogapi.
func (f *Fake) Reserve(_ context.Context, r catalogapi.ReserveRequest) (catalogapi.Reservation, error) {
	defer f.mu.Unlock()
	if err := f.enter("Reserve"); err != nil {
		return catalogapi.Reservation{}, err
	}
	f.lapse()
	return once(f, r.Key, "Reserve", r, func() (none catalogapi.Reservation, err error) {
		lines, err := sum(r.Lines)
		if err != nil {
			return none, err
		}
		if !r.Until.After(f.now()) {
			return none, errs.Invalidf("already_over", "a reservation must end in the future")
		}
		f.release(r.Checkout)
		if err := f.take(lines, nil); err != nil {
			return none, err
		}
		held := catalogapi.Reservation{Checkout: r.Checkout, Lines: lines, Until: r.Until}
		f.reservations[r.Checkout] = held
		return held, nil
	})
}

// Extend: see catalogapi.
func (f *Fake) Extend(_ context.Context, r catalogapi.ExtendRequest) (catalogapi.Reservation, error) {
	defer f.mu.Unlock()
	if err := f.enter("Extend"); err != nil {
		return catalogapi.Reservation{}, err
	}
	f.lapse()
	held, ok := f.reservations[r.Checkout]
	if !ok {
		return held, errs.NotFoundf("no stock is reserved for checkout %s", r.Checkout)
	}
	if r.Until.After(held.Until) {
		held.Until = r.Until
	}
	f.reservations[r.Checkout] = held
	return held, nil
}

// Release: see catalogapi.
func (f *Fake) Release(_ context.Context, r catalogapi.ReleaseRequest) (catalogapi.Released, error) {
	defer f.mu.Unlock()
	if err := f.enter("Release"); err != nil {
		return catalogapi.Released{}, err
	}
	f.lapse()
	return catalogapi.Released{Released: f.release(r.Checkout)}, nil
}

// Allocate: see catalogapi.
func (f *Fake) Allocate(_ context.Context, r catalogapi.AllocateRequest) (catalogapi.Allocation, error) {
	defer f.mu.Unlock()
	if err := f.enter("Allocate"); err != nil {
		return catalogapi.Allocation{}, err
	}
	f.lapse()
	return once(f, r.Key, "Allocate", r, func() (none catalogapi.Allocation, err error) {
		lines, err := sum(r.Lines)
		if err != nil {
			return none, err
		}
		if _, ok := f.allocations[r.Order]; ok {
			return none, errs.Conflictf("already_allocated", "stock is allocated to order %s already", r.Order)
		}
		if err := f.take(lines, f.reservations[r.Checkout].Lines); err != nil {
			return none, err
		}
		delete(f.reservations, r.Checkout)
		f.allocations[r.Order] = lines
		return catalogapi.Allocation{Order: r.Order, Lines: lines}, nil
	})
}

// Import: see catalogapi.
func (f *Fake) Import(_ context.Context, r catalogapi.ImportRequest) (catalogapi.ImportResult, error) {
	defer f.mu.Unlock()
	if err := f.enter("Import"); err != nil {
		return catalogapi.ImportResult{}, err
	}
	out := catalogapi.ImportResult{Errors: []catalogapi.RowError{}}
	if len(r.Rows) > catalogapi.MaxImportRows {
		return out, errs.Invalidf("too_many_rows", "a batch has at most %d rows", catalogapi.MaxImportRows)
	}
	for _, row := range r.Rows {
		if row.SKU == "" {
			row.SKU = row.ExternalID
		}
		if e := row.Problem(); e != (catalogapi.RowError{}) {
			out.Errors = append(out.Errors, e)
			continue
		}
		id, known := f.external[row.ExternalID]
		if p, v := f.variant(row.SKU); v != nil && (!known || p.ID != id) {
			out.Errors = append(out.Errors, catalogapi.RowError{Line: row.Line, Column: "sku", Code: "taken",
				Message: "the SKU belongs to another product"})
			continue
		}
		plain := row
		plain.Line = 0
		switch same := known && fmt.Sprint(f.products[id].row[row.SKU]) == fmt.Sprint(plain); {
		case same:
			out.Unchanged++
			continue
		case known:
			out.Updated++
		default:
			out.Created++
		}
		if r.DryRun {
			continue
		}
		f.store(plain)
	}
	return out, nil
}

func (f *Fake) store(row catalogapi.ImportRow) {
	id, known := f.external[row.ExternalID]
	if !known {
		id = ids.New[catalogapi.ProductID]("prd")
		f.external[row.ExternalID] = id
		f.products[id] = &product{taxClass: "standard", row: map[string]catalogapi.ImportRow{},
			Product: catalogapi.Product{ID: id, Slug: strings.ToLower(row.ExternalID)}}
	}
	p := f.products[id]
	p.Name, p.Brand, p.Category, p.Description, p.Version = row.Name, row.Brand, strings.ToLower(row.Category), row.Description, p.Version+1
	p.row[row.SKU] = row
	_, v := f.variant(row.SKU)
	if v == nil {
		p.Variants = append(p.Variants, catalogapi.Variant{SKU: row.SKU})
		v = &p.Variants[len(p.Variants)-1]
		f.levels[row.SKU] = &level{}
	}
	v.Price, v.ListPrice, v.WeightGrams = row.Price, row.Price, row.WeightGrams
	f.levels[row.SKU].onHand = row.Stock
}

func (p *product) image() string {
	if len(p.Images) == 0 {
		return ""
	}
	return p.Images[0].URL
}

// take promises lines beyond what is held already, all or none.
func (f *Fake) take(lines, held []catalogapi.Quantity) error {
	need := map[string]int64{}
	for _, l := range lines {
		need[l.SKU] += l.Quantity
	}
	for _, l := range held {
		need[l.SKU] -= l.Quantity
	}
	var short catalogapi.Shortages
	for _, l := range lines {
		if n := need[l.SKU]; n > f.available(l.SKU) {
			short.Lines = append(short.Lines, catalogapi.Shortage{
				SKU: l.SKU, Requested: l.Quantity, Available: f.available(l.SKU) + l.Quantity - n,
			})
		}
	}
	if len(short.Lines) > 0 {
		return errs.Conflictf("insufficient_stock", "there is not enough in stock").WithDetails(short)
	}
	for sku, n := range need {
		f.levels[sku].reserved += n
	}
	return nil
}

func (f *Fake) release(checkout ids.ID) bool {
	held, ok := f.reservations[checkout]
	for _, l := range held.Lines {
		f.levels[l.SKU].reserved -= l.Quantity
	}
	delete(f.reservations, checkout)
	return ok
}

func (f *Fake) lapse() {
	for checkout, held := range f.reservations {
		if !held.Until.After(f.now()) {
			f.release(checkout)
		}
	}
}

func once[Req, Res any](f *Fake, key, method string, r Req, do func() (Res, error)) (res Res, err error) {
	if key == "" {
		return res, errs.Invalidf("key_required", "the operation catalog.%s needs a key", method)
	}
	request, _ := json.Marshal(r)
	if was, ok := f.operations[method+" "+key]; ok {
		if was.request != string(request) {
			return res, errs.Conflictf("key_reused", "the key was used before with another request")
		}
		return res, json.Unmarshal(was.result, &res)
	}
	if res, err = do(); err == nil {
		result, _ := json.Marshal(res)
		f.operations[method+" "+key] = operation{string(request), result}
	}
	return res, err
}

// sum adds up the quantities of each SKU, in order of SKU.
func sum(lines []catalogapi.Quantity) ([]catalogapi.Quantity, error) {
	bySKU := map[string]int64{}
	for _, l := range lines {
		if l.SKU == "" || l.Quantity < 1 {
			return nil, errs.Invalidf("invalid_quantity", "each line needs a SKU and a quantity of at least one")
		}
		bySKU[l.SKU] += l.Quantity
	}
	if len(bySKU) == 0 {
		return nil, errs.Invalidf("no_lines", "there is nothing to reserve")
	}
	out := make([]catalogapi.Quantity, 0, len(bySKU))
	for sku, n := range bySKU {
		out = append(out, catalogapi.Quantity{SKU: sku, Quantity: n})
	}
	slices.SortFunc(out, func(a, b catalogapi.Quantity) int { return strings.Compare(a.SKU, b.SKU) })
	return out, nil
}

func distinct[T comparable](all []T) (out []T) {
	for _, v := range all {
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
