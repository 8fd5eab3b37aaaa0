package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// TestEveryCodeHasAPage reads from the source every code that an error can carry, and wants each explained: a client that
// follows the type of a problem finds words.
func TestEveryCodeHasAPage(t *testing.T) {
	t.Parallel()
	settings, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]bool{}
	for _, p := range host.Routes(shop(settings)).Problems() {
		explained[p.Code] = true
		if p.Title == "" || len(p.Explanation) < 20 {
			t.Errorf("the page of %s says next to nothing", p.Code)
		}
	}
	codes := 0
	for _, layer := range []string{"modules", "platform", "api", "cmd"} {
		for _, pkg := range packagesIn(t, filepath.Join("..", "..", layer)) {
			for _, use := range pkg.codes(t) {
				codes++
				if !explained[use.code] {
					t.Errorf("%s: the code %q has no page: declare it with r.Problem in Routes", use.at, use.code)
				}
			}
		}
	}
	if codes < 100 {
		t.Errorf("found only %d uses of codes: does the search still know how errors are made?", codes)
	}
	t.Logf("%d uses of codes, %d pages", codes, len(explained))
}

// source is one package's files without its tests.
type source struct {
	fset  *token.FileSet
	files []*ast.File
}

func packagesIn(t *testing.T, root string) []source {
	t.Helper()
	byDir := map[string]*source{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata") {
			return err
		}
		s := byDir[filepath.Dir(path)]
		if s == nil {
			s = &source{fset: token.NewFileSet()}
			byDir[filepath.Dir(path)] = s
		}
		f, err := parser.ParseFile(s.fset, path, nil, parser.SkipObjectResolution)
		s.files = append(s.files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []source
	for _, s := range byDir {
		all = append(all, *s)
	}
	return all
}

type codeUse struct{ code, at string }

// codes are the codes of errs.New, errs.Invalidf and errs.Conflictf in the package. An empty one is its kind's.
func (s source) codes(t *testing.T) (uses []codeUse) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				sel, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if x, ok := sel.X.(*ast.Ident); !ok || x.Name != "errs" {
					return true
				}
				arg, kind := 0, ast.Expr(nil)
				switch sel.Sel.Name {
				case "New":
					arg, kind = 1, call.Args[0]
				case "Invalidf":
					kind = &ast.BasicLit{Kind: token.STRING, Value: `"invalid"`}
				case "Conflictf":
					kind = &ast.BasicLit{Kind: token.STRING, Value: `"conflict"`}
				default:
					return true
				}
				at := s.fset.Position(call.Pos()).String()
				fn, _ := d.(*ast.FuncDecl)
				codes, err := s.values(call.Args[arg], fn)
				if err == nil && slices.Contains(codes, "") {
					var kinds []string
					if kinds, err = s.values(kind, fn); err == nil {
						codes = append(slices.DeleteFunc(codes, func(c string) bool { return c == "" }), kinds...)
					}
				}
				if err != nil {
					t.Errorf("%s: can't tell which codes this is: %v", at, err)
				}
				for _, c := range codes {
					uses = append(uses, codeUse{c, at})
				}
				return true
			})
		}
	}
	return uses
}

// values are the texts an expression in fn can be: literals, their sums, variables set to them, and parameters given them.
func (s source) values(e ast.Expr, fn *ast.FuncDecl) ([]string, error) {
	switch e := e.(type) {
	case *ast.BasicLit:
		v, err := strconv.Unquote(e.Value)
		return []string{v}, err
	case *ast.BinaryExpr:
		left, err := s.values(e.X, fn)
		if err != nil {
			return nil, err
		}
		right, err := s.values(e.Y, fn)
		var all []string
		for _, l := range left {
			for _, r := range right {
				all = append(all, l+r)
			}
		}
		return all, err
	case *ast.CallExpr: // a conversion
		if len(e.Args) == 1 {
			return s.values(e.Args[0], fn)
		}
	case *ast.SelectorExpr: // errs.NotFound: the kinds are their names in snake_case
		if x, ok := e.X.(*ast.Ident); ok && x.Name == "errs" {
			var b strings.Builder
			for i, c := range e.Sel.Name {
				if c >= 'A' && c <= 'Z' && i > 0 {
					b.WriteByte('_')
				}
				b.WriteRune(c)
			}
			return []string{strings.ToLower(b.String())}, nil
		}
		return s.field(e.Sel.Name)
	case *ast.Ident:
		if fn == nil {
			break
		}
		at := 0
		for _, p := range fn.Type.Params.List {
			for _, name := range p.Names {
				if name.Name == e.Name {
					return s.given(fn.Name.Name, at)
				}
				at++
			}
		}
		return s.assigned(e.Name, fn)
	}
	return nil, fmt.Errorf("%T is no text", e)
}

// given are the values of a parameter in all calls of the function.
func (s source) given(name string, at int) ([]string, error) {
	var all []string
	var wrong error
	for _, f := range s.files {
		for _, d := range f.Decls {
			ast.Inspect(d, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) <= at {
					return true
				}
				called := ""
				switch f := call.Fun.(type) {
				case *ast.Ident:
					called = f.Name
				case *ast.SelectorExpr:
					called = f.Sel.Name
				}
				if called == name {
					fn, _ := d.(*ast.FuncDecl)
					v, err := s.values(call.Args[at], fn)
					if err != nil {
						wrong = err
					}
					all = append(all, v...)
				}
				return true
			})
		}
	}
	return all, wrong
}

func (s source) assigned(name string, fn *ast.FuncDecl) ([]string, error) {
	var all []string
	var wrong error
	ast.Inspect(fn, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok || len(a.Lhs) != len(a.Rhs) {
			return true
		}
		for i, l := range a.Lhs {
			if id, ok := l.(*ast.Ident); ok && id.Name == name {
				v, err := s.values(a.Rhs[i], fn)
				if err != nil {
					wrong = err
				}
				all = append(all, v...)
			}
		}
		return true
	})
	if len(all) == 0 && wrong == nil {
		wrong = fmt.Errorf("%s is set nowhere", name)
	}
	return all, wrong
}

// field are the values that struct literals give a field.
func (s source) field(name string) ([]string, error) {
	var all []string
	var wrong error
	for _, f := range s.files {
		ast.Inspect(f, func(n ast.Node) bool {
			kv, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if id, ok := kv.Key.(*ast.Ident); ok && id.Name == name {
				if lit, ok := kv.Value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					v, err := strconv.Unquote(lit.Value)
					all, wrong = append(all, v), errors.Join(wrong, err)
				}
			}
			return true
		})
	}
	if len(all) == 0 && wrong == nil {
		wrong = fmt.Errorf("no literal sets %s", name)
	}
	return all, wrong
}
