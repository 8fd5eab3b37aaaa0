package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/banyan-shop/banyan/api/usersapi"
)

// A story is a txtar file of steps, each a request and the answer expected. testdata/README.md is its manual.

// teller tells one story against one running shop.
type teller struct {
	url     string
	vars    map[string]json.RawMessage // captured values as JSON
	idle    func(context.Context) error
	advance func(time.Duration)
	update  bool
	said    []spoken // by the shop, but for what was asked again
}

// tell runs every step and returns the story as it would have to read; the error names the first step that went otherwise.
func (s *teller) tell(ctx context.Context, text []byte) ([]byte, error) {
	story := txtar.Parse(text)
	for i := range story.Files {
		f := &story.Files[i]
		st, err := parseStep(string(f.Data))
		if err == nil {
			err = s.do(ctx, st)
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", f.Name, err)
		}
		f.Data = []byte(st.String())
	}
	return txtar.Format(story), nil
}

// step is one section of a story.
type step struct {
	before  []string // what stands above the answer, as written
	action  string   // POST /v1/carts, or a directive
	headers [][2]string
	body    string
	expect  bool
	status  string
	want    [][2]string // headers of the answer
	answer  string
}

var headerLine = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9-]*): ?(.*)$`)

func parseStep(text string) (*step, error) {
	st := &step{}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	at, part := 0, "action"
	var body []string
	for ; at < len(lines); at++ {
		line := lines[at]
		if rest, ok := strings.CutPrefix(line, "=> "); ok {
			st.expect, st.status = true, strings.TrimSpace(rest)
			at++
			break
		}
		st.before = append(st.before, line)
		trimmed := strings.TrimSpace(line)
		switch {
		case part == "action" && (trimmed == "" || strings.HasPrefix(trimmed, "#")):
		case part == "action":
			st.action, part = trimmed, "headers"
		case part == "headers" && headerLine.MatchString(line):
			m := headerLine.FindStringSubmatch(line)
			st.headers = append(st.headers, [2]string{m[1], m[2]})
		default:
			part = "body"
			body = append(body, line)
		}
	}
	st.body = strings.TrimSpace(strings.Join(body, "\n"))
	for ; at < len(lines); at++ {
		m := headerLine.FindStringSubmatch(lines[at])
		if m == nil {
			break
		}
		st.want = append(st.want, [2]string{m[1], m[2]})
	}
	if at < len(lines) {
		st.answer = strings.TrimSpace(strings.Join(lines[at:], "\n"))
	}
	if st.action == "" {
		return nil, errors.New("says nothing to do")
	}
	return st, nil
}

func (st *step) String() string {
	var b strings.Builder
	b.WriteString(strings.TrimRight(strings.Join(st.before, "\n"), "\n") + "\n")
	if st.expect {
		b.WriteString("=> " + st.status + "\n")
		for _, h := range st.want {
			b.WriteString(h[0] + ": " + h[1] + "\n")
		}
		if st.answer != "" {
			b.WriteString(st.answer + "\n")
		}
	}
	return b.String() + "\n"
}

// patience bounds every wait of a story.
const patience = 20 * time.Second

func (s *teller) do(ctx context.Context, st *step) error {
	words := strings.Fields(st.action)
	switch words[0] {
	case "wait":
		if st.action != "wait events" {
			return fmt.Errorf("can't %q: only wait events", st.action)
		}
		return s.idle(ctx)
	case "advance":
		d, err := time.ParseDuration(words[len(words)-1])
		if err != nil {
			return err
		}
		s.advance(d)
		return nil
	case "login":
		return s.login(ctx, words[1:])
	case "until":
		st.action = strings.TrimSpace(strings.TrimPrefix(st.action, "until"))
		deadline := time.Now().Add(patience)
		for before := len(s.said); ; s.said = s.said[:before] {
			err := s.request(ctx, st, false)
			if err == nil || time.Now().After(deadline) {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return s.request(ctx, st, s.update)
}

// login gets a token and keeps it under a name: login admin, login shopper, or login EMAIL PASSWORD as NAME.
func (s *teller) login(ctx context.Context, words []string) error {
	email, password, name := "", "", ""
	switch {
	case len(words) == 1 && words[0] == "admin":
		email, password, name = usersapi.DemoAdmin, usersapi.DemoAdminPassword, "admin"
	case len(words) == 1 && words[0] == "shopper":
		email, password, name = usersapi.DemoShopper, usersapi.DemoShopperPassword, "shopper"
	case len(words) == 4 && words[2] == "as":
		email, password, name = words[0], words[1], words[3]
	default:
		return errors.New("write login admin, login shopper, or login EMAIL PASSWORD as NAME")
	}
	credentials, err := json.Marshal(map[string]string{"email": email, "password": password})
	if err != nil {
		return err
	}
	return s.request(ctx, &step{
		action: "POST /v1/auth/login", body: string(credentials), expect: true, status: "200", answer: fmt.Sprintf(`{"access_token": "{{%s}}"}`, name),
	}, false)
}

func (s *teller) request(ctx context.Context, st *step, update bool) error {
	method, target, ok := strings.Cut(st.action, " ")
	if !ok || method != strings.ToUpper(method) {
		return fmt.Errorf("%q is neither a request such as GET /v1/products nor a directive", st.action)
	}
	target, err := s.fill(target)
	if err != nil {
		return err
	}
	body, err := s.fillJSON(st.body)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(target, "http") { // a link that an answer gave is whole
		target = s.url + target
	}
	r, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range st.headers {
		value, err := s.fill(h[1])
		if err != nil {
			return err
		}
		if h[0] == "As" {
			token, ok := s.vars[h[1]]
			if !ok {
				return fmt.Errorf("nobody has logged in as %s", h[1])
			}
			h[0], value = "Authorization", "Bearer "+plainText(token)
		}
		r.Header.Set(h[0], value)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	s.said = append(s.said, spoken{st.action, answer.StatusCode, answer.Header, string(got)})
	if !st.expect && !update {
		return fmt.Errorf("expects no answer: end it with => and a status. The answer was %d %s", answer.StatusCode, got)
	}
	if update {
		s.rewrite(st, answer, got)
		return nil
	}
	return s.compare(st, answer, got)
}

func (s *teller) compare(st *step, answer *http.Response, got []byte) error {
	show := func() string { return pretty(got) }
	if strconv.Itoa(answer.StatusCode) != st.status {
		return fmt.Errorf("%s: status %d, want %s. The answer was\n%s", st.action, answer.StatusCode, st.status, show())
	}
	captured := map[string]json.RawMessage{}
	for _, h := range st.want {
		if err := s.matchText(h[1], answer.Header.Get(h[0]), captured); err != nil {
			return fmt.Errorf("%s: header %s %w", st.action, h[0], err)
		}
	}
	if st.answer != "" {
		want, err := parseTree([]byte(st.answer))
		if err != nil { // not JSON: plain text
			if err := s.matchText(st.answer, strings.TrimSpace(string(got)), captured); err != nil {
				return fmt.Errorf("%s: the answer %w", st.action, err)
			}
		} else {
			tree, err := parseTree(got)
			if err != nil {
				return fmt.Errorf("%s: the answer is not JSON: %s", st.action, got)
			}
			if err := s.match(want, tree, "", captured); err != nil {
				return fmt.Errorf("%s: %w. The answer was\n%s", st.action, err, show())
			}
		}
	}
	for name, value := range captured {
		s.vars[name] = value
	}
	return nil
}

// rewrite makes the step expect what was answered, keeping what it already says rightly.
func (s *teller) rewrite(st *step, answer *http.Response, got []byte) {
	st.expect, st.status = true, strconv.Itoa(answer.StatusCode)
	captured := map[string]json.RawMessage{}
	for i, h := range st.want {
		if s.matchText(h[1], answer.Header.Get(h[0]), captured) != nil {
			st.want[i][1] = answer.Header.Get(h[0])
		}
	}
	tree, err := parseTree(got)
	if err != nil {
		if st.answer != "" && s.matchText(st.answer, strings.TrimSpace(string(got)), captured) != nil {
			st.answer = strings.TrimSpace(string(got))
		}
	} else if want, err := parseTree([]byte(st.answer)); st.answer == "" || err != nil {
		st.answer = generalise(tree).String()
	} else if s.match(want, tree, "", captured) != nil {
		captured = map[string]json.RawMessage{}
		st.answer = s.merge(want, tree, captured).String()
	}
	for name, value := range captured {
		s.vars[name] = value
	}
}

var (
	variable = regexp.MustCompile(`\{\{([a-z_][a-z0-9_]*)\}\}`)
	whole    = regexp.MustCompile(`^\{\{([a-z_][a-z0-9_]*)\}\}$`)
	id       = `[a-z]{2,6}_[0-9a-z]{26}`
	moment   = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`
)

// wildcards stand for a value whose text a story does not know.
var wildcards = map[string]string{
	"<any>": `(?s).*`, "<text>": `(?s).+`, "<id>": id, "<time>": moment, "<number>": `-?\d+(\.\d+)?`, "<bool>": `true|false`, "<url>": `https?://\S+`,
}

// plainText is a captured value as it stands in a path or a header.
func plainText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// fill replaces {{name}} in text by what was captured.
func (s *teller) fill(text string) (string, error) {
	var missing []string
	filled := variable.ReplaceAllStringFunc(text, func(m string) string {
		name := variable.FindStringSubmatch(m)[1]
		v, ok := s.vars[name]
		if !ok {
			missing = append(missing, name)
		}
		return plainText(v)
	})
	if missing != nil {
		return "", fmt.Errorf("%s has not been captured by an earlier step", strings.Join(missing, ", "))
	}
	return filled, nil
}

// fillJSON is fill for a body: "{{name}}" as a whole value becomes the captured JSON, be it a number or an object.
func (s *teller) fillJSON(body string) (string, error) {
	for name, v := range s.vars {
		body = strings.ReplaceAll(body, `"{{`+name+`}}"`, string(v))
	}
	return s.fill(body)
}

// match says where got differs from want: every field that want names must be there and match, in lists every element, up to a last "...".
func (s *teller) match(want, got *tree, path string, captured map[string]json.RawMessage) error {
	at := path
	if at == "" {
		at = "it"
	}
	switch want.kind {
	case '{':
		if got.kind != '{' {
			return fmt.Errorf("%s is %s, want an object", at, got)
		}
		for i, key := range want.keys {
			value := got.field(key)
			if want.items[i].text == `"<absent>"` {
				if value != nil {
					return fmt.Errorf("%s.%s is there", path, key)
				}
				continue
			}
			if value == nil {
				return fmt.Errorf("%s.%s is missing", path, key)
			}
			if err := s.match(want.items[i], value, path+"."+key, captured); err != nil {
				return err
			}
		}
		return nil
	case '[':
		if got.kind != '[' {
			return fmt.Errorf("%s is %s, want a list", at, got)
		}
		items := want.items
		open := len(items) > 0 && items[len(items)-1].text == `"..."`
		if open {
			items = items[:len(items)-1]
		}
		if len(got.items) < len(items) || !open && len(got.items) > len(items) {
			return fmt.Errorf("%s has %d elements, want %d", at, len(got.items), len(items))
		}
		for i, item := range items {
			if err := s.match(item, got.items[i], path+"["+strconv.Itoa(i)+"]", captured); err != nil {
				return err
			}
		}
		return nil
	}
	var text string
	if json.Unmarshal([]byte(want.text), &text) != nil { // a number, true, false or null
		if got.kind != 0 || got.text != want.text {
			return fmt.Errorf("%s is %s, want %s", at, got, want.text)
		}
		return nil
	}
	if m := whole.FindStringSubmatch(text); m != nil {
		value := json.RawMessage(got.compact())
		if known, ok := s.known(m[1], captured); ok && !bytes.Equal(compacted(known), value) {
			return fmt.Errorf("%s is %s, want {{%s}}, which is %s", at, got, m[1], known)
		}
		captured[m[1]] = value
		return nil
	}
	if got.kind != 0 && text != "<any>" {
		return fmt.Errorf("%s is %s, want %s", at, got, want.text)
	}
	if err := s.matchText(text, plainText(json.RawMessage(got.compact())), captured); err != nil {
		return fmt.Errorf("%s %w", at, err)
	}
	_, wild := wildcards[text]
	if !wild && !strings.HasPrefix(got.text, `"`) {
		return fmt.Errorf("%s is %s, want %s", at, got, want.text)
	}
	return nil
}

func (s *teller) known(name string, captured map[string]json.RawMessage) (json.RawMessage, bool) {
	if v, ok := captured[name]; ok {
		return v, true
	}
	v, ok := s.vars[name]
	return v, ok
}

var special = regexp.MustCompile(`\{\{[a-z_][a-z0-9_]*\}\}|<[a-z]+(?: [a-z]+)?>|\.\.\.`)

// matchText compares a text with one that may hold {{names}}, <wildcards> and "..." for anything.
func (s *teller) matchText(want, got string, captured map[string]json.RawMessage) error {
	var pattern strings.Builder
	var names []string
	pattern.WriteString(`^`)
	last := 0
	for _, m := range special.FindAllStringIndex(want, -1) {
		pattern.WriteString(regexp.QuoteMeta(want[last:m[0]]))
		last = m[1]
		token := want[m[0]:m[1]]
		kind, detail, _ := strings.Cut(strings.Trim(token, "<>"), " ")
		switch {
		case token == "...":
			pattern.WriteString(`(?s:.*)`)
		case strings.HasPrefix(token, "{{"):
			name := strings.Trim(token, "{}")
			if v, ok := s.known(name, captured); ok {
				pattern.WriteString(regexp.QuoteMeta(plainText(v)))
			} else {
				names = append(names, name)
				pattern.WriteString(`(?P<` + name + `>[^\s"<>&]+)`)
			}
		case kind == "id" && detail != "":
			pattern.WriteString(detail + `_[0-9a-z]{26}`)
		case wildcards[token] != "":
			pattern.WriteString(`(?:` + wildcards[token] + `)`)
		default:
			pattern.WriteString(regexp.QuoteMeta(token))
		}
	}
	pattern.WriteString(regexp.QuoteMeta(want[last:]) + `$`)
	re, err := regexp.Compile(pattern.String())
	if err != nil {
		return err
	}
	m := re.FindStringSubmatch(got)
	if m == nil {
		return fmt.Errorf("is %q, want %q", got, want)
	}
	for _, name := range names {
		v, err := json.Marshal(m[re.SubexpIndex(name)])
		if err != nil {
			return err
		}
		captured[name] = v
	}
	return nil
}

// merge is want where it holds, and got where it does not.
func (s *teller) merge(want, got *tree, captured map[string]json.RawMessage) *tree {
	if s.match(want, got, "", captured) == nil {
		return want
	}
	switch {
	case want.kind == '{' && got.kind == '{':
		out := &tree{kind: '{'}
		for i, key := range want.keys {
			if value := got.field(key); value != nil {
				out.keys, out.items = append(out.keys, key), append(out.items, s.merge(want.items[i], value, captured))
			}
		}
		return out
	case want.kind == '[' && got.kind == '[':
		out := &tree{kind: '['}
		for i, item := range got.items {
			if i < len(want.items) && want.items[i].text == `"..."` {
				out.items = append(out.items, want.items[i])
				return out
			}
			if i < len(want.items) {
				item = s.merge(want.items[i], item, captured)
			} else {
				item = generalise(item)
			}
			out.items = append(out.items, item)
		}
		return out
	}
	return generalise(got)
}

var (
	anID   = regexp.MustCompile(`^"` + id + `"$`)
	aTime  = regexp.MustCompile(`^"` + moment + `"$`)
	secret = regexp.MustCompile(`^"[A-Za-z0-9_-]{20,}(\.[A-Za-z0-9_-]+)*"$`)
)

// generalise puts wildcards where the next run will have other values.
func generalise(t *tree) *tree {
	switch {
	case anID.MatchString(t.text):
		return &tree{text: `"<id>"`}
	case aTime.MatchString(t.text):
		return &tree{text: `"<time>"`}
	case secret.MatchString(t.text):
		return &tree{text: `"<text>"`}
	case t.kind == 0:
		return t
	}
	out := &tree{kind: t.kind, keys: t.keys}
	for _, item := range t.items {
		out.items = append(out.items, generalise(item))
	}
	return out
}

// tree is JSON that keeps the order of its keys and the spelling of its numbers.
type tree struct {
	kind  byte   // '{', '[' or 0
	text  string // of a scalar
	keys  []string
	items []*tree
}

func parseTree(data []byte) (*tree, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	t, err := readTree(d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text behind the JSON")
	}
	return t, nil
}

func readTree(d *json.Decoder) (*tree, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	delim, ok := token.(json.Delim)
	if !ok {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		err := e.Encode(token)
		return &tree{text: strings.TrimSpace(b.String())}, err
	}
	t := &tree{kind: byte(delim)}
	for d.More() {
		if t.kind == '{' {
			key, err := d.Token()
			if err != nil {
				return nil, err
			}
			t.keys = append(t.keys, key.(string))
		}
		item, err := readTree(d)
		if err != nil {
			return nil, err
		}
		t.items = append(t.items, item)
	}
	_, err = d.Token()
	return t, err
}

func (t *tree) field(key string) *tree {
	if i := slices.Index(t.keys, key); i >= 0 {
		return t.items[i]
	}
	return nil
}

func (t *tree) compact() string { return t.format("", 1<<30) }

func compacted(v json.RawMessage) []byte {
	t, err := parseTree(v)
	if err != nil {
		return v
	}
	return []byte(t.compact())
}

// String writes what fits into a line on one line.
func (t *tree) String() string { return t.format("", 110) }

func (t *tree) format(indent string, width int) string {
	if t.kind == 0 {
		return t.text
	}
	shut := map[byte]string{'{': "}", '[': "]"}[t.kind]
	part := func(i int, indent string) string {
		if t.kind == '[' {
			return t.items[i].format(indent, width)
		}
		key, _ := json.Marshal(t.keys[i])
		return string(key) + ": " + t.items[i].format(indent, width)
	}
	parts := make([]string, len(t.items))
	for i := range t.items {
		parts[i] = part(i, indent)
	}
	line := string(t.kind) + strings.Join(parts, ", ") + shut
	if len(indent)+len(line) <= width && !strings.Contains(line, "\n") {
		return line
	}
	deeper := indent + "  "
	for i := range t.items {
		parts[i] = deeper + part(i, deeper)
	}
	return string(t.kind) + "\n" + strings.Join(parts, ",\n") + "\n" + indent + shut
}

func pretty(text []byte) string {
	if t, err := parseTree(text); err == nil {
		return t.String()
	}
	return string(text)
}

func TestStoryLanguage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, want, got, err string }{
		{"fields not named may be there", `{"a": 1}`, `{"a":1,"b":2}`, ""},
		{"a named field must be", `{"a": 1}`, `{"b":2}`, ".a is missing"},
		{"or must not be", `{"a": "<absent>"}`, `{"a":2}`, ".a is there"},
		{"a number is no text", `{"a": "1"}`, `{"a":1}`, `.a is 1, want "1"`},
		{"a list has its length", `[1]`, `[1,2]`, "it has 2 elements, want 1"},
		{"unless it goes on", `[1, "..."]`, `[1,2]`, ""},
		{"wildcards", `["<id>", "<id ord>", "<time>", "<number>", "<any>"]`,
			`["ord_01jd9v3k9rf2wbt8m8y5sgv7zc","ord_01jd9v3k9rf2wbt8m8y5sgv7zc","2026-11-23T10:00:00Z",5,{"x":[]}]`, ""},
		{"another kind of id", `"<id ord>"`, `"usr_01jd9v3k9rf2wbt8m8y5sgv7zc"`, "want \"<id ord>\""},
		{"a captured value comes again", `["{{known}}", "{{new}}", "{{new}}"]`, `["k",{"a":1},{"a":1}]`, ""},
		{"or not", `"{{known}}"`, `"other"`, `want {{known}}, which is "k"`},
		{"within a text", `"...token={{token}}."`, `"Click http://x?token=abc."`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := &teller{vars: map[string]json.RawMessage{"known": json.RawMessage(`"k"`)}}
			want, err := parseTree([]byte(c.want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := parseTree([]byte(c.got))
			if err != nil {
				t.Fatal(err)
			}
			captured := map[string]json.RawMessage{}
			err = s.match(want, got, "", captured)
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("got %v, want %q", err, c.err)
			}
			if merged := s.merge(want, got, map[string]json.RawMessage{}); s.match(merged, got, "", map[string]json.RawMessage{}) != nil {
				t.Errorf("-update writes %s, which does not match either", merged)
			}
		})
	}
}
