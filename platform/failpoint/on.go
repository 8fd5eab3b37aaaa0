//go:build failpoints

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// armed and nth are set once before main, so that a hit costs a comparison. Platform state: the kill is of the process.
var (
	armed, nth = parse(os.Getenv("SHOP_FAILPOINT"))
	hits       atomic.Int64
)

func parse(s string) (name string, nth int64) {
	name, count, counted := strings.Cut(s, ":")
	if !counted {
		return name, 1
	}
	nth, err := strconv.ParseInt(count, 10, 64)
	if err != nil || nth < 1 {
		panic("SHOP_FAILPOINT is name or name:N with N from 1, not " + strconv.Quote(s))
	}
	return name, nth
}

// Hit kills the process when it is armed for name and comes by for the N-th time.
func Hit(name string) {
	if name != armed || armed == "" || hits.Add(1) != nth {
		return
	}
	// SIGKILL runs no deferred function and flushes nothing, which is the point.
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
