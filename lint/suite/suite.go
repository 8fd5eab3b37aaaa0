// Package suite lists the analyzers. Every driver runs all of them: a list on a command line would silently skip the rest.
package suite

import (
	"golang.org/x/tools/go/analysis"

	"github.com/banyan-shop/banyan/lint/boundary"
	"github.com/banyan-shop/banyan/lint/calltx"
	"github.com/banyan-shop/banyan/lint/contract"
	"github.com/banyan-shop/banyan/lint/crossschema"
	"github.com/banyan-shop/banyan/lint/driver"
	"github.com/banyan-shop/banyan/lint/escape"
	"github.com/banyan-shop/banyan/lint/globals"
	"github.com/banyan-shop/banyan/lint/topics"
	"github.com/banyan-shop/banyan/lint/waiver"
)

// All is every analyzer, and the one that watches the waivers.
func All() []*analysis.Analyzer {
	as := []*analysis.Analyzer{
		boundary.Analyzer, calltx.Analyzer, contract.Analyzer, crossschema.Analyzer,
		driver.Analyzer, escape.Analyzer, globals.Analyzer, topics.Analyzer,
	}
	var names []string
	for _, a := range as {
		names = append(names, a.Name)
	}
	return append(as, waiver.NewAnalyzer(names...))
}
