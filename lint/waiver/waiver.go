// Package waiver lets one line be excused from one analyzer, for a while, by somebody, for a reason:
//
//	//shop:allow crossschema until=2027-01-31 owner=@orders reads the old table until the backfill is done
//
// It stands on the line it excuses or on the line above (in a .sql file after two dashes). An expired one excuses nothing. An
// expired, unused, malformed or unknown one is itself a finding, so waivers cannot rot.
package waiver

import (
	"fmt"
	"go/token"
	"os"
	"regexp"
	"strings"
	"time"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/tree"
)

// Waiver is one parsed line.
type Waiver struct {
	Analyzer string
	Until    time.Time // the last day on which it holds
	Owner    string
	Reason   string
	Line     int // it excuses this line and the next
	Pos      token.Pos
}

const marker = "shop:allow"

var form = regexp.MustCompile(`^shop:allow ([a-z]+) until=(\d{4}-\d{2}-\d{2}) owner=(@[A-Za-z0-9][A-Za-z0-9/_-]*) (\S.*)$`)

// Parse reads a comment without its slashes or dashes. ok is false for a comment that is no waiver at all.
func Parse(text string) (w Waiver, ok bool, err error) {
	if !strings.HasPrefix(text, marker) {
		return w, false, nil
	}
	text, _, _ = strings.Cut(text, " // want") // samples say what they expect on the same line
	m := form.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return w, true, fmt.Errorf("malformed waiver: write //shop:allow <analyzer> until=2027-01-31 owner=@team <reason>")
	}
	until, err := time.Parse(time.DateOnly, m[2])
	if err != nil {
		return w, true, fmt.Errorf("malformed waiver: %s is not a day", m[2])
	}
	return Waiver{Analyzer: m[1], Until: until, Owner: m[3], Reason: m[4]}, true, nil
}

// Expired says whether the waiver's last day is over.
func (w Waiver) Expired(now time.Time) bool { return !now.Before(w.Until.AddDate(0, 0, 1)) }

// Set holds the waivers that one analyzer may use in one package.
type Set struct {
	pass *analysis.Pass
	name string
	now  time.Time
	all  map[string][]*entry // by file name
	seen map[string]bool
}

type entry struct {
	Waiver
	used bool
}

// New collects the waivers of the pass's analyzer. All findings of an analyzer go through Report, and Close comes last.
func New(pass *analysis.Pass) *Set {
	s := &Set{pass: pass, name: pass.Analyzer.Name, now: time.Now(), all: map[string][]*entry{}, seen: map[string]bool{}}
	for _, f := range pass.Files {
		for _, g := range f.Comments {
			for _, c := range g.List {
				s.add(strings.TrimPrefix(c.Text, "//"), c.Pos())
			}
		}
	}
	return s
}

func (s *Set) add(text string, pos token.Pos) {
	w, ok, err := Parse(text)
	if !ok || err != nil || w.Analyzer != s.name || w.Expired(s.now) {
		return // malformed and expired ones are the finding of Analyzer
	}
	at := s.pass.Fset.Position(pos)
	w.Line, w.Pos = at.Line, pos
	s.all[at.Filename] = append(s.all[at.Filename], &entry{Waiver: w})
}

// AddSQL reads the waivers of a .sql file that the analyzer has put into the file set.
func (s *Set) AddSQL(f *token.File, src string) {
	for _, l := range sqlComments(f, src) {
		s.add(l.text, l.pos)
	}
}

type comment struct {
	text string
	pos  token.Pos
}

func sqlComments(f *token.File, src string) (out []comment) {
	offset := 0
	for line := range strings.Lines(src) {
		if i := strings.Index(line, "--"); i >= 0 {
			out = append(out, comment{strings.TrimSpace(strings.TrimLeft(line[i:], "- ")), f.Pos(offset + i)})
		}
		offset += len(line)
	}
	return out
}

// Report reports a finding unless a waiver excuses its line. The same finding at the same place is reported once.
func (s *Set) Report(pos token.Pos, format string, args ...any) {
	at, msg := s.pass.Fset.Position(pos), fmt.Sprintf(format, args...)
	if key := at.String() + msg; s.seen[key] {
		return
	} else {
		s.seen[key] = true
	}
	for _, e := range s.all[at.Filename] {
		if e.Line == at.Line || e.Line == at.Line-1 {
			e.used = true
			return
		}
	}
	s.pass.Report(analysis.Diagnostic{Pos: pos, Category: s.name, Message: msg})
}

// Close reports the waivers nobody needed.
func (s *Set) Close() {
	for _, es := range s.all {
		for _, e := range es {
			if !e.used {
				s.pass.Report(analysis.Diagnostic{Pos: e.Pos, Category: "unused",
					Message: fmt.Sprintf("unused waiver: %s finds nothing here, so remove it", s.name)})
			}
		}
	}
}

// NewAnalyzer makes the analyzer that watches the waivers themselves; names are those of all the others.
func NewAnalyzer(names ...string) *analysis.Analyzer {
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	a := &analysis.Analyzer{
		Name: "waiver",
		Doc: "refuse waivers that are malformed, expired or name no analyzer\n\n" +
			"The form is //shop:allow <analyzer> until=2027-01-31 owner=@team <reason>, on the line it excuses or the line above.\n" +
			"An unused waiver is reported by the analyzer it names. A waiver of waiver does not exist.",
	}
	a.Run = func(pass *analysis.Pass) (any, error) {
		check := func(text string, pos token.Pos) {
			w, ok, err := Parse(text)
			switch {
			case !ok:
			case err != nil:
				pass.Reportf(pos, "%s", err)
			case !known[w.Analyzer]:
				pass.Reportf(pos, "malformed waiver: there is no analyzer %s", w.Analyzer)
			case w.Expired(time.Now()):
				pass.Reportf(pos, "expired waiver: %s of %s ended on %s; mend the code or agree on a new day", w.Analyzer, w.Owner, w.Until.Format(time.DateOnly))
			}
		}
		for _, f := range pass.Files {
			for _, g := range f.Comments {
				for _, c := range g.List {
					check(strings.TrimPrefix(c.Text, "//"), c.Pos())
				}
			}
		}
		for _, name := range SQLFiles(pass) {
			if f, src, err := OpenSQL(pass, name); err == nil {
				for _, c := range sqlComments(f, src) {
					check(c.text, c.pos)
				}
			}
		}
		return nil, nil
	}
	return a
}

// SQLFiles lists the .sql files that belong to the pass's package: beside a module's Go files, and in every folder under db.
func SQLFiles(pass *analysis.Pass) []string {
	dir := tree.Dir(pass)
	if dir == "" || strings.HasSuffix(pass.Pkg.Path(), "_test") {
		return nil
	}
	switch tree.Of(pass).Layer {
	case tree.DB:
		return glob(dir, 2)
	case tree.Module, tree.API, tree.APITest, tree.Cmd:
		return glob(dir, 1)
	}
	return nil
}

// OpenSQL puts a .sql file into the pass's file set, so that findings have a place.
func OpenSQL(pass *analysis.Pass, name string) (*token.File, string, error) {
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, "", err
	}
	f := pass.Fset.AddFile(name, -1, len(src))
	f.SetLinesForContent(src)
	return f, string(src), nil
}
