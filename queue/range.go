package queue

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// The states of a segment.
const (
	stateActive    = "active"
	stateSealed    = "sealed"
	stateDelivered = "delivered"
)

// SegmentInfo is what is known of a segment file without reading it.
type SegmentInfo struct {
	File string // name in the queue directory
	// First and Last are the numbers that belong to the segment; Last is less than First if there is none. Numbers that
	// are lost count too.
	First, Last uint64
	Bytes       int64     // size of the file
	Created     time.Time // zero if the header is damaged
	// State is "active" for the newest, which is written to; "delivered" if every cursor is past it and it is only
	// kept for replay; else "sealed".
	State string
}

// Segments returns the segments in order, the oldest first.
func (q *Queue) Segments() []SegmentInfo {
	q.mu.Lock()
	defer q.mu.Unlock()
	least, any := q.leastCursorLocked()
	list := make([]SegmentInfo, 0, len(q.segments))
	for i, seg := range q.segments {
		info := SegmentInfo{
			File: seg.name, First: seg.first, Last: q.endLocked(i) - 1, Bytes: seg.disk, Created: seg.made, State: stateSealed,
		}
		switch {
		case i == len(q.segments)-1:
			info.State = stateActive
		case any && least >= seg.end:
			info.State = stateDelivered
		}
		list = append(list, info)
	}
	return list
}

// errGone: a reader without a cursor looks for a number that was deleted. It never leaves the package.
var errGone = errors.New("entry is deleted")

// Range calls yield for the entries from one number to another, both inclusive, in order. It needs no cursor and holds
// nothing back. The entry is borrowed during the call. It ends with the first error: that of yield as it is, the
// context's, ErrClosed, an error of the disk, or ErrRange if a number is not on disk, also when it is deleted while
// Range is on its way. Numbers that are damaged are left out and reported through Options.Damaged. Memory is bounded by
// the largest group commit; while yield blocks, no lock is held.
func (q *Queue) Range(ctx context.Context, from, to uint64, yield func(number uint64, entry []byte) error) error {
	if from > to {
		return fmt.Errorf("range %d to %d: %w: it ends before it begins", from, to, ErrRange)
	}
	r := &Reader{q: q, pos: from, loose: true, maxEntries: DefaultBatchEntries, maxBytes: DefaultBatchBytes}
	defer r.leave()
	if err := q.inRange(from, to); err != nil {
		return err
	}
	var b Batch
	for r.pos <= to {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait, err := r.fetch(&b)
		switch {
		case errors.Is(err, errGone):
			if err := q.inRange(r.pos, to); err != nil {
				return err
			}
			return fmt.Errorf("range %d to %d: %w: it is being deleted", r.pos, to, ErrRange)
		case err != nil:
			return err
		case wait != nil:
			return nil // the last numbers are damaged
		}
		for i, entry := range b.Entries {
			number := b.First + uint64(i)
			if number > to {
				return nil
			}
			if err := yield(number, entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// inRange returns ErrRange, with what there is, unless both numbers are on disk.
func (q *Queue) inRange(from, to uint64) error {
	q.retainMu.Lock() // a deletion that has begun shows in First only at its end
	defer q.retainMu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	first, end := q.firstLocked(), q.next
	switch {
	case q.closing:
		return ErrClosed
	case first == end:
		return fmt.Errorf("range %d to %d: %w: the queue is empty, the next number is %d", from, to, ErrRange, end)
	case from < first || to >= end:
		return fmt.Errorf("range %d to %d: %w: the queue has %d to %d", from, to, ErrRange, first, end-1)
	}
	return nil
}

// deletes says whether a segment was deleted by the queue, or is half way to it.
func (q *Queue) deletes(seg *segment) bool {
	q.retainMu.Lock()
	defer q.retainMu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	return seg.unlinked || seg.first < q.firstLocked()
}
