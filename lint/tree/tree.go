// Package tree knows where a package stands in the shop's tree: which layer, whose. It reads nothing but import paths and
// file names, so every analyzer works without a list of modules and a new folder is known by its name.
package tree

import (
	"go/token"
	"path/filepath"
	"strings"

	"golang.org/x/tools/go/analysis"
)

// Layer is a floor of the tree. Imports run downwards only.
type Layer int

const (
	Foreign      Layer = iota // standard library or another Go module
	Unclassified              // ours, but in no layer
	Cmd                       // cmd/<program>
	Module                    // modules/<m>
	API                       // api/<m>api
	APITest                   // api/<m>api/<m>test: fakes and contract suites, for tests only
	Platform                  // platform/<p>
	DB                        // db: the embedded migrations
	Lint                      // lint/…
)

// Place is where a package stands.
type Place struct {
	Layer Layer
	// Name is the module (Module, API, APITest), the program (Cmd) or the platform package (Platform).
	Name string
	// Path is the import path without test decorations.
	Path string
	// Root is the import path of the tree; "" for Foreign.
	Root string
}

// Of is the place of the package a pass looks at.
func Of(pass *analysis.Pass) Place {
	path := Trim(pass.Pkg.Path())
	if pass.Module != nil && pass.Module.Path != "" {
		return Classify(pass.Module.Path, path)
	}
	return Classify(guessRoot(path), path)
}

// guessRoot is for drivers without go.mod (GOPATH mode in tests): what stands before the first layer's name.
func guessRoot(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		switch p {
		case "modules", "api", "platform", "cmd", "lint", "db":
			if i > 0 {
				return strings.Join(parts[:i], "/")
			}
		}
	}
	root, _, _ := strings.Cut(path, "/")
	return root
}

// Trim takes the decorations of test variants off an import path: "p [p.test]", "p_test" and "p.test" are all p.
func Trim(path string) string {
	path, _, _ = strings.Cut(path, " ")
	path = strings.TrimSuffix(path, ".test")
	return strings.TrimSuffix(path, "_test")
}

// IsTestMain says whether the path is the generated main package of a test binary.
func IsTestMain(path string) bool {
	path, _, _ = strings.Cut(path, " ")
	return strings.HasSuffix(path, ".test")
}

// Classify places an import path of a tree that begins at root.
func Classify(root, path string) Place {
	p := Place{Path: path}
	if path != root && !strings.HasPrefix(path, root+"/") {
		return p
	}
	p.Root, p.Layer = root, Unclassified
	parts := strings.Split(strings.TrimPrefix(strings.TrimPrefix(path, root), "/"), "/")
	layer, rest := parts[0], parts[1:]
	switch {
	case layer == "db" && len(rest) == 0:
		p.Layer, p.Name = DB, "db"
	case layer == "lint":
		p.Layer, p.Name = Lint, "lint"
	case len(rest) == 0:
	case layer == "cmd":
		p.Layer, p.Name = Cmd, rest[0]
	case layer == "modules":
		p.Layer, p.Name = Module, rest[0]
	case layer == "platform":
		p.Layer, p.Name = Platform, rest[0]
	case layer == "api" && len(rest[0]) > len("api") && strings.HasSuffix(rest[0], "api"):
		p.Layer, p.Name = API, strings.TrimSuffix(rest[0], "api")
		if len(rest) > 1 && rest[1] == p.Name+"test" {
			p.Layer = APITest
		}
	}
	return p
}

// Import places an import of the package at p.
func (p Place) Import(path string) Place {
	root := p.Root
	if root == "" {
		root = guessRoot(p.Path)
	}
	return Classify(root, path)
}

// IsPlatform says whether path is the platform package of that name, in whatever tree: a module that has moved to a repository
// of its own still uses ours.
func IsPlatform(path, name string) bool {
	return path == "platform/"+name || strings.HasSuffix(path, "/platform/"+name)
}

// APIOwner is the module whose contract a package path holds, or "".
func APIOwner(path string) string {
	parts := strings.Split(Trim(path), "/")
	for i := len(parts) - 2; i >= 0; i-- {
		if m, ok := strings.CutSuffix(parts[i+1], "api"); parts[i] == "api" && ok && m != "" {
			return m
		}
	}
	return ""
}

// Dir is the folder of the pass's files, "" if it has none.
func Dir(pass *analysis.Pass) string {
	for _, f := range pass.Files {
		name := pass.Fset.File(f.Pos()).Name()
		if filepath.IsAbs(name) && !strings.Contains(filepath.ToSlash(name), "/go-build") {
			return filepath.Dir(name)
		}
	}
	return ""
}

// RootDir is the folder of the tree's root, "" when it can't be told.
func RootDir(pass *analysis.Pass) string {
	p, dir := Of(pass), Dir(pass)
	if dir == "" {
		return ""
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(p.Path, p.Root), "/")
	root, ok := strings.CutSuffix(filepath.ToSlash(dir), rel)
	if !ok {
		return ""
	}
	return filepath.FromSlash(root)
}

// IsTest says whether pos is in a _test.go file.
func IsTest(fset *token.FileSet, pos token.Pos) bool {
	f := fset.File(pos)
	return f != nil && strings.HasSuffix(f.Name(), "_test.go")
}
