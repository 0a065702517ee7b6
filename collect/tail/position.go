package tail

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/auditrelay/auditrelay/audit"
)

// The keys of positions: one byte for what it is about, then the file's id or the pattern's text.
const (
	keyFile    = 'f'
	keyPattern = 'p'
)

const positionVersion = 2

// pathBytesMax is more than PATH_MAX, so that a damaged length is seen.
const pathBytesMax = 1 << 13

// cut says how far a record has come out that comes out in pieces. The zero value: the next byte begins a record.
type cut struct {
	open    bool  // the next byte belongs to a line of which a piece came out
	partial bool  // a piece came out because the line had no end when it had to be taken
	part    int   // how many numbered parts came out; 0 if the pieces are not numbered
	start   int64 // where the record began that the numbered parts belong to
}

// position is what is stored of a file, and all that is needed to go on reading it.
type position struct {
	id fileID

	node        inode
	birth       int64
	mtime       int64 // when it was read last; helps to order files where there is no birth time
	truncations uint32
	head        head
	tail        tail

	offset int64
	rows   int64 // records before the offset; -1 if reading began at the end of the file
	cut    cut
	format audit.Format
	path   string // where its records were written

	header []byte // CSV: the header row of its records, which need not stand in the file; nil if it is too long
	comma  byte   // CSV: with header

	forgiven forgiven
}

// forgiven counts the CSV records that were cut at their first line end because of a quote that stayed open.
type forgiven struct {
	end  int64 // offset up to which they are counted; behind it the count begins anew
	cuts int
}

// appendKey appends the key under which the file's position is stored.
func (id fileID) appendKey(dst []byte) []byte { return append(append(dst, keyFile), id[:]...) }

// append appends the stored form: a version byte, then integers as uvarint and zigzag varint as in encoding/binary, in
// the order below, the hashes at their full length. Version 1 ended with the path.
func (p *position) append(dst []byte) []byte {
	dst = append(dst, positionVersion, byte(p.format), p.cut.flags())
	dst = binary.AppendUvarint(dst, p.node.dev)
	dst = binary.AppendUvarint(dst, p.node.ino)
	dst = binary.AppendVarint(dst, p.birth)
	dst = binary.AppendVarint(dst, p.mtime)
	dst = binary.AppendUvarint(dst, uint64(p.truncations))
	dst = binary.AppendUvarint(dst, uint64(p.head.n))
	dst = append(dst, p.head.sum[:]...)
	dst = binary.AppendUvarint(dst, uint64(p.tail.n))
	dst = append(dst, p.tail.sum[:]...)
	dst = binary.AppendUvarint(dst, uint64(p.offset))
	dst = binary.AppendVarint(dst, p.rows)
	dst = binary.AppendUvarint(dst, uint64(p.cut.part))
	dst = binary.AppendUvarint(dst, uint64(p.cut.start))
	dst = append(binary.AppendUvarint(dst, uint64(len(p.path))), p.path...)
	dst = append(dst, p.comma)
	dst = append(binary.AppendUvarint(dst, uint64(len(p.header))), p.header...)
	dst = binary.AppendUvarint(dst, uint64(p.forgiven.end))
	return binary.AppendUvarint(dst, uint64(p.forgiven.cuts))
}

func (c cut) flags() byte {
	var b byte
	if c.open {
		b |= 1
	}
	if c.partial {
		b |= 2
	}
	return b
}

var errPosition = errors.New("not a position of a file")

// decodePosition reads what append wrote.
func decodePosition(key, value []byte) (*position, error) {
	if len(key) != 1+len(fileID{}) || key[0] != keyFile || len(value) < 3 {
		return nil, errPosition
	}
	if value[0] < 1 || value[0] > positionVersion {
		return nil, fmt.Errorf("position of version %d: it was written by a newer auditrelay, run that one", value[0])
	}
	d := decoder{rest: value[3:]}
	p := &position{
		id:     fileID(key[1:]),
		format: audit.Format(value[1]),
		cut:    cut{open: value[2]&1 != 0, partial: value[2]&2 != 0},
	}
	p.node.dev = d.uint(1<<64 - 1)
	p.node.ino = d.uint(1<<64 - 1)
	p.birth = d.int()
	p.mtime = d.int()
	p.truncations = uint32(d.uint(1<<32 - 1))
	p.head.n = int(d.uint(headBytes))
	copy(p.head.sum[:], d.bytes(len(p.head.sum)))
	p.tail.n = int(d.uint(tailBytes))
	copy(p.tail.sum[:], d.bytes(len(p.tail.sum)))
	p.offset = int64(d.uint(1<<63 - 1))
	p.rows = d.int()
	p.cut.part = int(d.uint(1<<31 - 1))
	p.cut.start = int64(d.uint(1<<63 - 1))
	p.path = string(d.bytes(int(d.uint(pathBytesMax))))
	if value[0] > 1 {
		if b := d.bytes(1); len(b) > 0 {
			p.comma = b[0]
		}
		p.header = bytes.Clone(d.bytes(int(d.uint(headerKeptBytes))))
		if len(p.header) == 0 {
			p.header = nil
		}
		p.forgiven.end = int64(d.uint(1<<63 - 1))
		p.forgiven.cuts = int(d.uint(quotesForgiven))
	}
	if d.bad || len(d.rest) > 0 || p.format > audit.FormatText || value[2] > 3 {
		return nil, errPosition
	}
	return p, nil
}

// decoder takes values from the front of rest; once something was wrong it returns zeros.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) uint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if n <= 0 || v > limit {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.rest)
	if n <= 0 {
		d.bad, d.rest = true, nil
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.rest) {
		d.bad, d.rest = true, nil
		return nil
	}
	p := d.rest[:n]
	d.rest = d.rest[n:]
	return p
}
