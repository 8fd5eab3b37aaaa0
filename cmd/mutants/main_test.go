package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryMutantIsListed holds the table to the files: a twin that nobody runs proves nothing.
func TestEveryMutantIsListed(t *testing.T) {
	t.Parallel()
	tag := regexp.MustCompile(`(?m)^//go:build mutant_([a-z]+)$`)
	found := map[string]string{}
	for _, root := range []string{"modules", "platform"} {
		err := filepath.WalkDir(filepath.Join("../..", root), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_mutant.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			m := tag.FindSubmatch(text)
			if m == nil {
				t.Errorf("%s has no tag mutant_…", path)
				return nil
			}
			folder, err := filepath.Rel("../..", filepath.Dir(path))
			found[string(m[1])] = "./" + filepath.ToSlash(folder)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, folder := range found {
		if !slices.ContainsFunc(mutants, func(m mutant) bool { return m.name == name && m.pkg == folder }) {
			t.Errorf("mutant_%s of %s is not in the table", name, folder)
		}
	}
	if len(found) != len(mutants) {
		t.Errorf("%d mutants in the table, %d in the source", len(mutants), len(found))
	}
}
