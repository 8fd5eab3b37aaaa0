package orders

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/shippingapi"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/web"
)

const (
	week        = 7 * 24 * time.Hour
	longestWait = 20 * time.Second
)

// Routes are the public routes of orders.
func (m *Module) Routes(r *web.Router) {
	readAll, write := web.Scope("orders:read_all"), web.Scope("orders:write")
	r.Tag("checkout", "Turning a cart into an order: one call, and more only where the payment needs the shopper or time.")
	r.Tag("orders", "What was bought, and taking it back.")
	web.Post(r, "/v1/checkouts", web.Public, web.Route{
		ID: "createCheckout", Tag: "checkout", Summary: "Buy a cart", Status: http.StatusCreated, Idempotency: web.KeyHandled, KeyTTL: week, Criticality: web.Critical,
		Also: map[int]string{
			http.StatusAccepted:        "The payment is under way, or needs the shopper to follow next_action: look at Location until the state is another",
			http.StatusPaymentRequired: "The payment was declined; for ten minutes another may be tried with a new key",
			http.StatusNotFound:        "There is no such cart, or it is somebody else's",
		},
	}, m.postCheckout)
	web.Get(r, "/v1/checkouts/{id}", web.Public, web.Route{
		ID: "getCheckout", Tag: "checkout", Summary: "How a checkout stands; waits up to 20s for a change", Criticality: web.Critical, LongPoll: true,
	}, m.getCheckout)
	web.Post(r, "/v1/checkouts/{id}/confirm", web.Public, web.Route{
		ID: "confirmCheckout", Tag: "checkout", Summary: "Look at the payment after the shopper has acted", Criticality: web.Critical,
	}, m.postConfirm)
	web.Get(r, "/v1/orders", web.SignedIn, web.Route{ID: "listOrders", Tag: "orders", Summary: "My orders, newest first", Criticality: web.Sheddable}, m.listOrders)
	web.Get(r, "/v1/orders/{id}", web.Public, web.Route{ID: "getOrder", Tag: "orders", Summary: "An order of mine", Criticality: web.Critical}, m.getOrder)
	web.Post(r, "/v1/orders/{id}/cancellations", web.Public, web.Route{
		ID: "cancelOrder", Tag: "orders", Summary: "Cancel an order of mine that was not shipped, whole or in part", Status: http.StatusCreated,
		Idempotency: web.KeyHandled, KeyTTL: week,
	}, m.postCancellation)

	web.Get(r, "/v1/admin/orders", readAll, web.Route{ID: "listAllOrders", Tag: "orders", Summary: "All orders, newest first", Criticality: web.Sheddable}, m.listAllOrders)
	web.Get(r, "/v1/admin/orders/{id}", readAll, web.Route{ID: "getAnyOrder", Tag: "orders", Summary: "Any order"}, m.getAnyOrder)
	web.Post(r, "/v1/admin/orders/{id}/cancellations", write, web.Route{
		ID: "cancelAnyOrder", Tag: "orders", Summary: "Cancel what is not shipped of any order, with refund", Status: http.StatusCreated,
		Idempotency: web.KeyHandled, KeyTTL: week,
	}, m.postAnyCancellation)
	web.Get(r, "/v1/admin/checkouts", readAll, web.Route{
		ID: "listCheckouts", Tag: "checkout", Summary: "Checkouts by state; needs_attention are those tried too often",
	}, m.listCheckouts)

	web.Get(r, "/v1/admin/cancellations", readAll, web.Route{
		ID: "listCancellations", Tag: "orders", Summary: "Cancellations that need attention: their refund was tried too often",
	}, m.listCancellations)

	for _, p := range problems() {
		r.Problem(p[0], p[1], p[2])
	}
}

func problems() [][3]string {
	return [][3]string{
		{"payment_declined", "The payment was declined", "The provider refused the payment. The goods are kept for ten minutes: send a new POST /v1/checkouts for the same cart with another payment and a new Idempotency-Key."},
		{"checkout_in_progress", "The cart is in a checkout", "One checkout is active a cart. details.id names it, if it is yours: follow it with GET /v1/checkouts/{id}."},
		{"checkout_expired", "The checkout was not paid in time", "Goods and promo code were given back and the cart is open again. Start a new checkout."},
		{"checkout_failed", "The checkout could not be done", "Something it needs did not answer for too long. Nothing was charged. Start a new checkout."},
		{"out_of_stock", "The goods were sold meanwhile", "The payment came through after the goods' reservation had lapsed and others had bought them. The payment is given back."},
		{"card_number_refused", "A card number was sent", "The shop takes tokens of payment providers and never card numbers. Nothing of the request was stored."},
		{"illegal_transition", "The order's state does not allow that", "details.state is the order's state and details.allowed where it may go from there."},
		{"not_in_order", "The order does not hold that", "More pieces of a SKU were named than the order has left to cancel."},
		{"not_shipped", "The goods have not been shipped", "Only what has left the house can arrive."},
	}
}

// CheckoutView is a checkout as the shopper sees it.
type CheckoutView struct {
	ID         ids.ID           `json:"id"`
	State      string           `json:"state" doc:"pending, action_required, payment_failed, placed, failed or expired; may gain values"`
	OrderID    ordersapi.ID     `json:"order_id,omitempty"`
	OrderToken string           `json:"order_token,omitempty" doc:"For guests: show it as X-Order-Token to see the order"`
	NextAction *CheckoutAction  `json:"next_action,omitempty"`
	Failure    *CheckoutFailure `json:"failure,omitempty"`
}

// CheckoutAction is what the shopper must do.
type CheckoutAction struct {
	Type string `json:"type"`
	URL  string `json:"url"`
}

// CheckoutFailure is why it did not come to an order.
type CheckoutFailure struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// answer is the checkout as its shopper sees it. It is the same however often it is asked for while the state is.
func (m *Module) answer(c *checkout) *CheckoutView {
	v := &CheckoutView{ID: c.ID, State: string(c.State)}
	ordered := c.Step != stepPrepare && c.State != stateFailed && c.State != stateExpired
	if ordered || c.Failure.V != nil && c.Failure.V.Code == "out_of_stock" {
		v.OrderID = c.Order
		if c.Customer == "" {
			v.OrderToken = m.orderToken(c.Order, c.CreatedAt)
		}
	}
	if n := c.Next.V; n != nil && n.URL != "" {
		v.NextAction = &CheckoutAction{n.Type, n.URL}
	}
	if f := c.Failure.V; f != nil && c.State != statePending {
		v.Failure = &CheckoutFailure{f.Code, f.Message}
	}
	return v
}

// status is the answer's: 201 with an order, 202 on the way to one.
func (c *checkout) status() int {
	if c.State == statePlaced {
		return http.StatusCreated
	}
	return http.StatusAccepted
}

// refusal is why the checkout came to no order, nil while it may.
func (c *checkout) refusal() error {
	switch c.State {
	case stateDeclined, stateFailed, stateExpired:
		if c.Failure.V != nil {
			return c.Failure.V
		}
		return errs.Conflictf("checkout_failed", "The checkout came to no order.")
	}
	return nil
}

type checkoutInput struct {
	CartToken string `header:"X-Cart-Token" maxLength:"200"`
	Body      struct {
		CartID            cartapi.ID       `json:"cart_id" maxLength:"64"`
		Email             string           `json:"email,omitempty" maxLength:"254" doc:"Required for guests"`
		ShippingAddress   *CheckoutAddress `json:"shipping_address,omitempty" doc:"Or shipping_address_id"`
		ShippingAddressID ids.ID           `json:"shipping_address_id,omitempty" maxLength:"64" doc:"An entry of the address book"`
		ShippingOption    string           `json:"shipping_option" maxLength:"200" doc:"The id of a shipping quote"`
		ExpectedTotal     money.Amount     `json:"expected_total" doc:"The total the shopper agreed to: the quote's"`
		Payment           CheckoutPayment  `json:"payment"`
	}
}

// CheckoutPayment is what to pay with.
type CheckoutPayment struct {
	Provider string `json:"provider" maxLength:"40" example:"simulator"`
	Token    string `json:"token" maxLength:"200" doc:"The provider's name for a payment method; never a card number" example:"tok_approve"`
}

// CheckoutAddress is where an order is to go.
type CheckoutAddress struct {
	Name     string `json:"name" minLength:"1" maxLength:"120" example:"Gina Guest"`
	Line1    string `json:"line1" minLength:"1" maxLength:"200" example:"Hauptstr. 1"`
	Line2    string `json:"line2,omitempty" maxLength:"200"`
	City     string `json:"city" minLength:"1" maxLength:"120" example:"Berlin"`
	Region   string `json:"region,omitempty" maxLength:"120"`
	Postcode string `json:"postcode" maxLength:"20" example:"10115"`
	Country  string `json:"country" minLength:"2" maxLength:"2" doc:"ISO 3166 alpha-2" example:"DE"`
	Phone    string `json:"phone,omitempty" maxLength:"40"`
}

// postCheckout begins or repeats a checkout and runs it to its end, or to where it must wait.
func (m *Module) postCheckout(ctx context.Context, in *checkoutInput) (*web.Reply[CheckoutView], error) {
	k, _ := web.KeyFrom(ctx)
	c, err := m.asked(ctx, in, k)
	if err != nil {
		return nil, err
	}
	b, err := m.begin(ctx, c, k.Hash)
	if err != nil {
		return nil, err
	}
	if b.replay != nil {
		web.MarkReplayed(ctx)
		if b.replay.Refusal != nil {
			return nil, b.replay.Refusal
		}
		return replyOf(b.replay.Status, b.replay.Answer), nil
	}
	// The saga does not end with the request of a client that leaves.
	running, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.Config.ReplyWithin)
	defer cancel()
	deadline, _ := running.Deadline()
	c = b.checkout
	if err := m.drive(running, c); err != nil {
		m.log("checkout", c.ID, err) // another has it now, or will
		if c, err = m.readCheckout(ctx, c.ID); err != nil {
			return nil, err
		}
	}
	if c, err = m.settled(ctx, c, deadline, func(c *checkout) bool { return c.State != statePending }); err != nil {
		return nil, err
	}
	if err := c.refusal(); err != nil {
		return nil, err
	}
	return replyOf(c.status(), m.answer(c)), nil
}

func replyOf(status int, v *CheckoutView) *web.Reply[CheckoutView] {
	return &web.Reply[CheckoutView]{Status: status, Location: "/v1/checkouts/" + string(v.ID), Body: *v}
}

// asked is the checkout that a request asks for, once all that can be known beforehand is known to be right.
func (m *Module) asked(ctx context.Context, in *checkoutInput, k web.Key) (*checkout, error) {
	b, user := &in.Body, auth.From(ctx).User
	fields := map[string]string{"/payment/token": b.Payment.Token, "/payment/provider": b.Payment.Provider, "/email": b.Email, "/shipping_option": b.ShippingOption}
	if a := b.ShippingAddress; a != nil {
		for pointer, text := range map[string]string{"name": a.Name, "line1": a.Line1, "line2": a.Line2, "city": a.City, "region": a.Region, "postcode": a.Postcode, "phone": a.Phone} {
			fields["/shipping_address/"+pointer] = text
		}
	}
	if err := refuseCards(fields); err != nil {
		return nil, err
	}
	wrong := errs.Invalidf("validation_failed", "Parts of the request are not valid.")
	if !ids.Valid(b.CartID, "crt") {
		return nil, errs.NotFoundf("no such cart")
	}
	if user == "" && in.CartToken == "" {
		return nil, errs.NotFoundf("no such cart") // a stranger learns no more
	}
	if _, known := money.Digits(b.ExpectedTotal.Currency); !known {
		wrong.WithField("/expected_total/currency", "not_allowed")
	}
	if b.ExpectedTotal.Minor < 0 {
		wrong.WithField("/expected_total/amount", "out_of_range")
	}
	if user == "" && b.Email == "" {
		wrong.WithField("/email", "required")
	} else if b.Email != "" && !plausibleEmail(b.Email) {
		wrong.WithField("/email", "wrong_format")
	}
	var to ordersapi.Address
	switch a := b.ShippingAddress; {
	case (a == nil) == (b.ShippingAddressID == ""):
		wrong.WithField("/shipping_address", "required")
	case a != nil:
		to = ordersapi.Address{Name: a.Name, Line1: a.Line1, Line2: a.Line2, City: a.City, Region: a.Region, Postcode: a.Postcode, Country: strings.ToUpper(a.Country), Phone: a.Phone}
	case user == "":
		wrong.WithField("/shipping_address_id", "not_allowed") // guests have no address book
	}
	if len(wrong.Fields) > 0 {
		return nil, wrong
	}
	if b.ShippingAddressID != "" {
		a, err := m.Users.Address(ctx, usersapi.AddressRequest{User: user, ID: b.ShippingAddressID})
		if errs.Is(err, errs.NotFound) {
			return nil, wrong.WithField("/shipping_address_id", "unknown")
		}
		if err != nil {
			return nil, err
		}
		to = ordersapi.Address{Name: a.Name, Line1: a.Line1, Line2: a.Line2, City: a.City, Region: a.Region, Postcode: a.Postcode, Country: a.Country, Phone: a.Phone}
	}
	now := m.now()
	c := &checkout{
		ID: ids.New[ids.ID]("chk"), State: statePending, Step: stepPrepare, Attempt: 1, Deadline: now.Add(m.Config.Reservation), Cart: b.CartID,
		Customer: user, Guest: guestOf(user, in.CartToken), Order: ids.New[ordersapi.ID]("ord"), key: key{Scope: k.Caller + " " + k.Route, Value: k.Value},
		Terms:   pg.JSON[terms]{V: terms{Email: b.Email, Address: to, Option: b.ShippingOption, Expected: b.ExpectedTotal, Provider: b.Payment.Provider}},
		Secrets: m.seal(tokens{Cart: in.CartToken, Payment: b.Payment.Token}), Token: 1, CreatedAt: now,
	}
	return c, nil
}

// guestOf is how a guest is known again: by a hash of the cart's token. A user needs none.
func guestOf(user ids.ID, token string) string {
	if user != "" || token == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func plausibleEmail(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && strings.Contains(domain, ".") && !strings.ContainsAny(domain, "@") && !strings.ContainsAny(s, " \t\r\n<>(),;:\"\\")
}

// CheckoutRef names a checkout and, for guests, shows that it is theirs.
type CheckoutRef struct {
	ID         ids.ID `path:"id" maxLength:"64"`
	CartToken  string `header:"X-Cart-Token" maxLength:"200"`
	OrderToken string `header:"X-Order-Token" maxLength:"300"`
}

// own is the checkout a caller may see: a user's, a guest's by the cart's token, or by the order's.
func (m *Module) own(ctx context.Context, r *CheckoutRef) (*checkout, error) {
	user := auth.From(ctx).User
	shown, _ := ordersapi.OpenOrderToken(m.Secret, r.OrderToken, m.Now())
	c, err := ownCheckout(ctx, m.DB, r.ID, user, guestOf("", r.CartToken), shown)
	if pg.NoRows(err) {
		return nil, errs.NotFoundf("no such checkout")
	}
	return c, err
}

type getCheckoutInput struct {
	CheckoutRef
	Wait string `query:"wait" maxLength:"8" doc:"Such as 10s: wait that long for a change, at most 20s"`
}

func (m *Module) getCheckout(ctx context.Context, in *getCheckoutInput) (*web.Reply[CheckoutView], error) {
	var wait time.Duration
	if in.Wait != "" {
		d, err := time.ParseDuration(in.Wait)
		if err != nil || d < 0 {
			return nil, errs.Invalidf("validation_failed", "wait is a duration such as 10s").WithField("query.wait", "wrong_format")
		}
		wait = min(d, longestWait)
	}
	c, err := m.own(ctx, &in.CheckoutRef)
	if err != nil {
		return nil, err
	}
	if from := c.State; from == statePending || from == stateAction {
		if c, err = m.settled(ctx, c, time.Now().Add(wait), func(c *checkout) bool { return c.State != from }); err != nil {
			return nil, err
		}
	}
	return &web.Reply[CheckoutView]{Body: *m.answer(c)}, nil
}

// settled reads the checkout until done says so, the time is up, or the server or the client goes. It is told of changes made
// in this process and looks for those made in others.
func (m *Module) settled(ctx context.Context, c *checkout, until time.Time, done func(*checkout) bool) (*checkout, error) {
	if done(c) || !time.Now().Before(until) {
		return c, nil
	}
	changes, stop := m.Signals.wait(c.ID)
	defer stop()
	limit := time.NewTimer(time.Until(until))
	defer limit.Stop()
	look := time.NewTicker(m.Config.Poll)
	defer look.Stop()
	for {
		fresh, err := m.readCheckout(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		if c = fresh; done(c) {
			return c, nil
		}
		select {
		case <-changes:
		case <-look.C:
		case <-limit.C:
			return c, nil
		case <-ctx.Done():
			return c, nil
		case <-web.Draining(ctx):
			return c, nil
		}
	}
}

// postConfirm is one of the ways to ask for a look at the payment. If another is looking, it waits for what comes of that.
func (m *Module) postConfirm(ctx context.Context, in *CheckoutRef) (*web.Reply[CheckoutView], error) {
	c, err := m.own(ctx, in)
	if err != nil {
		return nil, err
	}
	if from := c.State; from == statePending || from == stateAction {
		running, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.Config.ReplyWithin)
		defer cancel()
		looked, err := m.resume(running, c.ID)
		if err != nil {
			m.log("confirm checkout", c.ID, err)
		}
		wait := time.Duration(0)
		if !looked {
			wait = m.Config.Lease
		}
		if c, err = m.readCheckout(ctx, c.ID); err != nil {
			return nil, err
		}
		if c, err = m.settled(ctx, c, time.Now().Add(wait), func(c *checkout) bool { return c.State != from }); err != nil {
			return nil, err
		}
	}
	return &web.Reply[CheckoutView]{Status: http.StatusOK, Body: *m.answer(c)}, nil
}

type listOrdersInput struct {
	Limit  int64  `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" maxLength:"1024"`
}

type position struct {
	ID string `json:"id"`
}

func (m *Module) listOrders(ctx context.Context, in *listOrdersInput) (*web.Reply[web.Page[ordersapi.Order]], error) {
	var at position
	if _, err := m.Cursors.Decode("orders", in.Cursor, &at); err != nil {
		return nil, err
	}
	rows, err := ordersOf(ctx, m.DB, auth.From(ctx).User, ordersapi.ID(at.ID), in.Limit+1)
	if err != nil {
		return nil, err
	}
	return m.page("orders", rows, in.Limit), nil
}

// page makes an answer of one row more than fits.
func (m *Module) page(list string, rows []order, limit int64) *web.Reply[web.Page[ordersapi.Order]] {
	p := web.Page[ordersapi.Order]{Data: []ordersapi.Order{}}
	if int64(len(rows)) > limit {
		rows = rows[:limit]
		p.NextCursor = m.Cursors.Encode(list, position{string(rows[limit-1].ID)})
	}
	for i := range rows {
		p.Data = append(p.Data, rows[i].view())
	}
	return &web.Reply[web.Page[ordersapi.Order]]{Body: p}
}

// OrderRef names an order and, for guests, shows that it is theirs.
type OrderRef struct {
	ID         ordersapi.ID `path:"id" maxLength:"64"`
	OrderToken string       `header:"X-Order-Token" maxLength:"300"`
}

func (m *Module) getOrder(ctx context.Context, in *OrderRef) (*web.Reply[ordersapi.Order], error) {
	o, err := m.order(ctx, ordersapi.OrderRequest{ID: in.ID, User: auth.From(ctx).User, Token: in.OrderToken})
	if err != nil {
		return nil, err
	}
	return &web.Reply[ordersapi.Order]{ETag: web.ETag(o.Version), Body: o}, nil
}

// AnyOrderRef names an order for staff.
type AnyOrderRef struct {
	ID ordersapi.ID `path:"id" maxLength:"64"`
}

func (m *Module) getAnyOrder(ctx context.Context, in *AnyOrderRef) (*web.Reply[ordersapi.Order], error) {
	o, err := findOrder(ctx, m.DB, in.ID)
	if pg.NoRows(err) {
		return nil, errs.NotFoundf("no such order")
	}
	if err != nil {
		return nil, err
	}
	return &web.Reply[ordersapi.Order]{ETag: web.ETag(o.Version), Body: o.view()}, nil
}

type listAllInput struct {
	State  string `query:"state" maxLength:"40"`
	Limit  int64  `query:"limit" minimum:"1" maximum:"100" default:"20"`
	Cursor string `query:"cursor" maxLength:"1024"`
}

func (m *Module) listAllOrders(ctx context.Context, in *listAllInput) (*web.Reply[web.Page[ordersapi.Order]], error) {
	var at position
	list := "all-orders:" + in.State
	if _, err := m.Cursors.Decode(list, in.Cursor, &at); err != nil {
		return nil, err
	}
	var rows []order
	var err error
	if in.State == "" {
		rows, err = allOrders(ctx, m.DB, ordersapi.ID(at.ID), in.Limit+1)
	} else {
		rows, err = ordersIn(ctx, m.DB, in.State, ordersapi.ID(at.ID), in.Limit+1)
	}
	if err != nil {
		return nil, err
	}
	return m.page(list, rows, in.Limit), nil
}

// CheckoutRow is a checkout as staff see it.
type CheckoutRow struct {
	ID        ids.ID       `json:"id"`
	State     string       `json:"state"`
	Step      string       `json:"step"`
	Attention bool         `json:"needs_attention"`
	Attempt   int64        `json:"attempt"`
	Tries     int64        `json:"tries"`
	LastError string       `json:"last_error"`
	Cart      ids.ID       `json:"cart_id"`
	Order     ordersapi.ID `json:"order_id"`
	Payment   ids.ID       `json:"payment_id"`
	Customer  ids.ID       `json:"customer"`
	Deadline  time.Time    `json:"deadline"`
	CreatedAt time.Time    `json:"created_at"`
}

func (m *Module) listCheckouts(ctx context.Context, in *listAllInput) (*web.Reply[web.Page[CheckoutRow]], error) {
	var at position
	state := in.State
	if state == "" {
		state = "needs_attention"
	}
	list := "checkouts:" + state
	if _, err := m.Cursors.Decode(list, in.Cursor, &at); err != nil {
		return nil, err
	}
	var rows []checkout
	var err error
	if state == "needs_attention" {
		rows, err = checkoutsNeedingAttention(ctx, m.DB, ids.ID(at.ID), in.Limit+1)
	} else {
		rows, err = checkoutsIn(ctx, m.DB, checkoutState(state), ids.ID(at.ID), in.Limit+1)
	}
	if err != nil {
		return nil, err
	}
	p := web.Page[CheckoutRow]{Data: []CheckoutRow{}}
	if int64(len(rows)) > in.Limit {
		rows = rows[:in.Limit]
		p.NextCursor = m.Cursors.Encode(list, position{string(rows[in.Limit-1].ID)})
	}
	for _, c := range rows {
		p.Data = append(p.Data, CheckoutRow{
			ID: c.ID, State: string(c.State), Step: string(c.Step), Attention: c.Attention, Attempt: c.Attempt, Tries: c.Tries, LastError: c.LastError,
			Cart: ids.ID(c.Cart), Order: c.Order, Payment: ids.ID(c.Payment), Customer: c.Customer, Deadline: c.Deadline.UTC(), CreatedAt: c.CreatedAt.UTC(),
		})
	}
	return &web.Reply[web.Page[CheckoutRow]]{Body: p}, nil
}

// CancellationRow is a cancellation as staff see it.
type CancellationRow struct {
	ID        ids.ID       `json:"id"`
	Order     ordersapi.ID `json:"order_id"`
	State     string       `json:"state"`
	Refund    money.Amount `json:"refund"`
	Tries     int64        `json:"tries"`
	LastError string       `json:"last_error"`
	CreatedAt time.Time    `json:"created_at"`
}

func (m *Module) listCancellations(ctx context.Context, in *listOrdersInput) (*web.Reply[web.Page[CancellationRow]], error) {
	var at position
	if _, err := m.Cursors.Decode("cancellations", in.Cursor, &at); err != nil {
		return nil, err
	}
	rows, err := cancellationsNeedingAttention(ctx, m.DB, ids.ID(at.ID), in.Limit+1)
	if err != nil {
		return nil, err
	}
	p := web.Page[CancellationRow]{Data: []CancellationRow{}}
	if int64(len(rows)) > in.Limit {
		rows = rows[:in.Limit]
		p.NextCursor = m.Cursors.Encode("cancellations", position{string(rows[in.Limit-1].ID)})
	}
	for _, c := range rows {
		p.Data = append(p.Data, CancellationRow{c.ID, c.Order, c.State, money.Of(c.Refund, c.Currency), c.Tries, c.LastError, c.CreatedAt.UTC()})
	}
	return &web.Reply[web.Page[CancellationRow]]{Body: p}, nil
}

// CancellationBody says what to cancel: nothing said means all that is not shipped.
type CancellationBody struct {
	Lines   []CancellationLine `json:"lines,omitempty" maxItems:"100"`
	Reason  string             `json:"reason,omitempty" maxLength:"200"`
	Restock *bool              `json:"restock,omitempty" doc:"Staff only: false writes the goods off. Default true"`
}

// CancellationLine is a number of one SKU.
type CancellationLine struct {
	SKU      string `json:"sku" minLength:"1" maxLength:"100"`
	Quantity int64  `json:"quantity" minimum:"1" maximum:"1000000"`
}

// CancellationView is a cancellation as its asker sees it.
type CancellationView struct {
	ID     ids.ID             `json:"id"`
	Order  ordersapi.ID       `json:"order_id"`
	State  string             `json:"state" doc:"done, or pending until the money is on its way back"`
	Lines  []CancellationLine `json:"lines"`
	Refund money.Amount       `json:"refund"`
	Reason string             `json:"reason"`
}

type cancelInput struct {
	OrderRef
	Body *CancellationBody `required:"false"`
}

func (m *Module) postCancellation(ctx context.Context, in *cancelInput) (*web.Reply[CancellationView], error) {
	user := auth.From(ctx).User
	shown, _ := ordersapi.OpenOrderToken(m.Secret, in.OrderToken, m.Now())
	o, err := ownOrder(ctx, m.DB, in.ID, user, shown)
	if pg.NoRows(err) {
		return nil, errs.NotFoundf("no such order")
	}
	if err != nil {
		return nil, err
	}
	return m.cancelFor(ctx, o.ID, actorOf(o.Customer), in.Body)
}

type cancelAnyInput struct {
	AnyOrderRef
	Body *CancellationBody `required:"false"`
}

func (m *Module) postAnyCancellation(ctx context.Context, in *cancelAnyInput) (*web.Reply[CancellationView], error) {
	return m.cancelFor(ctx, in.ID, "admin", in.Body)
}

func (m *Module) cancelFor(ctx context.Context, id ordersapi.ID, actor string, b *CancellationBody) (*web.Reply[CancellationView], error) {
	k, _ := web.KeyFrom(ctx)
	c := &cancellation{
		ID: ids.New[ids.ID]("can"), Order: id, Scope: k.Caller + " " + k.Route, Key: k.Value, Hash: k.Hash, Restock: true, Actor: actor, CreatedAt: m.now(),
	}
	var want []shippingapi.Line
	if b != nil {
		if err := refuseCards(map[string]string{"/reason": b.Reason}); err != nil {
			return nil, err
		}
		c.Reason = b.Reason
		if b.Restock != nil && actor == "admin" {
			c.Restock = *b.Restock
		}
		for _, l := range b.Lines {
			want = append(want, shippingapi.Line{SKU: l.SKU, Quantity: l.Quantity})
		}
	}
	if c.Reason == "" {
		c.Reason = "requested by the " + actor
	}
	done, err := m.cancel(ctx, c, want, actor == "admin")
	if pg.NoRows(err) {
		return nil, errs.NotFoundf("no such order")
	}
	if err != nil {
		return nil, err
	}
	if done.ID != c.ID {
		web.MarkReplayed(ctx)
	}
	if done.State == cancelRefused {
		return nil, done.Failure.V
	}
	v := CancellationView{ID: done.ID, Order: done.Order, State: done.State, Lines: []CancellationLine{}, Refund: money.Of(done.Refund, done.Currency), Reason: done.Reason}
	for _, l := range done.Lines.V {
		v.Lines = append(v.Lines, CancellationLine{l.SKU, l.Quantity})
	}
	return &web.Reply[CancellationView]{Status: http.StatusCreated, Body: v}, nil
}
