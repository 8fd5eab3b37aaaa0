package orders

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/cartapi"
	"github.com/banyan-shop/banyan/api/catalogapi"
	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// kill is what a crash looks like in these tests: nothing after it runs, and what was not committed never was.
type kill struct{ place string }

// killAt ends whatever comes by place for the n-th time, once.
func (b *bundle) killAt(place string, n int) (happened func() bool) {
	var mu sync.Mutex
	done := false
	b.Signals.crash = func(name string) {
		mu.Lock()
		defer mu.Unlock()
		if name != place || done {
			return
		}
		if n--; n == 0 {
			done = true
			panic(kill{place})
		}
	}
	return func() bool { mu.Lock(); defer mu.Unlock(); return done }
}

// survive runs f, which may be killed.
func survive(f func()) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(kill); !ok {
				panic(p)
			}
		}
	}()
	f()
}

// story is one way through the saga, and what it must come to however often it is interrupted.
type story struct {
	name  string
	setup func(b *bundle, k *basket)
	run   func(b *bundle, k basket)
	end   func(b *bundle, k basket)
}

func stories() []story {
	bought := func(b *bundle, k basket) {
		b.wantCart(k, "completed")
		b.wantStock("mug", 10, 2)
		b.wantStock("tea", 10, 1)
		if n := b.count(`SELECT count(*) FROM orders.orders WHERE state = 'placed' AND captured = total`); n != 1 {
			b.t.Errorf("%d orders stand", n)
		}
	}
	again := func(b *bundle, k basket, key, token string) { // as a client does that got no answer
		for range 4 {
			a := b.checkout(k, key, token)
			b.lapse()
			if a.status < 500 && a.text("code") != "checkout_in_progress" {
				return
			}
		}
	}
	confirmed := func(b *bundle, approve bool) {
		for _, p := range b.payments.All() {
			b.payments.Confirm(p.ID, approve)
		}
		survive(b.lookAtAll)
		b.lapse()
	}
	return []story{
		{
			name: "an approved card",
			run:  func(b *bundle, k basket) { again(b, k, "one", "tok_approve") },
			end:  bought,
		},
		{
			name:  "a promo code",
			setup: func(b *bundle, k *basket) { b.cart.SetPromo(k.id, "TENTH", 1000, 1); k.total -= 370 },
			run:   func(b *bundle, k basket) { again(b, k, "one", "tok_approve") },
			end:   bought,
		},
		{
			name: "a declined card and another",
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_decline")
				b.work()
				again(b, k, "two", "tok_approve")
			},
			end: bought,
		},
		{
			name: "3-D Secure approved",
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_3ds")
				b.work()
				confirmed(b, true)
			},
			end: bought,
		},
		{
			name: "3-D Secure abandoned",
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_3ds")
				b.work()
				b.clock.Advance(31 * time.Minute)
				survive(b.lookAtAll)
				b.lapse()
			},
			end: func(b *bundle, k basket) {
				b.wantCart(k, "active")
				b.wantStock("mug", 10, 0)
				if n := b.count(`SELECT count(*) FROM orders.orders WHERE state = 'expired'`); n != 1 {
					b.t.Errorf("%d orders expired", n)
				}
			},
		},
		{
			name: "goods gone after the payment",
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_3ds")
				b.work()
				p := b.payments.All()[0]
				b.payments.Confirm(p.ID, true)
				b.payments.Capture(b.t.Context(), paymentsapi.CaptureRequest{Key: "at once", ID: p.ID, Amount: p.Amount})
				b.catalog.Release(b.t.Context(), catalogapi.ReleaseRequest{Checkout: p.Checkout})
				b.catalog.SetStock("mug", 1)
				survive(b.lookAtAll)
				b.lapse()
			},
			end: func(b *bundle, k basket) {
				b.wantCart(k, "active")
				b.wantStock("tea", 10, 0)
				if s := b.payments.All()[0].State; s != paymentsapi.Refunded {
					b.t.Errorf("the payment is %s", s)
				}
				if n := b.count(`SELECT count(*) FROM orders.outbox WHERE name = 'orders.order_cancelled.v1'`); n != 1 {
					b.t.Errorf("told %d times", n)
				}
			},
		},
		{
			name: "a promo code used up meanwhile",
			setup: func(b *bundle, k *basket) {
				b.cart.SetPromo(k.id, "TENTH", 1000, 1)
				k.total -= 370
				b.cart.Fail = func(method string) error {
					if method == "Redeem" {
						return errs.Conflictf("promo_exhausted", "used up")
					}
					return nil
				}
			},
			run: func(b *bundle, k basket) { again(b, k, "one", "tok_approve") },
			end: func(b *bundle, k basket) {
				b.wantCart(k, "active")
				b.wantStock("mug", 10, 0)
			},
		},
		{
			name: "a capture that fails at first",
			setup: func(b *bundle, _ *basket) {
				failed := false
				b.calls.before = func(method string) error {
					if method == "Capture" && !failed {
						failed = true
						return errs.Unavailablef("not now")
					}
					return nil
				}
			},
			run: func(b *bundle, k basket) { again(b, k, "one", "tok_approve") },
			end: bought,
		},
		{
			name: "an answer lost between the modules",
			setup: func(b *bundle, _ *basket) {
				lost := false
				b.calls.after = func(method string) error {
					if method == "Authorize" && !lost {
						lost = true
						return errs.New(errs.NoAnswer, "", "no answer")
					}
					return nil
				}
			},
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_approve")
				survive(b.work)
				b.lapse()
			},
			end: bought,
		},
		{
			name: "a whole cancellation",
			run: func(b *bundle, k basket) {
				again(b, k, "one", "tok_approve")
				b.work()
				b.cancelOnly(k)
			},
			end: func(b *bundle, k basket) {
				if p := b.payments.All()[0]; p.Refunded != p.Captured {
					b.t.Errorf("the payment is %+v", p)
				}
				if n := b.count(`SELECT count(*) FROM orders.outbox WHERE name = 'orders.order_cancelled.v1'`); n != 1 {
					b.t.Errorf("told %d times", n)
				}
			},
		},
	}
}

// cancelOnly cancels the only order there is, as a client that got no answer does.
func (b *bundle) cancelOnly(k basket) {
	var id string
	if err := b.DB.Get(b.t.Context(), &id, `SELECT id FROM orders.orders WHERE state = 'placed'`); err != nil {
		b.t.Fatal(err)
	}
	for range 3 {
		a := b.do("POST", "/v1/orders/"+id+"/cancellations", call{as: k.owner.User, key: "cancel", body: map[string]any{}})
		b.lapse()
		if a.status < 500 {
			return
		}
	}
}

// TestACrashAnywhereIsSurvived runs every story once for each place it comes by, is killed there, and goes on as clients and
// workers do. -short takes every seventh.
func TestACrashAnywhereIsSurvived(t *testing.T) {
	t.Parallel()
	visited := &places{seen: map[string]bool{}}
	t.Cleanup(func() { visited.compare(t) })
	for _, s := range stories() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			var way []string
			b.Signals.crash = func(name string) { way = append(way, name); visited.add(name) }
			k := begin(b, s)
			s.run(b, k)
			settle(b)
			s.end(b, k)
			b.sound()

			seen := map[string]int{}
			for i, place := range way {
				seen[place]++
				if testing.Short() && i%7 != 0 {
					continue
				}
				n := seen[place]
				if n > 2 { // a third time by the same place is a repeat of the second
					continue
				}
				b := setupIn(t, b)
				happened := b.killAt(place, n)
				k := begin(b, s)
				s.run(b, k)
				b.lapse()
				settle(b)
				s.end(b, k)
				b.sound()
				if !happened() {
					t.Errorf("it did not come by %s for the %d. time", place, n)
				}
				if t.Failed() {
					t.Fatalf("killed at %s, %d. time", place, n)
				}
			}
		})
	}
}

func begin(b *bundle, s story) basket {
	b.ReplyNow()
	k := b.basket(cartapi.Owner{User: ann})
	if s.setup != nil {
		s.setup(b, &k)
	}
	return k
}

// settle lets workers finish what is open.
func settle(b *bundle) {
	for range 3 {
		survive(b.work)
		b.lapse()
	}
	b.work()
}

// setupIn is a fresh bundle in the emptied database of an old one: cloning takes longer than a story.
func setupIn(t *testing.T, old *bundle) *bundle {
	t.Helper()
	old.exec(`WITH a AS (DELETE FROM orders.checkouts), b AS (DELETE FROM orders.checkout_keys), c AS (DELETE FROM orders.orders),
		d AS (DELETE FROM orders.cancellations) DELETE FROM orders.outbox`)
	return setupWith(t, old.DB)
}

type places struct {
	mu   sync.Mutex
	seen map[string]bool
}

func (p *places) add(name string) { p.mu.Lock(); p.seen[name] = true; p.mu.Unlock() }

// compare holds failpoints.txt, the failpoints of this module, against where the stories came by. The whole shop's crash test
// finds them in the source and reaches renew and refuse as well.
func (p *places) compare(t *testing.T) {
	text, err := os.ReadFile("failpoints.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(text))
	for name := range p.seen {
		if !slices.Contains(listed, name) {
			t.Errorf("%s is not in failpoints.txt", name)
		}
	}
	for _, name := range listed {
		if !p.seen[name] && name != "orders.renew.before-commit" && name != "orders.renew.after-commit" && !strings.HasPrefix(name, "orders.refuse.") {
			t.Errorf("no story comes by %s", name)
		}
	}
}

// TestAZombieWritesNothing stops a worker at each call it makes, lets its lease pass to another that finishes, and wakes it.
func TestAZombieWritesNothing(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"Freeze", "Reserve", "Authorize", "Allocate", "Capture", "Complete"} {
		t.Run("asleep in "+at, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			k := b.guestBasket()
			var one atomic.Bool
			asleep, wake := make(chan struct{}), make(chan struct{})
			b.calls.after = func(method string) error {
				if method == at && one.CompareAndSwap(false, true) {
					close(asleep)
					<-wake
				}
				return nil
			}
			first := make(chan answer)
			go func() { first <- b.checkout(k, "one", "tok_approve") }()
			<-asleep
			b.lapse()
			second := b.checkout(k, "one", "tok_approve") // takes the lapsed lease over
			if second.status != http.StatusCreated {
				t.Errorf("the one who took over: %d %s", second.status, second.raw)
			}
			version := b.stored(second.text("order_id")).Version
			token := b.count(`SELECT lease_token FROM orders.checkouts`)
			updated := b.count(`SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM orders.checkouts`)
			close(wake)
			if a := <-first; a.status != http.StatusCreated || a.raw != second.raw {
				t.Errorf("the zombie's client: %d %s, the other's: %s", a.status, a.raw, second.raw)
			}
			if v := b.stored(second.text("order_id")).Version; v != version {
				t.Errorf("the zombie wrote version %d over %d", v, version)
			}
			if u := b.count(`SELECT (extract(epoch FROM updated_at) * 1000000)::bigint FROM orders.checkouts`); u != updated {
				t.Error("the zombie wrote the checkout")
			}
			if n := b.count(`SELECT lease_token FROM orders.checkouts`); n != token {
				t.Errorf("token %d, was %d", n, token)
			}
			b.sound()
			b.wantStock("mug", 10, 2)
		})
	}
}

// TestConfirmWebhookAndSweeperMeet is T6: three who ask for the same look at a payment, in every order in which their
// calls to it and to the catalog can interleave, make one order, one capture, and undo nothing.
func TestConfirmWebhookAndSweeperMeet(t *testing.T) {
	t.Parallel()
	names := []string{"confirm", "webhook", "sweeper"}
	for round, order := range permutations(names) {
		for _, late := range []bool{false, true} { // the time is up as the shopper approves, or not
			t.Run(fmt.Sprintf("%d %s, time is up %v", round, strings.Join(order, " "), late), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				k := b.guestBasket()
				a := b.checkout(k, "one", "tok_3ds")
				id := ids.ID(a.text("id"))
				p := b.payments.All()[0]
				b.payments.Confirm(p.ID, true)
				if late {
					b.clock.Advance(31 * time.Minute)
				}
				undone := false
				b.calls.before = func(method string) error {
					if method == "Void" || method == "Refund" || method == "Release" {
						undone = true
					}
					return nil
				}
				// Each is stopped before its first call of Payment and before Allocate, then let go in the order of the round; the
				// one who sleeps has its lease taken over by the next, so all three pass every stage in turn.
				gate := newGate(len(order))
				var wg sync.WaitGroup
				b.calls.before = chain(b.calls.before, func(method string) error {
					if method == "Payment" || method == "Allocate" {
						gate.pass()
					}
					return nil
				})
				for _, who := range order {
					wg.Go(func() {
						switch who {
						case "confirm":
							b.do("POST", "/v1/checkouts/"+string(id)+"/confirm", call{cartToken: k.owner.Token})
						case "webhook":
							err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error {
								return b.onPaymentChanged(t.Context(), tx, paymentsapi.PaymentChanged{Payment: p.ID, Checkout: id})
							})
							if err != nil {
								t.Error(err)
							}
							if _, err := b.resume(t.Context(), id); err != nil && !errors.Is(err, errLease) {
								t.Error(err)
							}
						case "sweeper":
							b.exec(`UPDATE orders.checkouts SET next_at = now() WHERE next_at IS NOT NULL`)
							if _, err := b.resume(t.Context(), id); err != nil && !errors.Is(err, errLease) {
								t.Error(err)
							}
						}
					})
					gate.arrived(b) // it sleeps in its first call, or found the lease taken and the work done
					b.lapse()       // the next one takes it over
				}
				gate.open()
				wg.Wait()
				b.lapse()
				b.lookAtAll()
				if undone {
					t.Error("somebody undid something")
				}
				if n := b.count(`SELECT count(*) FROM orders.orders WHERE state = 'placed'`); n != 1 {
					t.Errorf("%d orders stand", n)
				}
				b.wantStock("mug", 10, 2)
				b.wantCart(k, "completed")
				b.sound()
			})
		}
	}
}

// gate stops everybody who comes by until it is opened.
type gate struct {
	came   chan struct{}
	opened chan struct{}
}

func newGate(n int) *gate { return &gate{came: make(chan struct{}, 16*n), opened: make(chan struct{})} }

func (g *gate) pass() {
	select {
	case <-g.opened:
		return
	default:
	}
	select {
	case g.came <- struct{}{}:
	default:
	}
	<-g.opened
}

func (g *gate) arrived(b *bundle) {
	select {
	case <-g.came:
	case <-time.After(10 * time.Second):
		b.t.Error("nobody came to the gate")
	}
}

func (g *gate) open() { close(g.opened) }

func chain(fs ...func(string) error) func(string) error {
	return func(method string) error {
		for _, f := range fs {
			if f != nil {
				if err := f(method); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func permutations[T any](all []T) (out [][]T) {
	if len(all) <= 1 {
		return [][]T{slices.Clone(all)}
	}
	for i := range all {
		rest := append(slices.Clone(all[:i]), all[i+1:]...)
		for _, p := range permutations(rest) {
			out = append(out, append([]T{all[i]}, p...))
		}
	}
	return out
}
