package topics

import (
	_ "embed"
	"go/ast"
	"go/types"
	"os"
	"path/filepath"
	"regexp"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"
	"golang.org/x/tools/go/ast/inspector"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps every event with the module that owns it.
var Analyzer = &analysis.Analyzer{Name: "topics", Doc: manual.Of(doc), Requires: []*analysis.Analyzer{inspect.Analyzer}, Run: run}

var (
	nameForm     = regexp.MustCompile(`^([a-z][a-z0-9]*)\.[a-z][a-z0-9]*(_[a-z0-9]+)*\.v[1-9][0-9]*$`)
	consumerForm = regexp.MustCompile(`^[a-z0-9][a-z0-9 ._-]*$`)
)

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	switch p.Layer {
	case tree.Module, tree.API, tree.APITest, tree.Cmd:
	default:
		return nil, nil // the platform carries events it does not know
	}
	if tree.IsTestMain(pass.Pkg.Path()) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	c := &checker{pass: pass, ws: ws, place: p, consumers: map[string]bool{}, names: map[string]string{}}
	in := pass.ResultOf[inspect.Analyzer].(*inspector.Inspector)
	in.Preorder([]ast.Node{(*ast.FuncDecl)(nil), (*ast.CallExpr)(nil), (*ast.CompositeLit)(nil)}, func(n ast.Node) {
		if tree.IsTest(pass.Fset, n.Pos()) {
			return // tests make events of others to hear them
		}
		switch n := n.(type) {
		case *ast.FuncDecl:
			c.declaration(n)
		case *ast.CallExpr:
			c.call(n)
		case *ast.CompositeLit:
			c.literal(n)
		}
	})
	return nil, nil
}

type checker struct {
	pass      *analysis.Pass
	ws        *waiver.Set
	place     tree.Place
	consumers map[string]bool
	names     map[string]string
}

func (c *checker) declaration(n *ast.FuncDecl) {
	if n.Name.Name != "EventName" || n.Recv == nil || n.Type.Params.NumFields() != 0 {
		return
	}
	recv := code.Receiver(c.pass.TypesInfo, n)
	if recv == nil {
		return
	}
	typ := recv.Obj().Name()
	if c.place.Layer != tree.API {
		c.ws.Report(n.Name.Pos(), "event %s has no owner here: declare it in api/%sapi/events.go, where hearers find it", typ, c.place.Name)
		return
	}
	if _, ptr := types.Unalias(c.pass.TypesInfo.TypeOf(n.Recv.List[0].Type)).(*types.Pointer); ptr {
		c.ws.Report(n.Recv.List[0].Pos(), "EventName of %s needs a value receiver: the name is asked of the zero value", typ)
	}
	name, ok := code.EventName(c.pass.TypesInfo, n)
	if !ok {
		c.ws.Report(n.Name.Pos(), "EventName of %s must do nothing but return one constant: the name is frozen and does not look at the value", typ)
		return
	}
	switch m := nameForm.FindStringSubmatch(name); {
	case m == nil:
		c.ws.Report(n.Name.Pos(), "event name %q of %s must read %s.what_happened.v1: owner, past-tense fact in snake_case, version", name, typ, c.place.Name)
	case m[1] != c.place.Name:
		c.ws.Report(n.Name.Pos(), "event name %q of %s begins with %s, but %s owns it", name, typ, m[1], c.place.Name)
	}
	if other := c.names[name]; other != "" && other != typ {
		c.ws.Report(n.Name.Pos(), "event name %q of %s is already that of %s", name, typ, other)
	}
	c.names[name] = typ
}

// own says whether an event type belongs to the module at hand; owner is whom else it belongs to.
func (c *checker) own(t types.Type) (owner string, own bool) {
	n := code.Named(t)
	if n == nil || n.Obj().Pkg() == nil {
		return "", false
	}
	owner = tree.APIOwner(n.Obj().Pkg().Path())
	return owner, owner == c.place.Name && (c.place.Layer == tree.Module || c.place.Layer == tree.API || c.place.Layer == tree.APITest)
}

func (c *checker) call(n *ast.CallExpr) {
	f := code.Callee(c.pass.TypesInfo, n)
	switch {
	case code.IsPlatformFunc(f, "events", "Publish"):
		c.publish(n)
	case code.IsPlatformFunc(f, "events", "On"), code.IsPlatformFunc(f, "events", "Broadcast"):
		c.subscribe(n, f.Name())
	}
}

func (c *checker) publish(n *ast.CallExpr) {
	if c.place.Layer != tree.Module {
		c.ws.Report(n.Pos(), "only a module publishes events: it owns the tables the outbox is written with")
		return
	}
	if !c.hasSchema() {
		c.ws.Report(n.Pos(), "there is no db/%s, so module %s has no outbox and publishes nothing", c.place.Name, c.place.Name)
		return
	}
	for i := 2; i < len(n.Args); i++ {
		t := c.pass.TypesInfo.TypeOf(n.Args[i])
		if s, ok := t.Underlying().(*types.Slice); ok && n.Ellipsis.IsValid() {
			t = s.Elem()
		}
		if types.IsInterface(t) {
			continue // collected earlier: literal() has seen where each was made
		}
		switch owner, own := c.own(t); {
		case own:
		case owner == "":
			c.ws.Report(n.Args[i].Pos(), "%s is no event of api/%sapi: declare it there, where hearers find it", types.TypeString(t, types.RelativeTo(c.pass.Pkg)), c.place.Name)
		default:
			c.ws.Report(n.Args[i].Pos(), "%s must not publish %s: it is a fact of %s, which alone can know it; call api/%sapi, or publish an event of your own", c.place.Name, code.Named(t).Obj().Name(), owner, owner)
		}
	}
}

// literal refuses the making of another module's event: there is nothing to do with it but to publish it.
func (c *checker) literal(n *ast.CompositeLit) {
	if c.place.Layer != tree.Module {
		return
	}
	t := c.pass.TypesInfo.TypeOf(n)
	if t == nil || !code.IsEvent(t) {
		return
	}
	if owner, own := c.own(t); owner != "" && !own && len(n.Elts) > 0 {
		c.ws.Report(n.Pos(), "%s must not make %s: it is a fact of %s, which alone can know it", c.place.Name, code.Named(t).Obj().Name(), owner)
	}
}

func (c *checker) subscribe(n *ast.CallExpr, how string) {
	id := calleeIdent(n.Fun)
	if id == nil {
		return
	}
	inst := c.pass.TypesInfo.Instances[id]
	if inst.TypeArgs == nil || inst.TypeArgs.Len() == 0 {
		return
	}
	e := inst.TypeArgs.At(0)
	if _, ok := e.(*types.TypeParam); ok || types.IsInterface(e) {
		c.ws.Report(n.Pos(), "subscribe to one event by its type: events.%s[ordersapi.OrderPlaced]", how)
		return
	}
	if owner, _ := c.own(e); owner == "" {
		c.ws.Report(n.Pos(), "%s has no owner: an event is declared in api/<module>api", types.TypeString(e, types.RelativeTo(c.pass.Pkg)))
	}
	if how == "Broadcast" {
		return
	}
	if c.place.Layer == tree.Module && !c.hasSchema() {
		c.ws.Report(n.Pos(), "there is no db/%s, so module %s has no inbox and hears nothing", c.place.Name, c.place.Name)
	}
	if len(n.Args) < 2 {
		return
	}
	name, ok := code.String(c.pass.TypesInfo, n.Args[1])
	switch {
	case !ok || !consumerForm.MatchString(name):
		c.ws.Report(n.Args[1].Pos(), "the consumer's name must be a constant in lower case: it is stored with what was heard and never changes")
	case c.consumers[name]:
		c.ws.Report(n.Args[1].Pos(), "consumer %q is there twice: the second would take the first's events for already heard", name)
	}
	c.consumers[name] = true
}

func calleeIdent(e ast.Expr) *ast.Ident {
	switch e := ast.Unparen(e).(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return e.Sel
	case *ast.IndexExpr:
		return calleeIdent(e.X)
	case *ast.IndexListExpr:
		return calleeIdent(e.X)
	}
	return nil
}

func (c *checker) hasSchema() bool {
	root := tree.RootDir(c.pass)
	if root == "" {
		return true
	}
	fi, err := os.Stat(filepath.Join(root, "db", c.place.Name))
	return err == nil && fi.IsDir()
}
