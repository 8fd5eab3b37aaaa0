package pg_test

import (
	"context"
	"testing"
	"time"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// M1: database/sql sends a statement again when its reply is lost by a clean close. An INSERT would be there twice.
func TestAWriteOutsideATransactionIsRefused(t *testing.T) {
	t.Parallel()
	demo(t)
	db := shoptest.DB(t, "demo")
	var id string
	err := db.Get(t.Context(), &id, `INSERT INTO demo.items (id, n) VALUES ('x', 1) RETURNING id`)
	if pg.State(err) != "25006" || errs.KindOf(err) != errs.Internal {
		t.Fatalf("got %v, want a read-only refusal", err)
	}
	if there(t, db, "x") {
		t.Fatal("it was written all the same")
	}
}

func TestAReadIsRepeatedWhenItsReplyIsLost(t *testing.T) {
	t.Parallel()
	demo(t)
	p, c := through(t, "demo")
	db := shoptest.Open(t, c)
	for _, f := range []fault{fin, reset} {
		p.on("", f)
		if !there(t, db, "seed1") {
			t.Fatalf("fault %d: wrong answer", f)
		}
	}
}

// M1, the other half: inside a transaction nothing is sent twice.
func TestALostReplyInsideATransactionIsNoSuccess(t *testing.T) {
	t.Parallel()
	demo(t)
	for name, f := range map[string]fault{"fin": fin, "reset": reset, "request lost": loseRequest, "black hole": blackHole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			demo(t)
			p, c := through(t, "demo")
			c.ReadTimeout = 2 * time.Second
			db := shoptest.Open(t, c)
			runs := 0
			err := db.InTx(t.Context(), func(tx *pg.Tx) error {
				runs++
				p.on("", f)
				return insert(t.Context(), tx, "x", 1)
			})
			if !errs.Is(err, errs.Unavailable) || runs != 1 {
				t.Fatalf("got %v after %d runs, want unavailable after 1", err, runs)
			}
			if there(t, db, "x") {
				t.Fatal("the row is there")
			}
			// M4: the pool heals.
			if err := db.InTx(t.Context(), func(tx *pg.Tx) error { return insert(t.Context(), tx, "y", 1) }); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// M2: a commit without an answer is looked up.
func TestACommitWithoutAnAnswer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		fault     fault
		committed bool
	}{
		{"reply lost by a close", fin, true},
		{"reply lost by a reset", reset, true},
		{"reply lost in a black hole", blackHole, true},
		{"request lost", loseRequest, false},
		{"request held: the server is still waiting for it", holdRequest, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			demo(t)
			p, config := through(t, "demo")
			config.ReadTimeout = 2 * time.Second
			db := shoptest.Open(t, config)
			runs, hooks := 0, 0
			err := db.InTx(t.Context(), func(tx *pg.Tx) error {
				runs++
				tx.AfterCommit(func() { hooks++ })
				if err := insert(t.Context(), tx, "x", 1); err != nil {
					return err
				}
				p.on("COMMIT", c.fault)
				return nil
			})
			if runs != 1 {
				t.Errorf("ran %d times", runs)
			}
			if c.committed && (err != nil || hooks != 1) {
				t.Errorf("got %v and %d hooks, want nil and 1", err, hooks)
			}
			if !c.committed && (!errs.Is(err, errs.Unavailable) || hooks != 0) {
				t.Errorf("got %v and %d hooks, want unavailable and 0", err, hooks)
			}
			if there(t, db, "x") != c.committed {
				t.Errorf("the row is there: %v, want %v", !c.committed, c.committed)
			}
			// Nobody is left holding locks.
			if err := db.InTx(t.Context(), func(tx *pg.Tx) error {
				_, err := tx.Exec(t.Context(), `LOCK TABLE demo.items IN ROW EXCLUSIVE MODE NOWAIT`)
				return err
			}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestACommitThatNobodyCanAnswerForIsNoAnswer(t *testing.T) {
	t.Parallel()
	demo(t)
	p, c := through(t, "demo")
	c.TxTimeout = 2 * time.Second
	db := shoptest.Open(t, c)
	err := db.InTx(t.Context(), func(tx *pg.Tx) error {
		if err := insert(t.Context(), tx, "x", 1); err != nil {
			return err
		}
		p.refuse()
		p.on("COMMIT", fin)
		return nil
	})
	if !errs.Is(err, errs.NoAnswer) {
		t.Fatalf("got %v, want no_answer", err)
	}
}

// M3, M4: no wait is longer than its deadline, however silent the server is.
func TestASilentServer(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	setup := func(t *testing.T) (*proxy, pg.Config) {
		demo(t)
		return through(t, "demo")
	}
	within := func(t *testing.T, began time.Time, err error) {
		t.Helper()
		if !errs.Is(err, errs.Unavailable) {
			t.Errorf("got %v, want unavailable", err)
		}
		if took := time.Since(began); took < limit/2 || took > limit+4*time.Second {
			t.Errorf("took %v, want about %v", took, limit)
		}
	}
	t.Run("a read ends at its context's deadline", func(t *testing.T) {
		t.Parallel()
		p, c := setup(t)
		db := shoptest.Open(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		p.on("", blackHole)
		began := time.Now()
		var n int
		within(t, began, db.Get(ctx, &n, `SELECT n FROM demo.items WHERE id = $1`, "seed1"))
	})
	t.Run("a read without a deadline ends at the pool's", func(t *testing.T) {
		t.Parallel()
		p, c := setup(t)
		c.ReadTimeout = limit
		db := shoptest.Open(t, c)
		p.on("", blackHole)
		began := time.Now()
		var n []int
		within(t, began, db.Select(t.Context(), &n, `SELECT n FROM demo.items`))
	})
	t.Run("a transaction ends at its own", func(t *testing.T) {
		t.Parallel()
		p, c := setup(t)
		c.TxTimeout = limit
		db := shoptest.Open(t, c)
		began := time.Now()
		within(t, began, db.InTx(t.Context(), func(tx *pg.Tx) error {
			p.on("", blackHole)
			return insert(t.Context(), tx, "x", 1)
		}))
	})
}

func TestAPoolSurvivesARestartOfTheServer(t *testing.T) {
	t.Parallel()
	demo(t)
	p, c := through(t, "demo")
	c.MaxConns = 4
	db := shoptest.Open(t, c)
	fill := func() {
		held, release := make(chan struct{}), make(chan struct{})
		done := make(chan error, 4)
		for range 4 {
			go func() {
				done <- db.InTx(t.Context(), func(tx *pg.Tx) error { held <- struct{}{}; <-release; return nil })
			}()
		}
		for range 4 {
			<-held
		}
		close(release)
		for range 4 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
	}
	fill()
	p.cut()
	if !there(t, db, "seed1") {
		t.Fatal("wrong answer")
	}
	fill()
	p.cut()
	if err := db.InTx(t.Context(), func(tx *pg.Tx) error { return insert(t.Context(), tx, "x", 1) }); err != nil {
		t.Fatal(err)
	}
}

func TestAServerThatIsGoneIsUnavailable(t *testing.T) {
	t.Parallel()
	demo(t)
	p, c := through(t, "demo")
	db := shoptest.Open(t, c)
	p.refuse()
	p.cut()
	var n int
	if err := db.Get(t.Context(), &n, `SELECT 1`); !errs.Is(err, errs.Unavailable) {
		t.Errorf("read: got %v, want unavailable", err)
	}
	if err := db.InTx(t.Context(), func(*pg.Tx) error { return nil }); !errs.Is(err, errs.Unavailable) {
		t.Errorf("write: got %v, want unavailable", err)
	}
}
