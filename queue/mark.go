package queue

import (
	"bytes"
	"errors"
	"iter"
	"maps"
)

// Limits of marks. They live in memory and are written again at the head of each segment.
const (
	maxMarkKeyBytes   = 1 << 10
	maxMarkValueBytes = 64 << 10
	maxMarksBytes     = 64 << 20 // all live keys and values
	snapshotBytes     = 256 << 10
)

var errMark = errors.New("a mark is a key of 1 to 1024 bytes and a value of at most 64 KiB, made by AppendMark")

// AppendMark appends a mark for [Queue.Append] to dst: a key of 1 to 1024 bytes and a value of at most 64 KiB. The
// queue keeps the newest value of each key for ever; an empty value removes the key. One element of Append's marks may
// hold several.
func AppendMark(dst, key, value []byte) []byte {
	return appendField(appendField(dst, key), value)
}

// eachMark calls f for each mark; the arguments alias p.
func eachMark(p []byte, f func(key, value []byte)) error {
	for len(p) > 0 {
		key, rest, ok := nextField(p)
		if !ok || len(key) == 0 || len(key) > maxMarkKeyBytes {
			return errMark
		}
		value, rest, ok := nextField(rest)
		if !ok || len(value) > maxMarkValueBytes {
			return errMark
		}
		f(key, value)
		p = rest
	}
	return nil
}

// marks is the newest value of each key. Values are never changed in place.
type marks struct {
	values map[string][]byte
	bytes  int // of live keys and values with their lengths, about
}

// perMark is a rough upper bound for the lengths of one mark in a frame.
const perMark = 6

func (m *marks) set(key, value []byte) {
	if old, ok := m.values[string(key)]; ok {
		m.bytes -= len(key) + len(old) + perMark
	}
	if len(value) == 0 {
		delete(m.values, string(key))
		return
	}
	m.values[string(key)] = bytes.Clone(value)
	m.bytes += len(key) + len(value) + perMark
}

// apply sets all marks of a checked payload.
func (m *marks) apply(p []byte) {
	_ = eachMark(p, m.set) // was checked when it came in, or when its frame was read
}

// snapshotMax is an upper bound for what appendSnapshot adds.
func (m *marks) snapshotMax() int64 {
	return int64(m.bytes) + int64(m.bytes/snapshotBytes+2)*headerBytes
}

// appendSnapshot appends frames with all marks, at least one frame, the last one flagged; first is the number of the
// entry that comes next. It returns the CRC of the last frame.
func (m *marks) appendSnapshot(dst []byte, first uint64, salt uint32) (out []byte, crc uint32) {
	start := len(dst)
	dst = append(dst, make([]byte, headerBytes)...)
	seal := func(flags byte) {
		frame := dst[start:]
		h := header{flags: flags, first: first, markBytes: len(frame) - headerBytes, prev: crc}
		crc = sealFrame(frame, h, salt)
	}
	for key, value := range m.values {
		if len(dst)-start > snapshotBytes {
			seal(flagSnapshot)
			start = len(dst)
			dst = append(dst, make([]byte, headerBytes)...)
		}
		dst = appendField(appendField(dst, []byte(key)), value)
	}
	seal(flagSnapshot | flagSnapshotEnd)
	return dst, crc
}

// Marks yields the newest durable value of each key, in no order, as of the call. Keys and values are copies.
func (q *Queue) Marks() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		q.mu.Lock()
		values := maps.Clone(q.marks.values)
		q.mu.Unlock()
		for key, value := range values {
			if !yield([]byte(key), bytes.Clone(value)) {
				return
			}
		}
	}
}

// Mark returns a copy of the newest durable value of a key.
func (q *Queue) Mark(key []byte) ([]byte, bool) {
	q.mu.Lock()
	value, ok := q.marks.values[string(key)]
	q.mu.Unlock()
	return bytes.Clone(value), ok
}
