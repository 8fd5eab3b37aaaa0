package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// script is a path's statements as pgbench runs them.
type script struct {
	Path         string   `json:"path"`
	Statements   int      `json:"statements"`
	Transactions int      `json:"transactions"` // with what writes
	Rows         float64  `json:"rows"`         // left behind by one run
	RowsOfShop   float64  `json:"rows_of_shop"` // by one operation of the shop; equal, or it is no limit
	Notes        []string `json:"notes,omitempty"`

	sets  []set
	steps []step
	file  string
}

// set is a variable that pgbench draws anew for each run of the script.
type set struct {
	name      string
	low, high int64
	own       bool // each client draws from a part of its own, of four
}

// step is one statement; its text names variables as :name.
type step struct {
	text   string
	origin string
	writes bool
}

// scripter turns samples into scripts.
type scripter struct {
	db    *database
	stock *stock
	known map[string]bool // words of the catalogue, which are no ids made in the flow
	types map[string][]string
}

func newScripter(db *database, s *stock) *scripter {
	c := &scripter{db: db, stock: s, known: map[string]bool{}, types: map[string][]string{}}
	for _, p := range s.products {
		c.known[p.ID], c.known[p.Slug] = true, true
	}
	for _, v := range s.skus {
		c.known[v.sku], c.known[v.product] = true, true
	}
	return c
}

// typesOf asks the server of what type each parameter of a statement is.
func (c *scripter) typesOf(ctx context.Context, text string) ([]string, error) {
	if t, ok := c.types[text]; ok {
		return t, nil
	}
	if _, err := c.db.exec(ctx, `PREPARE banyan_bench AS `+text); err != nil {
		return nil, err
	}
	var list string
	err := c.db.read(ctx, &list, `SELECT array_to_string(parameter_types, ',') FROM pg_prepared_statements WHERE name = 'banyan_bench'`)
	if _, e := c.db.exec(ctx, `DEALLOCATE banyan_bench`); err == nil {
		err = e
	}
	var types []string
	if list != "" {
		types = strings.Split(list, ",")
	}
	c.types[text] = types
	return types, err
}

const (
	copiedCarts = 20000 // for a path that needs carts beforehand
	drawnSKUs   = 128   // of one article of a checkout: four of each of 32 clients, so that none waits for another's stock
	low, high   = 1_000_000_000, 9_999_999_999
)

var (
	wordText   = regexp.MustCompile(`[A-Za-z0-9_-]+`)
	letter     = regexp.MustCompile(`[A-Za-z]`)
	parameter  = regexp.MustCompile(`\$(\d+)`)
	claimLimit = regexp.MustCompile(`LIMIT \$(\d+)(?:::\w+)? FOR UPDATE SKIP LOCKED`)
)

// make turns the samples of one path into a script.
func (c *scripter) make(ctx context.Context, p path, samples []sample) (*script, error) {
	all := usual(samples)
	if len(all) == 0 || all[0].statements() == 0 {
		return nil, errors.New("the shop asked its database nothing")
	}
	s := &script{Path: p.name}
	if len(all) < len(samples) {
		s.note("%d of %d samples asked other things (caches, order of events) and are left out", len(samples)-len(all), len(samples))
	}
	if !p.replay.aligned {
		// Handlers run beside each other, so that statements stand at the same place only by chance.
		all = all[:min(len(all), 6)]
	}
	model := all[0]
	fill, err := c.filler(ctx, p, s, all)
	if err != nil {
		return nil, err
	}
	n := 0
	for i, t := range model {
		if t.explicit {
			s.steps = append(s.steps, step{text: "BEGIN"})
		}
		for j, st := range t.inner {
			n++
			if strings.Contains(st.text, "pg_advisory_xact_lock") {
				s.note("left out: the relay's lock, which would make every client wait for every other: %.60s…", st.text)
				continue
			}
			types, err := c.typesOf(ctx, st.text)
			if err != nil {
				s.note("can't be replayed and is left out: %.120s…: %v", flat(st.text), err)
				continue
			}
			values := st.values
			if m := claimLimit.FindStringSubmatch(st.text); m != nil {
				// A claim takes what there is: of a replay, as much as one go leaves.
				at, _ := strconv.Atoi(m[1])
				values = slices.Clone(values)
				values[at-1].text = "1"
			}
			text := parameter.ReplaceAllStringFunc(st.text, func(name string) string {
				at, _ := strconv.Atoi(name[1:])
				if at > len(values) || at > len(types) {
					return name
				}
				return fill(i, j, at-1, values[at-1], types[at-1])
			})
			s.steps = append(s.steps, step{text: text, origin: flat(st.text), writes: t.explicit})
		}
		if t.explicit {
			s.steps = append(s.steps, step{text: "COMMIT"})
			s.Transactions++
		}
	}
	return s, c.rehearse(ctx, s)
}

func (s *script) note(format string, args ...any) {
	if n := fmt.Sprintf(format, args...); !slices.Contains(s.Notes, n) {
		s.Notes = append(s.Notes, n)
	}
}

func (s *script) draw(v set) string {
	if !slices.ContainsFunc(s.sets, func(other set) bool { return other.name == v.name }) {
		s.sets = append(s.sets, v)
	}
	return ":" + v.name
}

// filler is what stands in place of a parameter: its value, or an expression of variables where a value must not repeat or
// should vary as it does for the shop.
func (c *scripter) filler(ctx context.Context, p path, s *script, all []sample) (func(i, j, at int, v value, kind string) string, error) {
	writes := slices.ContainsFunc(all[0], func(t transaction) bool { return t.explicit })
	words := func(one sample, keep func(string)) {
		for _, t := range one {
			for _, st := range t.inner {
				for _, v := range st.values {
					for _, w := range wordText.FindAllString(v.text, -1) {
						keep(w)
					}
				}
			}
		}
	}
	// What no other sample has was made in this one.
	elsewhere := map[string]bool{}
	for _, one := range all[1:] {
		words(one, func(w string) { elsewhere[w] = true })
	}
	replaced := map[string]string{} // a word, to the SQL that stands for it
	prefixes := map[string]string{}
	drawn := map[string]int{} // product, to the number of its variable
	copied := ""
	words(all[0], func(w string) {
		switch {
		case replaced[w] != "":
		case p.replay.carts && strings.HasPrefix(w, "crt_"):
			if copied == "" {
				copied = w
			}
			if w == copied {
				replaced[w] = literal("crt_bench_") + "||" + s.draw(set{name: "cart", low: low, high: low + copiedCarts - 1})
			}
		case p.replay.products && c.known[w]:
			at := slices.IndexFunc(c.stock.skus, func(v sku) bool { return v.sku == w || v.product == w })
			if at < 0 {
				return
			}
			n, ok := drawn[c.stock.skus[at].product]
			if !ok {
				n = len(drawn)
				drawn[c.stock.skus[at].product] = n
			}
			var list []string
			for _, v := range c.stock.skus[:min(drawnSKUs, len(c.stock.skus))] {
				if c.stock.skus[at].sku == w {
					list = append(list, v.sku)
				} else {
					list = append(list, v.product)
				}
			}
			replaced[w] = "(" + literal(arrayOf(list)) + "::text[])[" + s.draw(set{name: "article" + strconv.Itoa(n), low: 1, high: int64(len(list)), own: true}) + "]"
		case writes && len(w) >= 8 && letter.MatchString(w) && !elsewhere[w] && !c.known[w] && len(all) > 1:
			prefix := w[:max(len(w)-10, min(2, len(w)))]
			name := "fresh"
			for n := 2; prefixes[name+prefix] != ""; n++ {
				name = "fresh" + strconv.Itoa(n)
			}
			prefixes[name+prefix] = w
			replaced[w] = literal(prefix) + "||" + s.draw(set{name: name, low: low, high: high}) + "::text"
		}
	})
	if copied != "" {
		if err := c.copyCarts(ctx, copied); err != nil {
			return nil, err
		}
	}
	return func(i, j, at int, v value, kind string) string {
		if v.null {
			return "NULL::" + kind
		}
		if copied != "" && kind == "bytea" { // the copies keep their token
			return literal(v.text) + "::" + kind
		}
		var parts []string
		rest := 0
		for _, m := range wordText.FindAllStringIndex(v.text, -1) {
			sql := replaced[v.text[m[0]:m[1]]]
			if sql == "" {
				continue
			}
			if m[0] > rest {
				parts = append(parts, literal(v.text[rest:m[0]]))
			}
			parts = append(parts, sql)
			rest = m[1]
		}
		if len(parts) > 0 {
			if rest < len(v.text) {
				parts = append(parts, literal(v.text[rest:]))
			}
			return "(" + strings.Join(parts, "||") + ")::" + kind
		}
		if !p.replay.aligned {
			return literal(v.text) + "::" + kind
		}
		list, differ := []string{}, false
		for _, one := range all {
			other := one[i].inner[j].values[at]
			differ = differ || other != v
			list = append(list, other.text)
		}
		if !differ {
			return literal(v.text) + "::" + kind
		}
		k := s.draw(set{name: "k", low: 1, high: int64(len(all))})
		if strings.HasSuffix(kind, "[]") {
			return "((" + literal(arrayOf(list)) + "::text[])[" + k + "])::" + kind
		}
		return "((" + literal(arrayOf(list)) + "::" + kind + "[])[" + k + "])"
	}, nil
}

// copyCarts makes copies of a cart whose ids a script can draw.
func (c *scripter) copyCarts(ctx context.Context, id string) error {
	_, err := c.db.exec(ctx, fmt.Sprintf(`
		INSERT INTO cart.carts SELECT (jsonb_populate_record(c, jsonb_build_object('id', 'crt_bench_' || n, 'version', 1))).*
		FROM cart.carts c, generate_series(%d::bigint, %d::bigint) n WHERE c.id = %s
		ON CONFLICT DO NOTHING`, low, low+copiedCarts-1, literal(id)))
	if err != nil {
		return fmt.Errorf("copy carts: %w", err)
	}
	return nil
}

// rehearse runs the script twice and leaves out, with a note, what the server refuses. What repeats itself shows the second time.
func (c *scripter) rehearse(ctx context.Context, s *script) error {
	for again := 0; again < 20; again++ {
		bad, idle := -1, []string{}
		before, err := rows(ctx, c.db)
		if err != nil {
			return err
		}
		for round := range int64(2) {
			for i, st := range s.steps {
				text := st.text
				for n, v := range s.sets {
					drawn := v.low + (round*7919+int64(again)*104729+int64(n))%(v.high-v.low+1)
					text = regexp.MustCompile(`:`+v.name+`\b`).ReplaceAllString(text, strconv.FormatInt(drawn, 10))
				}
				n, err := c.db.exec(ctx, text)
				if err != nil {
					if st.origin == "" {
						return fmt.Errorf("rehearse %s: %s: %w", s.Path, st.text, err)
					}
					s.note("can't be replayed and is left out: %.160s…: %v", st.origin, err)
					bad = i
					break
				}
				if st.writes && n == 0 {
					idle = append(idle, fmt.Sprintf("%.100s…", st.origin))
				}
			}
			if bad >= 0 {
				break
			}
		}
		if bad < 0 {
			slices.Sort(idle)
			for _, text := range slices.Compact(idle) {
				s.note("finds no row in the replay, perhaps as in the shop: %s", text)
			}
			after, err := rows(ctx, c.db)
			s.Statements, s.Rows = len(s.steps), float64(after-before)/2
			return err
		}
		if _, err := c.db.exec(ctx, `ROLLBACK`); err != nil {
			return err
		}
		s.steps = slices.Delete(s.steps, bad, bad+1)
	}
	return fmt.Errorf("the statements of %s can't be replayed: %s", s.Path, strings.Join(s.Notes, "; "))
}

func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// literal is an SQL string without a colon, behind which pgbench would look for a variable.
func literal(text string) string {
	return "E'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`, ":", `\x3a`, "\n", `\n`, "\r", `\r`).Replace(text) + "'"
}

func arrayOf(list []string) string {
	quoted := make([]string, len(list))
	for i, v := range list {
		quoted[i] = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
	}
	return "{" + strings.Join(quoted, ",") + "}"
}

// write stores the script where pgbench reads it.
func (s *script) write(dir string) error {
	var b strings.Builder
	for _, v := range s.sets {
		if v.own {
			fmt.Fprintf(&b, "\\set %s %d + (:client_id * 4 + random(0, 3)) %% %d\n", v.name, v.low, v.high-v.low+1)
			continue
		}
		fmt.Fprintf(&b, "\\set %s random(%d, %d)\n", v.name, v.low, v.high)
	}
	for _, st := range s.steps {
		b.WriteString(st.text + "\n;\n")
	}
	s.file = filepath.Join(dir, s.Path+".sql")
	return os.WriteFile(s.file, []byte(b.String()), 0o644)
}

// pgbench is the program, beside the server's others or on the path; "" where it is missing.
func pgbench() string {
	if p, err := exec.LookPath("pgbench"); err == nil {
		return p
	}
	var found []string
	for _, pattern := range []string{
		os.Getenv("SHOP_PG_BIN"), "/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/lib/postgresql*/bin", "/opt/homebrew/opt/postgresql*/bin",
		"/usr/local/opt/postgresql*/bin", "/Applications/Postgres.app/Contents/Versions/*/bin", "/usr/local/pgsql/bin",
	} {
		m, _ := filepath.Glob(filepath.Join(pattern, "pgbench"))
		found = append(found, m...)
	}
	if len(found) == 0 {
		return ""
	}
	return slices.Max(found)
}

var (
	progressText = regexp.MustCompile(`(?m)^progress: ([0-9.]+) s, ([0-9.]+) tps`)
	countText    = regexp.MustCompile(`number of transactions actually processed: (\d+)`)
	failedText   = regexp.MustCompile(`number of failed transactions: [1-9]`)
)

// run is how often a second pgbench gets through the script, beside a shop that is halted. The first seconds, in which it
// prepares the statements, do not count. cpu is PostgreSQL's, in milliseconds for one run of the script.
func (s *script) run(ctx context.Context, sh *shop, program string, clients int, warm, measure time.Duration) (rate, cpu float64, err error) {
	if err := sh.freeze(ctx); err != nil {
		return 0, 0, err
	}
	defer sh.resume()
	skip, all := max(1, int(warm.Seconds())), max(1, int(measure.Seconds()))
	if len(s.steps) > 20 {
		skip = max(skip, 4) // many statements, that each of many sessions prepares
	}
	args := []string{"-n", "-M", "prepared", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(2, clients)), "-P", "1",
		"-T", strconv.Itoa(skip + all), "-f", s.file, sh.server.URL("shop")}
	before := sh.cpu()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	used := sh.cpu().since(before)
	sum, n := 0.0, 0
	for _, m := range progressText.FindAllSubmatch(out, -1) {
		at, _ := strconv.ParseFloat(string(m[1]), 64)
		tps, _ := strconv.ParseFloat(string(m[2]), 64)
		if at > float64(skip)+0.5 {
			sum += tps
			n++
		}
	}
	if err != nil || n == 0 || failedText.Match(out) {
		return 0, 0, fmt.Errorf("pgbench of %s with %d clients: %w\n%.3000s", s.Path, clients, err, out)
	}
	if m := countText.FindSubmatch(out); m != nil {
		count, _ := strconv.ParseFloat(string(m[1]), 64)
		cpu = float64(used.postgres.Microseconds()) / 1000 / max(1, count)
	}
	return sum / float64(n), cpu, nil
}
