//go:build failpoints

package failpoint

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Enabled says whether this build has failpoints, so that one without composes no names.
const Enabled = true

// Platform state: the kill is of the process.
var (
	file, fromFile = strings.CutPrefix(os.Getenv("SHOP_FAILPOINT"), "@")
	always         = parse(os.Getenv("SHOP_FAILPOINT"))
	hits           atomic.Int64
)

// point is what is armed, and at which of its hits it kills.
type point struct {
	name string
	nth  int64
}

func parse(s string) point {
	name, count, counted := strings.Cut(s, ":")
	if !counted || fromFile {
		return point{name, 1}
	}
	nth, err := strconv.ParseInt(count, 10, 64)
	if err != nil || nth < 1 {
		panic("SHOP_FAILPOINT is name or name:N with N from 1, not " + strconv.Quote(s))
	}
	return point{name, nth}
}

// armed reads the file at each hit: whoever tests with it is in no hurry. One that is not there arms nothing.
func armed() point {
	if !fromFile {
		return always
	}
	b, _ := os.ReadFile(file)
	return point{strings.TrimSpace(string(b)), 1}
}

// Hit kills the process when it is armed for name and comes by for the N-th time.
func Hit(name string) {
	p := armed()
	if p.name == "?" {
		fmt.Fprintln(os.Stderr, "failpoint", name)
	}
	if name != p.name || name == "" || hits.Add(1) < p.nth {
		return
	}
	// SIGKILL runs no deferred function and flushes nothing, which is the point.
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
