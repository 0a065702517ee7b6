package queue

import (
	"bytes"
	"fmt"
)

// Commit says that all up to and including upTo are done. It is durable on return. ErrRange if that goes back, or past
// the end of the log. After another error the cursor is where it was, but after a crash it may be at upTo.
func (r *Reader) Commit(upTo uint64) error { return r.commit(upTo, nil, false) }

// CommitState is Commit with up to 4 KiB of the destination's own state, kept in the same atomic write. The state is
// borrowed.
func (r *Reader) CommitState(upTo uint64, state []byte) error { return r.commit(upTo, state, true) }

func (r *Reader) commit(upTo uint64, state []byte, withState bool) error {
	if len(state) > MaxStateBytes {
		return fmt.Errorf("commit %d: %w: state has %d bytes, the limit is %d", upTo, ErrTooLarge, len(state), MaxStateBytes)
	}
	if err := r.saveCommit(upTo, state, withState); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pos <= upTo {
		r.pos = upTo + 1
		r.leave()
		signal(r.moved)
	}
	return nil
}

func (r *Reader) saveCommit(upTo uint64, state []byte, withState bool) error {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.q.mu.Lock()
	done, end := r.c.next, r.q.next
	r.q.mu.Unlock()
	switch {
	case r.isClosed():
		return ErrClosed
	case upTo+1 < done || upTo >= end:
		return fmt.Errorf("commit %d: %w: committed is %d, the last entry is %d", upTo, ErrRange, done-1, end-1)
	case !withState:
		state = r.c.state
	}
	if upTo+1 == done && bytes.Equal(state, r.c.state) {
		return nil
	}
	return r.q.save(r.c, upTo+1, state)
}

func (r *Reader) isClosed() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// State returns a copy of the last durable state.
func (r *Reader) State() []byte {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	return bytes.Clone(r.c.state)
}

// Committed is the last number that is durably done; 0 if there is none.
func (r *Reader) Committed() uint64 {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	return r.c.next - 1
}

// Lag is the number of entries between the cursor and the end of the log.
func (r *Reader) Lag() (entries uint64) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	return r.q.next - r.c.next
}

// Rewind makes the next Read start at a number past Committed, to read again what was sent but not confirmed. It is not
// durable. ErrRange if the number is committed or past the end.
func (r *Reader) Rewind(to uint64) error {
	r.q.mu.Lock()
	done, end := r.c.next, r.q.next
	r.q.mu.Unlock()
	if to < done || to > end {
		return fmt.Errorf("rewind to %d: %w: committed is %d, the last entry is %d", to, ErrRange, done-1, end-1)
	}
	return r.moveTo(to)
}

// Seek sets the cursor, back for a replay or ahead: everything below to is done, the next Read starts there. It is
// durable on return. ErrRange if the number is not on disk (First to Next).
func (r *Reader) Seek(to uint64) error {
	// Nothing is deleted between the check and the moment when the cursor holds it back.
	r.q.retainMu.Lock()
	defer r.q.retainMu.Unlock()
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	if r.isClosed() {
		return ErrClosed
	}
	r.q.mu.Lock()
	first, end := r.q.firstLocked(), r.q.next
	r.q.mu.Unlock()
	if to < first || to > end {
		return fmt.Errorf("seek to %d: %w: the queue has %d to %d", to, ErrRange, first, end)
	}
	if err := r.q.save(r.c, to, r.c.state); err != nil {
		return err
	}
	return r.moveTo(to)
}

func (r *Reader) moveTo(to uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	r.pos = to
	r.leave()
	signal(r.moved)
	return nil
}
