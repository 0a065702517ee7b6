package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"

	"gopkg.in/yaml.v3"
)

// OwnSource is the id under which the relay's own events are counted. No collector can have it.
const OwnSource = "auditrelay"

// maxIDBytes keeps file names made of an id and a suffix far below the system's 255.
const maxIDBytes = 64

func (d *decoder) collectors(n *yaml.Node, list *[]Collector, at place) bool {
	for _, s := range d.sections(n, reflect.TypeOf(*list), at, d.kinds.Collect) {
		c := newCollector()
		c.ID, c.Line = s.key.Value, s.key.Line
		if c.ID == OwnSource {
			d.add(s.key.Line, s.key.Column, at.child(c.ID, s.key).path,
				"this id is taken for what auditrelay itself reports: use another")
		}
		c.Settings = d.section(s.value, at.child(c.ID, s.key), &c, d.kinds.Collect)
		*list = append(*list, c)
	}
	slices.SortFunc(*list, func(a, b Collector) int { return cmp.Compare(a.ID, b.ID) })
	return d.clean(at.path)
}

func (d *decoder) destinations(n *yaml.Node, list *[]Destination, at place) bool {
	for _, s := range d.sections(n, reflect.TypeOf(*list), at, d.kinds.Forward) {
		f := newDestination()
		f.ID, f.Line = s.key.Value, s.key.Line
		f.Settings = d.section(s.value, at.child(f.ID, s.key), &f, d.kinds.Forward)
		*list = append(*list, f)
	}
	slices.SortFunc(*list, func(a, b Destination) int { return cmp.Compare(a.ID, b.ID) })
	return d.clean(at.path)
}

// sections returns the ids under collect or forward with their values. It checks the ids.
func (d *decoder) sections(n *yaml.Node, t reflect.Type, at place, kinds []Kind) []pair {
	if n.Kind != yaml.MappingNode {
		d.wrong(n, t, at)
		return nil
	}
	if len(n.Content) == 0 {
		d.report(n, at, "is empty: add a section, as \"id: {type: …}\" with the type "+orList(kindNames(kinds)))
		return nil
	}
	list := d.pairs(n, at)
	for _, p := range list {
		if !validID(p.key.Value) {
			d.add(p.key.Line, p.key.Column, at.path, fmt.Sprintf(
				"%s cannot be an id: use 1 to %d of a-z, 0-9, \"-\" and \"_\", with a letter or digit first",
				quote(p.key.Value), maxIDBytes))
		}
	}
	return list
}

func validID(id string) bool {
	for i, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (i == 0 || c != '-' && c != '_') {
			return false
		}
	}
	return id != "" && len(id) <= maxIDBytes
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func kindNames(kinds []Kind) []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	return names
}

// section fills the common keys and the kind's settings from one section, and returns the settings.
func (d *decoder) section(n *yaml.Node, at place, common any, kinds []Kind) (settings any) {
	switch {
	case isNull(n):
		d.report(n, at, "is empty: give it a type, "+orList(kindNames(kinds)))
		return nil
	case n.Style&yaml.TaggedStyle != 0:
		d.report(n, at, tagged)
		return nil
	case n.Kind != yaml.MappingNode:
		d.report(n, at, fmt.Sprintf("expected a section, found %s: write it as {type: …}", nodeWord(n)))
		return nil
	}
	fields := fieldsOf(common)
	fields[findField(fields, "type")].tag += reflect.StructTag(fmt.Sprintf(" example:%q", orList(kindNames(kinds))))
	typ := locate(n, "type")
	i := -1
	if typ != nil {
		typ = resolved(typ)
		i = slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == typ.Value })
	}
	if i < 0 {
		// Without a kind nobody can say which keys are wrong; the common ones are checked all the same.
		d.fill(n, at, fields, false)
		if path := joinPath(at.path, "type"); typ != nil && d.clean(path) {
			d.report(typ, place{typ, path}, unknown("type", typ.Value, kindNames(kinds)))
		}
		return nil
	}
	if kinds[i].Settings != nil {
		settings = kinds[i].Settings()
	}
	if settings == nil {
		d.fill(n, at, fields, true)
		return nil
	}
	d.fillAndValidate(n, at, joined(fields, fieldsOf(settings)), settings)
	return settings
}
