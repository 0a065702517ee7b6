package normalize

import (
	"bytes"
	"crypto/rand"
	"math/bits"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// Limits of one event. What is over them is in its raw record only, and marked.
const (
	fieldsMax     = 1000 // source fields
	nameLengthMax = 256  // bytes of a source field's name
)

// saltBytes is how much randomness is drawn at once: 256 events' worth.
const saltBytes = 4096

// internMax bounds how many classes that no catalogue lists are remembered: a hostile source can make them up.
const internMax = 4096

// keptMax bounds the memory that is kept for the next batch after a long record, in bytes and for each use.
const keptMax = 64 << 10

// tableKeys is more than the largest field key that a rule can fill.
const tableKeys = 128

// cell is one source field of a record.
type cell struct {
	name  []byte
	value []byte
	slot  uint16 // in the product's table; 0 = the catalogue does not speak of it, or an earlier cell has the slot
	lent  bool   // the name lies in memory that the next record overwrites
	whole bool   // the value is the JSON text of a list or an object
}

// scratch is what is needed to understand one record after the other. It belongs to one goroutine at a time.
type scratch struct {
	n     *Normalizer
	dst   *audit.Events
	trace *Explanation // nil = nobody wants to know
	zone  zoneClock

	product *product
	how     string   // why this product
	guess   *product // what the last record turned out to be whose product nobody named
	plan    *plan    // of a CSV record with a header
	planKey planKey

	cells  []cell
	hints  []hint  // what stood at each place of the last record
	at     []int32 // by slot: place in cells plus one
	used   []bool  // by slot: the value has become a field of the table
	names  []byte  // memory for flattened names
	halved []byte  // memory for cells with doubled quotes
	marks  audit.Marks
	header syslogHeader
	format string // what the record's own text is: csv, json, pairs, text
	framed bool   // a syslog header was read

	have  [2]uint64 // which fields of the table are filled
	table [tableKeys][]byte

	text     []byte // memory for folded and joined names
	interned map[string]string
	origin   *audit.Origin // whose path is path
	path     []byte
	random   [saltBytes]byte
	drawn    int // bytes of random that were used up
}

// hint is what the last record had at one place. Records of one kind have the same names in the same order, so a
// comparison mostly takes the place of a look-up.
type hint struct {
	product *product
	name    []byte
	slot    uint16
}

// hintsMax bounds the places that are remembered.
const hintsMax = 128

func newScratch(n *Normalizer) *scratch {
	return &scratch{n: n, interned: map[string]string{}, drawn: saltBytes, text: make([]byte, 0, 2*classLengthMax+1)}
}

// release forgets everything that points into a batch.
func (s *scratch) release() {
	clear(s.cells[:cap(s.cells)])
	s.cells = s.cells[:0]
	s.table = [tableKeys][]byte{}
	s.header = syslogHeader{}
	s.dst, s.trace, s.plan, s.planKey = nil, nil, nil, planKey{}
	if cap(s.names) > keptMax {
		s.names = nil
	}
	if cap(s.halved) > keptMax {
		s.halved = nil
	}
}

// bind begins a record, or begins it again, for a product.
func (s *scratch) bind(p *product) {
	s.product = p
	s.cells, s.names = s.cells[:0], s.names[:0]
	if n := len(p.fields); cap(s.at) < n {
		s.at, s.used = make([]int32, n), make([]bool, n)
	} else {
		s.at, s.used = s.at[:n], s.used[:n]
		clear(s.at)
		clear(s.used)
	}
	s.have = [2]uint64{}
}

// full reports whether the record has as many source fields as an event may have.
func (s *scratch) full() bool { return len(s.cells) >= fieldsMax }

// add adds a source field, unless its value is empty. lent says that the name lies in s.names.
func (s *scratch) add(name, value []byte, lent bool) {
	if len(value) == 0 {
		return
	}
	if len(name) > nameLengthMax {
		s.marks |= audit.MarkFieldsCut
		return
	}
	if s.addSlot(name, value, s.find(name)) && lent {
		s.cells[len(s.cells)-1].lent = true
	}
}

// find returns the slot of a name, as product.find does.
func (s *scratch) find(name []byte) uint16 {
	place := len(s.cells)
	if place < len(s.hints) {
		if h := &s.hints[place]; h.product == s.product && bytes.Equal(h.name, name) {
			return h.slot
		}
	}
	slot := s.product.find(name)
	if place < hintsMax {
		for len(s.hints) <= place {
			s.hints = append(s.hints, hint{})
		}
		h := &s.hints[place]
		h.product, h.slot, h.name = s.product, slot, append(h.name[:0], name...)
	}
	return slot
}

// addSlot adds a source field whose slot is known. Of two with the same name the first holds, and the record is marked.
func (s *scratch) addSlot(name, value []byte, slot uint16) bool {
	if len(value) == 0 {
		return false
	}
	if s.full() {
		s.marks |= audit.MarkFieldsCut
		return false
	}
	if slot != 0 {
		if first := s.at[slot]; first == 0 {
			s.at[slot] = int32(len(s.cells) + 1)
		} else {
			if bytes.Equal(s.cells[first-1].name, name) {
				s.markTwice()
				return false
			}
			slot = 0
		}
	}
	n := len(s.cells)
	if n == cap(s.cells) {
		s.cells = append(s.cells, cell{})
	}
	// Member by member, as a whole cell would be put together and then copied.
	s.cells = s.cells[:n+1]
	c := &s.cells[n]
	c.name, c.value, c.slot, c.lent, c.whole = name, value, slot, false, false
	return true
}

// addWhole adds a source field whose value is the JSON text of a list or an object.
func (s *scratch) addWhole(name, value []byte, lent bool) {
	n := len(s.cells)
	if s.add(name, value, lent); len(s.cells) > n {
		s.cells[n].whole = true
	}
}

// markTwice marks a record with two values under one name: the second one is in its raw bytes only.
func (s *scratch) markTwice() {
	s.marks |= audit.MarkDetailsUnparsed
	if s.trace != nil {
		s.trace.factf("a name stands there twice: its first value holds")
	}
}

// addOurs adds a source field under a name of ours.
func (s *scratch) addOurs(name string, value []byte) {
	if len(value) > 0 {
		start := len(s.names)
		s.names = append(s.names, name...)
		s.add(s.names[start:len(s.names):len(s.names)], value, true)
	}
}

// undo takes back all cells from the given place on.
func (s *scratch) undo(mark int) {
	for i := mark; i < len(s.cells); i++ {
		if slot := s.cells[i].slot; slot != 0 {
			s.at[slot] = 0
		}
	}
	s.cells = s.cells[:mark]
}

// value returns the value of a source field, nil if the record has none.
func (s *scratch) value(slot uint16) []byte {
	if i := s.at[slot]; i != 0 {
		return s.cells[i-1].value
	}
	return nil
}

// isPairs reports whether the catalogue says that a list under this name is one of names and values.
func (s *scratch) isPairs(name []byte) bool {
	if len(s.product.pairs) == 0 {
		return false
	}
	slot := s.product.find(name)
	for _, p := range s.product.pairs {
		if p == slot && slot != 0 {
			return true
		}
	}
	return false
}

// set fills a field of the table, unless it is filled or the value is empty.
func (s *scratch) set(key audit.FieldKey, value []byte) bool {
	if len(value) == 0 || s.has(key) {
		return false
	}
	s.have[key>>6] |= 1 << (key & 63)
	s.table[key] = value
	return true
}

func (s *scratch) has(key audit.FieldKey) bool { return s.have[key>>6]&(1<<(key&63)) != 0 }

// apply fills the fields of the table by an entry's rules.
func (s *scratch) apply(rules []rule) {
rules:
	for i := range rules {
		r := &rules[i]
		if s.has(r.to) || r.unless != 0 && s.has(r.unless) {
			continue
		}
		for j := range r.when {
			if cond := &r.when[j]; !cond.holds(s.value(cond.slot)) {
				continue rules
			}
		}
		switch {
		case r.joined:
			s.joinFields(r)
		case len(r.value) > 0:
			if s.set(r.to, r.value) && s.trace != nil {
				s.trace.field("(catalogue)", r.value, r.to.String())
			}
		default:
			s.firstField(r)
		}
	}
}

// firstField takes the first of a rule's source fields that has a value that will do.
func (s *scratch) firstField(r *rule) {
	for _, slot := range r.slots {
		value := s.value(slot)
		if len(value) == 0 {
			continue
		}
		if r.address {
			if value = trimSpace(value); !isAddress(value) {
				continue
			}
		}
		if r.base {
			value = value[bytes.LastIndexAny(value, `/\`)+1:]
		}
		if s.set(r.to, value) {
			s.use(slot, value, r.to.String())
			return
		}
	}
}

// joinFields puts all of a rule's source fields together.
func (s *scratch) joinFields(r *rule) {
	size := 0
	for _, slot := range r.slots {
		size += len(s.value(slot)) + len(r.join)
	}
	if size == len(r.slots)*len(r.join) {
		return
	}
	joined := s.dst.Alloc(size)[:0]
	for _, slot := range r.slots {
		if value := s.value(slot); len(value) > 0 {
			if len(joined) > 0 {
				joined = append(joined, r.join...)
			}
			joined = append(joined, value...)
			s.use(slot, value, r.to.String())
		}
	}
	s.set(r.to, joined)
}

// use notes that a source field's value has become a field of the table, so that it does not come out twice.
func (s *scratch) use(slot uint16, value []byte, to string) {
	s.used[slot] = true
	if s.trace != nil {
		s.trace.field(string(s.cells[s.at[slot]-1].name), value, to)
	}
}

// emit gives ev its fields, in canonical order: what the rules did not take as attributes, then the table.
func (s *scratch) emit(ev *audit.Event) {
	s.dst.StartFields(ev)
	for slot := 1; slot < len(s.at); slot++ {
		if i := s.at[slot]; i != 0 && !s.used[slot] && !s.product.wildSlot[slot] {
			s.attribute(ev, s.product.fields[slot], s.cells[i-1].value, &s.cells[i-1])
		}
	}
	ordered := true
	for i := range s.cells {
		c := &s.cells[i]
		if c.slot != 0 && (s.used[c.slot] || !s.product.wildSlot[c.slot]) {
			continue
		}
		name := c.name
		if c.lent {
			name = s.dst.Copy(name)
		}
		s.attribute(ev, name, c.value, c)
		ordered = false
	}
	for word, set := range s.have {
		for ; set != 0; set &= set - 1 {
			key := word<<6 | bits.TrailingZeros64(set)
			s.dst.AddField(ev, audit.Field{Key: audit.FieldKey(key), Value: s.table[key]})
		}
	}
	s.dst.EndFields(ev)
	if !ordered {
		n := len(ev.Fields)
		if ev.SortFields(); len(ev.Fields) < n {
			s.markTwice()
		}
	}
}

func (s *scratch) attribute(ev *audit.Event, name, value []byte, c *cell) {
	s.dst.AddField(ev, audit.Field{Key: audit.KeyAttribute, Name: name, Value: value})
	if s.trace != nil {
		s.trace.field(string(c.name), value, "attributes."+string(name))
	}
}

// intern returns b as a string, the same one for the same bytes as long as not too many are made up.
func (s *scratch) intern(b []byte) string {
	if text, ok := s.interned[string(b)]; ok {
		return text
	}
	text := string(b)
	if len(s.interned) < internMax {
		s.interned[text] = text
	}
	return text
}

// salt fills an event's salt.
func (s *scratch) salt(p []byte) {
	if s.n.saltFunc != nil {
		s.n.saltFunc(p)
		return
	}
	if s.drawn+len(p) > len(s.random) {
		// It cannot fail: crypto/rand ends the program rather than give out what is not random.
		_, _ = rand.Read(s.random[:])
		s.drawn = 0
	}
	copy(p, s.random[s.drawn:])
	clear(s.random[s.drawn : s.drawn+len(p)])
	s.drawn += len(p)
}

// textMarks looks at the bytes of a record: whether they are UTF-8, and whether there are control bytes that no text
// has.
func textMarks(b []byte) (marks audit.Marks) {
	ascii := true
	for i := 0; i+8 <= len(b); i += 8 {
		w := uint64(b[i]) | uint64(b[i+1])<<8 | uint64(b[i+2])<<16 | uint64(b[i+3])<<24 |
			uint64(b[i+4])<<32 | uint64(b[i+5])<<40 | uint64(b[i+6])<<48 | uint64(b[i+7])<<56
		if w&0x8080808080808080 != 0 {
			ascii = false
		}
		// A byte below 0x20 borrows from its highest bit. Bytes above 0x7F may seem to, so the slow look decides.
		if (w-0x2020202020202020)&^w&0x8080808080808080 != 0 && hasControl(b[i:i+8]) {
			marks |= audit.MarkBinary
		}
	}
	tail := b[len(b)&^7:]
	if hasControl(tail) {
		marks |= audit.MarkBinary
	}
	for _, c := range tail {
		ascii = ascii && c < utf8.RuneSelf
	}
	if !ascii && !utf8.Valid(b) {
		marks |= audit.MarkInvalidUTF8
	}
	return marks
}

func hasControl(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7F {
			return true
		}
	}
	return false
}
