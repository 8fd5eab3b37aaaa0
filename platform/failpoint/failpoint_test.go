package failpoint_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestAnArmedProcessKillsItself(t *testing.T) {
	t.Parallel()
	victim := build(t, "failpoints")
	for _, c := range []struct {
		name, armed, out string
		killed           bool
	}{
		{"not armed", "", "before 1 before 2 before 3 end", false},
		{"armed for another place", "victim.loop.never", "before 1 before 2 before 3 end", false},
		{"at the first hit", "victim.loop.again", "before 1", true},
		{"at the second hit", "victim.loop.again:2", "before 1 before 2", true},
		{"a hit that never comes", "victim.loop.again:4", "before 1 before 2 before 3 end", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			out, killed := run(t, victim, c.armed)
			if out != c.out || killed != c.killed {
				t.Errorf("said %q, killed %v; want %q, %v", out, killed, c.out, c.killed)
			}
		})
	}
}

func TestWithoutTheTagNothingDies(t *testing.T) {
	t.Parallel()
	if out, killed := run(t, build(t, ""), "victim.loop.again"); killed || !strings.HasSuffix(out, "end") {
		t.Errorf("said %q, killed %v", out, killed)
	}
}

func build(t *testing.T, tags string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "victim")
	if out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "./testdata/victim").CombinedOutput(); err != nil {
		t.Fatalf("build victim: %v\n%s", err, out)
	}
	return path
}

func run(t *testing.T, path, armed string) (out string, killed bool) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "SHOP_FAILPOINT="+armed)
	b, _ := cmd.Output() // a killed process is an error, which ProcessState tells better
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return strings.Join(strings.Fields(string(b)), " "), ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
