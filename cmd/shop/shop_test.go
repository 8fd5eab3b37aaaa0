package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
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
		for _, placement := range placements() {
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
	r := bootAll(t, placement, c.now, nil)
	return &teller{
		url: r.URL(), vars: map[string]json.RawMessage{}, update: *update, advance: c.advance,
		idle: func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			return r.Idle(ctx)
		},
	}
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
