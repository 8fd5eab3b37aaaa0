// Package natsembed runs a NATS server with JetStream inside this process, for a shop of several processes on one machine and
// for tests. It listens on the loopback only and asks for a token. It is no server for production: it is one, and it leaves
// flushing to the operating system.
package natsembed

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options of a server.
type Options struct {
	Dir  string // where the stream and the token lie; made if it is not there
	Addr string // 127.0.0.1:4222; "": a free port of the loopback
}

// Server is a running server.
type Server struct {
	s   *server.Server
	url string
}

// Start starts a server and returns when it takes connections. A directory has one token for life, so that clients find a
// server that was started again.
func Start(o Options) (*Server, error) {
	host, port := "127.0.0.1", server.RANDOM_PORT
	if o.Addr != "" {
		h, p, err := net.SplitHostPort(o.Addr)
		if err != nil {
			return nil, fmt.Errorf("address of the NATS server: %w", err)
		}
		if ip := net.ParseIP(h); ip == nil || !ip.IsLoopback() {
			return nil, fmt.Errorf("the NATS server inside the shop listens on the loopback only, not on %q: use 127.0.0.1", h)
		}
		host = h
		if p != "0" {
			if port, err = strconv.Atoi(p); err != nil {
				return nil, fmt.Errorf("port of the NATS server: %q is no number", p)
			}
		}
	}
	if port > 0 {
		// The server itself would say so to its log only.
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
		if err != nil {
			return nil, fmt.Errorf("address of the NATS server: %w", err)
		}
		l.Close()
	}
	token, err := token(o.Dir)
	if err != nil {
		return nil, err
	}
	s, err := server.NewServer(&server.Options{
		ServerName: "banyan", Host: host, Port: port, Authorization: token, JetStream: true, StoreDir: o.Dir,
		NoSigs: true, NoLog: true, DisableJetStreamBanner: true, MaxPayload: 8 << 20,
	})
	if err != nil {
		return nil, fmt.Errorf("make the NATS server: %w", err)
	}
	go s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, errors.New("the NATS server did not come up within 10 s")
	}
	return &Server{s, "nats://" + token + "@" + s.Addr().String()}, nil
}

// token is the secret of the server, 26 letters and digits.
func token(dir string) (string, error) {
	if dir == "" {
		return "", errors.New("the NATS server needs a directory")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory of the NATS server: %w", err)
	}
	path := filepath.Join(dir, "token")
	b, err := os.ReadFile(path)
	if err == nil && len(b) > 0 {
		return strings.TrimSpace(string(b)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("token of the NATS server: %w", err)
	}
	t := rand.Text()
	if err := os.WriteFile(path, []byte(t+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("token of the NATS server: %w", err)
	}
	return t, nil
}

// URL is how to reach the server, with its token: a secret.
func (s *Server) URL() string { return s.url }

// Stop ends the server and returns when its files are closed.
func (s *Server) Stop() {
	s.s.Shutdown()
	s.s.WaitForShutdown()
}
