package sqltext

import (
	"fmt"
	"strings"
)

// Problem is one thing a text may not say.
type Problem struct {
	Offset int
	Text   string
}

// Rules are what a text is held to.
type Rules struct {
	// Schema is the one schema whose tables the text may name, beside pg_catalog.
	Schema string
	// Machinery allows the platform's own tables in that schema (outbox, inbox …): for tests that look what was written.
	Machinery bool
}

// Check reads one or more statements and says what they may not say.
func Check(sql string, r Rules) []Problem {
	c := &checker{rules: r, toks: scan(sql), ctes: map[string]bool{}}
	c.findCTEs()
	c.run()
	return c.problems
}

// machinery are the tables that platform/migrate puts into every schema and only platform code writes.
var machinery = map[string]string{
	"outbox":           "events.Publish",
	"inbox":            "events.On",
	"retry":            "events.On",
	"operations":       "pg.Once",
	"idempotency_keys": "platform/web (web.SaveReply)",
}

// sqlInside are functions that run SQL they get as text, or read relations they get by name: behind them any schema is in reach.
var sqlInside = map[string]bool{
	"query_to_xml": true, "query_to_xmlschema": true, "query_to_xml_and_xmlschema": true, "cursor_to_xml": true,
	"table_to_xml": true, "table_to_xmlschema": true, "table_to_xml_and_xmlschema": true,
	"schema_to_xml": true, "schema_to_xmlschema": true, "schema_to_xml_and_xmlschema": true,
	"database_to_xml": true, "database_to_xmlschema": true, "database_to_xml_and_xmlschema": true,
	"dblink": true, "dblink_exec": true, "dblink_connect": true, "dblink_open": true, "dblink_send_query": true,
	"ts_stat": true, "crosstab": true, "connectby": true,
}

// byName are functions whose first argument is a relation's name in a string.
var byName = map[string]bool{
	"nextval": true, "currval": true, "setval": true, "to_regclass": true, "pg_get_serial_sequence": true, "has_table_privilege": true,
	"pg_relation_size": true, "pg_total_relation_size": true, "pg_table_size": true,
}

// object words follow CREATE, ALTER and DROP and come before a name that stands in a schema.
var objects = map[string]bool{
	"table": true, "view": true, "sequence": true, "type": true, "domain": true, "function": true, "procedure": true,
	"aggregate": true, "routine": true, "statistics": true, "index": true,
}

// ends close a FROM clause: after them a comma no longer brings a table.
var ends = map[string]bool{
	"where": true, "group": true, "having": true, "window": true, "order": true, "limit": true, "offset": true, "fetch": true,
	"for": true, "union": true, "intersect": true, "except": true, "returning": true, "set": true, "select": true, "values": true,
	"when": true,
}

// level is one depth of parentheses.
type level struct {
	from     bool // inside a FROM (or USING) list
	noClause bool // arguments of extract, substring, trim, overlay: their FROM is no clause
}

type checker struct {
	rules    Rules
	toks     []token
	i        int
	ctes     map[string]bool
	problems []Problem
	plpgsql  bool
	base     int // offset of this text in the whole

	head   string // first word of the statement
	object string // second telling word of CREATE, ALTER, DROP …
	temp   bool   // CREATE TEMP TABLE
	onSeen bool
	levels []level
	start  int // index of the statement's first token
}

func (c *checker) at(i int) token {
	if i < 0 || i >= len(c.toks) {
		return token{kind: punct}
	}
	return c.toks[i]
}

func (c *checker) refuse(t token, format string, args ...any) {
	c.problems = append(c.problems, Problem{c.base + t.pos, fmt.Sprintf(format, args...)})
}

// findCTEs notes every name of the form "x AS (" and "x (a, b) AS (" after WITH or a comma. Scopes are not kept apart: a name
// that is a CTE anywhere in the text may stand without a schema everywhere in it.
func (c *checker) findCTEs() {
	for i, t := range c.toks {
		if t.kind != word || !(c.at(i-1).isAny("with", "recursive") || c.at(i-1).punct(",")) {
			continue
		}
		j := i + 1
		if c.at(j).punct("(") {
			j = c.closing(j) + 1
		}
		if !c.at(j).is("as") {
			continue
		}
		j++
		if c.at(j).is("not") {
			j++
		}
		if c.at(j).is("materialized") {
			j++
		}
		if c.at(j).punct("(") && c.at(j+1).isAny("select", "insert", "update", "delete", "merge", "values", "with", "table") {
			c.ctes[t.text] = true
		}
	}
}

// closing is the index of the parenthesis that closes the one at i.
func (c *checker) closing(i int) int {
	depth := 0
	for ; i < len(c.toks); i++ {
		switch {
		case c.toks[i].punct("("):
			depth++
		case c.toks[i].punct(")"):
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(c.toks) - 1
}

func (c *checker) begin() {
	c.head, c.object, c.temp, c.onSeen, c.start = "", "", false, false, c.i
	c.levels = []level{{}}
	if t := c.at(c.i); t.kind == word {
		c.head = t.text
	}
	switch c.head {
	case "create", "alter", "drop", "comment", "reindex", "truncate", "lock", "grant", "revoke":
		for j := c.i + 1; j < len(c.toks) && j < c.i+8; j++ {
			t := c.at(j)
			if t.kind != word || t.punct("(") {
				break
			}
			if t.isAny("temp", "temporary") {
				c.temp = true
			}
			if objects[t.text] || t.isAny("trigger", "policy", "rule", "schema", "extension", "role", "user", "database", "default", "server",
				"publication", "subscription", "tablespace", "cast", "operator", "event", "foreign") {
				c.object = t.text
				break
			}
		}
	}
	switch {
	case c.head == "set" || c.head == "reset":
		c.setStatement()
	case c.head == "discard":
		c.refuse(c.at(c.i), "DISCARD throws away the session that others share")
	case (c.head == "create" || c.head == "alter" || c.head == "drop") &&
		(c.object == "role" || c.object == "user" || c.object == "database" || c.object == "tablespace" || c.object == "server" || c.object == "foreign" ||
			c.object == "subscription" || c.object == "publication" || c.object == "event"):
		c.refuse(c.at(c.i), "%s %s is not for a module: platform/migrate makes roles and databases", strings.ToUpper(c.head), strings.ToUpper(c.object))
	}
}

// setStatement refuses what changes who the session is or where it looks.
func (c *checker) setStatement() {
	j := c.i + 1
	for c.at(j).isAny("local", "session") && !c.at(j+1).is("authorization") {
		j++
	}
	t := c.at(j)
	switch {
	case t.isAny("search_path", "role", "schema"), t.is("all") && c.head == "reset":
		c.refuse(c.at(c.i), "%s %s is refused: tables are written with their schema, and the role is the wall", strings.ToUpper(c.head), strings.ToUpper(t.text))
	case t.is("session") && c.at(j+1).is("authorization"):
		c.refuse(c.at(c.i), "%s SESSION AUTHORIZATION is refused: the role is the wall", strings.ToUpper(c.head))
	}
}

func (c *checker) top() *level { return &c.levels[len(c.levels)-1] }

func (c *checker) ddl() bool {
	return c.head == "create" || c.head == "alter" || c.head == "drop"
}

func (c *checker) run() {
	c.begin()
	for c.i < len(c.toks) {
		t := c.at(c.i)
		prev, next := c.at(c.i-1), c.at(c.i+1)
		if c.i == c.start {
			prev = token{kind: punct, text: ";"}
		}
		c.i++
		switch {
		case t.kind == badText:
			c.refuse(t, "unterminated %s", t.text)
		case t.kind == hidden:
			if strings.Contains(t.text, `"`) {
				c.refuse(t, "a name in Unicode escapes can't be read: write it plainly")
			}
		case t.kind == body:
			c.bodyText(t, prev)
		case t.kind == str:
			if next.punct("::") && strings.HasPrefix(c.at(c.i+1).text, "reg") || prev.is("regclass") {
				c.nameInString(t)
			}
		case t.punct(";"):
			c.begin()
		case t.punct("("):
			l := level{noClause: prev.isAny("extract", "substring", "trim", "overlay", "position") && !next.is("select")}
			if c.top().from && !next.isAny("select", "values", "with") && (prev.punct(",") || prev.punct("(") || prev.isAny("from", "join", "lateral")) {
				l.from = true
				c.levels = append(c.levels, l)
				c.relation("FROM")
				continue
			}
			c.levels = append(c.levels, l)
		case t.punct(")"):
			if len(c.levels) > 1 {
				c.levels = c.levels[:len(c.levels)-1]
			}
		case t.punct(","):
			if c.top().from {
				c.relation("FROM")
			}
		case t.punct("::"):
			c.typeName()
		case t.kind == word:
			c.word(t, prev, next)
		}
	}
}

func (c *checker) word(t, prev, next token) {
	if !t.quoted {
		if ends[t.text] && !(t.text == "set" && c.ddl()) {
			c.top().from = false
		}
		switch t.text {
		case "from":
			if c.top().noClause || prev.is("distinct") && c.at(c.i-3).isAny("is", "not") || c.head == "copy" && len(c.levels) == 1 {
				return
			}
			if c.head == "revoke" && len(c.levels) == 1 {
				return // REVOKE … FROM role
			}
			c.top().from = true
			c.relation("FROM")
			return
		case "join":
			c.top().from = true
			c.relation("JOIN")
			return
		case "using":
			if (c.head == "delete" || c.head == "merge" || c.head == "with") && !next.punct("(") || next.punct("(") && c.at(c.i+1).isAny("select", "values", "with") {
				c.top().from = true
				c.relation("USING")
			}
			return
		case "into":
			if prev.isAny("insert", "merge") {
				c.relation("INTO")
			} else if !c.plpgsql {
				c.relation("SELECT INTO")
			}
			return
		case "update":
			if prev.isAny("do", "for", "key", "on", "after", "before", "or", "grant", "revoke", "instead") || prev.punct(",") && c.head != "with" ||
				next.isAny("set", "on", "of") || c.head == "grant" || c.head == "revoke" || c.head == "create" && c.object == "policy" {
				return
			}
			c.relation("UPDATE")
			return
		case "references":
			if c.head == "grant" || c.head == "revoke" || next.punct(",") || next.is("on") {
				return
			}
			c.references()
			return
		case "like":
			if c.head == "create" && c.object == "table" && (prev.punct("(") || prev.punct(",")) && next.kind == word {
				c.relation("LIKE")
				return
			}
		case "inherits":
			if next.punct("(") {
				c.i++
				c.levels = append(c.levels, level{from: true})
				c.relation("INHERITS")
			}
			return
		case "of":
			if prev.is("partition") {
				c.relation("PARTITION OF")
				return
			}
		case "partition":
			if prev.isAny("attach", "detach") {
				c.relation("PARTITION")
				return
			}
		case "schema":
			if c.ddl() || c.head == "grant" || c.head == "revoke" || c.head == "comment" || prev.is("in") {
				c.schemaWord()
				return
			}
		case "begin", "then", "else", "loop":
			if c.plpgsql && len(c.levels) == 1 {
				c.begin()
				return
			}
		case "on":
			if c.onObject() {
				return
			}
		case "truncate", "lock", "reindex":
			if prev.punct(";") && !next.isAny("table", "index", "in", "schema", "database", "system", "concurrently") && !next.punct("(") {
				c.list(strings.ToUpper(t.text))
				return
			}
		case "copy":
			if prev.punct(";") && !next.punct("(") {
				c.relation("COPY")
				return
			}
		case "table":
			if prev.is("returns") || prev.is("foreign") {
				return
			}
			if prev.is("alter") && next.is("all") {
				return
			}
			if c.temp && len(c.levels) == 1 && c.head == "create" {
				c.createdTemp()
				return
			}
			c.list("TABLE")
			return
		case "execute":
			if c.plpgsql && !next.isAny("function", "procedure", "on") {
				c.refuse(t, "EXECUTE runs SQL that is not constant: write the statement out")
			}
			return
		case "set_config":
			if next.punct("(") {
				a := c.at(c.i + 1)
				if a.kind != str || strings.EqualFold(a.text, "search_path") || strings.EqualFold(a.text, "role") || strings.EqualFold(a.text, "session_authorization") {
					c.refuse(t, "set_config of search_path or role is refused: tables are written with their schema, and the role is the wall")
				}
			}
			return
		}
		if objects[t.text] && c.ddl() && len(c.levels) == 1 && c.object == t.text && c.i-c.start <= 8 {
			c.object = c.object + " done"
			if t.text == "index" && c.head == "create" {
				return // an index's name has no schema; its table is behind ON
			}
			c.list(strings.ToUpper(t.text))
			return
		}
	}
	if prev.punct(".") {
		return
	}
	c.name(t, next)
}

// name looks at a name that stands neither in a relation's nor a keyword's place.
func (c *checker) name(t, next token) {
	if next.punct("(") {
		c.call(t, "")
		return
	}
	if !next.punct(".") {
		return
	}
	second := c.at(c.i + 1)
	third := c.at(c.i + 2)
	if second.kind != word {
		return
	}
	switch {
	case third.punct("("):
		c.i += 2
		c.call(second, t.text)
	case third.punct("."):
		if !c.ours(t.text) {
			c.foreign(t, t.text, second.text)
		}
	case c.ddl() && !c.known(t.text) && !c.inQuery():
		c.foreign(t, t.text, second.text)
	}
}

// inQuery says whether the statement has a query inside (a view, a policy), where alias.column is no schema.
func (c *checker) inQuery() bool {
	switch strings.TrimSuffix(c.object, " done") {
	case "table", "type", "domain", "sequence", "index":
		for j := c.start; j < c.i; j++ {
			if c.at(j).isAny("select", "check", "using", "where") {
				return true
			}
		}
		return false
	}
	return true
}

// call looks at a function call; c.i stands at its parenthesis.
func (c *checker) call(name token, schema string) {
	first := c.at(c.i + 1)
	switch {
	case sqlInside[name.text]:
		c.refuse(name, "%s runs SQL it gets as text or by name: write the statement out", name.text)
	case schema != "" && schema != c.rules.Schema && schema != "pg_catalog" && schema != "public":
		c.foreign(name, schema, name.text+"()")
	case byName[name.text] && first.kind == str:
		c.nameInString(first)
	}
}

// nameInString checks 'orders.seq' in nextval('orders.seq') and 'orders.orders'::regclass.
func (c *checker) nameInString(t token) {
	sub := scan(t.text)
	switch {
	case len(sub) == 3 && sub[0].kind == word && sub[1].punct("."):
		if !c.known(sub[0].text) {
			c.foreign(t, sub[0].text, sub[2].text)
		}
	case len(sub) == 1 && sub[0].kind == word:
		c.refuse(t, "%s stands without its schema: write %s.%s", sub[0].text, c.own(), sub[0].text)
	}
}

func (c *checker) typeName() {
	t := c.at(c.i)
	if t.kind == word && c.at(c.i+1).punct(".") && c.at(c.i+2).kind == word {
		if !c.known(t.text) {
			c.foreign(t, t.text, c.at(c.i+2).text)
		}
		c.i += 3
	}
}

func (c *checker) ours(schema string) bool {
	return schema == "pg_catalog" || c.rules.Schema != "" && schema == c.rules.Schema
}

// known are the schemas whose types and functions may be named: public holds extensions.
func (c *checker) known(schema string) bool { return c.ours(schema) || schema == "public" }

func (c *checker) own() string {
	if c.rules.Schema == "" {
		return "<schema>"
	}
	return c.rules.Schema
}

func (c *checker) foreign(t token, schema, name string) {
	if c.rules.Schema == "" {
		c.refuse(t, "SQL names %s.%s, but there is no db folder for this module, so it has no schema", schema, name)
		return
	}
	if schema == "information_schema" {
		c.refuse(t, "SQL names information_schema.%s: use pg_catalog, or better, what you know", name)
		return
	}
	if schema == "public" {
		c.refuse(t, "SQL names table public.%s: public holds extensions only; a module's tables live in schema %s", name, c.rules.Schema)
		return
	}
	c.refuse(t, "SQL of %s names %s.%s: ask module %s through api/%sapi, or hear its events", c.rules.Schema, schema, name, schema, schema)
}

// relation reads the name that must be a relation here: c.i stands behind the keyword.
func (c *checker) relation(where string) {
	for c.at(c.i).isAny("only", "lateral", "table") || c.at(c.i).is("if") && c.at(c.i+1).isAny("exists", "not") || c.at(c.i).isAny("exists", "not", "concurrently") {
		if c.at(c.i).is("lateral") && c.at(c.i+1).punct("(") {
			c.i++
			return
		}
		c.i++
	}
	t := c.at(c.i)
	if t.is("rows") && c.at(c.i+1).is("from") {
		c.i += 2
		return
	}
	if t.kind != word || !t.quoted && (t.text == "select" || t.text == "values" || t.text == "with") {
		return // a subquery, or nothing we know
	}
	c.i++
	if !c.at(c.i).punct(".") {
		if c.at(c.i).punct("(") && (where == "FROM" || where == "JOIN" || where == "USING") {
			c.call(t, "")
			return // a function such as unnest(…)
		}
		if c.ctes[t.text] || c.plpgsql && (t.text == "new" || t.text == "old") {
			return
		}
		c.refuse(t, "table %s stands without its schema after %s: write %s.%s", t.text, where, c.own(), t.text)
		return
	}
	second := c.at(c.i + 1)
	if second.kind != word {
		return
	}
	c.i += 2
	if c.at(c.i).punct("(") && (where == "FROM" || where == "JOIN" || where == "USING") {
		c.call(second, t.text)
		return
	}
	if c.at(c.i).punct(".") && c.at(c.i+1).kind == word { // database.schema.table
		c.refuse(t, "name %s.%s without a database before it", second.text, c.at(c.i+1).text)
		c.i += 2
		return
	}
	if (where == "FUNCTION" || where == "TYPE" || where == "PROCEDURE") && t.text == "public" {
		c.refuse(t, "%s makes %s in public: a module's %s lives in schema %s", strings.ToUpper(c.head), second.text, strings.ToLower(where), c.own())
		return
	}
	if !c.ours(t.text) {
		c.foreign(t, t.text, second.text)
		return
	}
	if how, ok := machinery[second.text]; ok && t.text == c.rules.Schema && !c.rules.Machinery {
		c.refuse(t, "%s.%s belongs to the platform: it is written through %s", t.text, second.text, how)
	}
}

// list reads one or more relations: DROP TABLE a.x, a.y.
func (c *checker) list(where string) {
	c.relation(where)
	for c.at(c.i).punct(",") && (c.head == "drop" || c.head == "truncate" || c.head == "lock" || c.head == "grant" || c.head == "revoke") && len(c.levels) == 1 {
		c.i++
		c.relation(where)
	}
}

func (c *checker) references() {
	t := c.at(c.i)
	if t.kind == word && c.at(c.i+1).punct(".") && c.at(c.i+2).kind == word && !c.ours(t.text) {
		c.refuse(t, "a foreign key of %s points at %s.%s: keep the id as a plain column and hear the owner's events", c.own(), t.text, c.at(c.i+2).text)
		c.i += 3
		return
	}
	c.relation("REFERENCES")
}

// createdTemp lets a temporary table stand without a schema, here and in the rest of the text.
func (c *checker) createdTemp() {
	for c.at(c.i).isAny("if", "not", "exists") {
		c.i++
	}
	if t := c.at(c.i); t.kind == word && !c.at(c.i+1).punct(".") {
		c.ctes[t.text] = true
		c.i++
		return
	}
	c.relation("TABLE")
}

// schemaWord checks the name behind SCHEMA: CREATE SCHEMA x, ON SCHEMA x, IN SCHEMA x, SET SCHEMA x.
func (c *checker) schemaWord() {
	for c.at(c.i).isAny("if", "not", "exists") {
		c.i++
	}
	for {
		t := c.at(c.i)
		if t.kind != word || t.is("authorization") {
			return
		}
		c.i++
		if t.text != c.rules.Schema && !(t.text == "public" && c.head == "create" && c.object == "extension") {
			c.refuse(t, "SQL of %s names schema %s: a module has one schema, of its own name", c.own(), t.text)
		}
		if !c.at(c.i).punct(",") {
			return
		}
		c.i++
	}
}

// onObject handles the ON that names a relation: CREATE INDEX … ON x, CREATE TRIGGER … ON x, GRANT … ON x, COMMENT ON TABLE x.
func (c *checker) onObject() bool {
	if c.onSeen || len(c.levels) != 1 {
		return false
	}
	first := c.at(c.i)
	switch {
	case (c.head == "create" || c.head == "alter" || c.head == "drop") && (strings.HasPrefix(c.object, "index") || c.object == "trigger" || c.object == "policy" || c.object == "rule" || c.object == "statistics done"):
		if c.object == "rule" {
			return false // CREATE RULE … AS ON event TO table: not used, its body is checked as any
		}
	case c.head == "grant" || c.head == "revoke":
		if first.isAny("schema", "all", "database", "language", "type", "large", "tablespace", "parameter", "domain", "foreign", "routine", "procedure") {
			c.onSeen = true
			return true
		}
		if first.isAny("table", "sequence", "function") {
			c.i++
		}
		c.onSeen = true
		c.list("ON")
		return true
	case c.head == "comment":
		c.onSeen = true
		if objects[first.text] {
			c.i++
			c.relation(strings.ToUpper(first.text))
			return true
		}
		if first.is("column") {
			c.i++
			if s := c.at(c.i); s.kind == word && !c.ours(s.text) && c.at(c.i+1).punct(".") {
				c.foreign(s, s.text, c.at(c.i+2).text)
			}
			for c.at(c.i).kind == word || c.at(c.i).punct(".") {
				if c.at(c.i).is("is") {
					break
				}
				c.i++
			}
			return true
		}
		return !first.is("schema")
	default:
		return false
	}
	c.onSeen = true
	c.relation("ON")
	return true
}

// bodyText checks SQL in dollar quotes: the body of a function or of DO. Other dollar-quoted strings are data.
func (c *checker) bodyText(t, prev token) {
	if !(prev.is("as") && c.head == "create" || c.head == "do") {
		return
	}
	inner := &checker{rules: c.rules, toks: scan(t.text), ctes: map[string]bool{}, plpgsql: true, base: c.base + t.pos}
	// A declared record or table variable is no relation in FROM's place, so only CTEs count here.
	inner.findCTEs()
	inner.run()
	c.problems = append(c.problems, inner.problems...)
}
