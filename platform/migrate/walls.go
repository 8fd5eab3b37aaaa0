package migrate

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/banyan-shop/banyan/platform/pg"
)

// CheckWalls asks the database whether a module's role could do more than use the tables of its own schema, and says what.
// Up does so whenever it has changed something.
func CheckWalls(ctx context.Context, o Options) error {
	o = o.withDefaults()
	modules, err := o.modules()
	if err != nil {
		return err
	}
	db, err := pg.OpenAdmin(ctx, o.AdminURL)
	if err != nil {
		return err
	}
	defer db.Close()
	return checkWalls(ctx, db, modules)
}

// breaches are the ways through: each gives one line a hole.
const breaches = `
WITH module AS (
	SELECT m.name, r.oid AS role, r.rolname
	FROM unnest($1::text[], $2::text[]) AS m (name, role) JOIN pg_catalog.pg_roles AS r ON r.rolname = m.role
), relation AS (
	SELECT n.nspname, c.relname, c.oid, c.relkind
	FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
	WHERE n.nspname IN (SELECT name FROM module UNION SELECT module FROM migrations.applied UNION SELECT 'migrations')
	AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT m.rolname || ' can use ' || t.nspname || '.' || t.relname
FROM module AS m JOIN relation AS t ON t.nspname <> m.name
WHERE pg_catalog.has_table_privilege(m.role, t.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
	OR pg_catalog.has_any_column_privilege(m.role, t.oid, 'SELECT, INSERT, UPDATE, REFERENCES')
UNION ALL
SELECT m.rolname || ' can enter schema ' || n.nspname
FROM module AS m JOIN pg_catalog.pg_namespace AS n ON n.nspname <> m.name AND n.nspname IN (SELECT nspname FROM relation)
WHERE pg_catalog.has_schema_privilege(m.role, n.oid, 'USAGE')
UNION ALL
SELECT m.rolname || ' can create in schema ' || n.nspname
FROM module AS m CROSS JOIN pg_catalog.pg_namespace AS n
WHERE n.nspname NOT LIKE 'pg\_temp%' AND n.nspname NOT LIKE 'pg\_toast%' AND pg_catalog.has_schema_privilege(m.role, n.oid, 'CREATE')
UNION ALL
SELECT m.rolname || ' can create schemas'
FROM module AS m WHERE pg_catalog.has_database_privilege(m.role, pg_catalog.current_database(), 'CREATE')
UNION ALL
SELECT m.rolname || ' can change table ' || t.nspname || '.' || t.relname
FROM module AS m JOIN relation AS t ON t.nspname = m.name
WHERE pg_catalog.has_table_privilege(m.role, t.oid, 'TRUNCATE, TRIGGER') OR pg_catalog.pg_has_role(m.role, (SELECT relowner FROM pg_catalog.pg_class WHERE oid = t.oid), 'MEMBER')
UNION ALL
SELECT m.rolname || ' is more than a plain login role'
FROM module AS m JOIN pg_catalog.pg_roles AS r ON r.oid = m.role
WHERE r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
UNION ALL
SELECT m.rolname || ' serves modules ' || string_agg(m.name, ', ') FROM module AS m GROUP BY m.rolname HAVING count(*) > 1`

func checkWalls(ctx context.Context, db *sql.DB, modules []module) error {
	var names, roles []string
	for _, m := range modules {
		names, roles = append(names, m.name), append(roles, m.role)
	}
	rows, err := db.QueryContext(ctx, breaches, pg.Array(names), pg.Array(roles))
	if err != nil {
		return fmt.Errorf("check permissions: %w", err)
	}
	defer rows.Close()
	var holes []string
	for rows.Next() {
		var hole string
		if err := rows.Scan(&hole); err != nil {
			return fmt.Errorf("check permissions: %w", err)
		}
		holes = append(holes, hole)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("check permissions: %w", err)
	}
	if len(holes) > 0 {
		more := ""
		if len(holes) > 5 {
			more = fmt.Sprintf(" and %d more", len(holes)-5)
			holes = holes[:5]
		}
		return fmt.Errorf("the database does not keep the modules apart: %s%s: revoke it, or let the shop make its roles", strings.Join(holes, "; "), more)
	}
	return nil
}
