package escape

import (
	_ "embed"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/internal/manual"
	"github.com/banyan-shop/banyan/lint/tree"
	"github.com/banyan-shop/banyan/lint/waiver"
)

//go:embed doc.go
var doc string

// Analyzer shuts the doors behind the compiler's back.
var Analyzer = &analysis.Analyzer{Name: "escape", Doc: manual.Of(doc), Run: run}

var imports = map[string]string{
	"unsafe": "package unsafe reads and writes what the compiler protects",
	"C":      "cgo leaves Go's rules",
	"plugin": "a plugin is code nobody has checked",
}

func run(pass *analysis.Pass) (any, error) {
	p := tree.Of(pass)
	switch p.Layer {
	case tree.Module, tree.API, tree.APITest, tree.Cmd:
	default:
		return nil, nil
	}
	if tree.IsTestMain(pass.Pkg.Path()) || len(pass.Files) == 0 {
		return nil, nil
	}
	ws := waiver.New(pass)
	defer ws.Close()
	for _, f := range pass.Files {
		name := filepath.Base(pass.Fset.File(f.Pos()).Name())
		if name == "_cgo_gotypes.go" {
			continue // made by cgo; the file that asked for it is reported
		}
		if strings.HasSuffix(name, ".cgo1.go") {
			ws.Report(f.Name.Pos(), `import "C" is refused here: %s`, imports["C"])
			continue
		}
		syntax(ws, f, true)
	}
	for _, name := range pass.IgnoredFiles {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		if f, err := parser.ParseFile(pass.Fset, name, nil, parser.ParseComments); err == nil {
			syntax(ws, f, false)
		}
	}
	for _, name := range slices.Concat(pass.OtherFiles, pass.IgnoredFiles) {
		switch ext := filepath.Ext(name); ext {
		case ".s", ".S", ".sx", ".c", ".cc", ".cpp", ".cxx", ".m", ".h", ".hh", ".hpp", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx", ".syso":
			ws.Report(pass.Files[0].Name.Pos(), "%s is refused beside this package: %s is not Go, so no rule holds in it", filepath.Base(name), ext)
		}
	}
	for id, obj := range pass.TypesInfo.Uses {
		f, ok := obj.(*types.Func)
		if !ok || f.Pkg() == nil || f.Pkg().Path() != "reflect" {
			continue
		}
		switch f.Name() {
		case "NewAt", "UnsafeAddr", "UnsafePointer", "Pointer":
			ws.Report(id.Pos(), "reflect's %s is refused here: it reaches what is unexported", f.Name())
		}
	}
	return nil, nil
}

// syntax checks what can be seen without types. bodies is false where a missing body may be another build's business.
func syntax(ws *waiver.Set, f *ast.File, bodies bool) {
	for _, imp := range f.Imports {
		path := strings.Trim(imp.Path.Value, "\"`")
		if why, ok := imports[path]; ok {
			ws.Report(imp.Pos(), "import %q is refused here: %s", path, why)
		}
	}
	for _, g := range f.Comments {
		for _, c := range g.List {
			if strings.HasPrefix(c.Text, "//go:linkname") {
				ws.Report(c.Pos(), "go:linkname is refused here: it calls what its owner has not exported; use the contract")
			}
		}
	}
	if !bodies {
		return
	}
	for _, d := range f.Decls {
		if fd, ok := d.(*ast.FuncDecl); ok && fd.Body == nil && fd.Name.Pos() != token.NoPos {
			ws.Report(fd.Pos(), "func %s has no body here: it would be somebody else's code under this name", fd.Name.Name)
		}
	}
}
