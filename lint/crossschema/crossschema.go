package crossschema

import (
	_ "embed"
	"go/ast"
	"go/types"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/sqltext"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps every module's SQL in its own schema.
var Analyzer = &analysis.Analyzer{Name: "crossschema", Doc: manual.Of(doc), Requires: []*analysis.Analyzer{inspect.Analyzer}, Run: run}

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	if tree.IsTestMain(pass.Pkg.Path()) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	for _, name := range waiver.SQLFiles(pass) {
		f, src, err := waiver.OpenSQL(pass, name)
		if err != nil {
			return nil, err
		}
		ws.AddSQL(f, src)
		schema := p.Name
		if p.Layer == tree.DB {
			schema = filepath.Base(filepath.Dir(name))
			if filepath.Dir(name) == tree.Dir(pass) {
				ws.Report(f.Pos(0), "%s belongs to no module: put it into db/<module>", filepath.Base(name))
				continue
			}
		}
		for _, problem := range sqltext.Check(src, sqltext.Rules{Schema: schema}) {
			ws.Report(f.Pos(min(problem.Offset, f.Size())), "%s", problem.Text)
		}
	}
	switch p.Layer {
	case tree.Module, tree.API, tree.APITest, tree.Cmd:
	default:
		return nil, nil // the platform works on whatever schema it is given
	}
	c := &checker{pass: pass, ws: ws, place: p}
	c.schema, c.why = schemaOf(pass, p)
	in := pass.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	called := map[ast.Expr]bool{}
	in.Preorder([]ast.Node{(*ast.CallExpr)(nil), (*ast.SelectorExpr)(nil)}, func(n ast.Node) {
		switch n := n.(type) {
		case *ast.CallExpr:
			called[ast.Unparen(n.Fun)] = true
			c.call(n)
		case *ast.SelectorExpr:
			f, ok := pass.TypesInfo.Uses[n.Sel].(*types.Func)
			if ok && !called[n] && c.sink(f) >= 0 {
				ws.Report(n.Pos(), "%s taken as a value hides the SQL it will run: call it where the statement stands", f.Name())
			}
		}
	})
	return nil, nil
}

// schemaOf is the schema a package may name, and if it has none, why.
func schemaOf(pass *analysis.Pass, p tree.Place) (schema, why string) {
	switch p.Layer {
	case tree.API, tree.APITest:
		return "", "a contract holds no SQL"
	case tree.Cmd:
		return "", "a program holds no SQL: give the module a method"
	}
	root := tree.RootDir(pass)
	if root == "" {
		return p.Name, ""
	}
	if fi, err := os.Stat(filepath.Join(root, "db", p.Name)); err != nil || !fi.IsDir() {
		return "", "there is no db/" + p.Name + ", so module " + p.Name + " has no schema and holds no SQL"
	}
	return p.Name, ""
}

type checker struct {
	pass   *analysis.Pass
	ws     *waiver.Set
	place  tree.Place
	schema string
	why    string
	// choices is made when the first statement is seen.
	choices *choices
	pg      map[string]*types.Func // pg's sinks by name, for interfaces of the same shape
}

// sink is the index of the SQL among f's parameters, -1 if it takes none. A sink is told by its package and the name of a
// string parameter, which export data keeps, so new methods are sinks without an edit here.
func (c *checker) sink(f *types.Func) int {
	if f == nil || f.Pkg() == nil {
		return -1
	}
	path := f.Pkg().Path()
	if path == "database/sql" || path == "github.com/jmoiron/sqlx" || tree.IsPlatform(path, "pg") {
		return queryParam(f.Signature())
	}
	// An interface of the module's own that pg's types satisfy is the same sink under another name.
	if recv := f.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) {
		if g := c.pgMethods()[f.Name()]; g != nil && types.Identical(stripped(f), stripped(g)) {
			return queryParam(g.Signature())
		}
	}
	return -1
}

func stripped(f *types.Func) *types.Signature {
	s := f.Signature()
	return types.NewSignatureType(nil, nil, nil, s.Params(), s.Results(), s.Variadic())
}

func queryParam(s *types.Signature) int {
	for i := range s.Params().Len() {
		p := s.Params().At(i)
		if b, ok := p.Type().Underlying().(*types.Basic); ok && b.Kind() == types.String && (p.Name() == "query" || p.Name() == "sql") {
			return i
		}
	}
	return -1
}

func (c *checker) pgMethods() map[string]*types.Func {
	if c.pg != nil {
		return c.pg
	}
	c.pg = map[string]*types.Func{}
	for _, imp := range c.pass.Pkg.Imports() {
		if !tree.IsPlatform(imp.Path(), "pg") {
			continue
		}
		for _, name := range []string{"DB", "Tx"} {
			tn, ok := imp.Scope().Lookup(name).(*types.TypeName)
			if !ok {
				continue
			}
			ms := types.NewMethodSet(types.NewPointer(tn.Type()))
			for i := range ms.Len() {
				if f := ms.At(i).Obj().(*types.Func); queryParam(f.Signature()) >= 0 {
					c.pg[f.Name()] = f
				}
			}
		}
	}
	return c.pg
}

func (c *checker) call(n *ast.CallExpr) {
	i := c.sink(code.Callee(c.pass.TypesInfo, n))
	if i < 0 {
		return
	}
	if sel, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr); ok {
		if s := c.pass.TypesInfo.Selections[sel]; s != nil && s.Kind() == types.MethodExpr {
			i++ // (*pg.Tx).Exec(tx, ctx, …)
		}
	}
	if i >= len(n.Args) {
		return
	}
	arg := n.Args[i]
	if c.place.Layer == tree.Cmd && tree.IsTest(c.pass.Fset, n.Pos()) {
		return // a test of the whole shop looks into every schema, as the superuser of its own database
	}
	if c.why != "" {
		c.ws.Report(arg.Pos(), "%s", c.why)
		return
	}
	if c.choices == nil {
		c.choices = newChoices(c.pass)
	}
	sqls, ok := c.choices.of(arg)
	if !ok {
		c.ws.Report(arg.Pos(), "SQL must be a constant string: %s is not, so nobody can check it and the database can't prepare it once; pass values as $1, and write each variant out as a const", describe(arg))
		return
	}
	rules := sqltext.Rules{Schema: c.schema, Machinery: tree.IsTest(c.pass.Fset, n.Pos())}
	for _, sql := range sqls {
		for _, p := range sqltext.Check(sql, rules) {
			// The finding stands where the argument begins: a waiver fits above it, but not inside a string of many lines.
			c.ws.Report(arg.Pos(), "%s", p.Text)
		}
	}
}

func describe(e ast.Expr) string {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return e.Name
	case *ast.BinaryExpr:
		return "this concatenation"
	case *ast.CallExpr:
		return "a call's result"
	case *ast.SelectorExpr:
		return strings.TrimPrefix(e.Sel.Name, ".")
	}
	return "this"
}
