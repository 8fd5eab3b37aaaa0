package shoptest_test

import (
	"testing"
	"time"

	"github.com/banyan-shop/banyan/db"
	"github.com/banyan-shop/banyan/platform/migrate"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

func TestTwoModulesOfATestShareADatabase(t *testing.T) {
	t.Parallel()
	began := time.Now()
	a, b := shoptest.DB(t, "alpha"), shoptest.DB(t, "beta")
	t.Logf("two pools in %d ms", time.Since(began).Milliseconds())
	var one, two string
	if err := a.Get(t.Context(), &one, `SELECT current_database()`); err != nil {
		t.Fatal(err)
	}
	if err := b.Get(t.Context(), &two, `SELECT current_database()`); err != nil {
		t.Fatal(err)
	}
	if one != two {
		t.Fatalf("alpha is in %s, beta in %s", one, two)
	}
	var n int
	if err := a.Get(t.Context(), &n, `SELECT count(*) FROM beta.outbox`); pg.State(err) != "42501" {
		t.Fatalf("alpha reads beta's outbox: %v", err)
	}
	if err := a.Get(t.Context(), &n, `SELECT count(*) FROM outbox`); pg.State(err) != "42P01" {
		t.Fatalf("a table without its schema was found: %v", err)
	}
}

func TestEachModuleWithMigrationsHasASchema(t *testing.T) {
	t.Parallel()
	modules, err := migrate.Modules(db.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range modules {
		t.Run(m, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			d := shoptest.DB(t, m)
			t.Logf("%d ms", time.Since(began).Milliseconds())
			err := d.InTx(t.Context(), func(tx *pg.Tx) error {
				var n int
				return tx.Get(t.Context(), &n, `SELECT count(*) FROM `+m+`.operations`)
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestTheClockStandsUntilItIsTurned(t *testing.T) {
	t.Parallel()
	c := shoptest.NewClock()
	before := c.Now()
	if !c.Now().Equal(before) {
		t.Fatal("it runs by itself")
	}
	c.Advance(time.Hour)
	if got := c.Now().Sub(before); got != time.Hour {
		t.Fatalf("turned by %v, want an hour", got)
	}
}
