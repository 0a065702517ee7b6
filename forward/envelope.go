package forward

import (
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Lengths of the parts of a header (RFC 5424 section 6).
const (
	hostMax  = 255
	msgIDMax = 32
)

// byteOrderMark is what RFC 5424 section 6.4 puts before a message in UTF-8.
const byteOrderMark = "\xEF\xBB\xBF"

// envelope writes the header of syslog messages. What does not change is made once. Not safe for concurrent use.
type envelope interface {
	// appendHeader appends all that stands before the message, with the space between them.
	appendHeader(dst []byte, ev *audit.Event) []byte
}

func newEnvelope(s *SyslogSettings, host string) envelope {
	switch s.Envelope {
	case envelopeNone:
		return noEnvelope{}
	case envelope3164:
		return newRFC3164(s, host)
	default:
		return newRFC5424(s, host)
	}
}

// noEnvelope leaves the message alone.
type noEnvelope struct{}

func (noEnvelope) appendHeader(dst []byte, _ *audit.Event) []byte { return dst }

// rfc5424 writes
//
//	<134>1 2026-03-04T05:06:07.089Z prg-01 auditrelay - USER/LOGIN [auditrelay@32473 id="…" number="7"] message
//
// with the event's time, severity, class, id and number. PROCID is nil: the process that the event is about is not
// known, and ours says nothing (RFC 5424 section 6.2.6).
type rfc5424 struct {
	pri     [8]string // "<134>1 ", by severity code
	names   string    // " host app - "
	sdID    string    // ` [id id="`
	end     string    // `"] `, with the byte order mark if wanted
	seconds secondText
}

func newRFC5424(s *SyslogSettings, host string) *rfc5424 {
	e := &rfc5424{
		names:   " " + headerWord(host, hostMax) + " " + s.AppName + " - ",
		sdID:    " [" + s.StructuredDataID + ` id="`,
		end:     `"] `,
		seconds: secondText{layout: "2006-01-02T15:04:05", zone: time.UTC},
	}
	if s.BOM {
		e.end += byteOrderMark
	}
	for code := range e.pri {
		e.pri[code] = "<" + strconv.Itoa(int(s.Facility)*8+code) + ">1 "
	}
	return e
}

func (e *rfc5424) appendHeader(dst []byte, ev *audit.Event) []byte {
	dst = append(dst, e.pri[ev.Severity.Syslog()&7]...)
	dst = e.appendTime(dst, ev.Time)
	dst = append(dst, e.names...)
	dst = appendMsgID(dst, ev.Class)
	dst = append(dst, e.sdID...)
	dst = ev.ID.Append(dst)
	dst = append(dst, `" number="`...)
	dst = strconv.AppendUint(dst, uint64(ev.Number), 10)
	return append(dst, e.end...)
}

// appendTime appends a TIMESTAMP of RFC 5424 section 6.2.3, in milliseconds. A year that RFC 3339 cannot write becomes
// "-".
func (e *rfc5424) appendTime(dst []byte, t time.Time) []byte {
	if year := t.Year(); year < 0 || year > 9999 {
		return append(dst, '-')
	}
	dst = e.seconds.append(dst, t)
	ms := t.Nanosecond() / 1e6
	return append(dst, '.', byte('0'+ms/100), byte('0'+ms/10%10), byte('0'+ms%10), 'Z')
}

// appendMsgID appends a MSGID of RFC 5424 section 6.2.7: printable US-ASCII without space, "_" for all other
// characters.
func appendMsgID(dst []byte, class string) []byte {
	start := len(dst)
	for _, c := range class {
		if len(dst)-start == msgIDMax {
			break
		}
		if c <= ' ' || c > '~' {
			c = '_'
		}
		dst = append(dst, byte(c))
	}
	if len(dst) == start {
		dst = append(dst, '-')
	}
	return dst
}

// rfc3164 writes "<134>Mar  4 05:06:07 host tag: message" (RFC 3164 section 4.1), without the tag if none is set: a
// receiver takes "CEF" at the begin of a message for the tag.
type rfc3164 struct {
	pri     [8]string // "<134>", by severity code
	names   string    // " host tag: "
	seconds secondText
}

func newRFC3164(s *SyslogSettings, host string) *rfc3164 {
	if _, err := netip.ParseAddr(host); err != nil {
		host, _, _ = strings.Cut(host, ".") // the HOSTNAME has no domain (RFC 3164 section 4.1.2)
	}
	e := &rfc3164{names: " " + headerWord(host, hostMax) + " "}
	e.seconds = secondText{layout: time.Stamp, zone: time.Local}
	if s.Tag != "" {
		e.names += s.Tag + ": "
	}
	if zone := s.Timezone.Location(); zone != nil {
		e.seconds.zone = zone
	}
	for code := range e.pri {
		e.pri[code] = "<" + strconv.Itoa(int(s.Facility)*8+code) + ">"
	}
	return e
}

func (e *rfc3164) appendHeader(dst []byte, ev *audit.Event) []byte {
	dst = append(dst, e.pri[ev.Severity.Syslog()&7]...)
	dst = e.seconds.append(dst, ev.Time)
	return append(dst, e.names...)
}

// secondText writes times to the second. Events come in the order of their times, more or less, so it keeps the last
// text.
type secondText struct {
	layout string
	zone   *time.Location
	second int64
	text   []byte
}

func (s *secondText) append(dst []byte, t time.Time) []byte {
	if second := t.Unix(); second != s.second || len(s.text) == 0 {
		s.second = second
		s.text = t.In(s.zone).AppendFormat(s.text[:0], s.layout)
	}
	return append(dst, s.text...)
}

// headerWord returns s as a word of a header: printable US-ASCII without space, at most limit bytes, "-" if nothing is
// left.
func headerWord(s string, limit int) string {
	word := strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' {
			return '_'
		}
		return c
	}, s)
	if len(word) > limit {
		word = word[:limit]
	}
	if word == "" {
		return "-"
	}
	return word
}
