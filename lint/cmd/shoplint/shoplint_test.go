package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banyan-shop/banyan/lint/linttest"
	"github.com/banyan-shop/banyan/lint/program"
)

// build makes the binary once for all tests of this file.
func build(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "shoplint")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("build shoplint: %v\n%s", err, out)
	}
	return bin
}

// in runs a command in dir and returns what it printed and whether it was content. It shares the build cache: the folder is new, so
// the first verdict on it is fresh and every later one may be a stale one.
func in(t *testing.T, dir, name string, args ...string) (string, bool) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOPROXY=off")
	out, err := cmd.CombinedOutput()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// Both drivers see every edit at once: an import, a file behind a build tag, and a migration. go vet keeps verdicts in its cache,
// so each edit follows a clean verdict that it could serve again.
func TestNoStaleVerdict(t *testing.T) {
	bin, dir := build(t), linttest.Shop(t)
	drivers := map[string][]string{
		"shoplint": {bin, "./..."},
		"go vet":   {"go", "vet", "-vettool=" + bin, "./..."},
	}
	run := func(driver string) (string, bool) {
		c := drivers[driver]
		return in(t, dir, c[0], c[1:]...)
	}
	original := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, e := range []struct {
		name, file, text, want string
		// tags is what go vet must be given to see the edit: what a build tag leaves out is not in the key of its cache, so it
		// serves the old verdict. shoplint needs nothing: it reads every file, in every tag set. That is why it is the gate.
		tags string
	}{
		{
			name: "an import that compiles", file: "modules/orders/refund.go",
			text: "package orders\n\nimport \"shop/modules/payments\"\n\nvar _ = payments.Refund\n",
			want: "orders must not import module payments",
		},
		{
			name: "a file behind a tag", file: "modules/orders/slow.go", tags: "failpoints",
			text: "//go:build failpoints\n\npackage orders\n\nimport \"shop/modules/payments\"\n\nvar _ = payments.Refund\n",
			want: "orders must not import module payments",
		},
		{
			name: "a migration", file: "db/orders/0001_orders.sql",
			text: "CREATE TABLE orders.orders (id text PRIMARY KEY REFERENCES payments.payments (id));\n",
			want: "a foreign key of orders points at payments.payments",
		},
		{
			name: "SQL that compiles", file: "modules/orders/peek.go",
			text: "package orders\n\nimport \"context\"\n\nfunc (m *Module) peek(ctx context.Context) error {\n\treturn m.DB.Get(ctx, nil, `SELECT 1 FROM payments.payments`)\n}\n",
			want: "SQL of orders names payments.payments",
		},
	} {
		t.Run(e.name, func(t *testing.T) {
			for driver := range drivers {
				if out, ok := run(driver); !ok {
					t.Fatalf("%s refuses the clean shop:\n%s", driver, out)
				}
			}
			before := ""
			if _, err := os.Stat(filepath.Join(dir, e.file)); err == nil {
				before = original(e.file)
			}
			linttest.Edit(t, dir, e.file, e.text)
			if strings.HasSuffix(e.file, ".go") {
				if out, ok := in(t, dir, "go", "build", "-tags="+e.tags, "./..."); !ok {
					t.Errorf("the compiler already refuses it, so this proves nothing of the linter:\n%s", out)
				}
			}
			if out, ok := run("shoplint"); ok || !strings.Contains(out, e.want) {
				t.Errorf("shoplint does not see it:\n%s", out)
			}
			if out, ok := in(t, dir, "go", "vet", "-tags="+e.tags, "-vettool="+bin, "./..."); ok || !strings.Contains(out, e.want) {
				t.Errorf("go vet does not see it:\n%s", out)
			}
			if e.tags != "" {
				if out, ok := run("go vet"); ok {
					t.Log("go vet without the tag serves its old verdict, as expected")
				} else {
					t.Logf("go vet without the tag sees it too:\n%s", out)
				}
			}
			if before == "" {
				os.Remove(filepath.Join(dir, e.file))
			} else {
				linttest.Edit(t, dir, e.file, before)
			}
		})
	}
}

// Naming one analyzer to go vet would silently skip the others, so it is refused.
func TestNoAnalyzerCanBeChosen(t *testing.T) {
	bin, dir := build(t), linttest.Shop(t)
	if out, ok := in(t, dir, "go", "vet", "-vettool="+bin, "-boundary", "./..."); ok {
		t.Errorf("go vet -boundary ran:\n%s", out)
	}
}

func TestOutput(t *testing.T) {
	dir := linttest.Shop(t)
	linttest.Edit(t, dir, "modules/orders/refund.go", "package orders\n\nimport _ \"shop/modules/payments\"\n")
	t.Chdir(dir)
	var out, errs bytes.Buffer
	if code := run(nil, &out, &errs); code != 1 {
		t.Errorf("exit %d, want 1: %s", code, errs.String())
	}
	const want = "modules/orders/refund.go:3:8: orders must not import module payments: call it through api/paymentsapi, or subscribe to its events (boundary)\n"
	if out.String() != want {
		t.Errorf("got  %swant %s", out.String(), want)
	}
	out.Reset()
	if code := run([]string{"-o", "json", "./modules/orders"}, &out, &errs); code != 1 {
		t.Errorf("exit %d, want 1: %s", code, errs.String())
	}
	var found []program.Finding
	if err := json.Unmarshal(out.Bytes(), &found); err != nil || len(found) != 1 || found[0].Line != 3 || found[0].Analyzer != "boundary" {
		t.Errorf("%v %+v", err, found)
	}
	if code := run([]string{"help", "calltx"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "tx.AfterCommit") {
		t.Errorf("help calltx exits %d", code)
	}
	if code := run([]string{"help", "nothing"}, &out, &errs); code != 2 {
		t.Errorf("help of an unknown analyzer exits %d, want 2", code)
	}
}
