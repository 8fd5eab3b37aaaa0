package events_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/banyan-shop/banyan/platform/shoptest"
)

// TestACrashAnywhereLosesNothingAndDoublesNothing kills a process with SIGKILL at each failpoint of this package and lets
// another finish. The failpoints are read from the source, so that a new one is tested without being named here.
func TestACrashAnywhereLosesNothingAndDoublesNothing(t *testing.T) {
	t.Parallel()
	const count = 6
	binary := filepath.Join(t.TempDir(), "process")
	if out, err := exec.Command("go", "build", "-tags", "failpoints", "-o", binary, "./testdata/process").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	places := failpoints(t)
	if len(places) < 10 {
		t.Fatalf("only %d failpoints in the source", len(places))
	}
	for _, place := range places {
		for _, nth := range []int{1, 3} {
			if nth > 1 && strings.HasPrefix(place, "events.retry.") {
				continue // it comes by once
			}
			t.Run(fmt.Sprintf("%s:%d", place, nth), func(t *testing.T) {
				t.Parallel()
				b := setup(t)
				process := func(count int, armed string) (committed []string, killed bool) {
					cmd := exec.Command(binary, fmt.Sprint(count))
					cmd.Env = append(os.Environ(), "SHOP_FAILPOINT="+armed,
						"TELLER_URL="+shoptest.ModuleURL(t, "teller"), "HEARER_URL="+shoptest.ModuleURL(t, "hearer"))
					cmd.Stderr = os.Stderr
					out, err := cmd.Output()
					status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
					killed = status.Signaled() && status.Signal() == syscall.SIGKILL
					if err != nil && !killed {
						t.Fatalf("the process failed by itself: %v", err)
					}
					return strings.Fields(string(out)), killed
				}
				committed, killed := process(count, fmt.Sprintf("%s:%d", place, nth))
				if !killed {
					t.Fatal("the failpoint was not met")
				}
				if _, killed := process(0, ""); killed {
					t.Fatal("killed without a failpoint")
				}
				times := map[int]int{}
				for _, e := range b.effects(t) {
					times[e.N]++
				}
				for n := range count {
					acknowledged := slices.Contains(committed, fmt.Sprint(n))
					if times[n] > 1 || acknowledged && times[n] == 0 {
						t.Errorf("event %d, acknowledged %v, took effect %d times", n, acknowledged, times[n])
					}
				}
				if waiting, err := b.waiting(t); err != nil || waiting > 0 {
					t.Errorf("%d rows are left behind: %v", waiting, err)
				}
			})
		}
	}
}

func (b *bundle) waiting(t *testing.T) (n int, err error) {
	err = b.hearer.Get(t.Context(), &n, `SELECT (SELECT count(*) FROM hearer.outbox WHERE sent_at IS NULL) + (SELECT count(*) FROM hearer.retry)`)
	return n, err
}

func failpoints(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var places []string
	for _, f := range files {
		source, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`failpoint\.Hit\("([^"]+)"\)`).FindAllStringSubmatch(string(source), -1) {
			if slices.Contains(places, m[1]) {
				t.Errorf("two places are called %s", m[1])
			}
			places = append(places, m[1])
		}
	}
	return places
}
