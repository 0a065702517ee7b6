package queue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
)

// The bytes of a frame are described in DESIGN.md.
const (
	frameMagic   = 0xC5A7 // A7 C5 on disk: neither ASCII nor valid UTF-8, so it is rare inside log text
	frameVersion = 1
	headerBytes  = 36

	flagSnapshot    = 1 // part of the marks snapshot at the head of a segment
	flagSnapshotEnd = 2 // its last part
	flagSeen        = 4 // there are ids between the entries and the marks; not in segments of format 1
	knownFlags      = flagSnapshot | flagSnapshotEnd | flagSeen
)

// Limits. A frame is checked as a whole, so it must fit into memory.
const (
	// MaxEntryBytes is the size of the largest entry that Append takes.
	MaxEntryBytes = 16 << 20
	// MaxAppendBytes is the most that one Append takes, entries and marks with their lengths.
	MaxAppendBytes = 32 << 20
	// maxNumber keeps sums of numbers and counts far away from overflow.
	maxNumber = math.MaxInt64
)

// frameStart is how each frame begins: magic and version. The search for the next frame after damage looks for it.
var frameStart = []byte{frameMagic & 0xff, frameMagic >> 8, frameVersion}

// castagnoli is the polynomial with hardware support; the table is immutable.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a frame header. Its zero value is not valid.
type header struct {
	flags     byte
	length    int // payload bytes
	first     uint64
	count     int
	markBytes int // the last so many bytes of the payload
	prev      uint32
	crc       uint32
}

// total is the size of the whole frame on disk.
func (h header) total() int { return headerBytes + h.length }

// end is the number after the frame's last entry.
func (h header) end() uint64 { return h.first + uint64(h.count) }

// saltOf is what each CRC of a segment starts from.
func saltOf(id uint64) uint32 {
	return crc32.Checksum(binary.LittleEndian.AppendUint64(nil, id), castagnoli)
}

// sealFrame fills in the header in front of the payload in frame[headerBytes:] and returns the frame CRC.
func sealFrame(frame []byte, h header, salt uint32) uint32 {
	binary.LittleEndian.PutUint16(frame, frameMagic)
	frame[2], frame[3] = frameVersion, h.flags
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)-headerBytes))
	binary.LittleEndian.PutUint64(frame[8:], h.first)
	binary.LittleEndian.PutUint32(frame[16:], uint32(h.count))
	binary.LittleEndian.PutUint32(frame[20:], uint32(h.markBytes))
	binary.LittleEndian.PutUint32(frame[24:], h.prev)
	crc := frameCRC(frame, salt)
	binary.LittleEndian.PutUint32(frame[28:], crc)
	binary.LittleEndian.PutUint32(frame[32:], crc32.Update(salt, castagnoli, frame[:32]))
	return crc
}

// frameCRC covers all of the frame but its own place and the header CRC. The payload comes first: if both CRCs began
// with the same bytes, damage in them would make recoverSalt find another salt on which both agree.
func frameCRC(frame []byte, salt uint32) uint32 {
	return crc32.Update(crc32.Update(salt, castagnoli, frame[headerBytes:]), castagnoli, frame[:28])
}

// parseHeader reads a frame header. ok is false unless the header's own CRC and all limits hold; the payload is not
// looked at.
func parseHeader(b []byte, salt uint32) (h header, ok bool) {
	if h, ok = looseHeader(b); !ok {
		return h, false
	}
	return h, binary.LittleEndian.Uint32(b[32:]) == crc32.Update(salt, castagnoli, b[:32])
}

// looseHeader is parseHeader without the CRC, for a segment whose salt is not known.
func looseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerBytes || !bytes.HasPrefix(b, frameStart) || b[3]&^knownFlags != 0 {
		return h, false
	}
	length, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[16:])
	marks := binary.LittleEndian.Uint32(b[20:])
	h = header{
		flags: b[3], first: binary.LittleEndian.Uint64(b[8:]),
		prev: binary.LittleEndian.Uint32(b[24:]), crc: binary.LittleEndian.Uint32(b[28:]),
	}
	// An entry takes at least the byte of its length.
	if length > MaxAppendBytes || marks > length || count > length-marks || h.first == 0 || h.first > maxNumber {
		return h, false
	}
	h.length, h.count, h.markBytes = int(length), int(count), int(marks)
	return h, true
}

// recoverSalt computes the salt from a whole frame: the only one for which the header CRC is right, if the frame CRC
// agrees.
func recoverSalt(frame []byte) (salt uint32, ok bool) {
	salt = unwindCRC(binary.LittleEndian.Uint32(frame[32:]), frame[:32])
	return salt, frameCRC(frame, salt) == binary.LittleEndian.Uint32(frame[28:])
}

// unwindCRC returns the value that crc32.Update(value, castagnoli, p) turns into crc: each step of the table-driven CRC
// can be undone, because the high bytes of the table's entries are all different.
func unwindCRC(crc uint32, p []byte) uint32 {
	var row [256]byte
	for i, v := range castagnoli {
		row[v>>24] = byte(i)
	}
	state := ^crc
	for i := len(p) - 1; i >= 0; i-- {
		at := row[state>>24]
		state = (state^castagnoli[at])<<8 | uint32(at^p[i])
	}
	return ^state
}

var errPayload = errors.New("frame payload does not fit its header")

// nextField cuts one length-prefixed field off p.
func nextField(p []byte) (field, rest []byte, ok bool) {
	n, used := binary.Uvarint(p)
	if used <= 0 || n > uint64(len(p)-used) {
		return nil, nil, false
	}
	end := used + int(n)
	return p[used:end:end], p[end:], true
}

// appendField is the inverse of nextField.
func appendField(dst, field []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(field))), field...)
}

// fieldBytes is what appendField adds.
func fieldBytes(field []byte) int {
	n := 1
	for v := len(field); v >= 0x80; v >>= 7 {
		n++
	}
	return n + len(field)
}

// checkPayload walks through the entries, the ids and the marks of a payload.
func checkPayload(h header, payload []byte) error {
	entries, marks := payload[:h.length-h.markBytes], payload[h.length-h.markBytes:]
	var ok bool
	for range h.count {
		if _, entries, ok = nextField(entries); !ok {
			return errPayload
		}
	}
	if h.flags&flagSeen != 0 {
		if h.count == 0 || len(entries) < seenHead+idBytes || (len(entries)-seenHead)%idBytes != 0 {
			return errPayload
		}
	} else if len(entries) != 0 {
		return errPayload
	}
	return eachMark(marks, func(_, _ []byte) {})
}

// seenSection returns the section of a checked payload with flagSeen: a time, and ids.
func seenSection(h header, payload []byte) []byte {
	rest := payload[:h.length-h.markBytes]
	for range h.count {
		_, rest, _ = nextField(rest)
	}
	return rest
}
