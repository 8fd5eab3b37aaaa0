package calltx

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/passes/inspect"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps transactions short and at home.
var Analyzer = &analysis.Analyzer{Name: "calltx", Doc: manual.Of(doc), Requires: []*analysis.Analyzer{inspect.Analyzer}, Run: run}

// outside are functions and methods that wait for somebody else, by package; an empty list means all of them.
var outside = map[string][]string{
	"net/http":                    {"Get", "Post", "PostForm", "Head", "Do", "RoundTrip", "ListenAndServe"},
	"net":                         {"Dial", "DialTimeout", "DialContext", "DialTCP", "DialUDP", "DialUnix", "Listen", "LookupHost", "LookupIP", "LookupAddr", "LookupMX", "LookupTXT"},
	"net/smtp":                    {"SendMail", "Dial", "Auth", "Mail", "Rcpt", "Data"},
	"crypto/tls":                  {"Dial", "DialWithDialer", "DialContext"},
	"os/exec":                     {"Run", "Start", "Output", "CombinedOutput", "Wait"},
	"github.com/wneessen/go-mail": {"DialAndSend", "DialAndSendWithContext", "Send", "DialWithContext"},
	"time":                        {"Sleep", "After", "Tick", "NewTimer", "NewTicker"},
	"sync":                        {"Wait"},
	"golang.org/x/time/rate":      {"Wait", "WaitN"},
	"golang.org/x/sync/errgroup":  {"Wait", "Go"},
}

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	switch p.Layer {
	case tree.Module, tree.API, tree.Cmd:
	default:
		return nil, nil
	}
	if tree.IsTestMain(pass.Pkg.Path()) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	c := &checker{pass: pass, ws: ws, decls: map[*types.Func]*ast.FuncDecl{}, reach: map[*types.Func]*op{}, busy: map[*types.Func]bool{}}
	var files []*ast.File
	for _, f := range pass.Files {
		if !tree.IsTest(pass.Fset, f.Pos()) {
			files = append(files, f)
		}
	}
	for _, f := range files {
		for _, d := range f.Decls {
			if fd, ok := d.(*ast.FuncDecl); ok && fd.Body != nil {
				if obj, ok := pass.TypesInfo.Defs[fd.Name].(*types.Func); ok {
					c.decls[obj] = fd
				}
			}
		}
	}
	for _, f := range files {
		c.scopes(f)
		c.stored(f)
	}
	return nil, nil
}

type checker struct {
	pass  *analysis.Pass
	ws    *waiver.Set
	decls map[*types.Func]*ast.FuncDecl
	reach map[*types.Func]*op // the first refused thing a function leads to; nil if none
	busy  map[*types.Func]bool
}

// op is one thing that may not happen in a transaction.
type op struct {
	pos  token.Pos
	what string // "calls payments.Authorize"
	help string // what to do
}

// scopes finds every function that runs in a transaction and checks it.
func (c *checker) scopes(f *ast.File) {
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body != nil && c.takesTx(n.Type) {
				c.check(n.Body)
			}
		case *ast.FuncLit:
			if c.takesTx(n.Type) {
				c.check(n.Body)
			}
		}
		return true
	})
}

func (c *checker) takesTx(t *ast.FuncType) bool {
	for _, p := range t.Params.List {
		if typ := c.pass.TypesInfo.TypeOf(p.Type); typ != nil && code.IsTx(typ) {
			return true
		}
	}
	return false
}

// check reports what may not stand in the body of a scope.
func (c *checker) check(body ast.Node) {
	c.walk(body, true, func(o op) {
		c.ws.Report(o.pos, "inside a transaction: this %s; %s", o.what, o.help)
	}, func(call ast.Node, f *types.Func, o *op) {
		at := c.pass.Fset.Position(o.pos)
		c.ws.Report(call.Pos(), "inside a transaction: %s %s (line %d of %s); %s", f.Name(), o.what, at.Line, base(at.Filename), o.help)
	})
}

func base(name string) string { return name[strings.LastIndexAny(name, `/\`)+1:] }

// walk visits a body. direct gets what is refused there; via gets calls of this package's functions that lead to it. Function
// literals inside count as run there, but for those that take a transaction, which are scopes of their own, and those given to
// AfterCommit.
func (c *checker) walk(body ast.Node, scope bool, direct func(op), via func(ast.Node, *types.Func, *op)) {
	info := c.pass.TypesInfo
	called := map[ast.Expr]bool{}
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return !c.takesTx(n.Type)
		case *ast.CallExpr:
			called[ast.Unparen(n.Fun)] = true
			f := code.Callee(info, n)
			if code.IsPlatformFunc(f, "pg", "AfterCommit") {
				return false
			}
			if o := c.call(n, f); o != nil {
				direct(*o)
				return o.what != nestedTx // the inner scope has its own report
			}
			if f != nil && c.decls[f] != nil {
				if decl := c.decls[f]; !c.takesTx(decl.Type) {
					if o := c.leads(f); o != nil {
						via(n, f, o)
					}
				}
			}
		case *ast.SelectorExpr:
			f, ok := info.Uses[n.Sel].(*types.Func)
			if !ok || called[n] {
				return true
			}
			if s := info.Selections[n]; s != nil {
				if m, ok := code.IsContract(s.Recv()); ok {
					direct(op{n.Pos(), fmt.Sprintf("takes %s.%s to call it", m, f.Name()), contractHelp})
				}
			}
		case *ast.GoStmt:
			direct(op{n.Pos(), "starts a goroutine", "it would outlive the transaction or be waited for inside; start it after the commit, by tx.AfterCommit"})
		case *ast.SelectStmt:
			for _, cl := range n.Body.List {
				if cl.(*ast.CommClause).Comm == nil {
					return false // with default it does not wait
				}
			}
			direct(op{n.Pos(), "waits in a select", waitHelp})
			return false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				direct(op{n.Pos(), "waits on a channel", waitHelp})
			}
		case *ast.SendStmt:
			direct(op{n.Pos(), "waits on a channel", waitHelp})
		case *ast.RangeStmt:
			if t := info.TypeOf(n.X); t != nil {
				if _, ok := t.Underlying().(*types.Chan); ok {
					direct(op{n.Pos(), "waits on a channel", waitHelp})
				}
			}
		case *ast.Ident:
			if scope {
				c.poolUse(n, direct)
			}
		}
		return true
	})
}

const (
	contractHelp = "its time is the callee's, and row locks are held meanwhile: call before or after, or publish an event"
	waitHelp     = "row locks are held meanwhile: wait before or after"
	poolHelp     = "it takes a second connection while the first is held, and when all are held so, everybody waits for ever: use tx"
	nestedTx     = "opens another transaction"
)

// poolUse refuses a variable or field of type *pg.DB used inside a scope.
func (c *checker) poolUse(id *ast.Ident, direct func(op)) {
	v, ok := c.pass.TypesInfo.Uses[id].(*types.Var)
	if ok && code.IsPlatformType(v.Type(), "pg", "DB") {
		direct(op{id.Pos(), "uses the pool " + id.Name, poolHelp})
	}
}

// call says what is wrong with one call, by itself.
func (c *checker) call(n *ast.CallExpr, f *types.Func) *op {
	info := c.pass.TypesInfo
	if f == nil {
		// A func value of a contract's shape: (ctx, ordersapi.XRequest).
		if s, ok := typeOf(info, n.Fun).(*types.Signature); ok && s.Params().Len() == 2 && s.Results().Len() == 2 {
			if r := code.Named(s.Params().At(1).Type()); r != nil && r.Obj().Pkg() != nil {
				if m := tree.APIOwner(r.Obj().Pkg().Path()); m != "" && m != tree.Of(c.pass).Name {
					return &op{n.Pos(), fmt.Sprintf("calls %s through a func value", m), contractHelp}
				}
			}
		}
		return nil
	}
	if sel, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr); ok {
		if s := info.Selections[sel]; s != nil {
			if m, ok := code.IsContract(s.Recv()); ok {
				return &op{n.Pos(), fmt.Sprintf("calls %s.%s", m, f.Name()), contractHelp}
			}
		}
	}
	switch {
	case code.IsPlatformFunc(f, "rpc", "Call"):
		return &op{n.Pos(), "makes a remote call", contractHelp}
	case code.IsPlatformFunc(f, "pg", "InTx"), code.IsPlatformFunc(f, "pg", "Once"):
		return &op{n.Pos(), nestedTx, poolHelp}
	}
	if f.Pkg() == nil {
		return nil
	}
	for _, name := range outside[f.Pkg().Path()] {
		if f.Name() == name {
			return &op{n.Pos(), fmt.Sprintf("calls %s.%s", f.Pkg().Name(), f.Name()), "it waits for something outside while row locks are held: do it before or after"}
		}
	}
	return nil
}

func typeOf(info *types.Info, e ast.Expr) types.Type {
	t := info.TypeOf(e)
	if t == nil {
		return nil
	}
	return t.Underlying()
}

// leads is the first refused thing that calling f leads to, through this package's functions.
func (c *checker) leads(f *types.Func) *op {
	if o, ok := c.reach[f]; ok {
		return o
	}
	if c.busy[f] {
		return nil
	}
	c.busy[f] = true
	defer delete(c.busy, f)
	var first *op
	c.walk(c.decls[f].Body, false, func(o op) {
		if first == nil {
			first = &o
		}
	}, func(_ ast.Node, g *types.Func, o *op) {
		if first == nil {
			first = &op{o.pos, fmt.Sprintf("leads through %s, which %s", g.Name(), o.what), o.help}
		}
	})
	c.reach[f] = first
	return first
}

// stored refuses a transaction that is kept or handed on in disguise.
func (c *checker) stored(f *ast.File) {
	info := c.pass.TypesInfo
	const help = "a transaction is an argument and ends with the function that opened it"
	isTx := func(e ast.Expr) bool { t := info.TypeOf(e); return t != nil && code.IsTx(t) }
	holds := func(e ast.Expr) bool { t := info.TypeOf(e); return t != nil && holdsTx(t) }
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StructType:
			for _, fl := range n.Fields.List {
				if holds(fl.Type) {
					c.ws.Report(fl.Pos(), "a transaction is kept in a struct: %s", help)
				}
			}
		case *ast.InterfaceType:
			if tree.Of(c.pass).Layer == tree.API {
				ast.Inspect(n, func(n ast.Node) bool {
					if p, ok := n.(*ast.Field); ok && isTx(p.Type) {
						c.ws.Report(p.Pos(), "a transaction in a contract: it ends at the module's border, so let the callee open its own")
						return false
					}
					return true
				})
			}
		case *ast.FuncType:
			if n.Results != nil {
				for _, r := range n.Results.List {
					if holds(r.Type) {
						c.ws.Report(r.Pos(), "a transaction is returned: %s", help)
					}
				}
			}
		case *ast.GenDecl:
			if n.Tok == token.VAR {
				for _, s := range n.Specs {
					for _, id := range s.(*ast.ValueSpec).Names {
						if v := info.Defs[id]; v != nil && v.Parent() == c.pass.Pkg.Scope() && holdsTx(v.Type()) {
							c.ws.Report(id.Pos(), "a transaction is kept in a package variable: %s", help)
						}
					}
				}
			}
		case *ast.SendStmt:
			if isTx(n.Value) {
				c.ws.Report(n.Pos(), "a transaction is sent on a channel: %s", help)
			}
		case *ast.AssignStmt:
			if n.Tok == token.ASSIGN {
				for i, r := range n.Rhs {
					if id, ok := n.Lhs[min(i, len(n.Lhs)-1)].(*ast.Ident); (!ok || id.Name != "_") && isTx(r) {
						c.ws.Report(n.Pos(), "a transaction is assigned to a variable that may outlive it: %s", help)
					}
				}
			}
		case *ast.CallExpr:
			c.handedOn(n, isTx, help)
		}
		return true
	})
}

// handedOn refuses a transaction given as any, above all to context.WithValue.
func (c *checker) handedOn(n *ast.CallExpr, isTx func(ast.Expr) bool, help string) {
	sig, ok := typeOf(c.pass.TypesInfo, n.Fun).(*types.Signature)
	if !ok {
		return
	}
	f := code.Callee(c.pass.TypesInfo, n)
	for i, a := range n.Args {
		if !isTx(a) {
			continue
		}
		if f != nil && f.FullName() == "context.WithValue" {
			c.ws.Report(a.Pos(), "a transaction is stored in ctx: %s, and nobody sees it there", help)
			continue
		}
		j := min(i, sig.Params().Len()-1)
		t := sig.Params().At(j).Type()
		if s, ok := t.(*types.Slice); ok && sig.Variadic() && j == sig.Params().Len()-1 {
			t = s.Elem()
		}
		if it, ok := t.Underlying().(*types.Interface); ok && it.Empty() {
			if _, generic := types.Unalias(t).(*types.TypeParam); !generic {
				c.ws.Report(a.Pos(), "a transaction is given away as any: %s", help)
			}
		}
	}
}

func holdsTx(t types.Type) bool {
	if code.IsTx(t) {
		return true
	}
	switch u := types.Unalias(t).(type) {
	case *types.Slice:
		return holdsTx(u.Elem())
	case *types.Array:
		return holdsTx(u.Elem())
	case *types.Map:
		return holdsTx(u.Elem()) || holdsTx(u.Key())
	case *types.Chan:
		return holdsTx(u.Elem())
	case *types.Named:
		return code.IsPlatformType(u, "pg", "Tx")
	}
	return false
}
