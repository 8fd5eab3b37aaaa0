//go:build unix

// Package rabbittest runs a real RabbitMQ for tests: a node of its own, with its own directory, ports and cookie, on the
// loopback. It needs RabbitMQ and Erlang installed (Debian: rabbitmq-server) and runs them as whoever runs the tests. Only
// tests import it.
package rabbittest

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Node is one broker. Its methods are for one goroutine.
type Node struct {
	server, dir string
	ports       [3]string // of AMQP, of Erlang's distribution and of its port mapper
	cmd         *exec.Cmd
	life        io.Closer // the node ends when it is closed, also by our death
}

// New starts a node, which ends with the test. Without RabbitMQ the test is skipped; where CI is set it fails.
func New(t testing.TB) *Node {
	t.Helper()
	server := find()
	if server == "" {
		const missing = "RabbitMQ is not installed: apt-get install rabbitmq-server"
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip(missing)
	}
	// Not t.TempDir(): its long names do not fit what Erlang makes of them.
	dir, err := os.MkdirTemp("", "rabbit")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &Node{server: server, dir: dir}
	for i := range n.ports {
		n.ports[i] = freePort(t)
	}
	for file, text := range map[string]string{
		"plugins": "[].\n", "rabbitmq.conf": "log.console = false\nloopback_users.guest = true\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.Start(t)
	t.Cleanup(func() { n.Stop(t) })
	return n
}

// find looks where packages put the program itself: what Debian puts on the PATH changes user and forgets the environment.
func find() string {
	for _, path := range []string{"/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	path, err := exec.LookPath("rabbitmq-server")
	if err != nil {
		return ""
	}
	return path
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// URL is how to reach the node, also after it was started again.
func (n *Node) URL() string { return "amqp://guest:guest@127.0.0.1:" + n.ports[0] + "/" }

// Start starts a stopped node and returns when it takes connections.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	// Everything is one process group, which the shell kills when its input ends: when we stop the node, or die.
	n.cmd = exec.Command("sh", "-c", `epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & "$0" & read -r _; kill -KILL 0`, n.server)
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	n.cmd.Dir = n.dir
	n.cmd.Env = append(os.Environ(),
		"HOME="+n.dir, // of the cookie
		"RABBITMQ_NODENAME=test@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1", "RABBITMQ_NODE_PORT="+n.ports[0],
		"RABBITMQ_DIST_PORT="+n.ports[1], "ERL_EPMD_PORT="+n.ports[2], "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_MNESIA_BASE="+filepath.Join(n.dir, "data"), "RABBITMQ_LOG_BASE="+filepath.Join(n.dir, "log"),
		"RABBITMQ_CONF_ENV_FILE=/dev/null", "RABBITMQ_CONFIG_FILE="+filepath.Join(n.dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(n.dir, "plugins"),
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1}",
	)
	var said bytes.Buffer // read only after the end
	n.cmd.Stdout, n.cmd.Stderr = &said, &said
	n.cmd.WaitDelay = time.Second
	var err error
	if n.life, err = n.cmd.StdinPipe(); err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		t.Fatalf("start RabbitMQ: %v", err)
	}
	for late := time.Now().Add(90 * time.Second); ; {
		c, err := amqp.Dial(n.URL())
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(late) {
			n.Stop(t)
			t.Fatalf("RabbitMQ does not answer: %v\n%s", err, said.String())
		}
		wait(50 * time.Millisecond)
	}
}

// Stop kills the node, as a power cut does but for what the operating system still writes.
func (n *Node) Stop(t testing.TB) {
	t.Helper()
	if n.cmd == nil {
		return
	}
	n.life.Close()
	_ = n.cmd.Wait() // it was killed
	n.cmd = nil
	for late := time.Now().Add(20 * time.Second); ; wait(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+n.ports[0])
		if err != nil {
			return
		}
		c.Close()
		if time.Now().After(late) {
			t.Fatal("RabbitMQ does not end")
		}
	}
}

func wait(d time.Duration) { <-time.After(d) }

// Save and Restore keep what a stopped node has stored, and bring it back.
func (n *Node) Save(t testing.TB) {
	t.Helper()
	if err := os.CopyFS(n.path("saved"), os.DirFS(n.path("data"))); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) Restore(t testing.TB) {
	t.Helper()
	if err := os.RemoveAll(n.path("data")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.path("saved"), n.path("data")); err != nil {
		t.Fatal(err)
	}
}

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }
