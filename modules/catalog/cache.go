package catalog

import (
	"context"
	"sync"
	"time"
)

// cache holds what may be a few seconds old: the category tree and the counts of facets. Prices and stock are never in it. Its
// zero value is empty and works.
type cache struct {
	mu      sync.Mutex
	tree    *tree
	treeEnd time.Time
	counts  map[string]counted
	filling map[string]chan struct{}
	epoch   int // of the last forget, so that what was read before it is not kept after it
}

type counted struct {
	values map[string][]facetValue
	end    time.Time
}

// maxCounted bounds the memory that searches nobody repeats can take.
const maxCounted = 2000

// forget drops everything: this process has changed the catalogue.
func (c *cache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tree, c.counts = nil, nil
	c.epoch++
}

// facets are the counts of a search: fresh ones of another caller, else what load gives. Callers who ask for the same while
// it is being counted wait for that one count.
func (c *cache) facets(key string, ttl time.Duration, now time.Time, load func() (map[string][]facetValue, error)) (map[string][]facetValue, error) {
	c.mu.Lock()
	for {
		if v, ok := c.counts[key]; ok && now.Before(v.end) {
			c.mu.Unlock()
			return v.values, nil
		}
		busy, ok := c.filling[key]
		if !ok {
			break
		}
		c.mu.Unlock()
		<-busy // the loader has a deadline
		c.mu.Lock()
		if v, ok := c.counts[key]; ok && now.Before(v.end) {
			c.mu.Unlock()
			return v.values, nil
		}
		if _, ok := c.filling[key]; !ok {
			break
		}
	}
	if c.filling == nil {
		c.filling = map[string]chan struct{}{}
	}
	done := make(chan struct{})
	c.filling[key] = done
	epoch := c.epoch
	c.mu.Unlock()

	values, err := load()

	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.filling, key)
	close(done)
	if err != nil {
		return nil, err
	}
	if epoch == c.epoch && ttl > 0 {
		if c.counts == nil || len(c.counts) >= maxCounted {
			c.counts = map[string]counted{}
		}
		c.counts[key] = counted{values, now.Add(ttl)}
	}
	return values, nil
}

// tree is the categories in the order of their paths.
type tree struct {
	all    []category
	byID   map[string]category
	bySlug map[string]category
}

// subtree are the ids of the categories of these slugs and all below them; empty, not nil, if there are none.
func (t *tree) subtree(slugs []string) []string {
	ids := []string{}
	for _, c := range t.all {
		for at := c.ID; at != ""; at = t.byID[at].Parent {
			if contains(slugs, t.byID[at].Slug) {
				ids = append(ids, c.ID)
				break
			}
		}
	}
	return ids
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// trail is the names of a category and those above it, for the search.
func (t *tree) trail(id string) string {
	words := ""
	for ; id != ""; id = t.byID[id].Parent {
		words += t.byID[id].Name + " "
	}
	return words
}

func newTree(all []category) *tree {
	t := &tree{all: all, byID: make(map[string]category, len(all)), bySlug: make(map[string]category, len(all))}
	for _, c := range all {
		t.byID[c.ID] = c
		t.bySlug[c.Slug] = c
	}
	return t
}

// categories is the tree, as old as the cache allows.
func (m *Module) categories(ctx context.Context) (*tree, error) {
	now := m.Now()
	m.cache.mu.Lock()
	t, end, epoch := m.cache.tree, m.cache.treeEnd, m.cache.epoch
	m.cache.mu.Unlock()
	if t != nil && now.Before(end) {
		return t, nil
	}
	all, err := allCategories(ctx, m.DB)
	if err != nil {
		return nil, err
	}
	t = newTree(all)
	m.cache.mu.Lock()
	defer m.cache.mu.Unlock()
	if epoch == m.cache.epoch {
		m.cache.tree, m.cache.treeEnd = t, now.Add(m.Config.CacheFor)
	}
	return t, nil
}
