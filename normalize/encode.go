package normalize

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// ProductNames is how a product is called where people read it: in the headers of CEF and LEEF, and as the vendor in
// native JSON. Empty means not known.
type ProductNames struct{ Vendor, Name, Version string }

// Encoder turns events into the text of one format. It is safe for concurrent use.
type Encoder interface {
	// Append appends one event, without a line break anywhere and without one at its end, and returns the longer
	// buffer. It never fails and never blocks: what the format cannot carry is escaped, replaced, cut or left out.
	// It keeps neither dst nor ev, allocates nothing but room in dst, and gives the same bytes for the same event.
	Append(dst []byte, ev *audit.Event) []byte
	// Cut returns how many values were cut short or left out so far because the format has no room for them.
	Cut() uint64
}

// EncoderOptions are what an encoder writes besides the event.
type EncoderOptions struct {
	// Names returns the names of a product. It is called for each event, also by several goroutines at once, and must not
	// allocate. nil = no names are known.
	Names   func(product string) ProductNames
	RelayID string      // relay.id of the configuration; only in JSON
	Log     audit.LogID // the queue directory that the events come from; only in JSON; 0 = left out
}

// Formats returns the words that NewEncoder takes.
func Formats() []string { return []string{"cef", "json"} }

// NewEncoder returns the encoder for a format. The error names the formats that exist.
func NewEncoder(format string, opt EncoderOptions) (Encoder, error) {
	if opt.Names == nil {
		opt.Names = func(string) ProductNames { return ProductNames{} }
	}
	switch format {
	case "cef":
		return newCEFEncoder(opt), nil
	case "json":
		return newJSONEncoder(opt), nil
	default:
		return nil, fmt.Errorf("unknown format %s: use %s", strconv.Quote(format), strings.Join(Formats(), " or "))
	}
}

// encSlot is a place that a field's value is sent from: one for each key of the field table, and a few more that only
// CEF has (cefSlot…).
type encSlot int

const (
	encKeys  = encSlot(audit.KeySyslogMsgID) + 1
	encSlots = encKeys + cefExtraSlots
)

// encIndex says which field of an event stands in which slot: its place in Event.Fields plus one, 0 for none.
type encIndex [encSlots]int32

// fill notes where the event's fields are. Attributes have no slot, empty values count as absent, and of two fields
// with the same key the first holds.
func (x *encIndex) fill(fields []audit.Field) {
	for i := range fields {
		key := encSlot(fields[i].Key)
		if key == encSlot(audit.KeyAttribute) || key >= encKeys || len(fields[i].Value) == 0 || x[key] != 0 {
			continue
		}
		x[key] = int32(i + 1)
	}
}

// value returns what stands in a slot, nil if nothing does.
func (x *encIndex) value(fields []audit.Field, slot encSlot) []byte {
	if i := x[slot]; i != 0 {
		return fields[i-1].Value
	}
	return nil
}

// encTrim removes spaces and control characters of ASCII from both ends.
func encTrim[T string | []byte](s T) T {
	for len(s) > 0 && encIsBlank(s[0]) {
		s = s[1:]
	}
	for len(s) > 0 && encIsBlank(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

func encIsBlank(c byte) bool { return c <= ' ' || c == 0x7f }

// encCut returns the first limit characters of s, and whether there were more. A byte that is not UTF-8 counts as the
// one character that stands for it.
func encCut[T string | []byte](s T, limit int) (T, bool) {
	if len(s) <= limit {
		return s, false
	}
	i := 0
	for ; limit > 0 && i < len(s); limit-- {
		if s[i] < utf8.RuneSelf {
			i++
			continue
		}
		_, size := encRune(s, i)
		i += size
	}
	return s[:i], i < len(s)
}

// encRune decodes the character at s[i:]. The conversion stays on the stack.
func encRune[T string | []byte](s T, i int) (rune, int) {
	return utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
}

// encAction says what an encoder does with a byte of a text. 0 is to copy it; each encoder has its own others.
type encAction uint8

// encTable says what an encoder does with each byte. All encoders stop at controls, at a backslash, at what is not
// ASCII, and at one more character.
type encTable struct {
	actions [256]encAction
	extra   uint64 // the one more character, in all eight bytes
}

// encNewTable makes a table from the actions for single characters, of which one is the backslash, the action for other
// controls, and the one for bytes that are not ASCII.
func encNewTable(extra byte, single map[byte]encAction, control, beyond encAction) *encTable {
	t := &encTable{extra: uint64(extra) * encOnes}
	for i := range t.actions {
		switch c := byte(i); {
		case c < ' ' || c == 0x7f:
			t.actions[i] = control
		case c >= utf8.RuneSelf:
			t.actions[i] = beyond
		}
	}
	for c, action := range single {
		t.actions[c] = action
	}
	return t
}

const (
	encOnes  = 0x0101010101010101
	encHighs = 0x80 * encOnes
)

// encCopy appends the run of bytes to copy that begins at s[i:] and returns where it ends. It looks at eight bytes
// together: the high bit of a byte of stops is set for the first byte that has an action, though perhaps also for bytes
// after it. All eight are written, and those too many taken back: values are short, and that is faster than a call for
// each run.
func encCopy[T string | []byte](dst []byte, s T, i int, t *encTable) ([]byte, int) {
	for ; i+8 <= len(s); i += 8 {
		b := s[i : i+8]
		x := uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16 | uint64(b[3])<<24 |
			uint64(b[4])<<32 | uint64(b[5])<<40 | uint64(b[6])<<48 | uint64(b[7])<<56
		backslash, extra := x^'\\'*encOnes, x^t.extra
		stops := x | (x + encOnes) | (x-' '*encOnes)&^x | (backslash-encOnes)&^backslash | (extra-encOnes)&^extra
		dst = binary.LittleEndian.AppendUint64(dst, x)
		if stops &= encHighs; stops != 0 {
			n := bits.TrailingZeros64(stops) / 8
			return dst[:len(dst)-8+n], i + n
		}
	}
	for ; i < len(s) && t.actions[s[i]] == 0; i++ {
		dst = append(dst, s[i])
	}
	return dst, i
}

// encIsInteger reports whether b is a 64-bit integer in its shortest decimal form: no plus sign, no leading zero (which
// some readers take for octal), nothing around it.
func encIsInteger(b []byte) bool {
	digits, limit := b, "9223372036854775807"
	if len(b) > 1 && b[0] == '-' {
		digits, limit = b[1:], "9223372036854775808"
		if b[1] == '0' {
			return false
		}
	}
	if len(digits) == 0 || len(digits) > len(limit) || digits[0] == '0' && len(digits) > 1 {
		return false
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(digits) < len(limit) || string(digits) <= limit
}

// encIsIPv4 reports whether b is an IPv4 address in dotted decimal: four numbers of 0 to 255 without leading zeros.
func encIsIPv4(b []byte) bool {
	dots, digits, number := 0, 0, 0
	for _, c := range b {
		switch {
		case c >= '0' && c <= '9':
			if digits > 0 && number == 0 {
				return false
			}
			number = number*10 + int(c-'0')
			digits++
			if number > 255 {
				return false
			}
		case c == '.' && digits > 0 && dots < 3:
			dots++
			digits, number = 0, 0
		default:
			return false
		}
	}
	return dots == 3 && digits > 0
}

// encIsIPv6 reports whether b is an IPv6 address as in RFC 4291 section 2.2, without a zone.
func encIsIPv6(b []byte) bool {
	groups, gap := 0, false
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = true, b[2:]
	}
	for len(b) > 0 && groups < 8 {
		n := 0
		for n < len(b) && encIsHex(b[n]) {
			n++
		}
		if n < len(b) && b[n] == '.' { // the last 32 bits may be an IPv4 address
			groups += 2
			return encIsIPv4(b) && (groups == 8 && !gap || groups < 8 && gap)
		}
		if n == 0 || n > 4 {
			return false
		}
		groups++
		b = b[n:]
		if len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return false
		}
		b = b[1:]
		if b[0] == ':' {
			if gap {
				return false
			}
			gap, b = true, b[1:]
		}
	}
	return len(b) == 0 && (groups == 8 && !gap || groups < 8 && gap)
}

func encIsHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// encAppendTime appends a time as RFC 3339 in UTC with milliseconds, always 24 characters. RFC 3339 has four digits for
// the year: what lies before the year 0 or after 9999 is brought to the nearest time that can be written.
func encAppendTime(dst []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	switch {
	case year < 0:
		return append(dst, "0000-01-01T00:00:00.000Z"...)
	case year > 9999:
		return append(dst, "9999-12-31T23:59:59.999Z"...)
	}
	hour, minute, second := t.Clock()
	milli := t.Nanosecond() / int(time.Millisecond)
	dst = encAppend2(dst, year/100)
	dst = encAppend2(dst, year%100)
	dst = encAppend2(append(dst, '-'), int(month))
	dst = encAppend2(append(dst, '-'), day)
	dst = encAppend2(append(dst, 'T'), hour)
	dst = encAppend2(append(dst, ':'), minute)
	dst = encAppend2(append(dst, ':'), second)
	dst = append(dst, '.', byte('0'+milli/100))
	return append(encAppend2(dst, milli%100), 'Z')
}

// encAppend2 appends two decimal digits.
func encAppend2(dst []byte, n int) []byte { return append(dst, byte('0'+n/10), byte('0'+n%10)) }
