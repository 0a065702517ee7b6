package relay

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/normalize"
	"github.com/auditrelay/auditrelay/queue"
)

// Store is the queue directory as people look at it: what is stored, without a cursor of its own. Its methods may be
// called concurrently.
type Store struct {
	relay *Relay
	queue *queue.Queue
	own   bool // Close closes the queue
}

// OpenStore opens the queue directory of a stopped daemon only to look at it; nothing on disk changes. queue.ErrLocked
// says that a daemon has it.
func (r *Relay) OpenStore() (*Store, error) {
	q, err := queue.View(r.queueDir(), r.queueOptions())
	if err != nil {
		return nil, fmt.Errorf("open the queue in data_dir: %w", err)
	}
	return &Store{relay: r, queue: q, own: true}, nil
}

// OpenStoreForChange opens the queue directory of a stopped daemon as the daemon does, for Forget and replays.
func (r *Relay) OpenStoreForChange() (*Store, error) {
	q, err := queue.Open(r.queueDir(), r.queueOptions())
	if err != nil {
		return nil, fmt.Errorf("open the queue in data_dir: %w", err)
	}
	return &Store{relay: r, queue: q, own: true}, nil
}

// Adopt gives a copied or restored queue directory a new log id. No daemon may have it open.
func (r *Relay) Adopt() (audit.LogID, error) {
	looked, err := r.OpenStore() // else a directory that is not there would be made
	if err == nil {
		err = looked.Close()
	}
	if err != nil {
		return 0, err
	}
	id, err := queue.Adopt(r.queueDir(), r.queueOptions())
	return audit.LogID(id), err
}

func (r *Relay) queueDir() string { return filepath.Join(r.config.DataDir, "queue") }

// Close lets go of the directory of a stopped daemon.
func (s *Store) Close() error {
	if !s.own {
		return nil
	}
	return s.queue.Close()
}

// QueueList is what a queue directory holds.
type QueueList struct {
	Log       string       `json:"log"`
	First     uint64       `json:"first"` // the oldest number that is stored
	Next      uint64       `json:"next"`
	DiskBytes int64        `json:"disk_bytes"`
	Segments  []Segment    `json:"segments"`
	Cursors   []ListCursor `json:"cursors"`
}

// Segment is one file of the log.
type Segment struct {
	File    string    `json:"file"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"` // less than First if it is empty
	Bytes   int64     `json:"bytes"`
	Created time.Time `json:"created"`
	State   string    `json:"state"` // active, sealed or delivered
}

// ListCursor is one destination's place.
type ListCursor struct {
	Name       string `json:"name"`
	Next       uint64 `json:"next"` // 0 if it cannot be read before the daemon starts
	Lag        uint64 `json:"lag"`
	Open       bool   `json:"open"`
	Configured bool   `json:"configured"` // false: no destination has this id any more, and its backlog is kept for nobody
}

// List returns what the directory holds.
func (s *Store) List() (*QueueList, error) {
	cursors, err := s.queue.Cursors()
	if err != nil {
		return nil, err
	}
	st := s.queue.Stats()
	list := &QueueList{
		Log: audit.LogID(s.queue.LogID()).String(), First: st.First, Next: st.Next, DiskBytes: st.DiskBytes,
		Segments: []Segment{}, Cursors: []ListCursor{},
	}
	for _, seg := range s.queue.Segments() {
		list.Segments = append(list.Segments, Segment{
			File: seg.File, First: seg.First, Last: seg.Last, Bytes: seg.Bytes, Created: seg.Created.UTC(), State: seg.State,
		})
	}
	for _, c := range cursors {
		// The cursors are older than the figures, so a lag is never negative.
		next := max(c.Next, st.First)
		list.Cursors = append(list.Cursors, ListCursor{
			Name: c.Name, Next: c.Next, Lag: st.Next - min(next, st.Next), Open: c.Open, Configured: s.relay.hasDestination(c.Name),
		})
	}
	return list, nil
}

func (r *Relay) hasDestination(id string) bool {
	for _, d := range r.config.Forward {
		if d.ID == id {
			return true
		}
	}
	return false
}

// Forget deletes a cursor and gives up its backlog.
func (s *Store) Forget(name string) error { return s.queue.Forget(name) }

// CheckResult is what a check of the whole directory found.
type CheckResult struct {
	Segments int          `json:"segments"`
	Frames   uint64       `json:"frames"`
	Entries  uint64       `json:"entries"`
	Bytes    int64        `json:"bytes"`
	Damage   []CheckRange `json:"damage"`
}

// CheckRange is one damaged range.
type CheckRange struct {
	File   string `json:"file"`
	Offset int64  `json:"offset"`
	Bytes  int64  `json:"bytes"`
	First  uint64 `json:"first"` // numbers that are lost; 0 if none is known to be
	Last   uint64 `json:"last"`
	Reason string `json:"reason"`
}

// Check reads everything that is stored and names all damage. It changes nothing.
func (s *Store) Check(ctx context.Context, progress func(done, total int64)) (*CheckResult, error) {
	report, err := s.queue.Check(ctx, progress)
	if err != nil {
		return nil, err
	}
	result := &CheckResult{
		Segments: report.Segments, Frames: report.Frames, Entries: report.Entries, Bytes: report.Bytes, Damage: []CheckRange{},
	}
	for _, d := range report.Damage {
		result.Damage = append(result.Damage, CheckRange{
			File: d.File, Offset: d.Offset, Bytes: d.Bytes, First: d.First, Last: d.Last, Reason: d.Reason,
		})
	}
	return result, nil
}

// Place is one end of a range: a number, or a time that is compared with when the relay received the events. The zero
// Place is the end of what is stored.
type Place struct {
	Number audit.Number
	Time   time.Time
}

// ParsePlace reads a number, or a time as in RFC 3339. The empty text is the zero Place.
func ParsePlace(text string) (Place, error) {
	if text == "" {
		return Place{}, nil
	}
	if n, err := strconv.ParseUint(text, 10, 63); err == nil && n > 0 {
		return Place{Number: audit.Number(n)}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return Place{Time: t}, nil
	}
	return Place{}, fmt.Errorf("%q is neither a number from 1 on nor a time such as 2026-01-31T12:00:00Z", text)
}

// Selection is a range of stored events, both ends inclusive.
//
// Times are compared with Event.Received, not Event.Time: what is asked for is mostly "what came in while …", and the
// log is in about that order. Each event is looked at, because a clock may jump.
type Selection struct{ From, To Place }

func (s *Selection) takes(ev *audit.Event) bool {
	return (s.From.Time.IsZero() || !ev.Received.Before(s.From.Time)) && (s.To.Time.IsZero() || !ev.Received.After(s.To.Time))
}

// Selected says what became of a selection.
type Selected struct {
	Entries uint64    `json:"entries"`
	Missing []Missing `json:"missing"` // at most missingMax ranges
}

// missingMax bounds the list of missing ranges; the last one then reaches to the end of the last gap.
const missingMax = 1000

// Missing is a range of numbers that was asked for and is not there.
type Missing struct {
	First  audit.Number `json:"first"`
	Last   audit.Number `json:"last"`
	Reason string       `json:"reason"`
}

// String says it in a sentence.
func (m Missing) String() string { return fmt.Sprintf("events %d..%d %s", m.First, m.Last, m.Reason) }

// The reasons why numbers are missing.
const (
	notStored = "are no longer stored"
	areLost   = "are lost: the queue is damaged there"
)

func (s *Selected) miss(first, last audit.Number, reason string) {
	if first > last {
		return
	}
	if n := len(s.Missing); n >= missingMax {
		s.Missing[n-1].Last = last
		return
	}
	s.Missing = append(s.Missing, Missing{First: first, Last: last, Reason: reason})
}

// ErrNothingStored says that no number of a range is on disk.
var ErrNothingStored = errors.New("nothing of that range is stored")

// bounds finds the numbers of a selection that are on disk.
func (s *Store) bounds(sel Selection, found *Selected) (from, to audit.Number, err error) {
	first, next := audit.Number(s.queue.First()), audit.Number(s.queue.Next())
	from, to = max(sel.From.Number, 1), next-1
	if sel.To.Number > 0 {
		to = min(to, sel.To.Number)
	}
	if sel.From.Number == 0 {
		from = first
	}
	if from < first {
		found.miss(from, min(first-1, to), notStored)
		from = first
	}
	switch {
	case from <= to:
		return from, to, nil
	case len(found.Missing) > 0:
		return 0, 0, fmt.Errorf("%w: %s", ErrNothingStored, found.Missing[0])
	case first == next:
		return 0, 0, fmt.Errorf("%w: the queue is empty, the next number is %d", ErrNothingStored, next)
	default:
		return 0, 0, fmt.Errorf("%w: the queue has %d to %d", ErrNothingStored, first, next-1)
	}
}

// entryBatch is how many entries are decoded before their memory is used again.
const entryBatch = 256

// each calls yield for each event of the range from to to that sel takes. Deletion by retention meanwhile and damage are
// noted in found. The event is borrowed.
func (s *Store) each(ctx context.Context, sel Selection, from, to audit.Number, found *Selected, yield func(*audit.Event) error) error {
	batch := audit.GetEvents()
	defer batch.Release()
	decoder, log := audit.NewDecoder(), audit.LogID(s.queue.LogID())
	next := from
	take := func(n uint64, entry []byte) error {
		number := audit.Number(n)
		found.miss(next, number-1, areLost)
		next = number + 1
		if len(batch.List) >= entryBatch {
			batch.Reset()
		}
		if err := decoder.Decode(batch, entry, log, number); err != nil {
			unreadable(batch.Add(), entry, log, number)
		}
		ev := &batch.List[len(batch.List)-1]
		if !sel.takes(ev) {
			return nil
		}
		return yield(ev)
	}
	for next <= to {
		err := s.queue.Range(ctx, uint64(next), uint64(to), take)
		if first := audit.Number(s.queue.First()); errors.Is(err, queue.ErrRange) && first > next {
			found.miss(next, min(first-1, to), notStored)
			next = first
			continue
		}
		if err != nil {
			return err
		}
		found.miss(next, to, areLost)
		return nil
	}
	return nil
}

// Entry is one stored event for people and other programs.
type Entry struct {
	Number audit.Number
	Line   []byte // in the format that was asked for, without line end; borrowed
}

// Entries calls yield for each event of a selection, in order. format is a format of destinations: cef or json.
func (s *Store) Entries(ctx context.Context, sel Selection, format string, yield func(Entry) error) (*Selected, error) {
	encoder, err := normalize.NewEncoder(format, s.relay.encoderOptions(audit.LogID(s.queue.LogID())))
	if err != nil {
		return nil, err
	}
	found := &Selected{Missing: []Missing{}}
	from, to, err := s.bounds(sel, found)
	if err != nil {
		return found, err
	}
	var line []byte
	err = s.each(ctx, sel, from, to, found, func(ev *audit.Event) error {
		line = encoder.Append(line[:0], ev)
		found.Entries++
		return yield(Entry{Number: ev.Number, Line: line})
	})
	return found, err
}
