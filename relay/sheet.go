package relay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// SourceSheet is one source's line of the balance sheet, counted in records since the source was first seen, across
// restarts: Accepted = Stored + Duplicate + Filtered + Shed (DESIGN.md section 1).
type SourceSheet struct {
	Accepted  uint64 `json:"accepted"`  // put by the collector
	Stored    uint64 `json:"stored"`    // durable, with a number
	Duplicate uint64 `json:"duplicate"` // known already
	Filtered  uint64 `json:"filtered"`  // dropped by a rule before the queue
	Shed      uint64 `json:"shed"`      // refused below the severity that a full queue takes
}

// Remainder is what the equation leaves over; other than 0 it is an alarm.
func (s SourceSheet) Remainder() int64 {
	return int64(s.Accepted - s.Stored - s.Duplicate - s.Filtered - s.Shed)
}

func (s *SourceSheet) add(o SourceSheet) {
	s.Accepted += o.Accepted
	s.Stored += o.Stored
	s.Duplicate += o.Duplicate
	s.Filtered += o.Filtered
	s.Shed += o.Shed
}

// sheetVersion is the first byte of the stored form: version 1 is the five counts as uvarints.
const sheetVersion = 1

func (s SourceSheet) encode(dst []byte) []byte {
	dst = append(dst, sheetVersion)
	for _, n := range []uint64{s.Accepted, s.Stored, s.Duplicate, s.Filtered, s.Shed} {
		dst = binary.AppendUvarint(dst, n)
	}
	return dst
}

func decodeSourceSheet(b []byte) (s SourceSheet, err error) {
	if len(b) == 0 || b[0] != sheetVersion {
		return s, errors.New("unknown version of a stored balance sheet")
	}
	b = b[1:]
	for _, n := range []*uint64{&s.Accepted, &s.Stored, &s.Duplicate, &s.Filtered, &s.Shed} {
		v, size := binary.Uvarint(b)
		if size <= 0 {
			return s, errors.New("stored balance sheet is cut short")
		}
		*n, b = v, b[size:]
	}
	return s, nil
}

// DestinationSheet is one destination's line, counted in events since its cursor began, across restarts:
// Stored = Delivered + Filtered + DeadLettered + Shed + Damaged + Queued.
type DestinationSheet struct {
	Began        uint64 `json:"began"`  // number of the first event that is its own
	Stored       uint64 `json:"stored"` // events stored since then
	Delivered    uint64 `json:"delivered"`
	Filtered     uint64 `json:"filtered"`
	DeadLettered uint64 `json:"dead_lettered"`
	Shed         uint64 `json:"shed"`
	Damaged      uint64 `json:"damaged"` // lost in damaged ranges of the queue; each is named by an event
	Queued       uint64 `json:"queued"`
	Resent       uint64 `json:"resent"` // sent more than once; in no equation
	State        string `json:"state"`
	Reason       string `json:"reason,omitempty"`
}

// Remainder is what the equation leaves over; other than 0 it is an alarm.
func (d DestinationSheet) Remainder() int64 {
	return int64(d.Stored - d.Delivered - d.Filtered - d.DeadLettered - d.Shed - d.Damaged - d.Queued)
}

// Input is one file or listener of a source, as far as it needs a word.
type Input struct {
	Source string `json:"source"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// Sheet is the whole balance sheet.
type Sheet struct {
	Log          string             `json:"log"` // id of the queue directory
	Sources      []NamedSource      `json:"sources"`
	Destinations []NamedDestination `json:"destinations"`
	Degraded     []Input            `json:"degraded,omitempty"`
	Notices      []Notice           `json:"notices,omitempty"`
}

// NamedSource is a source's line with its id.
type NamedSource struct {
	ID string `json:"id"`
	SourceSheet
}

// NamedDestination is a destination's line with its id.
type NamedDestination struct {
	ID string `json:"id"`
	DestinationSheet
}

// Closes reports whether every equation closes.
func (s *Sheet) Closes() bool {
	for _, src := range s.Sources {
		if src.Remainder() != 0 {
			return false
		}
	}
	for _, d := range s.Destinations {
		if d.Remainder() != 0 {
			return false
		}
	}
	return true
}

// Undelivered returns how many events some destination still has to get, each destination counted for itself.
func (s *Sheet) Undelivered() (n uint64) {
	for _, d := range s.Destinations {
		n += d.Queued
	}
	return n
}

// WriteText writes the sheet as two tables for people, with what is not as it should be.
func (s *Sheet) WriteText(out io.Writer) error {
	if err := s.writeTables(out); err != nil {
		return err
	}
	for _, x := range s.Destinations {
		if x.Reason != "" {
			fmt.Fprintf(out, "destination %s: %s\n", x.ID, x.Reason)
		}
	}
	for _, in := range s.Degraded {
		fmt.Fprintf(out, "source %s, %s: %s: %s\n", in.Source, in.Name, in.State, in.Reason)
	}
	for _, n := range s.Notices {
		if n.Source != "" {
			fmt.Fprintf(out, "source %s, %s: %d %s\n", n.Source, n.Name, n.Count, n.What)
		} else {
			fmt.Fprintf(out, "destination %s: %d %s\n", n.Destination, n.Count, n.What)
		}
	}
	if len(s.Degraded) > 0 {
		fmt.Fprintf(out, "%d inputs were not read as they should be\n", len(s.Degraded))
	}
	return nil
}

func (s *Sheet) writeTables(out io.Writer) error {
	fmt.Fprintf(out, "\nbalance sheet of log %s\n", s.Log)
	w := tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "source\taccepted\t=\tstored\t+\tduplicate\t+\tfiltered\t+\tshed\t\tremainder\t")
	for _, x := range s.Sources {
		fmt.Fprintf(w, "%s\t%d\t=\t%d\t+\t%d\t+\t%d\t+\t%d\t\t%d\t\n",
			x.ID, x.Accepted, x.Stored, x.Duplicate, x.Filtered, x.Shed, x.Remainder())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 1, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\ndestination\tstored\t=\tdelivered\t+\tfiltered\t+\tdead-lettered\t+\tshed\t+\tdamaged\t+\tqueued\t\tremainder\t")
	for _, x := range s.Destinations {
		fmt.Fprintf(w, "%s\t%d\t=\t%d\t+\t%d\t+\t%d\t+\t%d\t+\t%d\t+\t%d\t\t%d\t\n",
			x.ID, x.Stored, x.Delivered, x.Filtered, x.DeadLettered, x.Shed, x.Damaged, x.Queued, x.Remainder())
	}
	return w.Flush()
}
