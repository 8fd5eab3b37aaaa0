package suite_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/suite"
)

func TestAnalyzersAreValid(t *testing.T) {
	t.Parallel()
	if err := analysis.Validate(suite.All()); err != nil {
		t.Fatal(err)
	}
}

// An analyzer is a folder with a manual and samples; one that is not in All would check nothing.
func TestEveryAnalyzerIsListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{"waiver": true}
	for _, a := range suite.All() {
		listed[a.Name] = true
		if len(a.Doc) < 100 {
			t.Errorf("%s has no manual: its doc.go needs a text below # Analyzer %s", a.Name, a.Name)
		}
	}
	docs, err := filepath.Glob("../*/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		dir := filepath.Dir(d)
		if !listed[filepath.Base(dir)] {
			t.Errorf("%s has a doc.go but is not in suite.All", dir)
		}
		if _, err := os.Stat(filepath.Join(dir, "testdata", "src")); err != nil {
			t.Errorf("%s has no samples: %v", dir, err)
		}
	}
}
