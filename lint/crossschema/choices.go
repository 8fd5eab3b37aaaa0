package crossschema

import (
	"go/ast"
	"go/token"
	"go/types"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/code"
)

// choices knows everything that is ever put into a variable or an unexported field of the package, so that a choice among
// constants (a table of sort orders, an if with two statements) is as good as a constant: each choice is checked.
//
// A parameter of an unexported function is followed to its callers, all of which are in the package, unless the function is also
// used as a value.
type choices struct {
	info   *types.Info
	values map[*types.Var][]ast.Expr
	open   map[*types.Var]bool // something is put in that can't be followed
}

func newChoices(pass *analysis.Pass) *choices {
	c := &choices{info: pass.TypesInfo, values: map[*types.Var][]ast.Expr{}, open: map[*types.Var]bool{}}
	called := map[*ast.Ident]bool{}
	for _, f := range pass.Files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				if f, ok := c.info.Uses[n].(*types.Func); ok && f.Pkg() == pass.Pkg && !called[n] {
					for p := range f.Origin().Signature().Params().Variables() {
						c.open[p] = true // taken as a value: its callers can't be told
					}
				}
			case *ast.AssignStmt:
				for i, l := range n.Lhs {
					if len(n.Lhs) == len(n.Rhs) && (n.Tok == token.ASSIGN || n.Tok == token.DEFINE) {
						c.put(l, n.Rhs[i])
					} else {
						c.put(l, nil)
					}
				}
			case *ast.ValueSpec:
				for i, id := range n.Names {
					switch {
					case len(n.Values) == len(n.Names):
						c.put(id, n.Values[i])
					case len(n.Values) > 0:
						c.put(id, nil)
					default:
						if v := c.variable(id); v != nil {
							c.values[v] = append(c.values[v], nil) // declared empty, which is no SQL
						}
					}
				}
			case *ast.RangeStmt:
				for _, e := range []ast.Expr{n.Key, n.Value} {
					if e != nil {
						c.put(e, nil)
					}
				}
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					c.put(n.X, nil) // whoever has the address can put anything in
				}
			case *ast.CompositeLit:
				c.literal(n)
			case *ast.CallExpr:
				c.conversion(n)
				c.arguments(pass, n, called)
			}
			return true
		})
	}
	return c
}

// variable is the variable or field that e names, nil if it is something else.
func (c *choices) variable(e ast.Expr) *types.Var {
	var obj types.Object
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		obj = c.info.ObjectOf(e)
	case *ast.SelectorExpr:
		obj = c.info.ObjectOf(e.Sel)
	}
	v, _ := obj.(*types.Var)
	if v == nil {
		return nil
	}
	return v.Origin()
}

func (c *choices) put(to, what ast.Expr) {
	v := c.variable(to)
	switch {
	case v == nil:
	case what == nil:
		c.open[v] = true
	default:
		c.values[v] = append(c.values[v], what)
	}
}

func (c *choices) literal(n *ast.CompositeLit) {
	t := c.info.TypeOf(n)
	if t == nil {
		return
	}
	s, ok := types.Unalias(t).Underlying().(*types.Struct)
	if !ok {
		if p, isPtr := t.Underlying().(*types.Pointer); isPtr {
			s, ok = p.Elem().Underlying().(*types.Struct)
		}
		if !ok {
			return
		}
	}
	for i, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			c.put(kv.Key, kv.Value)
		} else if i < s.NumFields() {
			f := s.Field(i).Origin()
			c.values[f] = append(c.values[f], e)
		}
	}
}

// arguments puts a call's arguments into the parameters of an unexported function.
func (c *choices) arguments(pass *analysis.Pass, n *ast.CallExpr, called map[*ast.Ident]bool) {
	fun := ast.Unparen(n.Fun)
	switch x := fun.(type) {
	case *ast.IndexExpr:
		fun = x.X
	case *ast.IndexListExpr:
		fun = x.X
	}
	var id *ast.Ident
	switch x := fun.(type) {
	case *ast.Ident:
		id = x
	case *ast.SelectorExpr:
		id = x.Sel
		if s := c.info.Selections[x]; s != nil && s.Kind() == types.MethodExpr {
			return // the receiver is the first argument: treated as a value
		}
	default:
		return
	}
	f, ok := c.info.Uses[id].(*types.Func)
	if !ok || f.Pkg() != pass.Pkg || f.Exported() {
		return
	}
	if recv := f.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) {
		return // whoever implements it gets other parameters
	}
	called[id] = true
	ps := f.Origin().Signature().Params()
	spread := false // f(g()) with several results
	if len(n.Args) == 1 {
		_, spread = c.info.TypeOf(n.Args[0]).(*types.Tuple)
	}
	for i := range ps.Len() {
		switch p := ps.At(i); {
		case f.Signature().Variadic() && i == ps.Len()-1, i >= len(n.Args), spread:
			c.open[p] = true
		default:
			c.values[p] = append(c.values[p], n.Args[i])
		}
	}
}

// conversion opens the fields of a struct that is made from another type's: their values were put in under other names.
func (c *choices) conversion(n *ast.CallExpr) {
	tv := c.info.Types[n.Fun]
	if !tv.IsType() {
		return
	}
	if s, ok := tv.Type.Underlying().(*types.Struct); ok {
		for f := range s.Fields() {
			c.open[f.Origin()] = true
		}
	}
}

// of is every string that e can be; ok is false when that can't be told.
func (c *choices) of(e ast.Expr) (out []string, ok bool) { return c.follow(e, map[*types.Var]bool{}) }

func (c *choices) follow(e ast.Expr, seen map[*types.Var]bool) (out []string, ok bool) {
	if s, ok := code.String(c.info, e); ok {
		return []string{s}, true
	}
	v := c.variable(e)
	if v == nil || c.open[v] || v.Kind() == types.ResultVar || v.Kind() == types.RecvVar || v.IsField() && v.Exported() || v.Parent() == nil && !v.IsField() || len(c.values[v]) == 0 ||
		v.Pkg() != nil && v.Parent() == v.Pkg().Scope() && v.Exported() {
		return nil, false // a result, an exported function's parameter, or something another package can set
	}
	if seen[v] {
		return nil, true
	}
	seen[v] = true
	for _, w := range c.values[v] {
		if w == nil {
			continue
		}
		more, ok := c.follow(w, seen)
		if !ok {
			return nil, false
		}
		out = append(out, more...)
	}
	return out, true
}
