package pg

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/lib/pq"
)

// OpenAdmin makes a plain pool for migrations, servers and tests: it may write, prepares nothing and waits long for a
// statement. It is not for modules.
func OpenAdmin(ctx context.Context, databaseURL string) (*sql.DB, error) {
	c, err := newConnector(databaseURL, 10*time.Minute)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	db.SetMaxOpenConns(4)
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("connect to the database: %w", mapped(err))
	}
	return db, nil
}

// WithDatabase is databaseURL with another database.
func WithDatabase(databaseURL, database string) string {
	u, ok := parseURL(databaseURL)
	if !ok {
		return databaseURL + " dbname=" + quote(database)
	}
	u.Path = "/" + database
	return without(u, "dbname")
}

// WithUser is databaseURL with another user and password ("" for none).
func WithUser(databaseURL, user, password string) string {
	u, ok := parseURL(databaseURL)
	if !ok {
		return databaseURL + " user=" + quote(user) + " password=" + quote(password)
	}
	u.User = url.User(user)
	if password != "" {
		u.User = url.UserPassword(user, password)
	}
	return without(u, "user", "password")
}

func parseURL(s string) (*url.URL, bool) {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return nil, false
	}
	u, err := url.Parse(s)
	return u, err == nil
}

func without(u *url.URL, keys ...string) string {
	q := u.Query()
	for _, k := range keys {
		q.Del(k)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// quote is a value of a key=value string, in which the last of equal keys counts.
func quote(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'"
}

// HasPassword says whether a URL logs in with one.
func HasPassword(databaseURL string) bool {
	c, err := pq.NewConfig(databaseURL)
	return err == nil && c.Password != ""
}

// DatabaseName is the database a URL names; "" if it can't be read.
func DatabaseName(databaseURL string) string {
	c, err := pq.NewConfig(databaseURL)
	if err != nil {
		return ""
	}
	return c.Database
}

// Literal is s as an SQL string, for the few statements that take no parameters, such as ALTER ROLE.
func Literal(s string) string { return pq.QuoteLiteral(s) }
