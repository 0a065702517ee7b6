package tail

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// block takes the records out of bytes that were read in one go. The records point into them.
type block struct {
	*file
	batch   *audit.Records
	data    []byte
	base    int64  // where data begins in the file
	start   []byte // the file's first bytes, for its id
	now     time.Time
	product string
	max     int  // bytes of the longest record
	zeros   bool // data holds zero bytes
}

// take appends all records that end in the block and returns where the last one ends. full says that it stopped because
// the batch has enough of them.
func (k *block) take() (used int, full bool) {
	k.zeros = bytes.IndexByte(k.data, 0) >= 0
	for used < len(k.data) {
		if len(k.batch.List) >= batchRecords {
			return used, true
		}
		n := k.record(used)
		if n == 0 {
			break
		}
		used += n
	}
	return used, false
}

// quotesForgiven is how many CSV records may be cut at their first line end within one window of the longest record.
// Each one costs a look at the whole window, so behind the last one the lines of the window are taken as they are:
// whatever is in a file, the cost for each byte of it is bounded.
const quotesForgiven = 8

// record appends the record, or the piece of one, that begins at data[at]. It returns how many bytes that was, with the
// line ending; 0 if its end is not there and it may still be short enough. It looks at no more bytes than the longest
// record has.
func (k *block) record(at int) int {
	p := k.data[at:]
	window := p[:min(len(p), k.max+2)]
	lf := bytes.IndexByte(window, '\n')
	end := lf
	if k.origin.Comma != 0 && !k.cut.open && !k.isLiteral(at) {
		end = recordEnd(window, lf, k.origin.Comma)
	}
	if end < 0 && len(trimCR(window)) <= k.max {
		return 0
	}
	if end >= 0 {
		if raw := trimCR(window[:end]); len(raw) <= k.max {
			k.whole(at, raw)
			return end + 1
		}
	}
	if lf >= 0 && end != lf {
		if line := trimCR(window[:lf]); len(line) <= k.max {
			k.forgive(at, k.max)
			return k.cutAtLine(at, line, lf+1)
		}
	}
	n := CutLength(p, k.max)
	k.piece(at, p[:n], true)
	return n
}

// isLiteral reports whether quotes at data[at] are characters like others.
func (k *block) isLiteral(at int) bool {
	return k.forgiven.cuts >= quotesForgiven && k.base+int64(at) < k.forgiven.end
}

// forgive counts that the record at data[at] is cut at its first line end. The first one begins a window of n bytes.
func (k *block) forgive(at, n int) {
	if start := k.base + int64(at); start >= k.forgiven.end {
		k.forgiven = forgiven{end: start + int64(n)}
	}
	k.forgiven.cuts++
}

// whole appends a record that has its end, or the last piece of a line of which others came out.
func (k *block) whole(at int, raw []byte) {
	switch {
	case k.cut.open:
		if len(raw) > 0 {
			k.piece(at, raw, k.cut.part > 0)
		}
		k.cut = cut{}
	case len(raw) == 0 || k.repeats && bytes.Equal(raw, k.origin.Header):
		k.fresh.Blank++
	default:
		k.nextRow()
		rec := k.add(at, raw)
		rec.Key = k.key(k.base+int64(at), 0)
	}
}

// cutAtLine appends the first line of a CSV record that is too long or whose quote stays open. Behind it the quote
// counts as closed.
func (k *block) cutAtLine(at int, line []byte, n int) int {
	k.piece(at, line, true)
	k.cut = cut{}
	return n
}

// piece appends a piece of a record and notes that the next byte belongs to the same line.
func (k *block) piece(at int, raw []byte, numbered bool) {
	if !k.cut.open {
		k.nextRow()
		k.cut.open = true
	}
	start := k.base + int64(at)
	if numbered {
		if k.cut.part == 0 {
			k.cut.start = start
		}
		k.cut.part++
		start = k.cut.start
	}
	rec := k.add(at, raw)
	rec.Part = k.cut.part
	rec.Key = k.key(start, k.cut.part)
	if rec.Part > 0 {
		rec.Marks |= audit.MarkPart
		k.fresh.Parts++
	}
	if k.cut.partial {
		rec.Marks |= audit.MarkPartial
		k.fresh.Partials++
	}
}

// inQuotes reports whether the unfinished record at data[at] goes over more than one line.
func (k *block) inQuotes(at int) bool {
	return k.origin.Comma != 0 && !k.cut.open && bytes.IndexByte(k.data[at:], '\n') >= 0
}

// takeUnfinished appends what there is of the record at data[at], which has waited long enough, and returns its length.
// A carriage return at its end stays unread: it may be half of a line ending.
func (k *block) takeUnfinished(at int) int {
	p := k.data[at:]
	if lf := bytes.IndexByte(p, '\n'); k.inQuotes(at) {
		k.cut.partial = true
		k.forgive(at, len(p))
		return k.cutAtLine(at, trimCR(p[:lf]), lf+1)
	}
	p = trimCR(p)
	if len(p) > 0 {
		k.cut.partial = true
		k.piece(at, p, k.cut.part > 0)
	}
	return len(p)
}

func (k *block) nextRow() {
	if k.rows >= 0 {
		k.rows++
	}
}

// add appends a record of bytes that lie at data[at].
func (k *block) add(at int, raw []byte) *audit.Record {
	if !k.hasID {
		k.draw(k.start[:min(int64(len(k.start)), k.base+int64(at+len(raw)))])
	}
	rec := k.batch.AddOwned(raw[:len(raw):len(raw)])
	rec.Product = k.product
	rec.Received = k.now
	rec.Origin = k.origin
	rec.Offset = k.base + int64(at)
	rec.Row = max(k.rows, 0)
	rec.Marks, k.marks = k.marks, 0
	if k.zeros && bytes.IndexByte(raw, 0) >= 0 {
		rec.Marks |= audit.MarkBinary
	}
	k.fresh.Records++
	k.fresh.Bytes += uint64(len(raw))
	return rec
}

// key returns the record's key in the batch's memory: the file's id, the offset, and the number of a part.
func (k *block) key(start int64, part int) []byte {
	const short = len(fileID{}) + 8
	n := short
	if part > 0 {
		n += 4
	}
	key := k.batch.Alloc(n)
	copy(key, k.id[:])
	binary.BigEndian.PutUint64(key[len(k.id):], uint64(start))
	if part > 0 {
		binary.BigEndian.PutUint32(key[short:], uint32(part))
	}
	return key
}

func trimCR(p []byte) []byte {
	if n := len(p); n > 0 && p[n-1] == '\r' {
		return p[:n-1]
	}
	return p
}
