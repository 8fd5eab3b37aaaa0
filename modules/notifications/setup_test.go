package notifications

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/ordersapi"
	"github.com/banyan-shop/banyan/api/ordersapi/orderstest"
	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/api/usersapi/userstest"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// bundle is a module whose mails go to an outbox in memory, with a customer and an order of theirs and one of a guest.
type bundle struct {
	*Module
	clock  *shoptest.Clock
	users  *userstest.Fake
	orders *orderstest.Fake
	out    *outbox
	log    *bytes.Buffer
}

const customersOrder, guestsOrder = ordersapi.ID("ord_ann"), ordersapi.ID("ord_gus")

func setup(t *testing.T) bundle {
	t.Helper()
	templates, err := LoadTemplates()
	if err != nil {
		t.Fatal(err)
	}
	b := bundle{clock: shoptest.NewClock(), users: &userstest.Fake{}, orders: &orderstest.Fake{}, out: &outbox{}, log: &bytes.Buffer{}}
	b.users.PutUser(usersapi.User{ID: "usr_ann", Email: "ann@example.com", Name: "Ann"})
	b.orders.Put(ordersapi.Order{ID: customersOrder, Customer: "usr_ann"}, ordersapi.Contact{Name: "Ann"})
	b.orders.Put(ordersapi.Order{ID: guestsOrder}, ordersapi.Contact{Email: "gus@example.com", Name: "Gus", Token: "token"})
	b.Module = &Module{
		DB: shoptest.DB(t, "notifications"), Users: b.users, Orders: b.orders, Sender: b.out, Templates: templates,
		Log: slog.New(slog.NewTextHandler(b.log, nil)), Now: b.clock.Now, Config: Defaults(), Woken: woken(),
	}
	return b
}

// outbox takes mails, or refuses them with an error.
type outbox struct {
	mu     sync.Mutex
	mails  []Mail
	refuse error
	taking func() // in the middle of taking one
}

func (o *outbox) Send(_ context.Context, m Mail) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.taking != nil {
		o.taking()
	}
	if o.refuse != nil {
		return o.refuse
	}
	o.mails = append(o.mails, m)
	return nil
}

func (o *outbox) sent() []Mail {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.mails)
}

// ask keeps a message as the handler of an event does.
func (b bundle) ask(t *testing.T, hear func(ctx context.Context, tx *pg.Tx) error) {
	t.Helper()
	if err := b.DB.InTx(t.Context(), func(tx *pg.Tx) error { return hear(t.Context(), tx) }); err != nil {
		t.Fatal(err)
	}
}

// delivered asks for a mail about a parcel of an order.
func (b bundle) delivered(t *testing.T, order ordersapi.ID) {
	t.Helper()
	b.ask(t, func(ctx context.Context, tx *pg.Tx) error {
		return b.keep(ctx, tx, "shipment_delivered", "order:"+string(order), map[string]any{"lines": []any{}})
	})
}

// row is what became of the only message.
type row struct {
	State    string     `db:"state"`
	Attempts int        `db:"attempts"`
	Error    string     `db:"error"`
	Next     time.Time  `db:"next_at"`
	Sent     *time.Time `db:"sent_at"`
}

func (b bundle) only(t *testing.T) row {
	t.Helper()
	var rows []row
	err := b.DB.Select(t.Context(), &rows, `SELECT state, attempts, error, next_at, sent_at FROM notifications.messages`)
	if err != nil || len(rows) != 1 {
		t.Fatalf("%d messages, %v; want one", len(rows), err)
	}
	return rows[0]
}

func (b bundle) work(t *testing.T) int {
	t.Helper()
	n, err := b.sendDue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

var errAway = errors.New("away")

func mailOf(id ids.ID) Mail {
	return Mail{ID: id, From: "Banyan <shop@example.com>", To: "ann@example.com", Subject: "Grüße", Text: "Hello.\n", HTML: "<p>Hello.</p>"}
}

// anyOrder is orders where every order is Ann's.
type anyOrder struct{ ordersapi.Orders }

func (anyOrder) Contact(context.Context, ordersapi.ContactRequest) (ordersapi.Contact, error) {
	return ordersapi.Contact{Email: "ann@example.com", Name: "Ann"}, nil
}
