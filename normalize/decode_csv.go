package normalize

import (
	"bytes"
	"strconv"

	"github.com/auditrelay/auditrelay/audit"
)

// column is one column of a CSV file.
type column struct {
	name []byte // as an attribute is called: the catalogue's spelling if it knows the column, else the header's
	slot uint16
}

// plan says what the cells of the records under one header are. It is immutable.
type plan struct {
	product *product
	how     string // why this product
	columns []column
}

// planKey names a plan: the same header can be read for several products. Origins never change, so their address will
// do; the plan keeps it from being used again.
type planKey struct {
	origin  *audit.Origin
	product *product // nil = find out
}

// plansMax bounds the cache of plans. A file has one origin, so this many files can be read in turn before plans are
// made anew.
const plansMax = 512

// plan returns the plan for the records of an origin that has a header.
func (n *Normalizer) plan(origin *audit.Origin, want *product) *plan {
	key := planKey{origin, want}
	n.mu.RLock()
	p := n.plans[key]
	n.mu.RUnlock()
	if p != nil {
		return p
	}
	p = n.newPlan(origin, want)
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.plans) >= plansMax {
		clear(n.plans)
	}
	n.plans[key] = p
	return p
}

// newPlan reads the header row of an origin.
func (n *Normalizer) newPlan(origin *audit.Origin, want *product) *plan {
	header := bytes.TrimPrefix(trimSpace(origin.Header), []byte("\xef\xbb\xbf"))
	var names [][]byte
	cells := csvCells{rest: header, comma: comma(origin, header)}
	for cells.next() {
		names = append(names, bytes.Clone(trimHeader(cells.value)))
	}
	p := &plan{product: want, how: "configured"}
	if want == nil {
		p.product, p.how = n.productOfHeader(names)
	}
	taken := make(map[string]int, len(names))
	for i, name := range names {
		c := column{name: name, slot: p.product.find(name)}
		if c.slot != 0 && !p.product.wildSlot[c.slot] {
			c.name = p.product.fields[c.slot]
		}
		if len(c.name) == 0 {
			c.name = strconv.AppendInt([]byte("column."), int64(i)+1, 10)
		}
		// A name that stands there a second time gets a number, so that both values come out.
		taken[string(c.name)]++
		if again := taken[string(c.name)]; again > 1 {
			c.name, c.slot = strconv.AppendInt(append(bytes.Clone(c.name), '.'), int64(again), 10), 0
		}
		p.columns = append(p.columns, c)
	}
	return p
}

// trimHeader takes blanks, also those that do not break, from the ends of a column name.
func trimHeader(name []byte) []byte {
	return bytes.TrimFunc(name, func(r rune) bool { return r <= ' ' || r == 0xA0 || r == 0xFEFF })
}

// productOfHeader finds the product whose columns a header has.
func (n *Normalizer) productOfHeader(names [][]byte) (*product, string) {
	for _, p := range n.catalogs.products {
		if len(p.detectColumns) == 0 {
			continue
		}
		missing := false
		for _, slot := range p.detectColumns {
			found := false
			for _, name := range names {
				found = found || p.find(name) == slot
			}
			missing = missing || !found
		}
		if !missing {
			return p, "found by its columns"
		}
	}
	return n.generic, "no product has these columns"
}

// find returns the slot of a source field's name, 0 if the catalogue does not speak of it.
func (p *product) find(name []byte) uint16 {
	if slot := p.table.find(name); slot != 0 {
		return slot
	}
	last, deep := lastSegment(name)
	if !deep {
		return 0
	}
	slot := p.wild.find(last)
	if slot == 0 {
		return 0
	}
	// The first segment must be the one before the star.
	star := bytes.IndexByte(p.fields[slot], '.')
	if !matchesFolded(name[:bytes.IndexByte(name, '.')], foldName(p.fields[slot][:star])) {
		return 0
	}
	return slot
}

// comma returns the delimiter: the origin's, else the one of , ; tab | that stands most often in row.
func comma(origin *audit.Origin, row []byte) byte {
	if origin != nil && origin.Comma != 0 {
		return origin.Comma
	}
	best, most := byte(','), 0
	for _, c := range []byte(",;\t|") {
		if n := bytes.Count(row, []byte{c}); n > most {
			best, most = c, n
		}
	}
	return best
}

// csvCells takes one record apart (RFC 4180). It is lenient: a quote inside a cell that does not begin with one stands
// for itself, blanks after a closing quote are none of the cell, other text after it is, a quote that never closes
// ends with the record.
type csvCells struct {
	rest   []byte
	comma  byte
	done   bool
	value  []byte // the cell without its outer quotes, doubled quotes halved
	quoted bool
	lent   bool   // value lies in buf, which the next cell overwrites
	buf    []byte // grown as needed
}

// next moves to the next cell. A record has at least one.
func (c *csvCells) next() bool {
	if c.done {
		return false
	}
	c.quoted, c.lent = false, false
	if len(c.rest) == 0 || c.rest[0] != '"' {
		c.cut(bytes.IndexByte(c.rest, c.comma))
		return true
	}
	c.quoted = true
	end := bytes.IndexByte(c.rest[1:], '"') + 1
	if end == 0 {
		c.value, c.rest, c.done = c.rest[1:], nil, true
		return true
	}
	c.value = c.rest[1:end]
	if end+1 < len(c.rest) && c.rest[end+1] == '"' {
		end = c.halve(end)
	}
	next := end + 1
	for next < len(c.rest) && c.rest[next] == ' ' && c.comma != ' ' {
		next++
	}
	switch {
	case next >= len(c.rest):
		c.rest, c.done = nil, true
	case c.rest[next] == c.comma:
		c.rest = c.rest[next+1:]
	default:
		// No clean end: the cell is kept as it stands, quotes and all.
		c.lent = false
		i := bytes.IndexByte(c.rest[end:], c.comma)
		if i >= 0 {
			i += end
		}
		c.cut(i)
	}
	return true
}

// halve copies a quoted cell to buf with each doubled quote halved. The first one stands at first. It returns where the
// closing quote is, the length of the record if there is none.
func (c *csvCells) halve(first int) (end int) {
	if len(c.buf) < len(c.rest) {
		c.buf = make([]byte, len(c.rest)+len(c.rest)/2)
	}
	buf, b := c.buf[:len(c.rest)], c.rest
	n := copy(buf, b[1:first])
	i := first
	for ; i < len(b); i++ {
		if b[i] == '"' {
			if i+1 == len(b) || b[i+1] != '"' {
				break
			}
			i++
		}
		buf[n] = b[i]
		n++
	}
	c.value, c.lent = buf[:n], true
	return i
}

// cut ends the cell before the delimiter at i, or at the end of the record if i is negative.
func (c *csvCells) cut(i int) {
	if i < 0 {
		c.value, c.rest, c.done = c.rest, nil, true
		return
	}
	c.value, c.rest = c.rest[:i], c.rest[i+1:]
}

// readCSV turns one record into cells.
func (s *scratch) readCSV(raw []byte, columns []column, comma byte) {
	cells := csvCells{rest: raw, comma: comma, buf: s.halved}
	i := 0
	for ; cells.next(); i++ {
		value := cells.value
		if cells.lent {
			value = s.dst.Copy(value)
		} else if !cells.quoted {
			value = trimSpace(value)
		}
		if i < len(columns) {
			s.addSlot(columns[i].name, value, columns[i].slot)
			continue
		}
		if len(value) > 0 {
			name := strconv.AppendInt(append(s.dst.Alloc(24)[:0], "column."...), int64(i)+1, 10)
			s.addSlot(name, value, 0)
		}
	}
	s.halved = cells.buf
	if i != len(columns) {
		s.marks |= audit.MarkColumnsDiffer
		if s.trace != nil {
			s.trace.factf("the record has %d cells, the header %d columns", i, len(columns))
		}
	}
}
