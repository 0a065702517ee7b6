package queue

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// DefaultSeenWindow is how long an id is remembered.
	DefaultSeenWindow = 7 * 24 * time.Hour
	// DefaultSeenEntries is how many ids are remembered at most. A full index of this size takes 25 MB.
	DefaultSeenEntries = 1_000_000
	// maxSeenEntries bounds Options.SeenEntries: 3 GB.
	maxSeenEntries = 1 << 27
	// maxReserved bounds the ids that are reserved at one time, by all callers.
	maxReserved = 1 << 20
	// seenHead is the size of the time in front of the ids of a frame.
	seenHead = 8
)

// errIDs is an AppendSeen with ids that belong to no entry.
var errIDs = errors.New("there are more ids than entries")

// seen is the index of ids that were appended lately, and those that are about to be.
type seen struct {
	mu       sync.Mutex // taken after Queue.mu, or alone; guards what follows
	index    seenIndex
	reserved map[[idBytes]byte]struct{}
	changed  chan struct{} // closed and replaced when ids are no longer reserved, if somebody waits for that
	waited   bool          // somebody took changed
	parts    []seenPart    // ids of sealed segments, oldest first
	from     uint64        // sequence number of the newest segment's first id
	youngest int64         // time of the youngest id of the newest segment, or of one before
	lost     uint64        // ids that could not be kept for the next start
}

// seenPart is the ids of one sealed segment.
type seenPart struct {
	first      uint64 // the segment's first number
	segment    uint64 // and its id
	from, past uint64 // sequence numbers in the index
	written    bool   // the file is on disk
}

func newSeen(opt Options) seen {
	return seen{
		index:    newSeenIndex(opt.SeenEntries, opt.SeenWindow),
		reserved: map[[idBytes]byte]struct{}{},
		changed:  make(chan struct{}),
	}
}

// Reserve is for sources that may bring an entry twice. It sets dup[i] to whether ids[i] was appended within
// Options.SeenWindow, or occurs earlier in ids, and reserves the others for the caller, who then calls AppendSeen for
// them, and Release for those that were not appended. An id of zeros is never a duplicate and never reserved. What is a
// duplicate is durable: it may be acknowledged.
//
// If an id is reserved by another call, nothing is reserved until that one is appended or released; the context bounds
// the wait. Errors: the context's, ErrClosed, ErrReadOnly, ErrTooLarge for more than 1,048,576 ids; then nothing is
// reserved and dup means nothing.
func (q *Queue) Reserve(ctx context.Context, ids [][16]byte, dup []bool) error {
	switch {
	case q.readOnly:
		return ErrReadOnly
	case len(ids) != len(dup):
		return fmt.Errorf("reserve ids: there are %d ids and %d places for answers", len(ids), len(dup))
	case len(ids) > maxReserved:
		return fmt.Errorf("%w: %d ids, the limit is %d", ErrTooLarge, len(ids), maxReserved)
	}
	for {
		select {
		case <-q.stop:
			return ErrClosed
		default:
		}
		wait := q.seen.reserve(ids, dup, q.opt.Now())
		if wait == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reserve ids: %w", contextError(ctx))
		case <-q.stop:
		case <-wait:
		}
	}
}

// reserve reserves all that are new, or returns a channel to wait for.
func (s *seen) reserve(ids [][idBytes]byte, dup []bool, now time.Time) (wait <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := len(s.reserved)+len(ids) > maxReserved
	for i := 0; i < len(ids) && !taken; i++ {
		_, taken = s.reserved[ids[i]]
	}
	if taken {
		s.waited = true
		return s.changed
	}
	s.index.expire(now)
	for i := range ids {
		dup[i] = false
		if ids[i] == ([idBytes]byte{}) {
			continue
		}
		_, earlier := s.reserved[ids[i]] // by this call, because no other one has any of them
		if dup[i] = earlier || s.index.has(&ids[i]); !dup[i] {
			s.reserved[ids[i]] = struct{}{}
		}
	}
	return nil
}

// Release gives ids back that the caller has reserved and that were not appended. Ids that are not reserved do not
// matter.
func (q *Queue) Release(ids [][16]byte) {
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	q.seen.free(ids)
}

func (s *seen) free(ids [][idBytes]byte) {
	for i := range ids {
		delete(s.reserved, ids[i])
	}
	if s.waited {
		close(s.changed)
		s.changed, s.waited = make(chan struct{}), false
	}
}

// AppendSeen is Append, and the ids become seen with the same frame: after a crash an id is seen if its entry is in the
// log, and only then. There are at most as many ids as entries; ids of zeros are ignored. They need not be reserved.
// After an error they are still reserved.
func (q *Queue) AppendSeen(
	ctx context.Context, entries [][]byte, marks [][]byte, ids [][16]byte,
) (first uint64, err error) {
	if len(ids) > len(entries) {
		return 0, fmt.Errorf("append: %w: %d and %d", errIDs, len(ids), len(entries))
	}
	for i := range ids {
		if ids[i] != ([idBytes]byte{}) {
			return q.append(ctx, entries, marks, &ids)
		}
	}
	return q.append(ctx, entries, marks, nil)
}

// seenBytes is what the ids of an append take in a frame at most.
func seenBytes(ids *[][idBytes]byte) int {
	if ids == nil {
		return 0
	}
	return seenHead + idBytes*len(*ids)
}

// appendSeen appends the section of a group's ids, if it has any.
func (q *Queue) appendSeen(frame []byte, group []*request) (out []byte, any bool) {
	for _, r := range group {
		if r.ids == nil {
			continue
		}
		if !any {
			any = true
			q.stamp = q.opt.Now()
			frame = binary.LittleEndian.AppendUint64(frame, uint64(q.stamp.UnixNano()))
		}
		for i := range *r.ids {
			if id := &(*r.ids)[i]; *id != ([idBytes]byte{}) {
				frame = append(frame, id[:]...)
			}
		}
	}
	return frame, any
}

// publishSeen makes the ids of a durable frame seen.
func (q *Queue) publishSeen(group []*request) {
	s := &q.seen
	s.mu.Lock()
	defer s.mu.Unlock()
	s.index.expire(q.stamp)
	s.youngest = max(s.youngest, q.stamp.UnixNano())
	for _, r := range group {
		if r.ids == nil {
			continue
		}
		for i := range *r.ids {
			if id := &(*r.ids)[i]; *id != ([idBytes]byte{}) {
				s.index.add(id, q.stamp.UnixNano())
			}
		}
		s.free(*r.ids)
	}
}

// idsBefore is what the header of a segment says of the ids of the one before.
type idsBefore struct {
	count  uint32 // at most: some may be the same
	newest int64  // Unix nanoseconds; no id is younger
}

// newest returns what the next segment's header must say of the newest segment.
func (s *seen) newest() idsBefore {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index.head == s.from {
		return idsBefore{}
	}
	return idsBefore{count: uint32(min(s.index.head-s.from, 1<<32-1)), newest: s.youngest}
}

// seal ends the ids of a segment that takes no more frames.
func (s *seen) seal(seg *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.index.head > s.from {
		s.parts = append(s.parts, seenPart{first: seg.first, segment: seg.id, from: s.from, past: s.index.head})
	}
	s.from = s.index.head
}

// noteSeen takes the ids of a frame of the newest segment, at Open.
func (q *Queue) noteSeen(section []byte) {
	if q.readOnly {
		return
	}
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	q.seen.index.addSection(section)
	q.seen.index.forgotten = 0 // that was before this start
	q.seen.youngest = max(q.seen.youngest, int64(binary.LittleEndian.Uint64(section)))
}
