package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/lib/pq"
)

// connector makes connections that can't hang: every read and write has a deadline, and a dead peer is noticed.
type connector struct {
	config      pq.Config
	readTimeout time.Duration
	db          *DB // nil for an administrator's pool
	readOnly    bool
	unprepared  bool
	generation  atomic.Int64 // raised when the server turns out to be demoted: older connections are not reused
}

func newConnector(url string, readTimeout time.Duration) (*connector, error) {
	config, err := pq.NewConfig(url)
	if err != nil {
		return nil, errors.New("the database URL can't be read") // the parser's text may quote a password
	}
	if config.ConnectTimeout <= 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	if config.Runtime == nil {
		config.Runtime = map[string]string{}
	}
	// Times come back in UTC whatever the server's zone is.
	if config.Runtime["timezone"] == "" {
		config.Runtime["timezone"] = "UTC"
	}
	return &connector{config: config, readTimeout: readTimeout}, nil
}

func (c *connector) Driver() driver.Driver { return &pq.Driver{} }

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	config := c.config.Clone()
	if c.readOnly {
		config.Runtime["default_transaction_read_only"] = "on"
	}
	// After a failover the old primary still answers; "primary" and not "read-write", which would look at the read-only
	// default above.
	if c.db != nil && config.TargetSessionAttrs == "" {
		config.TargetSessionAttrs = pq.TargetSessionAttrsPrimary
	}
	// Without preparing, only this sends a parametrised statement in one round trip, which a transaction pooler needs.
	config.BinaryParameters = config.BinaryParameters || c.unprepared

	connect, err := pq.NewConnectorConfig(config)
	if err != nil {
		return nil, err
	}
	d := &dialer{readTimeout: c.readTimeout}
	connect.Dialer(d)
	generation := c.generation.Load()
	inner, err := connect.Connect(ctx)
	if err != nil {
		return nil, dialError{err}
	}
	return &conn{pq: inner.(pqConn), net: d.last, owner: c, generation: generation, stmts: map[string]pqStmt{}}, nil
}

// dialError marks a failure to connect: nothing was sent.
type dialError struct{ error }

func (e dialError) Unwrap() error { return e.error }

// pqConn is what lib/pq's connection can do; database/sql looks for each by a type assertion, so a wrapper has to have all.
type pqConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.QueryerContext
	driver.ExecerContext
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	driver.ConnBeginTx
	driver.Tx // lib/pq's connection is its own transaction
}

type pqStmt interface {
	driver.Stmt
	driver.StmtQueryContext
	driver.StmtExecContext
}

// conn is lib/pq's connection with a cache of prepared statements. It takes a context's deadline to the socket instead of
// its Done channel to a goroutine: that is exact even if the server is silent, and costs nothing.
type conn struct {
	pq         pqConn
	net        *deadlineConn
	owner      *connector
	generation int64
	stmts      map[string]pqStmt
	pid        string
	inTx       bool
	bad        bool
	busy       bool // rows are open
	used       bool // has answered before, so that it may have gone stale in the pool
}

var _ pqConn = (*conn)(nil)

// maxStatements bounds what one connection keeps prepared. Statements are constants: a module has a few dozen.
const maxStatements = 512

var errBusy = errors.New("rows of an earlier query are still open on this connection: close them first")

// begin gets the connection ready for one round trip.
func (c *conn) begin(ctx context.Context) error {
	if c.busy {
		return errBusy
	}
	deadline, _ := ctx.Deadline()
	c.net.until = deadline
	c.count()
	return nil
}

func (c *conn) count() {
	if c.owner.db != nil {
		c.owner.db.queries.Add(1)
	}
}

func (c *conn) prepared(query string) (pqStmt, error) {
	if s, ok := c.stmts[query]; ok {
		return s, nil
	}
	s, err := c.pq.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, err
	}
	c.count()
	if c.owner.db != nil {
		c.owner.db.prepares.Add(1)
	}
	if len(c.stmts) >= maxStatements {
		for q := range c.stmts { // any will do
			c.evict(q)
			break
		}
	}
	c.stmts[query] = s.(pqStmt)
	return s.(pqStmt), nil
}

func (c *conn) evict(query string) {
	if s, ok := c.stmts[query]; ok {
		delete(c.stmts, query)
		_ = s.Close() // a failure shows on the next statement
	}
}

// stale says that a migration changed what a prepared statement returns. The statement did not run.
func stale(err error) bool {
	var e *pq.Error
	return errors.As(err, &e) && e.Code == "0A000" && e.Message == "cached plan must not change result type"
}

func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	r, err := c.query(query, args)
	if stale(err) {
		c.evict(query)
		if !c.inTx {
			r, err = c.query(query, args)
		}
	}
	if err != nil {
		return nil, c.noted(err)
	}
	c.used, c.busy = true, true
	return &rows{Rows: r, c: c}, nil
}

func (c *conn) query(query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.owner.unprepared || c.owner.db == nil {
		return c.pq.QueryContext(context.Background(), query, args)
	}
	s, err := c.prepared(query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(context.Background(), args)
}

func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	res, err := c.exec(query, args)
	if err != nil {
		if stale(err) {
			c.evict(query)
		}
		return nil, c.noted(err)
	}
	c.used = true
	return res, nil
}

func (c *conn) exec(query string, args []driver.NamedValue) (driver.Result, error) {
	if c.owner.unprepared || c.owner.db == nil {
		return c.pq.ExecContext(context.Background(), query, args)
	}
	s, err := c.prepared(query)
	if err != nil {
		return nil, err
	}
	return s.ExecContext(context.Background(), args)
}

// noted takes the values out of a server's error and remembers what it says about the connection.
func (c *conn) noted(err error) error {
	var e *pq.Error
	if !errors.As(err, &e) {
		return err
	}
	scrub(e)
	switch {
	case e.Code == "25006" && c.inTx: // in a write transaction: this server has been demoted
		c.bad = true
		c.owner.generation.CompareAndSwap(c.generation, c.generation+1)
	case e.Code.Class() == "57" && e.Code != "57014":
		c.bad = true
	}
	return err
}

// beginWrite starts a write transaction and learns its id in the same round trip.
func (c *conn) beginWrite(ctx context.Context) (xid, pid string, err error) {
	if err := c.begin(ctx); err != nil {
		return "", "", err
	}
	query := `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_catalog.pg_current_xact_id()::text`
	// A pooler may give each transaction another backend; else once is enough.
	withPID := c.pid == "" || c.owner.unprepared
	if withPID {
		query = `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_catalog.pg_current_xact_id()::text, pg_catalog.pg_backend_pid()::text`
	}
	r, err := c.pq.QueryContext(context.Background(), query, nil)
	if err != nil {
		return "", "", c.noted(err)
	}
	values := make([]driver.Value, len(r.Columns()))
	if err := r.Next(values); err != nil {
		return "", "", c.noted(err)
	}
	if err := r.Close(); err != nil {
		return "", "", c.noted(err)
	}
	c.used, c.inTx = true, true
	if withPID {
		c.pid, _ = values[1].(string)
	}
	xid, ok := values[0].(string)
	if !ok {
		c.bad = true
		return "", "", fmt.Errorf("transaction id came as %T", values[0])
	}
	return xid, c.pid, nil
}

// Commit checks the answer: COMMIT of a failed transaction answers ROLLBACK, which lib/pq makes an error.
func (c *conn) Commit() error { return c.end(c.pq.Commit) }

func (c *conn) Rollback() error { return c.end(c.pq.Rollback) }

func (c *conn) end(f func() error) error {
	if c.busy {
		c.bad = true // unread rows: the protocol is out of step
		return errBusy
	}
	c.count()
	c.inTx = false
	err := f()
	if err != nil {
		return c.noted(err)
	}
	return nil
}

// BeginTx serves an administrator's pool alone; a module's transactions go through beginWrite.
func (c *conn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	if _, err := c.pq.BeginTx(context.Background(), o); err != nil {
		return nil, c.noted(err)
	}
	c.used, c.inTx = true, true
	return c, nil
}

func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{Isolation: driver.IsolationLevel(sql.LevelReadCommitted)})
}

func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.begin(ctx); err != nil {
		return nil, err
	}
	return c.pq.PrepareContext(context.Background(), query)
}

func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *conn) Close() error {
	c.net.until = time.Now().Add(time.Second) // a farewell to a silent peer must not hold up anybody
	return c.pq.Close()
}

func (c *conn) Ping(ctx context.Context) error {
	if err := c.begin(ctx); err != nil {
		return err
	}
	err := c.pq.Ping(context.Background())
	c.used = c.used || err == nil
	return err
}

func (c *conn) CheckNamedValue(v *driver.NamedValue) error { return c.pq.CheckNamedValue(v) }

func (c *conn) ResetSession(ctx context.Context) error {
	if !c.IsValid() {
		return driver.ErrBadConn
	}
	return c.pq.ResetSession(ctx)
}

func (c *conn) IsValid() bool {
	return !c.bad && !c.inTx && c.generation == c.owner.generation.Load() && c.pq.IsValid()
}

// rows notes when the connection is free again.
type rows struct {
	driver.Rows
	c *conn
}

func (r *rows) Next(dest []driver.Value) error {
	err := r.Rows.Next(dest)
	if err != nil && err != io.EOF {
		return r.c.noted(err)
	}
	return err
}

func (r *rows) Close() error {
	r.c.busy = false
	if err := r.Rows.Close(); err != nil {
		return r.c.noted(err)
	}
	return nil
}

// dialer opens sockets for lib/pq and remembers the last.
type dialer struct {
	readTimeout time.Duration
	last        *deadlineConn
}

func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	nd := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}}
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.last = &deadlineConn{Conn: c, timeout: d.readTimeout}
	return d.last, nil
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	return d.DialContext(context.Background(), network, address)
}

func (d *dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.DialContext(ctx, network, address)
}

// deadlineConn never waits longer than timeout for bytes, nor past until. lib/pq sets no deadlines of its own: on a
// connection whose peer has gone silent it reads for ever, whatever its context says.
type deadlineConn struct {
	net.Conn
	timeout time.Duration
	until   time.Time // the statement's deadline; zero for none
	armed   time.Time // when the socket's deadlines were last set
}

func (c *deadlineConn) arm(now time.Time) error {
	d := now.Add(c.timeout)
	if !c.until.IsZero() && c.until.Before(d) {
		d = c.until
	}
	c.armed = now
	return c.Conn.SetDeadline(d)
}

func (c *deadlineConn) Write(b []byte) (int, error) {
	if err := c.arm(time.Now()); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *deadlineConn) Read(b []byte) (int, error) {
	// The write of the request has just set the deadline; only a long reply needs it set again.
	if now := time.Now(); now.Sub(c.armed) > c.timeout/16 {
		if err := c.arm(now); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

// SetDeadline is how lib/pq bounds connecting.
func (c *deadlineConn) SetDeadline(t time.Time) error {
	c.until = t
	return c.Conn.SetDeadline(t)
}
