package paymentsapi

import (
	"context"

	"shop/platform/pg"
)

type Payments interface {
	Authorize(ctx context.Context, r AuthorizeRequest) (Authorization, error)
	Join(ctx context.Context, tx *pg.Tx) error // want `a transaction in a contract`
}

type AuthorizeRequest struct{}
type Authorization struct {
	tx *pg.Tx // want `a transaction is kept in a struct`
}
