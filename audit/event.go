package audit

import (
	"bytes"
	"cmp"
	"slices"
	"time"
)

// Event is what a record means. Its slices point into the batch that holds it.
type Event struct {
	ID     ID       // from product and Key; zero until it is known = from log id and number
	Number Number   // place in the log; 0 before it is stored
	Salt   [16]byte // random, drawn once at acceptance, stored

	Time, Received         time.Time // UTC, whole milliseconds
	Source, Product, Class string    // Source = the collector's id; Class = "USER/LOGIN", "ADMIN_DELETED"

	Severity       Severity
	SeveritySource SeveritySource
	Outcome        Outcome
	Known          bool // the catalogue lists it
	Marks          Marks
	Fields         []Field // sorted by key, then by name; no key and name twice
	Raw            []byte  // as received, less what redaction masks

	Filtered bool // a drop rule matched: the event gets no number. Not stored.
}

// Field is one field of an event. Values are text: an id is never a number, and a number keeps the digits it came with.
type Field struct {
	Key   FieldKey
	Name  []byte // of an attribute, without the "attributes." in front; empty for all other keys
	Value []byte
}

// Field returns the value of a field of the table, nil if the event has none.
func (e *Event) Field(key FieldKey) []byte {
	for i := range e.Fields {
		if e.Fields[i].Key == key {
			return e.Fields[i].Value
		}
	}
	return nil
}

// Attribute returns the value of one of the vendor's own fields, nil if the event has none of that name.
func (e *Event) Attribute(name string) []byte {
	for i := range e.Fields {
		if e.Fields[i].Key == KeyAttribute && string(e.Fields[i].Name) == name {
			return e.Fields[i].Value
		}
	}
	return nil
}

// SortFields puts the fields in their canonical order. Of two fields with the same key and name the first stays.
func (e *Event) SortFields() {
	if !fieldsOrdered(e.Fields) {
		slices.SortStableFunc(e.Fields, compareFields)
		e.Fields = slices.CompactFunc(e.Fields, func(a, b Field) bool { return compareFields(a, b) == 0 })
	}
}

// fieldsOrdered reports whether the fields stand in strictly rising order.
func fieldsOrdered(fields []Field) bool {
	for i := 1; i < len(fields); i++ {
		if compareFields(fields[i-1], fields[i]) >= 0 {
			return false
		}
	}
	return true
}

func compareFields(a, b Field) int {
	if c := cmp.Compare(a.Key, b.Key); c != 0 {
		return c
	}
	return bytes.Compare(a.Name, b.Name)
}
