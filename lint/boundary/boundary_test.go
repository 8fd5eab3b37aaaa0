package boundary_test

import (
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/banyan-shop/banyan/lint/boundary"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestBoundary(t *testing.T) {
	linttest.Run(t, boundary.Analyzer,
		"shop/api/...", "shop/cmd/...", "shop/db", "shop/lint/...", "shop/misc", "shop/platform/...", "shop/modules/orders/...")
}

// A border crossed behind a build tag is found although no compiler has looked at the file.
func TestTaggedFile(t *testing.T) {
	var found []string
	for _, r := range analysistest.Run(recorder{}, linttest.Dir(t), boundary.Analyzer, "shop/modules/reviews") {
		for _, d := range r.Action.Diagnostics {
			if name := r.Action.Package.Fset.Position(d.Pos).Filename; len(name) > 9 && name[len(name)-9:] == "tagged.go" {
				found = append(found, d.Message)
			}
		}
	}
	if len(found) == 0 {
		t.Error("the import in tagged.go went unseen")
	}
}

// recorder swallows the unexpected findings in tagged.go, whose comments analysistest does not read.
type recorder struct{}

func (recorder) Errorf(string, ...any) {}
