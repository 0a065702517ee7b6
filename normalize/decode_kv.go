package normalize

import (
	"bytes"

	"github.com/auditrelay/auditrelay/audit"
)

// keyLengthMax bounds a name in key=value text, in bytes: what is longer is a sentence with an equals sign.
const keyLengthMax = 64

// kvPairs takes key=value text apart: pairs with blanks between them, commas and semicolons too; values in double or
// single quotes may hold anything, with a backslash before a quote or a backslash.
type kvPairs struct {
	rest       []byte
	key, value []byte
	escaped    bool // the value has backslashes to be taken out by unquote
	other      bool // there was text that belongs to no pair
}

// next moves to the next pair and skips what is none.
func (p *kvPairs) next() bool {
	for {
		p.rest = bytes.TrimLeft(p.rest, " \t\r\n,;")
		if len(p.rest) == 0 {
			return false
		}
		n := keyLength(p.rest)
		if n == 0 {
			p.other = true
			p.rest = p.rest[wordLength(p.rest):]
			continue
		}
		p.key, p.rest = p.rest[:n], p.rest[n+1:]
		p.readValue()
		return true
	}
}

func (p *kvPairs) readValue() {
	p.escaped = false
	if len(p.rest) > 1 && (p.rest[0] == '"' || p.rest[0] == '\'') {
		quote := p.rest[0]
		for i := 1; i < len(p.rest); i++ {
			switch {
			case p.rest[i] == '\\' && quote == '"' && i+1 < len(p.rest):
				p.escaped = true
				i++
			case p.rest[i] == quote && (i+1 == len(p.rest) || bytes.IndexByte([]byte(" \t\r\n,;"), p.rest[i+1]) >= 0):
				p.value, p.rest = p.rest[1:i], p.rest[i+1:]
				return
			}
		}
		p.escaped = false
	}
	n := wordLength(p.rest)
	p.value, p.rest = bytes.TrimRight(p.rest[:n], ",;"), p.rest[n:]
}

// keyLength returns the length of the name before the equals sign at the start of b, 0 if there is none.
func keyLength(b []byte) int {
	for i, c := range b {
		switch {
		case c == '=':
			return i
		case i == keyLengthMax || !isWordByte(c) && c != '.' && c != '-' && c != '@' && c != '/':
			return 0
		}
	}
	return 0
}

func wordLength(b []byte) int {
	if n := bytes.IndexAny(b, " \t\r\n"); n >= 0 {
		return n
	}
	return len(b)
}

// unquote appends b without the backslashes that stand before a quote or a backslash.
func unquote(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && (b[i+1] == '"' || b[i+1] == '\\' || b[i+1] == ']') {
			i++
		}
		dst = append(dst, b[i])
	}
	return dst
}

// readPairs reads key=value text into cells. It reports whether b is such text and nothing else; text that only holds a
// pair here and there gives no cells.
func (s *scratch) readPairs(b []byte) (found, whole bool) {
	if keyLength(b) == 0 || bytes.Count(b, []byte{'='}) < 2 {
		return false, false
	}
	pairs := kvPairs{rest: b}
	for pairs.next() {
		if s.full() {
			s.marks |= audit.MarkFieldsCut
			return true, false
		}
		value := pairs.value
		if pairs.escaped {
			value = unquote(s.dst.Alloc(len(value))[:0], value)
		}
		s.add(pairs.key, value, false)
	}
	return true, !pairs.other
}

// readDetails reads "Name {value}, Name {value}" into cells whose names begin with prefix. The name is the text before
// the brace, values may hold braces in pairs. It returns false and adds nothing if b is not such text.
func (s *scratch) readDetails(b, prefix []byte) bool {
	mark := len(s.cells)
	if b = trimSpace(b); len(b) == 0 {
		return false
	}
	for len(b) > 0 {
		open := bytes.IndexByte(b, '{')
		if open < 0 {
			s.undo(mark)
			return false
		}
		name := trimSpace(bytes.TrimLeft(b[:open], " ,;\t\r\n"))
		end := closingBrace(b[open:])
		if end < 0 || len(name) == 0 {
			s.undo(mark)
			return false
		}
		value := trimSpace(b[open+1 : open+end])
		start := len(s.names)
		s.names = append(append(s.names, prefix...), name...)
		s.add(s.names[start:len(s.names):len(s.names)], value, true)
		b = bytes.TrimLeft(b[open+end+1:], " ,;\t\r\n")
	}
	return true
}

// closingBrace returns where the brace that opens at b[0] closes, -1 if it does not.
func closingBrace(b []byte) int {
	depth := 0
	for i, c := range b {
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
