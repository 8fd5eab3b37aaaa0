package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"

	"github.com/banyan-shop/banyan/platform/pg"
)

// one measures the shop in one process, beside the raw limit and, in turns, beside an older one.
func (b *bench) one(ctx context.Context) (err error) {
	chosen := b.chosen(func(p path) bool { return !p.apart })
	if b.Raw {
		if b.pgbench = pgbench(); b.pgbench == "" {
			b.complain("no pgbench beside the server's programs nor on the path: the raw limit is not measured (Debian has it in postgresql-contrib)")
		}
	}
	b.say("starting it on an empty directory")
	if b.shop, err = start(ctx, kind{name: "one process", binary: b.binary, dir: filepath.Join(b.dir, "one")}); err != nil {
		return err
	}
	defer func() {
		if b.shop != nil {
			err = errors.Join(err, b.shop.stop())
		}
	}()
	b.report.Cold = b.shop.took
	if b.report.Limits, err = limits(ctx, b.shop.kind); err != nil {
		return err
	}
	for name, value := range b.Set {
		if _, err := b.shop.db().exec(ctx, "ALTER DATABASE shop SET "+name+" = "+pg.Literal(value)); err != nil {
			return fmt.Errorf("--set %s: %w", name, err)
		}
		b.complain("measured with %s = %s, which is not how the shop runs", name, value)
	}
	if b.pgbench != "" {
		if err := b.listen(ctx, chosen); err != nil {
			return err
		}
	} else if b.shop.stock, err = look(ctx, b.shop.address); err != nil {
		return err
	}
	b.say("starting it on what is there")
	if b.shop, err = restart(ctx, b.shop); err != nil {
		return err
	}
	b.report.Warm = b.shop.took
	shops := []*shop{b.shop}
	if b.Old != "" {
		b.say("starting the older one")
		old, err := start(ctx, kind{name: "the older one", binary: b.Old, dir: filepath.Join(b.dir, "old")})
		if err != nil {
			return err
		}
		defer func() {
			if old != nil {
				err = errors.Join(err, old.stop())
			}
		}()
		if old.stock, err = look(ctx, old.address); err != nil {
			return err
		}
		if old, err = restart(ctx, old); err != nil {
			return err
		}
		shops = append(shops, old)
	}
	for _, s := range shops {
		if err := s.rest(ctx); err != nil {
			return err
		}
	}
	for _, p := range chosen {
		for _, n := range b.Clients {
			if err := b.row(ctx, shops, p, n); err != nil {
				return err
			}
		}
	}
	b.report.Resident = b.shop.resident()
	for _, s := range shops {
		if err := s.freeze(ctx); err != nil {
			b.complain("the machine's best is not measured: %v", err)
			return nil
		}
		defer s.resume()
	}
	return b.orientation(ctx)
}

// restart ends a shop and starts it again on what it left. The shop is nil if that fails.
func restart(ctx context.Context, old *shop) (*shop, error) {
	if err := old.stop(); err != nil {
		return nil, err
	}
	s, err := start(ctx, old.kind)
	if err == nil && old.stock != nil {
		s.stock = old.stock
		s.stock.address = s.address
	}
	return s, err
}

// listen makes a script of every path: the shop runs once with its database logging all statements.
func (b *bench) listen(ctx context.Context, chosen []path) (err error) {
	if err := b.shop.logStatements(ctx, true); err != nil {
		return err
	}
	if b.shop, err = restart(ctx, b.shop); err != nil {
		return err
	}
	if b.shop.stock, err = look(ctx, b.shop.address); err != nil {
		return err
	}
	if err := b.shop.drain(ctx); err != nil {
		return err
	}
	b.say("listening to the statements of each path")
	r, err := listen(ctx, filepath.Join(b.shop.data(), "pg", "server.log"))
	if err != nil {
		return err
	}
	heard, left := map[string][]sample{}, map[string]float64{}
	for _, p := range chosen {
		if heard[p.name], left[p.name], err = b.shop.listenTo(ctx, r, p); err != nil {
			return fmt.Errorf("listen to %s: %w", p.name, err)
		}
	}
	if err := b.shop.logStatements(ctx, false); err != nil {
		return err
	}
	if err := b.shop.freeze(ctx); err != nil { // or it would handle the rehearsals' events
		return err
	}
	defer b.shop.resume()
	dir := b.Scripts
	if dir == "" {
		dir = b.dir
	}
	c := newScripter(b.shop.db(), b.shop.stock)
	for _, p := range chosen {
		s, err := c.make(ctx, p, heard[p.name])
		if err == nil {
			err = s.write(dir)
		}
		if err != nil {
			b.complain("no raw limit of %s: %v", p.name, err)
			continue
		}
		if s.RowsOfShop = left[p.name]; math.Abs(s.RowsOfShop-s.Rows) > 0.05*s.RowsOfShop {
			b.complain("the raw limit of %s is of other work: it leaves %.1f rows, the shop %.1f", p.name, s.Rows, s.RowsOfShop)
		}
		b.scripts[p.name] = s
		b.report.Scripts = append(b.report.Scripts, s)
	}
	return nil
}

// row measures one path at one number of clients by the first of the shops, beside an older one and the raw limit.
func (b *bench) row(ctx context.Context, shops []*shop, p path, clients int) error {
	b.say("%s, %d clients", p.title, clients)
	all, err := b.inTurns(ctx, shops, p, clients)
	if err != nil {
		return err
	}
	m := all[0]
	most := slices.Max(b.Clients)
	r := row{
		Path: p.name, load: m.load, title: p.title, wantRate: p.rate, wantRatio: p.ratio, wantMedian: p.median,
		judgeRate: clients == most && most >= 32, judgeMedian: clients == 1,
		ShopCPU: m.cpu.shop, DatabaseCPU: m.cpu.postgres, Queries: m.queriesEach(),
	}
	if len(all) > 1 {
		r.Old, r.OldCPU = &all[1].load, all[1].cpu.shop
	}
	if s := b.scripts[p.name]; s != nil {
		b.say("  the same by pgbench")
		for _, other := range shops[1:] {
			if err := other.pause(); err != nil {
				return err
			}
			defer other.resume()
		}
		if r.Raw, r.RawCPU, err = s.run(ctx, b.shop, b.pgbench, clients, duration(b.Warm), duration(b.Seconds)); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			b.complain("no raw limit of %s: %v", p.name, err)
		} else {
			r.Ratio = m.Rate / r.Raw
		}
	}
	b.report.Rows = append(b.report.Rows, r)
	return nil
}

// orientation is what this machine does at best: a server that says hello, and a select by key. Every shop is halted.
func (b *bench) orientation(ctx context.Context) error {
	address, stop, err := hello(ctx)
	if err != nil {
		return err
	}
	defer stop()
	for _, n := range b.Clients {
		b.say("echo's hello, %d clients", n)
		l, err := drive(ctx, pressure{address: address, clients: n, warm: duration(b.Warm), measure: duration(min(b.Seconds, 3))}, func(w *worker) error {
			_, err := w.want(200, "GET", "/", "", "")
			return err
		})
		if err != nil {
			return err
		}
		b.report.Hello = append(b.report.Hello, l)
	}
	if b.pgbench == "" {
		return nil
	}
	for _, statement := range []string{
		`CREATE SCHEMA bench`,
		`CREATE TABLE bench.pairs (key bigint PRIMARY KEY, value text NOT NULL)`,
		`INSERT INTO bench.pairs SELECT n, 'value ' || n FROM generate_series(1, 100000) n`,
		`ANALYZE bench.pairs`,
	} {
		if _, err := b.shop.db().exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	s := &script{Path: "select-by-key", sets: []set{{name: "k", low: 1, high: 100000}}, steps: []step{{text: `SELECT value FROM bench.pairs WHERE key = :k`}}}
	if err := s.write(b.dir); err != nil {
		return err
	}
	for _, n := range b.Clients {
		b.say("pgbench's select by key, %d clients", n)
		rate, _, err := s.run(ctx, b.shop, b.pgbench, n, duration(b.Warm), duration(min(b.Seconds, 3)))
		if err != nil {
			return err
		}
		b.report.SelectKey = append(b.report.SelectKey, rawRate{n, rate})
	}
	return nil
}
