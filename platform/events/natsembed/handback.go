package natsembed

import (
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// HandBack refuses what the durable consumers whose names begin so have on their way, in the name of who was given it: for whoever
// knows that those are dead, and need not wait until the server takes them for it. Each consumer has one message on its way at
// most, as those of package jetstream do.
func (s *Server) HandBack(prefix string) error {
	info, err := s.s.Jsz(&server.JSzOptions{Accounts: true, Streams: true, Consumer: true, Config: true})
	if err != nil {
		return fmt.Errorf("look at the streams of NATS: %w", err)
	}
	nc, err := nats.Connect(s.url)
	if err != nil {
		return fmt.Errorf("connect to NATS: %w", err)
	}
	defer nc.Close()
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			for _, c := range stream.Consumer {
				if c.Config == nil || !strings.HasPrefix(c.Config.Durable, prefix) || c.NumAckPending == 0 {
					continue
				}
				// What a client answers to a message: its stream, consumer, deliveries and the places in both, time, and what is pending.
				answer := fmt.Sprintf("$JS.ACK.%s.%s.1.%d.%d.0.0", c.Stream, c.Name, c.Delivered.Stream, c.Delivered.Consumer)
				if err := nc.Publish(answer, []byte("-NAK")); err != nil {
					return fmt.Errorf("hand back a message of %s: %w", c.Name, err)
				}
			}
		}
	}
	if err := nc.FlushTimeout(10 * time.Second); err != nil {
		return fmt.Errorf("hand back messages: %w", err)
	}
	return nil
}
