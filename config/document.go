package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// Limits of a file. A real one has a few hundred nodes; the limits only keep a mistake or an attack from costing
// memory.
const (
	maxFileBytes = 1 << 20
	maxNodes     = 100_000 // aliases count as what they stand for, so "billion laughs" ends here
	maxDepth     = 64
)

// readDocument parses data into its root mapping. It returns nil after it reported a problem.
func readDocument(data []byte, found *problems) *yaml.Node {
	if len(data) > maxFileBytes {
		found.add(1, 1, "", "the file is longer than 1 MiB: is it a configuration file?")
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if line, column, message := badCharacter(data); message != "" {
		found.add(line, column, "", message)
		return nil
	}
	docs, err := parseYAML(data)
	if err != nil {
		line, column, message := explainSyntax(data, err)
		found.add(line, column, "", message)
		return nil
	}
	switch {
	case len(docs) == 0 || docs[0].Content[0].ShortTag() == "!!null":
		found.add(1, 1, "", `the file has no content: begin with "version: 1"`)
		return nil
	case len(docs) > 1:
		found.add(docs[1].Line, docs[1].Column, "", `a second document begins here: keep one, without "---"`)
		return nil
	}
	root := docs[0].Content[0]
	if root.Kind != yaml.MappingNode {
		found.add(root.Line, root.Column, "", fmt.Sprintf(`expected keys such as "version: 1", found %s`, nodeWord(root)))
		return nil
	}
	if !measure(root, found) {
		return nil
	}
	return root
}

// badCharacter finds what is not text. yaml.v3 would refuse it too, but without saying where, and it takes UTF-16.
func badCharacter(data []byte) (line, column int, message string) {
	line, column = 1, 1
	for len(data) > 0 {
		c, size := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && size == 1:
			return line, column, fmt.Sprintf("byte 0x%02x is not UTF-8: save the file as UTF-8", data[0])
		case c < ' ' && c != '\t' && c != '\n' && c != '\r', c >= 0x7f && c < 0xa0 && c != 0x85, c == 0xfffe, c == 0xffff:
			return line, column, fmt.Sprintf("control character U+%04X: remove it", c)
		}
		column++
		if c == '\n' {
			line, column = line+1, 1
		}
		data = data[size:]
	}
	return 0, 0, ""
}

// parseYAML returns the document nodes of data, two at most: a second one is an error whatever is in it.
func parseYAML(data []byte) (docs []*yaml.Node, err error) {
	// yaml.v3 has "internal error" panics that broken input has reached before. Bad input must never end the process.
	defer func() {
		if r := recover(); r != nil {
			docs, err = nil, fmt.Errorf("yaml: %v", r)
		}
	}()
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for len(docs) < 2 {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, &doc)
	}
	return docs, nil
}

// measure walks the document with its aliases followed, and refuses what is too large, too deep or endless.
func measure(root *yaml.Node, found *problems) bool {
	nodes := 0
	open := make(map[*yaml.Node]bool) // the anchors that the walk is inside of
	// outer is the first alias on the way to n, the one to be changed; nil outside of aliases.
	var walk func(n, outer *yaml.Node, depth int) bool
	walk = func(n, outer *yaml.Node, depth int) bool {
		place := cmp.Or(outer, n)
		if n.Kind == yaml.AliasNode {
			if open[n.Alias] {
				found.add(n.Line, n.Column, "", "the alias stands inside of what it refers to: write the value out")
				return false
			}
			n, outer = n.Alias, place
		}
		nodes++
		switch {
		case nodes > maxNodes:
			found.add(place.Line, place.Column, "", fmt.Sprintf(
				"more than %d values, with aliases counted as often as they are used: make the file smaller", maxNodes))
			return false
		case depth > maxDepth:
			found.add(place.Line, place.Column, "", fmt.Sprintf("nested deeper than %d levels: make it flatter", maxDepth))
			return false
		}
		open[n] = true
		for _, child := range n.Content {
			if !walk(child, outer, depth+1) {
				return false
			}
		}
		delete(open, n)
		return true
	}
	return walk(root, nil, 1)
}

// nodeWord names what a node is, for a message; never its value, which may be a secret.
func nodeWord(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!timestamp":
		return "a date"
	default:
		return "a string"
	}
}
