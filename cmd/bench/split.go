package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"
)

// split measures the same paths with the modules in one process, one of them in a process of its own, and all.
func (b *bench) split(ctx context.Context) (err error) {
	var shops []*shop
	defer func() {
		for _, s := range shops {
			err = errors.Join(err, s.stop())
		}
	}()
	b.report.Out = b.Out
	for _, k := range []kind{
		{name: "one process", dir: "whole"},
		{name: b.Out + " out", dir: "out", split: b.Out},
		{name: "all out", dir: "all", split: "all"},
	} {
		b.say("starting a shop on an empty directory: %s", k.name)
		k.binary, k.dir = b.binary, filepath.Join(b.dir, k.dir)
		s, err := start(ctx, k)
		if err != nil {
			return err
		}
		shops = append(shops, s)
		if s.stock, err = look(ctx, s.address); err != nil {
			return err
		}
	}
	for _, s := range shops {
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	for _, p := range b.chosen(func(p path) bool { return p.apart || p.drains }) {
		for _, n := range b.Clients {
			b.say("%s, %d clients, in turns whole and split", p.title, n)
			all, err := b.inTurns(ctx, shops, p, n)
			if err != nil {
				return err
			}
			b.place(p, n, all)
		}
	}
	for i, s := range shops {
		b.report.Memory[i] = s.resident()
	}
	return nil
}

// figure is one number of the same thing in one process, with a module out and with all out.
type figure struct {
	Path     string     `json:"path"`
	Clients  int        `json:"clients"`
	What     string     `json:"what"`
	Values   [3]float64 `json:"one_oneout_allout"`
	Verdicts [2]string  `json:"verdicts"` // of one out and all out beside one process
}

// target bounds a quotient or difference. The zero target bounds nothing.
type target struct {
	bound       float64
	more        bool // at least, not at most
	differences bool
}

// place adds what was measured of one path to the table.
func (b *bench) place(p path, clients int, all []measured) {
	one := func(what string, of func(measured) float64, out, allOut target) {
		f := figure{Path: p.title, Clients: clients, What: what}
		for i, m := range all {
			f.Values[i] = of(m)
		}
		for i, t := range []target{out, allOut} {
			f.Verdicts[i] = t.against(f.Values[i+1], f.Values[0])
		}
		b.report.Split = append(b.report.Split, f)
	}
	millis := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	var rate, oneRate, median, queries target
	switch {
	case p.apart && clients == 1:
		median, queries = target{bound: 3}, target{bound: 0.05, differences: true}
	case p.drains && clients >= 32:
		rate, oneRate = target{bound: 0.4, more: true}, target{bound: 0.7, more: true}
	}
	one("per second", func(m measured) float64 { return m.Rate }, oneRate, rate)
	one("p50 ms", func(m measured) float64 { return millis(m.P50) }, target{}, median)
	one("p99 ms", func(m measured) float64 { return millis(m.P99) }, target{}, target{})
	one("queries", func(m measured) float64 { return m.queriesEach() }, queries, queries)
	one("shop CPU ms", func(m measured) float64 { return millis(m.cpu.shop) / float64(max(1, m.Count)) }, target{}, target{})
	one("NATS CPU ms", func(m measured) float64 { return millis(m.cpu.bus) / float64(max(1, m.Count)) }, target{}, target{})
	one("PG CPU ms", func(m measured) float64 { return millis(m.cpu.postgres) / float64(max(1, m.Count)) }, target{}, target{})
	if p.drains {
		one("drain s", func(m measured) float64 { return m.Drain.Seconds() }, target{}, target{})
	}
}
