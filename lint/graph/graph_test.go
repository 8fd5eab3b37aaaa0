package graph_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/lint/linttest"
	"github.com/banyan-shop/banyan/lint/program"
)

func TestMarkdown(t *testing.T) {
	t.Parallel()
	g, err := program.Graph(linttest.Shop(t))
	if err != nil {
		t.Fatal(err)
	}
	got := g.Markdown()
	for _, want := range []string{
		"flowchart BT\n  payments\n  orders\n  orders --> payments\n",
		"flowchart LR\n  orders -- OrderPlaced --> payments\n",
		"| `orders.order_placed.v1` | orders | payments (capture) |\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not drawn:\n%s\nin\n%s", want, got)
		}
	}
}

// The picture in docs is the picture of the source.
func TestGraphIsFresh(t *testing.T) {
	t.Parallel()
	root, err := program.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(root, "docs", "graph.md"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := program.Graph(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), g.Markdown()); diff != "" {
		t.Errorf("docs/graph.md is old; run go run ./lint/cmd/shoplint graph > docs/graph.md\n%s", diff)
	}
}
