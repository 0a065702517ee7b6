package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
)

const (
	metaMagic   = "ARQMETA\n"
	metaVersion = 1
)

// makeDirs makes the directories durably.
func (q *Queue) makeDirs() error {
	for _, dir := range []string{q.dir, q.path(cursorDir), q.path(quarantineDir)} {
		if _, err := q.fs.MkdirAll(dir); err != nil {
			return err
		}
		// Also if it was there: who made it may have been killed before the sync.
		if err := q.fs.SyncDir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	// The directory above may be new, too, and with its name everything in it would be gone. Who may not open its parent
	// has not made it.
	err := q.fs.SyncDir(filepath.Dir(filepath.Dir(q.dir)))
	if errors.Is(err, os.ErrPermission) {
		return nil
	}
	return err
}

// found is what is in the queue directory.
type found struct {
	segments []*segment // in order
	strays   []string   // named like segments, but the header names another number
	leftover []string   // files in the making
	ids      []string   // id files
	heads    []string   // segments with a damaged header
	logID    uint32     // of the newest readable header
}

// recover brings the directory into order and sets up all state. See "Recovery" in DESIGN.md. Nothing is changed before
// it is sure that this version may.
func (q *Queue) recover() error {
	logID, metaErr := q.readMeta()
	if metaErr != nil && !errors.Is(metaErr, os.ErrNotExist) && !errors.Is(metaErr, errHead) {
		return metaErr
	}
	have, err := q.look()
	if err != nil {
		return err
	}
	cursors, err := q.lookForCursors()
	if err != nil {
		return err
	}
	if err := q.settleMeta(logID, metaErr, have.logID); err != nil {
		return err
	}
	if err := q.tidy(have); err != nil {
		return err
	}
	q.segments = have.segments
	if err := q.loadCursors(cursors); err != nil {
		return err
	}
	if err := q.loadSeen(have.ids); err != nil {
		return err
	}
	if err := q.recoverNewest(); err != nil {
		return err
	}
	return q.findMissing()
}

// look reads the directory and the header of each segment, and changes nothing.
func (q *Queue) look() (have found, err error) {
	names, err := q.fs.List(q.dir)
	if err != nil {
		return have, err
	}
	for _, name := range names {
		first, ok := parseSegmentName(name)
		_, ids := parseIDsName(name)
		switch {
		case ok:
			if err := q.lookAt(name, first, &have); err != nil {
				return have, err
			}
		case strings.HasSuffix(name, newSuffix):
			have.leftover = append(have.leftover, name)
		case ids:
			if err := q.lookAtIDs(name); err != nil {
				return have, err
			}
			have.ids = append(have.ids, name)
		case name != "LOCK" && name != "meta" && name != reserveName && name != cursorDir && name != quarantineDir:
			q.log.Warn("a file that is not the queue's is left alone", "file", name)
		}
	}
	return have, nil
}

func (q *Queue) lookAt(name string, first uint64, have *found) error {
	f, err := q.fs.OpenFile(q.path(name), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	head := make([]byte, segmentHead)
	n, err := readFull(f, head, 0)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	seg := &segment{name: name, first: first, size: size, disk: size}
	h, err := parseSegmentHeader(head[:n])
	switch {
	case errors.Is(err, errHead):
		have.heads = append(have.heads, name)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case h.first != first:
		have.strays = append(have.strays, name)
		return nil
	default:
		seg.prev, seg.made, seg.salt, seg.salted = h.prev, h.created, saltOf(h.id), true
		seg.id, seg.version, seg.before = h.id, h.version, h.before
		have.logID = h.logID
	}
	if n := len(have.segments); n > 0 {
		have.segments[n-1].end = first
	}
	have.segments = append(have.segments, seg)
	return nil
}

// readMeta returns the log id. The error wraps os.ErrNotExist for a new directory, is errHead for damage, or
// ErrNewerFormat.
func (q *Queue) readMeta() (uint32, error) {
	f, err := q.fs.OpenFile(q.path("meta"), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	b := make([]byte, segmentHead)
	n, err := readFull(f, b, 0)
	if err != nil {
		return 0, fmt.Errorf("meta: %w", err)
	}
	version, err := checkHead(b[:n], metaMagic)
	if err == nil && version > metaVersion {
		err = newerFormat(version, metaVersion)
	}
	return binary.LittleEndian.Uint32(b[12:]), err
}

// settleMeta sets the log id and writes the meta file if it is missing or damaged.
func (q *Queue) settleMeta(logID uint32, metaErr error, spare uint32) error {
	if q.logID = logID; metaErr == nil {
		return nil
	}
	if errors.Is(metaErr, errHead) {
		q.lostMeta()
		if err := q.moveAside("meta"); err != nil {
			return err
		}
	}
	if q.logID = spare; spare == 0 {
		q.logID = newLogID()
	}
	return q.writeMeta()
}

func (q *Queue) lostMeta() {
	q.damaged(Damage{File: "meta", Bytes: segmentHead, Reason: "the meta file is damaged"})
}

func (q *Queue) writeMeta() error {
	b := make([]byte, segmentHead)
	copy(b, metaMagic)
	binary.LittleEndian.PutUint16(b[8:], metaVersion)
	binary.LittleEndian.PutUint32(b[12:], q.logID)
	binary.LittleEndian.PutUint64(b[32:], uint64(q.opt.Now().UnixNano()))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return replaceFile(q.fs, q.path("meta"), func(f File) error { return writeFull(f, b, 0) })
}

// Adopt gives a queue directory that was copied or restored from a backup a new log id, so that a number is not used
// for two entries under one id. The queue must not be open (ErrLocked).
func Adopt(dir string, opt Options) (logID uint32, err error) {
	q, err := Open(dir, opt)
	if err != nil {
		return 0, err
	}
	old := q.logID
	for q.logID == old {
		q.logID = newLogID()
	}
	if err := q.writeMeta(); err != nil {
		return 0, errors.Join(fmt.Errorf("write log id: %w", err), q.Close())
	}
	return q.logID, q.Close()
}

// tidy removes files in the making, which hold nothing acknowledged, moves strays aside and reports damaged headers.
func (q *Queue) tidy(have found) error {
	// Names that are seen may not be durable yet, if the process before died between a rename and its sync.
	if err := q.fs.SyncDir(q.dir); err != nil {
		return err
	}
	for _, name := range have.leftover {
		if err := q.fs.Remove(q.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	q.reportFound(have)
	for _, name := range have.strays {
		if err := q.moveAside(name); err != nil {
			return err
		}
	}
	return nil
}

// reportFound reports files that are not what they should be.
func (q *Queue) reportFound(have found) {
	for _, name := range have.strays {
		q.damaged(Damage{
			File:   name,
			Reason: "the header says another first number than the name: a copy or a renamed file, for quarantine",
		})
	}
	for _, name := range have.heads {
		q.damaged(Damage{File: name, Bytes: segmentHead, Reason: errHead.Error()})
	}
}

// recoverNewest finds the end of the log, the marks, and whether the newest segment can be written to.
func (q *Queue) recoverNewest() error {
	passed := uint64(1)
	for _, c := range q.cursors {
		passed = max(passed, c.next)
	}
	q.next = passed
	if len(q.segments) == 0 {
		if passed > 1 {
			q.damaged(Damage{First: 1, Last: passed - 1, File: segmentName(1), Reason: "all segments are missing"})
		}
		return nil
	}
	seg := q.segments[len(q.segments)-1]
	file, err := q.fs.OpenFile(q.path(seg.name), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer file.Close()
	s, err := q.scan(seg, file, maxNumber+1, &q.marks, q.noteSeen)
	if err != nil {
		return fmt.Errorf("%s: %w", seg.name, err)
	}
	if !s.snapshot {
		if err := q.recoverMarks(seg); err != nil {
			return err
		}
	}
	if !s.readable {
		// It had at least one entry, as far as anybody can tell, so its number must not be used again.
		q.next = max(passed, seg.first+1)
		q.damaged(Damage{First: seg.first, Last: q.next - 1, File: seg.name, Bytes: seg.disk, Reason: "no frame can be read"})
		return nil
	}
	q.next = max(passed, s.at.num)
	tail := seg.disk - s.at.off
	seg.size = s.at.off
	if passed > s.at.num {
		s.intact = false
		q.damaged(Damage{
			First: s.at.num, Last: passed - 1, File: seg.name, Offset: s.at.off, Bytes: tail,
			Reason: "the end of the log is missing: a cursor was past it",
		})
	}
	q.settleTail(seg, file, s, tail)
	return nil
}

// settleTail keeps a copy of what stands behind the last frame and goes on writing in the segment, if nothing speaks
// against it. Otherwise the segment stays as it is; the next append starts another one, which makes the tail void.
func (q *Queue) settleTail(seg *segment, file File, s scanned, tail int64) {
	if tail > 0 {
		q.stats.TornBytes += uint64(tail)
		q.log.Warn("the end of the queue is no frame, it was never acknowledged",
			"segment", seg.name, "offset", s.at.off, "bytes", tail)
		if err := q.keepCopy(file, seg.name, s.at.off, tail); err != nil {
			q.log.Warn("no copy in quarantine, so nothing is cut", "error", err)
			return
		}
	}
	if q.readOnly {
		return
	}
	out, err := q.fs.OpenFile(q.path(seg.name), os.O_RDWR)
	if err == nil {
		if err = q.refresh(out, s); err == nil && s.intact {
			seg.disk = s.at.off
			q.active = &output{seg: seg, file: out, at: s.at, head: s.head}
			return
		}
		_ = out.Close() // everything that counts is synced
	}
	if err != nil {
		q.log.Warn("newest segment cannot be written to, starting another one", "segment", seg.name, "error", err)
	}
}

// refresh cuts the file behind the last frame and writes the last frame once more, as it is. The process before may
// have died between write and sync, or its sync may have failed: then the frame that was read is in memory only, and
// Linux may take it for written. All frames before it were synced.
func (q *Queue) refresh(out File, s scanned) error {
	frame := make([]byte, s.at.off-s.last)
	n, err := readFull(out, frame, s.last)
	if err == nil {
		err = writeFull(out, frame[:n], s.last)
	}
	if err == nil && s.intact {
		err = out.Truncate(s.at.off)
	}
	if err == nil {
		err = out.Sync()
	}
	return err
}

// scanned is what a walk through all frames of a segment found.
type scanned struct {
	at       place // behind the last intact frame
	last     int64 // where that frame begins
	head     int64 // end of the snapshot
	snapshot bool  // it was read whole
	intact   bool  // no damage but, perhaps, a torn end
	readable bool  // the salt is known
}

// scan walks through a segment whose entries are below end, applies the marks and reports damage that has intact frames
// behind it. ids is called with the ids of each frame that has some, which it borrows.
func (q *Queue) scan(seg *segment, file File, end uint64, m *marks, ids func([]byte)) (s scanned, err error) {
	sc := &scanner{file: file, size: seg.disk, salt: seg.salt}
	s = scanned{at: seg.begin(), last: segmentHead, intact: seg.salted, readable: seg.salted}
	if !seg.salted {
		if sc.salt, s.readable, err = sc.findSalt(); err != nil || !s.readable {
			return s, err
		}
	}
	for holes := false; s.at.num < end; {
		h, payload, ok, err := sc.frame(s.at.off)
		if err != nil {
			return s, err
		}
		if !ok || !s.at.accepts(h, end) {
			next, h, found, err := sc.resync(s.at, end)
			if err != nil || !found {
				return s, err
			}
			q.skipped(seg, file, s.at, next, h)
			s.intact, holes = false, true
			next.num = h.first
			s.at = next
			continue
		}
		if h.first > s.at.num {
			q.skipped(seg, file, s.at, s.at, h)
			s.intact, holes = false, true
		}
		m.apply(payload[h.length-h.markBytes:])
		if h.flags&flagSeen != 0 {
			ids(seenSection(h, payload))
		}
		s.last = s.at.off
		s.at = s.at.after(h)
		seg.note(s.at)
		if h.flags&flagSnapshotEnd != 0 {
			s.snapshot, s.head = !holes, s.at.off
		}
	}
	return s, nil
}

// skipped reports the damage between two places and keeps a copy of the bytes.
func (q *Queue) skipped(seg *segment, file File, from, to place, h header) {
	q.damaged(Damage{
		First: from.num, Last: h.first - 1, File: seg.name, Offset: from.off, Bytes: to.off - from.off,
		Reason: "bytes that are no frame between intact ones",
	})
	if err := q.keepCopy(file, seg.name, from.off, to.off-from.off); err != nil {
		q.log.Warn("no copy of the damaged bytes in quarantine", "error", err)
	}
}

// recoverMarks is for a newest segment with a damaged snapshot: it goes back to the last segment whose snapshot is
// whole, and applies the marks of all frames from there on.
func (q *Queue) recoverMarks(newest *segment) error {
	q.marks = marks{values: map[string][]byte{}}
	from, whole := len(q.segments)-1, false
	for !whole && from > 0 {
		from--
		s, err := q.scanAgain(q.segments[from], q.segments[from+1].first, &marks{values: map[string][]byte{}})
		if err != nil {
			return err
		}
		whole = s.snapshot
	}
	for i := from; i < len(q.segments); i++ {
		end := uint64(maxNumber + 1)
		if i+1 < len(q.segments) {
			end = q.segments[i+1].first
		}
		if _, err := q.scanAgain(q.segments[i], end, &q.marks); err != nil {
			return err
		}
	}
	reason := "the marks snapshot is damaged; marks were restored from the segments before"
	if !whole {
		reason = "the marks snapshot is damaged and there is no segment before: marks that were not set again since are lost"
	}
	q.damaged(Damage{File: newest.name, Offset: segmentHead, Reason: reason})
	return nil
}

func (q *Queue) scanAgain(seg *segment, end uint64, m *marks) (scanned, error) {
	file, err := q.fs.OpenFile(q.path(seg.name), os.O_RDONLY)
	if err != nil {
		return scanned{}, err
	}
	s, err := q.scan(seg, file, end, m, func([]byte) {})
	return s, errors.Join(err, file.Close())
}

// findMissing reports numbers between two segments that are in neither, where a cursor still wants them. Only headers
// are compared, unless there is a hole.
func (q *Queue) findMissing() error {
	least, any := q.leastCursorLocked()
	for i := 1; i < len(q.segments); i++ {
		before, seg := q.segments[i-1], q.segments[i]
		if !seg.salted || seg.prev == before.first || any && least >= seg.first || !before.salted {
			continue
		}
		file, err := q.fs.OpenFile(q.path(before.name), os.O_RDONLY)
		if err != nil {
			return err
		}
		sc := &scanner{file: file, size: before.size, salt: before.salt}
		at, err := sc.find(before.begin(), maxNumber, seg.first, func(place) {})
		if err := errors.Join(err, file.Close()); err != nil {
			return err
		}
		q.damaged(Damage{
			First: at.num, Last: seg.first - 1, File: before.name, Offset: at.off, Bytes: max(0, before.size-at.off),
			Reason: "the segment behind it is missing: " + segmentName(seg.prev),
		})
	}
	return nil
}
