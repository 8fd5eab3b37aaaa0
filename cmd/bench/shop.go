package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/banyan-shop/banyan/platform/pgembed"
)

// shop is a running shop, a process of its own as in real life.
type shop struct {
	cmd     *exec.Cmd
	exited  chan struct{}
	address string // host:port
	ops     string // http://host:port
	took    time.Duration
	db      *database
	server  *pgembed.Server
	talk    *tail
}

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
func environment(dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "SHOP_") || strings.HasPrefix(v, "SHOP_PG_BIN=") {
			env = append(env, v)
		}
	}
	return append(env, "SHOP_DATA_DIR="+filepath.Join(dir, "data"), "SHOP_LISTEN=127.0.0.1:0", "SHOP_OPS_LISTEN=127.0.0.1:0", "SHOP_LOG__LEVEL=warn")
}

// start runs the shop on dir's data and returns once it has answered its first request.
func start(ctx context.Context, binary, dir string) (*shop, error) {
	s := &shop{cmd: exec.Command(binary), exited: make(chan struct{}), talk: &tail{}}
	s.cmd.Dir, s.cmd.Env = dir, environment(dir)
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
			text := lines.Text()
			s.talk.add(text)
			if _, rest, ok := strings.Cut(text, "The shop is open at http://"); ok {
				s.address, _, _ = strings.Cut(rest, " ")
			}
			if f := strings.Fields(text); len(f) == 2 && f[0] == "metrics" {
				s.ops = strings.TrimSuffix(f[1], "/metrics")
			}
			if strings.HasPrefix(text, "  stop ") {
				close(open)
			}
		}
		_ = s.cmd.Wait()
		close(s.exited)
	}()
	select {
	case <-open:
	case <-s.exited:
		return nil, fmt.Errorf("the shop did not start:\n%s", s.talk)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.stop())
	}
	c := &client{address: s.address}
	defer c.close()
	_, err = c.want(http.StatusOK, "GET", "/v1/products?limit=20", "", "")
	s.took = time.Since(began)
	if err == nil {
		err = s.attach(ctx, filepath.Join(dir, "data"))
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func (s *shop) attach(ctx context.Context, data string) error {
	server, running, err := pgembed.Running(ctx, data)
	if err != nil || !running {
		return fmt.Errorf("find the shop's database in %s: %w", data, err)
	}
	s.server = server
	s.db, err = connect(ctx, server.URL("shop"))
	return err
}

// stop ends the shop as an operator would, and a deaf one for good.
func (s *shop) stop() error {
	if s.db != nil {
		s.db.close()
	}
	s.resume()
	_ = s.cmd.Process.Signal(os.Interrupt)
	select {
	case <-s.exited:
	case <-time.After(30 * time.Second):
		_ = s.cmd.Process.Kill()
		<-s.exited
		return fmt.Errorf("the shop did not stop within 30 s:\n%s", s.talk)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("the shop ended with %d:\n%s", code, s.talk)
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
		err := s.db.read(ctx, &open, `SELECT count(*) FROM pg_catalog.pg_stat_activity
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

// drain waits until every event is handled and every mail is sent.
func (s *shop) drain(ctx context.Context) error {
	end := time.Now().Add(2 * time.Minute)
	for {
		var left int
		err := s.db.read(ctx, &left, `
			SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(format(
				CASE tablename WHEN 'outbox' THEN 'SELECT count(*) AS n FROM %I.outbox WHERE sent_at IS NULL'
					WHEN 'retry' THEN 'SELECT count(*) AS n FROM %I.retry'
					ELSE 'SELECT count(*) AS n FROM %I.messages WHERE state = ''pending''' END, schemaname), false, true, '')))[1]::text::bigint), 0)
			FROM pg_catalog.pg_tables WHERE tablename IN ('outbox', 'retry') OR schemaname = 'notifications' AND tablename = 'messages'`)
		if err != nil || left == 0 {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d events and mails are still waiting after two minutes", left)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// queries is how many round trips the shop has made to its database so far.
func (s *shop) queries(ctx context.Context) (made float64, err error) {
	b, err := get(ctx, s.ops+"/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "banyan_pg_queries_total{"); ok {
			_, value, _ := strings.Cut(rest, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return 0, err
			}
			made += n
		}
	}
	if made == 0 {
		return 0, errors.New("the shop's metrics hold no banyan_pg_queries_total")
	}
	return made, nil
}

// profile keeps a CPU profile of the next seconds in file.
func (s *shop) profile(ctx context.Context, d time.Duration, file string) error {
	b, err := get(ctx, fmt.Sprintf("%s/debug/pprof/profile?seconds=%d", s.ops, max(1, int(d.Seconds()))))
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
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

// resident is the memory of the shop alone, in bytes; 0 where the system does not tell.
func (s *shop) resident() int64 {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)); err == nil {
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "VmRSS:" {
				n, _ := strconv.ParseInt(string(f[1]), 10, 64)
				return n << 10
			}
		}
	}
	out, err := exec.Command("ps", "-o", "rss=", "-p", strconv.Itoa(s.cmd.Process.Pid)).Output()
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	return n << 10
}

// limits are the rate limits in force, in words.
func limits(ctx context.Context, binary, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, binary, "config", "show", "-o", "json")
	cmd.Dir, cmd.Env = dir, environment(dir)
	out, err := cmd.Output()
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
