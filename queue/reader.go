package queue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// Defaults of what one Read returns.
const (
	DefaultBatchEntries = 4096
	DefaultBatchBytes   = 256 << 10
)

// Batch is what Read returns: entries with consecutive numbers from First on. It owns the memory behind Entries and
// uses it again at the next Read.
type Batch struct {
	First   uint64
	Entries [][]byte

	buf []byte
}

// grow returns the buffer with n bytes. A buffer that a huge frame left behind is let go.
func (b *Batch) grow(n int) []byte {
	if cap(b.buf) < n || cap(b.buf) > 8*DefaultBatchBytes && n <= DefaultBatchBytes {
		b.buf = make([]byte, n)
	}
	b.buf = b.buf[:n]
	return b.buf
}

// Reader reads the log for one cursor. Read, Rewind and Seek are for one goroutine at a time, Commit and CommitState
// for one at a time; everything else is free.
type Reader struct {
	q *Queue
	c *cursor

	done  chan struct{} // closed by Close
	moved chan struct{} // capacity 1: pos was set

	mu         sync.Mutex // guards what follows; held while reading from disk, not while waiting
	closed     bool
	maxEntries int
	maxBytes   int
	pos        uint64 // the next entry that Read returns
	// The segment that holds pos, or nil after a move. at is the frame that holds pos, or where damage that covers pos
	// begins.
	seg  *segment
	file File
	salt uint32
	at   place
	// loose says that no cursor holds segments back: one that is gone may be deleted, which is no damage.
	loose bool
}

// Reader opens a durable cursor. A new one starts at now (Next). ErrInUse if it is open already.
func (q *Queue) Reader(name string) (*Reader, error) { return q.ReaderFrom(name, false) }

// ReaderFrom is Reader, but a new cursor starts at the oldest entry if oldest is set. The name has 1 to 80 bytes. A
// cursor that cannot be read on disk (both slots damaged) starts at the oldest entry.
func (q *Queue) ReaderFrom(name string, oldest bool) (*Reader, error) {
	if q.readOnly {
		return nil, fmt.Errorf("open cursor %q: %w", name, ErrReadOnly)
	}
	if name == "" || len(name) > maxNameBytes {
		return nil, fmt.Errorf("open cursor %q: the name must have 1 to %d bytes", name, maxNameBytes)
	}
	c, err := q.claim(name, oldest)
	if err == nil {
		err = q.settle(c)
	}
	if err != nil {
		return nil, fmt.Errorf("open cursor %q: %w", name, err)
	}
	r := &Reader{
		q: q, c: c, done: make(chan struct{}), moved: make(chan struct{}, 1),
		maxEntries: DefaultBatchEntries, maxBytes: DefaultBatchBytes,
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		c.open = false
		return nil, ErrClosed
	}
	r.pos = c.next
	q.readers[r] = struct{}{}
	return r, nil
}

// claim marks a cursor as open, and makes one if there is none. From then on it holds back segments.
func (q *Queue) claim(name string, oldest bool) (*cursor, error) {
	q.retainMu.Lock()
	defer q.retainMu.Unlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return nil, ErrClosed
	}
	c, known := q.cursors[name]
	switch {
	case known && c.open:
		return nil, ErrInUse
	case !known:
		c = &cursor{name: name, base: q.path(cursorDir, escapeName(name)), fresh: [2]bool{true, true}, next: q.next}
		if oldest {
			c.next = q.firstLocked()
		}
		c.floor = c.next
		q.cursors[name] = c
	case c.next == 0:
		c.next = q.firstLocked()
	}
	c.open = true
	return c, nil
}

// settle saves the first position of a cursor that is not on disk. If that fails, the cursor stays known and holds back
// segments, because its position may be on disk all the same.
func (q *Queue) settle(c *cursor) error {
	q.mu.Lock()
	placed, start := c.placed, c.next
	q.mu.Unlock()
	if placed {
		return nil
	}
	c.mu.Lock()
	// The second slot exists from the beginning too, so that a commit needs no space.
	err := q.save(c, start, nil)
	if err == nil {
		err = q.save(c, start, nil)
	}
	c.mu.Unlock()
	if err != nil {
		q.mu.Lock()
		c.open = false
		q.mu.Unlock()
	}
	return err
}

// SetLimit sets what one Read returns at most: entries, and about so many bytes (at least one entry). Zero keeps the
// default.
func (r *Reader) SetLimit(entries int, bytes int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.maxEntries, r.maxBytes = DefaultBatchEntries, DefaultBatchBytes
	if entries > 0 {
		r.maxEntries = entries
	}
	if bytes > 0 {
		r.maxBytes = max(bytes, 2*headerBytes)
	}
}

// Read fills b with the next entries and waits until there is at least one. Damaged ranges are reported through
// Options.Damaged and skipped; b never spans one. It returns the context's error, ErrClosed, or an error of the disk,
// after which the same entries are read again by the next call.
func (r *Reader) Read(ctx context.Context, b *Batch) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		wait, err := r.fetch(b)
		if err != nil || wait == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.done:
		case <-r.moved:
		case <-wait:
		}
	}
}

// view is what a reader may look at of one segment.
type view struct {
	seg  *segment
	size int64
	end  uint64
}

// view returns the segment that holds a number, or the one behind a hole, or a channel that is closed when there is
// more.
func (q *Queue) view(pos uint64) (v view, wait <-chan struct{}, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closing {
		return v, nil, ErrClosed
	}
	if pos >= q.next || len(q.segments) == 0 {
		q.listened = true
		if n := len(q.segments); n > 0 {
			v.seg = q.segments[n-1]
		}
		return v, q.changed, nil
	}
	i := len(q.segments) - 1
	for i > 0 && q.segments[i].first > pos {
		i--
	}
	seg := q.segments[i]
	return view{seg: seg, size: seg.size, end: q.endLocked(i)}, nil, nil
}

// fetch fills b, or returns a channel to wait for.
func (r *Reader) fetch(b *Batch) (wait <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	b.First, b.Entries = 0, b.Entries[:0]
	for len(b.Entries) == 0 {
		if r.closed {
			return nil, ErrClosed
		}
		v, wait, err := r.q.view(r.pos)
		if wait != nil && r.seg != v.seg {
			// Whoever waits holds no file of an older segment open: a deleted file that is open keeps its space.
			r.leave()
		}
		if err != nil || wait != nil {
			return wait, err
		}
		if r.pos < v.seg.first {
			if r.loose {
				return nil, errGone
			}
			r.q.damaged(Damage{
				First: r.pos, Last: v.seg.first - 1, File: segmentName(r.pos),
				Reason: "segments are missing before the oldest one",
			})
			r.pos = v.seg.first
		}
		if r.seg != v.seg {
			if err := r.enter(v); err != nil {
				return nil, fmt.Errorf("read segment %s: %w", v.seg.name, err)
			}
			continue
		}
		if err := r.fill(b, v); err != nil {
			b.Entries = b.Entries[:0]
			return nil, fmt.Errorf("read segment %s: %w", v.seg.name, err)
		}
	}
	return nil, nil
}

// enter opens a segment and finds pos in it.
func (r *Reader) enter(v view) error {
	r.leave()
	file, err := r.q.fs.OpenFile(r.q.path(v.seg.name), os.O_RDONLY)
	if errors.Is(err, os.ErrNotExist) {
		if r.loose && r.q.deletes(v.seg) {
			return errGone
		}
		r.q.damaged(Damage{First: r.pos, Last: v.end - 1, File: v.seg.name, Reason: "the segment is missing"})
		r.pos = v.end
		return nil
	}
	if err != nil {
		return err
	}
	sc := &scanner{file: file, size: v.size, salt: v.seg.salt}
	readable := v.seg.salted
	if !readable {
		sc.salt, readable, err = sc.findSalt()
	}
	at := place{off: v.size, num: v.end}
	switch {
	case err != nil:
	case !readable:
		r.q.damaged(Damage{
			First: v.seg.first, Last: v.end - 1, File: v.seg.name, Bytes: v.size, Reason: "no frame can be read",
		})
		r.pos = v.end
	case r.pos == v.seg.first:
		at = v.seg.begin()
	default:
		r.q.mu.Lock()
		from := v.seg.near(r.pos)
		r.q.mu.Unlock()
		at, err = sc.find(from, r.pos, v.end, func(p place) { r.q.note(v.seg, p) })
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	r.seg, r.file, r.salt, r.at = v.seg, file, sc.salt, at
	return nil
}

// note adds a place to the index of a segment.
func (q *Queue) note(seg *segment, p place) {
	q.mu.Lock()
	seg.note(p)
	q.mu.Unlock()
}

// leave closes the segment.
func (r *Reader) leave() {
	if r.file != nil {
		_ = r.file.Close() // it was only read
	}
	r.seg, r.file = nil, nil
}

// fill reads frames from r.at on into b, with one pread. It returns with entries, or after some progress without any.
func (r *Reader) fill(b *Batch, v view) error {
	left := v.size - r.at.off
	buf := b.grow(int(min(left, int64(r.maxBytes))))
	if err := r.load(buf, 0); err != nil {
		return err
	}
	taken := 0 // bytes
	for p := 0; p < len(buf) && r.at.num < v.end; {
		h, ok := parseHeader(buf[p:], r.salt)
		if ok && p == 0 && h.total() > len(buf) && int64(h.total()) <= left {
			// A frame larger than what is read at once.
			have := len(buf)
			buf = slices.Grow(buf, h.total()-have)[:h.total()]
			b.buf = buf
			if err := r.load(buf, have); err != nil {
				return err
			}
		}
		if ok && p+h.total() > len(buf) && p > 0 {
			break // the rest of it comes with the next pread
		}
		good := ok && p+h.total() <= len(buf) && r.at.accepts(h, v.end) && frameCRC(buf[p:p+h.total()], r.salt) == h.crc
		if p > 0 && (!good || h.first > r.at.num) {
			break // damage is looked at when it comes first
		}
		if !good {
			return r.skip(v)
		}
		if h.first > r.at.num {
			r.q.skipped(v.seg, r.file, r.at, r.at, h)
			r.pos = max(r.pos, h.first)
		}
		full, ok := r.take(b, h, buf[p+headerBytes:p+h.total()], &taken)
		if !ok {
			return r.skip(v)
		}
		if full {
			return nil
		}
		r.at = r.at.after(h)
		r.pos = max(r.pos, r.at.num)
		p += h.total()
	}
	if len(buf) == 0 {
		return r.skip(v)
	}
	r.q.note(v.seg, r.at)
	return nil
}

// load reads buf[from:] at r.at. Bytes that the file does not have become zero, which is no frame.
func (r *Reader) load(buf []byte, from int) error {
	n, err := readFull(r.file, buf[from:], r.at.off+int64(from))
	clear(buf[from+n:])
	return err
}

// take appends the entries of a frame from pos on. full says that the limit was reached before the end of the frame,
// which then stays the current one; ok is false if the payload is not what the header says, and then b is as before.
func (r *Reader) take(b *Batch, h header, payload []byte, taken *int) (full, ok bool) {
	before, pos := len(b.Entries), r.pos
	rest := payload[:h.length-h.markBytes]
	for num := h.first; num < h.end(); num++ {
		var entry []byte
		if entry, rest, ok = nextField(rest); !ok {
			b.Entries, r.pos = b.Entries[:before], pos
			return false, false
		}
		if num < r.pos {
			continue
		}
		if len(b.Entries) >= r.maxEntries || *taken >= r.maxBytes {
			return true, true
		}
		if len(b.Entries) == 0 {
			b.First = num
		}
		b.Entries = append(b.Entries, entry)
		*taken += len(entry)
		r.pos = num + 1
	}
	return false, true
}

// skip reports the damage at r.at and goes on behind it.
func (r *Reader) skip(v view) error {
	sc := &scanner{file: r.file, size: v.size, salt: r.salt}
	next, h, found, err := sc.resync(r.at, v.end)
	if err != nil {
		return err
	}
	if found {
		next.num = h.first
		r.q.skipped(v.seg, r.file, r.at, next, h)
	} else {
		next = place{off: max(v.size, r.at.off), num: v.end}
		r.q.damaged(Damage{
			First: r.at.num, Last: v.end - 1, File: v.seg.name, Offset: r.at.off, Bytes: next.off - r.at.off,
			Reason: "the end of the segment is missing or damaged",
		})
		if err := r.q.keepCopy(r.file, v.seg.name, r.at.off, next.off-r.at.off); err != nil {
			r.q.log.Warn("no copy of the damaged bytes in quarantine", "error", err)
		}
	}
	r.at = next
	r.pos = max(r.pos, next.num)
	return nil
}

// Close ends a waiting Read with ErrClosed and lets go of the cursor, which stays on disk. The second call does
// nothing.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	close(r.done)
	r.leave()
	r.mu.Unlock()

	r.c.mu.Lock()
	r.c.closeFiles()
	r.c.mu.Unlock()
	r.q.mu.Lock()
	delete(r.q.readers, r)
	r.c.open = false
	r.q.mu.Unlock()
	return nil
}
