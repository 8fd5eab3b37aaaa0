package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the answers of the stories to what the shop says; read the diff")

// TestStories tells each story in testdata to a shop of its own, in one process, through the wire and all out, over real HTTP. All
// must answer the same, to the byte.
func TestStories(t *testing.T) {
	t.Parallel()
	p := watch(t)
	for name, file := range stories(t) {
		for _, placement := range []string{"one", "wire", "split"} {
			if *update && placement != "one" {
				continue
			}
			t.Run(name+"/"+placement, func(t *testing.T) {
				t.Parallel()
				s := newTeller(t, placement)
				text, told := s.tells(t, file)
				p.add(name, placement, s)
				if *update && !bytes.Equal(told, text) {
					if err := os.WriteFile(file, told, 0o644); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	}
}

// TestStoriesInTurn tells all stories, one after another, to a shop with one module out, for each module, and to one process to
// compare with: a shop that has seen much must not answer otherwise either. With -short one module is out, and two stories
// are told.
func TestStoriesInTurn(t *testing.T) {
	t.Parallel()
	all := stories(t)
	names := slices.Sorted(maps.Keys(all))
	out := placements()[3:]
	if testing.Short() {
		names, out = []string{"browse", "guest-checkout"}, []string{"out:payments"}
	}
	p := watch(t)
	for _, placement := range append([]string{"one"}, out...) {
		t.Run(placement, func(t *testing.T) {
			t.Parallel()
			s := newTeller(t, placement)
			for _, name := range names {
				t.Run(name, func(t *testing.T) {
					s := s.again()
					s.tells(t, all[name])
					p.add(name, placement, s)
				})
			}
		})
	}
}

// stories are the files of testdata by the names of what they tell.
func stories(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/stories/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".txtar")] = file
	}
	return all
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
	idle := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return r.Idle(ctx)
	}
	if err := idle(t.Context()); err != nil { // the ratings of the demo reviews come by events
		t.Fatal(err)
	}
	return &teller{url: r.URL(), vars: map[string]json.RawMessage{}, update: *update, advance: c.advance, idle: idle}
}

// again is a teller of another story to the same shop.
func (s *teller) again() *teller {
	return &teller{url: s.url, vars: map[string]json.RawMessage{}, advance: s.advance, idle: s.idle}
}

// tells tells the story in a file, and returns it as it is and as it would have to read.
func (s *teller) tells(t *testing.T, file string) (text, told []byte) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if told, err = s.tell(t.Context(), text); err != nil {
		t.Fatal(err)
	}
	return text, told
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
