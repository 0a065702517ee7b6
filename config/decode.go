package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// decoder fills structs from nodes. It reports what is wrong and goes on.
type decoder struct {
	*problems
	expander
	kinds Kinds
}

// place is where a value stands: its path, and the key or list item in front of it, where problems without a place of
// their own are shown.
type place struct {
	node *yaml.Node
	path string
}

func (at place) child(key string, node *yaml.Node) place {
	return place{node: node, path: joinPath(at.path, shortened(key))}
}

func joinPath(path, key string) string {
	switch {
	case path == "" || key == "":
		return path + key
	default:
		return path + "." + key
	}
}

// report adds a problem about the value n.
func (d *decoder) report(n *yaml.Node, at place, message string) {
	if isNull(n) {
		n = at.node
	}
	d.add(n.Line, n.Column, at.path, message)
}

// addAt adds a problem about a key below the mapping n, at the nearest place that the file has for it.
func (d *decoder) addAt(n *yaml.Node, at place, key, message string) {
	if found := locate(n, key); found != nil {
		at.node = found
	}
	d.add(at.node.Line, at.node.Column, joinPath(at.path, key), message)
}

// locate follows a dotted key such as "tls.pins[2]" from n as far as the file has it; nil if not even its first part.
func locate(n *yaml.Node, key string) *yaml.Node {
	var found *yaml.Node
	for _, part := range strings.FieldsFunc(key, func(c rune) bool { return c == '.' || c == '[' || c == ']' }) {
		n = resolved(n)
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == part {
					if next = n.Content[i+1]; isNull(next) {
						return n.Content[i]
					}
					break
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
			}
		}
		if next == nil {
			return found
		}
		n, found = next, next
	}
	return found
}

// resolved follows an alias; measure made sure that this ends.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// pair is one key of a mapping and its value.
type pair struct {
	key, value *yaml.Node
}

// pairs returns the keys of a mapping, each once. It reports keys that are no words, and second uses of a key.
func (d *decoder) pairs(n *yaml.Node, at place) []pair {
	list := make([]pair, 0, len(n.Content)/2)
	lines := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		switch first := lines[key.Value]; {
		case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0:
			d.add(key.Line, key.Column, at.path, `a key is a plain word: write "key: value"`)
		case key.ShortTag() == "!!merge":
			d.add(key.Line, key.Column, at.path, `merge keys ("<<") are not read: write the keys out`)
		case first > 0:
			d.add(key.Line, key.Column, at.child(key.Value, key).path,
				fmt.Sprintf("second use of a key that stands in line %d: remove or rename one", first))
		default:
			lines[key.Value] = key.Line
			list = append(list, pair{key, value})
		}
	}
	return list
}

// fill sets fields from the mapping n. With strict it reports keys that are not among them.
func (d *decoder) fill(n *yaml.Node, at place, fields []field, strict bool) {
	seen := make([]bool, len(fields))
	for _, p := range d.pairs(n, at) {
		i := findField(fields, p.key.Value)
		if i < 0 {
			if strict {
				d.add(p.key.Line, p.key.Column, at.path, unknown("key", p.key.Value, keysOf(fields)))
			}
			continue
		}
		seen[i] = true
		d.field(p, fields[i], at.child(p.key.Value, p.key))
	}
	for i, f := range fields {
		if f.required() && !seen[i] {
			d.add(at.node.Line, at.node.Column, joinPath(at.path, f.key),
				fmt.Sprintf("required key is missing: add \"%s: %s\"", f.key, sample(f)))
		}
	}
}

// field sets one field and checks it against its tags.
func (d *decoder) field(p pair, f field, at place) {
	null := f.required() && isNull(p.value)
	if !null && !d.value(p.value, f.value, rulesOf(f.tag), at) {
		return
	}
	if null || f.required() && isEmpty(f.value) {
		d.report(p.value, at, fmt.Sprintf("must not be empty: write \"%s: %s\"", f.key, sample(f)))
	}
}

func isEmpty(v reflect.Value) bool {
	if s, ok := v.Interface().(Secret); ok {
		return s.IsZero()
	}
	switch v.Kind() {
	case reflect.String, reflect.Slice, reflect.Map:
		return v.Len() == 0
	default:
		return false
	}
}

// sample shows how a key's value is written.
func sample(f field) string {
	if s := f.tag.Get("example"); s != "" {
		return s
	}
	switch f.value.Interface().(type) {
	case []Collector, []Destination:
		return "{id: {type: …}}"
	}
	switch name := typeName(f.value.Type()); {
	case strings.HasPrefix(name, "list"):
		return "[…]"
	case strings.HasPrefix(name, "map"), name == "section":
		return "{…}"
	default:
		return "…"
	}
}

// tagged is the problem of a value with a YAML tag.
const tagged = `tags ("!…") are not read: remove it; quotes make a value a string`

// value sets v from n and reports false if it could not, or if a rule is broken; then the problem is reported.
func (d *decoder) value(n *yaml.Node, v reflect.Value, r rules, at place) bool {
	n = resolved(n)
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		d.report(n, at, tagged)
		return false
	case isNull(n):
		d.report(n, at, "has no value: give it one or remove the key")
		return false
	case v.Kind() == reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(n, v.Elem(), r, at)
	}
	switch list := v.Addr().Interface().(type) {
	case *[]Collector:
		return d.collectors(n, list, at)
	case *[]Destination:
		return d.destinations(n, list, at)
	case encoding.TextUnmarshaler:
		return d.scalar(n, v, r, at)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(n, v, at)
	case reflect.Slice:
		return d.slice(n, v, r, at)
	case reflect.Map:
		return d.dictionary(n, v, r, at)
	default:
		return d.scalar(n, v, r, at)
	}
}

// wrong reports a value of another type.
func (d *decoder) wrong(n *yaml.Node, t reflect.Type, at place) bool {
	want := typeName(t)
	hint := ""
	switch found := nodeWord(n); {
	case strings.HasPrefix(want, "list"):
		hint = `write it in brackets, as [a, b], or as lines that begin with "- "`
	case strings.HasPrefix(want, "map"), want == "section":
		hint = `write "key: value" lines, indented below the key`
	case n.Kind != yaml.ScalarNode:
		hint = "write one value"
	case want == "bool":
		hint = "write it without quotes"
	case want == "number":
		hint = "write a whole number without quotes"
	case found != "a string":
		hint = "put it in quotes"
	}
	if want == "bool" {
		want = "true or false"
	} else {
		want = "a " + want
	}
	d.report(n, at, fmt.Sprintf("expected %s, found %s: %s", want, nodeWord(n), hint))
	return false
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, at place) bool {
	if n.Kind != yaml.MappingNode {
		return d.wrong(n, v.Type(), at)
	}
	ptr := v.Addr().Interface()
	d.fillAndValidate(n, at, fieldsOf(ptr), ptr)
	return true
}

// fillAndValidate fills the struct that ptr points to and asks it what it finds wrong with itself. What it says about
// keys with problems would mislead: they were not set.
func (d *decoder) fillAndValidate(n *yaml.Node, at place, fields []field, ptr any) {
	used := len(d.used)
	d.fill(n, at, fields, true)
	v, ok := ptr.(Validator)
	if !ok || d.full() {
		return
	}
	before := d.list
	values := newScrubber(d.used[used:])
	for _, inv := range v.Validate() {
		path := joinPath(at.path, inv.Key)
		known := slices.ContainsFunc(before, func(p Problem) bool {
			return within(p.Path, path) || len(p.Path) > len(at.path) && within(path, p.Path)
		})
		if !known {
			d.addAt(n, at, inv.Key, values.scrub(inv.Message))
		}
	}
}

func (d *decoder) slice(n *yaml.Node, v reflect.Value, r rules, at place) bool {
	if n.Kind != yaml.SequenceNode {
		return d.wrong(n, v.Type(), at)
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	ok := true
	for i, item := range n.Content {
		item = resolved(item)
		ok = d.value(item, list.Index(i), r.element(), place{item, at.path + "[" + strconv.Itoa(i) + "]"}) && ok
	}
	v.Set(list)
	return d.bounds(n, v, r, at, "") && ok
}

func (d *decoder) dictionary(n *yaml.Node, v reflect.Value, r rules, at place) bool {
	if n.Kind != yaml.MappingNode {
		return d.wrong(n, v.Type(), at)
	}
	all := reflect.MakeMapWithSize(v.Type(), len(n.Content)/2)
	ok := true
	for _, p := range d.pairs(n, at) {
		one := reflect.New(v.Type().Elem()).Elem()
		ok = d.value(p.value, one, r.element(), at.child(p.key.Value, p.key)) && ok
		all.SetMapIndex(reflect.ValueOf(p.key.Value).Convert(v.Type().Key()), one)
	}
	v.Set(all)
	return d.bounds(n, v, r, at, "") && ok
}

// scalar sets a value that is written as one text.
func (d *decoder) scalar(n *yaml.Node, v reflect.Value, r rules, at place) bool {
	if n.Kind != yaml.ScalarNode {
		return d.wrong(n, v.Type(), at)
	}
	e, ok := d.expand(n, at.path)
	if !ok {
		return false
	}
	if u := unmarshaler(v); u != nil {
		ok = d.unmarshal(n, v, u, e, at)
	} else {
		ok = d.basic(n, v, e, at)
	}
	return ok && d.words(n, v, r, at, e.from()) && d.bounds(n, v, r, at, e.from())
}

// unmarshal sets a value that reads its own text.
func (d *decoder) unmarshal(n *yaml.Node, v reflect.Value, u encoding.TextUnmarshaler, e expansion, at place) bool {
	if _, ok := u.(*Secret); ok {
		if n.ShortTag() != "!!str" {
			return d.wrong(n, v.Type(), at)
		}
		for _, ref := range e.refs {
			if ref.open != "" {
				d.report(n, at, ref.open)
				return false
			}
		}
	}
	err := u.UnmarshalText([]byte(e.text))
	switch x, ours := u.(expecter); {
	case err == nil:
		return true
	case len(e.refs) == 0:
		d.report(n, at, err.Error())
	case ours:
		d.report(n, at, fmt.Sprintf("the value from %s is not %s", e.from(), x.expected()))
	default:
		d.report(n, at, fmt.Sprintf("the value from %s does not fit here", e.from()))
	}
	return false
}

// basic sets a string, bool or number. With references the text decides, because "${env:PORT}" is a string to YAML.
func (d *decoder) basic(n *yaml.Node, v reflect.Value, e expansion, at place) bool {
	tag, refs := n.ShortTag(), len(e.refs) > 0
	switch v.Kind() {
	case reflect.String:
		if tag != "!!str" {
			return d.wrong(n, v.Type(), at)
		}
		if !utf8.ValidString(e.text) {
			d.report(n, at, fmt.Sprintf("the value from %s is not UTF-8 text", e.from()))
			return false
		}
		v.SetString(e.text)
	case reflect.Bool:
		word := strings.ToLower(e.text)
		switch {
		case refs && word != "true" && word != "false":
			d.report(n, at, fmt.Sprintf("the value from %s is not true or false", e.from()))
			return false
		case !refs && tag != "!!bool":
			return d.wrong(n, v.Type(), at)
		}
		v.SetBool(word == "true")
	default:
		if !refs && tag != "!!int" && tag != "!!float" {
			return d.wrong(n, v.Type(), at)
		}
		return d.number(n, v, e, at)
	}
	return true
}

// number sets an integer. Only plain decimals are read: YAML 1.1 and 1.2 read "010" differently.
func (d *decoder) number(n *yaml.Node, v reflect.Value, e expansion, at place) bool {
	what := e.from()
	if what == "" {
		what = quote(e.text)
	} else {
		what = "the value from " + what
	}
	digits := strings.TrimPrefix(e.text, "-")
	if len(digits) > 1 && digits[0] == '0' || digits == "" || strings.Trim(digits, "0123456789") != "" {
		d.report(n, at, what+" is not a whole decimal number")
		return false
	}
	if v.CanInt() {
		if i, err := strconv.ParseInt(e.text, 10, v.Type().Bits()); err == nil {
			v.SetInt(i)
			return true
		}
	} else if u, err := strconv.ParseUint(e.text, 10, v.Type().Bits()); err == nil {
		v.SetUint(u)
		return true
	}
	d.report(n, at, what+" is out of range")
	return false
}
