// Package pg is sqlx over lib/pq with the driver's sharp edges taken off: deadlines on the socket, statements prepared once
// a connection, transactions whose fate is always found out, errors without the values that caused them. It is the only
// importer of lib/pq.
//
// It builds no SQL and maps no objects: statements are constants written by the caller. It runs no migrations, see
// platform/migrate, and no server, see platform/pgembed.
package pg

import (
	"context"
	"database/sql"
	"fmt"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
)

// Config says how to reach one schema as one role.
type Config struct {
	URL         string        // postgres://… or a key=value string, with the module's own role
	Schema      string        // the module's schema; events and operations live in it
	MaxConns    int           // pool size; 0 means 8
	TxTimeout   time.Duration // a write transaction's own deadline; 0 means 5 s
	ReadTimeout time.Duration // longest wait for bytes of a reply; 0 means 10 s
	Unprepared  bool          // for PgBouncer in transaction mode

	// Patience is how long a customer's request that has not begun may wait for a connection; who would wait longer is turned
	// away with errs.Overloaded. 0 turns nobody away.
	Patience time.Duration

	// Trace, if set, is called with each statement and what it returns with the statement's end. It must be cheap, and
	// may return nil for a statement that is not sampled.
	Trace func(ctx context.Context, query string) func(error)
}

// Queryer is what a reading store function needs: a *DB or a *Tx. Statements are constants: each is prepared once a
// connection and reused.
type Queryer interface {
	// Get scans one row into dest; NoRows(err) tells when there is none.
	Get(ctx context.Context, dest any, query string, args ...any) error
	// Select scans all rows into dest, a pointer to a slice.
	Select(ctx context.Context, dest any, query string, args ...any) error
}

var (
	_ Queryer = (*DB)(nil)
	_ Queryer = (*Tx)(nil)
)

// DB is a pool of connections of one module's role. By itself it only reads: its sessions are read-only outside InTx, so
// that a write that database/sql may send twice is refused by the server.
type DB struct {
	schema    string
	config    Config
	x         *sqlx.DB
	connector *connector
	queue     queue
	sql       platformSQL
	wake      waker // the relay's ear

	queries, transactions, prepares atomic.Int64
}

// platformSQL is the SQL of pg's own tables, composed once because the schema's name is a variable.
type platformSQL struct {
	insertOperation, findOperation, forgetOperations string
}

var schemaName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// Open makes a pool and pings it.
func Open(ctx context.Context, c Config) (*DB, error) {
	if !schemaName.MatchString(c.Schema) {
		return nil, fmt.Errorf("open database: schema %q must match %s", c.Schema, schemaName)
	}
	if c.MaxConns <= 0 {
		c.MaxConns = 8
	}
	if c.TxTimeout <= 0 {
		c.TxTimeout = 5 * time.Second
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = 10 * time.Second
	}
	db := &DB{schema: c.Schema, config: c, sql: platformSQL{
		insertOperation: `INSERT INTO ` + c.Schema + `.operations (key, method, request_hash, result)
			VALUES ($1, $2, $3, $4) ON CONFLICT (key, method) DO NOTHING`,
		findOperation: `SELECT request_hash, result FROM ` + c.Schema + `.operations WHERE key = $1 AND method = $2`,
		forgetOperations: `DELETE FROM ` + c.Schema + `.operations WHERE ctid = ANY (ARRAY(
			SELECT ctid FROM ` + c.Schema + `.operations WHERE created_at < $1 ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))`,
	}}
	var err error
	db.connector, err = newConnector(c.URL, c.ReadTimeout)
	if err != nil {
		return nil, fmt.Errorf("open database of %s: %w", c.Schema, err)
	}
	db.connector.db = db
	db.connector.readOnly = !c.Unprepared // PgBouncer refuses start-up parameters it does not know
	db.connector.unprepared = c.Unprepared

	db.x = sqlx.NewDb(sql.OpenDB(db.connector), "postgres")
	db.queue.size, db.queue.patience = c.MaxConns, c.Patience
	db.x.SetMaxOpenConns(c.MaxConns)
	db.x.SetMaxIdleConns(c.MaxConns)
	db.x.SetConnMaxIdleTime(5 * time.Minute)
	db.x.SetConnMaxLifetime(30 * time.Minute)
	if err := db.x.PingContext(ctx); err != nil {
		db.x.Close()
		return nil, fmt.Errorf("open database of %s: %w", c.Schema, mapped(err))
	}
	return db, nil
}

// Schema is the schema this pool's module owns.
func (db *DB) Schema() string { return db.schema }

// Close waits for running queries and closes the pool.
func (db *DB) Close() error { return db.x.Close() }

// Counts is how many round trips (statements, BEGIN, COMMIT, and each PREPARE of a new connection) and how many write
// transactions this pool has made. The bench prints them per request.
func (db *DB) Counts() (queries, transactions int64) {
	return db.queries.Load(), db.transactions.Load()
}

// Stats is the pool's state: open, busy and idle connections, and waits.
func (db *DB) Stats() sql.DBStats {
	s := db.x.Stats()
	s.WaitCount, s.WaitDuration = db.queue.stats()
	return s
}

// take takes a connection of the pool when it is its turn, and tells when that was; give gives it back. It waits until ctx ends or the
// time has come. database/sql finds a connection free, so that it is told of the time only and no context is armed.
func (db *DB) take(ctx context.Context, at time.Time) (c *sqlx.Conn, since time.Time, err error) {
	if err := ctx.Err(); err != nil {
		return nil, since, mapped(err)
	}
	since, err = db.queue.enter(ctx, at)
	if err != nil {
		return nil, since, mapped(err)
	}
	c, err = db.x.Connx(deadline{context.WithoutCancel(ctx), at})
	if err != nil {
		db.queue.leave(since)
	}
	return c, since, mapped(err)
}

func (db *DB) give(c *sqlx.Conn, since time.Time) {
	c.Close()
	db.queue.leave(since)
}

// Get scans one row into dest.
func (db *DB) Get(ctx context.Context, dest any, query string, args ...any) error {
	end := db.trace(ctx, query)
	err := db.read(ctx, func(ctx context.Context, c *sqlx.Conn) error { return c.GetContext(ctx, dest, query, args...) })
	end(err)
	return err
}

// Select scans all rows into dest.
func (db *DB) Select(ctx context.Context, dest any, query string, args ...any) error {
	end := db.trace(ctx, query)
	err := db.read(ctx, func(ctx context.Context, c *sqlx.Conn) error {
		truncate(dest) // a first try may have left rows
		return c.SelectContext(ctx, dest, query, args...)
	})
	end(err)
	return err
}

func (db *DB) trace(ctx context.Context, query string) func(error) {
	if db.config.Trace != nil {
		if end := db.config.Trace(ctx, query); end != nil {
			return end
		}
	}
	return func(error) {}
}
