package normalize

import (
	"fmt"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Explanation says how one record became an event: what was seen, what was decided and why.
type Explanation struct {
	Product  string       `json:"product"`
	By       string       `json:"product_by"` // why this product
	Format   string       `json:"format"`     // of the record's own text: csv, json, pairs, text
	Facts    []string     `json:"facts,omitempty"`
	Class    string       `json:"class"`
	Known    bool         `json:"known"`
	Entry    string       `json:"entry,omitempty"` // the catalogue's, "*/Play recording"; empty = its rule for all others
	Fields   []FieldTrace `json:"fields,omitempty"`
	Outcome  string       `json:"outcome"`
	Severity []string     `json:"severity"` // the steps, the last one holds
	Time     []string     `json:"time"`     // the steps, and the result in UTC
	Marks    []string     `json:"marks,omitempty"`
}

// FieldTrace is one source field and where it went.
type FieldTrace struct {
	From  string `json:"from"`
	Value string `json:"value"`
	To    string `json:"to"`
}

func (x *Explanation) factf(format string, args ...any) {
	x.Facts = append(x.Facts, fmt.Sprintf(format, args...))
}

func (x *Explanation) timef(format string, args ...any) {
	x.Time = append(x.Time, fmt.Sprintf(format, args...))
}

func (x *Explanation) field(from string, value []byte, to string) {
	x.Fields = append(x.Fields, FieldTrace{From: from, Value: string(value), To: to})
}

// finish fills what is known when the event is done.
func (x *Explanation) finish(s *scratch, ev *audit.Event) {
	x.Product, x.By, x.Format = ev.Product, s.how, s.format
	x.Class, x.Known = ev.Class, ev.Known
	if entry, known := s.n.catalogs.Entry(ev.Product, ev.Class); known {
		x.Entry = entry.Class
	}
	x.Time = append(x.Time, ev.Time.Format(time.RFC3339Nano))
	ev.Marks.Each(func(word string) bool {
		x.Marks = append(x.Marks, word)
		return true
	})
}
