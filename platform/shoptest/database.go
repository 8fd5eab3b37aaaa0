package shoptest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
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

	mu    sync.Mutex
	ready map[string]bool // modules known to have a schema
}

var (
	databasesMu sync.Mutex
	databases   = map[testing.TB]*database{}
)

// URL is a superuser's URL of this test's database.
func URL(t testing.TB) string {
	t.Helper()
	return databaseOf(t, "").url
}

// ModuleURL is the URL of this test's database for a module's role.
func ModuleURL(t testing.TB, module string) string {
	t.Helper()
	return migrate.ModuleURL(databaseOf(t, module).url, shopName, module, "")
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

// DatabaseOf is a superuser's URL of a new database that holds the schemas of just these modules, as a process that runs them has
// it.
func DatabaseOf(t testing.TB, modules ...string) string {
	t.Helper()
	s := ownServer(t)
	tmpl, err := s.templateOf(t.Context(), modules)
	if err != nil {
		t.Fatalf("make the template database of %s: %v", strings.Join(modules, ", "), err)
	}
	return clone(t, s, tmpl.name)
}

// templateOf is the one with the migrations of some modules.
func (s *server) templateOf(ctx context.Context, modules []string) (template, error) {
	s.templatesMu.Lock()
	defer s.templatesMu.Unlock()
	key := "only " + strings.Join(modules, " ")
	if t, ok := s.templates[key]; ok {
		return t, nil
	}
	o := migrate.Options{Shop: shopName, FS: db.Migrations, Modules: modules}
	fingerprint, err := migrate.Fingerprint(o)
	if err != nil {
		return template{}, err
	}
	t := template{name: "template_only_" + fingerprint[:16]}
	unlock, err := lockFile(filepath.Join(s.dir, "template.lock"), false)
	if err != nil {
		return t, err
	}
	defer unlock()
	err = asAdmin(ctx, s.url("postgres"), func(c *sql.DB) error {
		var made bool
		if err := c.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)`, t.name).Scan(&made); err != nil || made {
			return err
		}
		return s.makeTemplate(ctx, c, t, "template0", func(url string) error {
			o.AdminURL = url
			return migrate.Up(ctx, o)
		})
	})
	if err == nil {
		s.templates[key] = t
	}
	return t, err
}

// databaseOf is the test's database, with a schema for the module ("" for none in particular).
func databaseOf(t testing.TB, module string) *database {
	t.Helper()
	s := ownServer(t)
	databasesMu.Lock()
	d, ok := databases[t]
	if !ok {
		d = &database{ready: map[string]bool{}}
		databases[t] = d
		t.Cleanup(func() {
			databasesMu.Lock()
			defer databasesMu.Unlock()
			delete(databases, t)
		})
	}
	databasesMu.Unlock()

	d.mu.Lock()
	defer d.mu.Unlock()
	tmpl, err := s.template(t.Context(), "")
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	if why, ok := tmpl.Broken[module]; ok {
		t.Fatalf("the migrations of %s fail: %s", module, why)
	}
	folders, err := migrate.Modules(db.Migrations)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(folders, module) {
		module = "" // in the template
	}
	if d.url == "" {
		if module != "" {
			if tmpl, err = s.template(t.Context(), module); err != nil {
				t.Fatalf("make the template database with %s: %v", module, err)
			}
		}
		d.url = clone(t, s, tmpl.name)
		d.ready[module] = true
	}
	if module != "" && !d.ready[module] {
		if err := migrate.Up(t.Context(), bare(d.url, module)); err != nil {
			t.Fatal(err)
		}
		// A clone has not its template's grants on the database, and the migrator has just shut it to those it does not know.
		if err := asAdmin(t.Context(), d.url, func(c *sql.DB) error {
			_, err := c.ExecContext(t.Context(), `GRANT CONNECT ON DATABASE `+pg.DatabaseName(d.url)+` TO PUBLIC`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		d.ready[module] = true
	}
	return d
}

// bare is a module that has nothing but the platform's tables.
func bare(url, module string) migrate.Options {
	return migrate.Options{AdminURL: url, Shop: shopName, FS: fstest.MapFS{
		module + "/0001_nothing.sql": {Data: []byte("-- +goose Up\nSELECT 1;\n")},
	}}
}

// Clone is a superuser's URL of a copy of another database, to which nobody may be connected meanwhile.
func Clone(t testing.TB, url string) string {
	t.Helper()
	return clone(t, ownServer(t), pg.DatabaseName(url))
}

// clone makes a database and drops it at the test's end.
func clone(t testing.TB, s *server, template string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d_%s", s.pid, strings.ToLower(rand.Text()[:10]))
	err := asAdmin(t.Context(), s.url("postgres"), func(c *sql.DB) error {
		_, err := c.ExecContext(t.Context(), `CREATE DATABASE `+name+` TEMPLATE `+template+strategy)
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

// strategy copies files, which took 30 ms where writing the copy to the log took 220.
const strategy = ` STRATEGY = FILE_COPY`

// template is a database to be cloned.
type template struct {
	name   string
	Broken map[string]string // modules whose migrations fail, and how: while somebody edits one, the others go on
}

// template is the one with all migrations and, if it is named, a bare module more. The first test that wants it makes it.
func (s *server) template(ctx context.Context, module string) (template, error) {
	s.templatesMu.Lock()
	defer s.templatesMu.Unlock()
	if t, ok := s.templates[module]; ok {
		return t, nil
	}
	o := migrate.Options{Shop: shopName, FS: db.Migrations}
	fingerprint, err := migrate.Fingerprint(o)
	if err != nil {
		return template{}, err
	}
	base := "template_" + fingerprint[:16]
	t := template{name: base}
	if module != "" {
		t.name += "_" + module
	}
	unlock, err := lockFile(filepath.Join(s.dir, "template.lock"), false)
	if err != nil {
		return t, err
	}
	defer unlock()
	err = asAdmin(ctx, s.url("postgres"), func(c *sql.DB) error {
		var comment sql.NullString
		err := c.QueryRowContext(ctx, `SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database WHERE datname = $1`, t.name).Scan(&comment)
		if err == nil && comment.Valid {
			return json.Unmarshal([]byte(comment.String), &t)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if module != "" {
			return s.makeTemplate(ctx, c, t, base, func(url string) error { return migrate.Up(ctx, bare(url, module)) })
		}
		err = s.makeTemplate(ctx, c, t, "template0", func(url string) error {
			o.AdminURL = url
			return migrate.Up(ctx, o)
		})
		if err == nil {
			return nil
		}
		modules, err := migrate.Modules(o.FS)
		if err != nil {
			return err
		}
		t.Broken = map[string]string{}
		return s.makeTemplate(ctx, c, t, "template0", func(url string) error {
			for _, m := range modules {
				o.AdminURL, o.Modules = url, []string{m}
				if err := migrate.Up(ctx, o); err != nil {
					t.Broken[m] = err.Error()
				}
			}
			return nil
		})
	})
	if err == nil {
		s.templates[module] = t
	}
	return t, err
}

// makeTemplate fills a copy of another database and gives it its name when it is whole: an interrupted one is never cloned.
func (s *server) makeTemplate(ctx context.Context, c *sql.DB, t template, from string, fill func(url string) error) error {
	making := t.name + "_making"
	for _, q := range []string{
		`DROP DATABASE IF EXISTS ` + making + ` WITH (FORCE)`,
		`DROP DATABASE IF EXISTS ` + t.name + ` WITH (FORCE)`,
		`CREATE DATABASE ` + making + ` TEMPLATE ` + from + strategy,
	} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	if err := fill(s.url(making)); err != nil {
		return err
	}
	comment, err := json.Marshal(t)
	if err != nil {
		return err
	}
	for _, q := range []string{
		`ALTER DATABASE ` + making + ` RENAME TO ` + t.name,
		`ALTER DATABASE ` + t.name + ` ALLOW_CONNECTIONS false`, // a connection would keep it from being cloned
		`COMMENT ON DATABASE ` + t.name + ` IS ` + pg.Literal(string(comment)),
	} {
		if _, err := c.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// asAdmin works on a connection that does not stay: a kept one would look like a leak to the tests that count goroutines.
func asAdmin(ctx context.Context, url string, work func(*sql.DB) error) error {
	c, err := pg.OpenAdmin(ctx, url)
	if err != nil {
		return err
	}
	return errors.Join(work(c), c.Close())
}
