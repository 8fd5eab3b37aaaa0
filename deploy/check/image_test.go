package check

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	corev1 "k8s.io/api/core/v1"
)

// dockerfile is deploy/Dockerfile as BuildKit understands it: its stages, the last of which is the image.
func dockerfile(t *testing.T) []instructions.Stage {
	t.Helper()
	f, err := os.Open("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(parsed.Warnings) > 0 {
		t.Errorf("warnings: %v", parsed.Warnings)
	}
	stages, _, err := instructions.Parse(parsed.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	return stages
}

func TestImage(t *testing.T) {
	t.Parallel()
	stages := dockerfile(t)
	last := stages[len(stages)-1]
	if last.BaseName != "scratch" {
		t.Errorf("the base is %s, want scratch", last.BaseName)
	}
	seen := map[string]string{}
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			seen["user"] = c.User
		case *instructions.EntrypointCommand:
			seen["entrypoint"] = strings.Join(c.CmdLine, " ")
			if c.PrependShell {
				t.Error("the entrypoint wants a shell, and there is none")
			}
		case *instructions.CopyCommand:
			seen["copy "+c.DestPath] = c.From
		case *instructions.RunCommand:
			t.Errorf("nothing can RUN on an empty base: %v", c.CmdLine)
		}
	}
	for what, want := range map[string]string{
		"user": "65532:65532", "entrypoint": "/shop", "copy /shop": "build", "copy /etc/ssl/certs/": "build", "copy /data": "build",
	} {
		if seen[what] != want {
			t.Errorf("%s is %q, want %q", what, seen[what], want)
		}
	}
}

// buildCommand is the go build of the Dockerfile, with VERSION and the target filled in.
func buildCommand(t *testing.T, version, output string) string {
	t.Helper()
	for _, c := range dockerfile(t)[0].Commands {
		run, ok := c.(*instructions.RunCommand)
		if !ok || !strings.Contains(strings.Join(run.CmdLine, " "), "go build") {
			continue
		}
		return strings.NewReplacer("$VERSION", version, "GOOS=$TARGETOS GOARCH=$TARGETARCH", "", "/out/shop", output).Replace(strings.Join(run.CmdLine, " "))
	}
	t.Fatal("the Dockerfile has no go build")
	return ""
}

// build runs the Dockerfile's command in a checkout and returns the binary's path.
func build(t *testing.T, root string) string {
	t.Helper()
	shop := filepath.Join(t.TempDir(), "shop")
	c := exec.Command("sh", "-ec", buildCommand(t, "v1.2.3-check", shop))
	// What the command must say for itself is not to come from whoever runs the test.
	c.Dir, c.Env = root, append(os.Environ(), "CGO_ENABLED=1", "GOFLAGS="+strings.ReplaceAll(os.Getenv("GOFLAGS"), "-trimpath", ""))
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return shop
}

// TestBinary: what the Dockerfile builds needs nothing beside it, tells its version, is the same from another directory, and
// reads the settings that the manifests and compose files give it.
func TestBinary(t *testing.T) {
	t.Parallel()
	shop := build(t, "../..")
	t.Run("static", func(t *testing.T) {
		f, err := elf.Open(shop)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
				t.Errorf("it has a %v segment: it wants a loader, and the base has none", p.Type)
			}
		}
	})
	t.Run("version", func(t *testing.T) {
		c := exec.Command(shop, "version")
		c.Env = []string{} // an empty base has no HOME, no PATH
		out, err := c.CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "v1.2.3-check" {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("reproducible", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "elsewhere")
		included := image(t)
		for _, path := range included {
			text, err := os.ReadFile(filepath.Join("../..", path))
			if err != nil {
				t.Fatal(err)
			}
			to := filepath.Join(copied, path)
			if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(to, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := hash(t, shop), hash(t, build(t, copied)); a != b {
			t.Error("the same sources in another directory, without what .dockerignore leaves out, give another binary")
		}
	})
	for _, dir := range overlays(t) {
		t.Run("settings of "+filepath.Base(dir), func(t *testing.T) {
			overlayAccepted(t, shop, dir)
		})
	}
	for name, files := range composed {
		t.Run("settings of compose "+name, func(t *testing.T) {
			p := load(t, files...)
			for _, s := range p.Services {
				if s.Image != shopImage {
					continue
				}
				text, err := os.ReadFile(p.Configs[s.Configs[0].Source].File)
				if err != nil {
					t.Fatal(err)
				}
				env := map[string]string{}
				for key, value := range s.Environment {
					if value != nil && key != "SHOP_CONFIG" {
						env[key] = *value
					}
				}
				accepted(t, shop, text, "", env)
			}
		})
	}
	t.Run("commands of the runbooks", func(t *testing.T) { commands(t, shop) })
	t.Run("metrics", func(t *testing.T) { exported(t, shop) })
}

// image lists the files that the build context has, as Dockerfile.dockerignore says: a line * and then what is let in again.
func image(t *testing.T) (files []string) {
	t.Helper()
	text, err := os.ReadFile("../Dockerfile.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	var roots []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if in, ok := strings.CutPrefix(line, "!"); ok {
			roots = append(roots, in)
		}
	}
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join("../..", root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() && d.Name() == "testdata" {
				return fs.SkipDir
			}
			if !d.IsDir() && !strings.HasSuffix(path, "_test.go") {
				relative, err := filepath.Rel("../..", path)
				files = append(files, relative)
				return err
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Contains(files, "go.mod") {
		t.Fatal("the build context has no go.mod")
	}
	return files
}

func hash(t *testing.T, path string) [32]byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(text)
}

// overlayAccepted asks the shop about the settings of each process of an overlay, with the environment its pods get.
func overlayAccepted(t *testing.T, shop, dir string) {
	t.Helper()
	o, err := Build(onDisk, dir)
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := o.shopYAML()
	if err != nil {
		t.Fatal(err)
	}
	env := func(c corev1.Container) map[string]string {
		all := map[string]string{}
		for _, from := range c.EnvFrom {
			for _, s := range o.Secrets {
				if s.Name == from.SecretRef.Name {
					for key, value := range s.StringData {
						all[key] = strings.Replace(value, "REPLACE", "shop:secret", 1)
					}
				}
			}
		}
		return all
	}
	for _, d := range o.Deployments {
		accepted(t, shop, text, d.Spec.Template.Labels["app.kubernetes.io/component"], env(d.Spec.Template.Spec.Containers[0]))
	}
	for _, j := range o.Jobs {
		accepted(t, shop, text, "", env(j.Spec.Template.Spec.Containers[0]))
	}
}

// commands asks the binary for the help of every command that the runbooks name.
func commands(t *testing.T, shop string) {
	t.Helper()
	pages, err := filepath.Glob("../../docs/runbooks/*.md")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|`)shop ([a-z]+(?: [a-z]+)?)").FindAllStringSubmatch(string(text), -1) {
			named[m[1]] = page
		}
	}
	if len(named) < 3 {
		t.Fatalf("only %v", named)
	}
	for command, page := range named {
		c := exec.Command(shop, append(strings.Fields(command), "--help")...)
		if out, err := c.CombinedOutput(); err != nil || !strings.Contains(string(out), "Usage: shop "+command) {
			t.Errorf("%s: shop %s: %v\n%s", page, command, err, out)
		}
	}
}

// accepted runs `shop config check` on settings, as a process.
func accepted(t *testing.T, shop string, text []byte, process string, env map[string]string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "shop.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(shop, "config", "check", "--config", file)
	c.Env = []string{"SHOP_DATA_DIR=/data", "SHOP_LISTEN=:8080", "SHOP_OPS_LISTEN=:8082"} // as the image says
	for key, value := range env {
		c.Env = append(c.Env, key+"="+value)
	}
	if strings.HasPrefix(env["SHOP_SECRET"], "shop:secret") || env["SHOP_SECRET"] == "" { // a placeholder
		c.Env = append(c.Env, "SHOP_SECRET="+strings.Repeat("0a", 32))
	}
	if process != "" {
		c.Env = append(c.Env, "SHOP_PROCESS="+process)
	}
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Run(); err != nil || strings.Contains(out.String(), "did you mean") {
		t.Errorf("as process %q: %v\n%s", process, err, &out)
	}
}
