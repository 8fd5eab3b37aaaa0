package orders

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"shop/platform/money"
)

var (
	cache   = map[string]int{}        // want `cache is package-level state: line 36 of bad.go can change it; make it a field of Module`
	list    []string                  // want `list is package-level state: line 37 of bad.go can change it`
	count   int                       // want `count is package-level state`
	sorted  = []string{"b", "a"}      // want `sorted is package-level state`
	pointed = 1                       // want `pointed is package-level state`
	part    = money.Amount{}          // want `part is package-level state`
	mu      sync.Mutex                // want `mu is package-level state`
	hits    atomic.Int64              // want `hits is package-level state`
	idle    sync.WaitGroup            // want `idle is package-level state: it is a sync.WaitGroup`
	client  = &http.Client{}          // want `client is package-level state: what it points to can change`
	now     = func() int { return 1 } // want `now is package-level state: a func variable can be replaced: declare a func`
	ready   = make(chan int)          // want `ready is package-level state: it is a channel`
	any_    any                       // want `any_ is package-level state: whatever is behind the interface can change`
	inside  = struct{ m *Module }{}   // want `inside is package-level state: in its field m, what it points to can change`
	Limit   = 3                       // want `Limit is package-level state: every importer can assign to it`

	//shop:allow globals until=2999-01-31 owner=@orders a counter for the migration
	seen int
)

func init() {} // want `func init runs because a package was imported`

func change() {
	cache["a"] = 1
	list = append(list, "a")
	count++
	slices.Sort(sorted)
	_ = &pointed
	part.Minor = 1
	mu.Lock()
	hits.Add(1)
	seen++
}
