package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"time"
)

// The bytes of an id file are described in DESIGN.md.
const (
	idsMagic   = "ARQIDS\r\n"
	idsVersion = 1
	idsSuffix  = ".ids"
	// rebuildBytes is how much Open reads of segments at most to make lost id files again.
	rebuildBytes = 256 << 20
)

func idsName(first uint64) string {
	return strings.TrimSuffix(segmentName(first), segmentSuffix) + idsSuffix
}

// parseIDsName returns the first number of the segment that an id file belongs to.
func parseIDsName(name string) (uint64, bool) {
	digits, ok := strings.CutSuffix(name, idsSuffix)
	if !ok {
		return 0, false
	}
	return parseSegmentName(digits + segmentSuffix)
}

// idFile is the content of an id file, or what one made from the segment would have.
type idFile struct {
	first, segment uint64
	newest         int64 // Unix nanoseconds
	count          int
	sections       [][]byte // each like that of a frame: a time and ids
}

func (f *idFile) add(section []byte) {
	f.newest = max(f.newest, int64(binary.LittleEndian.Uint64(section)))
	f.count += (len(section) - seenHead) / idBytes
	f.sections = append(f.sections, section)
}

// head returns the first 64 bytes of the file around a body.
func (f *idFile) head(body []byte) []byte {
	b := make([]byte, segmentHead)
	copy(b, idsMagic)
	binary.LittleEndian.PutUint16(b[8:], idsVersion)
	binary.LittleEndian.PutUint32(b[12:], crc32.Checksum(body, castagnoli))
	binary.LittleEndian.PutUint64(b[16:], f.segment)
	binary.LittleEndian.PutUint64(b[24:], f.first)
	binary.LittleEndian.PutUint64(b[32:], uint64(f.newest))
	binary.LittleEndian.PutUint32(b[40:], uint32(f.count))
	binary.LittleEndian.PutUint32(b[44:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
	return b
}

var errIDFile = errors.New("the id file is damaged")

// parseIDHead returns errIDFile for damage, ErrNewerFormat, or the head with the size and the CRC of the body.
func parseIDHead(b []byte, first uint64) (f idFile, size int64, crc uint32, err error) {
	version, err := checkHead(b, idsMagic)
	if err != nil {
		return f, 0, 0, errIDFile
	}
	if version > idsVersion {
		return f, 0, 0, newerFormat(version, idsVersion)
	}
	f.segment, f.first = binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	f.newest = int64(binary.LittleEndian.Uint64(b[32:]))
	if f.first != first {
		return f, 0, 0, errIDFile
	}
	return f, int64(binary.LittleEndian.Uint32(b[44:])), binary.LittleEndian.Uint32(b[12:]), nil
}

// parseBody fills in the sections from a body with the right CRC.
func (f *idFile) parseBody(body []byte) error {
	for len(body) > 0 {
		if len(body) < seenHead+4 {
			return errIDFile
		}
		count := int64(binary.LittleEndian.Uint32(body[seenHead:]))
		copy(body[4:], body[:seenHead]) // the time moves next to the ids
		if body = body[4:]; count == 0 || count*idBytes > int64(len(body)-seenHead) {
			return errIDFile
		}
		n := seenHead + int(count)*idBytes
		f.add(body[:n:n])
		body = body[n:]
	}
	return nil
}

// lookAtIDs returns ErrNewerFormat if a later version wrote the file. Damage is left to loadSeen.
func (q *Queue) lookAtIDs(name string) error {
	first, _ := parseIDsName(name)
	_, err := q.readIDs(first, func(idFile) bool { return false })
	if errors.Is(err, errIDFile) {
		return nil
	}
	return err
}

// readIDs reads an id file, the body only if it is wanted. errIDFile is damage.
func (q *Queue) readIDs(first uint64, wanted func(idFile) bool) (f idFile, err error) {
	name := idsName(first)
	file, err := q.fs.OpenFile(q.path(name), os.O_RDONLY)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Size()
	if err != nil {
		return f, err
	}
	head := make([]byte, segmentHead)
	n, err := readFull(file, head, 0)
	if err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	f, length, crc, err := parseIDHead(head[:n], first)
	if err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	if !wanted(f) {
		return f, nil
	}
	if size != segmentHead+length {
		return f, fmt.Errorf("%s: %w", name, errIDFile)
	}
	body := make([]byte, length)
	if _, err = readFull(file, body, segmentHead); err != nil {
		return f, fmt.Errorf("%s: %w", name, err)
	}
	if crc32.Checksum(body, castagnoli) != crc {
		return f, fmt.Errorf("%s: %w", name, errIDFile)
	}
	return f, f.parseBody(body)
}

// rebuildIDs collects the ids from the frames of a sealed segment.
func (q *Queue) rebuildIDs(seg *segment) (f idFile, err error) {
	f = idFile{first: seg.first, segment: seg.id}
	file, err := q.fs.OpenFile(q.path(seg.name), os.O_RDONLY)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sc := &scanner{file: file, size: seg.disk, salt: seg.salt}
	if !seg.salted {
		salt, ok, err := sc.findSalt()
		if err != nil || !ok {
			return f, err
		}
		sc.salt = salt
	}
	for at := seg.begin(); at.num < seg.end; {
		h, payload, ok, err := sc.frame(at.off)
		if err != nil {
			return f, err
		}
		if !ok || !at.accepts(h, seg.end) {
			next, h, found, err := sc.resync(at, seg.end)
			if err != nil || !found {
				return f, err
			}
			at = next
			at.num = h.first
			continue
		}
		if h.flags&flagSeen != 0 {
			f.add(bytes.Clone(seenSection(h, payload)))
		}
		at = at.after(h)
	}
	return f, nil
}

// loadSeen fills the index with the ids of all segments but the newest, whose frames recovery reads anyway, and of
// deleted ones. It goes from the newest to the oldest until there are enough.
func (q *Queue) loadSeen(names []string) error {
	l := idLoader{q: q, now: q.opt.Now(), left: q.opt.SeenEntries, readable: q.opt.rebuildBytes, names: names}
	newest := uint64(maxNumber + 1)
	if n := len(q.segments); n > 0 {
		newest = q.segments[n-1].first
	}
	firsts := make([]uint64, 0, len(names)+len(q.segments))
	sealed := map[uint64]int{}
	for i := 0; i+1 < len(q.segments); i++ {
		firsts, sealed[q.segments[i].first] = append(firsts, q.segments[i].first), i
	}
	for _, name := range names {
		first, _ := parseIDsName(name)
		if first >= newest {
			// Its segment was lost at the end of the log, and its numbers are used again.
			q.log.Warn("the ids of a segment that is gone from the end of the queue are dropped", "file", name)
			if err := q.fs.Remove(q.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove id file: %w", err)
			}
			continue
		}
		firsts = append(firsts, first)
	}
	slices.Sort(firsts)
	firsts = slices.Compact(firsts)
	var files []idFile
	for _, first := range slices.Backward(firsts) {
		i, ok := sealed[first]
		if !ok {
			i = -1
		}
		f, err := l.load(first, i)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	for _, f := range slices.Backward(files) {
		part := seenPart{first: f.first, segment: f.segment, from: q.seen.index.head, written: true}
		for _, section := range f.sections {
			q.seen.index.addSection(section)
		}
		if part.past = q.seen.index.head; part.past == part.from {
			part.from, part.past = 0, 0 // nothing of it is wanted: the file goes
		}
		q.seen.youngest = max(q.seen.youngest, f.newest)
		part.written = !slices.Contains(l.remade, f.first)
		if part.past > part.from || slices.Contains(names, idsName(f.first)) {
			q.seen.parts = append(q.seen.parts, part)
		}
	}
	q.seen.from, q.seen.index.forgotten = q.seen.index.head, 0
	return nil
}

// idLoader is one loadSeen on its way.
type idLoader struct {
	q        *Queue
	now      time.Time
	left     int   // ids that still fit into the index
	readable int64 // bytes of segments that may still be read
	names    []string
	remade   []uint64 // first numbers of segments whose ids have no file
}

// load returns the ids of a segment: i is its place in the list, -1 if it is deleted. There are none in the answer if
// they are not wanted any more.
func (l *idLoader) load(first uint64, i int) (f idFile, err error) {
	f.first = first
	recent := func(at int64) bool { return l.left > 0 && l.now.UnixNano()-at < int64(l.q.opt.SeenWindow) }
	var seg *segment
	known := false
	expected := idsBefore{newest: l.now.UnixNano()}
	if i >= 0 {
		next := l.q.segments[i+1]
		seg = l.q.segments[i]
		if known = next.salted && next.prev == first; known {
			expected = next.before
		}
		if known && expected.count == 0 || seg.salted && seg.version < idsSince {
			return f, nil
		}
	}
	err = os.ErrNotExist
	if slices.Contains(l.names, idsName(first)) {
		f, err = l.q.readIDs(first, func(f idFile) bool { return recent(f.newest) })
		if err == nil && seg != nil && seg.salted && f.segment != seg.id {
			err = fmt.Errorf("%w: it is that of another segment", errIDFile)
		}
	}
	switch {
	case err == nil:
		l.left -= f.count
		return f, nil
	case errors.Is(err, errIDFile):
		l.damaged(first, seg, err)
	case !errors.Is(err, os.ErrNotExist):
		return f, err
	}
	f = idFile{first: first}
	if seg == nil || !recent(expected.newest) {
		return f, nil
	}
	if l.readable -= seg.disk; l.readable < 0 {
		l.q.seen.lost += uint64(expected.count)
		l.q.log.Error("ids of a segment are not read at this start, doubles are possible",
			"segment", seg.name, "ids", expected.count)
		return f, nil
	}
	f, err = l.q.rebuildIDs(seg)
	l.left -= f.count
	l.remade = append(l.remade, first)
	return f, err
}

// damaged moves a damaged id file to quarantine.
func (l *idLoader) damaged(first uint64, seg *segment, why error) {
	reason := why.Error() + ": its segment is deleted, doubles of its entries are possible"
	if seg != nil {
		reason = why.Error() + ": it is made again from the segment"
	}
	name := idsName(first)
	l.q.damaged(Damage{File: name, Reason: reason})
	if err := l.q.moveAside(name); err != nil {
		l.q.log.Warn("the damaged id file could not be moved to quarantine", "file", name, "error", err)
	}
}

// tendSeen is keepSeen for the goroutine that does it by itself.
func (q *Queue) tendSeen() error {
	q.retainMu.Lock()
	defer q.retainMu.Unlock()
	err := q.keepSeen()
	if err != nil {
		q.log.Warn("id files could not be brought up to date, trying again later", "error", err)
	}
	return err
}

// keepSeen writes the id files that are missing and removes those whose time is over. The caller holds retainMu.
func (q *Queue) keepSeen() error {
	q.seen.mu.Lock()
	q.seen.index.expire(q.opt.Now())
	parts, tail := slices.Clone(q.seen.parts), q.seen.index.tail
	q.seen.mu.Unlock()
	var errs []error
	for _, p := range parts {
		var err error
		switch {
		case p.past > tail && !p.written:
			err = q.writeIDs(p)
		case p.past <= tail:
			err = q.removeIDs(p)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", idsName(p.first), err))
		}
	}
	return errors.Join(errs...)
}

// writeIDs makes the id file of a sealed segment durable.
func (q *Queue) writeIDs(p seenPart) error {
	f := idFile{first: p.first, segment: p.segment}
	q.seen.mu.Lock()
	body, count, newest := q.seen.index.appendRuns(nil, p.from, p.past)
	q.seen.mu.Unlock()
	f.count, f.newest = count, newest
	err := replaceFile(q.fs, q.path(idsName(p.first)), func(file File) error {
		if err := writeFull(file, f.head(body), 0); err != nil {
			return err
		}
		return writeFull(file, body, segmentHead)
	})
	if err != nil {
		return fmt.Errorf("write id file: %w", err)
	}
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	if i := q.seen.part(p.first); i >= 0 {
		q.seen.parts[i].written = true
	}
	return nil
}

// removeIDs removes the id file of a part of which no id is left. If the name comes back after a crash, Open sees that
// it is not wanted.
func (q *Queue) removeIDs(p seenPart) error {
	if p.written {
		if err := q.fs.Remove(q.path(idsName(p.first))); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove id file: %w", err)
		}
	}
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	if i := q.seen.part(p.first); i >= 0 {
		q.seen.parts = slices.Delete(q.seen.parts, i, i+1)
	}
	return nil
}

// part returns the place of a segment's ids in parts, or -1.
func (s *seen) part(first uint64) int {
	return slices.IndexFunc(s.parts, func(p seenPart) bool { return p.first == first })
}

// letGo makes sure that the ids of a segment that is about to be deleted are on disk without it. If there is no space
// for them, and space is what the deletion is for, they are given up: they are known until the next start.
func (q *Queue) letGo(seg *segment, needSpace bool) error {
	q.seen.mu.Lock()
	i := q.seen.part(seg.first)
	if i < 0 || q.seen.parts[i].written || q.seen.parts[i].past <= q.seen.index.tail {
		q.seen.mu.Unlock()
		return nil
	}
	p := q.seen.parts[i]
	q.seen.mu.Unlock()
	err := q.writeIDs(p)
	if err == nil || !needSpace || !noSpace(err) {
		return err
	}
	q.seen.mu.Lock()
	defer q.seen.mu.Unlock()
	ids := p.past - max(p.from, q.seen.index.tail)
	q.seen.lost += ids
	if i := q.seen.part(seg.first); i >= 0 {
		q.seen.parts = slices.Delete(q.seen.parts, i, i+1)
	}
	q.log.Error("no space for the ids of a segment that must go, doubles are possible after the next start",
		"segment", seg.name, "ids", ids)
	return nil
}
