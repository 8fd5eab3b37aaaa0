//go:build unix

package pgembed_test

import (
	"context"
	"os"
	"path/filepath"
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
