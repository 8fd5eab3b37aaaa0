package driver

import (
	_ "embed"
	"go/ast"
	"go/types"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/code"
	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer keeps the driver in one place and floats out of money.
var Analyzer = &analysis.Analyzer{Name: "driver", Doc: manual.Of(doc), Run: run}

// others are drivers we do not use.
var others = []string{
	"github.com/jackc/pgx", "github.com/go-sql-driver/mysql", "github.com/mattn/go-sqlite3", "modernc.org/sqlite", "github.com/uptrace/bun",
	"gorm.io/gorm",
}

// openers may open a database.
var openers = []string{"pg", "migrate", "pgembed", "shoptest"}

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	if p.Layer == tree.Lint || tree.IsTestMain(pass.Pkg.Path()) {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	for _, f := range pass.Files {
		for _, imp := range f.Imports {
			path, _ := strconv.Unquote(imp.Path.Value)
			if under(path, "github.com/lib/pq") && !(p.Layer == tree.Platform && p.Name == "pg") {
				ws.Report(imp.Pos(), "only platform/pg imports lib/pq: it takes the driver's sharp edges off; use pg.Array, pg.IsUnique and the rest")
			}
			for _, o := range others {
				if under(path, o) {
					ws.Report(imp.Pos(), "%s is not our driver: use platform/pg", path)
				}
			}
		}
	}
	if p.Layer != tree.Platform || !slices.Contains(openers, p.Name) {
		opens(pass, ws)
	}
	inMoney := pass.Pkg.Name() == "money"
	if inMoney || p.Layer == tree.Module || p.Layer == tree.API || p.Layer == tree.APITest || p.Layer == tree.Cmd {
		floats(pass, ws, inMoney)
	}
	return nil, nil
}

func under(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }

// opens refuses the functions that open a database, called or taken as values.
func opens(pass *analysis.Pass, ws *waiver.Set) {
	for id, obj := range pass.TypesInfo.Uses {
		f, ok := obj.(*types.Func)
		if !ok || f.Pkg() == nil || f.Signature().Recv() != nil {
			continue
		}
		switch f.Pkg().Path() {
		case "database/sql":
			if f.Name() != "Open" && f.Name() != "OpenDB" && f.Name() != "Register" {
				continue
			}
		case "github.com/jmoiron/sqlx":
			switch f.Name() {
			case "Open", "MustOpen", "Connect", "MustConnect", "ConnectContext", "NewDb":
			default:
				continue
			}
		default:
			continue
		}
		ws.Report(id.Pos(), "%s.%s is for platform/pg: a pool opened elsewhere has no role, no deadlines and no commit resolution; take the *pg.DB the host gives", f.Pkg().Name(), f.Name())
	}
}

const help = "money is whole minor units: money.Amount"

func floats(pass *analysis.Pass, ws *waiver.Set, all bool) {
	for _, f := range pass.Files {
		if tree.IsTest(pass.Fset, f.Pos()) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				v, ok := pass.TypesInfo.Defs[n].(*types.Var)
				if ok && code.IsFloat(v.Type()) && (all || speaks(n.Name, v.Type())) {
					ws.Report(n.Pos(), "%s is a float: %s", n.Name, help)
					return true
				}
				if tn, ok := pass.TypesInfo.Defs[n].(*types.TypeName); ok && code.IsFloat(tn.Type()) && (all || code.IsMoneyName(n.Name)) {
					ws.Report(n.Pos(), "%s is a float: %s", n.Name, help)
				}
			case *ast.FuncDecl:
				if n.Type.Results != nil && (all || code.IsMoneyName(n.Name.Name)) {
					for _, r := range n.Type.Results.List {
						if t := pass.TypesInfo.TypeOf(r.Type); t != nil && code.IsFloat(t) && len(r.Names) == 0 {
							ws.Report(r.Pos(), "%s returns a float: %s", n.Name.Name, help)
						}
					}
				}
			case *ast.CallExpr:
				// A conversion of something that speaks of money: float64(total.Minor).
				tv := pass.TypesInfo.Types[n.Fun]
				if tv.IsType() && code.IsFloat(tv.Type) && len(n.Args) == 1 && (all || operand(pass, n.Args[0])) {
					ws.Report(n.Pos(), "money turned into a float: %s", help)
				}
			case *ast.BasicLit:
				if t := pass.TypesInfo.TypeOf(n); all && t != nil && code.IsFloat(t) {
					ws.Report(n.Pos(), "a float in package money: %s", help)
				}
			}
			return true
		})
	}
}

// speaks says whether a variable's name or its type's name is about money.
func speaks(name string, t types.Type) bool {
	if code.IsMoneyName(name) {
		return true
	}
	n := code.Named(t)
	return n != nil && code.IsMoneyName(n.Obj().Name())
}

// operand says whether anything in e is about money: a name, or a part of a money.Amount.
func operand(pass *analysis.Pass, e ast.Expr) (found bool) {
	ast.Inspect(e, func(n ast.Node) bool {
		x, ok := n.(ast.Expr)
		if !ok || found {
			return false
		}
		if id, ok := x.(*ast.Ident); ok && code.IsMoneyName(id.Name) {
			found = true
		}
		if t := pass.TypesInfo.TypeOf(x); t != nil && code.IsPlatformType(t, "money", "Amount") {
			found = true
		}
		return !found
	})
	return found
}
