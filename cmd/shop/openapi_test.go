package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
	"github.com/banyan-shop/banyan/platform/web"
)

// TestOpenAPIIsFresh holds the file that clients are made from to the routes as they are.
func TestOpenAPIIsFresh(t *testing.T) {
	t.Parallel()
	settings, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := web.OpenAPI(host.Routes(shop(settings)))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("..", "..", "api", "openapi.yaml")
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("api/openapi.yaml is stale: run make generate (-want +got):\n%.4000s", diff)
	}
}

var (
	operationForm = regexp.MustCompile(`^[a-z]+([A-Z][a-z0-9]*)*$`)
	fieldForm     = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)
)

// TestOpenAPIReadsWell looks for what makes a document hard to use and a generator stumble.
func TestOpenAPIReadsWell(t *testing.T) {
	t.Parallel()
	settings, err := config.Load(config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	_, b, err := web.OpenAPI(host.Routes(shop(settings)))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		OpenAPI string                               `json:"openapi"`
		Tags    []struct{ Name, Description string } `json:"tags"`
		Paths   map[string]map[string]struct {
			ID         string   `json:"operationId"`
			Summary    string   `json:"summary"`
			Tags       []string `json:"tags"`
			Parameters []struct{ Name, In, Description string }
			Responses  map[string]any   `json:"responses"`
			Security   []map[string]any `json:"security"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.OpenAPI != "3.1.0" {
		t.Errorf("OpenAPI %s", d.OpenAPI)
	}
	tags, used := map[string]bool{}, map[string]bool{}
	for _, tag := range d.Tags {
		if tags[tag.Name] || len(tag.Description) < 20 {
			t.Errorf("tag %s is there twice, or not described", tag.Name)
		}
		tags[tag.Name] = true
	}
	shapes := map[string]string{}
	for path, methods := range d.Paths {
		shape := parameter.ReplaceAllString(path, "{}")
		if other, ok := shapes[shape]; ok {
			t.Errorf("%s and %s are one path with two names for its parameters", path, other)
		}
		shapes[shape] = path
		for method, op := range methods {
			name := method + " " + path
			if !operationForm.MatchString(op.ID) || op.Summary == "" || strings.HasSuffix(op.Summary, ".") {
				t.Errorf("%s: operationId %q, summary %q", name, op.ID, op.Summary)
			}
			if len(op.Tags) != 1 || !tags[op.Tags[0]] {
				t.Errorf("%s: tags %v: one, declared with r.Tag", name, op.Tags)
			}
			used[op.Tags[0]] = true
			if len(op.Security) == 0 {
				t.Errorf("%s does not say who may call it", name)
			}
			for _, status := range []string{"400", "422", "429", "default"} {
				if op.Responses[status] == nil {
					t.Errorf("%s does not describe %s", name, status)
				}
			}
			for _, p := range op.Parameters {
				if (p.Name == "limit" || p.Name == "cursor" || p.In == "header") && p.Description == "" {
					t.Errorf("%s: parameter %s is not described", name, p.Name)
				}
			}
			if slices.ContainsFunc(op.Parameters, func(p struct{ Name, In, Description string }) bool { return p.Name == "limit" }) !=
				slices.ContainsFunc(op.Parameters, func(p struct{ Name, In, Description string }) bool { return p.Name == "cursor" }) {
				t.Errorf("%s: limit and cursor belong together", name)
			}
		}
	}
	for tag := range tags {
		if !used[tag] {
			t.Errorf("no route has the tag %s", tag)
		}
	}
	for name, s := range d.Components.Schemas {
		if strings.HasSuffix(name, "Struct") {
			t.Errorf("%s: give the type a name", name)
		}
		for field, p := range s.Properties {
			if !fieldForm.MatchString(field) {
				t.Errorf("%s.%s is not snake_case", name, field)
			}
			if money := d.Components.Schemas["Amount"].Properties; len(money) != 2 {
				t.Fatal("money has no schema of its own")
			}
			if p.is("number") && field != "average" {
				t.Errorf("%s.%s is a fraction: money and counts are whole", name, field)
			}
		}
	}
	var all struct {
		Components map[string]map[string]any `json:"components"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`"\$ref": "#/components/([a-z]+)/([A-Za-z0-9]+)"`).FindAllStringSubmatch(string(b), -1) {
		if all.Components[m[1]][m[2]] == nil {
			t.Fatalf("%s leads nowhere", m[0])
		}
	}
}
