// Package program runs every analyzer over a whole tree, and the checks that need the whole tree: the call and event graph, the
// migrations, and the build tags. It reads the source each time and keeps nothing, so its verdict is never stale.
package program

import (
	"cmp"
	"fmt"
	"go/build/constraint"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"github.com/banyan-shop/banyan/lint/graph"
	"github.com/banyan-shop/banyan/lint/sqltext"
	"github.com/banyan-shop/banyan/lint/suite"
	"github.com/banyan-shop/banyan/lint/tree"
)

// TagSets are the builds that are looked at. A build tag in no set is a finding, since nobody would look behind it. A set that ends
// in * is one build with all tags that begin so: mutants stand beside each other, each in place of one file.
var TagSets = []string{"", "failpoints", "mutant_*"}

// expand is the tag set with a * replaced by what the tree uses; "" if it uses none.
func expand(set string, used map[string]bool) string {
	prefix, star := strings.CutSuffix(set, "*")
	var tags []string
	for tag := range used {
		if tag == set || star && strings.HasPrefix(tag, prefix) {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	return strings.Join(tags, ",")
}

func declared(tag string) bool {
	return slices.ContainsFunc(TagSets, func(set string) bool {
		prefix, star := strings.CutSuffix(set, "*")
		return tag == set || star && strings.HasPrefix(tag, prefix)
	})
}

// elsewhere are tags that choose a platform or a tool, and no shop of another kind. wireinject files are the input of wire; their
// imports are checked from the build without it.
var elsewhere = []string{
	"wireinject", "ignore", "race", "cgo", "unix", "linux", "darwin", "windows", "freebsd", "openbsd", "netbsd", "amd64", "arm64", "386", "arm",
}

// Finding is one thing to mend.
type Finding struct {
	File     string `json:"file"` // relative to the tree's root, with slashes
	Line     int    `json:"line"`
	Column   int    `json:"column"`
	Message  string `json:"message"`
	Analyzer string `json:"analyzer"`
}

func (f Finding) String() string {
	return fmt.Sprintf("%s:%d:%d: %s (%s)", f.File, f.Line, f.Column, f.Message, f.Analyzer)
}

// Root is the folder of the go.mod at or above dir.
func Root(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if _, err := os.Stat(filepath.Join(d, "go.mod")); err == nil {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("no go.mod at or above %s", dir)
		}
	}
}

// Load type-checks the packages that patterns name, tests included. Packages outside the patterns come from export data.
func Load(dir, tags string, patterns ...string) ([]*packages.Package, error) {
	return packages.Load(&packages.Config{
		Mode: packages.LoadSyntax | packages.NeedModule | packages.NeedEmbedFiles | packages.NeedForTest,
		Dir:  dir, Tests: true, BuildFlags: []string{"-tags=" + tags},
	}, patterns...)
}

// Graph is the call and event graph of the tree at root.
func Graph(root string) (*graph.Graph, error) {
	pkgs, err := Load(root, "", "./api/...", "./modules/...")
	if err != nil {
		return nil, err
	}
	return graph.Read(root, pkgs), nil
}

// Run checks the tree at root in every tag set. With patterns other than ./... only the packages named are checked, and not the
// whole.
func Run(root string, patterns ...string) ([]Finding, error) {
	if len(patterns) == 0 {
		patterns = []string{"./..."}
	}
	r := &run{root: root, seen: map[Finding]bool{}}
	whole := slices.Equal(patterns, []string{"./..."})
	used, dirs, err := r.tags(whole)
	if err != nil {
		return nil, err
	}
	for _, set := range TagSets {
		tags := expand(set, used)
		look := patterns
		if set != "" {
			if tags == "" {
				continue // no file asks for it, so the build is the plain one
			}
			if whole {
				look = nil // the other packages are the same as in the plain build
				for tag := range strings.SplitSeq(tags, ",") {
					look = append(look, dirs[tag]...)
				}
			}
		}
		if err := r.analyze(tags, whole && set == "", look); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(r.found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return r.found, nil
}

type run struct {
	root  string
	seen  map[Finding]bool
	found []Finding
}

func (r *run) add(pos token.Position, analyzer, message string) {
	name := pos.Filename
	if rel, err := filepath.Rel(r.root, name); err == nil && !strings.HasPrefix(rel, "..") {
		name = rel
	}
	f := Finding{filepath.ToSlash(name), pos.Line, pos.Column, message, analyzer}
	if !r.seen[f] {
		r.seen[f] = true
		r.found = append(r.found, f)
	}
}

func (r *run) analyze(tags string, whole bool, patterns []string) error {
	pkgs, err := Load(r.root, tags, patterns...)
	if err != nil {
		return err
	}
	broken := map[string]bool{}
	var main []*packages.Package // without the mains of test binaries
	for _, p := range pkgs {
		if tree.IsTestMain(p.ID) {
			continue
		}
		main = append(main, p)
		for _, e := range p.Errors {
			broken[p.PkgPath] = true
			if strings.HasPrefix(e.Msg, "# ") {
				continue // go list repeats the compiler; the type checker says it with a place
			}
			r.add(position(e.Pos, r.root), "compile", e.Msg)
		}
	}
	g, err := checker.Analyze(suite.All(), main, nil)
	if err != nil {
		return err
	}
	for act := range g.All() {
		if !act.IsRoot {
			continue
		}
		if act.Err != nil {
			if !act.Package.IllTyped && !broken[act.Package.PkgPath] { // what does not compile is reported above
				return fmt.Errorf("%s of %s: %w", act.Analyzer.Name, act.Package.ID, act.Err)
			}
			continue
		}
		for _, d := range act.Diagnostics {
			r.add(act.Package.Fset.Position(d.Pos), act.Analyzer.Name, d.Message)
		}
	}
	if !whole {
		return nil
	}
	for _, p := range graph.Read(r.root, main).Check() {
		r.add(p.Pos, "graph", p.Text)
	}
	db := slices.ContainsFunc(main, func(p *packages.Package) bool {
		return p.Module != nil && tree.Classify(p.Module.Path, p.PkgPath).Layer == tree.DB && !broken[p.PkgPath]
	})
	if !db {
		return r.migrations()
	}
	return nil
}

// position reads the "file:line:col" of a loading error.
func position(s, root string) token.Position {
	p := token.Position{Filename: filepath.Join(root, "go.mod"), Line: 1, Column: 1}
	var line, col int
	parts := strings.Split(s, ":")
	if len(parts) >= 2 {
		fmt.Sscan(parts[1], &line)
		if len(parts) >= 3 {
			fmt.Sscan(parts[2], &col)
		}
		p = token.Position{Filename: parts[0], Line: line, Column: col}
	}
	return p
}

// migrations checks db/*/*.sql without package db, which is not there or does not compile. Waivers hold only with it.
func (r *run) migrations() error {
	files, err := filepath.Glob(filepath.Join(r.root, "db", "*", "*.sql"))
	if err != nil {
		return err
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for _, p := range sqltext.Check(string(src), sqltext.Rules{Schema: filepath.Base(filepath.Dir(name))}) {
			before := string(src[:min(p.Offset, len(src))])
			line := strings.Count(before, "\n") + 1
			r.add(token.Position{Filename: name, Line: line, Column: len(before) - strings.LastIndex(before, "\n")}, "crossschema", p.Text)
		}
	}
	return nil
}

// tags reads the build constraints of every Go file and says which tag sets are asked for; with report, a tag in no set is found.
// dirs are the folders where each tag stands.
func (r *run) tags(report bool) (used map[string]bool, dirs map[string][]string, err error) {
	used, dirs = map[string]bool{}, map[string][]string{}
	err = filepath.WalkDir(r.root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			base := d.Name()
			if name != r.root && (base == "testdata" || base == "vendor" || base == "node_modules" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_")) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); name != r.root && err == nil {
				return filepath.SkipDir // another Go module
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") {
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		n := 0
		for line := range strings.Lines(string(src)) {
			n++
			if strings.HasPrefix(line, "package ") {
				break
			}
			expr, err := constraint.Parse(strings.TrimSpace(line))
			if err != nil {
				continue
			}
			for _, tag := range tagsOf(expr) {
				used[tag] = true
				if rel, err := filepath.Rel(r.root, filepath.Dir(name)); err == nil && !slices.Contains(dirs[tag], "./"+filepath.ToSlash(rel)) {
					dirs[tag] = append(dirs[tag], "./"+filepath.ToSlash(rel))
				}
				if report && !declared(tag) && !slices.Contains(elsewhere, tag) && !strings.HasPrefix(tag, "go1.") {
					r.add(token.Position{Filename: name, Line: n, Column: 1}, "tags", fmt.Sprintf("build tag %s is in none of shoplint's tag sets, so nobody looks behind it: add it to program.TagSets", tag))
				}
			}
		}
		return nil
	})
	return used, dirs, err
}

func tagsOf(e constraint.Expr) []string {
	switch e := e.(type) {
	case *constraint.TagExpr:
		return []string{e.Tag}
	case *constraint.NotExpr:
		return tagsOf(e.X)
	case *constraint.AndExpr:
		return append(tagsOf(e.X), tagsOf(e.Y)...)
	case *constraint.OrExpr:
		return append(tagsOf(e.X), tagsOf(e.Y)...)
	}
	return nil
}
