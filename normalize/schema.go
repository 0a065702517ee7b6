package normalize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/auditrelay/auditrelay/audit"
)

// EventSchema returns the JSON Schema (draft 2020-12) of native JSON, indented, with a line break at its end. The keys
// stand in the order in which the encoder writes them. The caller owns the bytes.
func EventSchema() []byte {
	event := &schemaNode{
		Schema: "https://json-schema.org/draft/2020-12/schema",
		ID:     "urn:auditrelay:event:1",
		Title:  "auditrelay event",
		Doc:    "One audit event as auditrelay delivers it with format: json. Absent values are left out.",
	}
	event.object(schemaMembers(),
		"time", "received", "product", "class", "severity", "severity_source", "outcome", "known")
	event.Not = &schemaNode{Required: []string{"raw", "raw_base64"}}
	text, err := json.MarshalIndent(event, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("BUG: the schema of the event is not JSON: %v", err))
	}
	return append(text, '\n')
}

// schemaNode is a schema, with the few keywords that an event needs.
type schemaNode struct {
	Schema     string         `json:"$schema,omitempty"`
	ID         string         `json:"$id,omitempty"`
	Title      string         `json:"title,omitempty"`
	Doc        string         `json:"description,omitempty"`
	Type       string         `json:"type,omitempty"`
	Format     string         `json:"format,omitempty"`
	Pattern    string         `json:"pattern,omitempty"`
	Encoding   string         `json:"contentEncoding,omitempty"`
	Minimum    *int64         `json:"minimum,omitempty"`
	Enum       []string       `json:"enum,omitempty"`
	Items      *schemaNode    `json:"items,omitempty"`
	Unique     bool           `json:"uniqueItems,omitempty"`
	MinItems   int            `json:"minItems,omitempty"`
	Properties schemaProperty `json:"properties,omitempty"`
	Additional any            `json:"additionalProperties,omitempty"` // false or a *schemaNode
	Required   []string       `json:"required,omitempty"`
	MinMembers int            `json:"minProperties,omitempty"`
	Not        *schemaNode    `json:"not,omitempty"`
}

// schemaProperty is a list of members that keeps its order when it is written.
type schemaProperty []schemaMember

type schemaMember struct {
	name string
	node *schemaNode
}

// MarshalJSON writes the members as one object.
func (p schemaProperty) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range p {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(m.node)
		if err != nil {
			return nil, fmt.Errorf("write the schema of %s: %w", m.name, err)
		}
		fmt.Fprintf(&b, "%q:%s", m.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// object makes the schema one of an object that has these members and no others.
func (n *schemaNode) object(members []schemaMember, required ...string) {
	n.Type, n.Properties, n.Additional, n.Required, n.MinMembers = "object", members, false, required, 1
}

// schemaMembers returns the members of an event in the order of writing.
func schemaMembers() []schemaMember {
	members := []schemaMember{
		{"id", schemaPattern("names the event for ever; sent twice it is still one; always delivered", "^[0-9a-f]{32}$")},
		{"number", schemaInteger("place in the log, from 1 without gaps; always delivered", 1)},
		{"time", schemaTime("when it happened, UTC")},
		schemaField("time_original"),
		{"received", schemaTime("when auditrelay read it, UTC")},
		{"product", schemaText("the catalogue: netop, sofie, ucx, generic …")},
		{"vendor", schemaText("who makes the product")},
		{"class", schemaText("the vendor's type of event, such as USER/LOGIN")},
		schemaField("name"), schemaField("category"), schemaField("action"),
		{"severity", schemaWords("one scale for all products", schemaSeverities())},
		{"severity_source", schemaWords("where the severity came from", []string{
			audit.SeverityFromRecord.String(), audit.SeverityFromCatalog.String(), audit.SeverityFromRule.String(),
		})},
		schemaField("severity_original"),
		{"outcome", schemaWords("whether it was done", []string{
			audit.OutcomeUnknown.String(), audit.OutcomeSuccess.String(), audit.OutcomeFailure.String(),
		})},
		schemaField("reason"), schemaObject("result"), schemaField("message"),
		{"known", &schemaNode{Type: "boolean", Doc: "whether the catalogue lists the event"}},
		{"marks", &schemaNode{
			Type: "array", Doc: "what was guessed or noticed while the record was read", MinItems: 1, Unique: true,
			Items: &schemaNode{Type: "string", Enum: audit.MarkWords()},
		}},
	}
	for name := range strings.FieldsSeq(jsonObjects) {
		members = append(members, schemaObject(name))
	}
	return append(members, schemaField("module"), schemaField("environment"),
		schemaObject("source", schemaMember{"collector", schemaText("id of the collector in the configuration")}),
		schemaObject("syslog"),
		schemaGroup("relay",
			schemaMember{"id", schemaText("relay.id of the configuration")},
			schemaMember{"log", schemaPattern("the queue directory; with number it names the event too", "^[0-9]{8,10}$")}),
		schemaMember{"attributes", &schemaNode{
			Type: "object", Doc: "the vendor's own fields; dots in names mean nothing", MinMembers: 1,
			Additional: &schemaNode{Type: "string"},
		}},
		schemaMember{"raw", schemaText("the record as received, less what redaction masks")},
		schemaMember{"raw_base64", &schemaNode{Type: "string", Encoding: "base64", Doc: "raw, if it is not UTF-8"}},
	)
}

// schemaObject returns an object of the given members and those of the field table.
func schemaObject(name string, members ...schemaMember) schemaMember {
	for _, info := range audit.Fields() {
		if member, ok := strings.CutPrefix(info.Name, name+"."); ok {
			members = append(members, schemaMember{member, schemaRow(info)})
		}
	}
	return schemaGroup(name, members...)
}

func schemaGroup(name string, members ...schemaMember) schemaMember {
	node := new(schemaNode)
	node.object(members)
	return schemaMember{name, node}
}

// schemaField returns a field of the table that stands at the top.
func schemaField(name string) schemaMember {
	for _, info := range audit.Fields() {
		if info.Name == name {
			return schemaMember{name, schemaRow(info)}
		}
	}
	panic("BUG: the field table has no " + name)
}

func schemaRow(info audit.FieldInfo) *schemaNode {
	if jsonIsInteger(info) {
		return &schemaNode{Type: "integer", Doc: info.Doc}
	}
	return schemaText(info.Doc)
}

func schemaText(doc string) *schemaNode { return &schemaNode{Type: "string", Doc: doc} }

func schemaPattern(doc, pattern string) *schemaNode {
	return &schemaNode{Type: "string", Pattern: pattern, Doc: doc}
}

func schemaTime(doc string) *schemaNode {
	node := schemaPattern(doc, `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$`)
	node.Format = "date-time"
	return node
}

func schemaInteger(doc string, minimum int64) *schemaNode {
	return &schemaNode{Type: "integer", Minimum: &minimum, Doc: doc}
}

func schemaWords(doc string, words []string) *schemaNode {
	return &schemaNode{Type: "string", Enum: words, Doc: doc}
}

func schemaSeverities() (words []string) {
	for s := audit.SeverityDebug; s <= audit.SeverityCritical; s++ {
		words = append(words, s.String())
	}
	return words
}
