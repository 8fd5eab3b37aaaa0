package notifications

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/events"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestAMailGoesToWhomItIsAbout(t *testing.T) {
	t.Parallel()
	b := setup(t)
	link := b.users.PutMail(usersapi.MailLink{Email: "new@example.com", Name: "Nia", Token: "secret"})
	b.ask(t, func(ctx context.Context, tx *pg.Tx) error {
		return b.onMailRequested(ctx, tx, usersapi.MailRequested{Mail: link, Kind: "verify_email"})
	})
	b.delivered(t, customersOrder)
	b.delivered(t, guestsOrder)
	if n := b.work(t); n != 3 {
		t.Fatalf("%d messages sent, want 3", n)
	}
	to := map[string]string{}
	for _, m := range b.out.sent() {
		to[m.To] = m.Text
	}
	for address, words := range map[string]string{"new@example.com": "secret", "ann@example.com": "Hello Ann", "gus@example.com": "Hello Gus"} {
		if !strings.Contains(to[address], words) {
			t.Errorf("%s got %q, want %q in it", address, to[address], words)
		}
	}
	if n := b.work(t); n != 0 {
		t.Errorf("%d messages sent again", n)
	}
	var kept int
	err := b.DB.Get(t.Context(), &kept, `SELECT count(*) FROM notifications.messages m WHERE m::text LIKE '%example.com%' OR m::text LIKE '%secret%'`)
	if err != nil || kept != 0 {
		t.Errorf("%d messages keep an address or a secret, %v", kept, err)
	}
}

func TestAnEventIsWrittenAboutOnceHoweverOftenItIsHeard(t *testing.T) {
	t.Parallel()
	b := setup(t)
	users := shoptest.DB(t, "users")
	bus := events.NewBus(events.Options{Log: b.Log, Poll: 10 * time.Millisecond})
	if err := bus.Add("users", users, nil); err != nil {
		t.Fatal(err)
	}
	heard := 0
	err := bus.Add("notifications", b.DB, func(s *events.Subscriptions) {
		events.On(s, "users-mail", func(ctx context.Context, tx *pg.Tx, e usersapi.MailRequested) error {
			heard++
			return errors.Join(b.onMailRequested(ctx, tx, e), b.onMailRequested(ctx, tx, e)) // as by an inbox that forgot
		})
	})
	if err == nil {
		err = bus.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Drain(context.Background()) })
	link := b.users.PutMail(usersapi.MailLink{Email: "new@example.com", Name: "Nia", Token: "secret"})
	for n := 1; n <= 2; n++ { // two events about one mail are two messages
		err := users.InTx(t.Context(), func(tx *pg.Tx) error {
			return events.Publish(t.Context(), tx, usersapi.MailRequested{Mail: link, Kind: "verify_email", Locale: "en"})
		})
		if err == nil {
			err = bus.WaitIdle(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		var messages int
		if err := b.DB.Get(t.Context(), &messages, `SELECT count(*) FROM notifications.messages`); err != nil || messages != n || heard != n {
			t.Errorf("%d messages of %d events heard, want %d, %v", messages, heard, n, err)
		}
	}
}

func TestAMailThatCannotGoNowIsTriedAgainEverMoreSeldomAndThenLaidAside(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Config.Attempts = 4
	b.out.refuse = errs.Unavailablef("away").Because(errAway)
	b.delivered(t, customersOrder)
	for attempt, pause := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
		if n := b.work(t); n != 1 {
			t.Fatalf("attempt %d: %d messages were due", attempt+1, n)
		}
		got := b.only(t)
		if got.State != "pending" || got.Attempts != attempt+1 || got.Error != "unavailable" || !got.Next.Equal(b.clock.Now().Add(pause)) {
			t.Fatalf("attempt %d: %+v, want another in %s", attempt+1, got, pause)
		}
		if n := b.work(t); n != 0 {
			t.Fatalf("attempt %d is repeated at once", attempt+1)
		}
		b.clock.Advance(pause)
	}
	b.work(t)
	if got := b.only(t); got.State != "dead" || got.Sent != nil {
		t.Errorf("after the last attempt: %+v", got)
	}
	b.clock.Advance(100 * time.Hour)
	if n := b.work(t); n != 0 {
		t.Errorf("%d dead messages are tried", n)
	}
}

func TestTheMailServerMayBeAwayForTwoDays(t *testing.T) {
	t.Parallel()
	var waited time.Duration
	for attempt := 1; attempt < Defaults().Attempts; attempt++ {
		waited += backoff(attempt)
	}
	if waited < 48*time.Hour || waited > 72*time.Hour {
		t.Errorf("a mail is laid aside after %s", waited)
	}
}

func TestWhatCannotEverGoIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(bundle){
		"refused for good": func(b bundle) { b.out.refuse = fmt.Errorf("send: %w", errPermanent) },
		"nobody to write": func(b bundle) {
			b.Orders, b.users.Fail = b.orders, func(string) error { return errs.NotFoundf("no such user") }
		},
		"no such template": func(b bundle) { b.Templates.texts = nil },
		"contact was wrong": func(b bundle) {
			b.Sender = smtpSender{}
			b.users.PutUser(usersapi.User{ID: "usr_ann", Email: "not an address"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t)
			spoil(b)
			b.delivered(t, customersOrder)
			b.work(t)
			if got := b.only(t); got.State != "dead" || got.Attempts != 1 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestAModuleThatDoesNotAnswerDelaysAMailAndLosesNone(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.orders.Fail = func(string) error { return errs.Unavailablef("orders is away") }
	b.delivered(t, guestsOrder)
	b.work(t)
	if got := b.only(t); got.State != "pending" || got.Error != "unavailable" {
		t.Errorf("%+v", got)
	}
	b.orders.Fail = nil
	b.clock.Advance(time.Minute)
	b.work(t)
	if got := b.only(t); got.State != "sent" || len(b.out.sent()) != 1 {
		t.Errorf("%+v", got)
	}
}

// A worker that is slower than its lease must not write over what the one after it did.
func TestALateWorkerDoesNotUndoWhatAnotherSent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.delivered(t, customersOrder)
	second := *b.Module
	second.Sender = &outbox{}
	b.out.refuse = errAway
	b.out.taking = func() {
		b.clock.Advance(time.Hour)
		if n, err := second.sendDue(context.Background()); n != 1 || err != nil {
			t.Errorf("the second worker sent %d, %v", n, err)
		}
	}
	b.work(t)
	if got := b.only(t); got.State != "sent" || got.Attempts != 2 {
		t.Errorf("%+v; want what the second worker did", got)
	}
}

func TestALeaseIsLongEnoughForAllItsMessages(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for range batch + 3 {
		order := ids.New[ids.ID]("ord")
		b.ask(t, func(ctx context.Context, tx *pg.Tx) error {
			return b.keep(ctx, tx, "shipment_delivered", "order:"+string(order), map[string]any{"lines": []any{}})
		})
	}
	b.Orders = anyOrder{b.orders}
	second, others := *b.Module, &outbox{}
	second.Sender = others
	b.out.taking = func() {
		b.clock.Advance(sendWithin)
		if _, err := second.sendDue(context.Background()); err != nil {
			t.Error(err)
		}
	}
	b.work(t)
	seen := map[ids.ID]bool{}
	for _, m := range append(b.out.sent(), others.sent()...) {
		if seen[m.ID] {
			t.Errorf("%s was sent twice", m.ID)
		}
		seen[m.ID] = true
	}
	if len(seen) != batch+3 {
		t.Errorf("%d mails of %d messages", len(seen), batch+3)
	}
}

func TestAStopCountsAsNoAttempt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.Config.Attempts = 1
	b.delivered(t, customersOrder)
	ctx, cancel := context.WithCancel(t.Context())
	b.out.refuse = context.Canceled
	b.out.taking = cancel
	if _, err := b.sendDue(ctx); err != nil {
		t.Fatal(err)
	}
	if got := b.only(t); got.State != "pending" || got.Attempts != 0 {
		t.Errorf("%+v", got)
	}
	b.out.refuse, b.out.taking = nil, nil
	if b.work(t); b.only(t).State != "sent" {
		t.Errorf("after the restart: %+v", b.only(t))
	}
}
