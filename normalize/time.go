package normalize

import (
	"fmt"
	"time"
)

// stamp is a time as somebody wrote it: a wall clock reading, perhaps without a year, perhaps without a zone.
type stamp struct {
	year                                 int // 0 = not given
	month, day, hour, minute, sec, nanos int
	offset                               int  // seconds east of UTC
	zoned                                bool // the offset was given
}

// valid reports whether the clock can show it. 23:59:60 is a leap second and counts as the second after.
func (t *stamp) valid() bool {
	if t.month < 1 || t.month > 12 || t.day < 1 || t.hour > 23 || t.minute > 59 || t.sec > 60 || t.year > 9999 {
		return false
	}
	year := t.year
	if year == 0 {
		year = 2000 // a leap year: the real one is found later
	}
	return t.day <= daysIn(year, t.month) && t.offset > -24*3600 && t.offset < 24*3600
}

func daysIn(year, month int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	default:
		return 31
	}
}

// wall returns the reading in seconds since 1970 of the same clock.
func (t *stamp) wall() int64 {
	// Days from civil, by Howard Hinnant: the year begins in March, so that the leap day is the last.
	y, m := int64(t.year), int64(t.month)
	if m <= 2 {
		y--
		m += 12
	}
	days := 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + int64(t.day) - 1 - 719468
	return days*86400 + int64(t.hour)*3600 + int64(t.minute)*60 + int64(t.sec)
}

// zoneClock turns readings of a zone's wall clock into UTC. It remembers the last period between two changes of the
// offset. The zero value is ready. Not safe for use by two goroutines at once.
type zoneClock struct {
	location   *time.Location
	start, end int64 // UTC seconds between which offset holds, a day cut off on both sides
	offset     int64
}

// utc returns the UTC second of a reading, and whether the reading stands for two times or for none. Of two it takes
// the first (summer time); one that the clock never showed is read with the offset before the gap.
func (z *zoneClock) utc(wall int64, location *time.Location) (sec int64, ambiguous bool) {
	if z.location == location {
		if sec := wall - z.offset; sec >= z.start && sec < z.end {
			return sec, false
		}
	}
	// No zone is further than 15 hours from UTC, and no two changes lie within two days.
	const day = 86400
	before, after := offsetAt(wall-day, location), offsetAt(wall+day, location)
	if before == after {
		z.remember(wall-before, location, before)
		return wall - before, false
	}
	early, late := wall-before, wall-after
	early, late = min(early, late), max(early, late)
	switch okEarly, okLate := wall-offsetAt(early, location) == early, wall-offsetAt(late, location) == late; {
	case okEarly && okLate:
		return early, true
	case okEarly:
		return early, false
	case okLate:
		return late, false
	default:
		return wall - before, true
	}
}

func (z *zoneClock) remember(sec int64, location *time.Location, offset int64) {
	const day, always = 86400, int64(1) << 60
	z.location, z.offset, z.start, z.end = location, offset, -always, always
	start, end := time.Unix(sec, 0).In(location).ZoneBounds()
	if !start.IsZero() {
		z.start = start.Unix() + day
	}
	if !end.IsZero() {
		z.end = end.Unix() - day
	}
}

func offsetAt(sec int64, location *time.Location) int64 {
	_, offset := time.Unix(sec, 0).In(location).Zone()
	return int64(offset)
}

// clockAheadSeconds is how far a sender's clock may be ahead of ours, a week, before a time without a year is taken for
// one of the year before: audit records come late, not early.
const clockAheadSeconds = 7 * 24 * 3600

// guessYear gives t the latest year in which it is not more than clockAheadSeconds after received. 29 February only fits
// leap years.
func (t *stamp) guessYear(received time.Time) {
	local := *t
	for year := received.Year() + 1; year >= received.Year()-8 && year >= 1; year-- {
		if local.year = year; year > 9999 || t.day > daysIn(year, t.month) {
			continue
		}
		if t.year = year; local.wall() <= received.Unix()+clockAheadSeconds {
			return
		}
	}
}

// layout is a compiled way of writing times.
type layout struct {
	text  string // as the catalogue has it
	kind  byte   // 'u' unix, 'm' unix_ms, 'i' rfc3339, 'c' custom
	steps []layoutStep
}

// layoutStep is one part of a custom layout: Y M D h H m s b p, or ' for a character that stands for itself.
type layoutStep struct {
	kind  byte
	fixed bool // two digits, never one
	char  byte
}

// layoutTokens are the parts of Go's reference time that a custom layout is made of, longest first.
var layoutTokens = []struct {
	text string
	step layoutStep
}{
	{"2006", layoutStep{kind: 'Y'}},
	{"Jan", layoutStep{kind: 'b'}},
	{"01", layoutStep{kind: 'M', fixed: true}},
	{"02", layoutStep{kind: 'D', fixed: true}},
	{"15", layoutStep{kind: 'h', fixed: true}},
	{"03", layoutStep{kind: 'H', fixed: true}},
	{"04", layoutStep{kind: 'm', fixed: true}},
	{"05", layoutStep{kind: 's', fixed: true}},
	{"PM", layoutStep{kind: 'p'}},
	{"_2", layoutStep{kind: 'D'}},
	{"1", layoutStep{kind: 'M'}},
	{"2", layoutStep{kind: 'D'}},
	{"3", layoutStep{kind: 'H'}},
}

// parseLayout compiles a layout: unix, unix_ms, rfc3339, or one made of 2006 01 1 Jan 02 2 _2 15 03 3 04 05 PM and
// other characters. A fraction after the seconds and an offset at the end may always follow.
func parseLayout(text string) (layout, error) {
	switch text {
	case "unix":
		return layout{text: text, kind: 'u'}, nil
	case "unix_ms":
		return layout{text: text, kind: 'm'}, nil
	case "rfc3339":
		return layout{text: text, kind: 'i'}, nil
	}
	l := layout{text: text, kind: 'c'}
	seen := map[byte]bool{}
	for rest := text; rest != ""; {
		step := layoutStep{kind: '\'', char: rest[0]}
		n := 1
		for _, token := range layoutTokens {
			if len(rest) >= len(token.text) && rest[:len(token.text)] == token.text {
				step, n = token.step, len(token.text)
				break
			}
		}
		if step.kind == '\'' && (rest[0] >= '0' && rest[0] <= '9') {
			return layout{}, fmt.Errorf("layout %q: %q is no part of the reference time 2006-01-02 15:04:05", text, rest[:1])
		}
		seen[step.kind] = true
		l.steps = append(l.steps, step)
		rest = rest[n:]
	}
	if !seen['Y'] || !seen['D'] || !seen['h'] && !seen['H'] || !seen['m'] || !seen['M'] && !seen['b'] {
		return layout{}, fmt.Errorf("layout %q needs a year, a month, a day, hours and minutes: "+
			"use unix, unix_ms, rfc3339 or the reference time 2006-01-02 15:04:05", text)
	}
	return l, nil
}

// read reads b. unix is true if the result is seconds and nanos since 1970 and needs no zone; they are in sec and
// nanos.
func (l *layout) read(b []byte) (t stamp, sec int64, unix, ok bool) {
	switch l.kind {
	case 'u', 'm':
		sec, nanos, ok := readUnix(b, l.kind == 'm')
		return stamp{nanos: nanos}, sec, true, ok
	case 'i':
		t, n := readISO(b)
		return t, 0, false, n > 0 && n == len(b)
	default:
		t, ok := l.readCustom(b)
		return t, 0, false, ok
	}
}

// readUnix reads seconds since 1970. What is too large for seconds of this or the next millennium is taken for
// milliseconds (10^11 and above), microseconds (10^14) or nanoseconds (10^17).
func readUnix(b []byte, millis bool) (sec int64, nanos int, ok bool) {
	whole, n := readDigits(b, 19)
	if n == 0 {
		return 0, 0, false
	}
	frac, used := readFraction(b[n:])
	if n+used != len(b) {
		return 0, 0, false
	}
	perSec := int64(1)
	switch {
	case whole >= 1e17:
		perSec = 1e9
	case whole >= 1e14:
		perSec = 1e6
	case whole >= 1e11 || millis:
		perSec = 1e3
	}
	rest := whole % perSec * (1e9 / perSec)
	return whole / perSec, int(rest) + frac/int(perSec), true
}

// readDigits reads at most limit decimal digits and returns how many there were, 0 if there are more.
func readDigits(b []byte, limit int) (v int64, n int) {
	for n < len(b) && b[n] >= '0' && b[n] <= '9' {
		if n == limit {
			return 0, 0
		}
		v = v*10 + int64(b[n]-'0')
		n++
	}
	if v < 0 {
		return 0, 0
	}
	return v, n
}

// readFraction reads a point or comma and digits, if they are there. Digits after the ninth count for nothing.
func readFraction(b []byte) (nanos, n int) {
	if len(b) < 2 || b[0] != '.' && b[0] != ',' || b[1] < '0' || b[1] > '9' {
		return 0, 0
	}
	scale := int(1e9)
	for n = 1; n < len(b) && b[n] >= '0' && b[n] <= '9'; n++ {
		scale /= 10
		nanos += int(b[n]-'0') * scale
	}
	return nanos, n
}

// two reads exactly two digits at b[i:], -1 if they are not there.
func two(b []byte, i int) int {
	if i+2 > len(b) || b[i] < '0' || b[i] > '9' || b[i+1] < '0' || b[i+1] > '9' {
		return -1
	}
	return int(b[i]-'0')*10 + int(b[i+1]-'0')
}

// readISO reads 2006-01-02T15:04:05 (RFC 3339; the T may be small or a blank), a fraction and an offset where they are
// there. It returns the number of bytes read, 0 if b does not begin with a time.
func readISO(b []byte) (t stamp, n int) {
	if len(b) < 19 || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' ||
		b[10] != 'T' && b[10] != 't' && b[10] != ' ' {
		return stamp{}, 0
	}
	high, low := two(b, 0), two(b, 2)
	t = stamp{month: two(b, 5), day: two(b, 8), hour: two(b, 11), minute: two(b, 14), sec: two(b, 17)}
	if high < 0 || low < 0 || t.hour < 0 || t.minute < 0 || t.sec < 0 {
		return stamp{}, 0
	}
	t.year = high*100 + low
	nanos, used := readFraction(b[19:])
	t.nanos, n = nanos, 19+used
	n += t.readOffset(b[n:])
	if t.year == 0 || !t.valid() {
		return stamp{}, 0
	}
	return t, n
}

// readOffset reads Z, +hh:mm, +hhmm or +hh, with a blank before it or not, and a zone word UTC or GMT.
func (t *stamp) readOffset(b []byte) (n int) {
	i := 0
	if i < len(b) && b[i] == ' ' {
		i++
	}
	if i == len(b) {
		return 0
	}
	switch {
	case b[i] == 'Z' || b[i] == 'z':
		if i+1 < len(b) && isWordByte(b[i+1]) {
			return 0
		}
		t.zoned, t.offset = true, 0
		return i + 1
	case b[i] == '+' || b[i] == '-':
		hours, minutes, next := two(b, i+1), 0, i+3
		if hours < 0 {
			return 0
		}
		if next < len(b) && b[next] == ':' && two(b, next+1) >= 0 {
			minutes, next = two(b, next+1), next+3
		} else if two(b, next) >= 0 {
			minutes, next = two(b, next), next+2
		}
		t.zoned, t.offset = true, hours*3600+minutes*60
		if b[i] == '-' {
			t.offset = -t.offset
		}
		// Go's own way of writing times ends with "+0000 UTC".
		return next + zoneWord(b[next:])
	default:
		if used := zoneWord(b); used > 0 {
			t.zoned, t.offset = true, 0
			return used
		}
		return 0
	}
}

// zoneWord returns the length of " UTC" or " GMT" at the start of b.
func zoneWord(b []byte) int {
	if len(b) >= 4 && b[0] == ' ' && (string(b[1:4]) == "UTC" || string(b[1:4]) == "GMT") &&
		(len(b) == 4 || !isWordByte(b[4])) {
		return 4
	}
	return 0
}

func isWordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
}

func (l *layout) readCustom(b []byte) (t stamp, ok bool) {
	i, twelve, pm := 0, false, false
	for _, step := range l.steps {
		switch step.kind {
		case '\'':
			if i == len(b) || b[i] != step.char {
				return t, false
			}
			i++
			continue
		case 'b':
			if t.month = readMonth(b[i:]); t.month == 0 {
				return t, false
			}
			i += 3
			continue
		case 'p':
			if i+2 > len(b) || lowerASCII(b[i+1]) != 'm' || lowerASCII(b[i]) != 'p' && lowerASCII(b[i]) != 'a' {
				return t, false
			}
			pm = lowerASCII(b[i]) == 'p'
			i += 2
			continue
		}
		v, n := readNumber(b[i:], step)
		if n == 0 {
			return t, false
		}
		i += n
		switch step.kind {
		case 'Y':
			t.year = v
		case 'M':
			t.month = v
		case 'D':
			t.day = v
		case 'h':
			t.hour = v
		case 'H':
			t.hour, twelve = v, true
		case 'm':
			t.minute = v
		case 's':
			t.sec = v
			nanos, used := readFraction(b[i:])
			t.nanos = nanos
			i += used
		}
	}
	if twelve && (t.hour < 1 || t.hour > 12) {
		return t, false
	}
	if twelve {
		t.hour %= 12
		if pm {
			t.hour += 12
		}
	}
	i += t.readOffset(b[i:])
	return t, i == len(b) && t.year > 0 && t.valid()
}

// readNumber reads the digits of one step: four for a year, two if the step is fixed, else one or two, a blank in front
// allowed.
func readNumber(b []byte, step layoutStep) (v, n int) {
	blank := 0
	if !step.fixed && len(b) > 0 && b[0] == ' ' {
		blank = 1
	}
	digits := 2
	if step.kind == 'Y' {
		digits = 4
	}
	for n = blank; n < len(b) && n < blank+digits && b[n] >= '0' && b[n] <= '9'; n++ {
		v = v*10 + int(b[n]-'0')
	}
	if n == blank || (step.kind == 'Y' || step.fixed) && n-blank < digits {
		return 0, 0
	}
	return v, n
}

// readMonth reads the English name of a month in three letters, in any case; 0 if there is none.
func readMonth(b []byte) int {
	const months = "janfebmaraprmayjunjulaugsepoctnovdec"
	if len(b) < 3 {
		return 0
	}
	for m := 0; m < 12; m++ {
		if equalFoldASCII(b[:3], months[3*m:3*m+3]) {
			return m + 1
		}
	}
	return 0
}
