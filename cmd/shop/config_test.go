package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// try runs a command as a person would, apart from everybody's settings.
func try(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = run(t.Context(), process{args: args, env: env, stdin: strings.NewReader(""), stdout: &out, stderr: &talk})
	return code, out.String(), talk.String()
}

func TestShopYAML(t *testing.T) {
	t.Parallel()
	s, err := config.Parse("shop.yaml", defaults)
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Check(shop(s)); err != nil {
		t.Fatalf("shop.yaml must be valid as it stands:\n%v", err)
	}
	plain, said := map[string]string{}, map[string]config.Setting{}
	for _, set := range s.Settings() {
		plain[set.Key] = set.Default
		said[set.Key] = set
	}
	comments := commentsOf(defaults)
	for key, set := range said {
		if set.From == "default" {
			t.Errorf("%s is missing in shop.yaml; its default is %s", key, set.Default)
		} else if set.Value != plain[key] {
			t.Errorf("shop.yaml says %s: %s, but the default is %s", key, set.Value, plain[key])
		}
		if comments[key] == "" {
			t.Errorf("%s has no comment in shop.yaml", key)
		}
	}
}

func TestConfigCommands(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "mine.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"SHOP_CONFIG=" + file, "SHOP_SECRET=" + strings.Repeat("ab", 32)}

	write("listen: 127.0.0.1:9000\nlog: {level: debug}\n")
	if code, _, talk := try(t, env, "config", "check"); code != okay || talk != "the settings are fine\n" {
		t.Errorf("check: %d %s", code, talk)
	}
	if code, out, talk := try(t, env, "config", "diff"); code != okay || strings.Contains(out, "abab") ||
		!regexp.MustCompile(`(?m)^listen +127.0.0.1:9000 +127.0.0.1:8080 +.*mine.yaml:1$`).MatchString(out) || !strings.Contains(out, "SHOP_SECRET") {
		t.Errorf("diff: %d %s %s", code, out, talk)
	}
	if code, out, _ := try(t, env, "config", "explain", "log.level"); code != okay || !strings.Contains(out, "log.level = DEBUG\n  debug, info, warn or error.") {
		t.Errorf("explain: %d %s", code, out)
	}
	if code, _, talk := try(t, env, "config", "explain", "log.levl"); code != misuse || !strings.Contains(talk, "no setting") {
		t.Errorf("explain of nothing: %d %s", code, talk)
	}

	write("lissten: 127.0.0.1:9000\nlog:\n  level: loud\nusers:\n  login_delay: false\n")
	code, out, talk := try(t, env, "config", "check")
	want := []string{
		`mine.yaml:3:10: log.level slog: level string "loud": unknown name`,
		"  3 |   level: loud\n    |          ^^^^\n",
		`mine.yaml:5:3: unknown key "login_delay" in users; did you mean "login_delays"?`,
		`mine.yaml:1:1: unknown key "lissten"; did you mean "listen"?`,
	}
	for _, w := range want {
		if !strings.Contains(talk, w) {
			t.Errorf("%q is missing in:\n%s", w, talk)
		}
	}
	if code != failed || out != "" {
		t.Errorf("check of mistakes: %d %s", code, out)
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{"--help"}, okay, "Usage: shop <command>"},
		{[]string{"version"}, okay, "v"},
		{[]string{"serv"}, misuse, "shop:"},
		{[]string{"user", "create", "--email", "x"}, misuse, "missing flags"},
		{[]string{"config", "check", "--config", "nowhere.yaml"}, failed, "nowhere.yaml does not exist"},
		{[]string{"serve", "--listen", "nonsense"}, failed, "--listen: listen must be host:port"},
		{[]string{"modules", "--check"}, okay, "every call leads upwards"},
		{[]string{"openapi"}, okay, "openapi: 3.1.0"},
	} {
		code, out, talk := try(t, nil, c.args...)
		if code != c.code || !strings.Contains(out+talk, c.text) {
			t.Errorf("shop %s: exit %d, want %d with %q:\n%s%s", strings.Join(c.args, " "), code, c.code, c.text, out, talk)
		}
	}
}

// TestHelp holds every command to two examples, and every example to what the parser takes.
func TestHelp(t *testing.T) {
	t.Parallel()
	for _, command := range commandsOf(t) {
		code, out, talk := try(t, nil, append(command, "--help")...)
		if code != okay {
			t.Errorf("%v --help: %d %s", command, code, talk)
			continue
		}
		_, text, _ := strings.Cut(out, "Examples:\n")
		text, _, _ = strings.Cut(text, "Flags:")
		var lines []string
		for line := range strings.SplitSeq(text, "\n") {
			if _, example, ok := strings.Cut(line, "shop"); ok && strings.HasPrefix(line, "    ") {
				lines = append(lines, strings.TrimSpace(example))
			}
		}
		if len(lines) < 2 {
			t.Errorf("shop %s has %d examples, want two:\n%s", strings.Join(command, " "), len(lines), out)
		}
		for _, line := range lines {
			line, _, _ = strings.Cut(line, " > ")
			if err := parses(words(line)); err != nil {
				t.Errorf("the example shop %s: %v", line, err)
			}
		}
	}
}

// words splits a line as a shell does, as far as the examples need it.
func words(line string) []string {
	var list []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			list = append(list, part)
		} else {
			list = append(list, strings.Fields(part)...)
		}
	}
	return list
}

func TestModulesGolden(t *testing.T) {
	t.Parallel()
	code, out, talk := try(t, nil, "modules", "-o", "mermaid")
	if code != okay {
		t.Fatal(talk)
	}
	golden := filepath.Join("testdata", "modules.mermaid")
	if *update {
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out); diff != "" {
		t.Errorf("who calls and hears whom has changed; if that is meant, run with -update (-want +got):\n%s", diff)
	}
}

func commandsOf(t *testing.T) [][]string {
	t.Helper()
	k, err := newParser(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	var walk func(n *kong.Node, path []string)
	walk = func(n *kong.Node, path []string) {
		for _, c := range n.Children {
			here := append(path[:len(path):len(path)], c.Name)
			all = append(all, here)
			walk(c, here)
		}
	}
	walk(k.Model.Node, nil)
	return all
}

func parses(args []string) error {
	k, err := newParser(&cli{})
	if err != nil {
		return err
	}
	_, err = k.Parse(args)
	return err
}
