package host

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/banyan-shop/banyan/platform/pg"
)

func stack() string { return string(debug.Stack()) }

// Seed lets each module make its demo data, in order. It may be repeated.
func (h *Host) Seed(ctx context.Context) error {
	for _, i := range h.instances {
		s, ok := i.Instance.(Seeder)
		if !ok {
			continue
		}
		began := time.Now()
		if err := s.Seed(ctx); err != nil {
			return fmt.Errorf("make demo data of %s: %w", i.name, err)
		}
		h.log.DebugContext(ctx, "demo data", "module", i.name, "ms", time.Since(began).Milliseconds())
	}
	return nil
}

// seedOnce seeds a database that has not been seeded: a mark beside the migrations remembers it once all of it is done, so
// that what a crash left half-way is finished by the next start.
func (h *Host) seedOnce(ctx context.Context) error {
	db, err := pg.OpenAdmin(ctx, h.databaseURL)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations.seeded (one boolean PRIMARY KEY DEFAULT true, at timestamptz NOT NULL DEFAULT now())`); err != nil {
		return fmt.Errorf("look for demo data: %w", err)
	}
	var done bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM migrations.seeded)`).Scan(&done); err != nil || done {
		return err
	}
	h.o.Progress("making the demo data")
	if err := h.Seed(ctx); err != nil {
		return err
	}
	if _, err := db.ExecContext(ctx, `INSERT INTO migrations.seeded DEFAULT VALUES ON CONFLICT DO NOTHING`); err != nil {
		return fmt.Errorf("remember the demo data: %w", err)
	}
	return nil
}
