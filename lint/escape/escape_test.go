package escape_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/banyan-shop/banyan/lint/escape"
	"github.com/banyan-shop/banyan/lint/linttest"
)

func TestEscape(t *testing.T) {
	linttest.Run(t, escape.Analyzer, "shop/modules/orders", "shop/platform/errs")
}

// What build tags leave out is read too; analysistest does not read // want there, so this test says what it expects.
func TestTaggedFile(t *testing.T) {
	var found []string
	for _, r := range analysistest.Run(quiet{}, linttest.Dir(t), escape.Analyzer, "shop/modules/users") {
		for _, d := range r.Action.Diagnostics {
			found = append(found, d.Message)
		}
	}
	all := strings.Join(found, "\n")
	if len(found) != 2 || !strings.Contains(all, `import "C"`) || !strings.Contains(all, "go:linkname") {
		t.Errorf("want the import of C behind its tag and the linkname, got\n%s", all)
	}
}

type quiet struct{}

func (quiet) Errorf(string, ...any) {}
