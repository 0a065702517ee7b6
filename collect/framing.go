package collect

import (
	"bytes"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect/tail"
)

// framing is how a stream is cut into messages.
type framing uint8

const (
	framingAuto    framing = iota // decided for each frame by its first bytes
	framingNewline                // non-transparent framing, RFC 6587 section 3.4.2
	framingCounted                // octet counting, RFC 6587 section 3.4.1
)

// Limits of a frame's head. A sender that writes digits without end must not make us keep them.
const (
	countDigits   = 7  // of an octet count; 9,999,999 is more than any max_message
	numberDigits  = 20 // of a number at the start of a line of text; a time in nanoseconds has 19
	frameOverhead = 64 // bytes beside the message itself that a frame may take: the count, or CR, NUL and LF behind it
)

// framer cuts a byte stream into frames. It knows nothing of what is in them. Every byte of the stream is part of some
// frame's message, or of the octet count before it, or of the line ending behind it. It keeps no bytes.
type framer struct {
	mode framing
	max  int // bytes of a message; a longer line comes out in parts

	counting bool // this stream counts octets: what does not is an error from now on
	errors   int  // frames that were wrong
	broken   bool // the stream makes no sense: close it when what was read of it is used up

	rest    bool        // the next byte belongs to a line of which a part came out
	part    int         // how many parts came out
	marks   audit.Marks // of that line
	scanned int         // bytes of an unfinished line in which there is no line feed
}

// frame is one message.
type frame struct {
	raw   []byte // points into the bytes that were given; empty: there is no record in this frame
	used  int    // bytes of the stream that the frame takes; 0: more bytes are needed
	part  int    // number of a part, 0 if the message is whole
	marks audit.Marks
}

// next takes the first frame off p. end says that no more bytes follow. As long as it answers that more bytes are
// needed, it must be called again with the same bytes and more behind them; it never needs more than max+frameOverhead.
func (s *framer) next(p []byte, end bool) frame {
	if len(p) == 0 {
		return frame{}
	}
	if s.rest || s.scanned > 0 {
		return s.line(p, end)
	}
	if n := s.between(p); n > 0 {
		return frame{used: n}
	}
	head, count, is := s.head(p, end)
	switch is {
	case headUnknown:
		return frame{}
	case headText:
		return s.line(p, end)
	case headWrong:
		s.errors++
		s.broken = s.broken || s.errors > 1
		s.marks = audit.MarkFramingError
		return s.line(p, end)
	}
	s.counting = true
	switch {
	case len(p) >= head+count:
		return frame{raw: p[head : head+count], used: head + count}
	case end && len(p) > head:
		return frame{raw: p[head:], used: len(p), marks: audit.MarkTruncated}
	case end:
		return frame{raw: p, used: len(p), marks: audit.MarkFramingError}
	default:
		return frame{}
	}
}

// between returns the length of what some senders put between frames: line feeds, and behind an octet-counted frame
// also carriage returns and zero bytes.
func (s *framer) between(p []byte) int {
	set := "\n"
	if s.counting {
		set = "\n\r\x00"
	}
	return len(p) - len(bytes.TrimLeft(p, set))
}

// what a frame begins with
const (
	headUnknown = iota // too few bytes to tell
	headText           // a line
	headCount          // an octet count
	headWrong          // neither
)

// head looks at the start of a frame and returns the length of the octet count with its space, and the count.
//
// In mode auto only digits, a space and a PRI are an octet count (RFC 6587 section 3.4.1: MSG-LEN SP SYSLOG-MSG, and a
// SYSLOG-MSG begins with its PRI): lines of text may begin with a number, too.
func (s *framer) head(p []byte, end bool) (head, count, is int) {
	if s.mode == framingNewline {
		return 0, 0, headText
	}
	strict := s.counting || s.mode == framingCounted
	otherwise := headText
	if strict && !(s.mode == framingAuto && p[0] == '<') {
		otherwise = headWrong
	}
	if p[0] < '1' || p[0] > '9' {
		return 0, 0, otherwise
	}
	n := 0
	for n < len(p) && n <= numberDigits && p[n] >= '0' && p[n] <= '9' {
		if n < countDigits {
			count = count*10 + int(p[n]-'0')
		}
		n++
	}
	if n > numberDigits || n > countDigits && strict {
		s.broken = true
		return 0, 0, headWrong
	}
	pri, complete := true, len(p) > n
	if s.mode == framingAuto && len(p) > n {
		pri, complete = priority(p[n+1:])
	}
	switch {
	case !complete && pri && !end && (len(p) == n || p[n] == ' '):
		return 0, 0, headUnknown
	case !complete || !pri || p[n] != ' ':
		return 0, 0, otherwise
	case n > countDigits:
		s.broken = true
		return 0, 0, headWrong
	case count > s.max:
		return 0, 0, headWrong
	}
	return n + 1, count, headCount
}

// priority reports whether p may begin with a PRI, "<", one to three digits and ">" (RFC 5424 section 6.2.1), and
// whether p is long enough to tell.
func priority(p []byte) (is, complete bool) {
	digits := 0
	for i, c := range p {
		switch {
		case i == 0 && c == '<':
		case i > 0 && c >= '0' && c <= '9' && digits < 3:
			digits++
		default:
			return c == '>' && digits > 0, true
		}
	}
	return true, false
}

// line takes a line, or a part of one that is too long. CR and NUL before the line feed belong to the line ending.
func (s *framer) line(p []byte, end bool) frame {
	window := p[:min(len(p), s.max+frameOverhead)]
	lf := bytes.IndexByte(window[s.scanned:], '\n')
	if lf >= 0 {
		window = window[:s.scanned+lf]
	}
	raw := bytes.TrimRight(window, "\r\x00")
	switch {
	case len(raw) > s.max:
		n := tail.CutLength(raw, s.max)
		return s.cut(raw[:n], n)
	case lf >= 0:
		return s.finish(raw, len(window)+1, 0)
	case len(window) == s.max+frameOverhead:
		return s.cut(window[:s.max], s.max) // nothing but zero bytes behind a message that is nearly as long
	case end:
		return s.finish(raw, len(p), audit.MarkPartial)
	default:
		s.scanned = len(p)
		return frame{}
	}
}

// cut takes a part off a line that goes on.
func (s *framer) cut(raw []byte, used int) frame {
	s.rest = true
	s.part++
	s.scanned = 0
	return frame{raw: raw, used: used, part: s.part, marks: s.marks | audit.MarkPart}
}

// finish takes the end of a line.
func (s *framer) finish(raw []byte, used int, marks audit.Marks) frame {
	f := frame{raw: raw, used: used, marks: s.marks | marks}
	if s.rest {
		f.part = s.part + 1
		f.marks |= audit.MarkPart
	}
	s.rest, s.part, s.marks, s.scanned = false, 0, 0, 0
	return f
}
