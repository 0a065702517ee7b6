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
	"sync"
	"time"
)

const (
	cursorDir   = "cursors"
	cursorMagic = "ARQCUR\r\n"
	slotVersion = 1
	slotHead    = 64
	// MaxStateBytes is the room for a destination's own state in a cursor slot.
	MaxStateBytes = 4096
	slotBytes     = slotHead + MaxStateBytes
	// maxNameBytes keeps the escaped file name below the usual limit of 255.
	maxNameBytes = 80
)

// slotSuffixes are the two files of a cursor.
var slotSuffixes = [2]string{".a", ".b"}

// cursor is a durable position and its two slot files. It exists for each cursor on disk, with or without a Reader.
type cursor struct {
	name string
	base string // path without the slot's suffix

	// Guarded by Queue.mu.
	next   uint64 // what the newest synced slot says, or where a new cursor is to begin; 0 if no slot could be read
	floor  uint64 // no slot that may be on disk says less: retention goes by this
	placed bool   // a slot with next is on disk
	open   bool   // a Reader has it

	mu         sync.Mutex // one slot is written at a time; guards what follows; taken before Queue.mu
	generation uint64
	state      []byte
	slot       int     // the one to write next: the other one is the newest good one
	files      [2]File // nil: not open, or not to be trusted after an error
	fresh      [2]bool // the slot gets a new file at the next write
}

// Cursor is the position of a reader.
type Cursor struct {
	Name string
	Next uint64 // the first number that is not done; 0 if the cursor cannot be read until a Reader is opened
	Open bool   // a Reader has it
}

// Cursors returns all cursors on disk, by name. Each of them holds back the deletion of segments.
func (q *Queue) Cursors() ([]Cursor, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, ErrClosed
	}
	list := make([]Cursor, 0, len(q.cursors))
	for _, c := range q.cursors {
		list = append(list, Cursor{Name: c.name, Next: c.next, Open: c.open})
	}
	slices.SortFunc(list, func(a, b Cursor) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// Forget deletes a cursor and with it its claim on the backlog. It returns ErrInUse while a Reader is open, and an
// error that wraps fs.ErrNotExist if there is no such cursor. After another error the cursor may be back at the next
// start.
func (q *Queue) Forget(name string) error {
	if q.readOnly {
		return fmt.Errorf("forget cursor %q: %w", name, ErrReadOnly)
	}
	q.mu.Lock()
	c, ok := q.cursors[name]
	switch {
	case q.closing:
		q.mu.Unlock()
		return ErrClosed
	case !ok:
		q.mu.Unlock()
		return fmt.Errorf("forget cursor %q: %w", name, os.ErrNotExist)
	case c.open:
		q.mu.Unlock()
		return fmt.Errorf("forget cursor %q: %w", name, ErrInUse)
	}
	c.open = true // nobody opens it while it goes
	q.mu.Unlock()

	c.mu.Lock()
	c.closeFiles()
	// The older slot first: if this stops half way, the newer position is what is left.
	var err error
	for _, i := range []int{c.slot, 1 - c.slot} {
		if e := q.fs.Remove(c.base + slotSuffixes[i]); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
			break
		}
	}
	if err == nil {
		err = q.fs.SyncDir(q.path(cursorDir))
	}
	c.mu.Unlock()

	q.mu.Lock()
	defer q.mu.Unlock()
	c.open = false
	if err != nil {
		c.fresh = [2]bool{true, true}
		return fmt.Errorf("forget cursor %q: %w", name, err)
	}
	delete(q.cursors, name)
	signal(q.retire)
	return nil
}

// leastCursorLocked is the lowest number that a cursor may still want; ok is false if there is no cursor.
func (q *Queue) leastCursorLocked() (least uint64, ok bool) {
	for _, c := range q.cursors {
		if !ok || c.floor < least {
			least, ok = c.floor, true
		}
	}
	return least, ok
}

// save writes the next slot durably. If it fails, the cursor on disk is where it was, or where it was to go: both are
// true positions. The caller holds c.mu.
func (q *Queue) save(c *cursor, next uint64, state []byte) error {
	// A failed attempt may be on disk all the same, so its generation is not used again.
	c.generation++
	q.mu.Lock()
	c.floor = min(c.floor, next) // it may be on disk even if this fails
	q.mu.Unlock()
	data := appendSlot(nil, c.generation, next, state, q.opt.Now())
	if err := q.writeSlot(c, data); err != nil {
		if f := c.files[c.slot]; f != nil {
			_ = f.Close() // its pages cannot be trusted any more
			c.files[c.slot] = nil
		}
		c.fresh[c.slot] = true
		return fmt.Errorf("write cursor %q: %w", c.name, err)
	}
	c.slot = 1 - c.slot
	c.state = append(c.state[:0:0], state...)
	q.mu.Lock()
	c.next, c.floor, c.placed = next, next, true
	passed := len(q.segments) > 1 && next >= q.segments[0].end
	full := q.full != nil
	q.mu.Unlock()
	if passed {
		signal(q.retire)
	}
	if full {
		signal(q.space)
	}
	return nil
}

// writeSlot writes in place, or into a new file if the slot has none that can be trusted.
func (q *Queue) writeSlot(c *cursor, data []byte) error {
	path := c.base + slotSuffixes[c.slot]
	if c.fresh[c.slot] {
		if err := replaceFile(q.fs, path, func(f File) error { return writeFull(f, data, 0) }); err != nil {
			return err
		}
		c.fresh[c.slot] = false
		return nil
	}
	if c.files[c.slot] == nil {
		f, err := q.fs.OpenFile(path, os.O_RDWR)
		if err != nil {
			return err
		}
		c.files[c.slot] = f
	}
	f := c.files[c.slot]
	// The room behind the state stays as it is on disk.
	used := slotHead + int(binary.LittleEndian.Uint16(data[10:]))
	if err := writeFull(f, data[:used], 0); err != nil {
		return err
	}
	return f.Sync()
}

// closeFiles closes the slots. The caller holds c.mu.
func (c *cursor) closeFiles() {
	for i, f := range c.files {
		if f != nil {
			_ = f.Close() // every commit that was answered is synced
			c.files[i] = nil
		}
	}
}

// slot is the content of a slot file.
type slot struct {
	generation, next uint64
	state            []byte
}

func appendSlot(dst []byte, generation, next uint64, state []byte, now time.Time) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, slotBytes)...)
	b := dst[start:]
	copy(b, cursorMagic)
	binary.LittleEndian.PutUint16(b[8:], slotVersion)
	binary.LittleEndian.PutUint16(b[10:], uint16(len(state)))
	binary.LittleEndian.PutUint64(b[12:], generation)
	binary.LittleEndian.PutUint64(b[20:], next)
	binary.LittleEndian.PutUint64(b[28:], uint64(now.UnixNano()))
	copy(b[slotHead:], state)
	binary.LittleEndian.PutUint32(b[60:], slotCRC(b, len(state)))
	return dst
}

func slotCRC(b []byte, state int) uint32 {
	return crc32.Update(crc32.Checksum(b[:60], castagnoli), castagnoli, b[slotHead:slotHead+state])
}

// parseSlot returns ok = false for damage, and ErrNewerFormat.
func parseSlot(b []byte) (s slot, ok bool, err error) {
	if len(b) < slotHead || !bytes.HasPrefix(b, []byte(cursorMagic)) {
		return s, false, nil
	}
	state := int(binary.LittleEndian.Uint16(b[10:]))
	if state > MaxStateBytes || len(b) < slotHead+state || binary.LittleEndian.Uint32(b[60:]) != slotCRC(b, state) {
		return s, false, nil
	}
	if v := binary.LittleEndian.Uint16(b[8:]); v > slotVersion {
		return s, false, newerFormat(v, slotVersion)
	}
	s.generation, s.next = binary.LittleEndian.Uint64(b[12:]), binary.LittleEndian.Uint64(b[20:])
	s.state = bytes.Clone(b[slotHead:][:state])
	return s, s.next > 0 && s.next <= maxNumber, nil
}

// escapeName makes a file name of a cursor's name: unambiguous, and never with a dot or a slash in it.
func escapeName(name string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}

// unescapeName is the inverse of escapeName; ok is false for what escapeName does not make.
func unescapeName(file string) (name string, ok bool) {
	b := make([]byte, 0, len(file))
	for i := 0; i < len(file); i++ {
		if file[i] != '%' {
			b = append(b, file[i])
			continue
		}
		var c byte
		if _, err := fmt.Sscanf(file[i:min(i+3, len(file))], "%%%02X", &c); err != nil {
			return "", false
		}
		b = append(b, c)
		i += 2
	}
	name = string(b)
	return name, name != "" && len(name) <= maxNameBytes && escapeName(name) == file
}

// lookForCursors reads all cursors and changes nothing. Damage is left to loadCursors.
func (q *Queue) lookForCursors() (list []*cursor, err error) {
	names, err := q.fs.List(q.path(cursorDir))
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, file := range names {
		base, isSlot := strings.CutSuffix(file, slotSuffixes[0])
		if !isSlot {
			base, isSlot = strings.CutSuffix(file, slotSuffixes[1])
		}
		name, ok := unescapeName(base)
		if !isSlot || !ok {
			if !strings.HasSuffix(file, newSuffix) {
				q.log.Warn("a file that is not the queue's is left alone", "file", cursorDir+"/"+file)
			}
			continue
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		c, err := q.lookAtCursor(name)
		if err != nil {
			return nil, fmt.Errorf("cursor %q: %w", name, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// lookAtCursor takes the newer valid slot of a cursor.
func (q *Queue) lookAtCursor(name string) (*cursor, error) {
	c := &cursor{name: name, base: q.path(cursorDir, escapeName(name))}
	for i, suffix := range slotSuffixes {
		data, err := q.readSlot(c.base + suffix)
		if err != nil {
			return nil, err
		}
		s, ok, err := parseSlot(data)
		if err != nil {
			return nil, err
		}
		// A short or missing file is made anew, so that it has all of its room.
		c.fresh[i] = len(data) < slotBytes
		if ok && s.generation >= c.generation {
			c.generation, c.next, c.state, c.slot = s.generation, s.next, s.state, 1-i
			c.placed = true
		}
	}
	return c, nil
}

// readSlot returns the bytes of a slot file, none if it does not exist.
func (q *Queue) readSlot(path string) ([]byte, error) {
	f, err := q.fs.OpenFile(path, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, slotBytes)
	n, err := readFull(f, data, 0)
	return data[:n], err
}

// loadCursors takes over what lookForCursors found, removes files in the making and keeps copies of cursors that cannot
// be read.
func (q *Queue) loadCursors(list []*cursor) error {
	// Names that are seen may not be durable yet, if the process before died between a rename and its sync.
	if err := q.fs.SyncDir(q.path(cursorDir)); err != nil {
		return err
	}
	names, err := q.fs.List(q.path(cursorDir))
	if err != nil {
		return err
	}
	for _, file := range names {
		if strings.HasSuffix(file, newSuffix) {
			if err := q.fs.Remove(q.path(cursorDir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	for _, c := range list {
		q.cursors[c.name] = c
		if c.placed {
			// What was read may be in memory only, after a kill before the sync or after a sync that failed. The other
			// slot makes it durable; until that works, retention is held back.
			if err := q.save(c, c.next, c.state); err != nil {
				q.log.Warn("cursor could not be written again, nothing is deleted until it moves", "error", err)
			}
			c.closeFiles()
			continue
		}
		q.lostCursor(c)
		c.fresh = [2]bool{true, true}
		for _, suffix := range slotSuffixes {
			if err := q.keepSlot(c, suffix); err != nil {
				q.log.Warn("no copy of the damaged cursor in quarantine", "cursor", c.name, "error", err)
			}
		}
	}
	return nil
}

func (q *Queue) lostCursor(c *cursor) {
	q.damaged(Damage{
		File: cursorDir + "/" + escapeName(c.name), Bytes: slotBytes,
		Reason: "both slots of the cursor are damaged: it starts at the oldest entry",
	})
}

func (q *Queue) keepSlot(c *cursor, suffix string) error {
	f, err := q.fs.OpenFile(c.base+suffix, os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil {
		err = q.keepCopy(f, escapeName(c.name)+suffix, 0, size)
	}
	return errors.Join(err, f.Close())
}
