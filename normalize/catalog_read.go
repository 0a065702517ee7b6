package normalize

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// catalogFormat is the version of the catalogue files that this program reads.
const catalogFormat = "1"

// problemsMax bounds how many mistakes are reported of one load.
const problemsMax = 20

// catalogReader reads catalogue files into specs. It collects what is wrong instead of stopping at the first mistake.
type catalogReader struct {
	docs     []*yaml.Node          // one mapping for each product, in the order of their first file
	files    map[*yaml.Node]string // which file a node stands in
	problems []error
}

func newCatalogReader() *catalogReader { return &catalogReader{files: map[*yaml.Node]string{}} }

// fail notes a mistake at a node.
func (r *catalogReader) fail(node *yaml.Node, format string, args ...any) {
	if len(r.problems) < problemsMax {
		r.problems = append(r.problems, fmt.Errorf("%s:%d: %s", r.files[node], node.Line, fmt.Sprintf(format, args...)))
	}
}

// add parses one file and merges it with what is there for its product.
func (r *catalogReader) add(file string, data []byte) {
	var doc yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); err != nil {
		r.problems = append(r.problems, fmt.Errorf("%s: read catalogue: %w", file, err))
		return
	}
	root := doc.Content[0]
	r.mark(root, file)
	if root.Kind != yaml.MappingNode {
		r.fail(root, "a catalogue is a mapping with the keys catalog, product, class …")
		return
	}
	r.checkKeysOnce(root, map[*yaml.Node]bool{})
	id := find(root, "product")
	if id == nil || id.Value == "" {
		r.fail(root, "the key product is missing: it names the catalogue, in small letters")
		return
	}
	if format := find(root, "catalog"); format == nil || format.Value != catalogFormat {
		r.fail(root, "the key catalog must be %s: it is the version of the file format", catalogFormat)
		return
	}
	for _, old := range r.docs {
		if find(old, "product").Value == id.Value {
			r.merge(old, root)
			return
		}
	}
	r.docs = append(r.docs, root)
}

// mark remembers the file of all nodes under n.
func (r *catalogReader) mark(n *yaml.Node, file string) {
	r.files[n] = file
	for _, child := range n.Content {
		r.mark(child, file)
	}
}

// checkKeysOnce reports keys that stand twice in one mapping.
func (r *catalogReader) checkKeysOnce(n *yaml.Node, done map[*yaml.Node]bool) {
	if done[n] {
		return
	}
	done[n] = true
	if n.Kind == yaml.MappingNode {
		lines := map[string]int{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			if line, twice := lines[key.Value]; twice {
				r.fail(key, "%q stands here a second time, first in line %d", key.Value, line)
			}
			lines[key.Value] = key.Line
		}
	}
	for _, child := range n.Content {
		r.checkKeysOnce(child, done)
	}
}

// merge lays a site's file over the catalogue that is there.
func (r *catalogReader) merge(base, site *yaml.Node) {
	for i := 0; i < len(site.Content); i += 2 {
		key, value := site.Content[i], resolved(site.Content[i+1])
		old := find(base, key.Value)
		if key.Value != "events" || old == nil || value.Kind != yaml.MappingNode {
			setKey(base, key, value)
			continue
		}
		for j := 0; j < len(value.Content); j += 2 {
			class, entry := value.Content[j], resolved(value.Content[j+1])
			switch was := find(old, class.Value); {
			case entry.Tag == "!!null":
				removeKey(old, class.Value)
			case was == nil || entry.Kind != yaml.MappingNode:
				setKey(old, class, entry)
			default:
				// The entry may be shared by several classes (an alias): lay over a copy.
				merged := *was
				merged.Content = slices.Clone(was.Content)
				r.files[&merged] = r.files[was]
				for k := 0; k < len(entry.Content); k += 2 {
					setKey(&merged, entry.Content[k], entry.Content[k+1])
				}
				setKey(old, class, &merged)
			}
		}
	}
}

// resolved follows a YAML alias.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// find returns the value of a key of a mapping, nil if it has none.
func find(n *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return resolved(n.Content[i+1])
		}
	}
	return nil
}

func setKey(n, key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key.Value {
			n.Content[i], n.Content[i+1] = key, value
			return
		}
	}
	n.Content = append(n.Content, key, value)
}

func removeKey(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = slices.Delete(n.Content, i, i+2)
			return
		}
	}
}

// readers say what is done with the value of each key of a mapping.
type readers map[string]func(value *yaml.Node)

// mapping hands each value of a mapping to its reader. Keys without one are mistakes.
func (r *catalogReader) mapping(n *yaml.Node, what string, keys readers) {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping", what)
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		read, ok := keys[n.Content[i].Value]
		if !ok {
			known := make([]string, 0, len(keys))
			for key := range keys {
				known = append(known, key)
			}
			slices.Sort(known)
			r.fail(n.Content[i], "%s has no key %q: use %s", what, n.Content[i].Value, strings.Join(known, ", "))
			continue
		}
		read(resolved(n.Content[i+1]))
	}
}

// pairs hands each key and value of a mapping with free keys to read.
func (r *catalogReader) pairs(n *yaml.Node, what string, read func(key, value *yaml.Node)) {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		r.fail(n, "%s must be a mapping", what)
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		read(n.Content[i], resolved(n.Content[i+1]))
	}
}

// each hands each item of a sequence to read.
func (r *catalogReader) each(n *yaml.Node, what string, read func(item *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n, "%s must be a list", what)
		return
	}
	for _, item := range n.Content {
		read(resolved(item))
	}
}

// text returns a reader that stores a scalar.
func (r *catalogReader) text(to *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			r.fail(n, "this must be a text")
			return
		}
		*to = n.Value
	}
}

// texts returns a reader that stores a list of scalars; one scalar counts as a list of one.
func (r *catalogReader) texts(to *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		*to = nil
		if n.Kind == yaml.ScalarNode {
			*to = []string{n.Value}
			return
		}
		r.each(n, "this", func(item *yaml.Node) {
			var s string
			r.text(&s)(item)
			*to = append(*to, s)
		})
	}
}

// flag returns a reader that stores true or false.
func (r *catalogReader) flag(to *bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			r.fail(n, "this must be true or false")
		}
		*to = v
	}
}

// word returns a reader that stores one of the words.
func (r *catalogReader) word(to *string, words ...string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || !slices.Contains(words, n.Value) {
			r.fail(n, "unknown word %q: use %s", n.Value, strings.Join(words, ", "))
			return
		}
		*to = n.Value
	}
}
