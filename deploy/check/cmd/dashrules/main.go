// Command dashrules prints the expressions of the dashboards as rules, for promtool to parse.
package main

import (
	"fmt"
	"os"

	"github.com/banyan-shop/banyan/deploy/check"
)

func main() {
	all, err := check.Dashboards("../grafana/dashboards")
	if err == nil {
		var text []byte
		if text, err = check.AsRules(all); err == nil {
			_, err = os.Stdout.Write(text)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
