package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// windowBytes is what a scanner reads at once; a larger frame gets a larger window for the time being.
const windowBytes = 256 << 10

// scanner looks at the frames of one segment file, through a window that moves forward. It is what recovery, the search
// for a number and the search behind damage have in common. It is used by one goroutine.
type scanner struct {
	file File
	size int64 // bytes at or past it do not count
	salt uint32
	buf  []byte
	off  int64 // file offset of buf[0]
}

// bytes returns the n bytes at off, fewer at the end. They are valid until the next call.
func (s *scanner) bytes(off int64, n int) ([]byte, error) {
	n = int(max(0, min(int64(n), s.size-off)))
	if off >= s.off && off+int64(n) <= s.off+int64(len(s.buf)) {
		return s.buf[off-s.off:][:n], nil
	}
	want := int(min(int64(max(n, windowBytes)), s.size-off))
	if cap(s.buf) < want {
		s.buf = make([]byte, want)
	}
	s.buf = s.buf[:want]
	got, err := readFull(s.file, s.buf, off)
	s.buf, s.off = s.buf[:got], off
	if err != nil {
		s.buf = s.buf[:0]
		return nil, err
	}
	return s.buf[:min(n, got)], nil
}

// readFull reads at off until p is full or the file ends, which is no error.
func readFull(f File, p []byte, off int64) (int, error) {
	n, err := f.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("read at %d: %w", off, err)
	}
	return n, nil
}

// header returns the frame header at off if it is intact and the frame fits into the file.
func (s *scanner) header(off int64) (h header, ok bool, err error) {
	b, err := s.bytes(off, headerBytes)
	if err != nil {
		return h, false, err
	}
	h, ok = parseHeader(b, s.salt)
	return h, ok && off+int64(h.total()) <= s.size, nil
}

// frame returns the frame at off if all of it is intact. The payload is valid until the next call.
func (s *scanner) frame(off int64) (h header, payload []byte, ok bool, err error) {
	h, ok, err = s.header(off)
	if err != nil || !ok {
		return h, nil, false, err
	}
	b, err := s.bytes(off, h.total())
	if err != nil || len(b) < h.total() || frameCRC(b, s.salt) != h.crc {
		return h, nil, false, err
	}
	payload = b[headerBytes:]
	return h, payload, checkPayload(h, payload) == nil, nil
}

// resync finds the next intact frame behind the damage that begins at p, with entries from p.num on and before end.
func (s *scanner) resync(p place, end uint64) (next place, h header, found bool, err error) {
	p.chained = false
	// An intact header in front of a damaged payload says where the next frame is. It is tried first, because a payload
	// may hold anything.
	if h, ok, err := s.header(p.off); err != nil {
		return p, h, false, err
	} else if ok {
		at := p
		at.off += int64(h.total())
		if h, _, ok, err := s.frame(at.off); err != nil || ok && at.accepts(h, end) {
			return at, h, err == nil, err
		}
	}
	for off := p.off + 1; off+headerBytes <= s.size; {
		window, err := s.bytes(off, windowBytes)
		if err != nil || len(window) == 0 {
			return p, h, false, err
		}
		i := bytes.Index(window, frameStart)
		if i < 0 {
			// The last bytes may be the first ones of a frame.
			off += int64(max(1, len(window)-len(frameStart)+1))
			continue
		}
		at := p
		at.off = off + int64(i)
		if h, _, ok, err := s.frame(at.off); err != nil || ok && at.accepts(h, end) {
			return at, h, err == nil, err
		}
		off = at.off + 1
	}
	return p, h, false, nil
}

// find returns the place of the frame that holds the number want, hopping over headers from a known place on. If damage
// covers the number, it is the place where the damage begins.
func (s *scanner) find(p place, want, end uint64, note func(place)) (place, error) {
	for p.off+headerBytes <= s.size && p.num < end {
		h, ok, err := s.header(p.off)
		if err != nil {
			return p, err
		}
		if !ok || !p.accepts(h, end) {
			next, h, found, err := s.resync(p, end)
			if err != nil || !found || h.first > want {
				return p, err
			}
			next.num = h.first
			p = next
			continue
		}
		if h.end() > want {
			return p, nil
		}
		p = p.after(h)
		note(p)
	}
	return p, nil
}

// findSalt works the salt out from the first frame whose two CRCs agree on one, for a file with a damaged header.
func (s *scanner) findSalt() (salt uint32, ok bool, err error) {
	for off := int64(0); off+headerBytes <= s.size; {
		window, err := s.bytes(off, windowBytes)
		if err != nil || len(window) == 0 {
			return 0, false, err
		}
		i := bytes.Index(window, frameStart)
		if i < 0 {
			off += int64(max(1, len(window)-len(frameStart)+1))
			continue
		}
		off += int64(i)
		b, err := s.bytes(off, headerBytes)
		if err != nil {
			return 0, false, err
		}
		if h, ok := looseHeader(b); ok && off+int64(h.total()) <= s.size {
			if b, err = s.bytes(off, h.total()); err != nil {
				return 0, false, err
			}
			if salt, ok := recoverSalt(b); ok && len(b) == h.total() {
				return salt, true, nil
			}
		}
		off++
	}
	return 0, false, nil
}
