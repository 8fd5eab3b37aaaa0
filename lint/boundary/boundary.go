package boundary

import (
	_ "embed"
	"fmt"
	"go/ast"
	"go/parser"
	"go/types"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps every import running downwards.
var Analyzer = &analysis.Analyzer{Name: "boundary", Doc: manual.Of(doc), Run: run, RunDespiteErrors: true}

// leaves are the platform packages that everything else may stand on.
var leaves = []string{"errs", "config", "money", "ids", "telemetry"}

// hidden are the libraries that one platform package hides from everybody else.
var hidden = []struct {
	prefix string
	by     []string
	use    string
}{
	{"github.com/labstack/echo", []string{"web", "gateway", "host", "rpc", "shoptest"}, "declare routes with platform/web"},
	{"github.com/danielgtaylor/huma", []string{"web", "gateway", "host", "shoptest"}, "declare routes with platform/web"},
	{"github.com/ThreeDotsLabs/watermill", []string{"events", "host", "shoptest"}, "publish and hear through platform/events"},
	{"github.com/nats-io", []string{"events", "host", "shoptest"}, "publish and hear through platform/events"},
	{"connectrpc.com/connect", []string{"rpc", "host", "gateway", "shoptest"}, "bind the method with platform/rpc"},
	{"github.com/jmoiron/sqlx", []string{"pg", "events", "migrate", "shoptest", "web", "host"}, "use platform/pg"},
	{"github.com/pressly/goose", []string{"migrate", "shoptest"}, "put the migration into db/<module>"},
}

func run(pass *analysis.Pass) (any, error) {
	path := pass.Pkg.Path()
	if tree.IsTestMain(path) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	p := tree.Of(pass)
	if p.Layer == tree.Unclassified && len(pass.Files) > 0 {
		ws.Report(pass.Files[0].Name.Pos(), "package %s is in no layer: put it below cmd, modules, api/<module>api, platform, db or lint", p.Path)
	}
	check := func(f *ast.File, test bool) {
		for _, imp := range f.Imports {
			to, err := strconv.Unquote(imp.Path.Value) // double and back quotes alike
			if err != nil {
				continue
			}
			if why := refuse(p, to, test); why != "" {
				ws.Report(imp.Pos(), "%s", why)
			}
		}
	}
	for _, f := range pass.Files {
		check(f, tree.IsTest(pass.Fset, f.Pos()))
	}
	// Files that build tags leave out are read too, so a border can't be crossed behind a tag.
	for _, name := range pass.IgnoredFiles {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		if f, err := parser.ParseFile(pass.Fset, name, src, parser.ImportsOnly|parser.ParseComments); err == nil {
			check(f, strings.HasSuffix(name, "_test.go"))
		}
	}
	identities(pass, ws, p)
	return nil, nil
}

// self is how a message calls the importing package.
func self(p tree.Place) string {
	switch p.Layer {
	case tree.Module:
		return p.Name
	case tree.API:
		return p.Name + "api"
	case tree.APITest:
		return p.Name + "test"
	case tree.Platform:
		return "platform/" + p.Name
	case tree.Cmd:
		return "cmd/" + p.Name
	case tree.DB:
		return "db"
	case tree.Lint:
		return "lint"
	}
	return p.Path
}

// refuse says why p may not import to; "" if it may.
func refuse(p tree.Place, to string, test bool) string {
	q := p.Import(to)
	me := self(p)
	if q.Layer == tree.Foreign {
		for _, h := range hidden {
			if to != h.prefix && !strings.HasPrefix(to, h.prefix+"/") {
				continue
			}
			switch {
			case p.Layer == tree.Lint, p.Layer == tree.Platform && slices.Contains(h.by, p.Name):
			case p.Layer == tree.Platform:
				return fmt.Sprintf("%s must not import %s: only platform/%s does", me, to, strings.Join(h.by, ", platform/"))
			default:
				return fmt.Sprintf("%s must not import %s: %s", me, to, h.use)
			}
		}
		return ""
	}
	if q.Layer == tree.Unclassified {
		return fmt.Sprintf("%s must not import %s: it is in no layer", me, to)
	}
	tests := test || p.Layer == tree.APITest
	switch q.Layer {
	case tree.Cmd:
		if p.Layer == tree.Cmd && p.Name == q.Name {
			return ""
		}
		return fmt.Sprintf("%s must not import cmd/%s: a program is nobody's library", me, q.Name)
	case tree.Lint:
		if p.Layer == tree.Lint {
			return ""
		}
		return fmt.Sprintf("%s must not import %s: lint looks at the shop, the shop does not know it", me, to)
	case tree.DB:
		if p.Layer == tree.Cmd || p.Layer == tree.DB || p.Layer == tree.Platform && (test || p.Name == "shoptest") {
			return ""
		}
		return fmt.Sprintf("%s must not import db: cmd hands the migrations to the host", me)
	case tree.Module:
		switch {
		case p.Layer == tree.Cmd, p.Layer == tree.Module && p.Name == q.Name:
			return ""
		case p.Layer == tree.Module:
			return fmt.Sprintf("%s must not import module %s: call it through api/%sapi, or subscribe to its events", me, q.Name, q.Name)
		case p.Layer == tree.API, p.Layer == tree.APITest:
			return fmt.Sprintf("%s must not import module %s: a contract knows no module; callers depend on it so that they need not depend on the module", me, q.Name)
		}
		return fmt.Sprintf("%s must not import module %s: the modules stand on it, not the other way round", me, q.Name)
	case tree.APITest:
		if !tests {
			return fmt.Sprintf("%s must not import %s outside tests: fakes and suites are for tests", me, to)
		}
		fallthrough
	case tree.API:
		switch p.Layer {
		case tree.Cmd, tree.Module:
			return ""
		case tree.API, tree.APITest:
			if p.Name == q.Name {
				return ""
			}
			return fmt.Sprintf("%s must not import contract %sapi: contracts know no other contract; carry its ids as ids.ID and its facts as plain values", me, q.Name)
		}
		return fmt.Sprintf("%s must not import contract %sapi: it knows no module's name", me, q.Name)
	case tree.Platform:
		switch {
		case p.Layer == tree.DB, p.Layer == tree.Lint:
			return fmt.Sprintf("%s must not import platform/%s: it imports nothing of ours", me, q.Name)
		case q.Name == "shoptest" && !tests && !(p.Layer == tree.Platform && p.Name == "shoptest"):
			return fmt.Sprintf("%s must not import platform/shoptest outside tests", me)
		case p.Layer == tree.Platform && slices.Contains(leaves, p.Name) && !slices.Contains(leaves, q.Name) && !test:
			return fmt.Sprintf("%s must not import platform/%s: it is a leaf, and leaves stand on leaves only", me, q.Name)
		}
	}
	return ""
}

// identities refuses the making of identities outside the platform: whoever can put one into a context is everybody.
func identities(pass *analysis.Pass, ws *waiver.Set, p tree.Place) {
	if p.Layer != tree.Module && p.Layer != tree.API && p.Layer != tree.APITest && p.Layer != tree.Cmd {
		return
	}
	for id, obj := range pass.TypesInfo.Uses {
		f, ok := obj.(*types.Func)
		if !ok || f.Pkg() == nil || !tree.IsPlatform(f.Pkg().Path(), "auth") || tree.IsTest(pass.Fset, id.Pos()) {
			continue
		}
		res := f.Signature().Results()
		for i := range res.Len() {
			if types.TypeString(res.At(i).Type(), nil) == "context.Context" {
				ws.Report(id.Pos(), "%s must not call auth.%s: only the platform makes identities, from a token or a caller it has checked", self(p), f.Name())
			}
		}
	}
}
