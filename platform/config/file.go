package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// file is a parsed settings file: its top-level mapping and its lines, for excerpts.
type file struct {
	name  string
	lines []string
	root  *yaml.Node // nil for an empty file
}

// maxFile keeps a mistaken path (a database dump, a device) from being read as settings.
const maxFile = 1 << 20

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

func parse(name string, text []byte) (*file, error) {
	f := &file{name: name, lines: strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")}
	if len(text) > maxFile {
		return nil, (&Errors{Problems: []Problem{{Place: name, Message: "larger than 1 MiB: this is no settings file"}}}).err()
	}
	if !utf8.Valid(text) {
		return nil, (&Errors{Problems: []Problem{{Place: name, Message: "not UTF-8 text"}}}).err()
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return f, nil
	} else if err != nil {
		return nil, f.syntax(err)
	}
	if err := d.Decode(&second); err == nil {
		return nil, (&Errors{Problems: []Problem{f.at(&second, "a second document: settings are one YAML mapping")}}).err()
	} else if !errors.Is(err, io.EOF) {
		return nil, f.syntax(err)
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return f, nil
	}
	if doc.Content[0].Kind != yaml.MappingNode {
		return nil, (&Errors{Problems: []Problem{f.at(doc.Content[0], "settings are a mapping of keys to values, not %s", describe(doc.Content[0]))}}).err()
	}
	f.root = doc.Content[0]
	var es Errors
	f.checkShape(f.root, &es)
	return f, es.err()
}

// syntax gives yaml.v3's message its place. Its line is the one it stopped at.
func (f *file) syntax(err error) error {
	m := yamlLine.FindStringSubmatch(err.Error())
	if m == nil {
		return &Errors{Problems: []Problem{{Place: f.name, Message: err.Error()}}}
	}
	p := Problem{Place: f.name, Message: m[2]}
	if line, _ := strconv.Atoi(m[1]); line > 0 {
		p.Place = fmt.Sprintf("%s:%d:1", f.name, line)
		p.Excerpt = f.excerpt(line, 1, 1)
	}
	return &Errors{Problems: []Problem{p}}
}

// checkShape refuses, everywhere in the file, what no struct can tell: duplicate keys, keys that are no text, and aliases,
// which make a small file large and a setting hard to find.
func (f *file) checkShape(n *yaml.Node, es *Errors) {
	switch n.Kind {
	case yaml.AliasNode:
		es.add(f.at(n, "aliases are not allowed here: write the value out"))
	case yaml.MappingNode:
		first := map[string]*yaml.Node{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
				es.add(f.at(key, "a key is plain text, not %s", describe(key)))
				continue
			}
			if before, twice := first[key.Value]; twice {
				es.add(f.at(key, "duplicate key %q: it stands in line %d already", key.Value, before.Line))
			} else {
				first[key.Value] = key
			}
			f.checkShape(n.Content[i+1], es)
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			f.checkShape(c, es)
		}
	}
}

// at is a problem that stands at n.
func (f *file) at(n *yaml.Node, format string, args ...any) Problem {
	width := 1
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		width = max(1, utf8.RuneCountInString(n.Value))
	}
	return Problem{
		Place:   fmt.Sprintf("%s:%d:%d", f.name, n.Line, n.Column),
		Message: fmt.Sprintf(format, args...),
		Excerpt: f.excerpt(n.Line, n.Column, width),
	}
}

// passwords are those in connection strings: a mistake beside one must not carry it into a log.
var passwords = regexp.MustCompile(`(://[^:/@\s]*:)[^@\s]+@`)

// excerpt is the line with carets below its width columns from column on.
func (f *file) excerpt(line, column, width int) string {
	if line < 1 || line > len(f.lines) {
		return ""
	}
	text := []rune(passwords.ReplaceAllString(strings.TrimRight(f.lines[line-1], " \t\r"), "$1***@"))
	column = min(max(column, 1), len(text)+1)
	width = min(width, max(1, len(text)-column+1))
	// A tab before the caret stays a tab, so that the caret stands below its column however wide tabs are.
	pad := strings.Map(func(r rune) rune {
		if r == '\t' {
			return r
		}
		return ' '
	}, string(text[:column-1]))
	number := strconv.Itoa(line)
	return fmt.Sprintf("  %s | %s\n  %s | %s%s", number, string(text), strings.Repeat(" ", len(number)), pad, strings.Repeat("^", width))
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	switch n.Tag {
	case "!!int":
		return "a whole number"
	case "!!float":
		return "a decimal number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "nothing"
	case "!!timestamp":
		return "a date"
	case "!!merge":
		return "a merge"
	}
	return "text"
}
