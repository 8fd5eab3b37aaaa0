// Package linttest runs an analyzer over its samples. Samples lie in testdata/src/shop/… and import small stand-ins for the
// platform and for the libraries it hides, which this package adds, so that a sample shows nothing but the rule.
package linttest

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/analysistest"
	"golang.org/x/tools/txtar"
)

//go:embed stubs.txtar
var stubs []byte

// Run checks the // want comments of the packages that patterns name in testdata/src.
func Run(t *testing.T, a *analysis.Analyzer, patterns ...string) {
	t.Helper()
	analysistest.Run(t, Dir(t), a, patterns...)
}

// Dir is a copy of testdata with the stand-ins added.
func Dir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata")); err != nil {
		t.Fatal(err)
	}
	Write(t, filepath.Join(dir, "src"), stubs)
	return dir
}

// Write unpacks a txtar archive below dir and leaves files that exist alone.
func Write(t *testing.T, dir string, archive []byte) {
	t.Helper()
	for _, f := range txtar.Parse(archive).Files {
		name := filepath.Join(dir, filepath.FromSlash(f.Name))
		if _, err := os.Stat(name); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

//go:embed shop.txtar
var shop []byte

// Shop is a small shop that breaks no rule, as a Go module of its own in a temporary folder.
func Shop(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	Write(t, dir, shop)
	platform := &txtar.Archive{}
	for _, f := range txtar.Parse(stubs).Files {
		if name, ok := strings.CutPrefix(f.Name, "shop/"); ok {
			platform.Files = append(platform.Files, txtar.File{Name: name, Data: f.Data})
		}
	}
	Write(t, dir, txtar.Format(platform))
	return dir
}

// Edit replaces a file of a shop, or makes it.
func Edit(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
