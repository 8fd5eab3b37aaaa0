package payments

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/api/paymentsapi"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
	"github.com/banyan-shop/banyan/platform/pg"
)

// tolerance is how far a webhook's time may be from ours.
const tolerance = 300 * time.Second

// verify checks a webhook's signature over its raw bytes against the live secrets; there are two while one is rotated out.
func verify(secrets [][]byte, header string, body []byte, now time.Time) bool {
	t, _, ok := strings.Cut(strings.TrimPrefix(header, "t="), ",")
	unix, err := strconv.ParseInt(t, 10, 64)
	if !ok || err != nil {
		return false
	}
	at := time.Unix(unix, 0)
	if now.Sub(at).Abs() > tolerance {
		return false
	}
	valid := false
	for _, s := range secrets {
		if hmac.Equal([]byte(sign(s, at, body)), []byte(header)) {
			valid = true
		}
	}
	return valid
}

// receive keeps a webhook whose signature is right and answers at once; handling comes after. It only says that something
// changed: what, the provider is asked.
func (m *Module) receive(ctx context.Context, provider, signature string, body []byte) error {
	if provider != "simulator" || m.Simulator == nil {
		return errs.NotFoundf("no such payment provider")
	}
	if !verify(m.HookSecrets, signature, body, m.Now()) {
		return errs.New(errs.Unauthenticated, "invalid_signature", "the webhook's signature is not valid")
	}
	var w webhook
	if err := json.Unmarshal(body, &w); err != nil || w.ID == "" || !ids.Valid(w.Data.Key, "pay") {
		return errs.New(errs.Malformed, "malformed_body", "the webhook can't be read")
	}
	err := m.DB.InTx(ctx, func(tx *pg.Tx) error {
		_, err := insertHook(ctx, tx, provider, w.ID, paymentsapi.ID(w.Data.Key), m.Now())
		return err
	})
	if err != nil {
		return fmt.Errorf("keep webhook %s: %w", w.ID, err)
	}
	select {
	case m.Woken <- struct{}{}:
	default:
	}
	return nil
}

// Run handles webhooks, and sends those of the simulator, until ctx ends.
func (m *Module) Run(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if m.Simulator != nil {
			m.Simulator.run(ctx)
		}
	}()
	defer func() { <-done }()
	tick := time.NewTicker(m.Config.Poll)
	defer tick.Stop()
	for {
		n, err := m.handleHooks(ctx)
		if err != nil && ctx.Err() == nil {
			m.Log.Error("handle webhooks", "err", err)
		}
		if n > 0 && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-m.Woken:
		case <-tick.C:
		}
	}
}

// handleHooks takes webhooks that are due and asks the provider what is true now.
func (m *Module) handleHooks(ctx context.Context) (int, error) {
	if waiting, err := hooksDue(ctx, m.DB, m.Now()); err != nil || !waiting {
		return 0, err
	}
	var due []hook
	err := m.DB.InTx(ctx, func(tx *pg.Tx) (err error) {
		due, err = leaseHooks(ctx, tx, m.Now(), m.Now().Add(m.Config.ProviderTimeout+5*time.Second))
		return err
	})
	if err != nil {
		return 0, err
	}
	var failed []error
	for _, h := range due {
		if err := m.handleHook(ctx, h); err != nil { // taken again when its lease ends
			failed = append(failed, fmt.Errorf("webhook %s: %w", h.Event, err))
		}
	}
	return len(due), errors.Join(failed...)
}

func (m *Module) handleHook(ctx context.Context, h hook) error {
	intent, err := m.call(ctx, h.Provider, func(ctx context.Context, from Provider) (Intent, error) { return from.Find(ctx, string(h.Payment)) })
	if err != nil {
		return err
	}
	_, _, err = m.record(ctx, h.Payment, intent, &h)
	if pg.NoRows(err) { // of no payment of ours
		return m.DB.InTx(ctx, func(tx *pg.Tx) error { return endHook(ctx, tx, h, m.Now()) })
	}
	return err
}
