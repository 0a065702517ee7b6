package normalize

import (
	"bytes"
)

// Limits of the parts of a syslog header, in bytes. They are wider than RFC 5424 section 6 has them, as devices are;
// what is longer is part of the message.
const (
	hostLengthMax = 255
	tokenMax      = 256
)

// syslogHeader is what stands around a syslog message. Its parts alias the frame; a part that is not there is empty.
type syslogHeader struct {
	form     string // "RFC 5424", "RFC 3164" or "no header"
	priority int    // 0 to 191; -1 = none or not valid

	time     stamp
	timeText []byte // what the time was read from, or what stood in its place
	timeOK   bool
	unixSec  int64 // of a time in seconds since 1970, which Meraki writes
	unix     bool

	host, app, procID, msgID []byte
	data                     []byte // structured data, brackets and all
	message                  []byte
}

// parse reads a frame without its line ending. It cannot fail: what is not understood is the message.
//
// RFC 5424 section 6 is read with times of any precision, any zone and no zone, names of any length and broken
// structured data. RFC 3164 section 4.1 is a description of what was seen, so this reads what is seen today: TABs,
// fractions, years, ISO times, no time, no host name, IPv6 addresses as host name, long tags, Cisco's sequence number
// and asterisk.
func (h *syslogHeader) parse(b []byte) {
	*h = syslogHeader{form: "RFC 3164", priority: -1, message: b}
	rest := h.readPriority(b)
	if len(rest) > 2 && rest[0] >= '1' && rest[0] <= '9' && rest[1] == ' ' && h.readRFC5424(rest[2:]) {
		h.form = "RFC 5424"
		return
	}
	if len(rest) > 12 && rest[0] == '1' && rest[1] == ' ' && digits(rest[2:]) == 10 {
		rest = rest[2:] // Meraki: version 1 and seconds since 1970, the rest as in RFC 3164
	}
	h.readRFC3164(rest)
	if len(rest) == len(b) && !h.timeOK {
		h.form = "no header"
	}
}

// readPriority reads <0> to <191> and returns what follows. A number that is no priority is taken off all the same.
func (h *syslogHeader) readPriority(b []byte) []byte {
	if len(b) < 3 || b[0] != '<' {
		return b
	}
	n := digits(b[1:])
	if n == 0 || n > 3 || n+1 >= len(b) || b[n+1] != '>' {
		return b
	}
	v := 0
	for _, c := range b[1 : n+1] {
		v = v*10 + int(c-'0')
	}
	if v <= 191 {
		h.priority = v
	}
	return b[n+2:]
}

// readRFC5424 reads what follows the version. It returns false if that does not look like RFC 5424 at all.
func (h *syslogHeader) readRFC5424(b []byte) bool {
	stampText, rest := token(b)
	t, n := readISO(stampText)
	switch {
	case n > 0 && n == len(stampText):
		h.time, h.timeOK = t, true
	case string(stampText) == "-":
		stampText = nil
	case len(stampText) < 10 || stampText[0] < '0' || stampText[0] > '9' || stampText[4] != '-':
		return false
	}
	h.timeText = stampText
	h.host, rest = nilToken(rest)
	h.app, rest = nilToken(rest)
	h.procID, rest = nilToken(rest)
	h.msgID, rest = nilToken(rest)
	switch {
	case len(rest) > 0 && rest[0] == '-' && (len(rest) == 1 || rest[1] == ' '):
		rest = rest[1:]
	case len(rest) > 0 && rest[0] == '[':
		if n := structuredData(rest, nil); n > 0 {
			h.data, rest = rest[:n], rest[n:]
		}
	}
	rest = bytes.TrimPrefix(rest, []byte(" "))
	h.message = bytes.TrimPrefix(rest, []byte("\xef\xbb\xbf"))
	return true
}

// token takes the text before the next blank off b.
func token(b []byte) (word, rest []byte) {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		return b[:i], b[i+1:]
	}
	return b, nil
}

// nilToken is token, with nothing for the hyphen that stands for nothing (RFC 5424 section 6, NILVALUE).
func nilToken(b []byte) (word, rest []byte) {
	if word, rest = token(b); string(word) == "-" {
		word = nil
	}
	return word, rest
}

// structuredData reads RFC 5424 section 6.3 at the start of b and hands each parameter to each, which may be nil. The
// value still has its backslashes. It returns the length, 0 if the brackets do not close.
func structuredData(b []byte, each func(id, name, value []byte, escaped bool)) int {
	i := 0
	for i < len(b) && b[i] == '[' {
		n := structuredElement(b[i:], each)
		if n == 0 {
			return 0
		}
		i += n
	}
	return i
}

func structuredElement(b []byte, each func(id, name, value []byte, escaped bool)) int {
	end := bytes.IndexAny(b, " ]")
	if end < 0 {
		return 0
	}
	id := b[1:end]
	for i := end; ; {
		for i < len(b) && b[i] == ' ' {
			i++
		}
		if i == len(b) {
			return 0
		}
		if b[i] == ']' {
			return i + 1
		}
		eq := bytes.IndexByte(b[i:], '=')
		if eq <= 0 || i+eq+1 >= len(b) || b[i+eq+1] != '"' || bytes.ContainsAny(b[i:i+eq], "] \"") {
			return 0
		}
		name := b[i : i+eq]
		start := i + eq + 2
		stop, escaped := start, false
		for stop < len(b) && b[stop] != '"' {
			if b[stop] == '\\' && stop+1 < len(b) {
				escaped = true
				stop++
			}
			stop++
		}
		if stop >= len(b) {
			return 0
		}
		if each != nil {
			each(id, name, b[start:stop], escaped)
		}
		i = stop + 1
	}
}

// readRFC3164 reads what follows the priority.
func (h *syslogHeader) readRFC3164(b []byte) {
	rest := trimLeftBlanks(b)
	rest = skipSequence(rest)
	n := h.readTime(rest)
	if n == 0 {
		h.readTag(rest)
		return
	}
	h.timeText = rest[:n]
	rest = rest[n:]
	rest = h.readZoneWord(rest)
	// Cisco ends the header with a colon after the time, and after the host name.
	if bytes.HasPrefix(rest, []byte(":")) {
		h.readTag(trimLeftBlanks(rest[1:]))
		return
	}
	rest = trimLeftBlanks(rest)
	if word := rest[:blank(rest)]; isHostToken(word) {
		h.host = word
		rest = trimLeftBlanks(rest[len(word):])
		rest = trimLeftBlanks(bytes.TrimPrefix(rest, []byte(": ")))
	}
	h.readTag(rest)
}

// skipSequence skips Cisco's message counter ("45: ", "000045: ") and the asterisk or point that says that the clock is
// not set, if a time follows.
func skipSequence(b []byte) []byte {
	rest := b
	if n := digits(rest); n > 0 && n <= 10 && bytes.HasPrefix(rest[n:], []byte(": ")) {
		rest = trimLeftBlanks(rest[n+2:])
	}
	if len(rest) > 0 && (rest[0] == '*' || rest[0] == '.') {
		rest = rest[1:]
	}
	var h syslogHeader
	if len(rest) == len(b) || h.readTime(rest) == 0 {
		return b
	}
	return rest
}

// readTime reads a time at the start of b and returns its length, 0 if there is none: "Oct 11 22:14:15", the same with
// a fraction, with a year behind the day, with a year in front, an ISO time, or seconds since 1970 with a fraction.
func (h *syslogHeader) readTime(b []byte) int {
	if t, n := readISO(b); n > 0 {
		h.time, h.timeOK = t, true
		return n
	}
	if n := digits(b); n == 10 && len(b) > 10 && (b[10] == '.' || b[10] == ' ') {
		end := blank(b)
		if sec, nanos, ok := readUnix(b[:end], false); ok {
			h.time, h.unixSec, h.unix, h.timeOK = stamp{nanos: nanos}, sec, true, true
			return end
		}
	}
	var t stamp
	i := 0
	if digits(b) == 4 && len(b) > 5 && b[4] == ' ' {
		year, _ := readDigits(b, 4)
		t.year, i = int(year), 5
	}
	if t.month = readMonth(b[i:]); t.month == 0 {
		return 0
	}
	i += 3
	if i == len(b) || b[i] != ' ' {
		return 0
	}
	day, n := readNumber(b[i+1:], layoutStep{kind: 'D'})
	if n == 0 {
		return 0
	}
	t.day = day
	i += 1 + n
	if i == len(b) || b[i] != ' ' {
		return 0
	}
	i++
	if t.year == 0 && digits(b[i:]) == 4 && i+4 < len(b) && b[i+4] == ' ' {
		year, _ := readDigits(b[i:], 4)
		t.year = int(year)
		i += 5
	}
	if i+8 > len(b) || b[i+2] != ':' || b[i+5] != ':' {
		return 0
	}
	t.hour, t.minute, t.sec = two(b, i), two(b, i+3), two(b, i+6)
	if t.hour < 0 || t.minute < 0 || t.sec < 0 {
		return 0
	}
	i += 8
	nanos, n := readFraction(b[i:])
	t.nanos = nanos
	i += n
	if i < len(b) && (b[i] == 'Z' || b[i] == '+' || b[i] == '-') {
		i += t.readOffset(b[i:])
	}
	if !t.valid() || i < len(b) && isWordByte(b[i]) {
		return 0
	}
	h.time, h.timeOK = t, true
	return i
}

// readZoneWord skips the zone that Cisco writes behind a time, if its message follows ("CET: %SYS-5-CONFIG_I"). UTC and
// GMT are understood; any other abbreviation is not, as several zones share one.
func (h *syslogHeader) readZoneWord(b []byte) []byte {
	if len(b) < 5 || b[0] != ' ' {
		return b
	}
	n := 1
	for n < len(b) && n < 7 && b[n] >= 'A' && b[n] <= 'Z' {
		n++
	}
	if n < 4 || !bytes.HasPrefix(b[n:], []byte(": %")) {
		return b
	}
	if word := string(b[1:n]); word == "UTC" || word == "GMT" {
		h.time.zoned, h.time.offset = true, 0
	}
	return b[n:]
}

// isHostToken reports whether the word behind the time is a host name, not the tag or the message itself.
func isHostToken(word []byte) bool {
	if len(word) == 0 || len(word) > hostLengthMax || bytes.IndexByte([]byte("{%[<"), word[0]) >= 0 {
		return false
	}
	if isAddress(word) {
		return true
	}
	last := word[len(word)-1]
	if last == ':' || last == ']' || bytes.ContainsAny(word, "{=|\"[") {
		return false
	}
	// A tag with no blank behind its colon: "app:text". An address has two colons or digits only.
	return bytes.IndexByte(word, ':') < 0
}

// readTag reads "app: ", "app[123]: " or "%SYS-5-CONFIG_I: "; all that follows is the message. A text without a tag,
// and one that begins with CEF: or LEEF:, is the message as it stands.
func (h *syslogHeader) readTag(b []byte) {
	h.message = b
	if bytes.HasPrefix(b, []byte("CEF:")) || bytes.HasPrefix(b, []byte("LEEF:")) || len(b) == 0 || b[0] == '{' {
		return
	}
	n := 0
	for n < len(b) && n <= tokenMax && b[n] > ' ' && bytes.IndexByte([]byte(":[{=\""), b[n]) < 0 {
		n++
	}
	if n == 0 || n == len(b) || n > tokenMax {
		return
	}
	app, rest := b[:n], b[n:]
	var pid []byte
	if rest[0] == '[' {
		end := bytes.IndexByte(rest, ']')
		if end < 0 || end > tokenMax || bytes.IndexByte(rest[:end], ' ') >= 0 {
			return
		}
		pid, rest = rest[1:end], rest[end+1:]
	}
	if len(rest) > 0 && rest[0] == ':' {
		rest = rest[1:]
	} else if len(pid) == 0 {
		return
	}
	if len(rest) > 0 && rest[0] != ' ' && rest[0] != '\t' && rest[0] != '{' && rest[0] != '"' {
		return // "http://…" is no tag
	}
	h.app, h.procID, h.message = bytes.TrimPrefix(app, []byte("%")), pid, trimOneBlank(rest)
}

func trimOneBlank(b []byte) []byte {
	if len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		return b[1:]
	}
	return b
}

func trimLeftBlanks(b []byte) []byte { return bytes.TrimLeft(b, " \t") }

// blank returns where the next blank or TAB stands in b, its length if there is none.
func blank(b []byte) int {
	for i, c := range b {
		if c == ' ' || c == '\t' {
			return i
		}
	}
	return len(b)
}

// looksLikeSyslog reports whether a line that nobody said anything about begins like a syslog message.
func looksLikeSyslog(b []byte) bool {
	var h syslogHeader
	if rest := h.readPriority(b); len(rest) < len(b) {
		return true
	}
	n := h.readTime(b)
	return n > 0 && n < len(b) && (b[n] == ' ' || b[n] == '\t') && !h.unix
}
