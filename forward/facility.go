package forward

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Facility is a syslog facility, written as its name or number: "local0", "authpriv", 16 (RFC 5424 section 6.2.1).
type Facility uint8

const facilityLocal0 Facility = 16

// facilityNames are the usual names, by number.
func facilityNames() []string {
	return []string{
		"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp", "audit",
		"alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
	}
}

// UnmarshalText reads a name or number.
func (f *Facility) UnmarshalText(text []byte) error {
	names := facilityNames()
	if i := slices.Index(names, string(text)); i >= 0 {
		*f = Facility(i)
		return nil
	}
	n, err := strconv.ParseUint(string(text), 10, 8)
	if err != nil || n >= uint64(len(names)) {
		return fmt.Errorf("%q is not a facility: use a number from 0 to 23 or one of %s", text, strings.Join(names, ", "))
	}
	*f = Facility(n)
	return nil
}

// String returns the name.
func (f Facility) String() string {
	if names := facilityNames(); int(f) < len(names) {
		return names[f]
	}
	return strconv.Itoa(int(f))
}

// MarshalText returns String, which UnmarshalText reads.
func (f Facility) MarshalText() ([]byte, error) { return []byte(f.String()), nil }
