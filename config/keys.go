package config

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Key describes one key that a configuration file may have.
type Key struct {
	Path     string   // dotted; ids stand as their type ("collect.file.paths"), list entries as "[]"
	Type     string   // in the operator's words: "size", "list of URLs", "section", …
	Default  string   // as it would stand in the file, or in words; empty if there is none
	Required bool     // the file, or the section that the key is in, must have it
	OneOf    []string // the words allowed, if only some are
	Doc      string   // one sentence
}

// ids reports whether what stands below the key are ids and their sections.
func (k Key) ids() bool { return k.Path == "collect" || k.Path == "forward" }

// Keys lists every key of a file with these kinds, sections before what is in them, in the order of the structs.
func Keys(kinds Kinds) []Key {
	return appendKeys(nil, "", fieldsOf(newConfig()), kinds)
}

func appendKeys(list []Key, prefix string, fields []field, kinds Kinds) []Key {
	for _, f := range fields {
		path := joinPath(prefix, f.key)
		r := rulesOf(f.tag)
		list = append(list, Key{
			Path: path, Type: typeName(f.value.Type()), Default: defaultText(f), Required: f.required(),
			OneOf: slices.Concat(r.oneof, r.schemes), Doc: f.tag.Get("doc"),
		})
		switch f.value.Interface().(type) {
		case []Collector:
			c := newCollector()
			list = appendKindKeys(list, path, func() []field { return fieldsOf(&c) }, kinds.Collect)
		case []Destination:
			d := newDestination()
			list = appendKindKeys(list, path, func() []field { return fieldsOf(&d) }, kinds.Forward)
		default:
			if suffix, inner := innerStruct(f.value); inner != nil {
				list = appendKeys(list, path+suffix, fieldsOf(inner), kinds)
			}
		}
	}
	return list
}

func appendKindKeys(list []Key, prefix string, common func() []field, kinds []Kind) []Key {
	for _, k := range kinds {
		path := joinPath(prefix, k.Name)
		list = append(list, Key{Path: path, Type: "section", Doc: k.Doc})
		fields := common()
		if k.Settings != nil {
			if settings := k.Settings(); settings != nil {
				fields = joined(fields, fieldsOf(settings))
			}
		}
		list = appendKeys(list, path, fields, Kinds{})
	}
	return list
}

// innerStruct returns a pointer to the struct whose keys stand below a field, and what its path adds; nil if none do.
func innerStruct(v reflect.Value) (suffix string, ptr any) {
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	t := v.Type()
	for {
		switch {
		case t.Kind() == reflect.Pointer:
			t = t.Elem()
		case typeName(t) == "section":
			if v.Type() == t {
				return suffix, v.Addr().Interface()
			}
			return suffix, reflect.New(t).Interface()
		case t.Kind() == reflect.Slice:
			suffix, t = suffix+"[]", t.Elem()
		default:
			return "", nil
		}
	}
}

// defaultText shows the value that a field has before the file is read.
func defaultText(f field) string {
	if text, ok := f.tag.Lookup("default"); ok {
		return text
	}
	v := f.value
	for v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case v.Kind() == reflect.Bool:
		return fmt.Sprint(v.Bool())
	case v.IsZero() || f.required() || v.Kind() == reflect.Struct && typeName(v.Type()) == "section":
		return ""
	case v.Kind() == reflect.Slice:
		words := make([]string, v.Len())
		for i := range words {
			words[i] = fmt.Sprint(v.Index(i).Interface())
		}
		return "[" + strings.Join(words, ", ") + "]"
	default:
		return fmt.Sprint(v.Interface())
	}
}

// KeysInFile lists the paths of all keys that a file has, in the form of [Key].Path, sorted and each once. Keys below a
// free map are among them. It is for comparing a reference file with the structs: it takes keys as they come, and only
// broken YAML and sections without a type are errors.
func KeysInFile(data []byte) ([]string, error) {
	found := &problems{file: "file"}
	root := readDocument(data, found)
	if root == nil {
		return nil, fmt.Errorf("list the keys: %w", found.err())
	}
	paths := make(map[string]bool)
	var walk func(path string, n *yaml.Node) error
	walk = func(path string, n *yaml.Node) error {
		n = resolved(n)
		if n.Kind == yaml.SequenceNode {
			for _, item := range n.Content {
				if err := walk(path+"[]", item); err != nil {
					return err
				}
			}
		}
		if n.Kind != yaml.MappingNode {
			return nil
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i].Value, n.Content[i+1]
			if path == "collect" || path == "forward" {
				typ := locate(value, "type")
				if typ == nil || resolved(typ).Kind != yaml.ScalarNode {
					return fmt.Errorf("list the keys: line %d: %s.%s has no type", n.Content[i].Line, path, shortened(key))
				}
				key = resolved(typ).Value
			}
			child := joinPath(path, key)
			paths[child] = true
			if err := walk(child, value); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk("", root); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(paths)), nil
}

// CompareKeys says how a reference file and the structs differ: every key of the structs stands in the file, and the
// other way round, where below a free map any key may stand. Nil means that they agree.
func CompareKeys(data []byte, kinds Kinds) error {
	inFile, err := KeysInFile(data)
	if err != nil {
		return err
	}
	var free []string
	known := make(map[string]bool)
	for _, k := range Keys(kinds) {
		known[k.Path] = true
		if isMap := strings.Contains(k.Type, "map of ") || strings.Contains(k.Type, "maps of "); isMap && !k.ids() {
			free = append(free, k.Path)
		}
		if _, found := slices.BinarySearch(inFile, k.Path); !found {
			err = errors.Join(err, fmt.Errorf("the file lacks the key %s (%s)", k.Path, k.Type))
		}
	}
	for _, path := range inFile {
		below := slices.ContainsFunc(free, func(f string) bool { return within(path, f) })
		if !known[path] && !below {
			err = errors.Join(err, fmt.Errorf("the file has the key %s, which no struct has", path))
		}
	}
	return err
}
