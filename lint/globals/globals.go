package globals

import (
	_ "embed"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"strconv"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps state out of package variables.
var Analyzer = &analysis.Analyzer{Name: "globals", Doc: manual.Of(doc), Run: run}

// prepared are types whose values are made once and never change, pointers though they are.
var prepared = map[string]bool{
	"*regexp.Regexp": true, "*html/template.Template": true, "*text/template.Template": true, "*time.Location": true,
	"*strings.Replacer": true, "embed.FS": true, "time.Time": true, "github.com/google/wire.ProviderSet": true,
}

const help = "make it a field of Module, so that tests and a second instance have their own"

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	if p.Layer != tree.Module && p.Layer != tree.API || tree.IsTestMain(pass.Pkg.Path()) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	c := &checker{pass: pass, written: map[types.Object]token.Pos{}}
	var files []*ast.File
	for _, f := range pass.Files {
		if !tree.IsTest(pass.Fset, f.Pos()) {
			files = append(files, f)
			c.writes(f)
		}
	}
	for _, f := range files {
		embedded := embeds(f)
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					ws.Report(d.Name.Pos(), "func init runs because a package was imported, before anybody chose to: do it in Build or Start")
				}
			case *ast.GenDecl:
				if d.Tok != token.VAR {
					continue
				}
				for _, s := range d.Specs {
					for _, id := range s.(*ast.ValueSpec).Names {
						v, ok := pass.TypesInfo.Defs[id].(*types.Var)
						if !ok || id.Name == "_" || embedded[id] {
							continue
						}
						if why := c.refuse(v); why != "" {
							ws.Report(id.Pos(), "%s is package-level state: %s; %s", id.Name, why, help)
						}
					}
				}
			}
		}
	}
	return nil, nil
}

type checker struct {
	pass    *analysis.Pass
	written map[types.Object]token.Pos
}

// embeds are the variables that a //go:embed line fills.
func embeds(f *ast.File) map[*ast.Ident]bool {
	out := map[*ast.Ident]bool{}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.VAR {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for _, doc := range []*ast.CommentGroup{g.Doc, v.Doc} {
				if doc == nil {
					continue
				}
				for _, c := range doc.List {
					if len(c.Text) > len("//go:embed ") && c.Text[:len("//go:embed ")] == "//go:embed " && len(v.Names) == 1 {
						out[v.Names[0]] = true
					}
				}
			}
		}
	}
	return out
}

// refuse says why a package variable is state; "" if it is none.
func (c *checker) refuse(v *types.Var) string {
	if at, ok := c.written[v]; ok {
		p := c.pass.Fset.Position(at)
		return "line " + strconv.Itoa(p.Line) + " of " + filepath.Base(p.Filename) + " can change it"
	}
	t := v.Type()
	if isError(t) || prepared[types.TypeString(t, nil)] || isRPC(t) {
		return ""
	}
	if why := mutable(t, map[types.Type]bool{}); why != "" {
		return why
	}
	if v.Exported() {
		return "every importer can assign to it"
	}
	return ""
}

func isError(t types.Type) bool {
	return types.Implements(t, types.Universe.Lookup("error").Type().Underlying().(*types.Interface))
}

func isRPC(t types.Type) bool { return code.IsPlatformType(t, "rpc", "Method") }

// mutable says what in a type can change although nothing is assigned to the variable.
func mutable(t types.Type, seen map[types.Type]bool) string {
	if prepared[types.TypeString(t, nil)] || seen[t] {
		return ""
	}
	seen[t] = true
	if n := code.Named(t); n != nil && n.Obj().Pkg() != nil {
		switch n.Obj().Pkg().Path() {
		case "sync", "sync/atomic":
			return "it is a " + n.Obj().Pkg().Name() + "." + n.Obj().Name()
		}
	}
	switch u := types.Unalias(t).Underlying().(type) {
	case *types.Basic:
		return ""
	case *types.Pointer:
		return "what it points to can change"
	case *types.Interface:
		return "whatever is behind the interface can change"
	case *types.Signature:
		return "a func variable can be replaced: declare a func"
	case *types.Chan:
		return "it is a channel"
	case *types.Slice:
		return mutable(u.Elem(), seen)
	case *types.Array:
		return mutable(u.Elem(), seen)
	case *types.Map:
		return mutable(u.Elem(), seen)
	case *types.Struct:
		for f := range u.Fields() {
			if _, fn := f.Type().Underlying().(*types.Signature); fn {
				continue // a table of cases with their funcs
			}
			if why := mutable(f.Type(), seen); why != "" {
				return "in its field " + f.Name() + ", " + why
			}
		}
		return ""
	}
	return "it can change"
}

// writes notes every package variable that something in f may change.
func (c *checker) writes(f *ast.File) {
	note := func(e ast.Expr) {
		if v := c.root(e); v != nil {
			if _, ok := c.written[v]; !ok {
				c.written[v] = e.Pos()
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, l := range n.Lhs {
				note(l)
			}
		case *ast.IncDecStmt:
			note(n.X)
		case *ast.RangeStmt:
			if n.Tok == token.ASSIGN {
				note(n.Key)
				note(n.Value)
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				note(n.X)
			}
		case *ast.CallExpr:
			c.callWrites(n, note)
		}
		return true
	})
}

// callWrites notes variables changed by append, delete, clear, copy, sorting, or a method on their pointer.
func (c *checker) callWrites(n *ast.CallExpr, note func(ast.Expr)) {
	if len(n.Args) > 0 {
		switch fun := ast.Unparen(n.Fun).(type) {
		case *ast.Ident:
			if b, ok := c.pass.TypesInfo.Uses[fun].(*types.Builtin); ok {
				switch b.Name() {
				case "append", "delete", "clear", "copy":
					note(n.Args[0])
				}
			}
		case *ast.SelectorExpr:
			if f, ok := c.pass.TypesInfo.Uses[fun.Sel].(*types.Func); ok && f.Pkg() != nil {
				switch f.Pkg().Path() + "." + f.Name() {
				case "sort.Strings", "sort.Ints", "sort.Slice", "sort.SliceStable", "sort.Sort", "slices.Sort", "slices.SortFunc",
					"slices.SortStableFunc", "slices.Reverse", "slices.Delete", "slices.Insert", "slices.Compact", "maps.Copy", "maps.DeleteFunc":
					note(n.Args[0])
				}
			}
		}
	}
	sel, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr)
	if !ok {
		return
	}
	if s := c.pass.TypesInfo.Selections[sel]; s != nil && s.Kind() == types.MethodVal {
		recv := s.Obj().(*types.Func).Signature().Recv()
		_, ptrRecv := types.Unalias(recv.Type()).(*types.Pointer)
		_, ptrVar := types.Unalias(s.Recv()).Underlying().(*types.Pointer)
		if ptrRecv && !ptrVar {
			note(sel.X)
		}
	}
}

// root is the package variable at the bottom of x, x.f, x[i] or *x.
func (c *checker) root(e ast.Expr) *types.Var {
	for {
		switch x := e.(type) {
		case nil:
			return nil
		case *ast.Ident:
			v, ok := c.pass.TypesInfo.Uses[x].(*types.Var)
			if ok && v.Parent() == c.pass.Pkg.Scope() {
				return v
			}
			return nil
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.SliceExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}
