// Package migrate gives each module its schema, its login role that can use nothing else, the platform's tables, and its
// own numbered migrations.
//
// It knows the modules only as folders of SQL files. It takes nothing back: migrations go forward, see style.md.
package migrate

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/banyan-shop/banyan/platform/pg"
)

//go:embed platform/*.sql
var platformFiles embed.FS

// Options say which modules to bring up to date, and where.
type Options struct {
	AdminURL string              // the migration role: owner of the database, with CREATEROLE
	Shop     string              // prefix of the roles; "" means shop
	FS       fs.FS               // a folder of *.sql for each module that has a schema
	Modules  []string            // which of the folders; nil means all. A name without a folder has no schema and is left out
	Password func(string) string // the password of a role; nil means none: the server trusts its socket
	Roles    map[string]string   // module → a role that the operator has made; others are made here
	Log      *slog.Logger        // nil for none

	StatementTimeout time.Duration // of the modules' roles; 0 means 10 s
	LockTimeout      time.Duration // 0 means 3 s
	IdleTimeout      time.Duration // in a transaction; 0 means 30 s
}

func (o Options) withDefaults() Options {
	if o.Shop == "" {
		o.Shop = "shop"
	}
	if o.StatementTimeout <= 0 {
		o.StatementTimeout = 10 * time.Second
	}
	if o.LockTimeout <= 0 {
		o.LockTimeout = 3 * time.Second
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 30 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// RoleName is the login role of a module.
func RoleName(shop, module string) string { return shop + "_" + module }

// ModuleURL is adminURL for the role of a module.
func ModuleURL(adminURL, shop, module, password string) string {
	return pg.WithUser(adminURL, RoleName(shop, module), password)
}

// Modules are the folders of fsys that hold migrations.
func Modules(fsys fs.FS) ([]string, error) {
	files, err := fs.Glob(fsys, "*/*.sql")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		names = append(names, path.Dir(f))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

var (
	plainName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)
	reserved  = []string{"public", "information_schema", "migrations"}
)

// module is one schema to bring up to date.
type module struct {
	name, role  string
	ours        bool // the role is made here
	password    string
	fingerprint []byte // of everything that Up would do for it
}

// Up makes the database if it is not there, then what each module lacks. Several may run at once: they wait for each other.
// When nothing has changed since the last time it costs one connection and one query.
func Up(ctx context.Context, o Options) error {
	o = o.withDefaults()
	modules, err := o.modules()
	if err != nil {
		return err
	}
	if db, err := pg.OpenAdmin(ctx, o.AdminURL); err == nil {
		left, err := outdated(ctx, db, modules)
		db.Close()
		if err != nil || len(left) == 0 {
			return err
		}
	} else if pg.State(err) != "3D000" { // a missing database is made below
		return err
	}

	unlock, err := lock(ctx, o)
	if err != nil {
		return err
	}
	defer unlock()
	db, err := pg.OpenAdmin(ctx, o.AdminURL)
	if err != nil {
		return err
	}
	defer db.Close()
	left, err := outdated(ctx, db, modules) // somebody may have done it while we waited
	if err != nil || len(left) == 0 {
		return err
	}
	began := time.Now()
	if err := prepare(ctx, db); err != nil {
		return err
	}
	for _, m := range left {
		if err := o.up(ctx, db, m); err != nil {
			return fmt.Errorf("migrate %s: %w", m.name, err)
		}
	}
	if err := checkWalls(ctx, db, modules); err != nil {
		return err
	}
	for _, m := range left { // last: whatever was interrupted is done again
		_, err := db.ExecContext(ctx, `INSERT INTO migrations.applied (module, role, fingerprint) VALUES ($1, $2, $3)
			ON CONFLICT (module) DO UPDATE SET role = EXCLUDED.role, fingerprint = EXCLUDED.fingerprint, applied_at = now()`,
			m.name, m.role, m.fingerprint)
		if err != nil {
			return fmt.Errorf("record migration of %s: %w", m.name, err)
		}
	}
	o.Log.Info("database is up to date", "modules", len(modules), "migrated", len(left), "ms", time.Since(began).Milliseconds())
	return nil
}

// modules reads the folders.
func (o Options) modules() ([]module, error) {
	folders, err := Modules(o.FS)
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var list []module
	for _, name := range folders {
		if o.Modules != nil && !slices.Contains(o.Modules, name) {
			continue
		}
		m := module{name: name, role: o.Roles[name]}
		if m.role == "" {
			m.role, m.ours = RoleName(o.Shop, name), true
		}
		if !plainName.MatchString(name) || !plainName.MatchString(m.role) || slices.Contains(reserved, name) {
			return nil, fmt.Errorf("module %q with role %q: names must match %s and not be one of %s", name, m.role, plainName, strings.Join(reserved, ", "))
		}
		if m.ours && o.Password != nil {
			m.password = o.Password(m.role)
		}
		if m.fingerprint, err = o.fingerprint(m); err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// fingerprint changes with anything that Up makes of a module.
func (o Options) fingerprint(m module) ([]byte, error) {
	h := sha256.New()
	field := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	field([]byte("1")) // raise it when the code below grants something else
	field([]byte(m.name))
	field([]byte(m.role))
	field([]byte(m.password))
	field([]byte(fmt.Sprint(m.ours, o.StatementTimeout, o.LockTimeout, o.IdleTimeout)))
	for _, dir := range []struct {
		fs   fs.FS
		glob string
	}{{platformFiles, "platform/*.sql"}, {o.FS, m.name + "/*.sql"}} {
		files, err := fs.Glob(dir.fs, dir.glob)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			b, err := fs.ReadFile(dir.fs, f)
			if err != nil {
				return nil, fmt.Errorf("read migration %s: %w", f, err)
			}
			field([]byte(path.Base(f)))
			field(b)
		}
	}
	return h.Sum(nil), nil
}

// Fingerprint names the state that Up with these options brings about. Tests name their template database by it.
func Fingerprint(o Options) (string, error) {
	modules, err := o.withDefaults().modules()
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for _, m := range modules {
		h.Write(m.fingerprint)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// outdated leaves the modules that are not as they should be. Roles and schemas are looked at too: a dump brings neither the
// roles of the cluster it came from nor, perhaps, all schemas.
func outdated(ctx context.Context, db *sql.DB, modules []module) ([]module, error) {
	rows, err := db.QueryContext(ctx, `
		SELECT a.module, a.role, a.fingerprint FROM migrations.applied AS a
		JOIN pg_catalog.pg_roles AS r ON r.rolname = a.role
		JOIN pg_catalog.pg_namespace AS n ON n.nspname = a.module
		WHERE pg_catalog.has_schema_privilege(r.oid, n.oid, 'USAGE')`)
	if s := pg.State(err); s == "42P01" || s == "3F000" {
		return modules, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for migrations: %w", err)
	}
	defer rows.Close()
	done := map[string]string{}
	for rows.Next() {
		var name, role string
		var fingerprint []byte
		if err := rows.Scan(&name, &role, &fingerprint); err != nil {
			return nil, fmt.Errorf("look for migrations: %w", err)
		}
		done[name] = role + string(fingerprint)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look for migrations: %w", err)
	}
	return slices.DeleteFunc(slices.Clone(modules), func(m module) bool { return done[m.name] == m.role+string(m.fingerprint) }), nil
}

// lockKey is ours among the cluster's advisory locks: "banyan".
const lockKey = 0x62616e79616e

// lock waits until nobody else migrates in this cluster. Advisory locks are per database but roles are not, so all meet in
// database postgres; without it, concurrent starts fail with "tuple concurrently updated" or "role already exists". The
// database of the shop is made under it.
func lock(ctx context.Context, o Options) (unlock func(), err error) {
	db, err := pg.OpenAdmin(ctx, pg.WithDatabase(o.AdminURL, "postgres"))
	if err != nil { // a managed cluster may not let us in there: then the shop's own database has to do
		if db, err = pg.OpenAdmin(ctx, o.AdminURL); err != nil {
			return nil, err
		}
	}
	c, err := db.Conn(ctx)
	if err == nil {
		_, err = c.ExecContext(ctx, `SELECT pg_catalog.pg_advisory_lock($1)`, int64(lockKey))
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("wait for other migrations: %w", err)
	}
	unlock = func() { c.Close(); db.Close() } // a session's end frees its locks

	if name := pg.DatabaseName(o.AdminURL); name != "" {
		var there bool
		err = c.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = $1)`, name).Scan(&there)
		if err == nil && !there {
			_, err = c.ExecContext(ctx, `CREATE DATABASE `+ident(name))
		}
		if err != nil {
			unlock()
			return nil, fmt.Errorf("make database %s: %w", name, err)
		}
	}
	return unlock, nil
}

// prepare does what is done once a database.
func prepare(ctx context.Context, db *sql.DB) error {
	for _, s := range []string{
		`CREATE SCHEMA IF NOT EXISTS migrations`,
		`CREATE TABLE IF NOT EXISTS migrations.applied (
			module text PRIMARY KEY, role text NOT NULL, fingerprint bytea NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
		`REVOKE ALL ON SCHEMA public FROM PUBLIC`,
		`DO $$ BEGIN EXECUTE pg_catalog.format('REVOKE ALL ON DATABASE %I FROM PUBLIC', pg_catalog.current_database()); END $$`,
		// Both are trusted: no superuser is needed. They are shared, so they live in public, which modules may use, not change.
		`CREATE EXTENSION IF NOT EXISTS pg_trgm WITH SCHEMA public`,
		`CREATE EXTENSION IF NOT EXISTS unaccent WITH SCHEMA public`,
	} {
		if _, err := db.ExecContext(ctx, s); err != nil {
			if pg.State(err) == "42501" && strings.HasPrefix(s, "REVOKE") {
				continue // not ours to close; checkWalls says if it stands open
			}
			return fmt.Errorf("prepare database: %w", err)
		}
	}
	return nil
}

// up brings one module up to date. Each step may be repeated.
func (o Options) up(ctx context.Context, db *sql.DB, m module) error {
	if err := o.makeRole(ctx, db, m); err != nil {
		return err
	}
	schema, role := ident(m.name), ident(m.role)
	if err := run(ctx, db,
		`CREATE SCHEMA IF NOT EXISTS `+schema,
		`REVOKE ALL ON SCHEMA `+schema+` FROM PUBLIC`,
		`GRANT USAGE ON SCHEMA `+schema+`, public TO `+role,
		`DO $$ BEGIN EXECUTE pg_catalog.format('GRANT CONNECT ON DATABASE %I TO `+role+`', pg_catalog.current_database()); END $$`,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA `+schema+` GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO `+role,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA `+schema+` GRANT USAGE ON SEQUENCES TO `+role,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA `+schema+` GRANT EXECUTE ON FUNCTIONS TO `+role,
	); err != nil {
		return err
	}
	if err := applyPlatform(ctx, db, m.name); err != nil {
		return err
	}
	if err := o.applyModule(ctx, db, m.name); err != nil {
		return err
	}
	return run(ctx, db, // for what existed before the defaults did, and against what they gave too much
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA `+schema+` TO `+role,
		`GRANT USAGE ON ALL SEQUENCES IN SCHEMA `+schema+` TO `+role,
		`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA `+schema+` TO `+role,
		`REVOKE ALL ON `+schema+`.platform_version, `+schema+`.goose_db_version FROM `+role,
	)
}

func run(ctx context.Context, db *sql.DB, statements ...string) error {
	for _, s := range statements {
		if _, err := db.ExecContext(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// makeRole makes the module's login role and its limits. The lock keeps our own kind out; a shop of another name, or an
// operator, may still change roles at the same moment, so collisions are tried again.
func (o Options) makeRole(ctx context.Context, db *sql.DB, m module) error {
	if !m.ours {
		return nil
	}
	role := ident(m.role)
	ms := func(d time.Duration) string { return fmt.Sprintf("'%dms'", d.Milliseconds()) }
	statements := []string{
		`ALTER ROLE ` + role + ` LOGIN NOCREATEDB NOCREATEROLE`,
		`ALTER ROLE ` + role + ` SET statement_timeout = ` + ms(o.StatementTimeout),
		`ALTER ROLE ` + role + ` SET lock_timeout = ` + ms(o.LockTimeout),
		`ALTER ROLE ` + role + ` SET idle_in_transaction_session_timeout = ` + ms(o.IdleTimeout),
		`ALTER ROLE ` + role + ` SET search_path = ''`,
	}
	if m.password != "" {
		statements = append(statements, `ALTER ROLE `+role+` PASSWORD `+literal(m.password))
	}
	for try := 1; ; try++ {
		err := func() error {
			var there bool
			if err := db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)`, m.role).Scan(&there); err != nil {
				return err
			}
			if !there {
				if _, err := db.ExecContext(ctx, `CREATE ROLE `+role+` LOGIN`); err != nil {
					return err
				}
			}
			if err := run(ctx, db, statements...); err != nil {
				return err
			}
			// A statement whose client has gone is ended, not finished. Not every system can tell.
			_, err := db.ExecContext(ctx, `ALTER ROLE `+role+` SET client_connection_check_interval = '1s'`)
			if s := pg.State(err); s == "22023" || s == "42704" {
				return nil
			}
			return err
		}()
		switch s := pg.State(err); {
		case err == nil:
			return nil
		case (s == "XX000" || s == "23505" || s == "42710") && try < 20:
			t := time.NewTimer(time.Millisecond * time.Duration(1+rand.IntN(20*try)))
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		default:
			return fmt.Errorf("make role %s: %w", m.role, err)
		}
	}
}

// applyPlatform runs the platform's own migrations in a schema. They are templates, so goose is not for them.
func applyPlatform(ctx context.Context, db *sql.DB, schema string) error {
	files, err := fs.Glob(platformFiles, "platform/*.sql")
	if err != nil {
		return err
	}
	if err := run(ctx, db, `CREATE TABLE IF NOT EXISTS `+ident(schema)+`.platform_version (
		file text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`); err != nil {
		return err
	}
	for _, f := range files {
		if err := applyTemplate(ctx, db, schema, f); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	return nil
}

func applyTemplate(ctx context.Context, db *sql.DB, schema, file string) (err error) {
	text, err := platformFiles.ReadFile(file)
	if err != nil {
		return err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	res, err := tx.ExecContext(ctx, `INSERT INTO `+ident(schema)+`.platform_version (file) VALUES ($1) ON CONFLICT DO NOTHING`, path.Base(file))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if _, err := tx.ExecContext(ctx, strings.ReplaceAll(string(text), ":schema.", ident(schema)+".")); err != nil {
		return err
	}
	return tx.Commit()
}

// applyModule runs the module's own migrations.
func (o Options) applyModule(ctx context.Context, db *sql.DB, name string) error {
	folder, err := fs.Sub(o.FS, name)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, folder,
		goose.WithTableName(name+".goose_db_version"), goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	results, err := p.Up(ctx)
	for _, r := range results {
		o.Log.Info("migrated", "module", name, "file", r.Source.Path, "ms", r.Duration.Milliseconds())
	}
	var partial *goose.PartialError
	if errors.As(err, &partial) && partial.Failed != nil {
		return fmt.Errorf("%s: %w", partial.Failed.Source.Path, partial.Err)
	}
	return err
}

func ident(s string) string   { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
func literal(s string) string { return pg.Literal(s) }
