package main

import (
	"context"
	"database/sql"

	"github.com/banyan-shop/banyan/platform/pg"
)

// database is one session as a superuser on the shop's own database: it turns logging on, looks whether all is done and
// rehearses what was heard. Nothing of it belongs to a module, so no module could lend a method.
type database struct {
	pool *sql.DB
	conn *sql.Conn
}

func connect(ctx context.Context, url string) (*database, error) {
	pool, err := pg.OpenAdmin(ctx, url)
	if err != nil {
		return nil, err
	}
	conn, err := pool.Conn(ctx)
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &database{pool, conn}, nil
}

func (d *database) close() {
	d.conn.Close()
	d.pool.Close()
}

// exec runs a statement and gives the number of its rows.
func (d *database) exec(ctx context.Context, statement string) (int64, error) {
	//shop:allow crossschema until=2027-11-01 owner=@bench replays the statements that all modules sent, on a database that is thrown away
	result, err := d.conn.ExecContext(ctx, statement)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// read scans the one row of a statement.
func (d *database) read(ctx context.Context, dest any, statement string) error {
	//shop:allow crossschema until=2027-11-01 owner=@bench looks into the server's catalogue and counts what waits, on a database that is thrown away
	return d.conn.QueryRowContext(ctx, statement).Scan(dest)
}
