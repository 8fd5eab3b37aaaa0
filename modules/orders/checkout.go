package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/money"
	"github.com/banyan-shop/banyan/platform/pg"
)

// The checkout is a saga of ten steps, told here from top to bottom, each with its undo beside it. Its row is all it
// remembers. Whoever holds the row's lease runs drive: the request that began it, a confirmation, or the worker in resume.go
// after a crash, a webhook or a deadline. All of them do the same, from the step the row names, asking the other modules
// again with the same keys; so it does not matter where the last one stopped.
//
//	prepare  2 freeze, 3 reserve, 4 redeem, 5 order pending_payment
//	pay      6 authorise; asks again while the provider is silent
//	confirm  7 wait for the shopper's 3-D Secure
//	hold       declined: another card may come
//	         8 place, the point of no return, needs no row of its own: an authorised payment leads here from pay, confirm, hold
//	finish   9 capture, and end the cart, where place could not
//	undo       give everything back, payment first

// checkoutState is what the shopper is told.
type checkoutState string

const (
	statePending  checkoutState = "pending"
	stateAction   checkoutState = "action_required"
	stateDeclined checkoutState = "payment_failed"
	statePlaced   checkoutState = "placed"
	stateFailed   checkoutState = "failed"
	stateExpired  checkoutState = "expired"
)

type step string

const (
	stepPrepare step = "prepare"
	stepPay     step = "pay"
	stepConfirm step = "confirm"
	stepHold    step = "hold"
	stepFinish  step = "finish"
	stepUndo    step = "undo"
	stepDone    step = "done"
)

// checkout is a row of orders.checkouts.
type checkout struct {
	ID        ids.ID         `db:"id"`
	State     checkoutState  `db:"state"`
	Step      step           `db:"step"`
	Attempt   int64          `db:"attempt"`
	Tries     int64          `db:"tries"`
	Attention bool           `db:"attention"`
	Deadline  time.Time      `db:"deadline"`
	Cart      cartapi.ID     `db:"cart"`
	Customer  ids.ID         `db:"customer"`
	Guest     string         `db:"guest"`
	Order     ordersapi.ID   `db:"order_id"`
	Payment   paymentsapi.ID `db:"payment"`
	key
	Terms     pg.JSON[terms]                   `db:"terms"`
	Secrets   []byte                           `db:"secrets"`
	Next      pg.JSON[*paymentsapi.NextAction] `db:"next_action"`
	Failure   pg.JSON[*errs.Error]             `db:"failure"`
	LastError string                           `db:"last_error"`
	Token     int64                            `db:"lease_token"`
	CreatedAt time.Time                        `db:"created_at"`

	held   bool      // we have the lease
	leased time.Time // when it was last renewed
	order  *order    // once it was made or read
}

// key is an Idempotency-Key and whose it is.
type key struct {
	Scope string `db:"key_scope"`
	Value string `db:"key_value"`
}

// terms are what the shopper agreed to.
type terms struct {
	Email    string            `json:"email"`
	Address  ordersapi.Address `json:"address"`
	Option   string            `json:"option"`
	Expected money.Amount      `json:"expected"`
	Provider string            `json:"provider"`
}

// tokens are sealed in the row, and only until the payment's fate is known.
type tokens struct {
	Cart    string `json:"cart"`
	Payment string `json:"payment"`
}

const sealTokens = "checkout-tokens"

func (m *Module) seal(t tokens) []byte { return m.Secret.Encrypt(sealTokens, jsonOf(t)) }

func (m *Module) unseal(c *checkout) (t tokens, err error) {
	b, ok := m.Secret.Decrypt(sealTokens, c.Secrets)
	if !ok {
		return t, fmt.Errorf("the tokens of checkout %s were sealed with another secret", c.ID)
	}
	return t, json.Unmarshal(b, &t)
}

func (c *checkout) actor() string { return actorOf(c.Customer) }

// op is the key of an operation that every run of this checkout shares; op with an attempt, of one that a new card repeats.
func (c *checkout) op(step string) string { return operation(c.ID, step) }
func (c *checkout) opOfAttempt(step string) string {
	return operation(c.ID, fmt.Sprintf("%s/%d", step, c.Attempt))
}

// within is now + d, but never after the end of the whole checkout.
func (c *checkout) within(now time.Time, d, whole time.Duration) time.Time {
	if end := c.CreatedAt.Add(whole).UTC(); now.Add(d).After(end) {
		return end
	}
	return now.Add(d)
}

// begun is what a request found: its own checkout to drive, or an answer already there.
type begun struct {
	checkout *checkout // not held: somebody works on it, or it waits
	replay   *stored   // the key has been answered before
}

// begin is step 1: the key, the checkout and its lease are written at once, and unique indexes, not look-ups, decide who is
// first. Otherwise the key is replayed, or the declined checkout of the cart gets its next attempt. Undo: none, nothing
// happened yet.
func (m *Module) begin(ctx context.Context, c *checkout, hash []byte) (begun, error) {
	m.hit("orders.begin.before-commit")
	taken := errors.New("key or cart is taken")
	c.leased = time.Now()
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		ok, err := insertCheckout(ctx, tx, c, hash, m.Config.Lease)
		if err == nil && !ok {
			return taken // with it goes the key, if only the cart was taken
		}
		return err
	})
	m.hit("orders.begin.after-commit")
	if err == nil {
		c.held = true
		return begun{checkout: c}, nil
	}
	if !errors.Is(err, taken) {
		return begun{}, fmt.Errorf("begin checkout of cart %s: %w", c.Cart, err)
	}

	used, err := findKey(ctx, m.DB, c.key)
	if err == nil {
		return m.again(ctx, used, hash)
	}
	if !pg.NoRows(err) {
		return begun{}, err
	}
	next, err := m.nextAttempt(ctx, c, hash)
	if err == nil {
		return begun{checkout: next}, nil
	}
	if !pg.NoRows(err) {
		return begun{}, fmt.Errorf("pay again for cart %s: %w", c.Cart, err)
	}
	other, err := activeCheckout(ctx, m.DB, c.Cart)
	if pg.NoRows(err) {
		return begun{}, errs.Unavailablef("the checkout of this cart ended just now: try again") // nothing happened
	}
	if err != nil {
		return begun{}, err
	}
	return begun{}, inProgress(other, other.Customer == c.Customer && other.Guest == c.Guest)
}

// nextAttempt pays a declined checkout again, with a new key.
func (m *Module) nextAttempt(ctx context.Context, c *checkout, hash []byte) (next *checkout, err error) {
	err = m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if next, err = retryCheckout(ctx, tx, c, m.now().Add(m.Config.DeclineHold-m.Config.WholeWithin), m.Config.Lease); err != nil {
			return err
		}
		ok, err := insertKey(ctx, tx, next, hash, m.now())
		if err == nil && !ok {
			return inProgress(next, true) // the same key came twice at once
		}
		m.hit("orders.retry.before-commit")
		return err
	})
	m.hit("orders.retry.after-commit")
	return next, err
}

// again answers a key that was used before.
func (m *Module) again(ctx context.Context, used usedKey, hash []byte) (begun, error) {
	if string(used.Hash) != string(hash) {
		return begun{}, errs.Invalidf("idempotency_key_reused", "This Idempotency-Key was used with another request.")
	}
	if used.Reply.V != nil {
		return begun{replay: used.Reply.V}, nil
	}
	c, err := m.claim(ctx, used.Checkout) // what a crash left is taken up at once
	if pg.NoRows(err) {
		c, err = m.readCheckout(ctx, used.Checkout)
	}
	if err != nil {
		return begun{}, fmt.Errorf("checkout %s: %w", used.Checkout, err)
	}
	if c.State == statePlaced && c.Attempt == used.Attempt {
		return begun{checkout: c, replay: &stored{Status: http.StatusCreated, Answer: m.answer(c)}}, nil
	}
	if !c.held && c.State == statePending && c.Step != stepPay {
		return begun{}, inProgress(c, true)
	}
	return begun{checkout: c}, nil
}

// readCheckout is a checkout as it stands. One that is gone was refused before anything was begun.
func (m *Module) readCheckout(ctx context.Context, id ids.ID) (*checkout, error) {
	c, err := findCheckout(context.WithoutCancel(ctx), m.DB, id)
	if pg.NoRows(err) {
		return nil, errs.Unavailablef("the checkout was refused just now: try again to hear why")
	}
	return c, err
}

func inProgress(c *checkout, tell bool) error {
	err := errs.Conflictf("checkout_in_progress", "This cart is in a checkout already.")
	if tell {
		return err.WithDetails(map[string]any{"id": c.ID})
	}
	return err
}

// keepReply stores a refusal for its key's repeats. A request that was wrong in itself is forgotten instead, so that it may be
// mended under the same key, and so is a failure of ours.
func keepReply(ctx context.Context, tx *pg.Tx, c *checkout) error {
	if why := c.Failure.V; repeatable(why) {
		return saveReply(ctx, tx, c.key, stored{Refusal: why})
	}
	return forgetKey(ctx, tx, c.key)
}

// repeatable says whether a refusal is the answer to every repeat of its key.
func repeatable(why *errs.Error) bool {
	return why.Kind != errs.Invalid && why.Kind != errs.NotFound && why.Kind != errs.Unavailable
}

// drive takes a checkout as far as it goes while we hold its lease. It returns errLease when another took it over.
func (m *Module) drive(ctx context.Context, c *checkout) error {
	for c.held {
		ctx, cancel := context.WithDeadline(ctx, c.leased.Add(m.Config.Lease-m.Config.Lease/5))
		err := m.run(ctx, c)
		cancel()
		if err != nil && !errors.Is(err, errLease) {
			err = m.postpone(context.WithoutCancel(ctx), c, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Module) run(ctx context.Context, c *checkout) error {
	switch c.Step {
	case stepPrepare:
		return m.prepare(ctx, c)
	case stepPay:
		return m.pay(ctx, c)
	case stepConfirm, stepHold:
		return m.lookAgain(ctx, c)
	case stepFinish:
		return m.finish(ctx, c)
	case stepUndo:
		return m.undo(ctx, c)
	}
	return fmt.Errorf("checkout %s has no step %q", c.ID, c.Step)
}

// prepare is steps 2 to 5: the basket is frozen at its price, its goods are promised, its promo code is counted, and the order
// is written. Nothing but the order is recorded: a run that crashed is run again, with the same keys and so the same answers.
func (m *Module) prepare(ctx context.Context, c *checkout) error {
	t := c.Terms.V
	secret, err := m.unseal(c)
	if err != nil {
		return err
	}
	// 2. Undo: cart.Unlock.
	m.hit("orders.freeze.before-call")
	frozen, err := m.Cart.Freeze(ctx, cartapi.FreezeRequest{
		Key: c.opOfAttempt("freeze"), Checkout: c.ID, Cart: c.Cart, Owner: cartapi.Owner{User: c.Customer, Token: secret.Cart},
		Address:        cartapi.Address{Country: t.Address.Country, Region: t.Address.Region, Postcode: t.Address.Postcode},
		ShippingOption: t.Option, Expected: t.Expected,
	})
	m.hit("orders.freeze.after-call")
	if refusal := refused(err); refusal != nil {
		return m.refuse(ctx, c, refusal) // a refused freeze has locked nothing
	} else if err != nil {
		return fmt.Errorf("freeze cart %s: %w", c.Cart, err)
	}
	o := newOrder(c, frozen, m.now())

	// 3. Undo: catalog.Release; without one it lapses by itself.
	m.hit("orders.reserve.before-call")
	err = m.reserve(ctx, c, o)
	m.hit("orders.reserve.after-call")
	if refusal := refused(err); refusal != nil {
		return m.giveUp(ctx, c, refusal)
	} else if err != nil {
		return fmt.Errorf("reserve for checkout %s: %w", c.ID, err)
	}

	// 4. Undo: cart.Unlock takes the count back too.
	if frozen.Promo != "" {
		m.hit("orders.redeem.before-call")
		_, err = m.Cart.Redeem(ctx, cartapi.RedeemRequest{Key: c.op("redeem"), Checkout: c.ID, Cart: c.Cart})
		m.hit("orders.redeem.after-call")
		if refusal := refused(err); refusal != nil {
			return m.giveUp(ctx, c, refusal)
		} else if err != nil {
			return fmt.Errorf("redeem the promo of cart %s: %w", c.Cart, err)
		}
	}

	// 5. Undo: the order expires.
	n := *c
	n.Step, n.Tries, n.Deadline, n.order = stepPay, 0, c.within(m.now(), m.Config.UnknownWithin, m.Config.WholeWithin), o
	for {
		err = m.save(ctx, c, n, keep{hold: true}, "orders.order", func(tx *pg.Tx) error { return putOrder(ctx, tx, o) })
		if !pg.IsUnique(err, "orders_number") {
			break
		}
		o.Number = newNumber()
	}
	if pg.IsUnique(err, "orders_cart") {
		return m.giveUp(ctx, c, errs.Conflictf("cart_completed", "this cart has been bought already"))
	}
	return err
}

// reserve promises the goods to the first attempt, and keeps them promised to later ones.
func (m *Module) reserve(ctx context.Context, c *checkout, o *order) error {
	if c.Attempt > 1 {
		_, err := m.Catalog.Extend(ctx, catalogapi.ExtendRequest{Checkout: c.ID, Until: c.Deadline})
		if !errs.Is(err, errs.NotFound) {
			return err
		}
	}
	_, err := m.Catalog.Reserve(ctx, catalogapi.ReserveRequest{Key: c.opOfAttempt("reserve"), Checkout: c.ID, Lines: o.quantities(), Until: c.Deadline})
	return err
}

// pay is step 6. The order, and with it the step and its key, are committed; only then is the provider asked. The payments
// module makes one payment of one key, so a run that follows a lost answer finds out what became of it.
func (m *Module) pay(ctx context.Context, c *checkout) error {
	o, err := m.orderOf(ctx, c)
	if err != nil {
		return err
	}
	if o.Total == 0 {
		return m.place(ctx, c, o, paymentsapi.Payment{Amount: o.amount(0)})
	}
	if !m.now().Before(c.Deadline) {
		return m.expire(ctx, c, o)
	}
	secret, err := m.unseal(c)
	if err != nil {
		return err
	}
	// Undo: payments.Void, and payments.Refund where it came too late.
	m.hit("orders.authorize.before-call")
	p, err := m.Payments.Authorize(ctx, paymentsapi.AuthorizeRequest{
		Key: c.opOfAttempt("authorize"), Checkout: c.ID, Order: ids.ID(o.ID), Customer: c.Customer, Amount: o.amount(o.Total),
		Provider: c.Terms.V.Provider, Token: secret.Payment,
	})
	m.hit("orders.authorize.after-call")
	switch {
	case errs.Is(err, errs.Invalid):
		return m.decline(ctx, c, paymentsapi.Payment{}, refused(err))
	case err != nil:
		return fmt.Errorf("authorise checkout %s: %w", c.ID, err)
	}
	if c.Payment = p.ID; undecided(p) { // most silences are short
		if p, err = m.ask(ctx, c); err != nil {
			return err
		}
	}
	return m.follow(ctx, c, o, p)
}

// lookAgain is step 7, and what a declined checkout does when it is looked at: the provider says how the payment stands.
func (m *Module) lookAgain(ctx context.Context, c *checkout) error {
	o, err := m.orderOf(ctx, c)
	if err != nil {
		return err
	}
	if !m.now().Before(c.Deadline) {
		return m.expire(ctx, c, o)
	}
	if c.Payment == "" {
		return m.letGo(ctx, c, keep{wait: c.Deadline.Sub(m.now())})
	}
	p, err := m.ask(ctx, c)
	if err != nil {
		return err
	}
	return m.follow(ctx, c, o, p)
}

func (m *Module) ask(ctx context.Context, c *checkout) (paymentsapi.Payment, error) {
	m.hit("orders.payment.before-call")
	p, err := m.Payments.Payment(ctx, paymentsapi.PaymentRequest{ID: c.Payment})
	m.hit("orders.payment.after-call")
	if err != nil {
		return p, fmt.Errorf("ask about payment %s: %w", c.Payment, err)
	}
	return p, nil
}

func undecided(p paymentsapi.Payment) bool {
	switch p.State {
	case paymentsapi.ActionRequired, paymentsapi.Authorised, paymentsapi.Captured, paymentsapi.Refunded, paymentsapi.Voided, paymentsapi.Failed:
		return false
	}
	return true
}

// follow does what the state of the payment calls for.
func (m *Module) follow(ctx context.Context, c *checkout, o *order, p paymentsapi.Payment) error {
	switch p.State {
	case paymentsapi.Authorised, paymentsapi.Captured:
		return m.place(ctx, c, o, p)
	case paymentsapi.Failed, paymentsapi.Voided, paymentsapi.Refunded:
		if c.Step == stepHold {
			return m.letGo(ctx, c, keep{wait: c.Deadline.Sub(m.now())})
		}
		return m.decline(ctx, c, p, nil)
	case paymentsapi.ActionRequired:
		if c.Step == stepConfirm {
			return m.letGo(ctx, c, keep{wait: min(time.Minute, c.Deadline.Sub(m.now()))})
		}
		return m.await(ctx, c, p)
	}
	c.Tries++
	return m.letGo(ctx, c, keep{wait: backoff(c.Tries)})
}

// await is step 7: the shopper must act at the provider, and the goods stay promised meanwhile.
func (m *Module) await(ctx context.Context, c *checkout, p paymentsapi.Payment) error {
	n, next := *c, p.NextAction
	n.State, n.Step, n.Payment, n.Next.V, n.Secrets, n.Tries = stateAction, stepConfirm, p.ID, &next, nil, 0
	n.Attention, n.LastError = false, ""
	n.Deadline = c.within(m.now(), m.Config.ActionWithin, m.Config.WholeWithin)
	m.extend(ctx, &n)
	return m.save(ctx, c, n, keep{wait: min(time.Minute, n.Deadline.Sub(m.now()))}, "orders.await", func(tx *pg.Tx) error {
		return saveReply(ctx, tx, n.key, stored{Status: http.StatusAccepted, Answer: m.answer(&n)})
	})
}

// extend keeps the goods promised as long as the checkout waits. If that fails they are promised again at step 8.
func (m *Module) extend(ctx context.Context, c *checkout) {
	m.hit("orders.extend.before-call")
	_, err := m.Catalog.Extend(ctx, catalogapi.ExtendRequest{Checkout: c.ID, Until: c.Deadline})
	m.hit("orders.extend.after-call")
	if err != nil {
		m.Log.WarnContext(ctx, "reservation not extended", "checkout", c.ID, "err", err)
	}
}

// decline keeps goods, promo and cart for a while: another card may work. why is "" for the provider's no.
func (m *Module) decline(ctx context.Context, c *checkout, p paymentsapi.Payment, why *errs.Error) error {
	n := *c
	n.State, n.Step, n.Payment, n.Next.V, n.Secrets, n.Tries = stateDeclined, stepHold, p.ID, nil, nil, 0
	n.Attention, n.LastError = false, ""
	n.Deadline = c.within(m.now(), m.Config.DeclineHold, m.Config.WholeWithin)
	var es []events.Event
	if why == nil {
		why = errs.New(errs.Declined, "payment_declined", "The payment was declined. Another one may be tried.").
			WithDetails(map[string]any{"checkout": c.ID, "decline_code": p.DeclineCode, "retry_until": n.Deadline})
		es = append(es, ordersapi.PaymentDeclined{Order: c.Order, Customer: c.Customer, RetryUntil: n.Deadline})
	}
	n.Failure.V = why
	m.extend(ctx, &n)
	return m.save(ctx, c, n, keep{wait: n.Deadline.Sub(m.now())}, "orders.decline", func(tx *pg.Tx) error {
		if err := keepReply(ctx, tx, &n); err != nil {
			return err
		}
		return events.Publish(ctx, tx, es...)
	})
}

// expire ends a checkout whose time is up: the payment is cancelled first, and only when that is certain are goods, promo and
// cart given back. A cancellation that comes too late finds the money there, and the order is placed after all.
func (m *Module) expire(ctx context.Context, c *checkout, o *order) error {
	over := errs.Conflictf("checkout_expired", "The checkout was not paid in time.")
	p, found, err := m.activePayment(ctx, c, o)
	if err != nil {
		return err
	}
	if !found || p.State == paymentsapi.Failed || !voidFirst {
		return m.giveUp(ctx, c, over)
	}
	if p.State != paymentsapi.Authorised && p.State != paymentsapi.Captured {
		if p, err = m.void(ctx, c, p.ID); err != nil {
			return err
		}
	}
	switch p.State {
	case paymentsapi.Authorised, paymentsapi.Captured:
		return m.place(ctx, c, o, p)
	case paymentsapi.Voided, paymentsapi.Failed, paymentsapi.Refunded:
		return m.giveUp(ctx, c, over)
	}
	return errs.Unavailablef("payment %s is %s, its cancellation is not certain", p.ID, p.State)
}

// activePayment is the payment of the present attempt; one whose answer was lost is found by its order.
func (m *Module) activePayment(ctx context.Context, c *checkout, o *order) (paymentsapi.Payment, bool, error) {
	if c.Payment != "" {
		p, err := m.ask(ctx, c)
		return p, err == nil, err
	}
	l, err := m.Payments.ByOrder(ctx, paymentsapi.ByOrderRequest{Orders: []ids.ID{ids.ID(o.ID)}})
	if err != nil {
		return paymentsapi.Payment{}, false, fmt.Errorf("payments of order %s: %w", o.ID, err)
	}
	for _, p := range l.Payments {
		if p.State != paymentsapi.Failed && p.State != paymentsapi.Voided {
			c.Payment = p.ID
			p, err = m.ask(ctx, c)
			return p, err == nil, err
		}
	}
	return paymentsapi.Payment{}, false, nil
}

func (m *Module) void(ctx context.Context, c *checkout, id paymentsapi.ID) (paymentsapi.Payment, error) {
	m.hit("orders.void.before-call")
	p, err := m.Payments.Void(ctx, paymentsapi.VoidRequest{Key: c.op("void/" + string(id)), ID: id})
	m.hit("orders.void.after-call")
	if err != nil {
		return p, fmt.Errorf("void payment %s: %w", id, err)
	}
	return p, nil
}

// place is step 8, the point of no return, and step 9 where it goes well: the goods become the order's, the money is taken,
// the cart ends, and one transaction makes the order stand. From the allocation on there is only forward: every way back
// here, by whomever, finds an authorised payment and comes to the same end.
func (m *Module) place(ctx context.Context, c *checkout, o *order, p paymentsapi.Payment) error {
	if err := m.needTime(ctx, c); err != nil {
		return err
	}
	m.hit("orders.allocate.before-call")
	_, err := m.Catalog.Allocate(ctx, catalogapi.AllocateRequest{Key: c.op("allocate"), Checkout: c.ID, Order: ids.ID(o.ID), Lines: o.quantities()})
	m.hit("orders.allocate.after-call")
	if errs.Has(err, "insufficient_stock") {
		// The only lawful "paid, no order". Undo: payments.Void or Refund until confirmed.
		m.Log.ErrorContext(ctx, "paid for goods that are gone", "checkout", c.ID, "order", o.ID, "payment", p.ID)
		gone := errs.Conflictf("out_of_stock", "The goods were sold before the payment came through. The payment is given back.")
		gone.Details = refused(err).Details
		c.Payment = p.ID
		return m.giveUp(ctx, c, gone)
	}
	if err != nil {
		return fmt.Errorf("allocate for order %s: %w", o.ID, err)
	}

	captured, end := m.captureAndComplete(ctx, c, o, p)
	now := m.now()
	stands := *o // what is saved only if we still hold the lease
	stands.History.V = append([]ordersapi.Entry{}, o.History.V...)
	if err := stands.place(p.ID, captured, now); err != nil {
		return err
	}
	n := *c
	n.State, n.Step, n.Payment, n.Secrets, n.Next.V, n.Failure.V, n.order = statePlaced, stepDone, p.ID, nil, nil, nil, &stands
	n.Tries, n.Attention, n.LastError = 0, false, ""
	k := keep{done: true}
	if end != nil {
		m.Log.WarnContext(ctx, "placed, but not all is finished", "checkout", c.ID, "order", o.ID, "err", end)
		n.Step, k, n.LastError = stepFinish, keep{wait: time.Second}, end.Error()
	}
	return m.save(ctx, c, n, k, "orders.place", func(tx *pg.Tx) error {
		fresh := stands // the transaction may be run again
		if err := saveOrder(ctx, tx, &fresh); err != nil {
			return err
		}
		return events.Publish(ctx, tx, fresh.placedEvent())
	})
}

// captureAndComplete takes the money and ends the cart. Neither can be refused the shopper any more, so an error leaves the
// rest to finish.
func (m *Module) captureAndComplete(ctx context.Context, c *checkout, o *order, p paymentsapi.Payment) (captured int64, err error) {
	captured = p.Captured.Minor
	if captured < o.Total {
		m.hit("orders.capture.before-call")
		taken, e := m.Payments.Capture(ctx, paymentsapi.CaptureRequest{Key: operation(o.ID, "capture/"+string(p.ID)), ID: p.ID, Amount: o.amount(o.Total)})
		m.hit("orders.capture.after-call")
		if e != nil {
			err = fmt.Errorf("capture payment %s: %w", p.ID, e)
		} else {
			captured = taken.Captured.Minor
		}
	}
	m.hit("orders.complete.before-call")
	_, e := m.Cart.Complete(ctx, cartapi.CompleteRequest{Checkout: c.ID, Cart: c.Cart, Order: ids.ID(o.ID)})
	m.hit("orders.complete.after-call")
	if e != nil && !errs.Is(e, errs.NotFound) { // a cart that is gone needs no end
		err = errors.Join(err, fmt.Errorf("complete cart %s: %w", c.Cart, e))
	}
	return captured, err
}

// finish does what place left over. An order that was cancelled meanwhile may have had its hold given back: then there is
// nothing to take.
func (m *Module) finish(ctx context.Context, c *checkout) error {
	o, err := m.orderOf(ctx, c)
	if err != nil {
		return err
	}
	p := paymentsapi.Payment{Amount: o.amount(0)}
	if c.Payment != "" {
		if p, err = m.ask(ctx, c); err != nil {
			return err
		}
	}
	if p.State == paymentsapi.Voided || p.State == paymentsapi.Refunded {
		o.Total = 0 // in memory alone: nothing is left to be captured
	}
	captured, err := m.captureAndComplete(ctx, c, o, p)
	if err != nil {
		return err
	}
	n := *c
	n.Step, n.Tries, n.Attention, n.LastError = stepDone, 0, false, ""
	return m.save(ctx, c, n, keep{done: true}, "orders.finish", func(tx *pg.Tx) error {
		fresh, err := lockOrder(ctx, tx, c.Order)
		if err != nil || fresh.Captured >= captured {
			return err
		}
		fresh.Captured, fresh.UpdatedAt = captured, m.now()
		return saveOrder(ctx, tx, fresh)
	})
}

// refuse ends an attempt that holds nothing of its own: a first one ends the checkout, a later one leaves it declined, with what
// it held, for the next.
func (m *Module) refuse(ctx context.Context, c *checkout, why *errs.Error) error {
	n := *c
	n.State, n.Step, n.Failure.V, n.Secrets, n.Tries = stateFailed, stepDone, why, nil, 0
	k := keep{done: true}
	if c.Attempt > 1 {
		n.State, n.Step = stateDeclined, stepHold
		n.Deadline = c.within(m.now(), m.Config.DeclineHold, m.Config.WholeWithin)
		k = keep{wait: n.Deadline.Sub(m.now())}
	}
	return m.save(ctx, c, n, k, "orders.refuse", func(tx *pg.Tx) error {
		if err := keepReply(ctx, tx, &n); err != nil || c.Attempt > 1 || why.Kind != errs.NotFound {
			return err
		}
		return deleteCheckout(ctx, tx, c.ID) // no cart, or somebody else's: the try leaves nothing behind
	})
}

// giveUp records that everything is to be given back, before the first thing is: a later run must not go on as if it were
// all still there.
func (m *Module) giveUp(ctx context.Context, c *checkout, why *errs.Error) error {
	if c.Step == stepPrepare && c.Attempt > 1 {
		return m.refuse(ctx, c, why)
	}
	n := *c
	n.State, n.Step, n.Tries, n.Failure.V, n.Secrets, n.Next.V = statePending, stepUndo, 0, why, nil, nil
	return m.save(ctx, c, n, keep{hold: true}, "orders.give-up", nil)
}

// undo gives back in the order that can't hurt: the payment until that is confirmed, then goods, then promo and cart, then the
// order says so. Each may be repeated; what is gone already stays gone.
func (m *Module) undo(ctx context.Context, c *checkout) error {
	refunded, err := m.undoPayment(ctx, c)
	if err != nil {
		return err
	}
	m.hit("orders.release.before-call")
	_, err = m.Catalog.Release(ctx, catalogapi.ReleaseRequest{Checkout: c.ID})
	m.hit("orders.release.after-call")
	if err != nil {
		return fmt.Errorf("release the goods of checkout %s: %w", c.ID, err)
	}
	m.hit("orders.unlock.before-call")
	_, err = m.Cart.Unlock(ctx, cartapi.UnlockRequest{Checkout: c.ID, Cart: c.Cart})
	m.hit("orders.unlock.after-call")
	if err != nil {
		return fmt.Errorf("unlock cart %s: %w", c.Cart, err)
	}

	why, n := c.Failure.V, *c
	n.State, n.Step, n.Tries, n.Attention, n.LastError = stateFailed, stepDone, 0, false, ""
	if why.Code == "checkout_expired" {
		n.State = stateExpired
	}
	return m.save(ctx, c, n, keep{done: true}, "orders.undone", func(tx *pg.Tx) error {
		if err := keepReply(ctx, tx, &n); err != nil {
			return err
		}
		o, err := lockOrder(ctx, tx, c.Order)
		if pg.NoRows(err) {
			return nil // it did not come to an order
		}
		if err != nil {
			return err
		}
		if why.Code != "out_of_stock" {
			if err := o.expire(m.now()); err != nil {
				return err
			}
			return saveOrder(ctx, tx, o)
		}
		if err := o.moveTo(cancelled, "system", "out_of_stock", m.now()); err != nil {
			return err
		}
		o.Payment, o.Captured, o.Refunded = c.Payment, refunded, refunded
		if err := saveOrder(ctx, tx, o); err != nil {
			return err
		}
		return events.Publish(ctx, tx, cancelledEvent(o, ids.Derived[ids.ID]("can", string(c.ID), "out_of_stock"),
			planned{Lines: o.ordered(), Whole: true}, refunded, false, true, "out_of_stock", m.now()))
	})
}

// undoPayment gives the money back, if any came, and returns how much was more than a hold.
func (m *Module) undoPayment(ctx context.Context, c *checkout) (refunded int64, err error) {
	if c.Payment == "" || !voidFirst {
		return 0, nil
	}
	p, err := m.ask(ctx, c)
	if err != nil {
		return 0, err
	}
	switch p.State {
	case paymentsapi.Failed, paymentsapi.Voided:
		return 0, nil
	case paymentsapi.Captured, paymentsapi.Refunded:
	default:
		if p, err = m.void(ctx, c, p.ID); err != nil {
			return 0, err
		}
		if p.State == paymentsapi.Voided || p.State == paymentsapi.Failed {
			return 0, nil
		}
	}
	if p.State != paymentsapi.Captured && p.State != paymentsapi.Refunded {
		return 0, errs.Unavailablef("payment %s is %s, its cancellation is not certain", p.ID, p.State)
	}
	left, err := p.Captured.Sub(p.Refunded)
	if err != nil || left.Minor == 0 {
		return p.Refunded.Minor, err
	}
	m.hit("orders.refund-undo.before-call")
	p, err = m.Payments.Refund(ctx, paymentsapi.RefundRequest{Key: c.opOfAttempt("refund/" + string(p.ID)), ID: p.ID, Amount: left, Reason: c.Failure.V.Code})
	m.hit("orders.refund-undo.after-call")
	if errs.Is(err, errs.Declined) {
		c.Attempt++ // a refusal is an answer: the next try is another refund
	}
	if err != nil {
		return 0, fmt.Errorf("refund payment %s: %w", c.Payment, err)
	}
	return p.Refunded.Minor, nil
}

// refused is err if it is an answer that another try would not change; nil for none and for what may pass.
func refused(err error) *errs.Error {
	var e *errs.Error
	if !errors.As(err, &e) || errs.Has(err, "key_reused") {
		return nil
	}
	switch e.Kind {
	case errs.NotFound, errs.Conflict, errs.Invalid, errs.PreconditionFailed:
		return e
	}
	return nil
}

// save commits a checkout's progress from c to next, if we still hold its lease, together with fn's writes; c is next only
// once that is certain. place names the failpoints.
func (m *Module) save(ctx context.Context, c *checkout, next checkout, k keep, place string, fn func(tx *pg.Tx) error) error {
	next.leased = time.Now()
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		if err := saveCheckout(ctx, tx, &next, k, m.Config.Lease); err != nil {
			return err
		}
		if fn != nil {
			if err := fn(tx); err != nil {
				return err
			}
		}
		m.hit(place + ".before-commit")
		return nil
	})
	if err != nil {
		return fmt.Errorf("save checkout %s: %w", c.ID, err)
	}
	m.hit(place + ".after-commit")
	*c = next
	if k.done {
		m.Metrics.ended.WithLabelValues(string(c.State)).Inc()
	}
	if c.held = k.hold; !c.held {
		m.Signals.changed(c.ID)
		if !k.done {
			m.Signals.wake() // a signal may have come while we held it
		}
	}
	return nil
}

func (m *Module) letGo(ctx context.Context, c *checkout, k keep) error {
	return m.save(ctx, c, *c, k, "orders.let-go", nil)
}

// needTime renews a lease that is more than half over: what follows should not be done by two at a time, even though it could.
func (m *Module) needTime(ctx context.Context, c *checkout) error {
	if time.Since(c.leased) < m.Config.Lease/2 {
		return nil
	}
	return m.save(context.WithoutCancel(ctx), c, *c, keep{hold: true}, "orders.renew", nil)
}

// postpone leaves a step that failed to a later try. After many, somebody is asked to look; the tries go on, further apart.
func (m *Module) postpone(ctx context.Context, c *checkout, cause error) error {
	c.Tries++
	c.LastError = cause.Error()
	if c.Tries >= m.Config.Tries {
		if c.Step == stepPrepare { // nothing is paid: better an answer than patience
			return m.giveUp(ctx, c, errs.New(errs.Unavailable, "checkout_failed", "The checkout could not be done. Nothing was charged."))
		}
		if !c.Attention {
			m.Log.ErrorContext(ctx, "checkout needs attention", "checkout", c.ID, "step", c.Step, "tries", c.Tries, "err", cause)
		}
		c.Attention = true
	} else {
		m.Log.WarnContext(ctx, "checkout postponed", "checkout", c.ID, "step", c.Step, "tries", c.Tries, "err", cause)
	}
	return m.letGo(ctx, c, keep{wait: backoff(c.Tries)})
}

// backoff is 100 ms, 200 ms … 5 min.
func backoff(tries int64) time.Duration {
	return min(5*time.Minute, 50*time.Millisecond<<min(tries, 14))
}

// orderOf is the checkout's order, read once a run.
func (m *Module) orderOf(ctx context.Context, c *checkout) (*order, error) {
	if c.order == nil {
		o, err := findOrder(ctx, m.DB, c.Order)
		if err != nil {
			return nil, fmt.Errorf("read order %s: %w", c.Order, err)
		}
		c.order = o
	}
	return c.order, nil
}
