// Package audit holds the nouns that every part of auditrelay speaks: the Record that a source wrote, the Event that says
// what it means, the batches that own their memory, the one table of fields, and the stored encoding. It is a leaf: it
// imports nothing of ours, reads no files and starts no goroutines.
package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Number is an event's place in the log of one queue directory: 1, 2, 3 … without gaps, never reused. 0 means none yet.
type Number uint64

// ID names an event for ever, on every relay. Sent twice, it is still one ID. The zero ID means "by log id and number".
type ID [16]byte

// IsZero reports whether the event takes its ID from its place in the log.
func (id ID) IsZero() bool { return id == ID{} }

// Append appends the 32 lower-case hex digits that stand for the ID outside.
func (id ID) Append(dst []byte) []byte { return hex.AppendEncode(dst, id[:]) }

// String returns the 32 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// KeyID returns the ID of a record whose source can tell when it is read again: the first 128 bits of
// SHA-256 over product, a zero byte, and key.
func KeyID(product string, key []byte) ID {
	var buf [256]byte
	b := append(buf[:0], product...)
	b = append(b, 0)
	b = append(b, key...)
	return truncated(b)
}

// PlaceID returns the ID of an event whose source could not tell: the first 128 bits of SHA-256 over a text that no
// product name can be, the log id and the number.
func PlaceID(log LogID, number Number) ID {
	var buf [32]byte
	b := append(buf[:0], "\x00log\x00"...)
	b = binary.BigEndian.AppendUint32(b, uint32(log))
	b = binary.BigEndian.AppendUint64(b, uint64(number))
	return truncated(b)
}

func truncated(b []byte) ID {
	sum := sha256.Sum256(b)
	return ID(sum[:16])
}

// LogID is the random 8-digit number that a queue directory gets when it is made.
type LogID uint32

// String returns the eight digits.
func (l LogID) String() string { return fmt.Sprintf("%08d", uint32(l)) }

// Format says how the bytes of a record are laid out, as far as its source knows.
type Format uint8

// The formats. Auto lets the normalizer look at the bytes.
const (
	FormatAuto Format = iota
	FormatCSV
	FormatJSON
	FormatSyslog
	FormatText
)

// String returns the word that the configuration uses.
func (f Format) String() string {
	switch f {
	case FormatCSV:
		return "csv"
	case FormatJSON:
		return "json"
	case FormatSyslog:
		return "syslog"
	case FormatText:
		return "text"
	default:
		return "auto"
	}
}

// Origin is what all records of one file or one listener share. It is made once and never changed, so records point to
// it and many goroutines may read it.
type Origin struct {
	Path   string // file path, or the listener's URL
	Format Format
	Header []byte // CSV: the header row's own bytes, without line ending; empty if the format has none
	Comma  byte   // CSV: the delimiter; 0 if the format has none
}

// Record is what a source wrote.
type Record struct {
	Raw      []byte     // the record's own bytes, without line ending; points into its batch
	Key      []byte     // same when the same record is read again; empty if the source cannot tell
	Product  string     // catalogue to use; empty = find out
	Peer     netip.Addr // who sent it; zero for files
	Received time.Time

	Origin *Origin // nil if nothing is known
	Offset int64   // where it begins in the file, in bytes; -1 if that has no meaning
	Row    int64   // which record of the file it is, from 1, header not counted; 0 if unknown
	Part   int     // 1, 2, 3 … when one record was too long and comes out in parts; 0 = whole
	Marks  Marks   // what the collector noticed (truncated, partial, framing_error …)
}

// Position is a collector's durable note of how far it has read. It is stored in the same frame as the records that it
// covers. An empty Value removes the note.
type Position struct {
	Key   []byte // names the file or stream within its collector
	Value []byte // the collector's own encoding
}

// Outcome says whether what the event tells of was done.
type Outcome uint8

// The outcomes.
const (
	OutcomeUnknown Outcome = iota
	OutcomeSuccess
	OutcomeFailure
)

// String returns "unknown", "success" or "failure".
func (o Outcome) String() string {
	switch o {
	case OutcomeSuccess:
		return "success"
	case OutcomeFailure:
		return "failure"
	default:
		return "unknown"
	}
}

// ParseOutcome reads one of the three words.
func ParseOutcome(s string) (Outcome, error) {
	switch s {
	case "unknown":
		return OutcomeUnknown, nil
	case "success":
		return OutcomeSuccess, nil
	case "failure":
		return OutcomeFailure, nil
	default:
		return 0, fmt.Errorf("unknown outcome %s: use unknown, success or failure", strconv.Quote(s))
	}
}
