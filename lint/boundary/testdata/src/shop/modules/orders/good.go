package orders

import (
	_ "net/http"
	_ "shop/api/ordersapi"
	"shop/api/paymentsapi"
	_ "shop/modules/orders/internal/pricing"
	"shop/platform/auth"

	"context"
)

func user(ctx context.Context) string { return auth.From(ctx).User }

var _ paymentsapi.Payments
