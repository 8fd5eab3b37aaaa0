// Package manual makes an analyzer's -help text of its doc.go, so that there is one text and it is the one people read.
package manual

import "strings"

// Of is what stands in the package comment below the line "# Analyzer <name>".
func Of(src string) string {
	var b strings.Builder
	on := false
	for line := range strings.Lines(src) {
		line, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "//")
		if !ok {
			break
		}
		line = strings.TrimPrefix(line, " ")
		switch {
		case strings.HasPrefix(line, "# Analyzer "):
			on = true
		case on && (b.Len() > 0 || line != ""):
			b.WriteString(line + "\n")
		}
	}
	return strings.TrimSpace(b.String())
}
