// Package natsembed runs a NATS server with JetStream in this process.
package natsembed

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

type Options struct{ Dir, Addr string }

type Server struct{ s *server.Server }

func Start(o Options) (*Server, error) {
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(port)
	if n == 0 {
		n = -1
	}
	s, err := server.NewServer(&server.Options{Host: host, Port: n, JetStream: true, StoreDir: o.Dir, NoSigs: true, NoLog: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, fmt.Errorf("nats does not start")
	}
	return &Server{s}, nil
}

func (s *Server) URL() string { return s.s.ClientURL() }
func (s *Server) Stop()       { s.s.Shutdown(); s.s.WaitForShutdown() }

func (s *Server) Moved(context.Context) (string, bool, error) {
	j, err := s.s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true})
	if err != nil {
		return "", false, err
	}
	moved, waiting := uint64(0), false
	for _, a := range j.AccountDetails {
		for _, st := range a.Streams {
			moved += st.State.LastSeq
			for _, c := range st.Consumer {
				moved += c.AckFloor.Consumer
				waiting = waiting || c.NumPending > 0 || c.NumAckPending > 0
			}
		}
	}
	return fmt.Sprint(moved), waiting, nil
}
