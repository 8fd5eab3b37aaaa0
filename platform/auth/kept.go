package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

const (
	keptFor   = 24 * time.Hour // a copy older than that may hold keys that have gone for good
	keptAgain = time.Hour      // a copy is written again after that, though nothing changed, to stay young
	keptSize  = 1 << 20
)

// keptKeys is the file of KeptKeys.
type keptKeys struct {
	KeptAt time.Time `json:"kept_at"`
	Keys   []JWK     `json:"keys"`
	Ended  []Ended   `json:"ended,omitempty"`
}

// KeptKeys is the source with a copy of its last good answer in a file, which answers when the source does not: a process that
// restarts while users is away still knows its keys. Only this user may read the file; one that others could have written is not
// believed, nor one older than a day. What goes wrong with the file is logged: it never stands in the way of the source.
func KeptKeys(path string, source KeySource, log *slog.Logger) KeySource {
	var mu sync.Mutex
	var kept keptKeys
	return func(ctx context.Context) (JWKS, error) {
		set, err := source(ctx)
		if err == nil {
			err = set.check()
		}
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if err != nil {
			set, unread := readKept(path, now)
			if unread != nil {
				return JWKS{}, errors.Join(err, unread)
			}
			return set, nil
		}
		fresh := keptKeys{now.UTC(), set.Keys, set.Ended}
		if now.Sub(kept.KeptAt) < keptAgain && sameKeys(kept, fresh) {
			return set, nil
		}
		if err := writeKept(path, fresh); err != nil {
			log.Warn("keep the public keys for a restart", "file", path, "err", err)
			return set, nil
		}
		kept = fresh
		return set, nil
	}
}

func sameKeys(a, b keptKeys) bool {
	b.KeptAt = a.KeptAt
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

func writeKept(path string, k keptKeys) error {
	text, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return writeWhole(path, string(text)+"\n", os.Rename)
}

func readKept(path string, now time.Time) (JWKS, error) {
	wrong := func(err error) (JWKS, error) { return JWKS{}, fmt.Errorf("read kept keys: %w", err) }
	f, err := os.Open(path)
	if err != nil {
		return wrong(err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return wrong(err)
	case !info.Mode().IsRegular() || info.Size() > keptSize:
		return wrong(fmt.Errorf("%s is not a file of keys", path))
	case info.Mode().Perm()&0o077 != 0 && runtime.GOOS != "windows": // there rights are not in the mode
		return wrong(fmt.Errorf("%s is open to others than its owner: delete it, it is made anew", path))
	}
	text, err := io.ReadAll(io.LimitReader(f, keptSize))
	if err != nil {
		return wrong(err)
	}
	var k keptKeys
	if err := json.Unmarshal(text, &k); err != nil {
		return wrong(err)
	}
	if age := now.Sub(k.KeptAt); age > keptFor || age < -keptAgain {
		return wrong(fmt.Errorf("%s is of %s, which is too long ago", path, k.KeptAt.Format(time.RFC3339)))
	}
	set := JWKS{Keys: k.Keys, Ended: k.Ended}
	if err := set.check(); err != nil {
		return wrong(err)
	}
	return set, nil
}

// writeWhole writes a file of this user alone that appears whole at path, by os.Rename in place of the one there, or by os.Link
// only if there is none.
func writeWhole(path, text string, place func(from, to string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone already after a rename
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return place(f.Name(), path)
}
