package check

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// load reads compose files as `docker compose -f …` does, its schema and the consistency of names included.
func load(t *testing.T, files ...string) *types.Project {
	t.Helper()
	paths := make([]string, len(files))
	for i, file := range files {
		paths[i] = filepath.Join("..", file)
	}
	o, err := cli.NewProjectOptions(paths, cli.WithProfiles([]string{"*"}), cli.WithConsistency(true), cli.WithInterpolation(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const shopImage = "banyan/shop:dev"

// composed are the ways to put the compose files together.
var composed = map[string][]string{
	"one":   {"compose.yaml"},
	"split": {"compose.yaml", "compose.split.yaml"},
}

func TestCompose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		shops   []string
		gateway string
	}{
		{"one", []string{"shop"}, "shop"},
		{"split", []string{"catalog", "edge", "main", "payments"}, "edge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := load(t, composed[c.name]...)
			var shops []string
			for name, s := range p.Services {
				if s.Image != shopImage {
					if s.HealthCheck == nil && s.Profiles == nil {
						t.Errorf("%s: has no health check to wait for", name)
					}
					continue
				}
				shops = append(shops, name)
				if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
					t.Errorf("%s: is not read-only without capabilities and new privileges", name)
				}
				if s.HealthCheck == nil || !slices.Equal(s.HealthCheck.Test, []string{"CMD", "/shop", "ready"}) {
					t.Errorf("%s: health check %v", name, s.HealthCheck)
				}
				if published := len(s.Ports) > 0; published != (name == c.gateway) {
					t.Errorf("%s: publishes %v", name, s.Ports)
				}
				for _, port := range s.Ports {
					if port.HostIP != "127.0.0.1" || port.Target != 8080 {
						t.Errorf("%s: publishes %v beyond this machine", name, port)
					}
				}
				if len(s.Configs) != 1 || s.Configs[0].Target != "/etc/banyan/shop.yaml" {
					t.Errorf("%s: reads %v", name, s.Configs)
				}
				if process := s.Environment["SHOP_PROCESS"]; c.name == "split" && (process == nil || *process != name) {
					t.Errorf("%s: is process %v", name, process)
				}
				for on := range s.DependsOn {
					if _, there := p.Services[on]; !there {
						t.Errorf("%s: waits for %s, which is not there", name, on)
					}
				}
			}
			slices.Sort(shops)
			if !slices.Equal(shops, c.shops) {
				t.Errorf("shop runs as %v, want %v", shops, c.shops)
			}
		})
	}
}
