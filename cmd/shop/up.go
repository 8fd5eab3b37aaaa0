package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/api/usersapi"
	"github.com/banyan-shop/banyan/platform/auth"
	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/events/natsembed"
	"github.com/banyan-shop/banyan/platform/pgembed"
)

type upCommand struct {
	Split  string `help:"Modules that get a process and a database of their own: names with commas, or all." placeholder:"NAME,…|all" default:"all"`
	Listen string `help:"Public address of the gateway." placeholder:"HOST:PORT" default:"127.0.0.1:8080"`
}

func (upCommand) Help() string {
	return "Runs the whole shop as real processes on this machine, to look at: a PostgreSQL with a database for each, a NATS\n" +
		"between them and a gateway in front. One Ctrl-C ends them all.\n\n" + examples("shop up --split payments,catalog", "shop up --split all --listen 127.0.0.1:9000")
}

// topology is what up runs: which processes, with the addresses of each.
type topology struct {
	order     []string // of starting: callees first, the gateway last
	processes map[string]upProcess
}

// upProcess is an entry of the block processes, as up writes it.
type upProcess struct {
	HTTP        string    `yaml:"http"`
	RPC         string    `yaml:"rpc"`
	OpsListen   string    `yaml:"ops_listen"`
	Gateway     bool      `yaml:"gateway,omitempty"`
	Modules     *[]string `yaml:"modules,omitempty,flow"`
	DatabaseURL string    `yaml:"database_url"`
}

// plan gives each module of split a process; what is left runs in main, and a gateway stands alone when nothing is.
func (u *upCommand) plan() (topology, error) {
	var names []string
	for _, m := range modules {
		names = append(names, m.Name)
	}
	wanted := strings.FieldsFunc(u.Split, func(r rune) bool { return r == ',' || r == ' ' })
	if u.Split == "all" {
		wanted = names
	}
	for _, w := range wanted {
		if !slices.Contains(names, w) {
			return topology{}, misused{fmt.Errorf("no module %q: --split takes %s, or all%s", w, strings.Join(names, ", "), config.DidYouMean(w, names))}
		}
	}
	t := topology{processes: map[string]upProcess{}}
	for _, m := range names {
		if slices.Contains(wanted, m) {
			t.order = append(t.order, m)
			t.processes[m] = upProcess{Modules: &[]string{m}}
		}
	}
	front := upProcess{Gateway: true}
	name := "main"
	if len(wanted) == len(names) {
		name, front.Modules = "gateway", &[]string{}
	}
	t.order, t.processes[name] = append(t.order, name), front
	taken := map[string]bool{u.Listen: true} // by the plan, so far: nothing listens there yet
	for _, name := range t.order {
		p := t.processes[name]
		for _, address := range []*string{&p.HTTP, &p.RPC, &p.OpsListen} {
			for *address == "" || taken[*address] {
				var err error
				if *address, err = freePort(); err != nil {
					return t, err
				}
			}
			taken[*address] = true
		}
		if p.Gateway {
			p.HTTP = u.Listen
		}
		p.HTTP, p.RPC = "http://"+p.HTTP, "http://"+p.RPC
		t.processes[name] = p
	}
	return t, nil
}

// freePort is a loopback address below the ports that the system gives to outgoing connections, so that nobody takes it while a
// process is down.
func freePort() (string, error) {
	for range 100 {
		address := "127.0.0.1:" + strconv.Itoa(10_000+rand.IntN(20_000))
		if l, err := net.Listen("tcp", address); err == nil {
			return address, l.Close()
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

func (u *upCommand) Run(ctx context.Context, c *cli, p *process) (err error) {
	began := time.Now()
	t, err := u.plan()
	if err != nil {
		return err
	}
	if l, err := net.Listen("tcp", u.Listen); err != nil {
		return fmt.Errorf("can't listen on %s: %w: stop what does, or choose another address with --listen", u.Listen, err)
	} else {
		l.Close()
	}
	s := &supervisor{out: p.stderr, color: colorful(p.stderr)}
	dir, err := u.dir(c, t)
	if err != nil {
		return err
	}
	release, err := pgembed.Lock(dir)
	if err != nil {
		return err
	}
	defer release()

	s.say("a PostgreSQL with a database for each process …")
	database, err := pgembed.Start(ctx, pgembed.Options{Dir: dir, Fsync: true, Log: slog.New(slog.DiscardHandler), Progress: s.say})
	if err != nil {
		return err
	}
	stop := func(what string, f func(context.Context) error) {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if stopErr := f(last); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stop %s: %w", what, stopErr))
		}
	}
	defer func() { stop("PostgreSQL", database.Stop) }()
	s.say("a NATS to carry events …")
	bus, err := natsembed.Start(natsembed.Options{Dir: filepath.Join(dir, "nats"), Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer func() { stop("NATS", func(context.Context) error { bus.Stop(); return nil }) }()

	for _, name := range t.order {
		process := t.processes[name]
		process.DatabaseURL = database.URL("shop_" + name)
		t.processes[name] = process
	}
	file, err := t.write(c, p, dir, bus.URL())
	if err != nil {
		return err
	}
	s.say("processes " + strings.Join(t.order, ", ") + " …")
	self, err := os.Executable()
	if err != nil {
		return err
	}
	s.command = func(name string) *exec.Cmd {
		cmd := exec.Command(self, "serve", "--config", file, "--process", name)
		cmd.Env = slices.DeleteFunc(slices.Clone(p.env), func(kv string) bool {
			return strings.HasPrefix(kv, config.Prefix) && !strings.HasPrefix(kv, "SHOP_PG_BIN=")
		})
		for key, value := range c.Set {
			cmd.Args = append(cmd.Args, "--set", key+"="+value)
		}
		return cmd
	}
	for i, name := range t.order {
		s.start(name, i)
	}
	if err := s.ready(ctx, t); err == nil {
		s.banner(t, file, time.Since(began))
		<-ctx.Done()
	} else if ctx.Err() == nil {
		s.end(p.hurry, t)
		return err
	}
	s.say("stopping: requests under way end first; once more to cut them off")
	s.end(p.hurry, t)
	return nil
}

// dir is where a topology keeps its data: each split has its own, since a module's data lies where the module runs.
func (u *upCommand) dir(c *cli, t topology) (string, error) {
	base := c.DataDir
	if base == "" {
		var err error
		if base, err = pgembed.DefaultDir(); err != nil {
			return "", err
		}
	}
	name := strings.Join(t.order, "+")
	if _, all := t.processes["gateway"]; all {
		name = "all"
	}
	return filepath.Join(base, "up", name), nil
}

// write makes the settings file that all processes read: what the user's own says, with the topology in place of whatever it says
// about one.
func (t topology) write(c *cli, p *process, dir, bus string) (string, error) {
	kept := filepath.Join(dir, "secret")
	if _, err := auth.SecretFile(kept); err != nil {
		return "", err
	}
	secret, err := os.ReadFile(kept)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	ours := map[string]any{"mode": "development", "log": map[string]string{"format": "text"}, "drain": map[string]string{"delay": "1ms"}, "bus": bus, "secret": strings.TrimSpace(string(secret)), "data_dir": dir, "processes": t.processes}
	var all yaml.Node
	if err := all.Encode(ours); err != nil {
		return "", err
	}
	if own := c.file(p); own != "" {
		text, err := os.ReadFile(own)
		if err != nil {
			return "", fmt.Errorf("read the settings file: %w", err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(text, &doc); err != nil {
			return "", fmt.Errorf("%s: %w", own, err)
		}
		replaced := []string{"mode", "log", "drain", "bus", "secret", "data_dir", "processes", "process", "modules", "remote", "database_url", "listen", "rpc_listen", "ops_listen", "public_url"}
		if len(doc.Content) == 1 && doc.Content[0].Kind == yaml.MappingNode {
			pairs := doc.Content[0].Content
			for i := 0; i+1 < len(pairs); i += 2 {
				if !slices.Contains(replaced, pairs[i].Value) {
					all.Content = append(all.Content, pairs[i], pairs[i+1])
				}
			}
		}
	}
	text, err := yaml.Marshal(&all)
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "shop.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil { // it holds the secret
		return "", fmt.Errorf("write the topology: %w", err)
	}
	return file, nil
}

// supervisor keeps processes running and tells what they say.
type supervisor struct {
	command func(name string) *exec.Cmd
	out     io.Writer
	color   bool

	mu       sync.Mutex
	children map[string]*os.Process
	ending   bool
	running  sync.WaitGroup
}

func (s *supervisor) say(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.out, what)
}

// start runs a process until end, again whenever it ends by itself.
func (s *supervisor) start(name string, number int) {
	s.running.Go(func() {
		runtime.LockOSThread() // the kernel ends a child with the thread that made it
		defer runtime.UnlockOSThread()
		for failures := 0; ; failures++ {
			began := time.Now()
			err := s.runOnce(name, number)
			if s.isEnding() {
				return
			}
			if time.Since(began) > 10*time.Second {
				failures = 0
			}
			wait := min(200*time.Millisecond<<min(failures, 5), 5*time.Second)
			s.line(name, number, fmt.Sprintf("ended (%v) and is started again in %s", err, wait))
			time.Sleep(wait)
			if s.isEnding() {
				return
			}
		}
	})
}

func (s *supervisor) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

func (s *supervisor) runOnce(name string, number int) error {
	cmd := s.command(name)
	cmd.SysProcAttr = child()
	read, write := io.Pipe()
	cmd.Stdout, cmd.Stderr = write, write
	s.mu.Lock()
	if s.ending {
		s.mu.Unlock()
		return nil
	}
	err := cmd.Start()
	if err == nil {
		if s.children == nil {
			s.children = map[string]*os.Process{}
		}
		s.children[name] = cmd.Process
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		lines := bufio.NewScanner(read)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			if text := strings.TrimRight(lines.Text(), " "); text != "" {
				s.line(name, number, text)
			}
		}
		_, _ = io.Copy(io.Discard, read) // a line beyond all measure must not block the process
	}()
	err = cmd.Wait()
	write.Close()
	<-told
	s.mu.Lock()
	delete(s.children, name)
	s.mu.Unlock()
	return err
}

var palette = [...]string{"36", "33", "32", "35", "34", "96", "93", "92", "95", "94"}

func (s *supervisor) line(name string, number int, text string) {
	prefix := fmt.Sprintf("%-13s |", name)
	if s.color {
		prefix = "\x1b[" + palette[number%len(palette)] + "m" + prefix + "\x1b[0m"
	}
	s.say(prefix + " " + text)
}

func colorful(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("NO_COLOR") == ""
}

// ready returns when every process says that it is.
func (s *supervisor) ready(ctx context.Context, t topology) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for _, name := range t.order {
		for !answers(ctx, t.processes[name].HTTP+"/readyz") {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s does not get ready: see its lines above", name)
			case <-time.After(50 * time.Millisecond):
			}
		}
	}
	return nil
}

func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

// end asks the gateway to drain, then the others, and kills what is left when hurry ends.
func (s *supervisor) end(hurry context.Context, t topology) {
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	front := t.order[len(t.order)-1]
	s.signal(syscall.SIGTERM, front)
	for s.lives(front) && hurry.Err() == nil {
		select {
		case <-hurry.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	s.signal(syscall.SIGTERM, t.order...)
	select {
	case <-done:
	case <-hurry.Done():
		s.signal(syscall.SIGKILL, t.order...)
		<-done
	}
}

func (s *supervisor) lives(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.children[name] != nil
}

func (s *supervisor) signal(sig os.Signal, names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		if child := s.children[name]; child != nil {
			_ = child.Signal(sig) // it may have ended this moment
		}
	}
}

func (s *supervisor) banner(t topology, file string, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	front := t.processes[t.order[len(t.order)-1]]
	fmt.Fprintf(s.out, "\nThe shop is open at %s, in %d processes (started in %.1f s)\n", front.HTTP, len(t.order), took.Seconds())
	line := func(what, where string) { fmt.Fprintf(s.out, "  %-11s %s\n", what, where) }
	line("API docs", front.HTTP+"/docs")
	line("mail sink", front.HTTP+mailSink)
	line("shopper", usersapi.DemoShopper+" / "+usersapi.DemoShopperPassword)
	line("admin", usersapi.DemoAdmin+" / "+usersapi.DemoAdminPassword)
	line("who is where", "shop topology --live --config "+file)
	for _, name := range t.order {
		p := t.processes[name]
		line(name, fmt.Sprintf("%s, calls %s, metrics http://%s/metrics", p.HTTP, p.RPC, p.OpsListen))
	}
	line("stop", "Ctrl-C")
	fmt.Fprintln(s.out)
}
