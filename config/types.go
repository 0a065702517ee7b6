package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the same zones on every machine, also where the system has none installed
)

// Bytes is a size in bytes, written in the file as a whole number and one of the units B, KiB, MiB, GiB and TiB:
// "64MiB". Decimal units (KB, MB …) are refused, because half of their readers take them for the binary ones. Never
// negative.
type Bytes int64

// Sizes to count in.
const (
	KiB Bytes = 1 << (10 * (iota + 1))
	MiB
	GiB
	TiB
)

// byteUnit returns the size of a unit as written in the file.
func byteUnit(name string) (Bytes, bool) {
	switch name {
	case "B":
		return 1, true
	case "KiB":
		return KiB, true
	case "MiB":
		return MiB, true
	case "GiB":
		return GiB, true
	case "TiB":
		return TiB, true
	default:
		return 0, false
	}
}

// UnmarshalText reads a size. Its errors say what to write instead.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	end := strings.IndexFunc(s, func(c rune) bool { return c < '0' || c > '9' })
	number, unit := s, ""
	if end >= 0 {
		number, unit = s[:end], s[end:]
	}
	switch {
	case number == "":
		return fmt.Errorf("%s is not %s", quote(s), b.expected())
	case unit == "":
		return fmt.Errorf("%s has no unit: write it as %s or in KiB, MiB, GiB or TiB", quote(s), quote(number+"B"))
	case unit[0] == '.' || unit[0] == ',':
		return fmt.Errorf("%s is not a whole number: use the next smaller unit", quote(s))
	}
	size, ok := byteUnit(unit)
	if !ok {
		return fmt.Errorf("unit %s is not known: %s", quote(unit), byteUnitHint(unit))
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n > math.MaxInt64/int64(size) {
		return fmt.Errorf("%s is more than a size can be", quote(s))
	}
	*b = Bytes(n) * size
	return nil
}

func byteUnitHint(unit string) string {
	if first := strings.ToUpper(strings.TrimSpace(unit)); len(first) <= 3 && first != "" {
		switch first[0] {
		case 'K', 'M', 'G', 'T':
			return "write " + first[:1] + "iB, which counts in steps of 1024"
		}
	}
	return "use B, KiB, MiB, GiB or TiB, without a space before it"
}

func (Bytes) expected() string { return "a size such as 64MiB, with the unit B, KiB, MiB, GiB or TiB" }

// String returns the size in the largest unit in which it is a whole number: "64MiB".
func (b Bytes) String() string {
	for _, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if size, _ := byteUnit(unit); b != 0 && b%size == 0 {
			return strconv.FormatInt(int64(b/size), 10) + unit
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}

// MarshalText returns String, which UnmarshalText reads.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// Duration is a time span, written as in Go ("1h30m", "10s", "250ms"), with "d" for days of 24 hours in front: "7d",
// "1d12h". Never negative.
type Duration time.Duration

const (
	hour = Duration(time.Hour)
	day  = 24 * hour
)

// UnmarshalText reads a duration. Its errors say what to write instead.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Errorf("%s has no unit: write it as %s or in ms, m, h or d", quote(s), quote(s+"s"))
	}
	switch {
	case s == "":
		return fmt.Errorf("%s is not %s", quote(s), d.expected())
	case s[0] == '-':
		return fmt.Errorf("%s is negative: a duration is not", quote(s))
	}
	days, rest, hasDays := strings.Cut(s, "d")
	if !hasDays {
		days, rest = "", s
	}
	var total Duration
	if hasDays {
		n, err := strconv.ParseUint(days, 10, 32)
		switch {
		case errors.Is(err, strconv.ErrRange), err == nil && n > uint64(math.MaxInt64/day):
			return fmt.Errorf("%s is more than a duration can be, 292 years", quote(s))
		case err != nil:
			return fmt.Errorf("%s is not %s", quote(s), d.expected())
		}
		total = Duration(n) * day
	}
	if rest != "" {
		part, err := time.ParseDuration(rest)
		if err != nil || strings.ContainsAny(rest[:1], "+-") {
			return fmt.Errorf("%s is not %s", quote(s), d.expected())
		}
		if total += Duration(part); total < 0 {
			return fmt.Errorf("%s is more than a duration can be, 292 years", quote(s))
		}
	}
	*d = total
	return nil
}

func (Duration) expected() string {
	return "a duration such as 10s, 5m or 1d12h, with the units ms, s, m, h and d"
}

// String returns the duration as Go writes it, without parts that are zero: "24h", "1h30m".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// MarshalText returns String, which UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Percent is a share, written in the file as a whole number from 1 to 100 and the sign: "80%".
type Percent int

// UnmarshalText reads a share. Its errors say what to write instead.
func (p *Percent) UnmarshalText(text []byte) error {
	number, signed := strings.CutSuffix(string(text), "%")
	n, err := strconv.ParseUint(number, 10, 8)
	switch {
	case err != nil || n < 1 || n > 100:
		return fmt.Errorf("%s is not %s", quote(string(text)), p.expected())
	case !signed:
		return fmt.Errorf("%s has no sign: write it as %s", quote(number), quote(number+"%"))
	}
	*p = Percent(n)
	return nil
}

func (Percent) expected() string { return "a share such as 80%, from 1% to 100%" }

// String returns the number and the sign: "80%".
func (p Percent) String() string { return strconv.Itoa(int(p)) + "%" }

// MarshalText returns String, which UnmarshalText reads.
func (p Percent) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Location is a time zone, written by its name in the IANA database: "Europe/Rome", "UTC". The zero value means the
// machine's local zone.
type Location struct {
	loc *time.Location
}

// UnmarshalText looks the zone up. Its errors say what to write instead.
func (l *Location) UnmarshalText(text []byte) error {
	name := string(text)
	if name == "Local" || name == "" {
		return fmt.Errorf("%s is not %s: leave the key out for the machine's local zone", quote(name), l.expected())
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		if likely := zoneCase(name); likely != "" {
			return fmt.Errorf("%s is not a time zone: did you mean %s?", quote(name), quote(likely))
		}
		return fmt.Errorf("%s is not %s", quote(name), l.expected())
	}
	l.loc = loc
	return nil
}

// zoneCase returns the zone that differs from name only in capitals, or "".
func zoneCase(name string) string {
	if len(name) > maxQuoted {
		return ""
	}
	capital := true
	title := strings.Map(func(c rune) rune {
		was := capital
		capital = c == '/' || c == '_' || c == '-'
		if was {
			return []rune(strings.ToUpper(string(c)))[0]
		}
		return []rune(strings.ToLower(string(c)))[0]
	}, strings.ReplaceAll(name, " ", "_"))
	for _, likely := range []string{title, strings.ToUpper(name)} {
		if likely == "LOCAL" || likely == "Local" {
			continue
		}
		if _, err := time.LoadLocation(likely); err == nil {
			return likely
		}
	}
	return ""
}

func (Location) expected() string {
	return "a time zone of the IANA database, such as Europe/Rome or UTC"
}

// Location returns the zone, or nil for the machine's local one. (The machine's zone is not looked up here, so that who
// uses it can be tested with another.)
func (l Location) Location() *time.Location { return l.loc }

// IsZero reports whether no zone was set.
func (l Location) IsZero() bool { return l.loc == nil }

// String returns the zone's name, empty for the machine's local zone.
func (l Location) String() string {
	if l.loc == nil {
		return ""
	}
	return l.loc.String()
}

// MarshalText returns String.
func (l Location) MarshalText() ([]byte, error) { return []byte(l.String()), nil }
