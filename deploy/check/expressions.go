package check

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"
)

// Rule is an alert or a recording rule.
type Rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Rules reads a file of rules. What Prometheus would refuse of them, promtool says.
func Rules(file string) (all []Rule, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var f struct {
		Groups []struct {
			Rules []Rule `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for _, g := range f.Groups {
		all = append(all, g.Rules...)
	}
	return all, nil
}

// Dashboard is the part of Grafana's model that can be wrong without Grafana saying so.
type Dashboard struct {
	File       string `json:"-"`
	UID        string `json:"uid"`
	Title      string `json:"title"`
	Templating struct {
		List []struct{ Name, Type string } `json:"list"`
	} `json:"templating"`
	Panels []struct {
		ID         int
		Type       string
		Title      string
		Datasource struct{ UID string }
		GridPos    struct{ X, Y, W, H int }
		Targets    []struct {
			RefID      string
			Expr       string
			Datasource struct{ UID string }
		}
	} `json:"panels"`
}

// Dashboards reads all in dir.
func Dashboards(dir string) (all []Dashboard, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		d := Dashboard{File: filepath.Base(file)}
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = append(all, d)
	}
	return all, nil
}

// AsRules are the expressions of dashboards as recording rules, with Grafana's variables filled in, so that promtool can parse
// them.
func AsRules(dashboards []Dashboard) ([]byte, error) {
	type group struct {
		Name  string `json:"name"`
		Rules []Rule `json:"rules"`
	}
	var groups []group
	for _, d := range dashboards {
		g := group{Name: d.UID}
		for _, p := range d.Panels {
			for _, t := range p.Targets {
				g.Rules = append(g.Rules, Rule{
					Record: fmt.Sprintf("%s:panel_%d:%s", strings.ReplaceAll(d.UID, "-", "_"), p.ID, strings.ToLower(t.RefID)),
					Expr:   strings.ReplaceAll(t.Expr, "$__rate_interval", "1m"),
				})
			}
		}
		groups = append(groups, g)
	}
	return yaml.Marshal(map[string]any{"groups": groups})
}

var (
	quoted   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	metric   = regexp.MustCompile(`\b(?:banyan|go|process|promhttp)_[a-z0-9_]+\b|\bup\b|\b[a-z_]+:[a-z0-9_:]+\b`)
	matchers = regexp.MustCompile(`\{[^}]*\}`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
)

// Metrics are the names of metrics in an expression: of the shop, of its runtime, up, and those that rules record. The parts
// of a histogram count as the histogram.
func Metrics(expr string) (names []string) {
	expr = grouping.ReplaceAllString(matchers.ReplaceAllString(quoted.ReplaceAllString(expr, ""), ""), "")
	for _, name := range metric.FindAllString(expr, -1) {
		names = append(names, strings.TrimSuffix(name, "_bucket"))
	}
	return names
}
