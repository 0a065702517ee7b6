package audit

import "math/bits"

// Marks is the set of things that were guessed or noticed while a record was read. The bits are stored: a bit keeps its
// meaning for ever.
type Marks uint64

// The marks. Their words stand in markWords, in the same order.
const (
	MarkTimeMissing     Marks = 1 << iota // no time in the record: the receive time was taken
	MarkTimeAmbiguous                     // the wall clock hour occurs twice or not at all, or day and month cannot be told apart
	MarkTimeMismatch                      // two times in the record contradict each other
	MarkYearGuessed                       // the time had no year
	MarkLate                              // the event is much older than its arrival
	MarkSeverityFilled                    // the record should have had a severity and had none
	MarkSeverityDiffers                   // the record's severity is not the catalogue's
	MarkTruncated                         // the record was cut before it came to us, or by us
	MarkPart                              // one numbered part of a record that was too long
	MarkPartial                           // the record had no line ending when it had to be taken
	MarkUnreadable                        // the record could not be taken apart
	MarkFramingError                      // the bytes between two frames
	MarkInvalidUTF8                       // the record has bytes that are not UTF-8
	MarkActorClaimed                      // the actor's name was typed by somebody who was not let in
	MarkUnexpectedType                    // the vendor says that this event never occurs
	MarkSourceMismatch                    // the record's module contradicts the catalogue
	MarkColumnsDiffer                     // a CSV record has more or fewer cells than its header
	MarkDetailsUnparsed                   // a compound field was kept whole, or a name stood in it twice
	MarkPriorityMissing                   // a syslog message without a valid PRI
	MarkRedacted                          // something was masked
	MarkFieldsCut                         // more fields than the limit: the rest is only in raw
	MarkBinary                            // the record holds control bytes that no text has
	MarkPossibleLoss                      // records may be missing before this one
)

// markWords are the words for outside, one per bit, in the order of the constants.
var markWords = [...]string{
	"time_missing", "time_ambiguous", "time_mismatch", "year_guessed", "late", "severity_filled", "severity_differs",
	"truncated", "part", "partial", "unreadable", "framing_error", "invalid_utf8", "actor_claimed", "unexpected_type",
	"source_mismatch", "columns_differ", "details_unparsed", "priority_missing", "redacted", "fields_cut", "binary",
	"possible_loss",
}

// Has reports whether all bits of m are set.
func (m Marks) Has(bit Marks) bool { return m&bit == bit }

// Each calls yield with the word of each mark that is set, in the order of the constants.
func (m Marks) Each(yield func(word string) bool) {
	for rest := uint64(m); rest != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(rest)
		if i >= len(markWords) {
			return
		}
		if !yield(markWords[i]) {
			return
		}
	}
}

// MarkWords returns the words of all marks that exist, in their order.
func MarkWords() []string { return append([]string(nil), markWords[:]...) }
