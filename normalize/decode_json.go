package normalize

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// Limits of JSON. An object deeper than flattenMax is kept as JSON text; deeper than depthMax nothing is read any more,
// so that a hostile record cannot use up the stack.
const (
	flattenMax = 8
	depthMax   = 64
)

// jsonReader flattens one JSON object (RFC 8259) into cells in one pass. Nested names are joined with dots. Arrays are
// kept as JSON text, numbers keep their digits, null and empty texts are left out. It is lenient inside of strings:
// control characters and unknown escapes stand for themselves. Of two members with one name the first holds.
type jsonReader struct {
	s       *scratch
	b       []byte
	i       int
	problem string // why the text is broken; "" = it is not
	atEnd   bool   // it broke because the text ended
}

// readJSON reads b, which begins with an opening brace, into cells whose names begin with prefix. It returns why b is
// broken, "" if it is not; what stands before the break has become cells.
func (s *scratch) readJSON(b, prefix []byte) (problem string, atEnd bool) {
	r := jsonReader{s: s, b: b}
	r.object(prefix, 1)
	if r.problem == "" {
		if r.space(); r.i < len(r.b) {
			r.fail("there is text after the object")
		}
	}
	return r.problem, r.atEnd
}

func (r *jsonReader) fail(problem string) {
	if r.problem == "" {
		r.problem = problem
		r.atEnd = r.i >= len(r.b)
	}
}

// space skips white space, and the NUL that some senders end a record with.
func (r *jsonReader) space() {
	for r.i < len(r.b) {
		switch r.b[r.i] {
		case ' ', '\t', '\n', '\r', 0:
			r.i++
		default:
			return
		}
	}
}

// peek returns the next byte that is not white space, 0 at the end.
func (r *jsonReader) peek() byte {
	if r.i < len(r.b) && r.b[r.i] > ' ' {
		return r.b[r.i]
	}
	if r.space(); r.i < len(r.b) {
		return r.b[r.i]
	}
	return 0
}

// object reads the object at r.i. Names begin with prefix, which lies in the scratch memory for names or outlives the
// record.
func (r *jsonReader) object(prefix []byte, depth int) {
	r.i++ // the opening brace
	if r.peek() == '}' {
		r.i++
		return
	}
	for {
		if r.peek() != '"' {
			r.fail("a name is missing")
			return
		}
		key, escaped, ok := r.str()
		if !ok {
			return
		}
		if r.peek() != ':' {
			r.fail("a colon is missing")
			return
		}
		r.i++
		r.member(prefix, key, escaped, depth)
		if r.problem != "" {
			return
		}
		switch r.peek() {
		case ',':
			r.i++
		case '}':
			r.i++
			return
		default:
			r.fail("a comma or closing brace is missing")
			return
		}
	}
}

// member reads the value of a key.
func (r *jsonReader) member(prefix, key []byte, escaped bool, depth int) {
	s := r.s
	c := r.peek()
	if s.full() {
		s.marks |= audit.MarkFieldsCut
		r.skip(depth)
		return
	}
	name, lent := key, false
	if len(prefix) > 0 || escaped || len(key) == 0 {
		start := len(s.names)
		s.names = append(s.names, prefix...)
		if escaped {
			s.names = s.unescape(s.names, key)
		} else {
			s.names = append(s.names, key...)
		}
		if len(key) == 0 {
			s.names = append(s.names, '_')
		}
		name, lent = s.names[start:len(s.names):len(s.names)], true
	}
	switch c {
	case '"':
		value, escaped, ok := r.str()
		if !ok {
			return
		}
		if escaped {
			value = s.unescape(s.dst.Alloc(len(value))[:0], value)
		}
		s.add(name, value, lent)
	case '{':
		if depth >= flattenMax || len(name) >= nameLengthMax {
			s.addWhole(name, r.skip(depth), lent)
			return
		}
		start := len(s.names)
		s.names = append(append(s.names, name...), '.')
		r.object(s.names[start:len(s.names):len(s.names)], depth+1)
	case '[':
		start := r.i
		if s.isPairs(name) && r.namedValues(name) {
			return
		}
		r.i, r.problem, r.atEnd = start, "", false
		s.addWhole(name, r.skip(depth), lent)
	default:
		if value := r.literal(); string(value) != "null" {
			s.add(name, value, lent)
		}
	}
}

// str reads the string at r.i and returns what is between the quotes, and whether there are escapes in it.
func (r *jsonReader) str() (value []byte, escaped, ok bool) {
	start := r.i + 1
	for i := start; ; {
		j := bytes.IndexByte(r.b[i:], '"')
		if j < 0 {
			r.i = len(r.b)
			r.fail("a text does not end")
			return nil, false, false
		}
		end := i + j
		// Only what was not looked at yet can hold a backslash.
		if k := bytes.IndexByte(r.b[i:end], '\\'); k >= 0 {
			escaped = true
			// Walk the escapes: the quote counts unless it is escaped itself.
			for i += k; i < end; {
				if r.b[i] == '\\' {
					i += 2
				} else {
					i++
				}
			}
			if i > end {
				continue
			}
		}
		r.i = end + 1
		return r.b[start:end], escaped, true
	}
}

// literal reads a number, true, false or null and returns its text.
func (r *jsonReader) literal() []byte {
	start := r.i
	for r.i < len(r.b) {
		c := r.b[r.i]
		if c == ',' || c == '}' || c == ']' || c <= ' ' {
			break
		}
		r.i++
	}
	word := r.b[start:r.i]
	switch string(word) {
	case "true", "false", "null":
		return word
	}
	if !isJSONNumber(word) {
		if r.i < len(r.b) {
			r.i = start
		}
		r.fail("a value is no JSON value")
		return nil
	}
	return word
}

// isJSONNumber reports whether b is a number by RFC 8259 section 6.
func isJSONNumber(b []byte) bool {
	if len(b) > 0 && b[0] == '-' {
		b = b[1:]
	}
	n := digits(b)
	if n == 0 || n > 1 && b[0] == '0' {
		return false
	}
	if b = b[n:]; len(b) > 0 && b[0] == '.' {
		if n = digits(b[1:]); n == 0 {
			return false
		}
		b = b[1+n:]
	}
	if len(b) > 0 && (b[0] == 'e' || b[0] == 'E') {
		if b = b[1:]; len(b) > 0 && (b[0] == '+' || b[0] == '-') {
			b = b[1:]
		}
		if n = digits(b); n == 0 {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0
}

func digits(b []byte) int {
	n := 0
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		n++
	}
	return n
}

// skip reads the value at r.i, checks it and returns its text. depth is how deep the value's holder is.
func (r *jsonReader) skip(depth int) []byte {
	start := r.i
	switch r.peek() {
	case '"':
		r.str()
	case '{', '[':
		if depth >= depthMax {
			r.fail("it is nested too deeply")
			return nil
		}
		r.skipNested(depth + 1)
	default:
		r.literal()
	}
	if r.problem != "" {
		return nil
	}
	return r.b[start:r.i]
}

func (r *jsonReader) skipNested(depth int) {
	object := r.b[r.i] == '{'
	end := byte(']')
	if object {
		end = '}'
	}
	r.i++
	if r.peek() == end {
		r.i++
		return
	}
	for r.problem == "" {
		if object {
			if r.peek() != '"' {
				r.fail("a name is missing")
				return
			}
			if _, _, ok := r.str(); !ok {
				return
			}
			if r.peek() != ':' {
				r.fail("a colon is missing")
				return
			}
			r.i++
		}
		r.peek()
		r.skip(depth)
		switch r.peek() {
		case ',':
			r.i++
		case end:
			r.i++
			return
		default:
			r.fail("a comma or closing bracket is missing")
		}
	}
}

// namedValues reads a list of objects that each hold a name (or key) and a value, and adds cells called prefix.name. It
// reports whether the whole list was like that; if not, it added nothing.
func (r *jsonReader) namedValues(prefix []byte) bool {
	s := r.s
	mark, marks := len(s.cells), s.marks
	r.i++
	for ok := r.peek() != ']'; ok; {
		if ok = r.peek() == '{' && r.namedValue(prefix); !ok {
			break
		}
		if r.peek() != ',' {
			break
		}
		r.i++
	}
	if r.peek() != ']' || r.problem != "" {
		s.undo(mark)
		s.marks = marks
		return false
	}
	r.i++
	return true
}

// namedValue reads one object {"name": …, "value": …}.
func (r *jsonReader) namedValue(prefix []byte) bool {
	s := r.s
	var name, value []byte
	r.i++
	for {
		if r.peek() != '"' {
			return false
		}
		key, _, ok := r.str()
		if !ok || r.peek() != ':' {
			return false
		}
		r.i++
		var text []byte
		if r.peek() == '"' {
			var escaped bool
			if text, escaped, ok = r.str(); !ok {
				return false
			}
			if escaped {
				text = s.unescape(s.dst.Alloc(len(text))[:0], text)
			}
		} else if text = r.skip(flattenMax); string(text) == "null" {
			text = nil
		}
		switch string(key) {
		case "name", "key":
			name = text
		case "value":
			value = text
		default:
			return false
		}
		if c := r.peek(); c == '}' {
			r.i++
			break
		} else if c != ',' {
			return false
		}
		r.i++
	}
	if len(name) == 0 {
		return false
	}
	start := len(s.names)
	s.names = append(append(append(s.names, prefix...), '.'), name...)
	s.add(s.names[start:len(s.names):len(s.names)], value, true)
	return true
}

// unescape appends the text that a JSON string with escapes stands for (RFC 8259 section 7). It never takes more bytes
// than b has. Half a surrogate pair is written as the three bytes that it would have in UTF-8, so that it is not lost,
// and marked, as UTF-8 has no surrogates.
func (s *scratch) unescape(dst, b []byte) []byte {
	for {
		i := bytes.IndexByte(b, '\\')
		if i < 0 || i+1 == len(b) {
			return append(dst, b...)
		}
		dst = append(dst, b[:i]...)
		c := b[i+1]
		b = b[i+2:]
		switch c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, ok := hex4(b)
			if !ok {
				dst = append(dst, '\\', 'u')
				s.marks |= audit.MarkDetailsUnparsed
				continue
			}
			b = b[4:]
			if utf16.IsSurrogate(r) {
				if low, ok := hex4(bytes.TrimPrefix(b, []byte(`\u`))); ok && bytes.HasPrefix(b, []byte(`\u`)) &&
					utf16.DecodeRune(r, low) != utf8.RuneError {
					dst = utf8.AppendRune(dst, utf16.DecodeRune(r, low))
					b = b[6:]
					continue
				}
				s.marks |= audit.MarkInvalidUTF8
				dst = append(dst, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
				continue
			}
			if r < ' ' && r != '\t' && r != '\n' && r != '\r' {
				s.marks |= audit.MarkBinary
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, '\\', c)
			s.marks |= audit.MarkDetailsUnparsed
		}
	}
}

// hex4 reads four hex digits.
func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
