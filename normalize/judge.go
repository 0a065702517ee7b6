package normalize

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// classUnreadable is the class of a record that cannot be told what it is.
const classUnreadable = "unreadable"

// integer returns a number's digits.
func (s *scratch) integer(v int64) []byte { return strconv.AppendInt(s.dst.Alloc(20)[:0], v, 10) }

// classify finds the catalogue's entry for the record, and the class.
func (s *scratch) classify() (*entry, string) {
	t := &s.product.class
	var parts [2][]byte
	var ids [2]int
	for i := range t.parts {
		part := &t.parts[i]
		for _, slot := range part.slots {
			value := trimSpace(s.value(slot))
			// A list or an object is no name, so the record says no more than one without the field.
			if len(value) == 0 || s.cells[s.at[slot]-1].whole || len(value) > classLengthMax ||
				t.wordsOnly && bytes.ContainsAny(value, " \t\r\n{") {
				continue
			}
			parts[i], ids[i] = value, part.id(value, s.text)
			break
		}
	}
	if e := t.find(ids[0], ids[1]); e != nil {
		if e.Class[0] != '*' {
			return e, e.Class
		}
		s.text = append(append(append(s.text[:0], parts[0]...), '/'), t.parts[1].names[ids[1]]...)
		return e, s.intern(bytes.TrimPrefix(s.text, []byte("/")))
	}
	s.text = append(s.text[:0], parts[0]...)
	if len(parts[0]) > 0 && len(parts[1]) > 0 {
		s.text = append(s.text, '/')
	}
	s.text = append(s.text, parts[1]...)
	switch {
	case len(s.text) > 0:
		return s.product.other, s.intern(s.text)
	case s.product == s.n.generic && !s.marks.Has(audit.MarkUnreadable):
		if s.framed {
			return s.product.other, "syslog"
		}
		return s.product.other, s.format
	default:
		s.marks |= audit.MarkUnreadable
		return s.product.other, classUnreadable
	}
}

// judge decides the outcome, the reason and the severity.
func (s *scratch) judge(ev *audit.Event, e *entry) {
	var wordSeverity audit.Severity
	ev.Outcome = e.fixed
	result := s.result(ev, e)
	decided := false
	for i := range e.words {
		w := &e.words[i]
		value := s.value(w.slot)
		for _, word := range w.contains {
			if !containsFoldASCII(value, word) {
				continue
			}
			if w.decides && !decided {
				ev.Outcome, decided = w.outcome, true
				s.explainOutcome(ev, "the word "+word+" in it")
			}
			if w.severity != 0 && wordSeverity == 0 {
				wordSeverity = w.severity
			}
			break
		}
	}
	if s.trace != nil && !e.byCode && !decided {
		s.explainOutcome(ev, "the catalogue's entry")
	}
	if ev.Outcome == audit.OutcomeFailure {
		s.blame(e, result)
	}
	s.severity(ev, e)
	if wordSeverity > ev.Severity && ev.SeveritySource != audit.SeverityFromRecord {
		s.raise(ev, wordSeverity, "a word in its name")
	}
	if result != nil && result.Severity > ev.Severity {
		s.raise(ev, result.Severity, "result code")
	}
	if ev.Outcome == audit.OutcomeFailure && ev.Severity < s.product.failureRaises {
		s.raise(ev, s.product.failureRaises, "failure")
	}
}

func (s *scratch) raise(ev *audit.Event, to audit.Severity, why string) {
	ev.Severity, ev.SeveritySource = to, audit.SeverityFromRule
	if s.trace != nil {
		s.trace.Severity = append(s.trace.Severity, why+" raises to "+to.String())
	}
}

func (s *scratch) explainOutcome(ev *audit.Event, why string) {
	if s.trace != nil {
		s.trace.Outcome = ev.Outcome.String() + " by " + why
	}
}

// blame says why it failed, unless the record itself does.
func (s *scratch) blame(e *entry, result *Result) {
	for i := range e.rules {
		if r := &e.rules[i]; r.to == audit.KeyReason {
			s.apply(e.rules[i : i+1])
		}
	}
	if result != nil && result.Text != "" {
		s.set(audit.KeyReason, s.dst.Copy([]byte(result.Text)))
	}
	s.set(audit.KeyReason, e.reason)
}

// result decides the outcome by the result code: 0 is a success, more a failure, anything else says nothing. An event
// may have codes of its own, which are returned.
func (s *scratch) result(ev *audit.Event, e *entry) *Result {
	if !e.byCode {
		return nil
	}
	code := trimSpace(s.value(s.product.codeSlot))
	for i := range e.Results {
		if r := &e.Results[i]; string(code) == r.Code {
			ev.Outcome = r.Outcome
			s.explainOutcome(ev, "result code "+r.Code+" of this event")
			return r
		}
	}
	switch v, n := readDigits(code, 18); {
	case n == 0 || n != len(code):
		ev.Outcome = audit.OutcomeUnknown
	case v == 0:
		ev.Outcome = audit.OutcomeSuccess
	default:
		ev.Outcome = audit.OutcomeFailure
	}
	if s.trace != nil {
		s.explainOutcome(ev, fmt.Sprintf("result code %q", code))
	}
	return nil
}

// severity takes the record's own severity, else the catalogue's. Where one is expected, a word that means nothing to
// us is the record's own all the same: it is kept as such, and it is not what the catalogue says.
func (s *scratch) severity(ev *audit.Event, e *entry) {
	ev.Severity, ev.SeveritySource = e.Severity, audit.SeverityFromCatalog
	var unknown uint16
	for _, slot := range s.product.severitySlots {
		text := trimSpace(s.value(slot))
		if len(text) == 0 {
			continue
		}
		word, ok := s.severityWord(text)
		if !ok {
			if unknown == 0 {
				unknown = slot
			}
			if s.trace != nil {
				s.trace.Severity = append(s.trace.Severity, fmt.Sprintf("record: %q is no severity", text))
			}
			continue
		}
		s.set(audit.KeySeverityOriginal, text)
		s.use(slot, text, audit.KeySeverityOriginal.String())
		ev.Severity, ev.SeveritySource = word, audit.SeverityFromRecord
		if s.trace != nil {
			s.trace.Severity = append(s.trace.Severity, "record: "+word.String())
		}
		if e.known && word != e.Severity {
			s.marks |= audit.MarkSeverityDiffers
			if s.trace != nil {
				s.trace.Severity = append(s.trace.Severity, "catalog has "+e.Severity.String()+": the record's holds")
			}
		}
		return
	}
	switch {
	case !s.product.severityExpected:
	case unknown == 0:
		s.marks |= audit.MarkSeverityFilled
	default:
		s.marks |= audit.MarkSeverityDiffers
		text := trimSpace(s.value(unknown))
		s.set(audit.KeySeverityOriginal, text)
		s.use(unknown, text, audit.KeySeverityOriginal.String())
	}
	if s.trace != nil {
		s.trace.Severity = append(s.trace.Severity, "catalog: "+e.Severity.String())
	}
}

// severityWord returns what a severity's word means by the catalogue.
func (s *scratch) severityWord(text []byte) (audit.Severity, bool) {
	if len(text) > classLengthMax {
		return 0, false
	}
	word, ok := s.product.severityWords[string(foldClass(s.text[:0], text, "case"))]
	return word, ok
}

// time finds the event's time: the record's own, else the syslog header's, else the receive time.
func (s *scratch) time(ev *audit.Event, location *time.Location) {
	p := s.product
	chosen := false
	for i := range p.times {
		rule := &p.times[i]
		text := trimSpace(s.value(rule.slot))
		if len(text) == 0 {
			continue
		}
		t, marks, layout, ok := s.readTime(rule, text, location)
		switch {
		case !ok:
			if s.trace != nil {
				s.trace.timef("%s: %q fits no layout", p.fields[rule.slot], text)
			}
		case !chosen:
			chosen = true
			ev.Time = t
			s.marks |= marks
			s.set(audit.KeyTimeOriginal, text)
			s.use(rule.slot, text, audit.KeyTimeOriginal.String())
			if s.trace != nil {
				s.trace.timef("%s: %q by layout %s, zone %s", p.fields[rule.slot], text, layout, zoneName(rule, location))
			}
		case p.agreeWithin > 0 && ev.Time.Sub(t).Abs() > p.agreeWithin:
			s.marks |= audit.MarkTimeMismatch
			if s.trace != nil {
				s.trace.timef("%s says %s: they contradict each other", p.fields[rule.slot], t.Format(time.RFC3339Nano))
			}
		}
		if chosen && p.agreeWithin == 0 {
			break
		}
	}
	if !chosen && s.framed && s.header.timeOK {
		chosen = true
		s.headerTime(ev, location)
	}
	if !chosen {
		ev.Time = ev.Received
		s.marks |= audit.MarkTimeMissing
		if s.trace != nil {
			s.trace.timef("none in the record: the receive time was taken")
		}
	}
	if ev.Received.Sub(ev.Time) > p.lateAfter {
		s.marks |= audit.MarkLate
	}
}

func zoneName(rule *timeRule, location *time.Location) string {
	if rule.configured {
		return location.String()
	}
	return "UTC"
}

// readTime reads a source field by the first of a rule's layouts that fits.
func (s *scratch) readTime(rule *timeRule, text []byte, location *time.Location) (
	at time.Time, marks audit.Marks, layout string, ok bool,
) {
	for i := range rule.layouts {
		l := &rule.layouts[i]
		stamp, sec, unix, ok := l.read(text)
		if !ok {
			continue
		}
		if unix {
			// RFC 3339 has four digits for the year.
			if sec > 253402300799 {
				continue
			}
			return fromUnix(sec, stamp.nanos), 0, l.text, true
		}
		if !rule.configured {
			location = time.UTC
		}
		t, marks := s.resolve(&stamp, location)
		if other := rule.rival(i, &stamp, text); other != nil {
			marks |= audit.MarkTimeAmbiguous
			if s.trace != nil {
				s.trace.timef("%s: %q is another time by layout %s: the earlier layout holds",
					s.product.fields[rule.slot], text, other.text)
			}
		}
		return t, marks, l.text, true
	}
	return time.Time{}, 0, "", false
}

// rival returns a layout after the chosen one by which text is another time than t, nil if there is none. In 3/4/2025
// either number may be the month.
func (r *timeRule) rival(chosen int, t *stamp, text []byte) *layout {
	if r.layouts[chosen].kind != 'c' {
		return nil
	}
	for i := chosen + 1; i < len(r.layouts); i++ {
		if l := &r.layouts[i]; l.kind == 'c' {
			if other, ok := l.readCustom(text); ok && other.wall() != t.wall() {
				return l
			}
		}
	}
	return nil
}

// fromUnix returns a time in whole milliseconds; finer digits stay in the original text only.
func fromUnix(sec int64, nanos int) time.Time {
	return time.UnixMilli(sec*1000 + int64(nanos/1e6)).UTC()
}

// resolve turns a reading with a year into UTC.
func (s *scratch) resolve(t *stamp, location *time.Location) (time.Time, audit.Marks) {
	if t.zoned {
		return fromUnix(t.wall()-int64(t.offset), t.nanos), 0
	}
	if location == time.UTC {
		return fromUnix(t.wall(), t.nanos), 0
	}
	sec, ambiguous := s.zone.utc(t.wall(), location)
	if ambiguous {
		return fromUnix(sec, t.nanos), audit.MarkTimeAmbiguous
	}
	return fromUnix(sec, t.nanos), 0
}

// headerTime takes the time of the syslog header.
func (s *scratch) headerTime(ev *audit.Event, location *time.Location) {
	h := &s.header
	slot := s.product.find([]byte(nameTime))
	s.set(audit.KeyTimeOriginal, h.timeText)
	if s.at[slot] != 0 {
		s.use(slot, h.timeText, audit.KeyTimeOriginal.String())
	}
	if h.unix {
		ev.Time = fromUnix(h.unixSec, h.time.nanos)
		return
	}
	stamp := h.time
	if stamp.year == 0 {
		s.marks |= audit.MarkYearGuessed
		stamp.guessYear(ev.Received.In(location))
	}
	t, marks := s.resolve(&stamp, location)
	ev.Time = t
	s.marks |= marks
	if s.trace != nil {
		s.trace.timef("syslog header: %q, zone %s if it has none", h.timeText, location)
	}
}
