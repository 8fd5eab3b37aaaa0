package host

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
)

func stack() string { return string(debug.Stack()) }

// Seed lets each module make its demo data, in order. It may be repeated.
func (h *Host) Seed(ctx context.Context) error {
	for _, i := range h.instances {
		if err := h.seed(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) seed(ctx context.Context, i instance) error {
	s, ok := i.Instance.(Seeder)
	if !ok {
		return nil
	}
	began := time.Now()
	if err := s.Seed(ctx); err != nil {
		return fmt.Errorf("make demo data of %s: %w", i.name, err)
	}
	h.log.DebugContext(ctx, "demo data", "module", i.name, "ms", time.Since(began).Milliseconds())
	return nil
}

// seedOnce seeds the modules whose database has not been seeded for them: a mark beside the migrations remembers each once all
// of it is done, so that what a crash left half-way is finished by the next start.
func (h *Host) seedOnce(ctx context.Context) error {
	for _, i := range h.instances {
		if h.dbs[i.name] == nil {
			continue
		}
		if err := h.seedModule(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (h *Host) seedModule(ctx context.Context, i instance) error {
	if _, ok := i.Instance.(Seeder); !ok {
		return nil
	}
	db, err := pg.OpenAdmin(ctx, h.databaseURL(i.name))
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS migrations.seeds (module text PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())`); err != nil && pg.State(err) != uniqueViolation {
		return fmt.Errorf("look for demo data: %w", err)
	}
	var done bool
	if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM migrations.seeds WHERE module = $1)`, i.name).Scan(&done); err != nil || done {
		return err
	}
	h.o.Progress("making the demo data of " + i.name)
	for tries := 0; ; tries++ {
		err := h.seed(ctx, i)
		if err == nil {
			break
		}
		// A module that another process runs may come a moment later.
		if !h.Plan.Split() || !errs.Is(err, errs.Unavailable) && !errs.Is(err, errs.NoAnswer) {
			return err
		}
		if tries == 0 {
			h.o.Progress("waiting for the modules that " + i.name + " needs for it")
			h.log.InfoContext(ctx, "demo data waits for other modules", "module", i.name, "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
	if _, err := db.ExecContext(ctx, `INSERT INTO migrations.seeds (module) VALUES ($1) ON CONFLICT DO NOTHING`, i.name); err != nil {
		return fmt.Errorf("remember the demo data: %w", err)
	}
	return nil
}

// uniqueViolation is what CREATE TABLE IF NOT EXISTS says when two make the table at the same moment.
const uniqueViolation = "23505"
