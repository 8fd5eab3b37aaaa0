package main

import (
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

// spoken is one answer as it came: everything of it but what the network puts around it.
type spoken struct {
	action string // as the story has it
	status int
	header http.Header
	body   string
}

// notCompared are headers that tell of the moment rather than of the answer. The length follows from the body, whose times are
// longer or shorter by a digit.
var notCompared = map[string]bool{"Date": true, "Content-Length": true}

// ownModules is what a process says of its readiness beside whether it is: which modules it runs, which is the placement itself.
var ownModules = regexp.MustCompile(`,"modules":\{[^}]*\}`)

// transcript is all that a shop said to one story, with placeholders for what no two shops say alike. Ids and numbers get one a
// value, so that the same is the same. All times get one, since two of them may or may not fall into one millisecond, and so do
// secrets, since an order's token is another in the next second; that a story's tokens work is in the story.
func (s *teller) transcript() string {
	n := naming{}
	value := func(v string) string { return n.hide(strings.ReplaceAll(v, s.url, "<shop>")) }
	var b strings.Builder
	for _, a := range s.said {
		fmt.Fprintf(&b, "%s\n=> %d\n", a.action, a.status)
		for _, name := range slices.Sorted(maps.Keys(a.header)) {
			for _, v := range a.header[name] {
				if !notCompared[name] {
					fmt.Fprintf(&b, "%s: %s\n", name, value(v))
				}
			}
		}
		if a.action == "GET /readyz" {
			a.body = ownModules.ReplaceAllString(a.body, "")
		}
		fmt.Fprintf(&b, "%s\n\n", value(a.body))
	}
	return b.String()
}

// naming numbers values in the order in which they come up.
type naming map[string]map[string]int

var (
	hidden = regexp.MustCompile(moment + `|\bbyk_[0-9a-z]{8,}|` + id + `|\breq_[0-9a-z]{12}\b|\bB-[0-9A-Z]{4}-[0-9A-Z]{4}\b|[A-Za-z0-9_-]{20,}(?:\.[A-Za-z0-9_-]+)*`)
	onlyID = regexp.MustCompile(`^(?:` + id + `|req_[0-9a-z]{12})$`)
	aTimes = regexp.MustCompile(`^` + moment + `$`)
)

func (n naming) hide(text string) string {
	return hidden.ReplaceAllStringFunc(text, func(v string) string {
		var kind string
		switch {
		case aTimes.MatchString(v):
			return "<time>"
		case strings.HasPrefix(v, "byk_"):
			return "<API key>" // whole, or as much of it as is shown
		case onlyID.MatchString(v):
			kind, _, _ = strings.Cut(v, "_")
		case len(v) == 11 && strings.HasPrefix(v, "B-"):
			kind = "number"
		case strings.IndexFunc(v, unicode.IsUpper) < 0 || strings.IndexFunc(v, unicode.IsLower) < 0:
			return v // a slug or a name: random text has both kinds of letters
		default:
			return "<secret>"
		}
		if n[kind] == nil {
			n[kind] = map[string]int{}
		}
		if n[kind][v] == 0 {
			n[kind][v] = len(n[kind]) + 1
		}
		return fmt.Sprintf("<%s %d>", kind, n[kind][v])
	})
}

// parity compares what shops laid out in other ways say to the same stories with what the shop in one process says.
type parity struct {
	mu   sync.Mutex
	told map[string]map[string]string // transcripts by story and placement
}

// watch makes a parity that is judged when the test's subtests have ended.
func watch(t *testing.T) *parity {
	p := &parity{told: map[string]map[string]string{}}
	t.Cleanup(func() { p.judge(t) })
	return p
}

func (p *parity) add(story, placement string, s *teller) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.told[story] == nil {
		p.told[story] = map[string]string{}
	}
	p.told[story][placement] = s.transcript()
}

func (p *parity) judge(t *testing.T) {
	compared := map[string]int{}
	for story, by := range p.told {
		want, ok := by["one"]
		if !ok {
			t.Logf("%s was not told to one process in this run: there is nothing to compare the others with", story)
			continue
		}
		for placement, got := range by {
			if placement == "one" {
				continue
			}
			if got != want {
				d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n"))
				t.Errorf("%s: %s answers otherwise than one process (-one +%s):\n%s", story, placement, placement, d)
				continue
			}
			compared[placement] += strings.Count(got, "\n=> ")
		}
	}
	for _, placement := range slices.Sorted(maps.Keys(compared)) {
		t.Logf("parity: %d answers of %s are those of one process, byte by byte", compared[placement], placement)
	}
}

func TestTranscriptsHideOnlyWhatDiffers(t *testing.T) {
	t.Parallel()
	n := naming{}
	for _, c := range []struct{ said, want string }{
		{`{"id":"ord_01jd9v3k9rf2wbt8m8y5sgv7zc","at":"2026-11-23T10:00:00Z"}`, `{"id":"<ord 1>","at":"<time>"}`},
		{`ord_01jd9v3k9rf2wbt8m8y5sgv7zd ord_01jd9v3k9rf2wbt8m8y5sgv7zc`, `<ord 2> <ord 1>`},
		{`{"slug":"ridge-two-person-tent-with-a-name","n":12}`, `{"slug":"ridge-two-person-tent-with-a-name","n":12}`},
		{`token=Zm9vYmFyYmF6cXV4cXV1eA.Zm9vYmFy&x`, `token=<secret>&x`},
		{`"Reference B-7K2M-9QRT"`, `"Reference <number 1>"`},
		{`"B-7K2M-9QRT" "B-7K2M-9QRS"`, `"<number 1>" "<number 2>"`},
	} {
		if got := n.hide(c.said); got != c.want {
			t.Errorf("%s becomes %s, want %s", c.said, got, c.want)
		}
	}
}
