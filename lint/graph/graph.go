// Package graph reads from the source which module calls which and who hears whose events, holds both to the rules, and draws
// them. It looks at all packages at once, which an analyzer can't.
//
// A module calls another when it dials its contract, has a field of the contract's type, or calls a method of it. A module
// publishes an event of its own when it makes one, and hears one when it subscribes with events.On or events.Broadcast. Tests
// count for nothing.
package graph

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/tools/go/packages"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/tree"
)

// Problem is a rule broken by several packages together.
type Problem struct {
	Pos  token.Position
	Text string
}

// Call is one edge of the call graph; Pos is the first place that shows it.
type Call struct {
	From, To string
	Pos      token.Position
}

// Event is a declared event.
type Event struct {
	Owner, Type, Name string
	Pos               token.Position
	Published         bool
	Hearers           []Hearer
}

// Hearer is one subscription.
type Hearer struct {
	Module, Consumer string
	Broadcast        bool
	Pos              token.Position
}

// Graph is what the source says.
type Graph struct {
	Modules []string // the declared order: each may call only those before it
	Calls   []Call
	Events  []*Event

	root     string
	found    []string // folders in modules/
	listed   map[string]token.Position
	problems []Problem
}

// Read builds the graph of the tree in root from its loaded packages.
func Read(root string, pkgs []*packages.Package) *Graph {
	g := &Graph{root: root, listed: map[string]token.Position{}}
	g.readList()
	g.found = folders(filepath.Join(root, "modules"))
	if len(g.Modules) == 0 {
		g.Modules = slices.Clone(g.found)
	}
	events := map[string]*Event{} // by api package path and type name
	calls := map[[2]string]token.Position{}
	for _, p := range pkgs {
		if p.ID == p.PkgPath && p.Types != nil && tree.APIOwner(p.PkgPath) != "" && place(p).Layer == tree.API {
			g.declared(p, events)
		}
	}
	for _, p := range pkgs {
		if p.ID == p.PkgPath && p.Types != nil && place(p).Layer == tree.Module {
			g.module(p, place(p).Name, events, calls)
		}
	}
	for k, pos := range calls {
		g.Calls = append(g.Calls, Call{k[0], k[1], pos})
	}
	slices.SortFunc(g.Calls, func(a, b Call) int {
		return cmp.Or(cmp.Compare(g.index(a.From), g.index(b.From)), cmp.Compare(g.index(a.To), g.index(b.To)), cmp.Compare(a.To, b.To))
	})
	for _, e := range events {
		slices.SortFunc(e.Hearers, func(a, b Hearer) int {
			return cmp.Or(cmp.Compare(g.index(a.Module), g.index(b.Module)), cmp.Compare(a.Consumer, b.Consumer))
		})
		g.Events = append(g.Events, e)
	}
	slices.SortFunc(g.Events, func(a, b *Event) int {
		return cmp.Or(cmp.Compare(g.index(a.Owner), g.index(b.Owner)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
	})
	return g
}

func place(p *packages.Package) tree.Place {
	if p.Module != nil {
		return tree.Classify(p.Module.Path, p.PkgPath)
	}
	return tree.Place{}
}

func folders(dir string) (out []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !strings.HasPrefix(e.Name(), "_") {
			out = append(out, e.Name())
		}
	}
	return out
}

func (g *Graph) index(m string) int {
	if i := slices.Index(g.Modules, m); i >= 0 {
		return i
	}
	return len(g.Modules)
}

// readList reads the calls host.Of("orders", …) of cmd/shop/modules.go in their order. It parses the file alone, so the order is
// known even while something in cmd does not compile.
func (g *Graph) readList() {
	name := filepath.Join(g.root, "cmd", "shop", "modules.go")
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, nil, 0)
	if err != nil {
		return
	}
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		fun := call.Fun
		if ix, ok := fun.(*ast.IndexExpr); ok {
			fun = ix.X
		}
		sel, ok := fun.(*ast.SelectorExpr)
		if !ok || sel.Sel.Name != "Of" {
			return true
		}
		if id, ok := sel.X.(*ast.Ident); !ok || id.Name != "host" {
			return true
		}
		lit, ok := call.Args[0].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			g.problem(fset.Position(call.Pos()), "the name of a module in this list must be a string literal: tools read it")
			return true
		}
		m, _ := strconv.Unquote(lit.Value)
		if _, twice := g.listed[m]; twice {
			g.problem(fset.Position(call.Pos()), "module %s is in the list twice", m)
		}
		g.listed[m] = fset.Position(call.Pos())
		g.Modules = append(g.Modules, m)
		return true
	})
}

func (g *Graph) problem(pos token.Position, format string, args ...any) {
	g.problems = append(g.problems, Problem{pos, fmt.Sprintf(format, args...)})
}

// declared notes the events a contract declares.
func (g *Graph) declared(p *packages.Package, events map[string]*Event) {
	for _, f := range p.Syntax {
		for _, d := range f.Decls {
			fd, ok := d.(*ast.FuncDecl)
			if !ok || fd.Name.Name != "EventName" || fd.Recv == nil {
				continue
			}
			recv := code.Receiver(p.TypesInfo, fd)
			name, _ := code.EventName(p.TypesInfo, fd)
			if recv == nil || name == "" {
				continue // topics reports it
			}
			events[key(recv)] = &Event{Owner: tree.APIOwner(p.PkgPath), Type: recv.Obj().Name(), Name: name, Pos: p.Fset.Position(recv.Obj().Pos())}
		}
	}
}

// key names a type across packages that were loaded apart, from source and from export data.
func key(n *types.Named) string { return n.Obj().Pkg().Path() + "." + n.Obj().Name() }

// module reads what one package of a module calls, publishes and hears.
func (g *Graph) module(p *packages.Package, m string, events map[string]*Event, calls map[[2]string]token.Position) {
	info := p.TypesInfo
	call := func(to string, pos token.Pos) {
		if to == "" || to == m {
			return
		}
		k := [2]string{m, to}
		at := p.Fset.Position(pos)
		if old, ok := calls[k]; !ok || at.Filename < old.Filename || at.Filename == old.Filename && at.Offset < old.Offset {
			calls[k] = at
		}
	}
	makes := func(t types.Type) {
		if n := code.Named(t); n != nil && n.Obj().Pkg() != nil {
			if e := events[key(n)]; e != nil && e.Owner == m {
				e.Published = true
			}
		}
	}
	for _, f := range p.Syntax {
		if tree.IsTest(p.Fset, f.Pos()) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.StructType:
				for _, fl := range n.Fields.List {
					if to, ok := code.IsContract(info.TypeOf(fl.Type)); ok {
						call(to, fl.Pos())
					}
				}
			case *ast.SelectorExpr:
				if s := info.Selections[n]; s != nil {
					if to, ok := code.IsContract(s.Recv()); ok {
						call(to, n.Pos())
					}
				}
				if fn, ok := info.Uses[n.Sel].(*types.Func); ok && fn.Name() == "Dial" && fn.Pkg() != nil {
					call(tree.APIOwner(fn.Pkg().Path()), n.Pos())
				}
			case *ast.CompositeLit:
				if t := info.TypeOf(n); t != nil {
					makes(t)
				}
			case *ast.CallExpr:
				if code.IsPlatformFunc(code.Callee(info, n), "events", "Publish") {
					for _, a := range n.Args[min(2, len(n.Args)):] {
						makes(info.TypeOf(a))
					}
				}
				g.hears(p, m, n, events)
			}
			return true
		})
	}
}

func (g *Graph) hears(p *packages.Package, m string, n *ast.CallExpr, events map[string]*Event) {
	f := code.Callee(p.TypesInfo, n)
	on, broadcast := code.IsPlatformFunc(f, "events", "On"), code.IsPlatformFunc(f, "events", "Broadcast")
	if !on && !broadcast {
		return
	}
	var inst types.Instance
	ast.Inspect(n.Fun, func(x ast.Node) bool {
		if id, ok := x.(*ast.Ident); ok && p.TypesInfo.Instances[id].TypeArgs != nil && p.TypesInfo.Uses[id].Name() == f.Name() {
			inst = p.TypesInfo.Instances[id]
		}
		return true
	})
	if inst.TypeArgs == nil || inst.TypeArgs.Len() == 0 {
		return
	}
	t := code.Named(inst.TypeArgs.At(0))
	if t == nil || t.Obj().Pkg() == nil || types.IsInterface(t) {
		return // topics reports it
	}
	pos := p.Fset.Position(n.Pos())
	e := events[key(t)]
	if e == nil {
		g.problem(pos, "%s hears %s.%s, which no contract declares as an event", m, t.Obj().Pkg().Name(), t.Obj().Name())
		return
	}
	h := Hearer{Module: m, Broadcast: broadcast, Pos: pos}
	if on && len(n.Args) > 1 {
		h.Consumer, _ = code.String(p.TypesInfo, n.Args[1])
	}
	e.Hearers = append(e.Hearers, h)
}

// Check holds the graph to its rules: every module is in the list and every list entry is there, calls go up the list, and every
// event that is heard is published by its owner and the other way round.
func (g *Graph) Check() []Problem {
	ps := slices.Clone(g.problems)
	add := func(pos token.Position, format string, args ...any) {
		ps = append(ps, Problem{pos, fmt.Sprintf(format, args...)})
	}
	at := func(parts ...string) token.Position {
		return token.Position{Filename: filepath.Join(append([]string{g.root}, parts...)...), Line: 1, Column: 1}
	}
	if len(g.listed) == 0 && len(g.found) > 0 {
		add(at("cmd", "shop", "modules.go"), "there is no list of modules: cmd/shop/modules.go names them in dependency order with host.Of(\"orders\", orders.Build)")
	}
	for _, m := range g.found {
		if _, ok := g.listed[m]; !ok && len(g.listed) > 0 {
			add(at("modules", m), "module %s is not in cmd/shop/modules.go, so it never runs: add host.Of(%q, %s.Build)", m, m, m)
		}
	}
	for m, pos := range g.listed {
		if !slices.Contains(g.found, m) {
			add(pos, "there is no folder modules/%s", m)
		}
	}
	for _, m := range folders(filepath.Join(g.root, "db")) {
		if !slices.Contains(g.found, m) {
			add(at("db", m), "db/%s belongs to no module: there is no modules/%s", m, m)
		}
	}
	for _, c := range g.Calls {
		switch {
		case !slices.Contains(g.found, c.To):
			add(c.Pos, "%s calls %s, but there is no modules/%s", c.From, c.To, c.To)
		case !slices.Contains(g.Modules, c.To), !slices.Contains(g.Modules, c.From):
			// reported above: not in the list
		case g.index(c.To) > g.index(c.From):
			if loop := g.path(c.To, c.From); loop != nil {
				add(c.Pos, "%s calls %s, and %s calls back (%s → %s): calls must not go round; let %s hear an event of %s", c.From, c.To, c.To, c.From, strings.Join(loop, " → "), c.To, c.From)
			} else {
				add(c.Pos, "%s calls %s, which stands below it in cmd/shop/modules.go: calls go up the list, so publish an event that %s hears, or move %s up", c.From, c.To, c.To, c.To)
			}
		}
	}
	for _, e := range g.Events {
		switch {
		case !e.Published && len(e.Hearers) > 0:
			h := e.Hearers[0]
			add(h.Pos, "%s hears %s, which %s declares but nobody publishes", h.Module, e.Name, e.Owner)
		case !e.Published:
			add(e.Pos, "event %s (%s) is declared but nobody publishes it: publish it, or delete it before somebody relies on it", e.Type, e.Name)
		}
	}
	sort.SliceStable(ps, func(i, j int) bool { return ps[i].Pos.String() < ps[j].Pos.String() })
	return ps
}

// path is a way along calls, nil if there is none.
func (g *Graph) path(from, to string) []string {
	seen := map[string]bool{}
	var walk func(m string) []string
	walk = func(m string) []string {
		if m == to {
			return []string{m}
		}
		if seen[m] {
			return nil
		}
		seen[m] = true
		for _, c := range g.Calls {
			if c.From == m {
				if rest := walk(c.To); rest != nil {
					return append([]string{m}, rest...)
				}
			}
		}
		return nil
	}
	return walk(from)
}
