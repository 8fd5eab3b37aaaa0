package catalogapi

import (
	"context"
	"time"

	"github.com/banyan-shop/banyan/platform/rpc"
)

var (
	offers   = rpc.NewMethod[OffersRequest, Offers]("catalog.Offers", rpc.Idempotent)
	products = rpc.NewMethod[ProductsRequest, Products]("catalog.Products", rpc.Idempotent)
	product  = rpc.NewMethod[ProductRequest, Product]("catalog.Product", rpc.Idempotent, rpc.StaleFor(10*time.Minute))
	reserve  = rpc.NewMethod[ReserveRequest, Reservation]("catalog.Reserve", rpc.IdempotentByKey)
	extend   = rpc.NewMethod[ExtendRequest, Reservation]("catalog.Extend", rpc.Idempotent)
	release  = rpc.NewMethod[ReleaseRequest, Released]("catalog.Release", rpc.Idempotent)
	allocate = rpc.NewMethod[AllocateRequest, Allocation]("catalog.Allocate", rpc.IdempotentByKey)
	imports  = rpc.NewMethod[ImportRequest, ImportResult]("catalog.Import", rpc.Idempotent)
)

type client struct{ conn *rpc.Conn }

// Dial is the catalog, wherever it runs.
func Dial(d rpc.Dialer) Catalog { return client{d.Conn("catalog")} }

// Mount makes c answer calls of the contract.
func Mount(s *rpc.Server, c Catalog) {
	offers.Handle(s, c.Offers)
	products.Handle(s, c.Products)
	product.Handle(s, c.Product)
	reserve.Handle(s, c.Reserve)
	extend.Handle(s, c.Extend)
	release.Handle(s, c.Release)
	allocate.Handle(s, c.Allocate)
	imports.Handle(s, c.Import)
}

func (c client) Offers(ctx context.Context, r OffersRequest) (Offers, error) {
	return offers.Call(ctx, c.conn, r)
}

func (c client) Products(ctx context.Context, r ProductsRequest) (Products, error) {
	return products.Call(ctx, c.conn, r)
}

func (c client) Product(ctx context.Context, r ProductRequest) (Product, error) {
	return product.Call(ctx, c.conn, r)
}

func (c client) Reserve(ctx context.Context, r ReserveRequest) (Reservation, error) {
	return reserve.Call(ctx, c.conn, r)
}

func (c client) Extend(ctx context.Context, r ExtendRequest) (Reservation, error) {
	return extend.Call(ctx, c.conn, r)
}

func (c client) Release(ctx context.Context, r ReleaseRequest) (Released, error) {
	return release.Call(ctx, c.conn, r)
}

func (c client) Allocate(ctx context.Context, r AllocateRequest) (Allocation, error) {
	return allocate.Call(ctx, c.conn, r)
}

func (c client) Import(ctx context.Context, r ImportRequest) (ImportResult, error) {
	return imports.Call(ctx, c.conn, r)
}
