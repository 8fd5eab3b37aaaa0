package badapi

import (
	"context"
	"encoding/json"
	"io"

	"shop/api/ordersapi"
	"shop/modules/users"
	"shop/platform/pg"
	"shop/platform/rpc"
)

type Bad interface { // want `contract Bad embeds io.Closer: write its methods out`
	io.Closer

	hidden(ctx context.Context, r Request) (Result, error)                 // want `Bad.hidden is unexported`
	Short(ctx context.Context) (Result, error)                             // want `Bad.Short must have the shape`
	NoError(ctx context.Context, r Request) Result                         // want `Bad.NoError must have the shape`
	Pointer(ctx context.Context, r *Request) (Result, error)               // want `the request of Pointer must be a named struct of this package, not \*Request`
	Foreign(ctx context.Context, r ordersapi.OrderRequest) (Result, error) // want `the request of Foreign must be a named struct of this package, not ordersapi.OrderRequest`
	Unbound(ctx context.Context, r Request) (Result, error)                // want `Bad.Unbound is not bound: add var unbound = rpc.NewMethod`
	Unmarked(ctx context.Context, r Request) (Result, error)
	Unkeyed(ctx context.Context, r Request) (Result, error)
	Other(ctx context.Context, r Request) (Result, error)
	Unhandled(ctx context.Context, r Request) (Result, error)
	Uncalled(ctx context.Context, r Request) (Result, error)
}

var (
	foreign   = rpc.NewMethod[ordersapi.OrderRequest, Result]("bad.Foreign", rpc.Idempotent)
	pointer   = rpc.NewMethod[*Request, Result]("bad.Pointer", rpc.Idempotent)
	unmarked  = rpc.NewMethod[Request, Result]("bad.Unmarked", rpc.NotRepeatable)  // want `bad.Unmarked may not be repeated`
	unkeyed   = rpc.NewMethod[Request, Result]("bad.Unkeyed", rpc.IdempotentByKey) // want `bad.Unkeyed is marked IdempotentByKey, but its request has no field Key string`
	other     = rpc.NewMethod[Result, Result]("bad.Other", rpc.Idempotent)         // want `bad.Other is bound with other types`
	unhandled = rpc.NewMethod[Request, Result]("bad.Unhandled", rpc.Idempotent)    // want `bad.Unhandled is never handled: add unhandled.Handle`
	uncalled  = rpc.NewMethod[Request, Result]("bad.Uncalled", rpc.Idempotent)     // want `bad.Uncalled is never called`
	gone      = rpc.NewMethod[Request, Result]("bad.Gone", rpc.Idempotent)         // want `bad.Gone is bound here, but no interface of this contract has a method Gone`
	misnamed  = rpc.NewMethod[Request, Result]("orders.Order", rpc.Idempotent)     // want `method name "orders.Order" must begin with bad.`
)

func use(ctx context.Context, s *rpc.Server, c *rpc.Conn, f func(context.Context, Request) (Result, error)) {
	unmarked.Handle(s, f)
	unmarked.Call(ctx, c, Request{})
	unkeyed.Handle(s, f)
	unkeyed.Call(ctx, c, Request{})
	unhandled.Call(ctx, c, Request{})
	uncalled.Handle(s, f)
	foreign.Handle(s, nil)
	foreign.Call(ctx, c, ordersapi.OrderRequest{})
	pointer.Handle(s, nil)
	pointer.Call(ctx, c, nil)
}

type Request struct {
	A     *string          `json:"a"` // want `Request.A is a pointer`
	B     any              `json:"b"` // want `Request.B is an interface`
	C     func()           `json:"c"` // want `Request.C is a func`
	D     chan int         `json:"d"` // want `Request.D is a channel`
	E     json.RawMessage  `json:"e"` // want `Request.E is json.RawMessage, which says nothing`
	F     complex128       `json:"f"` // want `Request.F is complex128`
	G     uintptr          `json:"g"` // want `Request.G is uintptr`
	H     map[int]string   `json:"h"` // want `Request.H has keys of int`
	i     int              // want `Request.i is unexported, so it is lost on the wire`
	J     string           // want `Request.J has no json name: add .json:"j".`
	K     string           `json:"-"`        // want `Request.K is left out of JSON`
	L     string           `json:"userName"` // want `Request.L has json name "userName": names are in snake_case`
	M     ordersapi.Status `json:"m"`        // want `Request.M is ordersapi.Status of another contract`
	N     users.User       `json:"n"`        // want `Request.N is users.User, an internal of module users`
	O     []*Deep          `json:"o"`        // want `Request.O is a pointer`
	Price float32          `json:"price"`    // want `Request.Price is a float: money is money.Amount`
	P     pg.JSON          `json:"p"`        // want `Request.P is pg.JSON: a transaction or pool does not leave`
	Q     error            `json:"q"`        // want `Request.Q is an interface`
	R     io.LimitedReader `json:"r"`        // want `Request.R is io.LimitedReader: a contract holds plain values`
	S     Nested           `json:"s"`
}

type Deep struct{}

type Nested struct {
	T map[string][]*Deep `json:"t"` // want `Nested.T is a pointer`
}

type Result struct{}

type Happened struct {
	Who *string `json:"who"` // want `event Happened.Who is a pointer`
}

func (Happened) EventName() string { return "bad.happened.v1" }
func (Happened) EventKey() string  { return "" }
