// Package catalogapi is what other modules may ask of the catalog: products as they are sold, and the stock behind them.
package catalogapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
)

// ProductID names a product: prd_….
type ProductID ids.ID

// Catalog knows products, their prices and how many of each there are.
type Catalog interface {
	// Offers tells what a basket needs to know of each SKU: one query however many. SKUs that are unknown, archived or have
	// no price in the currency are absent from the answer. May be repeated.
	Offers(ctx context.Context, r OffersRequest) (Offers, error)

	// Products tells of products by id, for lists composed elsewhere; unknown ids are absent. May be repeated.
	Products(ctx context.Context, r ProductsRequest) (Products, error)

	// Product tells all of one product, by id or slug. May be repeated. A page that shows it may show one of up to ten minutes ago
	// and say so (rpc.AllowStale). Codes: not_found.
	Product(ctx context.Context, r ProductRequest) (Product, error)

	// Reserve promises stock to a checkout until a time: all lines or none. Repeat it with the same Key. Codes:
	// insufficient_stock (conflict; details are Shortages), invalid.
	Reserve(ctx context.Context, r ReserveRequest) (Reservation, error)

	// Extend moves the end of a checkout's live reservation; never to an earlier time. May be repeated. Codes: not_found when
	// there is none, or it has lapsed.
	Extend(ctx context.Context, r ExtendRequest) (Reservation, error)

	// Release gives a checkout's reservation back; nothing happens if there is none left. May be repeated.
	Release(ctx context.Context, r ReleaseRequest) (Released, error)

	// Allocate turns a checkout's reservation into an order's allocation, and reserves again first if it has lapsed. Repeat it
	// with the same Key. Codes: insufficient_stock (conflict; details are Shortages).
	Allocate(ctx context.Context, r AllocateRequest) (Allocation, error)

	// Import creates and updates products by external id. Rows that are wrong are reported, the others are stored. For the
	// command line. May be repeated: the same rows change nothing the second time.
	Import(ctx context.Context, r ImportRequest) (ImportResult, error)
}

// OffersRequest asks for SKUs in one currency.
type OffersRequest struct {
	SKUs     []string `json:"skus"`
	Currency string   `json:"currency"`
}

// Offers are what can be bought.
type Offers struct {
	Offers []Offer `json:"offers"`
}

// Offer is one SKU as it is sold now.
type Offer struct {
	SKU         string       `json:"sku"`
	Product     ProductID    `json:"product"`
	Name        string       `json:"name"`  // product name and, where it has options, the variant's
	Price       money.Amount `json:"price"` // one unit, sale price applied
	TaxClass    string       `json:"tax_class"`
	WeightGrams int64        `json:"weight_grams"`
	Available   int64        `json:"available"` // on hand − reserved
	Image       string       `json:"image"`     // path of a picture, "" without one
}

// ProductsRequest asks for products by id.
type ProductsRequest struct {
	IDs []ProductID `json:"ids"`
}

// Products are cards of products.
type Products struct {
	Products []ProductCard `json:"products"`
}

// ProductCard is a product as lists show it.
type ProductCard struct {
	ID     ProductID    `json:"id"`
	Slug   string       `json:"slug"`
	Name   string       `json:"name"`
	Brand  string       `json:"brand"`
	Price  money.Amount `json:"price"` // the lowest of its variants
	Image  string       `json:"image"`
	Rating Rating       `json:"rating"`
}

// Rating is what reviews say of a product, as the catalog last heard.
type Rating struct {
	AverageHundredths int64 `json:"average_hundredths"` // 425 is 4.25
	Count             int64 `json:"count"`
}

// ProductRequest asks for one product by id or slug.
type ProductRequest struct {
	Ref string `json:"ref"`
}

// Product is a whole product.
type Product struct {
	ID          ProductID `json:"id"`
	Slug        string    `json:"slug"`
	Name        string    `json:"name"`
	Brand       string    `json:"brand"`
	Description string    `json:"description"`
	Category    string    `json:"category"` // slug
	Images      []Image   `json:"images"`
	Variants    []Variant `json:"variants"`
	Rating      Rating    `json:"rating"`
	Version     int64     `json:"version"`
}

// Image is a picture of a product.
type Image struct {
	URL string `json:"url"`
	Alt string `json:"alt"`
}

// Variant is one buyable form of a product.
type Variant struct {
	SKU         string       `json:"sku"`
	Name        string       `json:"name"`
	Options     []Option     `json:"options"` // in order, such as colour: blue
	Price       money.Amount `json:"price"`
	ListPrice   money.Amount `json:"list_price"` // before a sale; equal to Price without one
	Available   int64        `json:"available"`
	WeightGrams int64        `json:"weight_grams"`
}

// Option is one choice that makes a variant.
type Option struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Quantity is a number of one SKU.
type Quantity struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// ReserveRequest promises Lines to Checkout until Until. Several lines of one SKU are summed.
type ReserveRequest struct {
	Key      string     `json:"key"`
	Checkout ids.ID     `json:"checkout"`
	Lines    []Quantity `json:"lines"`
	Until    time.Time  `json:"until"`
}

// Reservation is stock promised to a checkout.
type Reservation struct {
	Checkout ids.ID     `json:"checkout"`
	Lines    []Quantity `json:"lines"`
	Until    time.Time  `json:"until"`
}

// Shortages are the details of insufficient_stock.
type Shortages struct {
	Lines []Shortage `json:"lines"`
}

// Shortage is a SKU of which there is not enough.
type Shortage struct {
	SKU       string `json:"sku"`
	Requested int64  `json:"requested"`
	Available int64  `json:"available"`
}

// ExtendRequest moves the end of a reservation.
type ExtendRequest struct {
	Checkout ids.ID    `json:"checkout"`
	Until    time.Time `json:"until"`
}

// ReleaseRequest gives a reservation back.
type ReleaseRequest struct {
	Checkout ids.ID `json:"checkout"`
}

// Released says whether there was something to give back.
type Released struct {
	Released bool `json:"released"`
}

// AllocateRequest turns Checkout's reservation into Order's allocation.
type AllocateRequest struct {
	Key      string     `json:"key"`
	Checkout ids.ID     `json:"checkout"`
	Order    ids.ID     `json:"order"`
	Lines    []Quantity `json:"lines"`
}

// Allocation is stock that belongs to an order until it is shipped or cancelled.
type Allocation struct {
	Order ids.ID     `json:"order"`
	Lines []Quantity `json:"lines"`
}

// ImportRequest is a batch of at most 500 rows.
type ImportRequest struct {
	Rows   []ImportRow `json:"rows"`
	DryRun bool        `json:"dry_run"` // check all, store nothing
}

// ImportRow is one variant of a product as a file told it.
type ImportRow struct {
	Line        int64        `json:"line"` // where it stood in the file, for the report
	ExternalID  string       `json:"external_id"`
	SKU         string       `json:"sku"` // defaults to ExternalID
	Name        string       `json:"name"`
	Brand       string       `json:"brand"`
	Category    string       `json:"category"` // a name; the category is made if it is new
	Description string       `json:"description"`
	Price       money.Amount `json:"price"`
	Stock       int64        `json:"stock"` // units on hand; the difference to what is there is one ledger movement
	WeightGrams int64        `json:"weight_grams"`
	ImageName   string       `json:"image_name"`
	Image       []byte       `json:"image"` // the picture's bytes, if the file's picture was found
}

// ImportResult counts what a batch did.
type ImportResult struct {
	Created   int64      `json:"created"`
	Updated   int64      `json:"updated"`
	Unchanged int64      `json:"unchanged"`
	Errors    []RowError `json:"errors"`
}

// RowError says what is wrong with a row.
type RowError struct {
	Line    int64  `json:"line"`
	Column  string `json:"column"`
	Code    string `json:"code"`
	Message string `json:"message"`
}
