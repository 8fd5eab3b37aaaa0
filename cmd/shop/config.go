package main

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/banyan-shop/banyan/platform/config"
	"github.com/banyan-shop/banyan/platform/host"
)

// defaults is every setting with its default and a comment. A test holds it to what the code has.
//
//go:embed shop.yaml
var defaults []byte

type configCommands struct {
	Check   configCheckCommand   `cmd:"" help:"Say everything that is wrong with the settings."`
	Explain configExplainCommand `cmd:"" help:"Tell what a setting does, its value and where that came from."`
	Show    configShowCommand    `cmd:"" help:"Print all settings as they are."`
	Diff    configDiffCommand    `cmd:"" help:"Print the settings that differ from their defaults."`
}

func (configCommands) Help() string {
	return examples("shop config check", "shop config explain listen")
}

// load reads every module's settings without starting anything.
func (c *cli) load(p *process) ([]config.Setting, *config.Source, error) {
	s, err := c.settings(p, nil)
	if err != nil {
		return nil, nil, err
	}
	if err := host.Check(shop(s)); err != nil {
		return nil, nil, err
	}
	return s.Settings(), s, nil
}

type configCheckCommand struct{}

func (configCheckCommand) Help() string {
	return examples("shop config check", "shop config check --config production.yaml")
}

func (configCheckCommand) Run(_ context.Context, c *cli, p *process) error {
	_, s, err := c.load(p)
	if err != nil {
		return err
	}
	for _, stranger := range s.Strangers() {
		fmt.Fprintln(p.stderr, stranger)
	}
	fmt.Fprintln(p.stderr, "the settings are fine")
	return nil
}

type configShowCommand struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (configShowCommand) Help() string {
	return examples("shop config show", "shop config show -o json")
}

func (s *configShowCommand) Run(c *cli, p *process) error {
	all, _, err := c.load(p)
	if err != nil {
		return err
	}
	return printSettings(p, all, s.Output)
}

type configDiffCommand struct {
	Output string `short:"o" enum:"table,json" default:"table" help:"table or json."`
}

func (configDiffCommand) Help() string {
	return examples("shop config diff", "shop config diff --config production.yaml -o json")
}

func (d *configDiffCommand) Run(c *cli, p *process) error {
	all, _, err := c.load(p)
	if err != nil {
		return err
	}
	differ := []config.Setting{}
	for _, s := range all {
		if s.Value != s.Default || s.From != "default" && strings.Contains(s.Value, "***") {
			differ = append(differ, s)
		}
	}
	return printSettings(p, differ, d.Output)
}

func printSettings(p *process, list []config.Setting, output string) error {
	if output == "json" {
		return printJSON(p.stdout, list)
	}
	t := table(p.stdout, "KEY", "VALUE", "DEFAULT", "FROM")
	for _, s := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", s.Key, s.Value, s.Default, s.From)
	}
	return t.Flush()
}

type configExplainCommand struct {
	Key string `arg:"" help:"The setting, such as listen or log.level; a block explains all of it."`
}

func (configExplainCommand) Help() string {
	return examples("shop config explain listen", "shop config explain log")
}

func (e *configExplainCommand) Run(c *cli, p *process) error {
	all, _, err := c.load(p)
	if err != nil {
		return err
	}
	comments := commentsOf(defaults)
	found := false
	for _, s := range all {
		if s.Key != e.Key && !strings.HasPrefix(s.Key, e.Key+".") {
			continue
		}
		found = true
		fmt.Fprintf(p.stdout, "%s = %s\n", s.Key, s.Value)
		if text := comments[s.Key]; text != "" {
			fmt.Fprintf(p.stdout, "  %s\n", strings.ReplaceAll(text, "\n", "\n  "))
		}
		fmt.Fprintf(p.stdout, "  default %s; said by %s\n", s.Default, s.From)
		fmt.Fprintf(p.stdout, "  environment SHOP_%s\n", strings.ToUpper(strings.ReplaceAll(s.Key, ".", "__")))
	}
	if !found {
		return misused{fmt.Errorf("no setting %q: shop config show lists all", e.Key)}
	}
	return nil
}

// commentsOf are the comments above or behind each key of a settings file.
func commentsOf(text []byte) map[string]string {
	comments := map[string]string{}
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return comments
	}
	var walk func(n *yaml.Node, prefix string)
	walk = func(n *yaml.Node, prefix string) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			key := prefix + n.Content[i].Value
			text := strings.TrimSpace(n.Content[i].HeadComment + "\n" + n.Content[i].LineComment + n.Content[i+1].LineComment)
			lines := strings.Split(text, "\n")
			for j, l := range lines {
				lines[j] = strings.TrimSpace(strings.TrimPrefix(l, "#"))
			}
			comments[key] = strings.Join(lines, "\n")
			walk(n.Content[i+1], key+".")
		}
	}
	walk(doc.Content[0], "")
	return comments
}
