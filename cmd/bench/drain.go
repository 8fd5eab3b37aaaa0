package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	//shop:allow boundary until=2027-11-01 owner=@bench asks the bus of a shop that is thrown away what it still holds, and publishes nothing
	"github.com/nats-io/nats.go"
	//shop:allow boundary until=2027-11-01 owner=@bench asks the bus of a shop that is thrown away what it still holds, and publishes nothing
	"github.com/nats-io/nats.go/jetstream"
	"gopkg.in/yaml.v3"
)

// drain waits until every event is handled and every mail is sent.
func (s *shop) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 2*time.Minute, errors.New("events and mails are still waiting after two minutes"))
	defer cancel()
	for {
		before, err := s.bus.taken(ctx)
		if err != nil {
			return err
		}
		if err := until(ctx, s.bus.isEmpty); err != nil {
			return err
		}
		for _, db := range s.dbs {
			if err := until(ctx, db.isDone); err != nil {
				return err
			}
		}
		// What the bus held has been handled. What was published meanwhile either waited in a database, or the bus took it.
		if after, err := s.bus.taken(ctx); err != nil || after == before {
			return err
		}
	}
}

// until asks again and again.
func until(ctx context.Context, done func(context.Context) (bool, error)) error {
	for {
		if yes, err := done(ctx); err != nil || yes {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// isDone says whether nothing waits in a database.
func (d *database) isDone(ctx context.Context) (bool, error) {
	var left int
	err := d.read(ctx, &left, `
		SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(format(
			CASE tablename WHEN 'outbox' THEN 'SELECT count(*) AS n FROM %I.outbox WHERE sent_at IS NULL'
				WHEN 'retry' THEN 'SELECT count(*) AS n FROM %I.retry'
				ELSE 'SELECT count(*) AS n FROM %I.messages WHERE state = ''pending''' END, schemaname), false, true, '')))[1]::text::bigint), 0)
		FROM pg_catalog.pg_tables WHERE tablename IN ('outbox', 'retry') OR schemaname = 'notifications' AND tablename = 'messages'`)
	return left == 0, err
}

// bus is the NATS of a split shop. A nil bus is that of one process: it holds nothing that its database does not know of.
type bus struct {
	conn   *nats.Conn
	stream jetstream.Stream
}

// listenIn connects to the bus that a settings file names.
func listenIn(file string) (*bus, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var settings struct{ Bus string }
	if err := yaml.Unmarshal(text, &settings); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	conn, err := nats.Connect(settings.Bus)
	if err != nil {
		return nil, fmt.Errorf("connect to the shop's NATS: %w", err)
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	stream, err := js.Stream(context.Background(), "banyan")
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("look for the shop's events: %w", err)
	}
	return &bus{conn, stream}, nil
}

func (b *bus) close() {
	if b != nil {
		b.conn.Close()
	}
}

// taken is how many events there ever were.
func (b *bus) taken(ctx context.Context) (uint64, error) {
	if b == nil {
		return 0, nil
	}
	info, err := b.stream.Info(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the shop's NATS: %w", err)
	}
	return info.State.LastSeq, nil
}

// isEmpty says whether all that the bus took is acknowledged by all who hear it.
func (b *bus) isEmpty(ctx context.Context) (bool, error) {
	if b == nil {
		return true, nil
	}
	waiting := uint64(0)
	list := b.stream.ListConsumers(ctx)
	for c := range list.Info() {
		waiting += c.NumPending + uint64(c.NumAckPending)
	}
	if err := list.Err(); err != nil {
		return false, fmt.Errorf("ask the shop's NATS: %w", err)
	}
	return waiting == 0, nil
}
