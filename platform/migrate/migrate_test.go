package migrate_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/banyan-shop/banyan/platform/migrate"
	"github.com/banyan-shop/banyan/platform/pg"
	"github.com/banyan-shop/banyan/platform/shoptest"
)

// twoModules have tables, an index that needs an extension, and a function.
func twoModules() fstest.MapFS {
	return fstest.MapFS{
		"birds/0001_birds.sql": {Data: []byte(`-- +goose Up
CREATE TABLE birds.birds (id text PRIMARY KEY, name text NOT NULL);
-- +goose StatementBegin
CREATE FUNCTION birds.f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
	AS $$ SELECT public.unaccent('public.unaccent', $1) $$;
-- +goose StatementEnd
CREATE INDEX birds_name ON birds.birds USING gin (birds.f_unaccent(name) public.gin_trgm_ops);
`)},
		"trees/0001_trees.sql": {Data: []byte("-- +goose Up\nCREATE TABLE trees.trees (id text PRIMARY KEY);\n")},
	}
}

func options(t *testing.T) migrate.Options {
	return migrate.Options{AdminURL: shoptest.EmptyDatabase(t), FS: twoModules(), Shop: shopName(t)}
}

// shopName keeps the roles of a test, which are the cluster's, apart from those of others.
func shopName(t *testing.T) string {
	t.Helper()
	name := "t" + strings.ToLower(strings.Map(func(r rune) rune {
		if r < '0' || r > 'z' || r > '9' && r < 'A' || r > 'Z' && r < 'a' {
			return -1
		}
		return r
	}, t.Name()))
	return name[:min(len(name), 24)]
}

func up(t *testing.T, o migrate.Options) {
	t.Helper()
	began := time.Now()
	if err := migrate.Up(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Logf("up in %d ms", time.Since(began).Milliseconds())
}

func admin(t *testing.T, o migrate.Options) *sql.DB {
	t.Helper()
	db, err := pg.OpenAdmin(t.Context(), o.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func dropRoles(t *testing.T, o migrate.Options, modules ...string) {
	t.Cleanup(func() {
		db, err := pg.OpenAdmin(context.Background(), o.AdminURL)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		for _, m := range modules {
			role := migrate.RoleName(o.Shop, m)
			if _, err := db.Exec(`DO $$ BEGIN IF EXISTS (SELECT FROM pg_roles WHERE rolname = '` + role + `') THEN DROP OWNED BY ` + role + `; DROP ROLE ` + role + `; END IF; END $$`); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestUp(t *testing.T) {
	t.Parallel()
	o := options(t)
	dropRoles(t, o, "birds", "trees")
	up(t, o)

	as := func(module string) *pg.DB {
		t.Helper()
		return shoptest.Open(t, pg.Config{URL: migrate.ModuleURL(o.AdminURL, o.Shop, module, ""), Schema: module, MaxConns: 1})
	}
	run := func(db *pg.DB, statement string) error {
		return db.InTx(t.Context(), func(tx *pg.Tx) error {
			_, err := tx.Exec(t.Context(), statement)
			return err
		})
	}

	t.Run("each module can use its own tables and the platform's in its schema", func(t *testing.T) {
		db := as("birds")
		for _, s := range []string{
			`INSERT INTO birds.birds (id, name) VALUES ('a', 'Ärmelkanal')`,
			`UPDATE birds.birds SET name = 'Möwe' WHERE birds.f_unaccent(name) = 'Armelkanal'`,
			`INSERT INTO birds.outbox (id, name, key, payload) VALUES ('e', 'birds.seen.v1', 'a', '{}')`,
			`INSERT INTO birds.inbox (consumer, event_id) VALUES ('c', 'e')`,
			`INSERT INTO birds.retry (consumer, event_id, name, key, payload, occurred_at) VALUES ('c', 'e', 'n', 'k', '{}', now())`,
			`INSERT INTO birds.operations (key, method, request_hash, result) VALUES ('k', 'm', '\x00', '{}')`,
			`INSERT INTO birds.idempotency_keys (caller, route, key, request_hash) VALUES ('c', 'r', 'k', '\x00')`,
			`DELETE FROM birds.birds`,
		} {
			if err := run(db, s); err != nil {
				t.Errorf("%s: %v", s, err)
			}
		}
	})

	t.Run("no module can do anything else", func(t *testing.T) {
		for module, other := range map[string]string{"birds": "trees", "trees": "birds"} {
			db := as(module)
			for _, s := range []string{
				`SELECT * FROM ` + other + `.` + other,
				`SELECT * FROM ` + other + `.outbox`,
				`INSERT INTO ` + other + `.inbox (consumer, event_id) VALUES ('c', 'e')`,
				`DELETE FROM ` + other + `.` + other,
				`SELECT * FROM ` + module + `.goose_db_version`,
				`SELECT * FROM ` + module + `.platform_version`,
				`SELECT * FROM migrations.applied`,
				`CREATE TABLE ` + module + `.more (n int)`,
				`CREATE TABLE ` + other + `.more (n int)`,
				`CREATE TABLE public.more (n int)`,
				`CREATE TEMP TABLE more (n int)`,
				`CREATE SCHEMA more`,
				`ALTER TABLE ` + module + `.` + module + ` ADD n int`,
				`TRUNCATE ` + module + `.` + module,
				`CREATE ROLE more`,
				`SET ROLE ` + migrate.RoleName(o.Shop, other),
			} {
				if err := run(db, s); pg.State(err) != "42501" {
					t.Errorf("%s: %s: got %v, want 42501", module, s, err)
				}
			}
		}
	})

	t.Run("a second time does nothing, and fast", func(t *testing.T) {
		began := time.Now()
		up(t, o)
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
	})

	t.Run("a new file and a new module are added", func(t *testing.T) {
		more := o
		more.FS = fstest.MapFS{
			"birds/0001_birds.sql": twoModules()["birds/0001_birds.sql"],
			"birds/0002_nests.sql": {Data: []byte("-- +goose Up\nCREATE TABLE birds.nests (id text PRIMARY KEY);\n")},
			"trees/0001_trees.sql": twoModules()["trees/0001_trees.sql"],
			"ferns/0001_ferns.sql": {Data: []byte("-- +goose Up\nCREATE TABLE ferns.ferns (id text PRIMARY KEY);\n")},
		}
		more.Modules = []string{"birds", "trees", "ferns", "storefront"} // the last has no folder
		dropRoles(t, more, "ferns")
		up(t, more)
		if err := run(as("birds"), `INSERT INTO birds.nests (id) VALUES ('a')`); err != nil {
			t.Error(err)
		}
		if err := run(as("ferns"), `SELECT * FROM birds.nests`); pg.State(err) != "42501" {
			t.Errorf("got %v, want 42501", err)
		}
	})

	t.Run("a hole in the wall is found", func(t *testing.T) {
		if err := migrate.CheckWalls(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		for _, hole := range []string{
			`GRANT USAGE ON SCHEMA trees TO ` + migrate.RoleName(o.Shop, "birds"),
			`GRANT SELECT (id) ON trees.trees TO ` + migrate.RoleName(o.Shop, "birds"),
			`GRANT INSERT ON trees.trees TO PUBLIC`,
			`GRANT CREATE ON SCHEMA birds TO ` + migrate.RoleName(o.Shop, "birds"),
			`ALTER TABLE birds.birds OWNER TO ` + migrate.RoleName(o.Shop, "birds"),
		} {
			db := admin(t, o)
			if _, err := db.Exec(hole); err != nil {
				t.Fatal(err)
			}
			if err := migrate.CheckWalls(t.Context(), o); err == nil || !strings.Contains(err.Error(), migrate.RoleName(o.Shop, "")) {
				t.Errorf("%s: got %v", hole, err)
			}
			undo := strings.NewReplacer("GRANT ", "REVOKE ", " TO ", " FROM ").Replace(hole)
			if strings.HasPrefix(hole, "ALTER") {
				undo = `ALTER TABLE birds.birds OWNER TO CURRENT_USER`
			}
			if _, err := db.Exec(undo); err != nil {
				t.Fatal(err)
			}
		}
		if err := migrate.CheckWalls(t.Context(), o); err != nil {
			t.Error(err)
		}
	})
}

func TestSeveralStartersAtTheSameTime(t *testing.T) {
	t.Parallel()
	o := options(t)
	dropRoles(t, o, "birds", "trees")
	two := o
	two.AdminURL = shoptest.EmptyDatabase(t) // another database of the cluster, with the same roles
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = migrate.Up(t.Context(), []migrate.Options{o, two}[i%2]) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("starter %d: %v", i, err)
		}
	}
	for _, o := range []migrate.Options{o, two} {
		var n int
		if err := admin(t, o).QueryRow(`SELECT count(*) FROM birds.goose_db_version WHERE version_id = 1`).Scan(&n); err != nil || n != 1 {
			t.Errorf("version 1 was applied %d times, %v", n, err)
		}
	}
	// The roles have rights in both databases; the first clean-up drops those in its own alone.
	t.Cleanup(func() {
		db, err := pg.OpenAdmin(context.Background(), two.AdminURL)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		for _, m := range []string{"birds", "trees"} {
			if _, err := db.Exec(`DROP OWNED BY ` + migrate.RoleName(o.Shop, m)); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestADatabaseThatIsNotThereIsMade(t *testing.T) {
	t.Parallel()
	o := options(t)
	name := fmt.Sprintf("made_%d", time.Now().UnixNano())
	server := o.AdminURL
	o.AdminURL = pg.WithDatabase(o.AdminURL, name)
	t.Cleanup(func() {
		db, err := pg.OpenAdmin(context.Background(), server)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		if _, err := db.Exec(`DROP DATABASE IF EXISTS ` + name + ` WITH (FORCE)`); err != nil {
			t.Error(err)
		}
	})
	dropRoles(t, o, "birds", "trees")
	up(t, o)
}

func TestABrokenMigrationIsNamed(t *testing.T) {
	t.Parallel()
	o := options(t)
	dropRoles(t, o, "trees")
	o.FS = fstest.MapFS{
		"trees/0001_trees.sql":  twoModules()["trees/0001_trees.sql"],
		"trees/0002_broken.sql": {Data: []byte("-- +goose Up\nCREATE TABLE trees.half (id text PRIMARY KEY);\nCREATE TABEL;\n")},
	}
	err := migrate.Up(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "migrate trees: 0002_broken.sql") {
		t.Fatalf("got %v", err)
	}
	// It left nothing, and the next start tries it again.
	o.FS.(fstest.MapFS)["trees/0002_broken.sql"].Data = []byte("-- +goose Up\nCREATE TABLE trees.half (id text PRIMARY KEY);\n")
	up(t, o)
}

func TestARoleOfTheOperatorsMakingIsUsedAsItIs(t *testing.T) {
	t.Parallel()
	o := options(t)
	dropRoles(t, o, "trees")
	mine := o.Shop + "_mine"
	db := admin(t, o)
	if _, err := db.Exec(`CREATE ROLE ` + mine + ` LOGIN`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		db, err := pg.OpenAdmin(context.Background(), o.AdminURL)
		if err != nil {
			t.Error(err)
			return
		}
		defer db.Close()
		if _, err := db.Exec(`DROP OWNED BY ` + mine + `; DROP ROLE ` + mine); err != nil {
			t.Error(err)
		}
	})
	o.Roles = map[string]string{"birds": mine}
	up(t, o)
	birds := shoptest.Open(t, pg.Config{URL: pg.WithUser(o.AdminURL, mine, ""), Schema: "birds", MaxConns: 1})
	var n int
	if err := birds.Get(t.Context(), &n, `SELECT count(*) FROM birds.birds`); err != nil {
		t.Error(err)
	}
	if err := birds.Get(t.Context(), &n, `SELECT count(*) FROM trees.trees`); pg.State(err) != "42501" {
		t.Errorf("got %v, want 42501", err)
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ admin, password, want string }{
		{"postgres://boss:pw@db:5432/shop?sslmode=require", "p@ss'w", "postgres://shop_orders:p%40ss%27w@db:5432/shop?sslmode=require"},
		{"postgres://db/shop?user=boss&password=x", "", "postgres://shop_orders@db/shop?"},
		{"host=/run user=boss dbname=shop", `p' \w`, `host=/run user=boss dbname=shop user='shop_orders' password='p\' \\w'`},
	} {
		if got := migrate.ModuleURL(c.admin, "shop", "orders", c.password); strings.TrimSuffix(got, "?") != strings.TrimSuffix(c.want, "?") {
			t.Errorf("%s: got %s, want %s", c.admin, got, c.want)
		}
	}
}
