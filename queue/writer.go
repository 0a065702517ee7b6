package queue

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"time"
)

// spaceRetry is how often the writer looks whether a full disk has space again, when nothing else tells it.
const spaceRetry = 200 * time.Millisecond

// write is the writer goroutine: the only one that appends. It ends when the queue is closed and what was admitted is
// done.
func (q *Queue) write() {
	defer q.ended.Done()
	for {
		group := q.take()
		if len(group) == 0 {
			return
		}
		first, err := q.commit(group)
		if err != nil && noSpace(err) {
			q.putBack(group, err)
			q.freeSpace()
			q.awaitSpace()
			continue
		}
		q.answer(group, first, err)
		q.keepReserve()
	}
}

// freeSpace deletes what is delivered, also the newest segment if that is all of the log.
func (q *Queue) freeSpace() {
	q.settleCursors()
	if q.activeDelivered() {
		err := q.startSegment()
		if err != nil && noSpace(err) && q.giveReserve() {
			err = q.startSegment()
		}
		if err != nil {
			q.log.Debug("no new segment while the queue is full", "error", err)
		}
	}
	if q.releaseDelivered(true) > 0 {
		q.reserveTried = time.Time{}
		q.keepReserve()
		signal(q.space)
	}
}

// settleCursors writes cursors again whose last write failed: until one has worked they hold back all segments, and while
// the queue is full of delivered ones nothing else would move them.
func (q *Queue) settleCursors() {
	q.mu.Lock()
	var unsettled []*cursor
	for _, c := range q.cursors {
		if c.placed && c.floor < c.next {
			unsettled = append(unsettled, c)
		}
	}
	q.mu.Unlock()
	for _, c := range unsettled {
		c.mu.Lock()
		q.mu.Lock()
		next := c.next
		q.mu.Unlock()
		if err := q.save(c, next, c.state); err != nil {
			q.log.Debug("cursor still cannot be written", "error", err)
		}
		c.mu.Unlock()
	}
}

// awaitSpace returns when it is worth trying again.
func (q *Queue) awaitSpace() {
	timer := time.NewTimer(spaceRetry)
	defer timer.Stop()
	select {
	case <-q.space:
	case <-timer.C:
	case <-q.stop:
	}
}

// commit makes a group durable and publishes it, or leaves the log as it was. See "Commit protocol" in DESIGN.md.
func (q *Queue) commit(group []*request) (first uint64, err error) {
	q.mu.Lock()
	failed := q.failed
	q.mu.Unlock()
	if failed != nil {
		return 0, failed
	}
	h := q.encode(group)
	if err := q.makeRoom(int64(len(q.frame)), h.flags); err != nil {
		return 0, err
	}
	if err := q.store(&h); err != nil {
		return 0, err
	}
	q.publish(group, h)
	if h.flags&flagSeen != 0 {
		q.publishSeen(group)
	}
	return h.first, nil
}

// encode builds the payload of a group behind the place for the frame header.
func (q *Queue) encode(group []*request) header {
	if cap(q.frame) > 4*q.opt.GroupBytes {
		q.frame = nil // one large append must not hold its memory for ever
	}
	h := header{first: q.next}
	size := headerBytes
	for _, r := range group {
		size += r.bytes
	}
	frame := slices.Grow(q.frame[:0], size)[:headerBytes]
	for _, r := range group {
		h.count += len(r.entries)
		for _, e := range r.entries {
			frame = appendField(frame, e)
		}
	}
	frame, ids := q.appendSeen(frame, group)
	if ids {
		h.flags |= flagSeen
	}
	entries := len(frame)
	for _, r := range group {
		for _, m := range r.marks {
			frame = append(frame, m...)
		}
	}
	h.length, h.markBytes = len(frame)-headerBytes, len(frame)-entries
	q.frame = frame
	return h
}

// store writes the frame and syncs it. An error means that the frame is not part of the log.
func (q *Queue) store(h *header) error {
	out := q.active
	if err := q.writeFrame(h); err != nil {
		return q.undo(out, err)
	}
	err := q.sync(out.file)
	if err == nil {
		return nil
	}
	// The pages may be lost although a second sync would say "fine": this descriptor is done with. The frame may be on
	// disk or not; the first number of the next segment makes it void.
	q.abandon(fmt.Errorf("sync segment: %w", err))
	if err := q.startSegment(); err != nil {
		return q.stopAfter(err)
	}
	if err := q.writeFrame(h); err != nil {
		return q.stopAfter(q.undo(q.active, err))
	}
	if err := q.sync(q.active.file); err != nil {
		q.abandon(fmt.Errorf("sync segment: %w", err))
		return q.stopAfter(err)
	}
	return nil
}

func (q *Queue) writeFrame(h *header) error {
	out := q.active
	h.prev = out.at.prev
	h.crc = sealFrame(q.frame, *h, out.seg.salt)
	if err := writeFull(out.file, q.frame, out.at.off); err != nil {
		return fmt.Errorf("write segment %s: %w", out.seg.name, err)
	}
	return nil
}

func (q *Queue) sync(f File) error {
	q.mu.Lock()
	q.stats.Syncs++
	q.mu.Unlock()
	return f.Sync()
}

// undo cuts a failed write off again and returns why it failed. If that does not work either, the segment is abandoned
// and another one is started at once, so that what may be left of the write is void before anybody hears of the error.
func (q *Queue) undo(out *output, why error) error {
	err := out.file.Truncate(out.at.off)
	if err == nil {
		err = out.file.Sync()
	}
	if err == nil {
		return why
	}
	q.abandon(fmt.Errorf("cut segment back: %w", err))
	if err := q.startSegment(); err != nil {
		q.log.Warn("no new segment yet, the next append tries again", "error", err)
	}
	return why
}

// abandon ends the active segment at its last good end.
func (q *Queue) abandon(why error) {
	out := q.active
	q.active = nil
	disk, err := out.file.Size()
	if err != nil {
		disk = out.at.off + int64(len(q.frame))
	}
	q.mu.Lock()
	out.seg.disk = disk
	q.mu.Unlock()
	q.log.Error("segment abandoned at its last good end", "segment", out.seg.name, "end", out.at.off, "error", why)
	_ = out.file.Close() // nothing more is expected of it
}

// stopAfter makes the queue refuse everything from now on, because a batch could not be made durable after a failed
// sync. A full disk is not such a reason: the batch waits.
func (q *Queue) stopAfter(err error) error {
	if noSpace(err) {
		return err
	}
	err = fmt.Errorf("%w: %w; check the disk and start again", ErrStopped, err)
	q.log.Error("queue stopped accepting", "error", err)
	q.mu.Lock()
	q.failed = err
	q.mu.Unlock()
	return err
}

// publish shows a durable frame to readers.
func (q *Queue) publish(group []*request, h header) {
	out := q.active
	q.mu.Lock()
	defer q.mu.Unlock()
	out.at = out.at.after(h)
	out.seg.size, out.seg.disk = out.at.off, out.at.off
	q.next = h.end()
	out.seg.note(out.at)
	for _, r := range group {
		for _, m := range r.marks {
			q.marks.apply(m)
		}
		for _, e := range r.entries {
			q.stats.Bytes += uint64(len(e))
		}
	}
	q.stats.Entries += uint64(h.count)
	q.stats.Frames++
	if q.full != nil {
		q.full = nil
		q.log.Info("queue has space again")
	}
	if q.listened {
		close(q.changed)
		q.changed, q.listened = make(chan struct{}), false
	}
}

// headBytes is an upper bound for the head of a segment that is started now. The caller holds mu or is the writer.
func (q *Queue) headBytes() int64 { return segmentHead + q.marks.snapshotMax() }

// makeRoom makes sure that there is an active segment with room for n more bytes under SegmentBytes and MaxBytes, in a
// format that has frames with these flags.
func (q *Queue) makeRoom(n int64, flags byte) error {
	if q.active != nil && flags&flagSeen != 0 && q.active.seg.version < idsSince {
		// A program that knows only the older format would take the frame for damage.
		if err := q.startSegment(); err != nil {
			return err
		}
	}
	if q.active != nil && q.active.at.off > q.active.head &&
		q.active.at.off+n > max(q.opt.SegmentBytes, 2*q.active.head) && q.fits(n) {
		if err := q.startSegment(); err != nil {
			return err
		}
	}
	if !q.fits(n) {
		// What is delivered goes, even before KeepDelivered.
		q.freeSpace()
	}
	if !q.fits(n) {
		return fmt.Errorf("%w (%d bytes): deliver the backlog, or raise the queue's max size", errSpace, q.opt.MaxBytes)
	}
	if q.active == nil {
		return q.startSegment()
	}
	return nil
}

// fits says whether n more bytes, with the head of one more segment kept back, are within MaxBytes.
func (q *Queue) fits(n int64) bool {
	if q.opt.MaxBytes <= 0 {
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.active == nil {
		n += q.headBytes()
	}
	return q.diskLocked()+n+q.headBytes() <= q.opt.MaxBytes
}

// activeDelivered says whether the active segment has entries and all cursors are past them.
func (q *Queue) activeDelivered() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	least, any := q.leastCursorLocked()
	if !any || least < q.next {
		return false
	}
	if q.active == nil { // an attempt to start a segment failed: the last one is delivered, and must not stay for ever
		return len(q.segments) > 0 && q.segments[len(q.segments)-1].first < q.next
	}
	return q.active.at.off > q.active.head
}

// startSegment makes the next segment and makes it the active one. See "A new segment" in DESIGN.md for the order. If
// it fails before the rename the active segment stays what it is.
func (q *Queue) startSegment() (err error) {
	head := segmentHeader{logID: q.logID, id: rand.Uint64(), first: q.next, created: q.opt.Now()}
	seg := &segment{name: segmentName(q.next), first: q.next, made: head.created, salt: saltOf(head.id), salted: true}
	seg.id, seg.version, seg.before = head.id, formatVersion, q.seen.newest()
	q.mu.Lock()
	var before *segment
	if n := len(q.segments); n > 0 {
		before = q.segments[n-1]
		seg.prev = before.first
		if seg.prev == seg.first { // it takes that one's place
			seg.prev, seg.before = before.prev, before.before
		}
	}
	q.mu.Unlock()
	head.prev, head.before = seg.prev, seg.before
	data, crc := q.marks.appendSnapshot(head.append(nil), q.next, seg.salt)
	seg.size, seg.disk = int64(len(data)), int64(len(data))

	path := q.path(seg.name)
	temp := fmt.Sprintf("%s.%016x%s", path, head.id, newSuffix)
	file, err := q.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return fmt.Errorf("create segment: %w", err)
	}
	defer func() {
		if err != nil {
			_ = file.Close()
			_ = q.fs.Remove(temp) // Open removes it otherwise; after the rename it is not there
		}
	}()
	if err := writeFull(file, data, 0); err != nil {
		return fmt.Errorf("write segment head: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync segment head: %w", err)
	}
	// From here on the new name may be on disk, and then frames in the old segment at or past its number are void: it
	// must not take one more, also if the rest fails.
	if q.active != nil {
		_ = q.active.file.Close() // all its frames are synced
		q.active = nil
	}
	if err := q.fs.Rename(temp, path); err != nil {
		return fmt.Errorf("rename segment: %w", err)
	}
	if err := q.fs.SyncDir(q.dir); err != nil {
		return fmt.Errorf("sync queue directory: %w", err)
	}
	q.active = &output{
		seg: seg, file: file, head: seg.size,
		at: place{off: seg.size, num: q.next, prev: crc, chained: true},
	}
	if before != nil {
		q.seen.seal(before)
	}
	q.addSegment(seg)
	signal(q.retire)
	return nil
}

// addSegment puts a new segment at the end of the list, or in the place of one with the same number, which has no
// entries.
func (q *Queue) addSegment(seg *segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.segments); n > 0 {
		last := q.segments[n-1]
		last.end = q.next
		if last.first == seg.first {
			q.segments = q.segments[:n-1]
		}
	}
	q.segments = append(q.segments, seg)
	// Readers that wait at the end of the old segment give up its file, so that deleting it gives its space back.
	if q.listened {
		close(q.changed)
		q.changed, q.listened = make(chan struct{}), false
	}
}
