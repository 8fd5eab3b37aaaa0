// Package config reads settings strictly: file, environment and flags, with the place of every mistake.
//
// A package describes its settings as a struct whose present values are the defaults and whose yaml tags are the keys, and
// calls Decode. The file is one YAML mapping; a nested struct is a nested mapping, called a block. The environment says
// SHOP_LISTEN for listen and SHOP_ORDERS__HOLD for orders.hold; flags name the same keys. Flags win over the environment,
// that over the file, that over the defaults.
//
// It does not know which settings exist: each block is known once somebody has decoded it, and Unknown tells of the rest.
package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
)

// Prefix begins every environment variable that is a setting.
const Prefix = "SHOP_"

// Source is all that was said about the settings: defaults, file, environment, flags. A nil or zero Source says nothing, so
// that everything keeps its default.
type Source struct {
	file  *file             // nil without a file
	env   map[string]string // dotted key → value
	flags map[string]string

	mu       sync.Mutex
	known    map[string]bool // top-level keys somebody decoded
	settings map[string]Setting
}

// Options says where settings come from.
type Options struct {
	File  string            // path of the YAML file; "" for none
	Env   []string          // as os.Environ gives it
	Flags map[string]string // dotted key → value, only those the user gave
	// Reserved are variables with our prefix that are not settings, such as SHOP_CONFIG.
	Reserved []string
}

// Load reads the file and keeps the environment and flags. A file that is not well-formed YAML is an *Errors.
func Load(o Options) (*Source, error) {
	s := &Source{env: map[string]string{}, flags: maps.Clone(o.Flags)}
	for _, kv := range o.Env {
		name, value, ok := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, Prefix)
		if !ok || !ours || rest == "" || slices.Contains(o.Reserved, name) {
			continue
		}
		s.env[strings.ReplaceAll(strings.ToLower(rest), "__", ".")] = value
	}
	if o.File == "" {
		return s, nil
	}
	text, err := os.ReadFile(o.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("the settings file %s does not exist: check --config or SHOP_CONFIG", o.File)
	} else if err != nil {
		return nil, fmt.Errorf("read the settings file: %w", err)
	}
	if s.file, err = parse(o.File, text); err != nil {
		return nil, err
	}
	return s, nil
}

// Parse is a Source of one text alone; name stands in its error messages.
func Parse(name string, text []byte) (*Source, error) {
	f, err := parse(name, text)
	if err != nil {
		return nil, err
	}
	return &Source{file: f}, nil
}

// File is the path the settings were read from, "" without a file.
func (s *Source) File() string {
	if s == nil || s.file == nil {
		return ""
	}
	return s.file.name
}

// Setting is one key as it was decoded.
type Setting struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Default string `json:"default"`
	From    string `json:"from"` // "default", "shop.yaml:12", "SHOP_LISTEN", "--listen"
}

// Settings lists every key decoded so far, by name.
func (s *Source) Settings() []Setting {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Collect(maps.Values(s.settings))
	slices.SortFunc(all, func(a, b Setting) int { return strings.Compare(a.Key, b.Key) })
	return all
}

// Unknown reports, as an *Errors, what was said at the top level of the file or by a flag and decoded by nobody. Call it when every
// block has been decoded.
func (s *Source) Unknown() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var es Errors
	known := slices.Sorted(maps.Keys(s.known))
	if s.file != nil && s.file.root != nil {
		for i := 0; i+1 < len(s.file.root.Content); i += 2 {
			if key := s.file.root.Content[i]; !s.known[key.Value] {
				es.add(s.file.at(key, "unknown key %q%s", key.Value, DidYouMean(key.Value, known)))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.flags)) {
		if top, _, _ := strings.Cut(key, "."); !s.known[top] {
			es.add(Problem{Place: flagName(key), Message: fmt.Sprintf("no such setting%s", DidYouMean(top, known))})
		}
	}
	return es.err()
}

// Strangers are environment variables with our prefix that nobody decoded. They are worth a warning but no more: Kubernetes,
// for one, sets SHOP_PORT for a service called shop.
func (s *Source) Strangers() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known := slices.Sorted(maps.Keys(s.known))
	var found []string
	for _, key := range slices.Sorted(maps.Keys(s.env)) {
		if top, _, _ := strings.Cut(key, "."); !s.known[top] {
			hint := DidYouMean(top, known)
			if hint != "" {
				hint = strings.ReplaceAll(hint, `"`, "")
				name, _, _ := strings.Cut(strings.TrimPrefix(hint, "; did you mean "), "?")
				hint = "; did you mean " + envName(name) + "?"
			}
			found = append(found, envName(key)+" is no setting"+hint)
		}
	}
	return found
}

func envName(key string) string {
	return Prefix + strings.ToUpper(strings.ReplaceAll(key, ".", "__"))
}

func flagName(key string) string {
	return "--" + strings.ReplaceAll(key, "_", "-")
}
