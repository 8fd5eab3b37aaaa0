package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/lib/pq"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/urgency"
)

// deadline is a context that has a deadline but no Done channel: a statement's deadline is kept by its socket, so that
// database/sql need not start a goroutine for each statement.
type deadline struct {
	context.Context
	at time.Time
}

func (d deadline) Deadline() (time.Time, bool) { return d.at, !d.at.IsZero() }

// read runs f on a connection of the pool, and again on another if that one had gone stale: reading twice does no harm.
func (db *DB) read(ctx context.Context, f func(context.Context, *sqlx.Conn) error) error {
	at, ok := ctx.Deadline()
	patience := at
	if !ok { // never wait for ever for a free connection
		patience = time.Now().Add(db.config.ReadTimeout)
	}
	for {
		c, since, err := db.take(ctx, patience)
		if err != nil {
			return err
		}
		again := false
		err = func() error {
			defer db.give(c, since) // whatever happens in f
			again = wasUsed(c)
			return f(deadline{context.WithoutCancel(ctx), at}, c)
		}()
		if err == nil || errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if !again || !broken(err) || ctx.Err() != nil || !time.Now().Before(patience) {
			return mappedRead(err)
		}
	}
}

// wasUsed says whether the connection has answered before, so that a broken pipe may be an old one.
func wasUsed(c *sqlx.Conn) (used bool) {
	_ = c.Raw(func(driverConn any) error {
		used = driverConn.(*conn).used
		return nil
	})
	return used
}

func truncate(dest any) {
	if v := reflect.ValueOf(dest); v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Slice && v.Elem().Len() > 0 {
		v.Elem().SetLen(0)
	}
}

// Tx is a running write transaction. It is for one goroutine, and not to be used after its function has returned.
type Tx struct {
	db          *DB
	c           *sqlx.Conn
	since       time.Time       // when it was taken
	ctx         context.Context // the transaction's own deadline; the request's values
	xid, pid    string
	failed      error // the first error of a statement: the server refuses whatever comes after
	done        bool
	afterCommit []func()
}

// tries bounds how often a transaction is run: deadlocks and serialization failures are rare and pass.
const tries = 5

// InTx runs fn in a READ COMMITTED write transaction and commits it; an error of fn rolls back and is returned as it is.
// The transaction runs on a context detached from ctx's cancellation, with its own deadline. Deadlocks and serialization
// failures are retried, so fn may run more than once. A commit whose reply is lost is resolved by asking the database;
// if even that gets no answer, the error is errs.NoAnswer.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error {
	at := time.Now().Add(db.config.TxTimeout)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), at)
	defer cancel()
	own := deadline{context.WithoutCancel(ctx), at}
	for try := 1; ; try++ {
		tx, err := db.beginTx(ctx, own)
		if err != nil {
			return err
		}
		err = tx.run(fn)
		if err == nil || try == tries || !transient(err) {
			return err
		}
		if !pause(ctx, try) {
			return err
		}
	}
}

// pause waits 2, 4, 8 … ms with jitter, so that two transactions that met do not meet again.
func pause(ctx context.Context, try int) bool {
	t := time.NewTimer(time.Millisecond<<try/2 + rand.N(time.Millisecond<<try))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// beginTx takes a connection that answers. A stale one of the pool is dropped for the next: nothing has happened yet.
func (db *DB) beginTx(ctx, own context.Context) (*Tx, error) {
	for {
		at, _ := own.Deadline()
		c, since, err := db.take(ctx, at)
		if err != nil {
			return nil, err
		}
		tx := &Tx{db: db, c: c, since: since, ctx: own}
		again := false
		err = c.Raw(func(driverConn any) (err error) {
			dc := driverConn.(*conn)
			again = dc.used
			tx.xid, tx.pid, err = dc.beginWrite(own)
			if err != nil {
				dc.bad = true
			}
			return err
		})
		if err == nil {
			db.transactions.Add(1)
			urgency.Of(own).Begin()
			return tx, nil
		}
		db.give(c, since)
		if !again || ctx.Err() != nil {
			return nil, mapped(err)
		}
	}
}

// run runs fn and ends the transaction whatever happens in it.
func (tx *Tx) run(fn func(tx *Tx) error) error {
	defer func() {
		if !tx.done { // fn panicked, or left its goroutine
			tx.rollback()
		}
	}()
	if err := fn(tx); err != nil {
		tx.rollback()
		return err
	}
	if tx.failed != nil { // fn went on after an error; the server would answer COMMIT with ROLLBACK
		tx.rollback()
		return fmt.Errorf("transaction failed on an earlier error: %w", tx.failed)
	}
	if err := tx.commit(); err != nil {
		return err
	}
	for _, f := range tx.afterCommit {
		f()
	}
	return nil
}

func (tx *Tx) rollback() {
	tx.done = true
	_ = tx.c.Raw(func(driverConn any) error {
		dc := driverConn.(*conn)
		if err := dc.Rollback(); err != nil {
			dc.bad = true // closing it rolls back too
		}
		return nil
	})
	tx.db.give(tx.c, tx.since)
}

func (tx *Tx) commit() error {
	tx.done = true
	err := tx.c.Raw(func(driverConn any) error {
		dc := driverConn.(*conn)
		err := dc.Commit()
		if err != nil {
			dc.bad = true
		}
		return err
	})
	tx.db.give(tx.c, tx.since)
	var e *pq.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &e), errors.Is(err, pq.ErrInFailedTransaction), errors.Is(err, errBusy):
		return mapped(err) // the server, or nobody yet, said no
	}
	return tx.unanswered(err)
}

// resolve finds out whether a transaction whose COMMIT got no answer has happened. A transaction that is still in progress
// has its session ended, so that it can't commit after we said it did not.
func (db *DB) resolve(ctx context.Context, xid, pid string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), db.config.TxTimeout)
	defer cancel()
	for try := 1; ; try++ {
		status, err := db.status(ctx, xid, pid)
		switch {
		case err == nil && status == "committed":
			return nil
		case err == nil && status == "aborted":
			return errs.Unavailablef("the database went away before it committed").Because(cause)
		case err == nil && status == "": // long ago: the server has forgotten
			return errs.New(errs.NoAnswer, "", "the database does not know whether it committed").Because(cause)
		}
		if !pause(ctx, min(try, 7)) {
			return errs.New(errs.NoAnswer, "", "the database gave no answer to a commit").Because(errors.Join(cause, err))
		}
	}
}

// status asks on a new connection: the pool's may be of the server, or the network, that has just failed.
func (db *DB) status(ctx context.Context, xid, pid string) (string, error) {
	c, err := db.connector.Connect(ctx)
	if err != nil {
		return "", err
	}
	defer c.Close()
	ask := func(query string, args ...string) (string, error) {
		values := make([]driver.NamedValue, len(args))
		for i, a := range args {
			values[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
		}
		r, err := c.(*conn).QueryContext(ctx, query, values)
		if err != nil {
			return "", err
		}
		defer r.Close()
		v := make([]driver.Value, 1)
		if err := r.Next(v); err != nil && err != io.EOF {
			return "", err
		}
		s, _ := v[0].(string)
		return s, nil
	}
	status, err := ask(`SELECT pg_catalog.pg_xact_status($1::text::xid8)`, xid)
	if err != nil || status != "in progress" {
		return status, err
	}
	// The transaction's id keeps us from ending a stranger that got the same process id.
	_, err = ask(`SELECT pg_catalog.pg_terminate_backend(pid)::text FROM pg_catalog.pg_stat_activity
		WHERE pid = $1::text::int AND backend_xid = $2::text::xid8::xid`, pid, xid)
	return status, err
}

// Schema is the schema of the transaction's module.
func (tx *Tx) Schema() string { return tx.db.schema }

// AfterCommit runs f once the transaction is known to be committed. f must not block.
func (tx *Tx) AfterCommit(f func()) { tx.afterCommit = append(tx.afterCommit, f) }

// Exec runs a write and returns the rows it affected.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = tx.statement(ctx, query, func() error {
		res, err := tx.c.ExecContext(tx.ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// Get scans one row into dest.
func (tx *Tx) Get(ctx context.Context, dest any, query string, args ...any) error {
	return tx.statement(ctx, query, func() error { return tx.c.GetContext(tx.ctx, dest, query, args...) })
}

// Select scans all rows into dest.
func (tx *Tx) Select(ctx context.Context, dest any, query string, args ...any) error {
	return tx.statement(ctx, query, func() error { return tx.c.SelectContext(tx.ctx, dest, query, args...) })
}

// statement runs one on the transaction's own context: ctx is the request's, which may end, and serves only the trace.
func (tx *Tx) statement(ctx context.Context, query string, run func() error) error {
	if tx.done {
		return errors.New("the transaction has ended")
	}
	end := tx.db.trace(ctx, query)
	err := run()
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		err = mapped(err)
		var e *pq.Error
		if tx.failed == nil && (errors.As(err, &e) || errs.Is(err, errs.Unavailable)) {
			tx.failed = err
		}
	}
	end(err)
	return err
}
