package sqltext

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	good := map[string]string{
		"a plain select":            `SELECT o.id, o.total FROM orders.orders o WHERE o.id = $1`,
		"aliases and joins":         `SELECT * FROM orders.orders AS o JOIN orders.lines l ON l.order_id = o.id LEFT JOIN orders.refunds USING (order_id)`,
		"a comma list":              `SELECT * FROM orders.a x, orders.b y, pg_catalog.pg_class c WHERE x.id = y.id`,
		"set returning functions":   `INSERT INTO orders.lines (id, n) SELECT u.id, u.n FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS u(id, n)`,
		"a record set":              `SELECT r.a FROM orders.t o, jsonb_to_recordset(o.lines) AS r(a text, b int), generate_series(1, 3)`,
		"an untyped record set":     `SELECT 1 FROM jsonb_to_recordset($1) AS (a text, b int)`,
		"cte":                       `WITH due AS (SELECT id FROM orders.jobs FOR UPDATE SKIP LOCKED), n (a) AS MATERIALIZED (SELECT 1) UPDATE orders.jobs j SET at = now() FROM due, n WHERE j.id = due.id`,
		"recursive cte":             `WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT n FROM t`,
		"upsert":                    `INSERT INTO orders.a AS x (id) VALUES ($1) ON CONFLICT (id) DO UPDATE SET n = x.n + excluded.n RETURNING x.n, x.id`,
		"for update":                `SELECT 1 FROM orders.a o FOR UPDATE OF o SKIP LOCKED`,
		"for no key update":         `SELECT 1 FROM orders.a FOR NO KEY UPDATE`,
		"from that is no clause":    `SELECT extract(epoch FROM o.at), substring(o.a FROM 2), trim(BOTH FROM o.b) FROM orders.o o WHERE o.a IS NOT DISTINCT FROM o.b`,
		"names in strings":          `SELECT 'FROM catalog.products', "from" FROM orders."orders" -- FROM catalog.products`,
		"comments":                  `/* FROM catalog.x /* JOIN cart.y */ */ SELECT 1`,
		"escape string":             `SELECT E'it\'s FROM catalog.x', 'it''s' FROM orders.o`,
		"dollar data":               `SELECT $q$ FROM catalog.x $q$ FROM orders.o WHERE id = $1`,
		"lateral":                   `SELECT * FROM orders.a x CROSS JOIN LATERAL (SELECT 1 FROM orders.b y WHERE y.id = x.id) z, LATERAL unnest(x.tags) g`,
		"a parenthesised join":      `SELECT 1 FROM (orders.a x CROSS JOIN orders.b y) JOIN orders.c z ON true`,
		"delete using":              `DELETE FROM orders.a USING orders.b AS b WHERE a.id = b.id`,
		"merge":                     `MERGE INTO orders.a t USING (SELECT 1 AS id) s ON t.id = s.id WHEN MATCHED THEN UPDATE SET n = 1 WHEN NOT MATCHED THEN INSERT (id) VALUES (s.id)`,
		"extension functions":       `SELECT public.unaccent(p.title) FROM orders.p p WHERE p.title OPERATOR(public.%) $1`,
		"a table":                   "CREATE TABLE IF NOT EXISTS orders.a (\n id text PRIMARY KEY,\n b text NOT NULL REFERENCES orders.b (id) ON DELETE CASCADE ON UPDATE CASCADE,\n CHECK (id <> ''), UNIQUE (id, b))",
		"an index":                  `CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_b ON orders.a USING gin (b public.gin_trgm_ops) WHERE b IS NOT NULL`,
		"a trigger":                 `CREATE TRIGGER x AFTER INSERT OR UPDATE OF b ON orders.a FOR EACH ROW EXECUTE FUNCTION orders.f()`,
		"grants":                    `GRANT SELECT, UPDATE ON orders.a TO r; GRANT USAGE ON SCHEMA orders TO r; ALTER DEFAULT PRIVILEGES IN SCHEMA orders GRANT SELECT ON TABLES TO r`,
		"create schema":             `CREATE SCHEMA IF NOT EXISTS orders`,
		"a function body":           "CREATE OR REPLACE FUNCTION orders.f() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $$ DECLARE n int; BEGIN SELECT count(*) INTO n FROM orders.a; IF n > 0 THEN UPDATE orders.a SET b = NEW.b; END IF; RETURN NEW; END $$",
		"a view":                    `CREATE VIEW orders.v AS SELECT a.id, b.n FROM orders.a a JOIN orders.b b ON b.id = a.id`,
		"a sequence by name":        `SELECT nextval('orders.numbers'), 'orders.a'::regclass`,
		"a temporary table":         `CREATE TEMP TABLE t (id text) ON COMMIT DROP; INSERT INTO t (id) VALUES ($1); SELECT id FROM t`,
		"an extension":              `CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public`,
		"columns called like words": `SELECT o.schema, o.role, o.on_hold FROM orders.o o ORDER BY o.a, o.b`,
		"a role column":             `UPDATE orders.members SET role = $1, n = 2 WHERE id = $2`,
		"comments on things":        `COMMENT ON TABLE orders.a IS 'x'; COMMENT ON COLUMN orders.a.id IS 'FROM cart.x'`,
		"drop":                      `DROP TABLE IF EXISTS orders.a, orders.b CASCADE; DROP INDEX orders.a_b`,
		"alter type":                `ALTER TABLE orders.a ALTER COLUMN b TYPE bigint USING b::bigint, ADD COLUMN c orders.kind NOT NULL DEFAULT 'x'`,
		"window":                    `SELECT row_number() OVER (PARTITION BY o.a ORDER BY o.b, o.c) FROM orders.o o, orders.p`,
		"subquery in from":          `SELECT x.n FROM (SELECT count(*) AS n FROM orders.a) AS x, (VALUES (1), (2)) AS v(n)`,
		"exists":                    `SELECT EXISTS (SELECT 1 FROM orders.a WHERE id = $1 UNION SELECT 2 FROM orders.b)`,
		"advisory lock":             `SELECT pg_advisory_xact_lock(hashtext($1)), pg_catalog.now()`,
		"quoted own":                `SELECT 1 FROM "orders"."Orders"`,
		"tsquery":                   `SELECT ts_rank(p.document, q) FROM orders.p p, websearch_to_tsquery('simple', $1) AS q WHERE p.document @@ q`,
	}
	for name, sql := range good {
		t.Run("good/"+name, func(t *testing.T) {
			t.Parallel()
			for _, p := range Check(sql, Rules{Schema: "orders"}) {
				t.Errorf("%s\n  at %d: %s", sql, p.Offset, p.Text)
			}
		})
	}
	bad := map[string][2]string{
		"another schema":             {`SELECT 1 FROM catalog.products`, "names catalog.products"},
		"in a join":                  {`SELECT 1 FROM orders.a JOIN catalog.products p ON true`, "catalog.products"},
		"in a comma list":            {`SELECT 1 FROM orders.a x, catalog.products`, "catalog.products"},
		"a comma after a join":       {`SELECT 1 FROM orders.a x JOIN orders.b y ON x.id = y.id, catalog.products`, "catalog.products"},
		"after a subquery":           {`SELECT 1 FROM (SELECT 1) x, catalog.products`, "catalog.products"},
		"in parentheses":             {`SELECT 1 FROM (orders.a JOIN catalog.products ON true)`, "catalog.products"},
		"double parentheses":         {`SELECT 1 FROM ((catalog.products CROSS JOIN orders.a))`, "catalog.products"},
		"insert":                     {`INSERT INTO catalog.products (id) VALUES ($1)`, "catalog.products"},
		"update":                     {`UPDATE catalog.products SET n = 1`, "catalog.products"},
		"update from":                {`UPDATE orders.a SET n = 1 FROM catalog.products p`, "catalog.products"},
		"update only":                {`UPDATE ONLY catalog.products SET n = 1`, "catalog.products"},
		"update in a cte":            {`WITH x AS (UPDATE catalog.products SET n = 1 RETURNING id) SELECT 1 FROM x`, "catalog.products"},
		"delete":                     {`DELETE FROM catalog.products`, "catalog.products"},
		"delete using":               {`DELETE FROM orders.a USING catalog.products p`, "catalog.products"},
		"merge":                      {`MERGE INTO orders.a USING catalog.products p ON true WHEN MATCHED THEN DELETE`, "catalog.products"},
		"truncate":                   {`TRUNCATE orders.a, catalog.products`, "catalog.products"},
		"lock":                       {`LOCK TABLE catalog.products`, "catalog.products"},
		"copy":                       {`COPY catalog.products FROM STDIN`, "catalog.products"},
		"table command":              {`TABLE catalog.products`, "catalog.products"},
		"a quoted schema":            {`SELECT 1 FROM "catalog".products`, "catalog.products"},
		"upper case":                 {`SELECT 1 FROM CATALOG.Products`, "catalog.products"},
		"a comment between":          {`SELECT 1 FROM catalog/**/./* */products`, "catalog.products"},
		"unicode escapes":            {`SELECT 1 FROM U&"cat\0061log".products`, "Unicode"},
		"without a schema":           {`SELECT 1 FROM products`, "stands without its schema after FROM"},
		"insert without a schema":    {`INSERT INTO products (id) VALUES (1)`, "after INTO"},
		"update without a schema":    {`UPDATE products SET n = 1`, "after UPDATE"},
		"three parts":                {`SELECT catalog.products.id FROM orders.a`, "catalog.products"},
		"a foreign function":         {`SELECT catalog.stock($1)`, "catalog.stock()"},
		"a foreign function in from": {`SELECT 1 FROM catalog.stock($1) s`, "catalog.stock()"},
		"a foreign type":             {`SELECT $1::catalog.kind`, "catalog.kind"},
		"a foreign sequence":         {`SELECT nextval('catalog.numbers')`, "catalog.numbers"},
		"regclass":                   {`SELECT 'catalog.products'::regclass`, "catalog.products"},
		"set search_path":            {`SET search_path TO catalog`, "SET SEARCH_PATH is refused"},
		"set local search_path":      {`SELECT 1; SET LOCAL search_path = catalog`, "SET SEARCH_PATH"},
		"set role":                   {`SET ROLE shop_catalog`, "SET ROLE"},
		"session authorization":      {`SET SESSION AUTHORIZATION x`, "AUTHORIZATION"},
		"reset role":                 {`RESET ROLE`, "RESET ROLE"},
		"set_config":                 {`SELECT set_config('search_path', 'catalog', true)`, "set_config"},
		"set_config by parameter":    {`SELECT set_config($1, $2, true)`, "set_config"},
		"a foreign key":              {`CREATE TABLE orders.a (id text REFERENCES catalog.products (id))`, "a foreign key of orders points at catalog.products"},
		"a foreign key added":        {`ALTER TABLE orders.a ADD CONSTRAINT x FOREIGN KEY (p) REFERENCES catalog.products`, "a foreign key"},
		"a foreign table made":       {`CREATE TABLE catalog.a (id text)`, "catalog.a"},
		"a table without schema":     {`CREATE TABLE a (id text)`, "after TABLE"},
		"an index across":            {`CREATE INDEX x ON catalog.products (id)`, "catalog.products"},
		"an index without schema":    {`CREATE INDEX x ON products (id)`, "after ON"},
		"a trigger across":           {`CREATE TRIGGER x BEFORE UPDATE ON catalog.products EXECUTE FUNCTION orders.f()`, "catalog.products"},
		"a grant across":             {`GRANT SELECT ON catalog.products TO x`, "catalog.products"},
		"a schema grant":             {`GRANT USAGE ON SCHEMA catalog TO x`, "schema catalog"},
		"a grant on all":             {`GRANT SELECT ON ALL TABLES IN SCHEMA catalog TO x`, "schema catalog"},
		"another schema made":        {`CREATE SCHEMA catalog`, "schema catalog"},
		"a view across":              {`CREATE VIEW orders.v AS SELECT 1 FROM catalog.products`, "catalog.products"},
		"like":                       {`CREATE TABLE orders.a (LIKE catalog.products INCLUDING ALL)`, "catalog.products"},
		"inherits":                   {`CREATE TABLE orders.a () INHERITS (catalog.products)`, "catalog.products"},
		"drop":                       {`DROP TABLE IF EXISTS orders.a, catalog.products`, "catalog.products"},
		"drop index":                 {`DROP INDEX catalog.x`, "catalog.x"},
		"a column type":              {`CREATE TABLE orders.a (k catalog.kind)`, "catalog.kind"},
		"a function body":            {"CREATE FUNCTION orders.f() RETURNS int AS $$ SELECT 1 FROM catalog.products $$ LANGUAGE sql", "catalog.products"},
		"plpgsql":                    {"DO $x$ BEGIN IF true THEN UPDATE catalog.products SET n = 1; END IF; END $x$", "catalog.products"},
		"dynamic sql":                {"DO $x$ BEGIN EXECUTE 'DROP TABLE ' || 'x'; END $x$", "EXECUTE runs SQL"},
		"search_path in a body":      {"DO $x$ BEGIN SET search_path = catalog; END $x$", "SET SEARCH_PATH"},
		"query_to_xml":               {`SELECT query_to_xml('SELECT 1 FROM catalog.products', true, true, '')`, "query_to_xml"},
		"a role":                     {`ALTER ROLE x SET search_path = catalog`, "platform/migrate"},
		"public table":               {`SELECT 1 FROM public.products`, "public.products"},
		"information_schema":         {`SELECT 1 FROM information_schema.tables`, "pg_catalog"},
		"the platform's tables":      {`INSERT INTO orders.outbox (id) VALUES ($1)`, "events.Publish"},
		"a second statement":         {`SELECT 1; DELETE FROM catalog.products`, "catalog.products"},
		"an open string":             {`SELECT 'abc FROM catalog.products`, "unterminated"},
		"lateral":                    {`SELECT 1 FROM orders.a, LATERAL (SELECT 1 FROM catalog.products) x`, "catalog.products"},
		"select into":                {`SELECT 1 INTO products FROM orders.a`, "SELECT INTO"},
		"nested from in extract":     {`SELECT extract(epoch FROM (SELECT at FROM catalog.products))`, "catalog.products"},
		"a database before":          {`SELECT 1 FROM shop.catalog.products`, "without a database"},
		"an escape that ends early":  {`SELECT 'a\' FROM catalog.products --'`, "catalog.products"},
		"create extension elsewhere": {`CREATE EXTENSION pg_trgm SCHEMA catalog`, "schema catalog"},
	}
	for name, c := range bad {
		t.Run("bad/"+name, func(t *testing.T) {
			t.Parallel()
			ps := Check(c[0], Rules{Schema: "orders"})
			if len(ps) == 0 {
				t.Fatalf("%s\n  nothing refused, want %q", c[0], c[1])
			}
			for _, p := range ps {
				if strings.Contains(p.Text, c[1]) {
					return
				}
			}
			t.Errorf("%s\n  %v, want %q", c[0], ps, c[1])
		})
	}
}

// FuzzCheck holds the reader to ending and never panicking, whatever the text.
func FuzzCheck(f *testing.F) {
	f.Add(`SELECT 1 FROM ((orders.a`)
	f.Add(`COMMENT ON COLUMN "`)
	f.Add("DO $$ BEGIN $$")
	f.Add(`ON FROM REFERENCES .`)
	f.Fuzz(func(t *testing.T, sql string) { Check(sql, Rules{Schema: "orders"}) })
}
