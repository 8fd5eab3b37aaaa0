package graph

import (
	"fmt"
	"strings"
)

// Markdown is the graph as docs/graph.md shows it. It holds no position, so it changes only when the graph does.
func (g *Graph) Markdown() string {
	var b strings.Builder
	b.WriteString("# Who calls whom, and who hears whom\n\n")
	b.WriteString("Read from the source by `go run ./lint/cmd/shoplint graph > docs/graph.md`; a test compares. Calls go up the list of\n")
	b.WriteString("modules in `cmd/shop/modules.go`, events go anywhere.\n\n## Calls\n\n```mermaid\nflowchart BT\n")
	for _, m := range g.Modules {
		fmt.Fprintf(&b, "  %s\n", m)
	}
	for _, c := range g.Calls {
		fmt.Fprintf(&b, "  %s --> %s\n", c.From, c.To)
	}
	b.WriteString("```\n\n## Events\n\n```mermaid\nflowchart LR\n")
	for _, e := range g.Events {
		done := map[string]bool{}
		for _, h := range e.Hearers {
			if !done[h.Module] {
				fmt.Fprintf(&b, "  %s -- %s --> %s\n", e.Owner, e.Type, h.Module)
			}
			done[h.Module] = true
		}
	}
	b.WriteString("```\n\n| event | published by | heard by |\n|---|---|---|\n")
	for _, e := range g.Events {
		var hs []string
		for _, h := range e.Hearers {
			if h.Broadcast {
				hs = append(hs, h.Module+" (every instance)")
			} else {
				hs = append(hs, fmt.Sprintf("%s (%s)", h.Module, h.Consumer))
			}
		}
		if len(hs) == 0 {
			hs = []string{"nobody yet"}
		}
		by := e.Owner
		if !e.Published {
			by = "nobody"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", e.Name, by, strings.Join(hs, ", "))
	}
	return b.String()
}
