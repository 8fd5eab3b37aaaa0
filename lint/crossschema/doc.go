// Package crossschema defines an analyzer that keeps every module's SQL in its own schema.
//
// # Analyzer crossschema
//
// crossschema: refuse SQL that leaves the module's schema
//
// Module orders owns schema orders. Its SQL may name tables of orders and pg_catalog, functions and types of public (where
// extensions live) and nothing else. Refused are another schema, a table without its schema, SET search_path and SET ROLE, a
// foreign key that points out, functions that run SQL from text, and the platform's own tables (outbox, inbox, retry,
// operations, idempotency_keys), which are written through events.Publish, events.On, pg.Once and web.SaveReply; tests may look at those.
//
// SQL is what reaches a parameter called query of platform/pg, sqlx or database/sql, after the compiler has folded constants.
// A choice among constants is followed through local variables, unexported fields and parameters of unexported functions when everything ever put into them is seen,
// and every choice is checked. Any other text is refused: it can't be checked, can't be prepared once, and is where injection
// begins. A method
// of pg taken as a value is refused for the same reason, and an interface with the shape of pg's methods is looked through.
//
// .sql files are held to the same rules: db/orders/*.sql (read when package db is analysed, and by the whole-program run) and
// any .sql file beside a module's Go files. A waiver there is a comment: -- shop:allow crossschema until=… owner=@… reason.
//
// A module without db/<module> has no schema and may hold no SQL; nor may contracts and programs. The tests of a program may:
// they look at the whole shop as superuser of a database of their own, which no role of a module could.
//
// Bad:
//
//	tx.Exec(ctx, `UPDATE catalog.stock SET n = n - $1`, n)
//	db.Select(ctx, &os, "SELECT id FROM orders.orders ORDER BY " + sort)
//
// Good:
//
//	m.Catalog.Reserve(ctx, …)
//	const byTime = `SELECT id FROM orders.orders ORDER BY placed_at`
package crossschema
