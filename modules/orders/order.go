package orders

import (
	"crypto/rand"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// state is where an order is in its life.
type state string

const (
	pendingPayment     state = "pending_payment"
	placed             state = "placed"
	partiallyFulfilled state = "partially_fulfilled"
	fulfilled          state = "fulfilled"
	completed          state = "completed"
	cancelled          state = "cancelled"
	expired            state = "expired"
)

// allowed is where an order may go from s.
func (s state) allowed() []state {
	switch s {
	case pendingPayment:
		return []state{placed, cancelled, expired}
	case placed:
		return []state{partiallyFulfilled, fulfilled, cancelled}
	case partiallyFulfilled:
		return []state{fulfilled}
	case fulfilled:
		return []state{completed}
	}
	return nil
}

// moveTo changes the state and writes history, or refuses and says what is allowed.
func (o *order) moveTo(to state, actor, note string, now time.Time) error {
	if !slices.Contains(o.State.allowed(), to) {
		return o.illegal(to)
	}
	o.State = to
	o.note(actor, note, now)
	return nil
}

func (o *order) illegal(to state) error {
	allowed := []string{}
	for _, s := range o.State.allowed() {
		allowed = append(allowed, string(s))
	}
	return errs.Conflictf("illegal_transition", "an order that is %s can't become %s", o.State, to).
		WithDetails(map[string]any{"state": o.State, "allowed": allowed})
}

func (o *order) note(actor, note string, now time.Time) {
	o.History.V = append(o.History.V, ordersapi.Entry{State: string(o.State), Actor: actor, Note: note, At: now})
	o.UpdatedAt = now
}

// order is a row of orders.orders.
type order struct {
	ID               ordersapi.ID               `db:"id"`
	Number           string                     `db:"number"`
	Checkout         ids.ID                     `db:"checkout"`
	Cart             cartapi.ID                 `db:"cart"`
	Customer         ids.ID                     `db:"customer"`
	Email            string                     `db:"email"`
	State            state                      `db:"state"`
	Version          int64                      `db:"version"`
	Currency         string                     `db:"currency"`
	PricesIncludeTax bool                       `db:"prices_include_tax"`
	Lines            pg.JSON[[]line]            `db:"lines"`
	Promo            string                     `db:"promo"`
	Subtotal         int64                      `db:"subtotal"`
	Discount         int64                      `db:"discount"`
	Shipping         int64                      `db:"shipping"`
	ShippingTax      int64                      `db:"shipping_tax"`
	Tax              int64                      `db:"tax"`
	Total            int64                      `db:"total"`
	Captured         int64                      `db:"captured"`
	Refunded         int64                      `db:"refunded"`
	Payment          paymentsapi.ID             `db:"payment"`
	Carrier          string                     `db:"carrier"`
	Service          string                     `db:"service"`
	Address          pg.JSON[ordersapi.Address] `db:"address"`
	History          pg.JSON[[]ordersapi.Entry] `db:"history"`
	PlacedAt         *time.Time                 `db:"placed_at"`
	CreatedAt        time.Time                  `db:"created_at"`
	UpdatedAt        time.Time                  `db:"updated_at"`
}

// line is a line of an order as it is stored. Amounts are in the order's currency.
type line struct {
	ID        ids.ID     `json:"id"`
	SKU       string     `json:"sku"`
	Product   ids.ID     `json:"product"`
	Name      string     `json:"name"`
	Quantity  int64      `json:"quantity"`
	Cancelled int64      `json:"cancelled,omitempty"`
	Shipped   int64      `json:"shipped,omitempty"`
	Delivered int64      `json:"delivered,omitempty"`
	UnitPrice int64      `json:"unit_price"`
	Discount  int64      `json:"discount,omitempty"`
	TaxRate   money.Rate `json:"tax_rate"`
	Tax       int64      `json:"tax"`
	Total     int64      `json:"total"`
}

// newOrder is the order of a checkout, waiting for its payment.
func newOrder(c *checkout, f cartapi.Frozen, now time.Time) *order {
	t := c.Terms.V
	o := &order{
		ID: c.Order, Number: newNumber(), Checkout: c.ID, Cart: c.Cart, Customer: c.Customer, Email: t.Email,
		State: pendingPayment, Version: 1, Currency: f.Total.Currency, PricesIncludeTax: f.PricesIncludeTax, Promo: f.Promo,
		Subtotal: f.Subtotal.Minor, Discount: f.Discount.Minor, Shipping: f.Shipping.Minor, ShippingTax: f.ShippingTax.Minor,
		Tax: f.Tax.Minor, Total: f.Total.Minor, Carrier: f.Carrier, Service: f.Service,
		Address: pg.JSON[ordersapi.Address]{V: t.Address}, CreatedAt: now,
	}
	for i, l := range f.Lines {
		o.Lines.V = append(o.Lines.V, line{
			ID: ids.Derived[ids.ID]("oln", string(o.ID), fmt.Sprint(i)), SKU: l.SKU, Product: l.Product, Name: l.Name, Quantity: l.Quantity,
			UnitPrice: l.UnitPrice.Minor, Discount: l.Discount.Minor, TaxRate: l.TaxRate, Tax: l.Tax.Minor, Total: l.Total.Minor,
		})
	}
	o.note(c.actor(), "", now)
	return o
}

// numberAlphabet leaves out what is misread or misheard: I, L, O and U.
const numberAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newNumber is what people call an order by: B-7K3M-Q9TX. It is random, so it tells nobody how much the shop sells.
func newNumber() string {
	var b [8]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = numberAlphabet[b[i]%32]
	}
	return "B-" + string(b[:4]) + "-" + string(b[4:])
}

// place makes the order stand. captured is what was taken of the payment so far; the rest follows.
func (o *order) place(p paymentsapi.ID, captured int64, now time.Time) error {
	if err := o.moveTo(placed, "system", "", now); err != nil {
		return err
	}
	o.Payment, o.Captured, o.PlacedAt = p, captured, &now
	return nil
}

// expire ends an order that was never paid.
func (o *order) expire(now time.Time) error {
	return o.moveTo(expired, "system", "not paid in time", now)
}

// ship counts goods that left the house.
func (o *order) ship(lines []shippingapi.Line, note string, now time.Time) error {
	if o.State != placed && o.State != partiallyFulfilled {
		return o.illegal(partiallyFulfilled)
	}
	if !o.spread(lines, func(l *line) int64 { return l.Quantity - l.Cancelled - l.Shipped }, func(l *line, n int64) { l.Shipped += n }) {
		return errs.Conflictf("not_in_order", "more was shipped than the order holds")
	}
	switch {
	case o.open() == 0:
		return o.moveTo(fulfilled, "system", note, now)
	case o.State == placed:
		return o.moveTo(partiallyFulfilled, "system", note, now)
	}
	o.note("system", note, now)
	return nil
}

// deliver counts goods that arrived; with the last of them the order is complete.
func (o *order) deliver(lines []shippingapi.Line, now time.Time) error {
	if !o.spread(lines, func(l *line) int64 { return l.Shipped - l.Delivered }, func(l *line, n int64) { l.Delivered += n }) {
		return errs.Conflictf("not_shipped", "more was delivered than was shipped")
	}
	return o.completeIfDelivered(now)
}

func (o *order) completeIfDelivered(now time.Time) error {
	o.UpdatedAt = now
	if o.State == fulfilled && o.sum(func(l line) int64 { return l.Shipped - l.Delivered }) == 0 {
		return o.moveTo(completed, "system", "all delivered", now)
	}
	return nil
}

// spread gives quantities to the lines of their SKUs as far as each has room, all or nothing.
func (o *order) spread(quantities []shippingapi.Line, room func(*line) int64, give func(*line, int64)) bool {
	lines := slices.Clone(o.Lines.V)
	for _, q := range quantities {
		left := q.Quantity
		for i := range lines {
			if l := &lines[i]; l.SKU == q.SKU && left > 0 {
				n := min(left, max(0, room(l)))
				give(l, n)
				left -= n
			}
		}
		if left != 0 {
			return false
		}
	}
	o.Lines.V = lines
	return true
}

func (o *order) sum(f func(line) int64) (n int64) {
	for _, l := range o.Lines.V {
		n += f(l)
	}
	return n
}

// open is how many pieces are neither shipped nor cancelled.
func (o *order) open() int64 {
	return o.sum(func(l line) int64 { return l.Quantity - l.Cancelled - l.Shipped })
}

// planned is what a cancellation takes out and gives back.
type planned struct {
	Lines  []shippingapi.Line
	Refund int64
	Whole  bool // nothing of the order is left, nothing was shipped
}

// plan works out a cancellation of want (none: all that is open) beside others that are under way. Amounts are exact: the
// parts of a line sum to the line, and the cancellation that leaves nothing takes the remainder, shipping included.
func (o *order) plan(want []shippingapi.Line, byStaff bool, others []planned) (planned, error) {
	if o.State != placed && !(byStaff && o.State == partiallyFulfilled) {
		return planned{}, o.illegal(cancelled)
	}
	after := *o // a copy in which the others are done
	pending := int64(0)
	for _, p := range others {
		if !after.spread(p.Lines, openOf, cancelOne) {
			return planned{}, fmt.Errorf("order %s: a cancellation under way does not fit", o.ID)
		}
		pending += p.Refund
	}
	var p planned
	if len(want) == 0 {
		for _, l := range after.Lines.V {
			if n := openOf(&l); n > 0 {
				p.Lines = append(p.Lines, shippingapi.Line{SKU: l.SKU, Quantity: n})
			}
		}
		if len(p.Lines) == 0 {
			return planned{}, o.illegal(cancelled)
		}
	} else {
		p.Lines = want
	}
	before := after.Lines.V
	if !after.spread(p.Lines, openOf, cancelOne) {
		return planned{}, errs.Conflictf("not_in_order", "the order does not hold that many open pieces of a SKU")
	}
	for i, l := range after.Lines.V {
		part, err := l.partOf(o.PricesIncludeTax, before[i].Cancelled, l.Cancelled)
		if err != nil {
			return planned{}, err
		}
		p.Refund += part
	}
	if after.open() == 0 && after.sum(func(l line) int64 { return l.Shipped }) == 0 {
		p.Whole = true
		p.Refund = o.Total - o.Refunded - pending
	}
	return p, nil
}

func openOf(l *line) int64       { return l.Quantity - l.Cancelled - l.Shipped }
func cancelOne(l *line, n int64) { l.Cancelled += n }

// partOf is what pieces from..to of the line cost: the difference of two rounded-down shares, so that all parts sum to it.
func (l line) partOf(taxIncluded bool, from, to int64) (int64, error) {
	whole := l.Total
	if !taxIncluded {
		whole += l.Tax
	}
	share := func(n int64) int64 {
		x := new(big.Int).Mul(big.NewInt(whole), big.NewInt(n))
		return x.Quo(x, big.NewInt(l.Quantity)).Int64() // at most whole
	}
	if l.Quantity <= 0 || to > l.Quantity {
		return 0, fmt.Errorf("line %s has no %d pieces", l.SKU, to)
	}
	return share(to) - share(from), nil
}

// cancel takes p out of the order; refunded is what the customer got back, 0 when a hold was given back instead.
func (o *order) cancel(p planned, refunded int64, actor, reason string, now time.Time) error {
	if !o.spread(p.Lines, openOf, cancelOne) {
		return errs.Conflictf("not_in_order", "the order does not hold that many open pieces of a SKU")
	}
	o.Refunded += refunded
	shipped := o.sum(func(l line) int64 { return l.Shipped })
	switch {
	case o.open() > 0:
		o.note(actor, "cancelled in part: "+reason, now)
		return nil
	case shipped == 0:
		return o.moveTo(cancelled, actor, reason, now)
	case o.State == partiallyFulfilled:
		if err := o.moveTo(fulfilled, actor, "the rest was cancelled: "+reason, now); err != nil {
			return err
		}
	}
	return o.completeIfDelivered(now)
}

// paymentStatus follows from the amounts.
func (o *order) paymentStatus() string {
	switch {
	case o.State == pendingPayment:
		return "pending"
	case o.PlacedAt == nil && o.Refunded == 0, o.State == cancelled && o.Captured == 0 && o.Total > 0:
		return "voided"
	case o.Refunded > 0 && o.Refunded >= o.Captured:
		return "refunded"
	case o.Refunded > 0:
		return "partially_refunded"
	case o.Captured >= o.Total:
		return "paid"
	}
	return "authorised"
}

// fulfilmentStatus follows from the lines.
func (o *order) fulfilmentStatus() string {
	shipped := o.sum(func(l line) int64 { return l.Shipped })
	switch {
	case shipped == 0 && (o.State == cancelled || o.State == expired):
		return "cancelled"
	case shipped == 0:
		return "unfulfilled"
	case o.open() > 0:
		return "partially_fulfilled"
	case shipped > o.sum(func(l line) int64 { return l.Delivered }):
		return "fulfilled"
	}
	return "delivered"
}

func (o *order) amount(minor int64) money.Amount { return money.Of(minor, o.Currency) }

// view is the order as its owner sees it.
func (o *order) view() ordersapi.Order {
	v := ordersapi.Order{
		ID: o.ID, Number: o.Number, State: string(o.State), PaymentStatus: o.paymentStatus(), FulfilmentStatus: o.fulfilmentStatus(),
		Customer: o.Customer, Lines: make([]ordersapi.Line, len(o.Lines.V)), Subtotal: o.amount(o.Subtotal), Discount: o.amount(o.Discount),
		Shipping: o.amount(o.Shipping), Tax: o.amount(o.Tax), Total: o.amount(o.Total), Refunded: o.amount(o.Refunded),
		Carrier: o.Carrier, Service: o.Service, Version: o.Version, History: o.History.V, ShippingAddress: o.Address.V, CreatedAt: o.CreatedAt.UTC(),
	}
	if v.History == nil {
		v.History = []ordersapi.Entry{}
	}
	if o.PlacedAt != nil {
		v.PlacedAt = o.PlacedAt.UTC()
	}
	for i, l := range o.Lines.V {
		v.Lines[i] = ordersapi.Line{
			ID: l.ID, SKU: l.SKU, Product: l.Product, Name: l.Name, Quantity: l.Quantity, Cancelled: l.Cancelled, Shipped: l.Shipped,
			UnitPrice: o.amount(l.UnitPrice), Discount: o.amount(l.Discount), TaxRate: l.TaxRate, Tax: o.amount(l.Tax), Total: o.amount(l.Total),
		}
	}
	return v
}

// quantities are the lines as catalog takes them.
func (o *order) quantities() []catalogapi.Quantity {
	qs := make([]catalogapi.Quantity, len(o.Lines.V))
	for i, l := range o.Lines.V {
		qs[i] = catalogapi.Quantity{SKU: l.SKU, Quantity: l.Quantity}
	}
	return qs
}

// ordered are the lines as shipping takes them.
func (o *order) ordered() []shippingapi.Line {
	ls := make([]shippingapi.Line, len(o.Lines.V))
	for i, l := range o.Lines.V {
		ls[i] = shippingapi.Line{SKU: l.SKU, Quantity: l.Quantity}
	}
	return ls
}

// placedEvent tells of the order once it stands.
func (o *order) placedEvent() ordersapi.OrderPlaced {
	e := ordersapi.OrderPlaced{
		Order: o.ID, Number: o.Number, Cart: ids.ID(o.Cart), Customer: o.Customer, Carrier: o.Carrier, Service: o.Service, Country: o.Address.V.Country,
		Shipping: o.amount(o.Shipping), Tax: o.amount(o.Tax), Total: o.amount(o.Total), PlacedAt: *o.PlacedAt,
	}
	for _, l := range o.Lines.V {
		e.Lines = append(e.Lines, ordersapi.PlacedLine{SKU: l.SKU, Product: l.Product, Name: l.Name, Quantity: l.Quantity,
			UnitPrice: o.amount(l.UnitPrice), Total: o.amount(l.Total)})
	}
	return e
}
