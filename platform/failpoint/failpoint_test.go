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

func TestAFileArmsAProcess(t *testing.T) {
	t.Parallel()
	victim, file := build(t, "failpoints"), filepath.Join(t.TempDir(), "armed")
	for _, c := range []struct {
		name, said, out, told string
		killed                bool
	}{
		{"no file", "", "before 1 before 2 before 3 end", "", false},
		{"armed", "victim.loop.again\n", "before 1", "", true},
		{"armed for another place", "victim.loop.never", "before 1 before 2 before 3 end", "", false},
		{"asked to tell", "?", "before 1 before 2 before 3 end", strings.Repeat("failpoint victim.loop.again\n", 3), false},
	} {
		if c.said != "" {
			if err := os.WriteFile(file, []byte(c.said), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out, told, killed := runTelling(t, victim, "@"+file); out != c.out || told != c.told || killed != c.killed {
			t.Errorf("%s: said %q, told %q, killed %v", c.name, out, told, killed)
		}
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
	out, _, killed = runTelling(t, path, armed)
	return out, killed
}

// runTelling gives what the process tells on stderr, too.
func runTelling(t *testing.T, path, armed string) (out, told string, killed bool) {
	t.Helper()
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "SHOP_FAILPOINT="+armed)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	b, _ := cmd.Output() // a killed process is an error, which ProcessState tells better
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return strings.Join(strings.Fields(string(b)), " "), stderr.String(), ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
