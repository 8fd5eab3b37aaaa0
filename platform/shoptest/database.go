package shoptest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/banyan-shop/banyan/db"
	"github.com/banyan-shop/banyan/platform/migrate"
	"github.com/banyan-shop/banyan/platform/pg"
)

// shopName is the prefix of the modules' roles. They are the cluster's, so all tests share them.
const shopName = "shop"

// database is the clone of one test.
type database struct {
	url string

	mu     sync.Mutex
	broken map[string]string // modules whose migrations fail, and how
	ready  map[string]bool   // modules known to have a schema
}

var (
	databasesMu sync.Mutex
	databases   = map[testing.TB]*database{}
)

// URL is a superuser's URL of this test's database.
func URL(t testing.TB) string {
	t.Helper()
	return databaseOf(t).url
}

// ModuleURL is the URL of this test's database for a module's role.
func ModuleURL(t testing.TB, module string) string {
	t.Helper()
	d := databaseOf(t)
	d.need(t, module)
	return migrate.ModuleURL(d.url, shopName, module, "")
}

// Exec runs SQL as superuser in this test's database, such as the tables of a test's own module.
func Exec(t testing.TB, statements string) {
	t.Helper()
	if err := asAdmin(t.Context(), URL(t), func(c *sql.DB) error {
		_, err := c.ExecContext(t.Context(), statements)
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// EmptyDatabase is a superuser's URL of a new database with nothing in it.
func EmptyDatabase(t testing.TB) string {
	t.Helper()
	return clone(t, ownServer(t), "template1")
}

func databaseOf(t testing.TB) *database {
	t.Helper()
	databasesMu.Lock()
	defer databasesMu.Unlock()
	if d, ok := databases[t]; ok {
		return d
	}
	s := ownServer(t)
	template, broken, err := s.template(t.Context())
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	d := &database{url: clone(t, s, template), broken: broken, ready: map[string]bool{}}
	databases[t] = d
	t.Cleanup(func() {
		databasesMu.Lock()
		defer databasesMu.Unlock()
		delete(databases, t)
	})
	return d
}

// need sees to it that the module has a schema.
func (d *database) need(t testing.TB, module string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if why, ok := d.broken[module]; ok {
		t.Fatalf("the migrations of %s fail: %s", module, why)
	}
	if d.ready[module] {
		return
	}
	folders, err := migrate.Modules(db.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range folders {
		d.ready[f] = true
	}
	if d.ready[module] {
		return
	}
	nothing := fstest.MapFS{module + "/0001_nothing.sql": {Data: []byte("-- +goose Up\nSELECT 1;\n")}}
	if err := migrate.Up(t.Context(), migrate.Options{AdminURL: d.url, Shop: shopName, FS: nothing}); err != nil {
		t.Fatal(err)
	}
	d.ready[module] = true
}

// clone makes a database and drops it at the test's end.
func clone(t testing.TB, s *server, template string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d_%s", s.pid, strings.ToLower(rand.Text()[:10]))
	err := asAdmin(t.Context(), s.url("postgres"), func(c *sql.DB) error {
		_, err := c.ExecContext(t.Context(), `CREATE DATABASE `+name+` TEMPLATE `+template+s.strategy())
		return err
	})
	if err != nil {
		t.Fatalf("clone database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		err := asAdmin(ctx, s.url("postgres"), func(c *sql.DB) error {
			_, err := c.ExecContext(ctx, `DROP DATABASE IF EXISTS `+name+` WITH (FORCE)`)
			return err
		})
		if err != nil {
			t.Errorf("drop database: %v", err)
		}
	})
	return s.url(name)
}

// strategy is how a database is copied.
func (s *server) strategy() string { return ` STRATEGY = FILE_COPY` }

// template is the name of the database with all migrations, made by the first test that wants it. While somebody edits the
// migrations of one module the others go on: broken says whose fail.
func (s *server) template(ctx context.Context) (name string, broken map[string]string, err error) {
	s.templateMu.Lock()
	defer s.templateMu.Unlock()
	if s.templateName != "" {
		return s.templateName, s.templateBroken, nil
	}
	o := migrate.Options{Shop: shopName, FS: db.Migrations}
	fingerprint, err := migrate.Fingerprint(o)
	if err != nil {
		return "", nil, err
	}
	name = "template_" + fingerprint[:16]
	unlock, err := lockFile(filepath.Join(s.dir, "template.lock"), false)
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	err = asAdmin(ctx, s.url("postgres"), func(c *sql.DB) error {
		var comment sql.NullString
		err := c.QueryRowContext(ctx, `SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = $1`, name).Scan(&comment)
		if err == nil {
			return json.Unmarshal([]byte(comment.String), &broken)
		}
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		broken, err = s.makeTemplate(ctx, c, name, o)
		return err
	})
	if err != nil {
		return "", nil, err
	}
	s.templateName, s.templateBroken = name, broken
	return name, broken, nil
}

func (s *server) makeTemplate(ctx context.Context, c *sql.DB, name string, o migrate.Options) (broken map[string]string, err error) {
	making := name + "_making" // renamed when it is whole, so that an interrupted one is never cloned
	o.AdminURL = s.url(making)
	afresh := func() error {
		for _, q := range []string{`DROP DATABASE IF EXISTS ` + making + ` WITH (FORCE)`, `CREATE DATABASE ` + making + ` TEMPLATE template0` + s.strategy()} {
			if _, err := c.ExecContext(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}
	if err := afresh(); err != nil {
		return nil, err
	}
	broken = map[string]string{}
	if err := migrate.Up(ctx, o); err != nil {
		// One module's fault is not the others': one by one.
		if err := afresh(); err != nil {
			return nil, err
		}
		modules, err := migrate.Modules(o.FS)
		if err != nil {
			return nil, err
		}
		for _, m := range modules {
			o.Modules = []string{m}
			if err := migrate.Up(ctx, o); err != nil {
				broken[m] = err.Error()
				drop := func(c *sql.DB) error {
					_, err := c.ExecContext(ctx, `DROP SCHEMA IF EXISTS "`+m+`" CASCADE`)
					return err
				}
				if err := asAdmin(ctx, o.AdminURL, drop); err != nil {
					return nil, err
				}
			}
		}
	}
	comment, err := json.Marshal(broken)
	if err != nil {
		return nil, err
	}
	for _, q := range []string{
		`ALTER DATABASE ` + making + ` RENAME TO ` + name,
		`ALTER DATABASE ` + name + ` ALLOW_CONNECTIONS false`, // a connection would keep it from being cloned
		`COMMENT ON DATABASE ` + name + ` IS ` + pg.Literal(string(comment)),
	} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return nil, err
		}
	}
	return broken, nil
}

// asAdmin works on a connection that does not stay: a kept one would look like a leak to the tests that count goroutines.
func asAdmin(ctx context.Context, url string, work func(*sql.DB) error) error {
	c, err := pg.OpenAdmin(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(work(c), c.Close())
}
