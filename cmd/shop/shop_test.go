package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

var update = flag.Bool("update", false, "rewrite the answers of the stories to what the shop says; read the diff")

// TestStories tells each story in testdata in every placement, on a database of its own, over real HTTP.
func TestStories(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/stories/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		for _, placement := range []string{"one", "wire"} {
			if *update && placement != "one" {
				continue
			}
			t.Run(name+"/"+placement, func(t *testing.T) {
				t.Parallel()
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				s := newTeller(t, placement)
				told, err := s.tell(t.Context(), text)
				if err != nil {
					t.Fatal(err)
				}
				if *update && !bytes.Equal(told, text) {
					if err := os.WriteFile(file, told, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// clock is the time of a shop under test: the real one, and what a story added to it.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// newTeller boots a seeded shop of its own for the test.
func newTeller(t *testing.T, placement string) *teller {
	t.Helper()
	var c clock
	h := boot(t, placement, c.now)
	return &teller{
		url: h.URL(), vars: map[string]json.RawMessage{}, update: *update, advance: c.advance,
		idle: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return h.Idle(ctx)
		},
	}
}

// boot runs the whole shop in this process on a database of the test's own, with the demo data.
func boot(t *testing.T, placement string, now func() time.Time) *host.Host {
	t.Helper()
	settings, err := config.Load(config.Options{Flags: map[string]string{
		"listen": "127.0.0.1:0", "ops_listen": "", "placement": placement, "database_url": shoptest.URL(t), "data_dir": t.TempDir(),
		"pool.max": "3", "events.poll": "50ms", "storefront.part_timeout": "5s",
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := shop(settings)
	o.Development, o.Now = true, now
	var log bytes.Buffer
	o.Log = slog.New(slog.NewTextHandler(&locked{w: &log}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o.Differs = func(method, first, second string) {
		t.Errorf("%s with the same key answered\n%s\nand then\n%s", method, first, second)
	}
	h, err := host.Boot(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Errorf("stop the shop: %v", err)
		}
		if t.Failed() && log.Len() > 0 {
			t.Logf("the shop's log:\n%s", log.String())
		}
	})
	return h
}

// locked lets many goroutines log into one buffer.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
