package normalize

import (
	"bytes"
	"strconv"

	"github.com/auditrelay/auditrelay/audit"
)

// understand finds the record's product and takes it apart.
func (s *scratch) understand(rec *audit.Record, source boundSource) {
	want, how := source.product, "the collector's setting"
	if rec.Product != "" {
		if p := s.n.catalogs.product(rec.Product); p != nil {
			want, how = p, "named by the record"
		}
	}
	if rec.Origin != nil && len(rec.Origin.Header) > 0 {
		s.readPlanned(rec, want, how)
		return
	}
	marks := s.marks
	if want != nil {
		s.bind(want)
		s.how = how
		s.decode(rec)
		s.unfold()
		return
	}
	// Nobody said what it is: read it as what the last one was, and again if it turns out to be something else.
	first := s.guess
	if first == nil {
		first = s.n.generic
	}
	s.bind(first)
	s.decode(rec)
	found := s.detect()
	s.how = "found by its keys"
	if found == nil {
		found, s.how = s.n.generic, "no other product fits"
	}
	if found != first {
		s.marks = marks
		s.bind(found)
		if s.trace != nil {
			s.trace.Facts = nil
		}
		s.decode(rec)
	}
	s.guess = found
	s.unfold()
}

// readPlanned reads a CSV record whose header is known.
func (s *scratch) readPlanned(rec *audit.Record, want *product, how string) {
	if key := (planKey{rec.Origin, want}); s.plan == nil || s.planKey != key {
		s.plan, s.planKey = s.n.plan(rec.Origin, want), key
	}
	if s.how = how; want == nil {
		s.how = s.plan.how
	}
	s.bind(s.plan.product)
	s.framed, s.format = false, "csv"
	raw := trimEnd(rec.Raw)
	s.readCSV(raw, s.plan.columns, comma(rec.Origin, rec.Origin.Header))
	s.unfold()
}

// trimEnd takes off what senders put behind a record: line endings and NULs.
func trimEnd(b []byte) []byte {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	return b
}

// decode takes a record apart whose header, if it has one, is in itself.
func (s *scratch) decode(rec *audit.Record) {
	s.framed, s.format = false, "text"
	raw := trimEnd(rec.Raw)
	format := audit.FormatAuto
	if rec.Origin != nil {
		format = rec.Origin.Format
	}
	switch {
	case format == audit.FormatSyslog:
		s.readSyslog(raw, true)
	case format == audit.FormatCSV:
		s.format = "csv"
		s.readCSV(raw, s.product.columns, comma(rec.Origin, raw))
	case format == audit.FormatAuto && looksLikeSyslog(raw):
		s.readSyslog(raw, raw[0] == '<')
	case format == audit.FormatAuto && s.fitsColumns(rec.Origin, raw):
		s.format = "csv"
		s.readCSV(raw, s.product.columns, comma(rec.Origin, raw))
	default:
		s.readBody(raw)
	}
}

// fitsColumns reports whether raw is a CSV record with as many cells as the catalogue has columns.
func (s *scratch) fitsColumns(origin *audit.Origin, raw []byte) bool {
	if s.product.columns == nil || len(raw) == 0 || raw[0] == '{' {
		return false
	}
	cells := csvCells{rest: raw, comma: comma(origin, raw)}
	n := 0
	for cells.next() {
		n++
	}
	return n == len(s.product.columns)
}

// detect returns the product whose keys the record has, nil if none fits.
func (s *scratch) detect() *product {
next:
	for _, p := range s.n.catalogs.products {
		if len(p.detectKeys) == 0 {
			continue
		}
		for i := range p.detectKeys {
			if !s.fits(p, &p.detectKeys[i]) {
				continue next
			}
		}
		return p
	}
	return nil
}

// fits reports whether the record has a source field that a product can be told by.
func (s *scratch) fits(p *product, cond *condition) bool {
	if p == s.product {
		return cond.holds(s.value(cond.slot))
	}
	for i := range s.cells {
		if p.find(s.cells[i].name) == cond.slot && cond.holds(s.cells[i].value) {
			return true
		}
	}
	return false
}

// readSyslog reads a syslog frame. expected says that it must have a priority.
func (s *scratch) readSyslog(raw []byte, expected bool) {
	h := &s.header
	h.parse(raw)
	s.framed = true
	if h.priority >= 0 {
		s.addOurs(nameFacility, s.integer(int64(h.priority>>3)))
		s.addOurs(nameSeverity, severityTexts[h.priority&7])
	} else if expected {
		s.marks |= audit.MarkPriorityMissing
	}
	s.addOurs(nameHostname, h.host)
	s.addOurs(nameApp, h.app)
	s.addOurs(nameProcID, h.procID)
	s.addOurs(nameMsgID, h.msgID)
	s.addOurs(nameTime, h.timeText)
	if len(h.data) > 0 {
		s.readStructuredData(h.data)
	}
	if s.trace != nil {
		s.trace.factf("syslog header: %s, priority %d, host %q, app %q", h.form, h.priority, h.host, h.app)
	}
	s.readBody(h.message)
}

// severityTexts are the words for syslog severities 0 to 7, RFC 5424 section 6.2.1.
var severityTexts = [8][]byte{
	[]byte("emerg"), []byte("alert"), []byte("crit"), []byte("err"),
	[]byte("warning"), []byte("notice"), []byte("info"), []byte("debug"),
}

// readStructuredData adds a cell for each parameter. A parameter may come again: its second value gets .2 and so on.
func (s *scratch) readStructuredData(data []byte) {
	structuredData(data, func(id, name, value []byte, escaped bool) {
		if s.full() {
			s.marks |= audit.MarkFieldsCut
			return
		}
		if escaped {
			value = unquote(s.dst.Alloc(len(value))[:0], value)
		}
		start := len(s.names)
		s.names = append(append(append(append(s.names, sdPrefix...), id...), '.'), name...)
		if n := s.countCells(s.names[start:]); n > 0 {
			s.names = strconv.AppendInt(append(s.names, '.'), n+1, 10)
		}
		s.add(s.names[start:len(s.names):len(s.names)], value, true)
	})
}

// countCells returns how many cells have a name, or that name and a number.
func (s *scratch) countCells(name []byte) (n int64) {
	for i := range s.cells {
		rest, ok := bytes.CutPrefix(s.cells[i].name, name)
		if ok && (len(rest) == 0 || rest[0] == '.' && digits(rest[1:]) == len(rest)-1) {
			n++
		}
	}
	return n
}

// readBody reads a record's own text: a JSON object from the first brace on, key=value text, or just text.
func (s *scratch) readBody(b []byte) {
	s.format = "text"
	text := trimSpace(b)
	if bytes.HasPrefix(text, []byte("CEF:")) || bytes.HasPrefix(text, []byte("LEEF:")) {
		s.addOurs(nameText, text)
		return
	}
	if i := bytes.IndexByte(text, '{'); i >= 0 && s.readObject(text, i) {
		return
	}
	found, whole := s.readPairs(text)
	if found {
		s.format = "pairs"
	}
	if !whole {
		s.addOurs(nameText, text)
	}
}

// readObject reads text as a JSON object that begins at i, with perhaps some words before it. Words with a brace in
// them are no JSON: it then returns false. But where JSON was due, broken JSON is read as far as it goes.
func (s *scratch) readObject(text []byte, i int) bool {
	due := i == 0 || len(s.product.detectKeys) > 0
	if !due && !beginsObject(text[i:]) {
		return false
	}
	mark, marks := len(s.cells), s.marks
	problem, atEnd := s.readJSON(text[i:], nil)
	if problem != "" {
		if !due {
			s.undo(mark)
			s.marks = marks
			return false
		}
		s.marks |= audit.MarkUnreadable
		if atEnd {
			s.marks |= audit.MarkTruncated
		}
		s.scavenge(text[i:])
		if s.trace != nil {
			s.trace.factf("broken JSON: %s", problem)
		}
		if len(s.cells) == mark {
			s.addOurs(nameText, text)
			return true
		}
	}
	s.format = "json"
	s.addOurs(nameText, trimSpace(text[:i]))
	return true
}

// beginsObject reports whether what follows the opening brace can be a name or the end of an object.
func beginsObject(b []byte) bool {
	b = bytes.TrimLeft(b[1:], " \t\r\n")
	return len(b) > 0 && (b[0] == '"' || b[0] == '}')
}

// scavenge looks for the fields that make up the class in broken JSON, behind the break: "type" : "WORD".
func (s *scratch) scavenge(b []byte) {
	for i := range s.product.class.parts {
		for _, slot := range s.product.class.parts[i].slots {
			if s.at[slot] != 0 {
				break
			}
			if word := wordOf(b, s.product.fields[slot]); len(word) > 0 {
				s.addSlot(s.product.fields[slot], word, slot)
				break
			}
		}
	}
}

// wordOf finds a quoted name, a colon and a quoted text without quotes or backslashes, and returns the text.
func wordOf(b, name []byte) []byte {
	for {
		i := bytes.Index(b, name)
		if i < 0 {
			return nil
		}
		quoted := i > 0 && b[i-1] == '"'
		b = b[i+len(name):]
		if !quoted || len(b) == 0 || b[0] != '"' {
			continue
		}
		rest := bytes.TrimLeft(b[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != ':' {
			continue
		}
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) == 0 || rest[0] != '"' {
			continue
		}
		end := bytes.IndexAny(rest[1:], "\"\\")
		if end > 0 && end <= classLengthMax && rest[1+end] == '"' {
			return rest[1 : 1+end]
		}
	}
}

// unfold takes apart the source fields that hold several: JSON in a column, "Name {value}" details.
func (s *scratch) unfold() {
	p := s.product
	if slot := p.jsonSlot; slot != 0 && s.at[slot] != 0 {
		s.unfoldJSON(slot)
	}
	if slot := p.detailsSlot; slot != 0 && s.at[slot] != 0 {
		value := s.value(slot)
		if bytes.IndexByte(value, '{') >= 0 {
			s.unfolded(slot, s.readDetails(value, p.detailsPrefix), "Name {value} details")
		}
	}
}

func (s *scratch) unfoldJSON(slot uint16) {
	text := trimSpace(s.value(slot))
	// A JSON text that holds JSON: it was put in quotes once too often.
	if len(text) > 1 && text[0] == '"' && text[len(text)-1] == '"' {
		text = trimSpace(s.unescape(s.dst.Alloc(len(text))[:0], text[1:len(text)-1]))
	}
	if string(text) == "null" || len(text) == 0 {
		s.used[slot] = true
		return
	}
	ok := false
	if text[0] == '{' {
		mark := len(s.cells)
		problem, _ := s.readJSON(text, s.product.jsonPrefix)
		if ok = problem == ""; !ok {
			s.undo(mark)
		}
	}
	s.unfolded(slot, ok, "JSON")
}

// unfolded notes what became of a compound field: taken apart, it is used up; else it is kept whole.
func (s *scratch) unfolded(slot uint16, ok bool, what string) {
	if ok {
		s.used[slot] = true
	} else {
		s.marks |= audit.MarkDetailsUnparsed
	}
	if s.trace != nil && ok {
		s.trace.factf("%s in %s was taken apart", what, s.product.fields[slot])
	} else if s.trace != nil {
		s.trace.factf("%s was kept whole: it is no %s", s.product.fields[slot], what)
	}
}
