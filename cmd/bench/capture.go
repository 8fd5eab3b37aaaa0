package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// statement is one that the shop sent, as its PostgreSQL logged it.
type statement struct {
	session string
	text    string
	values  []value
	simple  bool // without parameters, by the simple protocol: BEGIN, COMMIT
}

type value struct {
	null bool
	text string
}

// transaction is what became true together: one statement, or all from BEGIN to COMMIT without these two.
type transaction struct {
	explicit bool
	inner    []statement
}

// sample is what one go at a path made the shop ask of its database.
type sample []transaction

// recorder reads the statements of a shop from its PostgreSQL's log.
type recorder struct {
	file       string
	background map[string]bool // what the shop asks by itself while nobody wants anything
}

// logStatements makes PostgreSQL log every statement with its values, for sessions that begin from now on.
func (s *shop) logStatements(ctx context.Context, on bool) error {
	statements := []string{
		`ALTER DATABASE shop SET log_statement = 'all'`,
		`ALTER DATABASE shop SET log_parameter_max_length = -1`,
		`ALTER SYSTEM SET log_line_prefix = '@@%p@%u@ '`,
	}
	if !on {
		statements = []string{`ALTER DATABASE shop RESET log_statement`, `ALTER DATABASE shop RESET log_parameter_max_length`, `ALTER SYSTEM RESET log_line_prefix`}
	}
	for _, statement := range append(statements, `SELECT pg_reload_conf()`) {
		if _, err := s.db().exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// listen learns what goes on without any request.
func listen(ctx context.Context, file string) (*recorder, error) {
	r := &recorder{file: file, background: map[string]bool{}}
	all, err := r.record(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(3 * time.Second):
			return nil
		}
	})
	for _, t := range all {
		for _, s := range t.inner {
			r.background[s.text] = true
		}
	}
	return r, err
}

// record returns what was asked of the database while do ran, but for what is always asked.
func (r *recorder) record(do func() error) (sample, error) {
	before, err := os.Stat(r.file)
	if err != nil {
		return nil, err
	}
	if err := do(); err != nil {
		return nil, err
	}
	f, err := os.Open(r.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Seek(before.Size(), io.SeekStart); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(transactionsOf(statementsOf(text)), func(t transaction) bool {
		return !slices.ContainsFunc(t.inner, func(s statement) bool { return !r.background[s.text] })
	}), nil
}

var (
	// Only of the modules' roles: what this program asks is none of the path's.
	recordLine = regexp.MustCompile(`^@@(\d+)@shop_\w+@ (LOG|DETAIL):  (?s)(.*)$`)
	statedLine = regexp.MustCompile(`^(statement|execute [^:]+): (?s)(.*)$`)
)

// statementsOf reads PostgreSQL's log: a line that goes on begins with a tab.
func statementsOf(log []byte) (all []statement) {
	var records []string
	for line := range bytes.Lines(log) {
		text := string(line)
		if strings.HasPrefix(text, "@@") || len(records) == 0 {
			records = append(records, text)
		} else {
			records[len(records)-1] += strings.TrimPrefix(text, "\t")
		}
	}
	last := map[string]int{} // of each session
	for _, record := range records {
		m := recordLine.FindStringSubmatch(strings.TrimSuffix(record, "\n"))
		if m == nil {
			continue
		}
		session, kind, text := m[1], m[2], m[3]
		if kind == "DETAIL" {
			if _, list, ok := strings.Cut(text, "arameters: "); ok {
				if at, ok := last[session]; ok {
					all[at].values = valuesOf(list)
				}
			}
			continue
		}
		if m := statedLine.FindStringSubmatch(text); m != nil {
			last[session] = len(all)
			all = append(all, statement{session: session, text: strings.TrimSpace(m[2]), simple: m[1] == "statement"})
		}
	}
	return all
}

// valuesOf reads $1 = 'it”s', $2 = NULL.
func valuesOf(list string) (values []value) {
	for list != "" {
		_, rest, ok := strings.Cut(list, " = ")
		if !ok {
			return values
		}
		if after, null := strings.CutPrefix(rest, "NULL"); null {
			values = append(values, value{null: true})
			list = after
			continue
		}
		var text strings.Builder
		i := 1
		for ; i < len(rest); i++ {
			if rest[i] == '\'' {
				if i+1 >= len(rest) || rest[i+1] != '\'' {
					break
				}
				i++
			}
			text.WriteByte(rest[i])
		}
		values = append(values, value{text: text.String()})
		list = rest[min(i+1, len(rest)):]
	}
	return values
}

// transactionsOf groups statements by session, in the order the transactions began.
func transactionsOf(all []statement) (list sample) {
	open := map[string]int{}
	for _, s := range all {
		word, _, _ := strings.Cut(strings.ToUpper(s.text), " ")
		word, _, _ = strings.Cut(word, ";")
		at, inside := open[s.session]
		switch {
		case s.simple && word == "BEGIN":
			open[s.session] = len(list)
			list = append(list, transaction{explicit: true})
		case s.simple && (word == "COMMIT" || word == "ROLLBACK"):
			delete(open, s.session)
			if word == "ROLLBACK" && inside {
				list[at].inner = nil // it left nothing behind
			}
		case inside:
			list[at].inner = append(list[at].inner, s)
		default:
			list = append(list, transaction{inner: []statement{s}})
		}
	}
	return slices.DeleteFunc(list, func(t transaction) bool { return len(t.inner) == 0 })
}

// shape tells samples apart that did not ask the same: a cache that was empty, an event that came late. Order does not matter,
// since handlers of events run beside each other.
func (s sample) shape() string {
	var all []string
	for _, t := range s {
		text := fmt.Sprint(t.explicit)
		for _, i := range t.inner {
			text += "\x00" + i.text
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, "\x01")
}

func (s sample) statements() (n int) {
	for _, t := range s {
		n += len(t.inner)
		if t.explicit {
			n += 2
		}
	}
	return n
}

// usual are the samples of the most frequent shape.
func usual(all []sample) []sample {
	by := map[string][]sample{}
	best := ""
	for _, s := range all {
		shape := s.shape()
		by[shape] = append(by[shape], s)
		if len(by[shape]) > len(by[best]) {
			best = shape
		}
	}
	return by[best]
}

// rows is how many there are in all tables of all modules.
func rows(ctx context.Context, db *database) (n int, err error) {
	err = db.read(ctx, &n, `
		SELECT coalesce(sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM %I.%I', schemaname, tablename),
			false, true, '')))[1]::text::bigint), 0)
		FROM pg_catalog.pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')`)
	return n, err
}

// listenTo records p.replay.samples goes at a path, one after another, and how many rows each leaves behind.
func (s *shop) listenTo(ctx context.Context, r *recorder, p path) (all []sample, left float64, err error) {
	w := newWorker(s.address, 0)
	defer w.close()
	if p.prepare != nil {
		if err := p.prepare(ctx, s.stock, 1); err != nil {
			return nil, 0, err
		}
	}
	do := p.do(s.stock)
	before, err := rows(ctx, s.db())
	if err != nil {
		return nil, 0, err
	}
	for i := -3; i < p.replay.samples && ctx.Err() == nil; i++ {
		w.n = 3 * (i + 3) // a new cart for each
		one, err := r.record(func() error {
			if err := do(w); err != nil || !p.drains {
				return err
			}
			if err := s.drain(ctx); err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond) // the last mark of the relay
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
		if i >= 0 { // the first ones fill caches
			all = append(all, one)
		}
	}
	after, err := rows(ctx, s.db())
	return all, float64(after-before) / float64(len(all)+3), errors.Join(err, ctx.Err())
}
