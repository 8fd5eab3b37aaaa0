package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/pgembed"
)

// kind is which shop to run: a binary, and where its modules are.
type kind struct {
	name   string // for people
	binary string
	dir    string // its own; it may hold data already
	split  string // modules with a process each, as shop up takes them; "" is one process
}

// shop is a running shop in processes of its own, as in real life.
type shop struct {
	kind
	cmd     *exec.Cmd
	exited  chan struct{}
	address string   // host:port
	ops     []string // http://host:port of each process
	file    string   // settings of all processes of a split shop
	took    time.Duration
	dbs     []*database // one, or one a process that has data
	bus     *bus        // nil in one process
	server  *pgembed.Server
	talk    *tail
	stock   *stock  // found by look
	idle    float64 // queries a second that it makes by itself
}

// db is the database of a shop in one process.
func (s *shop) db() *database { return s.dbs[0] }

// build compiles a command of this repository.
func build(ctx context.Context, dir, command string) (string, error) {
	binary := filepath.Join(dir, filepath.Base(command))
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, command).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", command, err, out)
	}
	return binary, nil
}

// environment is ours without settings of a shop, so that every bench measures the same one.
func environment(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHOP_") || strings.HasPrefix(v, "SHOP_PG_BIN=") {
			env = append(env, v)
		}
	}
	return append(env, more...)
}

// data is where a shop keeps what it knows.
func (k kind) data() string { return filepath.Join(k.dir, "data") }

// command is how a person would start it.
func (k kind) command() (*exec.Cmd, error) {
	if k.split == "" {
		cmd := exec.Command(k.binary)
		cmd.Env = environment("SHOP_DATA_DIR="+k.data(), "SHOP_LISTEN=127.0.0.1:0", "SHOP_OPS_LISTEN=127.0.0.1:0", "SHOP_LOG__LEVEL=warn")
		return cmd, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // up tells its processes the gateway's address beforehand, so it must be a real one
	if err != nil {
		return nil, err
	}
	defer l.Close()
	cmd := exec.Command(k.binary, "up", "--split", k.split, "--listen", l.Addr().String(), "--data-dir", k.data(), "--set", "log.level=warn")
	cmd.Env = environment()
	return cmd, nil
}

// start runs the shop on what its directory holds and returns once it has answered its first request.
func start(ctx context.Context, k kind) (*shop, error) {
	s := &shop{kind: k, exited: make(chan struct{}), talk: &tail{}}
	err := os.MkdirAll(k.dir, 0o755) // PostgreSQL does not run as root, and its user must be able to enter
	if err != nil {
		return nil, err
	}
	if s.cmd, err = k.command(); err != nil {
		return nil, err
	}
	s.cmd.Dir = k.dir
	ownGroup(s.cmd)
	out, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	open := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			s.talk.add(lines.Text())
			if s.read(lines.Text()) {
				close(open)
			}
		}
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	select {
	case <-open:
	case <-s.exited:
		return nil, fmt.Errorf("the shop did not start (%s):\n%s", k.name, s.talk)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	}
	c := &client{address: s.address}
	defer c.close()
	_, err = c.want(http.StatusOK, "GET", "/v1/products?limit=20", "", "")
	s.took = time.Since(began)
	if err == nil {
		err = s.attach(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

var processLine = regexp.MustCompile(`^  \S+ +http://.*, metrics (http://\S+)/metrics$`)

// read takes a line of the banner in and says whether it is the last. In a split shop every process has a banner of its own, whose
// lines begin with the process's name and a bar: the one of all has none.
func (s *shop) read(line string) (last bool) {
	if s.split != "" && strings.Contains(line, " | ") {
		return false
	}
	f := strings.Fields(line)
	switch {
	case strings.HasPrefix(line, "The shop is open at http://"):
		address, _, _ := strings.Cut(strings.TrimPrefix(line, "The shop is open at http://"), " ")
		s.address = strings.TrimRight(address, ",")
	case s.split == "" && len(f) == 2 && f[0] == "metrics":
		s.ops = append(s.ops, strings.TrimSuffix(f[1], "/metrics"))
	case strings.HasPrefix(line, "  who is where ") && len(f) > 1:
		s.file = f[len(f)-1]
	case processLine.MatchString(line):
		s.ops = append(s.ops, processLine.FindStringSubmatch(line)[1])
	}
	return strings.HasPrefix(line, "  stop ")
}

// attach opens what tells whether all is done: the databases, and the bus if there is one.
func (s *shop) attach(ctx context.Context) (err error) {
	data := s.data()
	if s.split != "" {
		data = filepath.Dir(s.file)
	}
	var running bool
	if s.server, running, err = pgembed.Running(ctx, data); err != nil || !running {
		return fmt.Errorf("find the shop's database in %s: %w", data, err)
	}
	admin, err := connect(ctx, s.server.URL("postgres"))
	if err != nil {
		return err
	}
	defer admin.close()
	var names string
	if err := admin.read(ctx, &names, `SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_catalog.pg_database WHERE datname ~ '^shop(_|$)'`); err != nil {
		return err
	}
	for _, name := range strings.Fields(names) {
		db, err := connect(ctx, s.server.URL(name))
		if err != nil {
			return err
		}
		s.dbs = append(s.dbs, db)
	}
	if s.split != "" {
		s.bus, err = listenIn(s.file)
	}
	return err
}

// stop ends the shop as an operator would, and a deaf one for good.
func (s *shop) stop() error {
	for _, db := range s.dbs {
		db.close()
	}
	s.bus.close()
	s.resume()
	_ = s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.exited:
	case <-time.After(40 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return fmt.Errorf("the shop did not stop within 40 s (%s):\n%s", s.name, s.talk)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the shop ended with %d (%s):\n%s", code, s.name, s.talk)
	}
	return nil
}

// freeze halts the shop between two transactions, so that while the raw limit is measured it neither takes the machine's time
// nor handles what is written past it.
func (s *shop) freeze(ctx context.Context) error {
	for range 100 {
		if err := s.pause(); err != nil {
			return err
		}
		var open int
		err := s.db().read(ctx, &open, `SELECT count(*) FROM pg_catalog.pg_stat_activity
			WHERE usename LIKE 'shop\_%' AND state <> 'idle'`)
		if err != nil || open == 0 {
			return err
		}
		s.resume()
		time.Sleep(7 * time.Millisecond)
	}
	s.resume()
	return errors.New("the shop is never without a transaction")
}

// metric is the sum of a counter over its labels and all processes.
func (s *shop) metric(ctx context.Context, name string) (sum float64, err error) {
	found := false
	for _, ops := range s.ops {
		b, err := get(ctx, ops+"/metrics")
		if err != nil {
			return 0, err
		}
		for line := range strings.Lines(string(b)) {
			if rest, ok := strings.CutPrefix(line, name+"{"); ok {
				_, value, _ := strings.Cut(rest, "} ")
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				if err != nil {
					return 0, err
				}
				sum, found = sum+n, true
			}
		}
	}
	if !found {
		return 0, fmt.Errorf("the shop's metrics hold no %s", name)
	}
	return sum, nil
}

// queries is how many round trips the shop has made to its databases so far.
func (s *shop) queries(ctx context.Context) (float64, error) {
	return s.metric(ctx, "banyan_pg_queries_total")
}

// rest measures what the shop asks of its databases while nobody wants anything.
func (s *shop) rest(ctx context.Context) error {
	if err := s.drain(ctx); err != nil {
		return err
	}
	before, err := s.queries(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	time.Sleep(2 * time.Second)
	after, err := s.queries(ctx)
	s.idle = (after - before) / time.Since(began).Seconds()
	return err
}

// profile keeps CPU profiles of the next seconds: in name.pprof, or in name-0.pprof and so on, a process each.
func (s *shop) profile(ctx context.Context, d time.Duration, name string) error {
	done := make(chan error, len(s.ops))
	for i, ops := range s.ops {
		file := name + ".pprof"
		if len(s.ops) > 1 {
			file = fmt.Sprintf("%s-%d.pprof", name, i)
		}
		go func() {
			b, err := get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", ops, max(1, int(d.Seconds()))))
			if err == nil {
				err = os.WriteFile(file, b, 0o644)
			}
			done <- err
		}()
	}
	var all []error
	for range s.ops {
		all = append(all, <-done)
	}
	return errors.Join(all...)
}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s answered %s: %.500s", url, res.Status, b)
	}
	return b, err
}

// resident is the memory of the shop's processes without PostgreSQL, in bytes; 0 where the system does not tell.
func (s *shop) resident() (sum int64) {
	for _, pid := range s.pids() {
		sum += residentOf(pid)
	}
	return sum
}

func residentOf(pid int) int64 {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "VmRSS:" {
				n, _ := strconv.ParseInt(string(f[1]), 10, 64)
				return n << 10
			}
		}
	}
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return n << 10
}

// limits are the rate limits in force, in words.
func limits(ctx context.Context, k kind) (string, error) {
	cmd, err := k.command()
	if err != nil {
		return "", err
	}
	show := exec.CommandContext(ctx, k.binary, "config", "show", "-o", "json")
	show.Dir, show.Env = k.dir, cmd.Env
	out, err := show.Output()
	if err != nil {
		return "", fmt.Errorf("read the shop's settings: %w", err)
	}
	var settings []struct{ Key, Value string }
	if err := json.Unmarshal(out, &settings); err != nil {
		return "", fmt.Errorf("read the shop's settings: %w", err)
	}
	said := map[string]string{}
	for _, s := range settings {
		said[s.Key] = s.Value
	}
	if rate := said["web.per_second"]; rate != "0" && rate != "-1" {
		return fmt.Sprintf("%s requests/s, burst %s, of one customer or address", rate, said["web.burst"]), nil
	}
	return "none: web.per_second is " + said["web.per_second"] + ", which is no limit in development", nil
}

// tail is the last lines that a process said.
type tail struct{ lines []string }

func (t *tail) add(line string) {
	t.lines = append(t.lines, line)
	if len(t.lines) > 40 {
		t.lines = t.lines[1:]
	}
}

func (t *tail) String() string { return strings.Join(t.lines, "\n") }
