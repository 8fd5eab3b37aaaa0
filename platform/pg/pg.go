// Package pg is sqlx over lib/pq with the driver's sharp edges taken off. It is the only importer of lib/pq.
package pg

import (
	"context"
	"database/sql"
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
}

// Queryer is what a reading store function needs: a *DB or a *Tx. Statements are constants: each is prepared once a
// connection and reused.
type Queryer interface {
	// Get scans one row into dest; NoRows(err) tells when there is none.
	Get(ctx context.Context, dest any, query string, args ...any) error
	// Select scans all rows into dest, a pointer to a slice.
	Select(ctx context.Context, dest any, query string, args ...any) error
	// Query is for rows that are streamed. The caller closes them.
	Query(ctx context.Context, query string, args ...any) (*sqlx.Rows, error)
}

// DB is a pool of connections of one module's role.
type DB struct {
	schema string
	wake   waker // see wake.go
}

// Open makes a pool and pings it.
func Open(ctx context.Context, c Config) (*DB, error) { panic("unimplemented") }

// Schema is the schema this pool's module owns.
func (db *DB) Schema() string { return db.schema }

// Close waits for running queries and closes the pool.
func (db *DB) Close() error { panic("unimplemented") }

func (db *DB) Get(ctx context.Context, dest any, query string, args ...any) error {
	panic("unimplemented")
}
func (db *DB) Select(ctx context.Context, dest any, query string, args ...any) error {
	panic("unimplemented")
}
func (db *DB) Query(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	panic("unimplemented")
}

// InTx runs fn in a READ COMMITTED write transaction and commits it; an error of fn rolls back and is returned as it is.
// The transaction runs on a context detached from ctx's cancellation, with its own deadline. Deadlocks and serialization
// failures are retried, so fn may run more than once. A commit whose reply is lost is resolved by asking the database;
// if even that gets no answer, the error is errs.NoAnswer.
func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error { panic("unimplemented") }

// Tx is a running write transaction.
type Tx struct{ db *DB }

// Schema is the schema of the transaction's module.
func (tx *Tx) Schema() string { return tx.db.schema }

// Exec runs a write and returns the rows it affected.
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	panic("unimplemented")
}
func (tx *Tx) Get(ctx context.Context, dest any, query string, args ...any) error {
	panic("unimplemented")
}
func (tx *Tx) Select(ctx context.Context, dest any, query string, args ...any) error {
	panic("unimplemented")
}
func (tx *Tx) Query(ctx context.Context, query string, args ...any) (*sqlx.Rows, error) {
	panic("unimplemented")
}

// AfterCommit runs f once the transaction is known to be committed. f must not block.
func (tx *Tx) AfterCommit(f func()) { panic("unimplemented") }

// Operation names a repeatable command: the same Key and Method with the same Request gives the first answer again.
type Operation struct {
	Key     string // made by the caller before its first try
	Method  string // such as catalog.Reserve
	Request any    // hashed; the same key with another request is errs.Conflict, code key_reused
}

// Once runs fn in a transaction and stores its result in <schema>.operations with it, or returns the stored result of an
// earlier run. Errors of fn are not stored.
func Once[Res any](ctx context.Context, db *DB, op Operation, fn func(tx *Tx) (Res, error)) (Res, error) {
	panic("unimplemented")
}

// NoRows says that Get found nothing.
func NoRows(err error) bool { return err == sql.ErrNoRows }

// IsUnique says whether err is a violation of the unique constraint or index of that name ("" for any).
func IsUnique(err error, constraint string) bool { panic("unimplemented") }

// IsCheck says whether err is a violation of the CHECK constraint of that name ("" for any).
func IsCheck(err error, constraint string) bool { panic("unimplemented") }

// Array makes a slice of strings, numbers, bools or times an SQL array parameter: WHERE id = ANY($1), unnest($1::text[]).
func Array(slice any) any { panic("unimplemented") }

// JSON scans and stores V as a jsonb column.
type JSON[T any] struct{ V T }
