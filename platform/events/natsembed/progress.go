package natsembed

import (
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
)

// Progress is a mark that changes with everything that is published and acknowledged, and whether anything waits for a durable
// consumer: for whoever must know that all that was told has been heard.
func (s *Server) Progress() (mark uint64, waiting bool, err error) {
	info, err := s.s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true, Config: true})
	if err != nil {
		return 0, false, fmt.Errorf("look at the streams of NATS: %w", err)
	}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			mark += stream.State.LastSeq
			for _, c := range stream.Consumer {
				mark += c.AckFloor.Consumer
				if c.Config == nil || c.Config.Durable != "" { // broadcasts are nobody's work
					waiting = waiting || c.NumPending > 0 || c.NumAckPending > 0
				}
			}
		}
	}
	return mark, waiting, nil
}

// Clients is how many connections there are, the last moments of dead ones included.
func (s *Server) Clients() int { return s.s.NumClients() }
