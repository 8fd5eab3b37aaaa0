package pg

import "context"

type DB struct{ x int }
type Tx struct{ x int }
type Operation struct {
	Key, Method string
	Request     any
}
type Queryer interface {
	Get(ctx context.Context, dest any, query string, args ...any) error
	Select(ctx context.Context, dest any, query string, args ...any) error
}

func (db *DB) InTx(ctx context.Context, fn func(tx *Tx) error) error                 { return nil }
func (db *DB) Get(ctx context.Context, dest any, query string, args ...any) error    { return nil }
func (db *DB) Select(ctx context.Context, dest any, query string, args ...any) error { return nil }
func (tx *Tx) Get(ctx context.Context, dest any, query string, args ...any) error    { return nil }
func (tx *Tx) Select(ctx context.Context, dest any, query string, args ...any) error { return nil }
func (tx *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error)    { return 0, nil }
func (tx *Tx) AfterCommit(f func())                                                  {}
func Once[Res any](ctx context.Context, db *DB, op Operation, fn func(tx *Tx) (Res, error)) (r Res, err error) {
	return
}

type JSON struct{ V string }
