package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// The stored encoding of an event, version 1. It is canonical: one event has one encoding (fields in key order, integers
// in their shortest form, no maps, no floats). All integers are uvarint or zigzag varint as in encoding/binary.
//
//	version  byte     1
//	flags    byte     bit 0 Known, bit 1 an ID follows; all other bits 0
//	id       16 bytes if bit 1
//	salt     16 bytes
//	time, received    varint, milliseconds since 1970
//	severity byte     severity | severity source << 4
//	outcome  byte
//	marks    uvarint
//	source, product, class   length uvarint, bytes
//	fields   uvarint  count, then for each: key uvarint; for KeyAttribute the name as length and bytes; value as length and bytes
//	raw      length uvarint, bytes; nothing follows
//
// The number is not in it: it is the entry's place in the log. An event without an ID takes it from there.
const (
	codecVersion  = 1
	flagKnown     = 1 << 0
	flagID        = 1 << 1
	fieldCountMax = 1 << 16
)

// ErrEncoding says that bytes are not the encoding of an event.
var ErrEncoding = errors.New("not an encoded event")

// AppendBinary appends the event's stored encoding. The fields must be in canonical order (SortFields).
func (e *Event) AppendBinary(dst []byte) []byte {
	var flags byte
	if e.Known {
		flags |= flagKnown
	}
	if !e.ID.IsZero() {
		flags |= flagID
	}
	dst = append(dst, codecVersion, flags)
	if flags&flagID != 0 {
		dst = append(dst, e.ID[:]...)
	}
	dst = append(dst, e.Salt[:]...)
	dst = binary.AppendVarint(dst, e.Time.UnixMilli())
	dst = binary.AppendVarint(dst, e.Received.UnixMilli())
	dst = append(dst, byte(e.Severity)|byte(e.SeveritySource)<<4, byte(e.Outcome))
	dst = binary.AppendUvarint(dst, uint64(e.Marks))
	dst = appendText(dst, e.Source)
	dst = appendText(dst, e.Product)
	dst = appendText(dst, e.Class)
	dst = binary.AppendUvarint(dst, uint64(len(e.Fields)))
	for i := range e.Fields {
		f := &e.Fields[i]
		dst = binary.AppendUvarint(dst, uint64(f.Key))
		if f.Key == KeyAttribute {
			dst = appendBytes(dst, f.Name)
		}
		dst = appendBytes(dst, f.Value)
	}
	return appendBytes(dst, e.Raw)
}

// EncodedSize returns the length that AppendBinary appends at most.
func (e *Event) EncodedSize() int {
	n := 2 + 16 + 16 + 2*binary.MaxVarintLen64 + 2 + 5*binary.MaxVarintLen64 + len(e.Source) + len(e.Product) + len(e.Class)
	for i := range e.Fields {
		n += 3*binary.MaxVarintLen32 + len(e.Fields[i].Name) + len(e.Fields[i].Value)
	}
	return n + binary.MaxVarintLen64 + len(e.Raw)
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

// Decoder reads stored events. It remembers the strings that come again (sources, products, classes), at most
// internMax of them. Not safe for use by two goroutines at once.
type Decoder struct {
	names map[string]string
}

// internMax bounds what a Decoder remembers: a hostile source can make up classes without end.
const internMax = 8192

// NewDecoder returns a decoder.
func NewDecoder() *Decoder { return &Decoder{names: make(map[string]string)} }

func (d *Decoder) intern(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(d.names) < internMax && len(s) <= 256 {
		d.names[s] = s
	}
	return s
}

// Decode appends the event encoded in b, the entry with the given number of the log, to batch. The event's slices alias
// b. It returns ErrEncoding, wrapped with the reason, if b is not canonical; batch is then as it was.
func (d *Decoder) Decode(batch *Events, b []byte, log LogID, number Number) error {
	ev := batch.Add()
	r := cursor{b: b}
	d.head(ev, &r)
	batch.StartFields(ev)
	r.fields(batch, ev)
	batch.EndFields(ev)
	ev.Raw = r.bytes()
	if r.err == "" && len(r.b) > 0 {
		r.err = "bytes after the end"
	}
	if r.err == "" && !fieldsOrdered(ev.Fields) {
		r.err = "fields out of order"
	}
	if r.err != "" {
		*ev = Event{}
		batch.List = batch.List[:len(batch.List)-1]
		return fmt.Errorf("decode event %d: %w: %s", number, ErrEncoding, r.err)
	}
	ev.Number = number
	if ev.ID.IsZero() {
		ev.ID = PlaceID(log, number)
	}
	return nil
}

func (d *Decoder) head(ev *Event, r *cursor) {
	if version := r.byte(); version != codecVersion {
		r.fail("version is not 1")
		return
	}
	flags := r.byte()
	if flags&^(flagKnown|flagID) != 0 {
		r.fail("unknown flags")
	}
	ev.Known = flags&flagKnown != 0
	if flags&flagID != 0 {
		copy(ev.ID[:], r.take(16))
		if ev.ID.IsZero() {
			r.fail("stored id is zero")
		}
	}
	copy(ev.Salt[:], r.take(16))
	ev.Time = time.UnixMilli(r.varint()).UTC()
	ev.Received = time.UnixMilli(r.varint()).UTC()
	severity := r.byte()
	ev.Severity, ev.SeveritySource = Severity(severity&15), SeveritySource(severity>>4)
	ev.Outcome = Outcome(r.byte())
	if ev.Severity > SeverityCritical || ev.SeveritySource > SeverityFromRule || ev.Outcome > OutcomeFailure {
		r.fail("severity or outcome out of range")
	}
	ev.Marks = Marks(r.uvarint())
	ev.Source = d.intern(r.bytes())
	ev.Product = d.intern(r.bytes())
	ev.Class = d.intern(r.bytes())
}

// cursor reads from b and remembers the first thing that was wrong.
type cursor struct {
	b   []byte
	err string
}

func (r *cursor) fail(why string) {
	if r.err == "" {
		r.err = why
	}
	r.b = nil
}

func (r *cursor) fields(batch *Events, ev *Event) {
	n := r.uvarint()
	if n > fieldCountMax {
		r.fail("too many fields")
	}
	for ; n > 0 && r.err == ""; n-- {
		key := r.uvarint()
		f := Field{Key: FieldKey(key)}
		if key == 0 || key > 1<<16-1 {
			r.fail("field key out of range")
		}
		if f.Key == KeyAttribute {
			f.Name = r.bytes()
		}
		f.Value = r.bytes()
		batch.AddField(ev, f)
	}
}

func (r *cursor) take(n int) []byte {
	if n > len(r.b) {
		r.fail("cut short")
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

func (r *cursor) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (r *cursor) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("bad integer")
		return 0
	}
	if n > 1 && r.b[n-1] == 0 {
		r.fail("integer not in its shortest form")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *cursor) varint() int64 {
	u := r.uvarint()
	v := int64(u >> 1)
	if u&1 != 0 {
		v = ^v
	}
	return v
}

func (r *cursor) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.fail("cut short")
		return nil
	}
	return r.take(int(n))
}
