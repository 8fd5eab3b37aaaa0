package users

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
)

// Keyring is the signing keys as this instance knows them: kept sealed in the database, shared by all instances, rotated by
// whichever comes first.
type Keyring struct {
	DB     *pg.DB
	Secret auth.Secret
	Now    func() time.Time
	live   atomic.Pointer[auth.Keys]
}

// keyRow is a row of users.signing_keys.
type keyRow struct {
	ID     string     `db:"id"`
	State  string     `db:"state"`
	Sealed []byte     `db:"sealed"`
	MadeAt time.Time  `db:"made_at"`
	Until  *time.Time `db:"until"`
}

func (k *Keyring) signer() auth.Signer { return auth.NewSigner(*k.live.Load(), k.Now) }

// document is the published JWKS.
func (k *Keyring) document(context.Context) (string, error) {
	keys := k.live.Load()
	if keys == nil {
		return "", errs.Unavailablef("the signing keys are not loaded yet")
	}
	b, err := json.Marshal(keys.JWKS())
	return string(b), err
}

// load reads the keys, makes the first set where there is none, and rotates a current one that is older than rotateAfter.
// Instances that do so at once agree: they read under a lock, one after the other.
func (k *Keyring) load(ctx context.Context, rotateAfter time.Duration) error {
	var keys auth.Keys
	err := k.DB.InTx(ctx, func(tx *pg.Tx) error {
		rows, err := lockKeys(ctx, tx)
		if err != nil {
			return err
		}
		now := k.Now().UTC()
		if len(rows) == 0 {
			if keys, err = auth.NewKeys(); err != nil {
				return err
			}
			return k.store(ctx, tx, keys, now)
		}
		var due bool
		if keys, due, err = k.open(rows, now, rotateAfter); err != nil || !due {
			return err
		}
		if keys, err = keys.Rotate(now); err != nil {
			return err
		}
		return k.store(ctx, tx, keys, now)
	})
	if err != nil {
		return fmt.Errorf("signing keys: %w", err)
	}
	k.live.Store(&keys)
	return nil
}

// open unseals rows and says whether the current key is older than rotateAfter. A key that has retired for good is left out, so
// that it vouches for nothing any more.
func (k *Keyring) open(rows []keyRow, now time.Time, rotateAfter time.Duration) (keys auth.Keys, due bool, err error) {
	for _, r := range rows {
		if r.Until != nil && !now.Before(*r.Until) {
			continue
		}
		key, err := auth.OpenKey(k.Secret, r.Sealed)
		if err != nil {
			return auth.Keys{}, false, fmt.Errorf("key %s can't be opened, was SHOP_SECRET changed? %w", r.ID, err)
		}
		switch r.State {
		case "current":
			keys.Current, due = key, now.Sub(r.MadeAt) > rotateAfter
		case "next":
			keys.Next = key
		default:
			keys.Retiring = append(keys.Retiring, auth.RetiringKey{Key: key, Until: *r.Until})
		}
	}
	return keys, due, nil
}

// store writes the whole set in place of the one before.
func (k *Keyring) store(ctx context.Context, tx *pg.Tx, keys auth.Keys, now time.Time) error {
	if err := deleteKeys(ctx, tx); err != nil {
		return err
	}
	rows := []keyRow{
		{ID: keys.Current.ID, State: "current", Sealed: auth.SealKey(k.Secret, keys.Current), MadeAt: now},
		{ID: keys.Next.ID, State: "next", Sealed: auth.SealKey(k.Secret, keys.Next), MadeAt: now},
	}
	for _, r := range keys.Retiring {
		rows = append(rows, keyRow{ID: r.Key.ID, State: "retiring", Sealed: auth.SealKey(k.Secret, r.Key), MadeAt: now, Until: &r.Until})
	}
	for _, r := range rows {
		if err := insertKey(ctx, tx, r); err != nil {
			return err
		}
	}
	return nil
}

// Start loads the keys before anybody logs in.
func (m *Module) Start(ctx context.Context) error { return m.Keyring.load(ctx, m.Config.RotateKeys) }

// Run follows the keys of other instances, rotates them when they are due, and forgets what is out of date.
func (m *Module) Run(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := m.Keyring.load(ctx, m.Config.RotateKeys); err != nil && ctx.Err() == nil {
			m.Log.Error("reload signing keys", "err", err)
		}
		if err := m.forget(ctx); err != nil && ctx.Err() == nil {
			m.Log.Error("forget old sessions and mails", "err", err)
		}
	}
}

// forget deletes some of what has expired.
func (m *Module) forget(ctx context.Context) error {
	return m.DB.InTx(ctx, func(tx *pg.Tx) error { return deleteExpired(ctx, tx, m.Now().UTC()) })
}
