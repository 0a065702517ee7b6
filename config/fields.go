package config

import (
	"encoding"
	"fmt"
	"reflect"
	"strings"
)

// field is one key that a struct takes.
type field struct {
	key   string
	value reflect.Value // settable
	tag   reflect.StructTag
}

func (f field) required() bool { return f.tag.Get("required") == "true" }

// fieldsOf lists the keys of the struct that ptr points to, those of embedded structs in their place. A field that can
// never be set is a mistake in the program, and ends it.
func fieldsOf(ptr any) []field {
	v := reflect.ValueOf(ptr)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("BUG: settings of type %T: want a pointer to a struct", ptr))
	}
	return appendFields(nil, v.Elem())
}

func appendFields(list []field, v reflect.Value) []field {
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		key, set := sf.Tag.Lookup("yaml")
		switch {
		case sf.Anonymous && !set && sf.Type.Kind() == reflect.Struct:
			list = appendFields(list, v.Field(i))
		case key == "-":
		case key == "" || !sf.IsExported():
			panic(fmt.Sprintf(`BUG: field %s of %v: want it exported, with a tag yaml:"key" or yaml:"-"`, sf.Name, v.Type()))
		default:
			list = append(list, field{key: key, value: v.Field(i), tag: sf.Tag})
		}
	}
	return list
}

// joined adds a kind's own fields to the common ones of its section.
func joined(common, own []field) []field {
	for _, f := range own {
		if findField(common, f.key) >= 0 {
			panic(fmt.Sprintf("BUG: settings with the key %q, which every section has", f.key))
		}
	}
	return append(common, own...)
}

func findField(fields []field, key string) int {
	for i, f := range fields {
		if f.key == key {
			return i
		}
	}
	return -1
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// expecter is a type of ours that reads text; expected says what it reads, with its article.
type expecter interface{ expected() string }

// unmarshaler returns the way to set v from text, or nil if it has none.
func unmarshaler(v reflect.Value) encoding.TextUnmarshaler {
	u, _ := v.Addr().Interface().(encoding.TextUnmarshaler)
	return u
}

// typeName says in the operator's words what a key takes, without an article.
func typeName(t reflect.Type) string {
	if t.Kind() == reflect.Pointer {
		return typeName(t.Elem())
	}
	switch t {
	case reflect.TypeFor[Bytes]():
		return "size"
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Percent]():
		return "share"
	case reflect.TypeFor[Location]():
		return "time zone"
	case reflect.TypeFor[URL]():
		return "URL"
	case reflect.TypeFor[Secret]():
		return "secret"
	case reflect.TypeFor[[]Collector](), reflect.TypeFor[[]Destination]():
		return "map of sections"
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "string"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "number"
	case reflect.Slice:
		return "list of " + plural(typeName(t.Elem()))
	case reflect.Map:
		return "map of " + plural(typeName(t.Elem()))
	case reflect.Struct:
		return "section"
	default:
		panic(fmt.Sprintf("BUG: settings cannot have a field of type %v", t))
	}
}

func plural(name string) string {
	if before, after, ok := strings.Cut(name, " of "); ok {
		return before + "s of " + after
	}
	return name + "s"
}

// rules are the checks that a field's tags ask for.
type rules struct {
	oneof, schemes []string
	min, max       string
}

func rulesOf(tag reflect.StructTag) rules {
	return rules{
		oneof: strings.Fields(tag.Get("oneof")), schemes: strings.Fields(tag.Get("schemes")),
		min: tag.Get("min"), max: tag.Get("max"),
	}
}

// element are the rules for what a list or map holds: the bounds are about its length.
func (r rules) element() rules { return rules{oneof: r.oneof, schemes: r.schemes} }
