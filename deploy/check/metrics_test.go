package check

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// notInOneProcess are metrics that a shop which has just started in one process does not show, and when it does. Their names
// are checked by the tests of the packages that make them.
var notInOneProcess = map[string]string{
	"up":                                   "Prometheus itself",
	"banyan_forwarded_total":               "when a gateway is in another process",
	"banyan_forwarded_seconds":             "when a gateway is in another process",
	"banyan_events_publish_failures_total": "when a carrier refuses",
	"banyan_rpc_failures_total":            "when a call fails",
	"banyan_rpc_breaker_state":             "when a callee is in another process",
	"banyan_rpc_remote_calls_total":        "when a callee is in another process",
	"banyan_rpc_retries_total":             "when a callee is in another process",
	"banyan_web_shed_total":                "when the shop is too full",
}

const rulesFile, dashboardDir = "../prometheus/rules.yaml", "../grafana/dashboards"

func rules(t *testing.T) []Rule {
	t.Helper()
	all, err := Rules(rulesFile)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d rules, %v", len(all), err)
	}
	return all
}

func dashboards(t *testing.T) []Dashboard {
	t.Helper()
	all, err := Dashboards(dashboardDir)
	if err != nil || len(all) == 0 {
		t.Fatalf("%d dashboards, %v", len(all), err)
	}
	return all
}

// used are the metrics that rules and dashboards name, each with a place where.
func used(t *testing.T) map[string]string {
	t.Helper()
	names, recorded := map[string]string{}, map[string]bool{}
	for _, r := range rules(t) {
		recorded[r.Record] = true
		for _, name := range Metrics(r.Expr) {
			names[name] = "rule " + r.Alert + r.Record
		}
	}
	for _, d := range dashboards(t) {
		for _, p := range d.Panels {
			for _, target := range p.Targets {
				found := Metrics(target.Expr)
				if len(found) == 0 {
					t.Errorf("%s: panel %q names no metric: %s", d.File, p.Title, target.Expr)
				}
				for _, name := range found {
					names[name] = d.File + " panel " + p.Title
				}
			}
		}
	}
	for name := range names {
		if recorded[name] {
			delete(names, name)
		}
	}
	return names
}

// exported boots the shop that the Dockerfile builds, on a database of its own, and looks for every metric that rules and
// dashboards name.
func exported(t *testing.T, shop string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "shop-metrics")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { // of root's shop, PostgreSQL runs as another user
		t.Fatal(err)
	}
	c := exec.CommandContext(ctx, shop, "serve", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0", "--set", "catalog.demo_products=20")
	c.Dir = t.TempDir()
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	talk, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var public, ops, said string
	lines := bufio.NewScanner(talk)
	address := regexp.MustCompile(`(is open at|metrics) +(http://[0-9.:]+)`)
	for ops == "" && lines.Scan() {
		said += lines.Text() + "\n"
		if m := address.FindStringSubmatch(lines.Text()); m != nil {
			if m[1] == "metrics" {
				ops = m[2]
			} else {
				public = m[2]
			}
		}
	}
	rest := make(chan struct{})
	go func() { defer close(rest); io.Copy(io.Discard, talk) }()
	defer func() {
		if err := c.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		<-rest
		if err := c.Wait(); err != nil {
			t.Errorf("SIGTERM: %v, want exit 0", err)
		}
	}()
	if ops == "" || public == "" {
		t.Fatalf("the shop did not say where it is:\n%s", said)
	}
	get(t, public+"/v1/products")
	names := used(t)
	tick := time.NewTicker(500 * time.Millisecond) // gauges from the database come within their poll
	defer tick.Stop()
	late := time.After(40 * time.Second)
	for {
		text := get(t, ops+"/metrics")
		there := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+)`).FindAllStringSubmatch(text, -1) {
			there[m[1]] = true
		}
		var missing []string
		for name, where := range names {
			if !there[name] && notInOneProcess[name] == "" {
				missing = append(missing, name+": "+where)
			}
		}
		if len(missing) == 0 {
			for name := range notInOneProcess {
				if there[name] {
					t.Errorf("%s is there after all: take it off the list", name)
				}
				if names[name] == "" {
					t.Errorf("%s is used nowhere: take it off the list", name)
				}
			}
			return
		}
		select {
		case <-tick.C:
		case <-late:
			slices.Sort(missing)
			t.Fatalf("no such metrics:\n%s", strings.Join(missing, "\n"))
		}
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d %v", url, res.StatusCode, err)
	}
	return string(text)
}

func TestDashboards(t *testing.T) {
	t.Parallel()
	uids := map[string]string{}
	for _, d := range dashboards(t) {
		if other, twice := uids[d.UID]; twice || d.UID == "" || d.UID+".json" != d.File {
			t.Errorf("%s: uid %q, as %q", d.File, d.UID, other)
		}
		uids[d.UID] = d.File
		if len(d.Templating.List) == 0 || d.Templating.List[0].Name != "datasource" || d.Templating.List[0].Type != "datasource" {
			t.Errorf("%s: has no variable for the data source", d.File)
		}
		ids, taken := map[int]bool{}, map[[2]int]string{}
		for _, p := range d.Panels {
			if ids[p.ID] || p.ID == 0 || p.Title == "" || len(p.Targets) == 0 {
				t.Errorf("%s: panel %d %q: no id or title of its own, or no query", d.File, p.ID, p.Title)
			}
			ids[p.ID] = true
			if p.Datasource.UID != "${datasource}" {
				t.Errorf("%s: panel %q asks %q", d.File, p.Title, p.Datasource.UID)
			}
			for _, target := range p.Targets {
				if target.Datasource.UID != "${datasource}" {
					t.Errorf("%s: panel %q asks %q", d.File, p.Title, target.Datasource.UID)
				}
			}
			if p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
				t.Errorf("%s: panel %q is wider than the page", d.File, p.Title)
			}
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					if other := taken[[2]int{x, y}]; other != "" {
						t.Fatalf("%s: panel %q lies on %q", d.File, p.Title, other)
					}
					taken[[2]int{x, y}] = p.Title
				}
			}
		}
		text, err := os.ReadFile(filepath.Join(dashboardDir, d.File))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "http://") || strings.Contains(string(text), "https://") {
			t.Errorf("%s: fetches something from elsewhere", d.File)
		}
	}
}

// TestAlerts: each alert tells how bad it is, in words, with a runbook that is there; and has a case that fires and one that
// does not. Whether the cases hold, promtool says.
func TestAlerts(t *testing.T) {
	t.Parallel()
	fires, silent := map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob("../prometheus/tests/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var f struct {
			Tests []struct {
				Alerts []struct {
					Name   string `json:"alertname"`
					Expect []any  `json:"exp_alerts"`
				} `json:"alert_rule_test"`
			} `json:"tests"`
		}
		if err := yaml.Unmarshal(text, &f); err != nil {
			t.Fatal(err)
		}
		for _, one := range f.Tests {
			for _, a := range one.Alerts {
				if len(a.Expect) > 0 {
					fires[a.Name] = true
				} else {
					silent[a.Name] = true
				}
			}
		}
	}
	books := map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if s := r.Labels["severity"]; s != "page" && s != "ticket" {
			t.Errorf("%s: severity %q, want page or ticket", r.Alert, s)
		}
		if r.Annotations["summary"] == "" {
			t.Errorf("%s: has no summary", r.Alert)
		}
		_, book, _ := strings.Cut(r.Annotations["runbook_url"], "/blob/main/")
		if want := "docs/runbooks/" + r.Alert + ".md"; book != want {
			t.Errorf("%s: runbook %q, want %s", r.Alert, book, want)
		}
		text, err := os.ReadFile("../../docs/runbooks/" + r.Alert + ".md")
		if err != nil || !strings.HasPrefix(string(text), "# "+r.Alert+"\n") || !strings.Contains(string(text), "\n## How to look\n") || !strings.Contains(string(text), "\n## What to do\n") {
			t.Errorf("%s: its runbook does not say what it is, how to look and what to do: %v", r.Alert, err)
		}
		books[r.Alert+".md"] = true
		if !fires[r.Alert] || !silent[r.Alert] {
			t.Errorf("%s: a case that fires: %v, one that does not: %v", r.Alert, fires[r.Alert], silent[r.Alert])
		}
	}
	pages, err := os.ReadDir("../../docs/runbooks")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([A-Za-z]+\.md)\)`)
	for _, p := range pages {
		if p.Name() != "README.md" && !books[p.Name()] {
			t.Errorf("docs/runbooks/%s belongs to no alert", p.Name())
		}
		text, err := os.ReadFile("../../docs/runbooks/" + p.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if !books[m[1]] {
				t.Errorf("docs/runbooks/%s leads to %s, which is not there", p.Name(), m[1])
			}
		}
	}
}

func TestMetricsOfAnExpression(t *testing.T) {
	t.Parallel()
	got := Metrics(`sum by (module, process) (rate(banyan_x_seconds_bucket{up="process_y"}[5m])) / on (job) up > shop:a:b unless go_info`)
	if want := []string{"banyan_x_seconds", "up", "shop:a:b", "go_info"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
