package audit

import (
	"fmt"
	"strconv"
)

// Severity is the one scale that all products are brought to. The order is the order of the words; 0 means not set.
type Severity uint8

// The six severities.
const (
	SeverityDebug Severity = iota + 1
	SeverityInfo
	SeverityNotice
	SeverityWarning
	SeverityError
	SeverityCritical
)

// severityRow is one line of the severity table (DESIGN.md section 4, "Severity to numbers").
type severityRow struct {
	word   string
	cef    uint8 // CEF and LEEF, 0 to 10
	syslog uint8 // RFC 5424 section 6.2.1, 7 (debug) to 2 (critical)
	ocsf   uint8 // OCSF severity_id
}

func (s Severity) row() severityRow {
	switch s {
	case SeverityDebug:
		return severityRow{"debug", 0, 7, 1}
	case SeverityNotice:
		return severityRow{"notice", 4, 5, 2}
	case SeverityWarning:
		return severityRow{"warning", 6, 4, 3}
	case SeverityError:
		return severityRow{"error", 8, 3, 4}
	case SeverityCritical:
		return severityRow{"critical", 10, 2, 5}
	default:
		return severityRow{"info", 2, 6, 1}
	}
}

// String returns the word: debug, info, notice, warning, error, critical.
func (s Severity) String() string { return s.row().word }

// CEF returns the number 0 to 10 of CEF's header.
func (s Severity) CEF() int { return int(s.row().cef) }

// Syslog returns the numerical code of RFC 5424 section 6.2.1, 7 to 2.
func (s Severity) Syslog() int { return int(s.row().syslog) }

// OCSF returns the severity_id of OCSF 1.8.
func (s Severity) OCSF() int { return int(s.row().ocsf) }

// ParseSeverity reads one of the six words.
func ParseSeverity(word string) (Severity, error) {
	for s := SeverityDebug; s <= SeverityCritical; s++ {
		if s.String() == word {
			return s, nil
		}
	}
	return 0, fmt.Errorf("unknown severity %s: use debug, info, notice, warning, error or critical", strconv.Quote(word))
}

// SyslogSeverity returns the severity for a syslog severity code, 0 (emergency) to 7 (debug).
func SyslogSeverity(code int) Severity {
	switch {
	case code <= 2:
		return SeverityCritical
	case code == 3:
		return SeverityError
	case code == 4:
		return SeverityWarning
	case code == 5:
		return SeverityNotice
	case code == 6:
		return SeverityInfo
	default:
		return SeverityDebug
	}
}

// SeveritySource says where an event's severity came from.
type SeveritySource uint8

// The sources of a severity.
const (
	SeverityFromCatalog SeveritySource = iota
	SeverityFromRecord
	SeverityFromRule
)

// String returns "catalog", "record" or "rule".
func (s SeveritySource) String() string {
	switch s {
	case SeverityFromRecord:
		return "record"
	case SeverityFromRule:
		return "rule"
	default:
		return "catalog"
	}
}
