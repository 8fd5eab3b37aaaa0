// Package pgembed runs a PostgreSQL for development and tests: it finds the machine's own binaries or fetches pinned ones
// once, makes a cluster in a directory, starts it on a private unix socket and stops it with the program.
//
// It is not a way to run production: a shop that is to be kept has database_url. It makes no databases, roles or tables,
// see platform/migrate.
package pgembed

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

// Options say where a cluster lives and how careful it is.
type Options struct {
	Dir      string       // holds pg/data, pg/server.log and, if its path is short enough, the socket; made if absent
	Fsync    bool         // survive a power cut; tests do without
	Log      *slog.Logger // nil for none
	Progress func(string) // told what takes long: fetching, making the cluster; nil for none
	NoFetch  bool         // never download binaries
	TCP      bool         // a loopback port and a password in place of the socket; always so on Windows
}

// Server is a running PostgreSQL.
type Server struct {
	dir      string // Options.Dir/pg
	host     string // socket directory, or 127.0.0.1
	port     int
	pid      int
	password string
	adopted  bool
	exited   chan struct{} // closed when our child has been reaped; nil if adopted
}

// superuser owns the cluster. The name is fixed, so that a data directory can be opened by whoever owns it.
const superuser = "postgres"

// Start returns the server of the directory: the one that runs there, or a new one on its data, made if there is none.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if windows {
		o.TCP = true
	}
	dir, err := filepath.Abs(filepath.Join(o.Dir, "pg"))
	if err != nil {
		return nil, err
	}
	owner, err := clusterOwner()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	if err := owner.mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	release, err := exclusive(ctx, filepath.Join(dir, "start.lock"))
	if err != nil {
		return nil, fmt.Errorf("wait for another start in %s: %w", dir, err)
	}
	defer release()

	s := &Server{dir: dir}
	if err := s.adopt(ctx, true); err != nil || s.adopted {
		return s, err
	}
	began := time.Now()
	bin, err := find(ctx, clusterVersion(s.data()), o)
	if err != nil {
		return nil, err
	}
	if err := s.initialize(ctx, bin, owner, o); err != nil {
		return nil, err
	}
	if err := s.launch(ctx, bin, owner, o); err != nil {
		return nil, err
	}
	o.Log.Info("postgresql started", "version", bin.version, "dir", dir, "pid", s.pid, "ms", time.Since(began).Milliseconds())
	return s, nil
}

// URL is a superuser's connection string for a database of the server.
func (s *Server) URL(database string) string {
	u := fmt.Sprintf("host='%s' port=%d user=%s dbname='%s' sslmode=disable", s.host, s.port, superuser, database)
	if s.password != "" {
		u += " password=" + s.password
	}
	return u
}

// Adopted says that the server ran before us; Stop leaves it alone.
func (s *Server) Adopted() bool { return s.adopted }

// PID is the postmaster's process id.
func (s *Server) PID() int { return s.pid }

// Stop ends a server that we started: open transactions are rolled back, everything committed is on disk.
func (s *Server) Stop(ctx context.Context) error {
	if s.adopted {
		return nil
	}
	return s.Kill(ctx)
}

// Kill stops the server whoever started it.
func (s *Server) Kill(ctx context.Context) error {
	if s.exited == nil { // not our child
		if err := interrupt(s.pid); err != nil {
			return nil // gone
		}
		return poll(ctx, func() bool { return !alive(s.pid) })
	}
	_ = interrupt(s.pid)
	select {
	case <-s.exited:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop postgresql: %w", ctx.Err())
	}
}

func (s *Server) data() string    { return filepath.Join(s.dir, "data") }
func (s *Server) logfile() string { return filepath.Join(s.dir, "server.log") }

// marker is written when initdb has finished: a cluster without it is half-made.
func (s *Server) marker() string { return filepath.Join(s.data(), "banyan.ready") }

func clusterVersion(data string) int {
	b, err := os.ReadFile(filepath.Join(data, "PG_VERSION"))
	if err != nil {
		return 0
	}
	v, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return v
}

// Running is the server that runs on the directory's data; false if none does. It starts nothing.
func Running(ctx context.Context, dir string) (*Server, bool, error) {
	dir, err := filepath.Abs(filepath.Join(dir, "pg"))
	if err != nil {
		return nil, false, err
	}
	s := &Server{dir: dir}
	err = s.adopt(ctx, false)
	return s, s.adopted, err
}

// adopt takes over a server that runs on our data, perhaps left by a crash of the program that started it. Only
// who holds the start lock may mend the pid file: for others it may be half-written, by a server that is starting.
func (s *Server) adopt(ctx context.Context, mend bool) error {
	path := filepath.Join(s.data(), "postmaster.pid")
	for {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil
		}
		l := strings.Split(string(b), "\n")
		pid, err := strconv.Atoi(strings.TrimSpace(l[0]))
		garbage := err != nil || pid <= 1
		if !garbage && !alive(pid) {
			return nil // postgres itself checks that no process of the old server is left, and goes on
		}
		if garbage || !isPostgres(pid) { // or the id belongs to somebody else by now
			if !mend {
				return nil
			}
			if err := os.Remove(path); err != nil { // postgres would refuse to start for it
				return fmt.Errorf("remove a stale %s: %w", path, err)
			}
			return nil
		}
		if len(l) > 7 && strings.TrimSpace(l[7]) == "ready" {
			s.pid = pid
			s.port, _ = strconv.Atoi(l[3])
			s.host = l[4]
			s.password = readPassword(s.dir)
			if s.host == "" {
				s.host = "127.0.0.1"
			}
			if err := s.ping(ctx); err != nil {
				return fmt.Errorf("a postgresql (pid %d) runs on %s but does not answer: %w", pid, s.data(), err)
			}
			s.adopted = true
			return nil
		}
		// It is starting, recovering or stopping.
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("a postgresql (pid %d) on %s is not ready: %w", pid, s.data(), err)
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	db, err := pg.OpenAdmin(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	return db.Close()
}

func readPassword(dir string) string {
	b, _ := os.ReadFile(filepath.Join(dir, "password"))
	return strings.TrimSpace(string(b))
}

// locales are tried in order: C alone does not fold case beyond ASCII.
var locales = [][]string{
	{"--locale-provider=icu", "--icu-locale=und", "--locale=C.UTF-8"},
	{"--locale-provider=icu", "--icu-locale=und"},
	{"--locale=C.UTF-8"},
	{"--locale=C"},
}

// initialize makes the cluster, unless it is there. What an interrupted initdb left is thrown away.
func (s *Server) initialize(ctx context.Context, bin binaries, owner owner, o Options) error {
	if _, err := os.Stat(s.marker()); err == nil {
		if have := clusterVersion(s.data()); have != bin.major {
			return fmt.Errorf("the data in %s was made by PostgreSQL %d, but the binaries in %s are %s: point SHOP_PG_BIN at PostgreSQL %d, or move the directory away to start afresh",
				s.data(), have, bin.dir, bin.version, have)
		}
		return nil
	}
	o.Progress("making a database cluster")
	var output []byte
	for _, locale := range locales {
		if err := os.RemoveAll(s.data()); err != nil {
			return fmt.Errorf("clear a half-made cluster: %w", err)
		}
		args := []string{"-D", s.data(), "-U", superuser, "-E", "UTF8", "--no-sync", "--no-instructions"}
		if o.TCP {
			password, err := s.newPassword(owner)
			if err != nil {
				return err
			}
			args = append(args, "-A", "scram-sha-256", "--pwfile", password)
		} else {
			args = append(args, "-A", "trust") // the socket's directory keeps others out
		}
		cmd := exec.CommandContext(ctx, bin.path("initdb"), append(args, locale...)...)
		cmd.Dir = s.dir
		cmd.Env = environment()
		cmd.SysProcAttr = owner.attributes()
		var err error
		if output, err = cmd.CombinedOutput(); err == nil {
			return owner.write(s.marker(), []byte(bin.version+"\n"), 0o600)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("make a database cluster: %w", ctx.Err())
		}
	}
	return fmt.Errorf("make a database cluster in %s with %s: %s", s.data(), bin.path("initdb"), strings.TrimSpace(string(output)))
}

func (s *Server) newPassword(owner owner) (path string, err error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	path = filepath.Join(s.dir, "password")
	return path, owner.write(path, []byte(hex.EncodeToString(b)+"\n"), 0o600)
}

// environment is ours without what would turn initdb or postgres to another place.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PG") && !strings.HasPrefix(v, "LC_") && !strings.HasPrefix(v, "LANG") {
			env = append(env, v)
		}
	}
	return append(env, "LC_ALL=C", "LANG=C")
}

// settings suit a shop on a laptop: 2 cores, some hundred MB.
func (s *Server) settings(o Options) []string {
	set := map[string]string{
		"max_connections":              "200",
		"shared_buffers":               "128MB",
		"jit":                          "off", // costs more than it gains on statements of a millisecond
		"wal_compression":              "on",
		"max_wal_size":                 "1GB",
		"checkpoint_timeout":           "15min",
		"checkpoint_completion_target": "0.9",
		"random_page_cost":             "1.1",
		"log_min_messages":             "warning",
		"log_min_error_statement":      "panic", // a statement's text may hold values
		"log_parameter_max_length":     "0",
		"log_checkpoints":              "off",
		"wal_level":                    "logical", // an extraction copies a schema while it is written
		"log_timezone":                 "UTC",
		"timezone":                     "UTC",
	}
	if !o.Fsync {
		set["fsync"] = "off"
		set["full_page_writes"] = "off"
		set["wal_level"] = "minimal"
		set["max_wal_senders"] = "0"
		set["autovacuum"] = "off"
		set["max_connections"] = "500"
	}
	if o.TCP {
		set["listen_addresses"] = "127.0.0.1"
		set["port"] = strconv.Itoa(s.port)
		set["unix_socket_directories"] = ""
	} else {
		set["listen_addresses"] = ""
		set["port"] = strconv.Itoa(s.port)
		set["unix_socket_directories"] = s.host
		set["unix_socket_permissions"] = "0700"
	}
	args := []string{"-D", s.data()}
	for k, v := range set {
		args = append(args, "-c", k+"="+v)
	}
	return args
}

// errStillThere is what postgres says while processes of a killed server end.
const errStillThere = "pre-existing shared memory block"

func (s *Server) launch(ctx context.Context, bin binaries, owner owner, o Options) error {
	s.password = ""
	if o.TCP {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.host, s.port, s.password = "127.0.0.1", port, readPassword(s.dir)
	} else {
		s.port = 5432 // names the socket only
		var err error
		if s.host, err = s.socketDir(owner); err != nil {
			return err
		}
	}
	for {
		err := s.launchOnce(ctx, bin, owner, o)
		if err == nil || !strings.Contains(err.Error(), errStillThere) || ctx.Err() != nil {
			return err
		}
		if wait(ctx, 100*time.Millisecond) != nil {
			return err
		}
	}
}

func (s *Server) launchOnce(ctx context.Context, bin binaries, owner owner, o Options) error {
	out, err := os.OpenFile(s.logfile(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("open postgresql's log: %w", err)
	}
	defer out.Close()
	cmd := exec.Command(bin.path("postgres"), s.settings(o)...)
	cmd.Dir = s.data()
	cmd.Env = environment()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = owner.attributes()
	s.exited = make(chan struct{})
	if err := startAndReap(cmd, s.exited); err != nil {
		return fmt.Errorf("start %s: %w", bin.path("postgres"), err)
	}
	s.pid = cmd.Process.Pid

	ready := func() bool {
		b, _ := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
		l := strings.Split(string(b), "\n")
		return len(l) > 7 && strings.TrimSpace(l[0]) == strconv.Itoa(s.pid) && strings.TrimSpace(l[7]) == "ready"
	}
	for !ready() {
		select {
		case <-s.exited:
			text, _ := os.ReadFile(s.logfile())
			return fmt.Errorf("postgresql did not start on %s: %s", s.data(), lastLines(string(text), 6))
		case <-ctx.Done():
			_ = interrupt(s.pid)
			return fmt.Errorf("start postgresql on %s: %w", s.data(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := s.ping(ctx); err != nil {
		_ = interrupt(s.pid)
		return fmt.Errorf("postgresql on %s started but does not answer: %w", s.data(), err)
	}
	return nil
}

// maxSocketDir leaves room for /.s.PGSQL.5432 in the 103 bytes that macOS allows for a socket's path.
const maxSocketDir = 85

func (s *Server) socketDir(owner owner) (string, error) {
	dir := filepath.Join(s.dir, "run")
	if len(dir) > maxSocketDir {
		dir = filepath.Join(os.TempDir(), "banyan-"+shortHash(s.dir))
	}
	if len(dir) > maxSocketDir {
		dir = filepath.Join("/tmp", "banyan-"+shortHash(s.dir))
	}
	if err := owner.mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the socket's directory: %w", err)
	}
	return dir, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

func lastLines(s string, n int) string {
	l := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(l[max(0, len(l)-n):], "; ")
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func poll(ctx context.Context, done func() bool) error {
	for !done() {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}
