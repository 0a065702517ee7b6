package forward

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/auditrelay/auditrelay/audit"
)

// DeadLettersMax is how many bytes of refused events a destination keeps unless told otherwise.
const DeadLettersMax = 100 << 20

// deadLettersFile is the file's name in the destination's directory.
const deadLettersFile = "dead-letters.ndjson"

// ErrDeadLettersFull says that the store of refused events has reached its limit. The destination waits until somebody
// has looked at them and taken them away.
var ErrDeadLettersFull = errors.New("dead letters are full: look at them and move the file away, or raise the limit")

// ErrNoDeadLetters says that a destination refused an event and has nowhere to put it.
var ErrNoDeadLetters = errors.New("the destination has no dead letters")

// DeadLetters keeps the events that one destination refused for good: one JSON object a line in one file.
//
//	time         when it was put aside, RFC 3339 in UTC
//	number, id   of the event
//	reason       the destination's words
//	destination, class, product
//	raw          the record; raw_base64 instead if it is not UTF-8
//	event        the stored encoding of the event, in base64: with it the event can be sent once more
//
// The file may be moved away at any time. Safe for concurrent use.
type DeadLetters struct {
	dir, destination string
	maxBytes         int64

	mu  sync.Mutex // guards the file and buf
	buf bytes.Buffer
}

type deadLetter struct {
	Time        string       `json:"time"`
	Number      audit.Number `json:"number"`
	ID          string       `json:"id"`
	Reason      string       `json:"reason"`
	Destination string       `json:"destination"`
	Class       string       `json:"class,omitempty"`
	Product     string       `json:"product,omitempty"`
	Raw         string       `json:"raw,omitempty"`
	RawBase64   []byte       `json:"raw_base64,omitempty"`
	Event       []byte       `json:"event"`
}

// NewDeadLetters returns the dead letters of a destination in a directory of its own, which is made when the first
// event comes. maxBytes 0 means DeadLettersMax. It opens nothing.
func NewDeadLetters(dir, destination string, maxBytes int64) *DeadLetters {
	if maxBytes <= 0 {
		maxBytes = DeadLettersMax
	}
	return &DeadLetters{dir: dir, destination: destination, maxBytes: maxBytes}
}

// Path returns the name of the file.
func (d *DeadLetters) Path() string { return filepath.Join(d.dir, deadLettersFile) }

// Add puts the named events of a batch aside, all or none. It blocks until they are durable. ErrDeadLettersFull comes
// back if they do not fit. On a nil receiver it returns ErrNoDeadLetters.
func (d *DeadLetters) Add(batch *audit.Events, indexes []int, reason string) error {
	if d == nil {
		return ErrNoDeadLetters
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.encodeLocked(batch, indexes, reason); err != nil {
		return err
	}
	defer d.releaseLocked()
	if err := makeDir(d.dir); err != nil {
		return fmt.Errorf("make the directory of the dead letters: %w", err)
	}
	// Opened each time: events are refused rarely, and the file may have been moved away since.
	file, err := openLines(d.Path(), 0o600)
	if err != nil {
		return fmt.Errorf("open the dead letters: %w", err)
	}
	defer func() { _ = file.file.Close() }() // after the fsync nothing can be lost by it
	before, err := file.length()
	if err != nil {
		return fmt.Errorf("read the length of the dead letters: %w", err)
	}
	if before+int64(d.buf.Len()) > d.maxBytes {
		return fmt.Errorf("%w (%s has %d of at most %d bytes)", ErrDeadLettersFull, d.Path(), before, d.maxBytes)
	}
	if _, err := file.write(d.buf.Bytes(), true); err != nil {
		return fmt.Errorf("write the dead letters: %w", err)
	}
	return nil
}

func (d *DeadLetters) encodeLocked(batch *audit.Events, indexes []int, reason string) error {
	d.buf.Reset()
	enc := json.NewEncoder(&d.buf)
	enc.SetEscapeHTML(false)
	now := time.Now().UTC().Format("2006-01-02T15:04:05.000Z")
	for _, i := range indexes {
		ev := &batch.List[i]
		letter := deadLetter{
			Time: now, Number: ev.Number, ID: ev.ID.String(), Reason: reason, Destination: d.destination,
			Class: ev.Class, Product: ev.Product, Event: ev.AppendBinary(nil),
		}
		if utf8.Valid(ev.Raw) {
			letter.Raw = string(ev.Raw)
		} else {
			letter.RawBase64 = ev.Raw
		}
		if err := enc.Encode(&letter); err != nil {
			return fmt.Errorf("encode the dead letter of event %d: %w", ev.Number, err)
		}
	}
	return nil
}

// releaseLocked gives a large buffer back: refused events are rare.
func (d *DeadLetters) releaseLocked() {
	if d.buf.Cap() > 1<<20 {
		d.buf = bytes.Buffer{}
	}
}
