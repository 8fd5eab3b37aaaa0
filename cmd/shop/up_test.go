package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUp runs the real program: processes, a PostgreSQL and a NATS of its own. It kills one process, which has to come back, and
// ends all with one interrupt.
func TestUp(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs the program several times over")
	}
	if runtime.GOOS != "linux" {
		t.Skip("looks for processes in /proc")
	}
	t.Parallel()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil { // PostgreSQL does not run as root, and its user must get in
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "shop")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("build the shop: %v\n%s", err, out)
	}
	address := freeAddress(t)
	up := exec.Command(binary, "up", "--split", "payments,reviews", "--listen", address, "--data-dir", filepath.Join(dir, "data"), "--set", "catalog.demo_products=60")
	up.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "SHOP_") && !strings.HasPrefix(kv, "SHOP_PG_BIN=") })
	var said locked
	var text bytes.Buffer
	said.w = &text
	up.Stderr = &said
	if err := up.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- up.Wait() }()
	t.Cleanup(func() {
		_ = up.Process.Kill() // its children end with it
		if t.Failed() {
			said.mu.Lock()
			defer said.mu.Unlock()
			t.Logf("up said:\n%s", text.String())
		}
	})
	has := func(line string) bool {
		said.mu.Lock()
		defer said.mu.Unlock()
		return strings.Contains(text.String(), line)
	}
	patiently(t, "the shop to open", func() bool { return has("The shop is open at http://" + address + ", in 3 processes") })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if code, out, talk := try(t, nil, "topology", "--live", "--config", filepath.Join(dir, "data", "up", "payments+reviews+main", "shop.yaml")); code != okay || strings.Count(out, " ready") != 3 {
		t.Errorf("topology --live: %d\n%s%s", code, out, talk)
	}
	before := childOf(t, up.Process.Pid, "payments")
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	patiently(t, "payments to be started again", func() bool {
		now := childOf(t, up.Process.Pid, "payments")
		return now != 0 && now != before
	})
	if !answers(ctx, "http://"+address+"/v1/products") {
		t.Error("the gateway does not answer")
	}
	if err := up.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("up ended with %v", err)
		}
	case <-time.After(2 * patience):
		t.Fatal("up does not end")
	}
	for _, name := range []string{"main", "payments", "reviews"} {
		if pid := childOf(t, 0, filepath.Join(dir, "data")+" "+name); pid != 0 {
			t.Errorf("%s still runs", name)
		}
	}
}

// patiently waits as long as a machine with much to do may take to start a shop.
func patiently(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(4 * patience); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// childOf is the process that serves as name below a parent, 0 for none.
func childOf(t *testing.T, parent int, name string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		line, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if err != nil || len(fields) < 2 || fields[0] == "Z" || parent != 0 && fields[1] != strconv.Itoa(parent) {
			continue
		}
		dir, process, both := strings.Cut(name, " ")
		if !both {
			dir, process = "", name
		}
		if args := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"); slices.Contains(args, process) && strings.Contains(string(line), dir) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	return 0
}
