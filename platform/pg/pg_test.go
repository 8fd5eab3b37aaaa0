package pg_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
	"github.com/banyan-shop/banyan/platform/urgency"
)

func setup(t testing.TB) *pg.DB {
	t.Helper()
	demo(t)
	return shoptest.DB(t, "demo")
}

type item struct {
	ID string
	N  int64
}

func TestReading(t *testing.T) {
	t.Parallel()
	db := setup(t)
	var one item
	if err := db.Get(t.Context(), &one, `SELECT id, n FROM demo.items WHERE id = $1`, "seed7"); err != nil || one.N != 7 {
		t.Fatalf("got %+v, %v", one, err)
	}
	if err := db.Get(t.Context(), &one, `SELECT id, n FROM demo.items WHERE id = $1`, "none"); !pg.NoRows(err) {
		t.Fatalf("got %v, want no rows", err)
	}
	if err := db.Get(t.Context(), &one, `SELECT id, n, 1 AS more FROM demo.items LIMIT 1`); err == nil {
		t.Fatal("an unknown column was dropped in silence")
	}
	var all []item
	if err := db.Select(t.Context(), &all, `SELECT id, n FROM demo.items WHERE id = ANY($1) ORDER BY n`, pg.Array([]string{"seed2", "seed1"})); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]item{{"seed1", 1}, {"seed2", 2}}, all); d != "" {
		t.Fatal(d)
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	type id string
	at := time.Date(2026, 3, 4, 5, 6, 7, 8000, time.UTC)
	for _, unprepared := range []bool{false, true} {
		t.Run(fmt.Sprintf("unprepared %v", unprepared), func(t *testing.T) {
			t.Parallel()
			c := shoptest.Config(t, "demo")
			c.Unprepared = unprepared
			db := shoptest.Open(t, c)
			var got struct {
				Texts string
				IDs   string
				None  int
				Times int
				Bytes []byte
				At    time.Time
				Map   pg.JSON[map[string]int]
				Null  pg.JSON[[]string]
				Big   int64
				Yes   bool
				Later *time.Time
			}
			err := db.Get(t.Context(), &got, `
				SELECT array_to_string($1::text[], '|') AS texts, array_to_string($2::text[], '|') AS ids,
					cardinality($3::text[]) AS none, cardinality($4::timestamptz[]) AS times, $5::bytea AS bytes,
					$6::timestamptz AS at, $7::jsonb AS map, NULL::jsonb AS null, $8::bigint AS big, $9::boolean AS yes,
					$10::timestamptz AS later`,
				pg.Array([]string{`a"b`, "c,d"}), pg.Array([]id{"x", "y"}), pg.Array([]string(nil)), pg.Array([]time.Time{at, at}),
				[]byte{0, 1, 255}, at, pg.JSON[map[string]int]{V: map[string]int{"a": 1}}, int64(1)<<60, true, (*time.Time)(nil))
			if err != nil {
				t.Fatal(err)
			}
			if got.Texts != `a"b|c,d` || got.IDs != "x|y" || got.None != 0 || got.Times != 2 || string(got.Bytes) != "\x00\x01\xff" ||
				!got.At.Equal(at) || got.At.Location() != time.UTC || got.Map.V["a"] != 1 || got.Null.V != nil || got.Big != 1<<60 || !got.Yes || got.Later != nil {
				t.Fatalf("got %+v", got)
			}
			if err := db.InTx(t.Context(), func(tx *pg.Tx) error {
				var n int
				return tx.Get(t.Context(), &n, `SELECT $1::int + $2::int`, 1, 2)
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestATransaction(t *testing.T) {
	t.Parallel()
	db := setup(t)
	ctx := t.Context()

	t.Run("commits, then runs its hooks", func(t *testing.T) {
		seen := false
		err := db.InTx(ctx, func(tx *pg.Tx) error {
			tx.AfterCommit(func() { seen = there(t, db, "a") })
			return insert(ctx, tx, "a", 1)
		})
		if err != nil || !seen {
			t.Fatalf("got %v, seen by the hook: %v", err, seen)
		}
	})
	t.Run("rolls back on an error, and returns it as it is", func(t *testing.T) {
		mine := errors.New("mine")
		err := db.InTx(ctx, func(tx *pg.Tx) error {
			tx.AfterCommit(func() { t.Error("the hook ran") })
			return errors.Join(insert(ctx, tx, "b", 1), mine)
		})
		if !errors.Is(err, mine) || there(t, db, "b") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("rolls back on a panic", func(t *testing.T) {
		func() {
			defer func() { _ = recover() }()
			_ = db.InTx(ctx, func(tx *pg.Tx) error {
				if err := insert(ctx, tx, "c", 1); err != nil {
					t.Error(err)
				}
				panic("mine")
			})
		}()
		if there(t, db, "c") || db.Stats().InUse != 0 {
			t.Fatal("the row is there, or the connection is not back")
		}
	})
	t.Run("does not commit what came before a swallowed error", func(t *testing.T) {
		err := db.InTx(ctx, func(tx *pg.Tx) error {
			if err := insert(ctx, tx, "d", 1); err != nil {
				return err
			}
			_ = insert(ctx, tx, "d", 1)
			return nil
		})
		if !pg.IsUnique(err, "items_pkey") || there(t, db, "d") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("goes on when the request is cancelled", func(t *testing.T) {
		gone, cancel := context.WithCancel(ctx)
		err := db.InTx(gone, func(tx *pg.Tx) error {
			cancel()
			return insert(gone, tx, "e", 1)
		})
		if err != nil || !there(t, db, "e") {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("knows which constraint was violated, and tells no values", func(t *testing.T) {
		err := db.InTx(ctx, func(tx *pg.Tx) error { return insert(ctx, tx, "secret", -1) })
		if !pg.IsCheck(err, "items_positive") || !pg.IsCheck(err, "") || pg.IsCheck(err, "other") || pg.IsUnique(err, "") {
			t.Fatalf("got %v", err)
		}
		if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, "secret") {
			t.Fatalf("the value is in %s", text)
		}
		var n int
		err = db.Get(ctx, &n, `SELECT ($1::text)::int`, "4111 1111")
		for e := err; e != nil; e = errors.Unwrap(e) {
			if text := fmt.Sprintf("%v %#v", e, e); strings.Contains(text, "4111") {
				t.Fatalf("the value is in %s", text)
			}
		}
	})
	t.Run("may not be used when it has ended", func(t *testing.T) {
		var kept *pg.Tx
		if err := db.InTx(ctx, func(tx *pg.Tx) error { kept = tx; return nil }); err != nil {
			t.Fatal(err)
		}
		if _, err := kept.Exec(ctx, `SELECT 1`); err == nil {
			t.Fatal("it was")
		}
	})
}

func TestADeadlockIsRunAgain(t *testing.T) {
	t.Parallel()
	db := setup(t)
	var met sync.WaitGroup
	met.Add(2)
	move := func(first, second string) error {
		once := sync.OnceFunc(func() { met.Done(); met.Wait() })
		return db.InTx(t.Context(), func(tx *pg.Tx) error {
			for i, id := range []string{first, second} {
				if _, err := tx.Exec(t.Context(), `UPDATE demo.items SET n = n + 1 WHERE id = $1`, id); err != nil {
					return fmt.Errorf("update %s: %w", id, err)
				}
				if i == 0 {
					once()
				}
			}
			return nil
		})
	}
	done := make(chan error, 2)
	go func() { done <- move("seed1", "seed2") }()
	go func() { done <- move("seed2", "seed1") }()
	for range 2 {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	var sum int
	if err := db.Get(t.Context(), &sum, `SELECT sum(n) FROM demo.items WHERE id IN ('seed1', 'seed2')`); err != nil || sum != 1+2+4 {
		t.Fatalf("sum %d, %v, want 7", sum, err)
	}
}

func TestStatementsArePreparedOnceAConnection(t *testing.T) {
	t.Parallel()
	demo(t)
	c := shoptest.Config(t, "demo")
	c.MaxConns = 1
	db := shoptest.Open(t, c)
	var n int
	for range 20 {
		if err := db.Get(t.Context(), &n, `SELECT n FROM demo.items WHERE id = $1`, "seed1"); err != nil {
			t.Fatal(err)
		}
		if err := db.InTx(t.Context(), func(tx *pg.Tx) error {
			return tx.Get(t.Context(), &n, `SELECT n FROM demo.items WHERE id = $1`, "seed2")
		}); err != nil {
			t.Fatal(err)
		}
	}
	if got := db.Prepares(); got != 1 {
		t.Fatalf("prepared %d times, want once", got)
	}
	// 40 selects, 1 prepare, 20 × (begin, commit), and the ping of Open.
	if q, tx := db.Counts(); q != 82 || tx != 20 {
		t.Fatalf("%d queries, %d transactions, want 82, 20", q, tx)
	}
}

func TestAMigrationUnderAPreparedStatement(t *testing.T) {
	t.Parallel()
	demo(t)
	c := shoptest.Config(t, "demo")
	c.MaxConns = 1
	db := shoptest.Open(t, c)
	var n string
	read := func(q pg.Queryer) {
		t.Helper()
		if err := q.Get(t.Context(), &n, `SELECT n FROM demo.items WHERE id = 'seed1'`); err != nil || n != "1" {
			t.Fatalf("got %q, %v", n, err)
		}
	}
	read(db)
	shoptest.Exec(t, `ALTER TABLE demo.items DROP CONSTRAINT items_positive, ALTER n TYPE text`)
	read(db)
	shoptest.Exec(t, `ALTER TABLE demo.items ALTER n TYPE bigint USING n::bigint`)
	runs := 0
	if err := db.InTx(t.Context(), func(tx *pg.Tx) error {
		runs++
		return tx.Get(t.Context(), &n, `SELECT n FROM demo.items WHERE id = 'seed1'`)
	}); err != nil || runs != 2 {
		t.Fatalf("got %v after %d runs, want nil after 2", err, runs)
	}
}

func TestADemotedServerIsLeft(t *testing.T) {
	t.Parallel()
	demo(t)
	c := shoptest.Config(t, "demo")
	db := shoptest.Open(t, c)
	var first, second int
	runs := 0
	err := db.InTx(t.Context(), func(tx *pg.Tx) error {
		runs++
		if runs == 1 {
			if err := tx.Get(t.Context(), &first, `SELECT pg_backend_pid()`); err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `SET TRANSACTION READ ONLY`); err != nil {
				return err
			}
		} else if err := tx.Get(t.Context(), &second, `SELECT pg_backend_pid()`); err != nil {
			return err
		}
		return insert(t.Context(), tx, "x", 1)
	})
	if err != nil || runs != 2 || first == second {
		t.Fatalf("got %v after %d runs on backends %d and %d", err, runs, first, second)
	}
}

func TestLimitsOfTheRole(t *testing.T) {
	t.Parallel()
	db := setup(t)
	var got []string
	if err := db.Select(t.Context(), &got, `SELECT current_setting(s) FROM unnest(ARRAY['statement_timeout', 'lock_timeout',
		'idle_in_transaction_session_timeout', 'search_path', 'client_connection_check_interval']) AS s`); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"10s", "3s", "30s", `""`, "1s"}, got); d != "" {
		t.Fatal(d)
	}
}

func TestOnce(t *testing.T) {
	t.Parallel()
	type request struct{ ID string }
	type result struct {
		ID string
		At time.Time
	}
	ctx := t.Context()
	setup := func(t *testing.T) (reserve func(key, id string) (result, error), db *pg.DB) {
		demo(t)
		c := shoptest.Config(t, "demo")
		c.MaxConns = 8
		db = shoptest.Open(t, c)
		return func(key, id string) (result, error) {
			return pg.Once(ctx, db, pg.Operation{Key: key, Method: "demo.Reserve", Request: request{id}}, func(tx *pg.Tx) (result, error) {
				n, err := tx.Exec(ctx, `UPDATE demo.items SET n = n - 1 WHERE id = $1 AND n > 0`, id)
				if err == nil && n == 0 {
					err = errs.Conflictf("out_of_stock", "no %s is left", id)
				}
				return result{id, time.Now().UTC()}, err
			})
		}, db
	}
	left := func(t *testing.T, db *pg.DB, id string) (n int) {
		t.Helper()
		if err := db.Get(ctx, &n, `SELECT n FROM demo.items WHERE id = $1`, id); err != nil {
			t.Fatal(err)
		}
		return n
	}

	t.Run("a repeat gets the first answer, even when it would be refused by now", func(t *testing.T) {
		t.Parallel()
		reserve, db := setup(t)
		first, err := reserve("k", "seed1")
		if err != nil {
			t.Fatal(err)
		}
		again, err := reserve("k", "seed1")
		if err != nil || !cmp.Equal(first, again) {
			t.Fatalf("got %+v, %v, want %+v", again, err, first)
		}
		if left(t, db, "seed1") != 0 {
			t.Fatal("reserved twice, or never")
		}
	})
	t.Run("a key with another request is refused", func(t *testing.T) {
		t.Parallel()
		reserve, db := setup(t)
		if _, err := reserve("k", "seed2"); err != nil {
			t.Fatal(err)
		}
		if _, err := reserve("k", "seed3"); !errs.Has(err, "key_reused") || !errs.Is(err, errs.Conflict) {
			t.Fatalf("got %v, want key_reused", err)
		}
		if left(t, db, "seed3") != 3 {
			t.Fatal("it had an effect")
		}
	})
	t.Run("an error is not stored", func(t *testing.T) {
		t.Parallel()
		reserve, db := setup(t)
		shoptest.Exec(t, `UPDATE demo.items SET n = 0 WHERE id = 'seed4'`)
		if _, err := reserve("k", "seed4"); !errs.Has(err, "out_of_stock") {
			t.Fatalf("got %v, want out_of_stock", err)
		}
		shoptest.Exec(t, `UPDATE demo.items SET n = 1 WHERE id = 'seed4'`)
		if _, err := reserve("k", "seed4"); err != nil || left(t, db, "seed4") != 0 {
			t.Fatalf("got %v", err)
		}
	})
	t.Run("twenty at the same time have one effect", func(t *testing.T) {
		t.Parallel()
		reserve, db := setup(t)
		results, failed := make([]result, 20), make([]error, 20)
		var wg sync.WaitGroup
		for i := range results {
			wg.Go(func() { results[i], failed[i] = reserve("k", "seed50") })
		}
		wg.Wait()
		for i := range results {
			if failed[i] != nil || !cmp.Equal(results[i], results[0]) {
				t.Fatalf("got %+v, %v, want %+v", results[i], failed[i], results[0])
			}
		}
		if n := left(t, db, "seed50"); n != 49 {
			t.Fatalf("%d left, want 49", n)
		}
	})
	t.Run("a lost reply of the commit is found", func(t *testing.T) {
		t.Parallel()
		demo(t)
		p, c := through(t, "demo")
		db := shoptest.Open(t, c)
		got, err := pg.Once(ctx, db, pg.Operation{Key: "k", Method: "demo.Add"}, func(tx *pg.Tx) (string, error) {
			p.on("COMMIT", fin)
			return "done", insert(ctx, tx, "x", 1)
		})
		if err != nil || got != "done" || !there(t, db, "x") {
			t.Fatalf("got %q, %v", got, err)
		}
	})
	t.Run("old results are forgotten", func(t *testing.T) {
		t.Parallel()
		reserve, db := setup(t)
		if _, err := reserve("k", "seed5"); err != nil {
			t.Fatal(err)
		}
		if n, err := db.ForgetOperations(ctx, time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Fatalf("forgot %d young ones, %v", n, err)
		}
		if n, err := db.ForgetOperations(ctx, time.Now().Add(time.Hour)); n != 1 || err != nil {
			t.Fatalf("forgot %d, %v, want 1", n, err)
		}
	})
}

func TestTheTraceSeesStatements(t *testing.T) {
	t.Parallel()
	demo(t)
	c := shoptest.Config(t, "demo")
	var seen []string
	c.Trace = func(_ context.Context, query string) func(error) {
		return func(err error) { seen = append(seen, fmt.Sprint(query, " ", err)) }
	}
	db := shoptest.Open(t, c)
	var n int
	if err := db.Get(t.Context(), &n, `SELECT 1`); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"SELECT 1 <nil>"}, seen); d != "" {
		t.Fatal(d)
	}
}

func TestAWriteIsSomethingDoneForARequest(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := &urgency.Request{Came: time.Now()}
	ctx := urgency.With(t.Context(), r)
	var n int
	if err := db.Get(ctx, &n, `SELECT 1`); err != nil || r.Begun() {
		t.Fatalf("a read counts as something done: %v, %v", r.Begun(), err)
	}
	if err := db.InTx(ctx, func(tx *pg.Tx) error {
		if !r.Begun() {
			t.Error("in a write transaction nothing has been done yet")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
