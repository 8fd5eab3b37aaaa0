package shoptest

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/pgembed"
)

// server is the one PostgreSQL of all test binaries of this user. Each binary that uses it holds a shared lock on users.lock
// until it ends. The server belongs to a supervisor, a process of its own, which stops it when it gets that lock for itself.
type server struct {
	dir  string
	pid  int
	url  func(database string) string
	user func() // gives up the lock; kept, for an unreachable file would be closed

	templatesMu sync.Mutex
	templates   map[string]template // by the bare module they hold beside all others
}

var ownServerOnce = sync.OnceValues(findServer)

func ownServer(t testing.TB) *server {
	t.Helper()
	s, err := ownServerOnce()
	if err != nil {
		t.Fatalf("find a PostgreSQL for the tests: %v", err)
	}
	return s
}

// supervise names the variable that turns a test binary into the supervisor.
const supervise = "BANYAN_SHOPTEST_SUPERVISE"

// A test binary has no main of ours to ask, and TestMain would be needed in each package; so the choice is made here, before
// any test, and never in a process that was not started for it.
func init() {
	dir := os.Getenv(supervise)
	if dir == "" {
		return
	}
	if err := runSupervisor(dir); err != nil {
		_ = os.WriteFile(filepath.Join(dir, "supervisor.log"), []byte(err.Error()), 0o644)
		os.Exit(1)
	}
	os.Exit(0)
}

// sharedDir is the same for all test binaries that want the same server. After a reboot it is another: without fsync the old
// data may be torn.
func sharedDir() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	h := sha256.Sum256([]byte("1\x00" + os.Getenv("SHOP_PG_BIN") + "\x00" + string(boot)))
	return filepath.Join(os.TempDir(), "banyan-test-"+strconv.Itoa(os.Getuid())+"-"+hex.EncodeToString(h[:4]))
}

func findServer() (*server, error) {
	dir := sharedDir()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	user, err := lockFile(filepath.Join(dir, "users.lock"), true) // held until this process ends
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	logfile := filepath.Join(dir, "supervisor.log")
	for try := 0; ; try++ {
		s, running, err := pgembed.Running(ctx, dir)
		if running {
			return &server{dir: dir, pid: s.PID(), url: s.URL, user: user, templates: map[string]template{}}, nil
		}
		if ctx.Err() != nil {
			return nil, errors.Join(errors.New("it did not start in time"), err)
		}
		if b, err := os.ReadFile(logfile); err == nil && try > 0 {
			_ = os.Remove(logfile)
			return nil, errors.New(string(b))
		}
		if try%250 == 0 { // the first, and again if one came to grief: a second supervisor leaves at once
			_ = os.Remove(logfile)
			if err := startSupervisor(dir); err != nil {
				return nil, err
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func startSupervisor(dir string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), supervise+"="+dir)
	cmd.SysProcAttr = ownSession()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	return cmd.Process.Release()
}

// idle is how long the server outlives its last user: packages of one test run do not always overlap.
const idle = 20 * time.Second

func runSupervisor(dir string) error {
	unlock, err := tryLockFile(filepath.Join(dir, "supervisor.lock"))
	if err != nil {
		return nil // there is one
	}
	defer unlock()
	ctx := context.Background()
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s, err := pgembed.Start(starting, pgembed.Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := sweep(ctx, s); err != nil {
		return err
	}
	users := filepath.Join(dir, "users.lock")
	for {
		alone, err := lockFile(users, false)
		if err != nil {
			return err
		}
		alone()
		time.Sleep(idle)
		if alone, err = tryLockFile(users); err != nil {
			continue // somebody came
		}
		defer alone() // who comes now waits until the server is down, and starts another
		stopping, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		return s.Kill(stopping)
	}
}

// sweep drops what killed tests of earlier servers left, and all but the newest templates.
func sweep(ctx context.Context, s *pgembed.Server) error {
	return asAdmin(ctx, s.URL("postgres"), func(c *sql.DB) error {
		rows, err := c.QueryContext(ctx, `SELECT datname FROM (
				SELECT datname, datname LIKE 'template\_%\_making' AS making,
					row_number() OVER (PARTITION BY datname LIKE 'template\_%' ORDER BY oid DESC) AS age
				FROM pg_catalog.pg_database WHERE datname LIKE 'template\_%' OR datname LIKE 'test\_%') AS d
			WHERE (datname LIKE 'test\_%' AND datname NOT LIKE $1) OR (datname LIKE 'template\_%' AND (age > 24 AND NOT making))`,
			fmt.Sprintf(`test\_%d\_%%`, s.PID()))
		if err != nil {
			return err
		}
		var names []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			names = append(names, name)
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return err
		}
		for _, name := range names {
			// One that is in use at this moment stays until the next time.
			_, _ = c.ExecContext(ctx, `DROP DATABASE IF EXISTS "`+strings.ReplaceAll(name, `"`, ``)+`"`)
		}
		return nil
	})
}
