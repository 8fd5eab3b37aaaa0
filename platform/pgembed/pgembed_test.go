//go:build unix

package pgembed_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/pgembed"
)

// dataDir is a directory that the user PostgreSQL runs as can enter; t.TempDir is closed to others.
func dataDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "banyan-pgembed-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func start(t testing.TB, o pgembed.Options) *pgembed.Server {
	t.Helper()
	began := time.Now()
	s, err := pgembed.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("started in %d ms", time.Since(began).Milliseconds())
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t testing.TB, s *pgembed.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, s *pgembed.Server, statement string) {
	t.Helper()
	db, err := pg.OpenAdmin(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func count(t testing.TB, s *pgembed.Server, query string) (n int) {
	t.Helper()
	db, err := pg.OpenAdmin(t.Context(), s.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

func TestACluster(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	first := start(t, pgembed.Options{Dir: dir, Fsync: true})
	exec(t, first, `CREATE TABLE kept (n int)`)
	exec(t, first, `INSERT INTO kept VALUES (1), (2)`)
	if n := count(t, first, `SELECT count(*) FROM kept WHERE lower('ÉÇЖ') = 'éçж'`); n != 2 {
		t.Error("the cluster does not fold case beyond ASCII")
	}

	t.Run("is adopted by a second start, which leaves it running", func(t *testing.T) {
		second := start(t, pgembed.Options{Dir: dir, Fsync: true})
		if !second.Adopted() || second.PID() != first.PID() {
			t.Fatalf("adopted %v, pid %d, want true, %d", second.Adopted(), second.PID(), first.PID())
		}
		stop(t, second)
		if n := count(t, first, `SELECT count(*) FROM kept`); n != 2 {
			t.Fatalf("%d rows, want 2", n)
		}
	})

	t.Run("keeps its rows when the postmaster is killed", func(t *testing.T) {
		if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		stop(t, first) // reaped
		again := start(t, pgembed.Options{Dir: dir, Fsync: true})
		if again.Adopted() {
			t.Fatal("adopted a dead server")
		}
		if n := count(t, again, `SELECT count(*) FROM kept`); n != 2 {
			t.Fatalf("%d rows, want 2", n)
		}
		stop(t, again)
	})

	t.Run("starts warm", func(t *testing.T) {
		stop(t, start(t, pgembed.Options{Dir: dir, Fsync: true}))
	})

	t.Run("starts over a pid file that makes no sense", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "pg", "data", "postmaster.pid"), []byte("%$§!\n\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, pgembed.Options{Dir: dir, Fsync: true})
		if n := count(t, s, `SELECT count(*) FROM kept`); n != 2 {
			t.Fatalf("%d rows, want 2", n)
		}
		stop(t, s)
	})

	t.Run("starts over a pid file that names somebody else", func(t *testing.T) {
		pid := "1\n" + filepath.Join(dir, "pg", "data") + "\n1\n5432\n/nowhere\n\n1 1\nready   \n"
		pid = strings.Replace(pid, "1", strconv.Itoa(os.Getpid()), 1)
		if err := os.WriteFile(filepath.Join(dir, "pg", "data", "postmaster.pid"), []byte(pid), 0o600); err != nil {
			t.Fatal(err)
		}
		s := start(t, pgembed.Options{Dir: dir, Fsync: true})
		if s.Adopted() {
			t.Fatal("adopted the test itself")
		}
	})
}

func TestAHalfMadeClusterIsMadeAfresh(t *testing.T) {
	t.Parallel()
	dir := dataDir(t)
	data := filepath.Join(dir, "pg", "data")
	if err := os.MkdirAll(filepath.Join(data, "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	// What an initdb that was killed leaves: a version, no marker.
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, pgembed.Options{Dir: dir})
	if n := count(t, s, `SELECT 1`); n != 1 {
		t.Fatal("it does not answer")
	}
}

func TestALoopbackPortWantsAPassword(t *testing.T) {
	t.Parallel()
	s := start(t, pgembed.Options{Dir: dataDir(t), TCP: true})
	if n := count(t, s, `SELECT 1`); n != 1 {
		t.Fatal("it does not answer")
	}
	if db, err := pg.OpenAdmin(t.Context(), s.URL("postgres")+" password=wrong"); err == nil {
		db.Close()
		t.Fatal("it let a stranger in")
	}
}

func TestALongPathGetsAShortSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(dataDir(t), strings.Repeat("long-", 20))
	s := start(t, pgembed.Options{Dir: dir})
	if n := count(t, s, `SELECT 1`); n != 1 {
		t.Fatal("it does not answer")
	}
}

func TestOneInstanceADirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	release, err := pgembed.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pgembed.Lock(dir); err == nil || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Fatalf("the second got %v", err)
	}
	release()
	release, err = pgembed.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	release()
}

// asShop turns the test binary into a shop that starts a server and waits to be killed.
const asShop = "BANYAN_PGEMBED_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asShop); dir != "" {
		s, err := pgembed.Start(context.Background(), pgembed.Options{Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.PID())
		select {}
	}
	os.Exit(m.Run())
}

func TestTheServerEndsWithAKilledShop(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		return // elsewhere the next shop adopts it, see TestACluster
	}
	dir := dataDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command(exe)
	cmd.Env = append(os.Environ(), asShop+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatalf("the shop did not start a server: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	deadline := time.After(20 * time.Second)
	for {
		if _, running, err := pgembed.Running(t.Context(), dir); err == nil && !running {
			if _, err := os.Stat(filepath.Join(dir, "pg", "data", "postmaster.pid")); os.IsNotExist(err) {
				return // shut down in good order
			}
		}
		select {
		case <-deadline:
			t.Fatalf("postgres (pid %d) still runs", pid)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
