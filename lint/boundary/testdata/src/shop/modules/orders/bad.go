package orders

import (
	"context"

	_ "shop/api/paymentsapi/paymentstest" // want `orders must not import shop/api/paymentsapi/paymentstest outside tests`
	_ "shop/cmd/shop"                     // want `orders must not import cmd/shop: a program is nobody's library`
	_ "shop/db"                           // want `orders must not import db`
	_ "shop/misc"                         // want `orders must not import shop/misc: it is in no layer`
	. "shop/modules/cart"                 // want `orders must not import module cart: call it through api/cartapi, or subscribe to its events`
	pay "shop/modules/payments"           // want `orders must not import module payments: call it through api/paymentsapi, or subscribe to its events`
	_ "shop/modules/users/store"          // want `orders must not import module users`
	"shop/platform/auth"
	_ "shop/platform/shoptest" // want `orders must not import platform/shoptest outside tests`

	_ "connectrpc.com/connect"                     // want `orders must not import connectrpc.com/connect: bind the method with platform/rpc`
	_ "github.com/ThreeDotsLabs/watermill/message" // want `publish and hear through platform/events`
	_ "github.com/labstack/echo/v4"                // want `declare routes with platform/web`
)

var _ = pay.X
var _ = Y

func become(ctx context.Context) context.Context {
	return auth.WithIdentity(ctx, auth.Identity{User: "usr_1"}) // want `orders must not call auth.WithIdentity: only the platform makes identities`
}

//shop:allow boundary until=2999-01-31 owner=@orders nothing is wrong here // want `unused waiver: boundary finds nothing here`
func fine() {}
