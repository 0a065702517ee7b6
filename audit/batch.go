package audit

import "sync"

// Sizes of the pieces of memory that batches are made of. Pieces never grow, so what points into one stays valid until
// the batch is released. A piece larger than chunkBytes is made for one record and is not kept for the next batch.
const (
	chunkBytes  = 256 << 10
	chunkFields = 8 << 10
	chunksKept  = 8 // a released batch keeps at most this many pieces of each kind, 2 MiB and 3.5 MiB
)

// Records is a batch of records of one source. It owns the memory its records point to. Whoever gets a batch releases it;
// a batch handed to a function is borrowed by it until it returns. Not safe for use by two goroutines at once.
type Records struct {
	Source    string // the collector's id
	List      []Record
	Positions []Position // how far the source has read once these records are durable

	mem memory
}

// Events is a batch of events. The same rules hold as for Records. The bytes of an event may also point into the Records
// that it was made from, so those are released after it.
type Events struct {
	List []Event

	mem    memory
	fields [][]Field // pieces; the last is being filled
	spare  [][]Field
}

var (
	recordsPool = sync.Pool{New: func() any { return new(Records) }}
	eventsPool  = sync.Pool{New: func() any { return new(Events) }}
)

// GetRecords returns an empty batch for a source.
func GetRecords(source string) *Records {
	b := recordsPool.Get().(*Records)
	b.Source = source
	return b
}

// Release gives the batch and all its memory back. Nothing that points into it may be used afterwards; builds with the
// tag poison overwrite it so that a breach shows.
func (b *Records) Release() {
	b.Reset()
	b.Source = ""
	recordsPool.Put(b)
}

// Reset empties the batch for the next use by the same owner.
func (b *Records) Reset() {
	clear(b.List)
	b.List = b.List[:0]
	clear(b.Positions)
	b.Positions = b.Positions[:0]
	b.mem.reset()
}

// Alloc returns n bytes of the batch's memory, not zeroed.
func (b *Records) Alloc(n int) []byte { return b.mem.alloc(n) }

// Copy copies p into the batch's memory.
func (b *Records) Copy(p []byte) []byte { return append(b.mem.alloc(len(p))[:0], p...) }

// Add appends a record whose Raw is a copy of raw and returns it for filling in. The pointer is valid until the next Add.
func (b *Records) Add(raw []byte) *Record { return b.AddOwned(b.Copy(raw)) }

// AddOwned appends a record whose Raw lies already in the batch's memory.
func (b *Records) AddOwned(raw []byte) *Record {
	b.List = append(b.List, Record{Raw: raw, Offset: -1})
	return &b.List[len(b.List)-1]
}

// Bytes returns how many bytes of memory the batch's records use.
func (b *Records) Bytes() int { return b.mem.used }

// GetEvents returns an empty batch.
func GetEvents() *Events { return eventsPool.Get().(*Events) }

// Release gives the batch and all its memory back; see Records.Release.
func (b *Events) Release() {
	b.Reset()
	eventsPool.Put(b)
}

// Reset empties the batch for the next use by the same owner.
func (b *Events) Reset() {
	clear(b.List)
	b.List = b.List[:0]
	b.mem.reset()
	for _, piece := range b.fields {
		clear(piece)
		if cap(piece) == chunkFields && len(b.spare) < chunksKept {
			b.spare = append(b.spare, piece[:0])
		}
	}
	clear(b.fields)
	b.fields = b.fields[:0]
}

// Add appends an empty event and returns it. The pointer is valid until the next Add.
func (b *Events) Add() *Event {
	if len(b.List) < cap(b.List) {
		b.List = b.List[:len(b.List)+1]
	} else {
		b.List = append(b.List, Event{})
	}
	return &b.List[len(b.List)-1]
}

// Alloc returns n bytes of the batch's memory, not zeroed.
func (b *Events) Alloc(n int) []byte { return b.mem.alloc(n) }

// Copy copies p into the batch's memory.
func (b *Events) Copy(p []byte) []byte { return append(b.mem.alloc(len(p))[:0], p...) }

// StartFields gives ev an empty field list with room in the batch's memory. Append to ev.Fields with AddField, then call
// EndFields before another event's fields are started.
func (b *Events) StartFields(ev *Event) {
	if len(b.fields) == 0 || cap(b.last())-len(b.last()) < 32 {
		b.newFields(chunkFields)
	}
	piece := b.last()
	ev.Fields = piece[len(piece):len(piece):cap(piece)]
}

// AddField appends a field to the list that StartFields began.
func (b *Events) AddField(ev *Event, f Field) {
	if len(ev.Fields) == cap(ev.Fields) {
		old := ev.Fields
		b.newFields(max(chunkFields, 2*len(old)))
		ev.Fields = append(b.last()[:0:cap(b.last())], old...)
	}
	// Member by member: assigning the whole struct goes through a call of the runtime while the collector is marking.
	n := len(ev.Fields)
	ev.Fields = ev.Fields[:n+1]
	dst := &ev.Fields[n]
	dst.Key, dst.Name, dst.Value = f.Key, f.Name, f.Value
}

// EndFields ends the list that StartFields began.
func (b *Events) EndFields(ev *Event) {
	piece := b.last()
	b.fields[len(b.fields)-1] = piece[:len(piece)+len(ev.Fields)]
	ev.Fields = ev.Fields[:len(ev.Fields):len(ev.Fields)]
}

func (b *Events) last() []Field { return b.fields[len(b.fields)-1] }

func (b *Events) newFields(n int) {
	if k := len(b.spare); n == chunkFields && k > 0 {
		b.fields = append(b.fields, b.spare[k-1])
		b.spare = b.spare[:k-1]
		return
	}
	b.fields = append(b.fields, make([]Field, 0, n))
}

// memory hands out bytes from pieces of fixed size.
type memory struct {
	pieces [][]byte // the last is being filled
	spare  [][]byte
	used   int
}

func (m *memory) alloc(n int) []byte {
	m.used += n
	if len(m.pieces) > 0 {
		if p := m.pieces[len(m.pieces)-1]; cap(p)-len(p) >= n {
			m.pieces[len(m.pieces)-1] = p[:len(p)+n]
			return p[len(p) : len(p)+n : len(p)+n]
		}
	}
	if n > chunkBytes/4 {
		return m.allocLarge(n)
	}
	var p []byte
	if k := len(m.spare); k > 0 {
		p, m.spare = m.spare[k-1], m.spare[:k-1]
	} else {
		p = make([]byte, 0, chunkBytes)
	}
	m.pieces = append(m.pieces, p[:n])
	return p[0:n:n]
}

// allocLarge takes a piece of its own for n bytes and keeps the piece that is being filled in its place at the end.
func (m *memory) allocLarge(n int) []byte {
	var p []byte
	switch k := len(m.spare); {
	case n > chunkBytes:
		p = make([]byte, n)
	case k > 0:
		p, m.spare = m.spare[k-1][:n], m.spare[:k-1]
	default:
		p = make([]byte, n, chunkBytes)
	}
	if len(m.pieces) == 0 {
		m.pieces = append(m.pieces, p)
		return p[:n:n]
	}
	last := m.pieces[len(m.pieces)-1]
	m.pieces[len(m.pieces)-1] = p
	m.pieces = append(m.pieces, last)
	return p[:n:n]
}

func (m *memory) reset() {
	for _, p := range m.pieces {
		poison(p)
		if cap(p) == chunkBytes && len(m.spare) < chunksKept {
			m.spare = append(m.spare, p[:0])
		}
	}
	clear(m.pieces)
	m.pieces = m.pieces[:0]
	m.used = 0
}
