package normalize

import (
	"slices"
	"strings"
)

// classLengthMax bounds the length of a class that no catalogue lists, in bytes: what is longer is no name.
const classLengthMax = 128

// classTable finds the entry for a record by one or two of its fields. Each part's value has a number; the numbers are
// the entry's place. So nothing is put together to look it up.
type classTable struct {
	parts     []classPart
	wordsOnly bool
	entries   []*entry // by number of the first part times width plus number of the second; nil = not listed
	width     int
}

// classPart is one source field that makes up a class.
type classPart struct {
	slots []uint16 // the first that has a value
	fold  string
	ids   map[string]int // as listed, and folded; 0 is every other value
	names []string       // by number, as listed
}

// foldClass appends v as it is looked up: exact keeps it, case makes it small, upper makes it large with an underscore
// for blanks and hyphens.
func foldClass(dst, v []byte, fold string) []byte {
	for _, c := range v {
		switch {
		case fold == "case":
			c = lowerASCII(c)
		case fold == "upper" && (c == ' ' || c == '-'):
			c = '_'
		case fold == "upper" && c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// id returns the number of a value. buf is scratch memory.
func (p *classPart) id(value, buf []byte) int {
	if id, ok := p.ids[string(value)]; ok {
		return id
	}
	if p.fold == "exact" {
		return 0
	}
	return p.ids[string(foldClass(buf[:0], value, p.fold))]
}

// find returns the entry for the numbers of the parts, nil if the catalogue lists none.
func (t *classTable) find(first, second int) *entry { return t.entries[first*t.width+second] }

// classes builds the table.
func (c *compiler) classes() {
	t := &c.p.class
	t.wordsOnly = c.spec.wordsOnly
	for _, names := range c.spec.classFrom {
		t.parts = append(t.parts, classPart{
			slots: c.slots(names), fold: c.spec.fold, ids: map[string]int{}, names: []string{""},
		})
	}
	where := make(map[string][2]int, len(c.p.entries))
	for _, e := range c.p.entries {
		first, second := c.splitClass(e.Class)
		place := [2]int{t.parts[0].number(first), 0}
		if len(t.parts) > 1 {
			place[1] = t.parts[1].number(second)
		}
		where[e.Class] = place
	}
	c.aliases()
	t.width = 1
	if len(t.parts) > 1 {
		t.width = len(t.parts[1].names)
	}
	t.entries = make([]*entry, len(t.parts[0].names)*t.width)
	for class, place := range where {
		at := &t.entries[place[0]*t.width+place[1]]
		if *at != nil {
			c.fail(c.spec.nodeOf(class), "%q and %q are one class when they are looked up", class, (*at).Class)
		}
		*at = c.p.byClass[class]
	}
	// A wildcard holds for every first part that has no entry of its own.
	star := t.parts[0].ids["*"]
	for i := 0; star != 0 && i < len(t.entries); i++ {
		if t.entries[i] == nil {
			t.entries[i] = t.entries[star*t.width+i%t.width]
		}
	}
}

// splitClass takes a class of two parts apart. The first part may hold a slash, the second may not.
func (c *compiler) splitClass(class string) (first, second string) {
	if len(c.spec.classFrom) == 1 {
		return class, ""
	}
	i := strings.LastIndexByte(class, '/')
	if i < 0 {
		c.fail(c.spec.nodeOf(class), "class %q must be two names with a slash between them", class)
		return class, ""
	}
	return class[:i], class[i+1:]
}

// number returns the number of a listed name, giving it one if it has none.
func (p *classPart) number(name string) int {
	folded := string(foldClass(nil, []byte(name), p.fold))
	if id, ok := p.ids[folded]; ok {
		p.ids[name] = id
		return id
	}
	id := len(p.names)
	p.names = append(p.names, name)
	p.ids[name], p.ids[folded] = id, id
	return id
}

// aliases adds the other names of parts.
func (c *compiler) aliases() {
	for part, names := range c.spec.aliases {
		i := slices.IndexFunc(c.spec.classFrom, func(from []string) bool { return slices.Contains(from, part) })
		if i < 0 {
			c.fail(c.spec.aliasesNode, "aliases for %q, but the class is not made from it", part)
			continue
		}
		table := &c.p.class.parts[i]
		for alias, name := range names {
			id, ok := table.ids[name]
			if !ok {
				c.fail(c.spec.aliasesNode, "alias %q stands for %q, which no event has", alias, name)
				continue
			}
			folded := string(foldClass(nil, []byte(alias), table.fold))
			if other, ok := table.ids[folded]; ok && other != id {
				c.fail(c.spec.aliasesNode, "alias %q is the name of an event already", alias)
			}
			table.ids[alias], table.ids[folded] = id, id
		}
	}
}
