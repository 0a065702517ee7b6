package normalize

import (
	"bytes"
	"cmp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/auditrelay/auditrelay/audit"
)

// Source fields that are ours: what the decoders find around a record's own fields.
const (
	nameText     = "record.text"     // a message, or a whole record, that is text
	nameHostname = "syslog.hostname" // the parts of a syslog header
	nameApp      = "syslog.app"
	nameProcID   = "syslog.procid"
	nameMsgID    = "syslog.msgid"
	nameFacility = "syslog.facility"
	nameSeverity = "syslog.severity"
	nameTime     = "syslog.time"
	sdPrefix     = "syslog.sd."
)

// product is a compiled catalogue. It is immutable.
type product struct {
	id    string
	names ProductNames
	docs  []string

	// The source fields that the catalogue speaks of. They are numbered in the order of their names, from 1, so that
	// attributes come out in their canonical order.
	fields   [][]byte // by slot
	table    nameTable
	wild     nameTable // by last segment: data.*.ip
	wildSlot []bool    // by slot

	detectColumns []uint16
	detectKeys    []condition

	columns                   []column // of a CSV record without a header, nil if the catalogue does not say
	jsonSlot, detailsSlot     uint16
	jsonPrefix, detailsPrefix []byte
	pairs                     []uint16
	class                     classTable
	moduleSlot                uint16
	times                     []timeRule
	agreeWithin, lateAfter    time.Duration
	codeSlot                  uint16
	severitySlots             []uint16
	severityWords             map[string]audit.Severity
	severityExpected          bool
	failureRaises             audit.Severity
	entries                   []*entry
	byClass                   map[string]*entry
	other                     *entry
}

// entry is a compiled event.
type entry struct {
	Entry
	known bool
	rules []rule
	words []wordRule

	name, category, reason, targetType []byte

	byCode bool // the outcome goes by the record's result code
	fixed  audit.Outcome
}

type wordRule struct {
	slot uint16
	wordSpec
}

// rule fills a field of the event.
type rule struct {
	to      audit.FieldKey
	address bool // the field takes IP addresses only
	joined  bool
	base    bool
	unless  audit.FieldKey
	slots   []uint16
	value   []byte
	join    []byte
	when    []condition
}

// condition holds if the source field has one of the values.
type condition struct {
	slot  uint16
	any   bool // every value
	empty bool // no value
	words []string
}

func (c *condition) holds(value []byte) bool {
	if len(value) == 0 {
		return c.empty
	}
	if c.any {
		return true
	}
	for _, word := range c.words {
		if equalFoldASCII(value, word) {
			return true
		}
	}
	return false
}

type timeRule struct {
	slot       uint16
	layouts    []layout
	configured bool // the collector's zone; else UTC
}

// compiler resolves one spec.
type compiler struct {
	*catalogReader
	spec *productSpec
	p    *product
	sets map[string][]rule // rules by shape, target type and module
}

// compile resolves what a spec refers to. Mistakes are noted in r.
func (r *catalogReader) compile(spec *productSpec) *product {
	c := &compiler{catalogReader: r, spec: spec, sets: map[string][]rule{}, p: &product{
		id: spec.id, names: spec.names, docs: spec.docs, jsonPrefix: []byte(spec.jsonPrefix),
		detailsPrefix: []byte(spec.detailsPrefix), agreeWithin: spec.agreeWithin, lateAfter: spec.lateAfter,
		severityWords: spec.severityWords, severityExpected: spec.severityExpected, failureRaises: spec.failureRaises,
		byClass: map[string]*entry{},
	}}
	spec.fields = append(spec.fields, defaultFields()...)
	c.number()
	c.decoding()
	for _, t := range spec.times {
		c.p.times = append(c.p.times, timeRule{slot: c.slot(t.field), layouts: t.layouts, configured: t.configured})
	}
	c.p.moduleSlot, c.p.codeSlot = c.slot(spec.module), c.slot(spec.outcomeCode)
	c.p.severitySlots = c.slots(spec.severityFrom)
	c.checkConditions()
	for i := range spec.events {
		e := c.entry(&spec.events[i])
		c.p.entries = append(c.p.entries, e)
		c.p.byClass[e.Class] = e
	}
	slices.SortFunc(c.p.entries, func(a, b *entry) int { return cmp.Compare(a.Class, b.Class) })
	c.p.other = c.entry(&spec.other)
	if c.p.other.Severity == 0 {
		c.p.other.Severity = audit.SeverityInfo
	}
	c.classes()
	return c.p
}

// defaultFields are the rules that every product has, after its own: what a syslog header says.
func defaultFields() []fieldSpec {
	return []fieldSpec{
		{to: audit.KeyMessage, from: []string{nameText}},
		{to: audit.KeyHostName, from: []string{nameHostname}},
		{to: audit.KeyAppName, from: []string{nameApp}},
		{to: audit.KeySyslogFacility, from: []string{nameFacility}},
		{to: audit.KeySyslogProcID, from: []string{nameProcID}},
		{to: audit.KeySyslogMsgID, from: []string{nameMsgID}},
	}
}

// number gives every source field that the spec names a slot.
func (c *compiler) number() {
	s := c.spec
	names := []string{s.jsonField, s.detailsField, s.module, s.outcomeCode, nameSeverity, nameTime}
	for _, list := range append([][]string{s.detectColumns, s.columns, s.pairs, s.severityFrom}, s.classFrom...) {
		names = append(names, list...)
	}
	for _, t := range s.times {
		names = append(names, t.field)
	}
	conditions := slices.Clone(s.detectKeys)
	for _, f := range s.fields {
		names = append(names, f.from...)
		conditions = append(conditions, f.when...)
	}
	for _, cond := range conditions {
		if !isStatic(cond.subject) {
			names = append(names, cond.subject)
		}
	}
	for _, w := range s.other.words {
		names = append(names, w.field)
	}
	names = append(names, s.parameterNames()...)
	byFolded := map[string]string{}
	for _, name := range names {
		if folded := string(foldName([]byte(name))); name != "" && byFolded[folded] == "" {
			byFolded[folded] = name
		}
	}
	unique := make([][]byte, 0, len(byFolded)+1)
	for _, name := range byFolded {
		unique = append(unique, []byte(name))
	}
	slices.SortFunc(unique, bytes.Compare)
	c.p.fields = slices.Insert(unique, 0, nil)
	c.tables()
}

// parameterNames are the names that the entries' parameters have once their compound field is taken apart: flat, and
// under the name of their side. Names that are known need no copy and no sorting later.
func (s *productSpec) parameterNames() (names []string) {
	for i := range s.events {
		for _, p := range s.events[i].Parameters {
			for _, name := range p.Names {
				if s.jsonField != "" {
					names = append(names, s.jsonPrefix+name, s.jsonPrefix+p.Side+"."+name)
				}
				if s.detailsField != "" {
					names = append(names, s.detailsPrefix+name)
				}
			}
		}
	}
	return names
}

// tables builds the tables that names are looked up in.
func (c *compiler) tables() {
	exact, wild := slices.Clone(c.p.fields), make([][]byte, len(c.p.fields))
	c.p.wildSlot = make([]bool, len(c.p.fields))
	for slot, name := range c.p.fields {
		if first, last, ok := strings.Cut(string(name), ".*."); ok {
			if first == "" || strings.ContainsAny(first+last, ".*") {
				c.fail(c.spec.node, "source field %q: a star stands for what is between the first and the last name", name)
			}
			exact[slot], wild[slot], c.p.wildSlot[slot] = nil, []byte(last), true
		}
	}
	c.p.table, c.p.wild = newNameTable(exact), newNameTable(wild)
}

// isStatic reports whether a condition's subject is known from the catalogue's entry alone.
func isStatic(subject string) bool {
	return subject == "shape" || subject == "target_type" || subject == "module"
}

func (c *compiler) slot(name string) uint16 {
	if name == "" {
		return 0
	}
	folded := foldName([]byte(name))
	for slot := 1; slot < len(c.p.fields); slot++ {
		if matchesFolded(c.p.fields[slot], folded) {
			return uint16(slot)
		}
	}
	panic("BUG: source field without a slot: " + name)
}

func (c *compiler) slots(names []string) []uint16 {
	slots := make([]uint16, len(names))
	for i, name := range names {
		slots[i] = c.slot(name)
	}
	return slots
}

func (c *compiler) condition(spec conditionSpec) condition {
	cond := condition{slot: c.slot(spec.subject)}
	for _, v := range spec.values {
		switch v {
		case "*":
			cond.any = true
		case "":
			cond.empty = true
		default:
			cond.words = append(cond.words, v)
		}
	}
	return cond
}

func (c *compiler) decoding() {
	s, p := c.spec, c.p
	p.jsonSlot, p.detailsSlot = c.slot(s.jsonField), c.slot(s.detailsField)
	p.pairs = c.slots(s.pairs)
	p.detectColumns = c.slots(s.detectColumns)
	for _, cond := range s.detectKeys {
		p.detectKeys = append(p.detectKeys, c.condition(cond))
	}
	for _, name := range s.columns {
		slot := c.slot(name)
		p.columns = append(p.columns, column{name: p.fields[slot], slot: slot})
	}
}

// checkConditions reports conditions on words that no entry has, so that a typing error does not silently switch a rule
// off.
func (c *compiler) checkConditions() {
	have := map[string]bool{"shape ": true, "target_type ": true, "module ": true}
	modules := false
	for _, e := range append(slices.Clone(c.spec.events), c.spec.other) {
		have["shape "+e.shape], have["target_type "+e.TargetType], have["module "+e.Module] = true, true, true
		modules = modules || e.Module != ""
	}
	for _, f := range c.spec.fields {
		for _, cond := range f.when {
			for _, v := range cond.values {
				if isStatic(cond.subject) && (cond.subject != "module" || modules) && v != "*" && !have[cond.subject+" "+v] {
					c.fail(cond.node, "no event has %s %q", cond.subject, v)
				}
			}
			if cond.subject == "module" && c.spec.module == "" {
				c.fail(cond.node, "the catalogue has no key module that says which source field it is")
			}
		}
	}
}

func (c *compiler) entry(spec *entrySpec) *entry {
	e := &entry{
		Entry: spec.Entry, known: spec.Class != "", rules: c.rules(spec), name: []byte(spec.Name),
		category: []byte(spec.Category), reason: []byte(spec.Reason), targetType: []byte(spec.TargetType),
		byCode: spec.Outcome == "code",
	}
	e.Product = c.spec.id
	if !e.byCode {
		// The words were checked when the entry was read.
		e.fixed, _ = audit.ParseOutcome(spec.Outcome)
	}
	if e.byCode && c.spec.outcomeCode == "" {
		c.fail(spec.node, "outcome code needs the catalogue's key outcome: {code: source field}")
	}
	if len(e.Results) > 0 && !e.byCode {
		c.fail(spec.node, "results need outcome: code")
	}
	for _, w := range spec.words {
		e.words = append(e.words, wordRule{slot: c.slot(w.field), wordSpec: w})
	}
	return e
}

// rules returns the rules for an entry: those whose conditions on the entry hold. What depends on the record stays.
func (c *compiler) rules(e *entrySpec) []rule {
	key := e.shape + "\x00" + e.TargetType + "\x00" + e.Module
	if set, ok := c.sets[key]; ok {
		return set
	}
	set := []rule{}
	for i := range c.spec.fields {
		f := &c.spec.fields[i]
		if rule, ok := c.rule(f, e); ok {
			set = append(set, rule)
		}
	}
	c.sets[key] = set
	return set
}

func (c *compiler) rule(f *fieldSpec, e *entrySpec) (rule, bool) {
	out := rule{to: f.to, base: f.base, joined: f.joined, unless: f.unless, slots: c.slots(f.from), join: []byte(f.join)}
	if f.value != "" {
		out.value = []byte(f.value)
	}
	if row := f.to.Info(); row != nil {
		out.address = row.Type == audit.TypeIP
	}
	for _, spec := range f.when {
		word := ""
		switch spec.subject {
		case "shape":
			word = e.shape
		case "target_type":
			word = e.TargetType
		case "module":
			if e.Module == "" {
				// An event that nobody listed: the record itself says which module wrote it.
				cond := spec
				cond.subject = c.spec.module
				if cond.subject != "" {
					out.when = append(out.when, c.condition(cond))
				}
				continue
			}
			word = e.Module
		default:
			out.when = append(out.when, c.condition(spec))
			continue
		}
		static := condition{words: spec.values}
		static.any, static.empty = slices.Contains(spec.values, "*"), slices.Contains(spec.values, "")
		if !static.holds([]byte(word)) {
			return rule{}, false
		}
	}
	return out, true
}

// nodeOf returns the node to blame for an entry's class.
func (s *productSpec) nodeOf(class string) *yaml.Node {
	for i := range s.events {
		if s.events[i].Class == class {
			return s.events[i].node
		}
	}
	return s.node
}
