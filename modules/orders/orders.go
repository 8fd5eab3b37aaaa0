// Package orders turns a cart into an order and sees it through to delivery: the checkout, the order and its states,
// cancellations. It does not price goods, count stock, move money, pack parcels or write mail: it asks cart, catalog,
// payments and shipping, and tells the others by events.
package orders

import (
	"context"
	"log/slog"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/failpoint"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/rpc"
	"github.com/banyan-shop/banyan/platform/web"
)

// Module is orders and what it needs.
type Module struct {
	DB       *pg.DB
	Users    usersapi.Users
	Catalog  catalogapi.Catalog
	Shipping shippingapi.Shipping
	Cart     cartapi.Cart
	Payments paymentsapi.Payments
	Log      *slog.Logger
	Metrics  *metrics
	Now      func() time.Time
	Secret   auth.Secret
	Cursors  web.Cursors
	Config   Config
	Signals  *Signals
}

// Config is the block "orders" of the settings.
type Config struct {
	// Lease is how long one process works on a checkout before others take it over. Default 5s.
	Lease time.Duration `yaml:"lease" min:"1s" max:"1m"`
	// Reservation is how long stock is promised to a checkout. Default 15m.
	Reservation time.Duration `yaml:"reservation" min:"1m"`
	// DeclineHold is how long another card may be tried after a decline. Default 10m.
	DeclineHold time.Duration `yaml:"decline_hold" min:"1m"`
	// ActionWithin is how long the shopper has for 3-D Secure. Default 30m.
	ActionWithin time.Duration `yaml:"action_within" min:"1m"`
	// UnknownWithin is how long a silent provider is asked before the payment is cancelled. Default 15m.
	UnknownWithin time.Duration `yaml:"unknown_within" min:"1m"`
	// WholeWithin bounds a checkout from its first request to its end. Default 2h.
	WholeWithin time.Duration `yaml:"whole_within" min:"10m"`
	// ReplyWithin is how long a request waits before it is answered 202. Default 25s.
	ReplyWithin time.Duration `yaml:"reply_within" min:"1s" max:"29s"`
	// Poll is how often work of other processes, and work a crash left, is looked for. Default 500ms.
	Poll time.Duration `yaml:"poll" min:"10ms" max:"10s"`
	// Workers is how many checkouts are resumed at a time. Default 4.
	Workers int `yaml:"workers" min:"1" max:"64"`
	// Tries is how often a step is tried before the checkout needs attention. Default 10.
	Tries int64 `yaml:"tries" min:"1" max:"100"`
	// TokenDays is how many days a guest's link to an order works. Default 90.
	TokenDays int `yaml:"token_days" min:"1" max:"3650"`
}

// Defaults are the settings of a module that was told nothing.
func Defaults() Config {
	return Config{
		Lease: 5 * time.Second, Reservation: 15 * time.Minute, DeclineHold: 10 * time.Minute, ActionWithin: 30 * time.Minute,
		UnknownWithin: 15 * time.Minute, WholeWithin: 2 * time.Hour, ReplyWithin: 25 * time.Second, Poll: 500 * time.Millisecond,
		Workers: 4, Tries: 10, TokenDays: 90,
	}
}

// Validate says what to change.
func (c Config) Validate() error {
	if c.WholeWithin <= c.ActionWithin {
		return config.Bad("whole_within", "must be longer than action_within (%s): the shopper's time for 3-D Secure is a part of it", c.ActionWithin)
	}
	if c.DeclineHold > c.Reservation {
		return config.Bad("decline_hold", "must be at most reservation (%s): another card needs the goods still promised", c.Reservation)
	}
	return nil
}

var _ ordersapi.Orders = (*Module)(nil)

// Serve answers the contract.
func (m *Module) Serve(s *rpc.Server) { ordersapi.Mount(s, m) }

// now is the time as the database keeps it, so that a row read again is equal to the row written.
func (m *Module) now() time.Time { return m.Now().UTC().Truncate(time.Microsecond) }

// hit is a failpoint: a place where a crash tells most. failpoints.txt lists them all.
func (m *Module) hit(name string) {
	failpoint.Hit(name)
	if m.Signals.crash != nil {
		m.Signals.crash(name)
	}
}

// Order is an order as its owner sees it. See ordersapi.
func (m *Module) Order(ctx context.Context, r ordersapi.OrderRequest) (ordersapi.Order, error) {
	if err := auth.RequireModule(ctx, "storefront"); err != nil {
		return ordersapi.Order{}, err
	}
	return m.order(ctx, r)
}

// order is an order as a user, or the guest who holds the token, may see it.
func (m *Module) order(ctx context.Context, r ordersapi.OrderRequest) (ordersapi.Order, error) {
	shown, _ := ordersapi.OpenOrderToken(m.Secret, r.Token, m.Now())
	o, err := ownOrder(ctx, m.DB, r.ID, r.User, shown)
	if pg.NoRows(err) {
		return ordersapi.Order{}, errs.NotFoundf("no such order")
	}
	if err != nil {
		return ordersapi.Order{}, err
	}
	return o.view(), nil
}

// Recent are a customer's newest orders. See ordersapi.
func (m *Module) Recent(ctx context.Context, r ordersapi.RecentRequest) (ordersapi.List, error) {
	if err := auth.RequireModule(ctx, "storefront"); err != nil {
		return ordersapi.List{}, err
	}
	limit := min(max(r.Limit, 1), 100)
	rows, err := ordersOf(ctx, m.DB, r.User, "", limit)
	if err != nil {
		return ordersapi.List{}, err
	}
	l := ordersapi.List{Orders: make([]ordersapi.Order, len(rows))}
	for i := range rows {
		l.Orders[i] = rows[i].view()
		l.Orders[i].Lines, l.Orders[i].History = []ordersapi.Line{}, []ordersapi.Entry{}
	}
	return l, nil
}

// Contact tells where to write about an order. See ordersapi.
func (m *Module) Contact(ctx context.Context, r ordersapi.ContactRequest) (ordersapi.Contact, error) {
	if err := auth.RequireModule(ctx, "notifications"); err != nil {
		return ordersapi.Contact{}, err
	}
	o, err := findOrder(ctx, m.DB, r.ID)
	if pg.NoRows(err) {
		return ordersapi.Contact{}, errs.NotFoundf("no such order")
	}
	if err != nil {
		return ordersapi.Contact{}, err
	}
	c := ordersapi.Contact{Customer: o.Customer, Email: o.Email, Name: o.Address.V.Name, Number: o.Number}
	if o.Customer == "" {
		c.Token = m.orderToken(o.ID, m.now())
	}
	return c, nil
}

// orderToken is the token by which a guest sees an order, from a time on.
func (m *Module) orderToken(id ordersapi.ID, from time.Time) string {
	return ordersapi.SealOrderToken(m.Secret, id, from.AddDate(0, 0, m.Config.TokenDays))
}

// operation is the key of an operation that a saga asks of another module: the same however often, and by whomever, the step
// is run.
func operation[T ~string](saga T, step string) string {
	return operationKey(string(saga), step)
}

// actorOf is who a shopper is in an order's history.
func actorOf(customer ids.ID) string {
	if customer == "" {
		return "guest"
	}
	return "customer"
}
