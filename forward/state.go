package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// State says how a destination does.
type State uint8

// The states.
const (
	StateStopped  State = iota // not running; or refused events cannot be put into the dead letters: LastError says why
	StateOK                    // delivering, or nothing to deliver
	StateRetrying              // the last try failed and another will be made
)

// String returns "stopped", "ok" or "retrying".
func (s State) String() string {
	switch s {
	case StateOK:
		return "ok"
	case StateRetrying:
		return "retrying"
	default:
		return "stopped"
	}
}

// Totals are counted since the cursor began. They are stored with each commit, so they hold across restarts and
// crashes, and count each number of the log once: stored since it began = Delivered + Filtered + DeadLettered + still
// queued.
type Totals struct {
	Delivered    uint64 // the destination has them
	Filtered     uint64 // the destination's filter left them out
	DeadLettered uint64 // refused for good, written to the dead letters
	Replayed     uint64 // delivered once more because the cursor was set back
	Resent       uint64 // sent once more after an error before which they may have arrived: at most so many doubles
	Retries      uint64 // tries that failed and were followed by another
}

// Stats is what a Forwarder tells about itself. Delivered, Filtered, DeadLettered and Replayed are those of the events up
// to Committed, so that the equation closes at any moment: what lies between is still queued. Resent and Retries, which
// are in no equation, are as of now.
type Stats struct {
	Totals
	Committed   audit.Number // last number committed; 0 = none yet
	Receipts    int          // batches that the destination took and has not confirmed
	State       State
	Since       time.Time // when the state began
	LastError   string    // kept when it is over
	LastErrorAt time.Time
	Sink        Counts // zero if the sink does not count
}

// progress is what is stored with a commit.
type progress struct {
	Totals
	through audit.Number // the highest number that was counted; numbers up to it are replays
	handed  audit.Number // the highest number that may have reached the destination
}

// ErrState says that a cursor's state is not one that this version can read.
var ErrState = errors.New("unknown cursor state")

// The stored form of progress, version 1: the version byte and eight shortest uvarints in the order of append.
const (
	stateVersion = 1
	stateNumbers = 8
)

// append appends the stored form, at most 81 bytes.
func (p *progress) append(dst []byte) []byte {
	dst = append(dst, stateVersion)
	for _, n := range [stateNumbers]uint64{
		p.Delivered, p.Filtered, p.DeadLettered, p.Replayed, p.Resent, p.Retries, uint64(p.through), uint64(p.handed),
	} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

// parseProgress reads the stored form. No bytes at all are a cursor that has just begun.
func parseProgress(b []byte) (progress, error) {
	if len(b) == 0 {
		return progress{}, nil
	}
	if b[0] != stateVersion {
		return progress{}, fmt.Errorf("%w: version %d", ErrState, b[0])
	}
	b = b[1:]
	var n [stateNumbers]uint64
	for i := range n {
		v, size := binary.Uvarint(b)
		if size <= 0 || size > 1 && b[size-1] == 0 {
			return progress{}, fmt.Errorf("%w: bad number", ErrState)
		}
		n[i], b = v, b[size:]
	}
	if len(b) > 0 {
		return progress{}, fmt.Errorf("%w: bytes after the end", ErrState)
	}
	return progress{
		Totals:  Totals{Delivered: n[0], Filtered: n[1], DeadLettered: n[2], Replayed: n[3], Resent: n[4], Retries: n[5]},
		through: audit.Number(n[6]), handed: audit.Number(n[7]),
	}, nil
}
