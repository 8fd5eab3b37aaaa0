// Command shoplint holds the tree to its rules. It runs every analyzer; there is no flag to leave one out, since naming some
// would silently skip the rest.
//
//	shoplint [-o text|json] [packages]   the whole tree, uncached, in every tag set; exit 1 if something is found
//	shoplint graph                       the call and event graph as Markdown
//	shoplint help [analyzer]             the manual
//	go build -o bin/shoplint ./lint/cmd/shoplint && go vet -vettool=bin/shoplint ./...
//	                                     the fast loop: one package at a time, verdicts cached by go vet
//
// Only the first form decides: go vet caches its verdicts, and a file that a build tag leaves out is not in the cache's key; nor
// can one package see the graph.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/tools/go/analysis/unitchecker"

	"github.com/banyan-shop/banyan/lint/program"
	"github.com/banyan-shop/banyan/lint/suite"
)

func main() {
	// How go vet talks to a tool: -V=full for its version, -flags for its flags, then one .cfg a package. No flags are declared,
	// so go vet refuses to choose among the analyzers.
	args := os.Args[1:]
	switch {
	case len(args) == 1 && args[0] == "-V=full":
		unitchecker.Main(suite.All()...)
	case len(args) == 1 && args[0] == "-flags":
		fmt.Println("[]")
		return
	case len(args) > 0 && strings.HasSuffix(args[len(args)-1], ".cfg"):
		unitchecker.Run(args[len(args)-1], suite.All())
	}
	os.Exit(run(args, os.Stdout, os.Stderr))
}

// run is main without the process: 0 is clean, 1 is found, 2 is could not look.
func run(args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("shoplint", flag.ContinueOnError)
	fs.SetOutput(stderr)
	output := fs.String("o", "text", "output: text or json")
	fs.Usage = func() { fmt.Fprint(stderr, usage) }
	if err := fs.Parse(args); err != nil {
		return 2
	}
	if *output != "text" && *output != "json" {
		fmt.Fprintf(stderr, "shoplint: -o is text or json, not %s\n", *output)
		return 2
	}
	if fs.Arg(0) == "help" {
		return help(fs.Arg(1), stdout, stderr)
	}
	root, err := program.Root(".")
	if err != nil {
		fmt.Fprintln(stderr, "shoplint:", err)
		return 2
	}
	if fs.Arg(0) == "graph" {
		g, err := program.Graph(root)
		if err != nil {
			fmt.Fprintln(stderr, "shoplint:", err)
			return 2
		}
		fmt.Fprint(stdout, g.Markdown())
		return 0
	}
	found, err := program.Run(root, fs.Args()...)
	if err != nil {
		fmt.Fprintln(stderr, "shoplint:", err)
		return 2
	}
	if *output == "json" {
		if found == nil {
			found = []program.Finding{}
		}
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		if err := e.Encode(found); err != nil {
			fmt.Fprintln(stderr, "shoplint:", err)
			return 2
		}
	} else {
		for _, f := range found {
			fmt.Fprintln(stdout, f)
		}
	}
	if len(found) > 0 {
		return 1
	}
	return 0
}

const usage = `usage: shoplint [-o text|json] [packages]
       shoplint graph
       shoplint help [analyzer]

Without packages the whole tree is checked. Exit status: 0 clean, 1 something found, 2 could not look.
`

func help(name string, stdout, stderr io.Writer) int {
	for _, a := range suite.All() {
		switch {
		case name == "":
			first, _, _ := strings.Cut(strings.TrimPrefix(a.Doc, a.Name+": "), "\n")
			fmt.Fprintf(stdout, "%-12s %s\n", a.Name, first)
		case name == a.Name:
			fmt.Fprintln(stdout, a.Doc)
			return 0
		}
	}
	if name != "" {
		fmt.Fprintf(stderr, "shoplint: there is no analyzer %s\n", name)
		return 2
	}
	return 0
}
