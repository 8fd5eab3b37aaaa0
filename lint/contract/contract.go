package contract

import (
	_ "embed"
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"reflect"
	"regexp"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps contracts fit to travel.
var Analyzer = &analysis.Analyzer{Name: "contract", Doc: manual.Of(doc), Run: run}

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	if p.Layer != tree.API || tree.IsTestMain(pass.Pkg.Path()) || strings.HasSuffix(pass.Pkg.Name(), "_test") {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	c := &checker{pass: pass, ws: ws, module: p.Name, root: p.Root, seen: map[types.Type]bool{}, methods: map[string]*types.Signature{}}
	c.findDescriptors()
	scope := pass.Pkg.Scope()
	for _, name := range scope.Names() {
		tn, ok := scope.Lookup(name).(*types.TypeName)
		if !ok || tree.IsTest(pass.Fset, tn.Pos()) {
			continue
		}
		if i, ok := tn.Type().Underlying().(*types.Interface); ok && tn.Exported() && !tn.IsAlias() {
			c.contract(tn, i)
		}
		if code.IsEvent(tn.Type()) && tn.Exported() {
			c.wire(tn.Type(), tn.Pos(), "event "+name)
		}
	}
	for name, d := range c.descriptors {
		if _, ok := c.methods[name]; !ok {
			ws.Report(d.pos, "%s.%s is bound here, but no interface of this contract has a method %s", c.module, name, name)
		}
	}
	return nil, nil
}

type descriptor struct {
	pos      token.Pos
	req, res types.Type
	mark     string
	obj      types.Object
	call     bool
	handle   bool
}

type checker struct {
	pass        *analysis.Pass
	ws          *waiver.Set
	module      string
	root        string
	seen        map[types.Type]bool
	methods     map[string]*types.Signature
	descriptors map[string]*descriptor
}

// findDescriptors reads the package's rpc.NewMethod calls and where their variables are used.
func (c *checker) findDescriptors() {
	c.descriptors = map[string]*descriptor{}
	byObj := map[types.Object]*descriptor{}
	for _, f := range c.pass.Files {
		if tree.IsTest(c.pass.Fset, f.Pos()) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, v := range spec.Values {
				call, ok := ast.Unparen(v).(*ast.CallExpr)
				if !ok || !code.IsPlatformFunc(code.Callee(c.pass.TypesInfo, call), "rpc", "NewMethod") || i >= len(spec.Names) {
					continue
				}
				c.descriptor(call, c.pass.TypesInfo.Defs[spec.Names[i]], byObj)
			}
			return true
		})
	}
	for _, f := range c.pass.Files {
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if id, ok := ast.Unparen(sel.X).(*ast.Ident); ok {
					if d := byObj[c.pass.TypesInfo.Uses[id]]; d != nil {
						d.call = d.call || sel.Sel.Name == "Call"
						d.handle = d.handle || sel.Sel.Name == "Handle"
					}
				}
			}
			return true
		})
	}
}

func (c *checker) descriptor(call *ast.CallExpr, obj types.Object, byObj map[types.Object]*descriptor) {
	ptr, ok := types.Unalias(c.pass.TypesInfo.TypeOf(call)).(*types.Pointer)
	if !ok || len(call.Args) < 2 {
		return
	}
	args := ptr.Elem().(*types.Named).TypeArgs()
	full, ok := code.String(c.pass.TypesInfo, call.Args[0])
	if !ok {
		c.ws.Report(call.Args[0].Pos(), "the method's name must be a constant: it is the address on the wire")
		return
	}
	name, ok := strings.CutPrefix(full, c.module+".")
	if !ok {
		c.ws.Report(call.Args[0].Pos(), "method name %q must begin with %s.: that is how a call finds its callee", full, c.module)
		return
	}
	if c.descriptors[name] != nil {
		c.ws.Report(call.Pos(), "%s.%s is bound twice", c.module, name)
		return
	}
	d := &descriptor{pos: call.Pos(), obj: obj, req: args.At(0), res: args.At(1)}
	if v := c.pass.TypesInfo.Types[call.Args[1]].Value; v != nil {
		n := code.Named(c.pass.TypesInfo.TypeOf(call.Args[1]))
		if n != nil && n.Obj().Pkg() != nil {
			for _, mark := range []string{"NotRepeatable", "Idempotent", "IdempotentByKey"} {
				if k, ok := n.Obj().Pkg().Scope().Lookup(mark).(*types.Const); ok && constant.Compare(k.Val(), token.EQL, v) {
					d.mark = mark
				}
			}
		}
	}
	if d.mark == "" {
		c.ws.Report(call.Args[1].Pos(), "the mark of %s.%s must be a constant of package rpc", c.module, name)
	}
	c.descriptors[name] = d
	byObj[obj] = d
}

func (c *checker) contract(tn *types.TypeName, i *types.Interface) {
	for e := range i.EmbeddedTypes() {
		c.ws.Report(tn.Pos(), "contract %s embeds %s: write its methods out, each is bound by name", tn.Name(), c.show(e))
	}
	for m := range i.ExplicitMethods() {
		c.method(tn, m)
	}
}

func (c *checker) method(tn *types.TypeName, m *types.Func) {
	name, s := m.Name(), m.Signature()
	c.methods[name] = s
	if !m.Exported() {
		c.ws.Report(m.Pos(), "%s.%s is unexported: no other package could implement or call it", tn.Name(), name)
		return
	}
	ps, rs := s.Params(), s.Results()
	if ps.Len() != 2 || rs.Len() != 2 || s.Variadic() || types.TypeString(ps.At(0).Type(), nil) != "context.Context" ||
		!types.Identical(rs.At(1).Type(), types.Universe.Lookup("error").Type()) {
		c.ws.Report(m.Pos(), "%s.%s must have the shape %s(ctx context.Context, r %sRequest) (%s, error): fields are added to structs, parameters never are", tn.Name(), name, name, name, name)
		return
	}
	req, res := ps.At(1).Type(), rs.At(0).Type()
	c.struct_(m, req, "request")
	c.struct_(m, res, "result")
	d := c.descriptors[name]
	switch {
	case d == nil:
		c.ws.Report(m.Pos(), "%s.%s is not bound: add var %s = rpc.NewMethod[…](%q, …) to rpc.go, and a line each to Mount and the client", tn.Name(), name, lower(name), c.module+"."+name)
		return
	case !types.Identical(d.req, req) || !types.Identical(d.res, res):
		c.ws.Report(d.pos, "%s.%s is bound with other types than %s.%s has", c.module, name, tn.Name(), name)
	case !d.handle:
		c.ws.Report(d.pos, "%s.%s is never handled: add %s.Handle(s, …) to Mount", c.module, name, d.obj.Name())
	case !d.call:
		c.ws.Report(d.pos, "%s.%s is never called: add it to the client, so that a caller elsewhere has it", c.module, name)
	}
	switch d.mark {
	case "NotRepeatable":
		c.ws.Report(d.pos, "%s.%s may not be repeated, so a lost answer stays unknown for ever: mark it rpc.Idempotent, or rpc.IdempotentByKey with a Key in its request", c.module, name)
	case "IdempotentByKey":
		if !hasKey(req) {
			c.ws.Report(d.pos, "%s.%s is marked IdempotentByKey, but its request has no field Key string", c.module, name)
		}
	}
}

func lower(s string) string { return strings.ToLower(s[:1]) + s[1:] }

func hasKey(t types.Type) bool {
	s, ok := t.Underlying().(*types.Struct)
	if !ok {
		return false
	}
	for f := range s.Fields() {
		if b, ok := f.Type().Underlying().(*types.Basic); ok && f.Name() == "Key" && b.Kind() == types.String {
			return true
		}
	}
	return false
}

// struct_ holds a request or result to being a named struct of this package.
func (c *checker) struct_(m *types.Func, t types.Type, role string) {
	n, ok := types.Unalias(t).(*types.Named)
	_, isStruct := t.Underlying().(*types.Struct)
	if !ok || !isStruct || n.Obj().Pkg() != c.pass.Pkg {
		c.ws.Report(m.Pos(), "the %s of %s must be a named struct of this package, not %s: a field can be added to it later", role, m.Name(), c.show(t))
		return
	}
	c.wire(t, n.Obj().Pos(), n.Obj().Name())
}

func (c *checker) show(t types.Type) string {
	return types.TypeString(t, func(p *types.Package) string {
		if p == c.pass.Pkg {
			return ""
		}
		return p.Name()
	})
}

var snake = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// wire holds t, and everything it is made of, to what JSON carries unchanged. pos and path say where t stands.
func (c *checker) wire(t types.Type, pos token.Pos, path string) {
	t = types.Unalias(t)
	if n, ok := t.(*types.Named); ok {
		if pkg := n.Obj().Pkg(); pkg != nil && pkg != c.pass.Pkg {
			switch full := pkg.Path() + "." + n.Obj().Name(); {
			case full == "time.Time", tree.IsPlatform(pkg.Path(), "money") && n.Obj().Name() == "Amount", tree.IsPlatform(pkg.Path(), "ids"):
				return
			case full == "encoding/json.RawMessage", full == "encoding/json/jsontext.Value":
				c.ws.Report(pos, "%s is %s, which says nothing of what is in it: write the struct", path, c.show(t))
				return
			case tree.Classify(c.root, pkg.Path()).Layer == tree.Module:
				c.ws.Report(pos, "%s is %s, an internal of module %s", path, c.show(t), tree.Classify(c.root, pkg.Path()).Name)
				return
			case tree.APIOwner(pkg.Path()) != "":
				c.ws.Report(pos, "%s is %s of another contract: carry an id as ids.ID, and the rest as plain values", path, c.show(t))
				return
			case tree.IsPlatform(pkg.Path(), "pg"):
				c.ws.Report(pos, "%s is %s: a transaction or pool does not leave its module", path, c.show(t))
				return
			}
			if _, basic := t.Underlying().(*types.Basic); !basic && !strings.HasPrefix(pkg.Path(), c.root+"/platform/") {
				c.ws.Report(pos, "%s is %s: a contract holds plain values, times, money and ids", path, c.show(t))
				return
			}
		}
		if c.seen[t] {
			return
		}
		c.seen[t] = true
		if n.Obj().Pkg() == c.pass.Pkg && n.TypeArgs().Len() == 0 {
			pos = n.Obj().Pos()
			path = strings.TrimSuffix(path, n.Obj().Name()) + n.Obj().Name()
			if !strings.HasPrefix(path, "event ") {
				path = n.Obj().Name()
			}
		}
	}
	switch u := t.Underlying().(type) {
	case *types.Basic:
		switch {
		case u.Info()&types.IsComplex != 0, u.Kind() == types.Uintptr, u.Kind() == types.UnsafePointer:
			c.ws.Report(pos, "%s is %s, which JSON does not know", path, c.show(t))
		}
	case *types.Struct:
		for i := range u.NumFields() {
			c.field(u.Field(i), u.Tag(i), pos, path)
		}
	case *types.Slice:
		c.wire(u.Elem(), pos, path)
	case *types.Array:
		c.wire(u.Elem(), pos, path)
	case *types.Map:
		if b, ok := u.Key().Underlying().(*types.Basic); !ok || b.Kind() != types.String {
			c.ws.Report(pos, "%s has keys of %s: keys are strings in JSON", path, c.show(u.Key()))
		}
		c.wire(u.Elem(), pos, path)
	case *types.Pointer:
		c.ws.Report(pos, "%s is a pointer: in one process it would share the callee's state, on the wire it would not; use the value, and a bool or an empty one for absence", path)
	case *types.Interface:
		c.ws.Report(pos, "%s is an interface (%s): the other side can't know what to decode", path, c.show(t))
	case *types.Signature:
		c.ws.Report(pos, "%s is a func: code does not travel", path)
	case *types.Chan:
		c.ws.Report(pos, "%s is a channel: publish an event", path)
	default:
		c.ws.Report(pos, "%s is %s, which does not travel", path, c.show(t))
	}
}

func (c *checker) field(f *types.Var, tag string, pos token.Pos, path string) {
	if f.Pkg() == c.pass.Pkg {
		pos = f.Pos()
	}
	name := path + "." + f.Name()
	if !f.Exported() {
		c.ws.Report(pos, "%s is unexported, so it is lost on the wire", name)
		return
	}
	json, ok := reflect.StructTag(tag).Lookup("json")
	key, _, _ := strings.Cut(json, ",")
	switch {
	case f.Embedded() && !ok:
	case !ok || key == "":
		c.ws.Report(pos, "%s has no json name: add `json:%q`", name, strings.Join(code.Words(f.Name()), "_"))
	case key == "-":
		c.ws.Report(pos, "%s is left out of JSON, so it is lost on the wire", name)
	case !snake.MatchString(key):
		c.ws.Report(pos, "%s has json name %q: names are in snake_case", name, key)
	}
	if code.IsFloat(f.Type()) && (code.IsMoneyName(f.Name()) || code.IsMoneyName(path)) {
		c.ws.Report(pos, "%s is a float: money is money.Amount", name)
	}
	c.wire(f.Type(), pos, name)
}
