package pgembed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// DefaultDir is where a shop keeps its development data: the user's cache directory, or for root a place that the
// unprivileged user PostgreSQL runs as can reach.
func DefaultDir() (string, error) {
	if !windows && os.Geteuid() == 0 {
		return "/var/lib/banyan", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a data directory: %w: set SHOP_DATA_DIR", err)
	}
	return filepath.Join(dir, "banyan"), nil
}

var errHeld = errors.New("held by another process")

// Lock takes the directory for this process, so that two servers do not share it. The refusal names who holds it.
func Lock(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	path := filepath.Join(dir, "instance.lock")
	f, err := tryLock(path)
	if errors.Is(err, errHeld) {
		b, _ := os.ReadFile(path)
		holder := strings.TrimSpace(string(b))
		if holder == "" {
			holder = "unknown"
		}
		return nil, fmt.Errorf("another shop (pid %s) uses %s: stop it, or choose another directory with SHOP_DATA_DIR", holder, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// The file stays when the lock goes: removing it would let two processes lock two files of one name.
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return func() { f.Close() }, nil
}

// exclusive waits for a lock file.
func exclusive(ctx context.Context, path string) (release func(), err error) {
	for {
		f, err := tryLock(path)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, errHeld) {
			return nil, err
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func shortHash(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:6])
}
