package pg_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// fault is what the proxy does to a request it was told to wait for.
type fault int

const (
	fin         fault = iota // the reply is dropped and the connection closed in good order
	reset                    // the reply is dropped and the connection reset
	blackHole                // the reply is dropped and the connection stays open
	loseRequest              // the request is dropped and the connection closed: the server never sees it
	holdRequest              // the request is dropped and both connections stay open: the server waits on
)

// proxy stands between a pool and the server, and drops what it is told to.
type proxy struct {
	t        testing.TB
	listener net.Listener
	upstream func() (net.Conn, error)

	mu     sync.Mutex
	marker []byte // of the request to meet with the fault; nil for none, empty for any
	fault  fault
	closed bool // refuses new connections
	conns  map[net.Conn]bool
	ended  sync.WaitGroup
}

// through is a configuration that reaches the module's schema through a proxy.
func through(t testing.TB, module string) (*proxy, pg.Config) {
	t.Helper()
	c := shoptest.Config(t, module)
	var dir string
	if _, err := fmt.Sscanf(c.URL, "host='%s", &dir); err != nil {
		t.Fatalf("%s: %v", c.URL, err)
	}
	dir = dir[:len(dir)-1]
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, conns: map[net.Conn]bool{}, upstream: func() (net.Conn, error) {
		return net.Dial("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	}}
	p.ended.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.cut()
		p.ended.Wait()
	})
	c.URL += fmt.Sprintf(" host=127.0.0.1 port=%d", l.Addr().(*net.TCPAddr).Port)
	return p, c
}

// on makes the next request that holds marker meet the fault.
func (p *proxy) on(marker string, f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.marker, p.fault = []byte(marker), f
}

// met takes the fault if the request is the one that was waited for.
func (p *proxy) met(request []byte) (fault, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.marker == nil || !bytes.Contains(request, p.marker) {
		return 0, false
	}
	p.marker = nil
	return p.fault, true
}

// refuse lets nobody connect any more.
func (p *proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

// cut ends all connections, as a restart of the server does.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		closed := p.closed
		p.mu.Unlock()
		if closed {
			client.Close()
			continue
		}
		server, err := p.upstream()
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		struck := make(chan fault, 1)
		p.ended.Go(func() { p.requests(client, server, struck) })
		p.ended.Go(func() { p.replies(client, server, struck) })
	}
}

func (p *proxy) requests(client, server net.Conn, struck chan<- fault) {
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			server.Close()
			return
		}
		if f, ok := p.met(buf[:n]); ok {
			switch f {
			case loseRequest:
				client.Close()
				server.Close()
				return
			case holdRequest:
				_, _ = io.Copy(io.Discard, client) // until the client gives up; the server learns nothing of it
				return
			}
			struck <- f
		}
		if _, err := server.Write(buf[:n]); err != nil {
			client.Close()
			return
		}
	}
}

func (p *proxy) replies(client, server net.Conn, struck <-chan fault) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			client.Close()
			return
		}
		select {
		case f := <-struck:
			switch f {
			case reset:
				_ = client.(*net.TCPConn).SetLinger(0)
				fallthrough
			case fin:
				client.Close()
				server.Close()
			case blackHole:
				_, _ = io.Copy(io.Discard, server)
			}
			return
		default:
		}
		if _, err := client.Write(buf[:n]); err != nil {
			server.Close()
			return
		}
	}
}

// demo makes the tables these tests use.
func demo(t testing.TB) {
	t.Helper()
	shoptest.DB(t, "demo")
	shoptest.Exec(t, `
		CREATE TABLE demo.items (id text PRIMARY KEY, n bigint NOT NULL CONSTRAINT items_positive CHECK (n >= 0));
		INSERT INTO demo.items SELECT 'seed' || i, i FROM generate_series(1, 1000) AS i;`)
}

func insert(ctx context.Context, tx *pg.Tx, id string, n int) error {
	_, err := tx.Exec(ctx, `INSERT INTO demo.items (id, n) VALUES ($1, $2)`, id, n)
	return err
}

func there(t testing.TB, db *pg.DB, id string) bool {
	t.Helper()
	var n int
	if err := db.Get(t.Context(), &n, `SELECT count(*) FROM demo.items WHERE id = $1`, id); err != nil {
		t.Fatal(err)
	}
	return n == 1
}
