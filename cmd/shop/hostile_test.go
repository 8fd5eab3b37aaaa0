package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// hostile are texts of the kinds that tools try: each is well-formed, and may be taken as what it is, a text.
var hostile = []string{
	`kestrel' OR '1'='1`,
	`kestrel"; DROP TABLE users.users; --`,
	`kestrel' UNION SELECT email, hash FROM users.users --`,
	`kestrel'; SELECT pg_sleep(20); --`,
	`kestrel%' AND 1=(SELECT 1 FROM pg_sleep(20)) AND '%'='`,
	`kestrel\'; COPY users.users TO '/tmp/x'; --`,
	`kestrel $1 $$ :name ? %s %n {{7*7}} ${jndi:ldap://x}`,
	`<script>kestrel</script>&amp;<!--`,
	"kestrel\r\nSet-Cookie: a=b\r\n\r\n",
	"kestrel\u202e\ufeff\U0001F333\u0300\u0001",
}

// TestHostileStrings puts hostile texts into every text of every body, query and token. Whatever the shop makes of them, it
// does not fail, stall, or tell of its inside, and its tables are still there.
func TestHostileStrings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, map[string]string{"users.login_delays": "false"})
	byID := w.known()
	tables := len(w.sum())
	calls := 0
	for _, rt := range w.doc.routes {
		r := byID[rt.ID]
		t.Run(rt.ID, func(t *testing.T) {
			w.t = t
			e := w.fresh("owner")
			f := face{world: w, row: r, RouteInfo: rt, mine: e}
			fresh := func() call {
				if r.spends {
					f.mine = w.fresh("owner")
				}
				return f.keyed(w.rightly(r, rt.Permission, f.mine, r.make(w, f.mine)))
			}
			f.base = fresh()
			try := func(texts []string, put func(c call, text string) call) {
				c := fresh()
				for _, text := range texts {
					w.survives(put(f.keyed(c), text))
					calls++
				}
			}
			texts := hostile
			if r.spends || rt.ID == "register" || rt.ID == "login" { // slow ones
				texts = hostile[:4]
			}
			for _, path := range f.texts() {
				try(texts, func(c call, text string) call { return c.saying(replaced(t, c.body, path, text)) })
			}
			for _, path := range f.numbers() {
				for _, n := range []json.Number{"9223372036854775807", "-9223372036854775808", "-1", "0"} {
					w.survives(f.keyed(fresh().saying(replaced(t, f.base.body, path, n))))
					calls++
				}
			}
			for _, p := range f.doc.Paths[f.Path][strings.ToLower(f.Method)].Parameters {
				switch p.In {
				case "query":
					try(hostile, func(c call, text string) call { return c.asking(url.QueryEscape(p.Name) + "=" + url.QueryEscape(text)) })
				case "header":
					try(hostile[:8], func(c call, text string) call { return c.with(p.Name, text) })
				}
			}
			if r.leaves {
				w.tokens["owner"] = w.login("owner")
			}
		})
		w.t = t
	}
	// More money than there is.
	dear := strings.Replace(w.newProduct(), "1200", "9223372036854775807", 1)
	sku := w.must(w.send(call{method: "POST", target: "/v1/admin/products", token: w.tokens["admin"], body: dear}), 201).text("variants.0.sku")
	e := w.fresh("owner")
	w.refused(bad{"two of the dearest", e.as(call{method: "POST", target: "/v1/carts/" + e.cart() + "/items", body: fmt.Sprintf(`{"sku":%q,"quantity":2}`, sku)}), "422 amount_too_large"})
	w.must(w.send(e.as(call{method: "GET", target: "/v1/carts/" + e.cart()})), 200)

	if n := len(w.sum()); n != tables {
		t.Errorf("%d tables, before %d", n, tables)
	}
	t.Logf("%d calls", calls)
}

// survives sends a call and looks that nothing went wrong inside.
func (w *world) survives(c call) {
	w.t.Helper()
	began := time.Now()
	a := w.send(c)
	if took := time.Since(began); took > 15*time.Second {
		w.t.Errorf("took %s: %s", took, a)
	}
	if a.status >= 500 {
		w.t.Errorf("failed: %s", a)
	}
	if a.header.Get("Set-Cookie") != "" {
		w.t.Errorf("took a header from a text: %s", a)
	}
	if a.status < 400 {
		return
	}
	w.tellsNothing(fmt.Sprintf("%.60q", c.body), a)
	if strings.Contains(string(a.body), "kestrel") {
		w.t.Errorf("repeats what it refuses: %s", a)
	}
}

// texts are the paths of all texts that the route's body may hold, also those that its example leaves out.
func (f *face) texts() [][]string { return f.fields("string") }

func (f *face) numbers() [][]string { return f.fields("integer") }

func (f *face) fields(of string) (all [][]string) {
	if f.raw || f.base.body == "" {
		return nil
	}
	var walk func(at []string, s schema)
	walk = func(at []string, s schema) {
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			p, here := f.doc.resolve(s.Properties[name]), append(at[:len(at):len(at)], name)
			switch {
			case p.is(of):
				all = append(all, here)
			case p.is("object"):
				walk(here, p)
			}
		}
	}
	walk(nil, f.bodySchema())
	return all
}

// replaced is a body with another value under the path.
func replaced(t *testing.T, body string, path []string, text any) string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(body), &root); err != nil {
		t.Fatal(err)
	}
	in := root
	for _, name := range path[:len(path)-1] {
		next, ok := in[name].(map[string]any)
		if !ok {
			next = map[string]any{}
			in[name] = next
		}
		in = next
	}
	in[path[len(path)-1]] = text
	b, err := json.Marshal(root)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
