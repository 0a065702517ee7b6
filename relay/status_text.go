package relay

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the status for people: health, queue, the balance sheet, what is not well. What came from outside is
// escaped for a terminal.
func (s *Status) WriteText(out io.Writer) error {
	fmt.Fprintf(out, "auditrelay %s, relay %s, running since %s (%s)\n", s.Version, s.Relay,
		s.Started.Format(time.RFC3339), time.Duration(s.UptimeS*float64(time.Second)).Round(time.Second))
	fmt.Fprintf(out, "health: %s\n", s.Health.Level)
	for _, reason := range s.Health.Reasons {
		fmt.Fprintf(out, "  %s: %s\n", reason.Level, printable([]byte(reason.Text)))
	}
	q := &s.Queue
	fmt.Fprintf(out, "queue: events %d to %d, %d segments, %s on disk, %s of %s not delivered",
		q.First, q.Next-1, q.Segments, sizeText(q.DiskBytes), sizeText(q.BacklogBytes), sizeText(q.MaxBytes))
	if q.Waiting > 0 {
		fmt.Fprintf(out, ", %d appends wait", q.Waiting)
	}
	fmt.Fprintln(out)
	if err := s.Sheet.writeTables(out); err != nil {
		return err
	}
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "destination\ttype\tformat\tstate\tsince\tlag\tretries\tresent\treplayed")
	for i := range s.Destinations {
		d := &s.Destinations[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t%d\n", d.ID, d.Type, d.Format, d.State,
			d.Since.Format(time.RFC3339), d.Lag, d.Retries, d.Resent, d.Replayed)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for i := range s.Destinations {
		s.Destinations[i].writeNotes(out)
	}
	for i := range s.Sources {
		s.Sources[i].writeNotes(out)
	}
	return nil
}

func (d *DestinationStatus) writeNotes(out io.Writer) {
	if d.LastError != "" && d.LastErrorAt != nil {
		fmt.Fprintf(out, "destination %s, last error at %s: %s\n", d.ID, d.LastErrorAt.Format(time.RFC3339), printable([]byte(d.LastError)))
	}
	if p := d.Replaying; p != nil {
		fmt.Fprintf(out, "destination %s, replay: %s\n", d.ID, p)
	}
}

func (s *SourceStatus) writeNotes(out io.Writer) {
	if s.Failure != "" {
		fmt.Fprintf(out, "source %s does not run: %s\n", s.ID, printable([]byte(s.Failure)))
	}
	for _, in := range s.Inputs {
		if in.State != "ok" {
			fmt.Fprintf(out, "source %s, %s: %s", s.ID, printable([]byte(in.Name)), in.State)
			if in.Reason != "" {
				fmt.Fprintf(out, ": %s", printable([]byte(in.Reason)))
			}
			fmt.Fprintln(out)
		}
	}
}

// String says in words how far a replay is.
func (p *Progress) String() string {
	if p.Last == 0 {
		return p.State
	}
	text := fmt.Sprintf("event %d of %d..%d, %d sent, %s", p.Through, p.First, p.Last, p.Delivered, p.State)
	if p.Error != "" {
		text += ": " + printable([]byte(p.Error))
	}
	return text
}

// WriteText writes the list as tables.
func (l *QueueList) WriteText(out io.Writer) error {
	fmt.Fprintf(out, "log %s, events %d to %d, %s on disk\n\n", l.Log, l.First, l.Next-1, sizeText(l.DiskBytes))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "segment\tfirst\tlast\tsize\tcreated\tstate")
	for _, s := range l.Segments {
		last := fmt.Sprint(s.Last)
		if s.Last < s.First {
			last = "-"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", s.File, s.First, last, sizeText(s.Bytes), s.Created.Format(time.RFC3339), s.State)
	}
	fmt.Fprintln(w, "\ncursor\tnext\tlag\t")
	for _, c := range l.Cursors {
		var notes []string
		if c.Open {
			notes = append(notes, "in use")
		}
		if !c.Configured {
			notes = append(notes, "no destination has this id: its backlog is kept until queue forget "+c.Name)
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", printable([]byte(c.Name)), c.Next, c.Lag, strings.Join(notes, "; "))
	}
	return w.Flush()
}

// sizeText writes a size with three digits.
func sizeText(n int64) string {
	const step = 1024
	if n < step {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n), -1
	for size >= step && unit < 3 {
		size /= step
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", size, "KMGT"[unit])
}
