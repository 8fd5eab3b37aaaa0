package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"
)

// measured is what a load cost the shop.
type measured struct {
	load
	queries float64 // round trips to the databases, without those that the shop makes by itself
	cpu     spent
}

func (m *measured) add(n measured) {
	m.load.add(n.load)
	m.queries += n.queries
	m.cpu = m.cpu.plus(n.cpu)
}

func (m *measured) queriesEach() float64 { return m.queries / float64(max(1, m.Count)) }

// rounds are enough for what else a machine does to fall on all.
const rounds = 4

// inTurns loads each of the shops while the others are halted, there and back, so that whatever else the machine does, and
// how it changes, falls on all of them. Turns are short: what is halted for long finds its connections timed out.
func (b *bench) inTurns(ctx context.Context, shops []*shop, p path, clients int) ([]measured, error) {
	all := make([]measured, len(shops))
	if len(shops) == 1 {
		m, err := b.turn(ctx, shops[0], p, clients, 0, 1)
		all[0].add(m)
		b.tooMuch(shops[0], p, all[0])
		return all, err
	}
	for _, s := range shops {
		if err := s.drain(ctx); err != nil {
			return nil, err
		}
	}
	for _, s := range shops {
		if err := s.pause(); err != nil {
			return nil, err
		}
		defer s.resume()
	}
	for n := range rounds {
		for i := range shops {
			if n%2 == 1 {
				i = len(shops) - 1 - i
			}
			s := shops[i]
			s.resume()
			m, err := b.turn(ctx, s, p, clients, n, rounds)
			if err == nil {
				err = s.pause()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			all[i].add(m)
		}
	}
	for i, s := range shops {
		b.tooMuch(s, p, all[i])
	}
	return all, nil
}

// tooMuch tells of a shop that turned requests away: the machine had other things to do, and the figure is none of a quiet one.
func (b *bench) tooMuch(s *shop, p path, m measured) {
	if m.Refused > 0 {
		b.complain("%s, %d clients, %s: %d requests were refused for too much to do and asked again", p.title, m.Clients, s.name, m.Refused)
	}
	if m.Poorer > 0 {
		b.complain("%s, %d clients, %s: %d of %d pages lacked a part or had an old one, and were asked for again", p.title, m.Clients, s.name, m.Poorer, m.Count+m.Poorer)
	}
}

// turn loads one shop for its part of the time, in the round of that number. Caches are warm after the first.
func (b *bench) turn(ctx context.Context, s *shop, p path, clients, number, rounds int) (m measured, err error) {
	warm, measure := b.Warm, b.Seconds/float64(rounds)
	if number > 0 {
		warm /= float64(rounds)
	} else if p.prepare != nil {
		if err := p.prepare(ctx, s.stock, clients); err != nil {
			return m, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	var (
		before   float64
		began    time.Time
		cpu      spent
		profiled = make(chan error, 1)
	)
	pressed := pressure{
		address: s.address, clients: clients, warm: duration(warm), measure: duration(measure),
		first: number * 3 * cartsInAll / clients / rounds,
		began: func() (err error) {
			if b.Profile != "" {
				name := filepath.Join(b.Profile, fmt.Sprintf("%s-%d-%s-%d", p.name, clients, filepath.Base(s.dir), number))
				go func() { profiled <- s.profile(ctx, duration(measure), name) }()
			} else {
				profiled <- nil
			}
			before, err = s.queries(ctx)
			began, cpu = time.Now(), s.cpu()
			return err
		},
	}
	if p.drains {
		pressed.drained = func() error { return s.drain(ctx) }
	}
	if m.load, err = drive(ctx, pressed, p.do(s.stock)); err != nil {
		return m, fmt.Errorf("%s: %w", p.name, err)
	}
	m.cpu = s.cpu().since(cpu)
	after, err := s.queries(ctx)
	if err != nil {
		return m, err
	}
	m.queries = max(0, after-before-s.idle*time.Since(began).Seconds())
	if err := <-profiled; err != nil {
		return m, fmt.Errorf("profile %s: %w", p.name, err)
	}
	return m, nil
}
