package queue

import (
	"errors"
	"os"
	"time"
)

// removeRetry is when a deletion that failed is tried again, if nothing else happens.
const removeRetry = time.Minute

// retain is the goroutine that deletes segments when their time has come.
func (q *Queue) retain() {
	defer q.ended.Done()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-q.retire:
		case <-timer.C:
		case <-q.stop:
			return
		}
		seenErr := q.tendSeen()
		if q.releaseDelivered(false) > 0 {
			signal(q.space)
		}
		wait, ok := q.untilNext()
		if seenErr != nil && (!ok || wait > removeRetry) {
			wait, ok = removeRetry, true
		}
		if ok {
			timer.Reset(wait)
		}
	}
}

// untilNext returns when there is something to do: the oldest segment is due, if all cursors are past it, or ids are.
func (q *Queue) untilNext() (wait time.Duration, ok bool) {
	wait, ok = q.untilDue()
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	if ids, any := q.seen.index.untilNext(q.opt.Now()); any && len(q.seen.parts) > 0 && (!ok || ids < wait) {
		return max(ids, removeRetry), true
	}
	return wait, ok
}

func (q *Queue) untilDue() (time.Duration, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.segments) < 2 || q.segments[0].delivered.IsZero() {
		return 0, false
	}
	wait := q.opt.KeepDelivered - q.opt.Now().Sub(q.segments[0].delivered)
	if wait <= 0 {
		wait = removeRetry // it is due and still there: the deletion failed
	}
	return wait, true
}

// releaseDelivered deletes segments from the front as long as every cursor is past them and, unless space is needed,
// KeepDelivered has passed. Each name is gone durably before the next one goes, so a crash leaves no hole in the
// middle. It returns how many were deleted.
func (q *Queue) releaseDelivered(needSpace bool) (deleted int) {
	q.retainMu.Lock()
	defer q.retainMu.Unlock()
	for {
		seg := q.due(needSpace)
		if seg == nil {
			return deleted
		}
		err := q.letGo(seg, needSpace)
		if err == nil {
			err = q.removeSegment(seg)
		}
		if err != nil {
			q.log.Warn("old segment could not be deleted, trying again later", "segment", seg.name, "error", err)
			return deleted
		}
		q.mu.Lock()
		q.segments = q.segments[1:]
		q.mu.Unlock()
		deleted++
	}
}

// due returns the oldest segment if it may be deleted now, and notes when segments were first seen to be delivered.
func (q *Queue) due(needSpace bool) *segment {
	q.mu.Lock()
	defer q.mu.Unlock()
	least, ok := q.leastCursorLocked()
	if !ok || len(q.segments) < 2 {
		return nil
	}
	now := q.opt.Now()
	for _, seg := range q.segments[:len(q.segments)-1] {
		switch {
		case least < seg.end:
			seg.delivered = time.Time{} // a cursor was set back
		case seg.delivered.IsZero():
			seg.delivered = now
		}
	}
	oldest := q.segments[0]
	if oldest.delivered.IsZero() || !needSpace && now.Sub(oldest.delivered) < q.opt.KeepDelivered {
		return nil
	}
	return oldest
}

// removeSegment unlinks a segment. One that could never be read goes to quarantine instead.
func (q *Queue) removeSegment(seg *segment) error {
	if !seg.unlinked {
		var err error
		if seg.salted {
			err = q.fs.Remove(q.path(seg.name))
		} else {
			err = q.moveAside(seg.name)
		}
		// It may be gone by hand, or by an attempt that was reported as failed.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		seg.unlinked = true
	}
	return q.fs.SyncDir(q.dir)
}
