package config

import (
	"encoding"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Decode fills the block of that name ("" for the top level, dots nest) into a T whose present values are the defaults, and calls its
// Validate() error if it has one. Keys are the yaml tags, or the field's name in lower case; a field tagged "-" is no
// setting. Beside yaml a field may be tagged min, max (numbers, durations and sizes) and oneof:"a b c". All mistakes come
// back in one *Errors.
func Decode[T any](s *Source, block string, defaults T) (T, error) {
	out := defaults
	d := &decoder{source: s, block: block}
	d.run(reflect.ValueOf(&out).Elem())
	if len(d.es.Problems) == 0 {
		if v, ok := any(&out).(interface{ Validate() error }); ok {
			d.complain(v.Validate())
		}
	}
	if s != nil {
		d.remember()
	}
	if err := d.es.err(); err != nil {
		return defaults, err
	}
	return out, nil
}

type decoder struct {
	source   *Source
	block    string
	es       Errors
	nodes    map[string]*yaml.Node // dotted key → its value, for complaints of Validate
	settings []Setting
	top      []string // top-level keys met
}

func (d *decoder) run(v reflect.Value) {
	d.nodes = map[string]*yaml.Node{}
	var n *yaml.Node
	if d.source != nil && d.source.file != nil {
		n = d.source.file.root
		for part := range strings.SplitSeq(d.block, ".") {
			if d.block == "" || n == nil {
				break
			}
			if n.Kind != yaml.MappingNode && !isNull(n) {
				d.es.add(d.source.file.at(n, "%s is a block of settings, not %s", part, describe(n)))
				return
			}
			n = child(n, part)
		}
	}
	if d.block != "" {
		top, _, _ := strings.Cut(d.block, ".")
		d.top = append(d.top, top)
	}
	if v.Kind() != reflect.Struct {
		d.value(v, n, d.block)
		return
	}
	d.structure(v, n, d.block)
}

// remember tells the source which keys are known now and what they were set to.
func (d *decoder) remember() {
	d.source.mu.Lock()
	defer d.source.mu.Unlock()
	if d.source.known == nil {
		d.source.known, d.source.settings = map[string]bool{}, map[string]Setting{}
	}
	for _, key := range d.top {
		d.source.known[key] = true
	}
	for _, s := range d.settings {
		d.source.settings[s.Key] = s
	}
}

// complain gives each complaint of a Validate the place of the value it is about.
func (d *decoder) complain(err error) {
	if err == nil {
		return
	}
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			d.complain(e)
		}
		return
	}
	var about *keyError
	key, message := d.block, err.Error()
	if errors.As(err, &about) {
		key = join(d.block, about.key)
		message = key + " " + about.message
	} else if key != "" {
		message = key + ": " + message
	}
	d.es.add(d.problem(key, d.nodes[key], "%s", message))
}

// problem is a mistake in the value of key, wherever that value came from.
func (d *decoder) problem(key string, n *yaml.Node, format string, args ...any) Problem {
	message := fmt.Sprintf(format, args...)
	if place, _, ok := d.overlay(key); ok {
		return Problem{Place: place, Message: message}
	}
	if n != nil {
		return d.source.file.at(n, "%s", message)
	}
	return Problem{Message: message}
}

// overlay is the value that a flag or the environment gives to exactly this key.
func (d *decoder) overlay(key string) (place, value string, ok bool) {
	if d.source == nil {
		return "", "", false
	}
	if value, ok = d.source.flags[key]; ok {
		return flagName(key), value, true
	}
	if value, ok = d.source.env[key]; ok {
		return envName(key), value, true
	}
	return "", "", false
}

// below are the next parts of the keys that flags and environment name under key.
func (d *decoder) below(key string) []string {
	if d.source == nil {
		return nil
	}
	found := map[string]bool{}
	for _, layer := range []map[string]string{d.source.env, d.source.flags} {
		for k := range layer {
			if rest, ok := strings.CutPrefix(k, key+"."); ok {
				part, _, _ := strings.Cut(rest, ".")
				found[part] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func join(block, key string) string {
	if block == "" {
		return key
	}
	return block + "." + key
}

func child(n *yaml.Node, key string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

type field struct {
	key   string
	tag   reflect.StructTag
	index []int
}

// fields are the settings of a struct type; embedded structs without a tag, or with ",inline", lend theirs.
func fields(t reflect.Type) []field {
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Type.Kind() == reflect.Struct && (opts == "inline" || f.Anonymous && name == "") {
			for _, inner := range fields(f.Type) {
				inner.index = append([]int{i}, inner.index...)
				all = append(all, inner)
			}
			continue
		}
		if name == "" {
			name = strings.ToLower(f.Name)
		}
		all = append(all, field{name, f.Tag, []int{i}})
	}
	return all
}

func (d *decoder) structure(v reflect.Value, n *yaml.Node, key string) {
	if n != nil && n.Kind != yaml.MappingNode && !isNull(n) {
		d.es.add(d.source.file.at(n, "%s is a block of settings, not %s", key, describe(n)))
		n = nil
	}
	if n != nil {
		d.nodes[key] = n
	}
	fs := fields(v.Type())
	names := make([]string, len(fs))
	for i, f := range fs {
		names[i] = f.key
	}
	if key != "" { // the top level belongs to many; Unknown looks after it
		if n != nil {
			for i := 0; i+1 < len(n.Content); i += 2 {
				if k := n.Content[i]; !slices.Contains(names, k.Value) {
					d.es.add(d.source.file.at(k, "unknown key %q in %s%s", k.Value, key, DidYouMean(k.Value, names)))
				}
			}
		}
		for _, part := range d.below(key) {
			if !slices.Contains(names, part) {
				place := envName(join(key, part))
				if _, isFlag := d.source.flags[join(key, part)]; isFlag {
					place = flagName(join(key, part))
				}
				d.es.add(Problem{Place: place, Message: fmt.Sprintf("unknown key %q in %s%s", part, key, DidYouMean(part, names))})
			}
		}
	}
	for _, f := range fs {
		if key == "" {
			d.top = append(d.top, f.key)
		}
		sub, fkey := child(n, f.key), join(key, f.key)
		before := len(d.es.Problems)
		d.value(v.FieldByIndex(f.index), sub, fkey)
		if len(d.es.Problems) == before {
			d.bounds(v.FieldByIndex(f.index), f.tag, sub, fkey)
		}
	}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	textType     = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func isLeaf(t reflect.Type) bool {
	return t.Kind() != reflect.Struct && t.Kind() != reflect.Map && t.Kind() != reflect.Slice || reflect.PointerTo(t).Implements(textType)
}

// value decodes one key of any type: from a flag, else the environment, else the file, else it keeps its default.
func (d *decoder) value(v reflect.Value, n *yaml.Node, key string) {
	if n != nil {
		d.nodes[key] = n
	}
	if !isLeaf(v.Type()) && v.Kind() == reflect.Struct {
		d.structure(v, n, key)
		return
	}
	setting := Setting{Key: key, Default: show(v), From: "default"}
	switch place, text, overlaid := d.overlay(key); {
	case overlaid:
		setting.From = place
		d.fromText(v, text, place, key)
	case n != nil && !isNull(n):
		setting.From = fmt.Sprintf("%s:%d", d.source.file.name, n.Line)
		d.fromNode(v, n, key)
	}
	if v.Kind() == reflect.Map && !isLeaf(v.Type()) {
		d.mapOverlays(v, key)
	}
	if n != nil {
		d.nodes[key] = n
	}
	setting.Value = show(v)
	d.settings = append(d.settings, setting)
}

func (d *decoder) fromNode(v reflect.Value, n *yaml.Node, key string) {
	if isLeaf(v.Type()) {
		if n.Kind != yaml.ScalarNode {
			d.es.add(d.source.file.at(n, "%s must be %s, not %s", key, wanted(v.Type()), describe(n)))
			return
		}
		if err := setScalar(v, n.Value, n.Tag); err != "" {
			d.es.add(d.source.file.at(n, "%s %s", key, err))
		}
		return
	}
	switch v.Kind() {
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.es.add(d.source.file.at(n, "%s must be a list, not %s", key, describe(n)))
			return
		}
		out := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, c := range n.Content {
			d.element(out.Index(i), c, fmt.Sprintf("%s[%d]", key, i))
		}
		v.Set(out)
	case reflect.Map:
		if n.Kind != yaml.MappingNode {
			d.es.add(d.source.file.at(n, "%s must be a mapping, not %s", key, describe(n)))
			return
		}
		out := reflect.MakeMap(v.Type()) // what the file says replaces a default map as a whole
		for i := 0; i+1 < len(n.Content); i += 2 {
			item := reflect.New(v.Type().Elem()).Elem()
			d.element(item, n.Content[i+1], join(key, n.Content[i].Value))
			out.SetMapIndex(reflect.ValueOf(n.Content[i].Value).Convert(v.Type().Key()), item)
		}
		v.Set(out)
	default:
		d.es.add(d.source.file.at(n, "%s has a type that can't be set: %s", key, v.Type()))
	}
}

// element decodes a member of a list or map: it has no flag of its own, and is listed with its whole.
func (d *decoder) element(v reflect.Value, n *yaml.Node, key string) {
	if isNull(n) {
		d.es.add(d.source.file.at(n, "%s has no value", key))
		return
	}
	d.nodes[key] = n
	if v.Kind() == reflect.Struct && !isLeaf(v.Type()) {
		kept := len(d.settings)
		d.structure(v, n, key)
		d.settings = d.settings[:kept]
		return
	}
	d.fromNode(v, n, key)
}

// fromText decodes what a flag or variable says: a scalar as it is, a list with commas, anything larger as YAML.
func (d *decoder) fromText(v reflect.Value, text, place, key string) {
	if isLeaf(v.Type()) {
		if err := setScalar(v, text, ""); err != "" {
			d.es.add(Problem{Place: place, Message: key + " " + err})
		}
		return
	}
	if !strings.ContainsAny(text, "[{") && v.Kind() == reflect.Slice && isLeaf(v.Type().Elem()) {
		out := reflect.MakeSlice(v.Type(), 0, 4)
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			item := reflect.New(v.Type().Elem()).Elem()
			if err := setScalar(item, part, ""); err != "" {
				d.es.add(Problem{Place: place, Message: key + " " + err})
				return
			}
			out = reflect.Append(out, item)
		}
		v.Set(out)
		return
	}
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		d.es.add(Problem{Place: place, Message: key + " must be written as YAML, such as {a: 1} or [a, b]"})
		return
	}
	inner := &decoder{source: &Source{file: &file{name: place, lines: strings.Split(text, "\n")}}, nodes: map[string]*yaml.Node{}}
	inner.source.file.checkShape(doc.Content[0], &inner.es)
	if len(inner.es.Problems) == 0 {
		inner.fromNode(v, doc.Content[0], key)
	}
	d.es.Problems = append(d.es.Problems, inner.es.Problems...)
}

// mapOverlays sets members of a map that flags or the environment name: SHOP_TAX__RATES__DE=1900.
func (d *decoder) mapOverlays(v reflect.Value, key string) {
	for _, part := range d.below(key) {
		if v.IsNil() {
			v.Set(reflect.MakeMap(v.Type()))
		} else {
			v.Set(cloneMap(v)) // a default map is shared by everybody who decodes it
		}
		item := reflect.New(v.Type().Elem()).Elem()
		// The environment has no lower case: a member that exists in any case is the one that is meant.
		name := part
		for _, k := range v.MapKeys() {
			if strings.EqualFold(k.String(), part) {
				name = k.String()
				item.Set(v.MapIndex(k))
			}
		}
		if item.Kind() == reflect.Struct && !isLeaf(item.Type()) {
			d.structure(item, nil, join(key, part))
		} else if place, text, ok := d.overlay(join(key, part)); ok {
			d.fromText(item, text, place, join(key, part))
		}
		v.SetMapIndex(reflect.ValueOf(name).Convert(v.Type().Key()), item)
	}
}

func cloneMap(v reflect.Value) reflect.Value {
	out := reflect.MakeMapWithSize(v.Type(), v.Len())
	for _, k := range v.MapKeys() {
		out.SetMapIndex(k, v.MapIndex(k))
	}
	return out
}

func wanted(t reflect.Type) string {
	switch {
	case t == durationType:
		return "a duration such as 5s"
	case reflect.PointerTo(t).Implements(textType):
		return "text"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

// setScalar sets v from text and returns what is wrong, "" if nothing. tag is YAML's guess of the type, "" outside a file.
func setScalar(v reflect.Value, text, tag string) string {
	t := v.Type()
	mismatch := func() string {
		if tag == "" {
			return "must be " + wanted(t)
		}
		return fmt.Sprintf("must be %s, not %s", wanted(t), describe(&yaml.Node{Kind: yaml.ScalarNode, Tag: tag}))
	}
	if t == durationType {
		dur, err := parseDuration(text)
		if err != "" {
			return err
		}
		v.SetInt(int64(dur))
		return ""
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		if err := u.UnmarshalText([]byte(text)); err != nil {
			return err.Error()
		}
		return ""
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		switch {
		case (tag == "" || tag == "!!bool") && (strings.EqualFold(text, "true") || tag == "" && text == "1"):
			v.SetBool(true)
		case (tag == "" || tag == "!!bool") && (strings.EqualFold(text, "false") || tag == "" && text == "0"):
			v.SetBool(false)
		default:
			return mismatch()
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if tag != "" && tag != "!!int" {
			return mismatch()
		}
		n, err := strconv.ParseInt(strings.ReplaceAll(text, "_", ""), 10, t.Bits())
		if errors.Is(err, strconv.ErrRange) {
			return "is out of range"
		} else if err != nil {
			return mismatch()
		}
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		if tag != "" && tag != "!!int" {
			return mismatch()
		}
		n, err := strconv.ParseUint(strings.ReplaceAll(text, "_", ""), 10, t.Bits())
		if errors.Is(err, strconv.ErrRange) || strings.HasPrefix(text, "-") {
			return "is out of range"
		} else if err != nil {
			return mismatch()
		}
		v.SetUint(n)
	case reflect.Float32, reflect.Float64:
		if tag != "" && tag != "!!int" && tag != "!!float" {
			return mismatch()
		}
		n, err := strconv.ParseFloat(text, t.Bits())
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return mismatch()
		}
		v.SetFloat(n)
	default:
		return "has a type that can't be set: " + t.String()
	}
	return ""
}

// parseDuration reads 5s, 1h30m and, beyond the time package, whole days: 7d.
func parseDuration(text string) (time.Duration, string) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err == nil && n <= 100_000 && n >= -100_000 {
			return time.Duration(n) * 24 * time.Hour, ""
		}
	}
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, ""
	}
	if _, bare := strconv.ParseFloat(text, 64); bare == nil {
		return 0, fmt.Sprintf("needs a unit: %ss, %sm or %sh", text, text, text)
	}
	return 0, "must be a duration such as 250ms, 5s, 15m, 24h or 7d"
}

// bounds checks the min, max and oneof tags of a field.
func (d *decoder) bounds(v reflect.Value, tag reflect.StructTag, n *yaml.Node, key string) {
	if allowed := tag.Get("oneof"); allowed != "" && v.Kind() == reflect.String {
		words := strings.Fields(allowed)
		if !slices.Contains(words, v.String()) {
			d.es.add(d.problem(key, n, "%s must be one of %s%s", key, strings.Join(words, ", "), DidYouMean(v.String(), words)))
		}
	}
	for _, b := range []struct {
		name, words string
		breaks      func(value, bound float64) bool
	}{
		{"min", "at least", func(v, b float64) bool { return v < b }},
		{"max", "at most", func(v, b float64) bool { return v > b }},
	} {
		text := tag.Get(b.name)
		if text == "" {
			continue
		}
		bound := reflect.New(v.Type()).Elem()
		if err := setScalar(bound, text, ""); err != "" {
			d.es.add(Problem{Message: fmt.Sprintf("the tag %s of %s: %s", b.name, key, err)})
			continue
		}
		if value, limit, ok := number(v, bound); ok && b.breaks(value, limit) {
			d.es.add(d.problem(key, n, "%s must be %s %s", key, b.words, text))
		}
	}
}

func number(v, bound reflect.Value) (value, limit float64, ok bool) {
	switch {
	case v.CanInt():
		return float64(v.Int()), float64(bound.Int()), true
	case v.CanUint():
		return float64(v.Uint()), float64(bound.Uint()), true
	case v.CanFloat():
		return v.Float(), bound.Float(), true
	}
	return 0, 0, false
}

// show is a value as people write it; a type that prints itself (a secret as ***) does so.
func show(v reflect.Value) string {
	if s, ok := v.Interface().(fmt.Stringer); ok {
		return s.String()
	}
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = show(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Map:
		var parts []string
		for _, k := range v.MapKeys() {
			parts = append(parts, show(k)+": "+show(v.MapIndex(k)))
		}
		slices.Sort(parts)
		return "{" + strings.Join(parts, ", ") + "}"
	case reflect.Struct:
		var parts []string
		for _, f := range fields(v.Type()) {
			parts = append(parts, f.key+": "+show(v.FieldByIndex(f.index)))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	}
	return fmt.Sprint(v.Interface())
}
