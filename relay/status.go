package relay

import (
	"errors"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/queue"
)

// Status is what a running relay tells about itself. Each equation of its sheet is a consistent snapshot.
type Status struct {
	Version      string              `json:"version"`
	Relay        string              `json:"relay"`
	DataDir      string              `json:"data_dir"`
	Started      time.Time           `json:"started"`
	UptimeS      float64             `json:"uptime_seconds"`
	Health       Health              `json:"health"`
	Sheet        *Sheet              `json:"sheet"`
	Sources      []SourceStatus      `json:"sources"`
	Destinations []DestinationStatus `json:"destinations"`
	Queue        QueueStatus         `json:"queue"`
}

// SourceStatus is one source with its files or listeners.
type SourceStatus struct {
	ID      string        `json:"id"`
	Type    string        `json:"type"`
	Failure string        `json:"failure,omitempty"` // why its collector does not run
	Inputs  []InputStatus `json:"inputs"`
}

// InputStatus is one file or listener.
type InputStatus struct {
	Name        string `json:"name"`
	State       string `json:"state"`
	Reason      string `json:"reason,omitempty"`
	Records     uint64 `json:"records"`
	Bytes       uint64 `json:"bytes"`
	Offset      int64  `json:"offset"` // -1 if that has no meaning, as Size
	Size        int64  `json:"size"`
	Connections int    `json:"connections"`
}

// DestinationStatus is what the sheet does not say of a destination.
type DestinationStatus struct {
	ID          string     `json:"id"`
	Type        string     `json:"type"`
	Format      string     `json:"format"`
	State       string     `json:"state"`
	Since       time.Time  `json:"since"`
	Committed   uint64     `json:"committed"`  // the last number that is done
	Lag         uint64     `json:"lag"`        // events stored and not done
	LastError   string     `json:"last_error"` // kept when it is over
	LastErrorAt *time.Time `json:"last_error_at,omitempty"`
	Retries     uint64     `json:"retries"`
	Resent      uint64     `json:"resent"`
	Replayed    uint64     `json:"replayed"`  // sent once more by replays that ended; in no equation
	Replaying   *Progress  `json:"replaying"` // the replay under way, if there is one
}

// QueueStatus is the queue on disk.
type QueueStatus struct {
	Log            string `json:"log"`
	First          uint64 `json:"first"`
	Next           uint64 `json:"next"`
	Segments       int    `json:"segments"`
	DiskBytes      int64  `json:"disk_bytes"`    // of segment files
	BacklogBytes   int64  `json:"backlog_bytes"` // of those that some destination still needs
	MaxBytes       int64  `json:"max_bytes"`
	Waiting        int    `json:"waiting"` // appends
	Full           bool   `json:"full"`
	Error          string `json:"error,omitempty"` // why nothing is taken, or why appends wait
	DamagedRanges  uint64 `json:"damaged_ranges"`  // found since the start
	DamagedEntries uint64 `json:"damaged_entries"`
	DamagedUnnamed uint64 `json:"damaged_unnamed"` // ranges that no event names; they are in our own log
	TornBytes      uint64 `json:"torn_bytes"`
	// SheddingBelow is the lowest severity that is taken now, if lower ones are refused.
	SheddingBelow string `json:"shedding_below,omitempty"`
}

// Status returns the relay's state as it stands. The relay must be running.
func (r *Relay) Status() *Status {
	now := time.Now()
	s := &Status{
		Version: r.opt.Version, Relay: r.config.Relay.ID, DataDir: r.config.DataDir, Started: r.started.UTC(),
		UptimeS: now.Sub(r.started).Seconds(), Sheet: r.Sheet(), Queue: queueStatus(r.queue, int64(r.config.Queue.MaxSize)),
	}
	s.Queue.DamagedUnnamed = r.own.dropped.Load()
	if r.config.Queue.WhenFull == whenFullShed {
		if lowest := lowestTaken(r.queue, s.Queue.MaxBytes); lowest > takeAll {
			s.Queue.SheddingBelow = lowest.String()
		}
	}
	for _, src := range r.sources {
		s.Sources = append(s.Sources, src.status())
	}
	for _, d := range r.destinations {
		s.Destinations = append(s.Destinations, d.status(r.queue))
	}
	s.Health = r.assess(s)
	return s
}

func (s *source) status() SourceStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := SourceStatus{ID: s.config.ID, Type: s.config.Type, Failure: s.failure, Inputs: []InputStatus{}}
	reporter, ok := s.collector.(collect.Reporter)
	if !ok {
		return st
	}
	for _, in := range reporter.Inputs() {
		st.Inputs = append(st.Inputs, InputStatus{
			Name: in.Name, State: in.State.String(), Reason: in.Reason, Records: in.Records, Bytes: in.Bytes,
			Offset: in.Offset, Size: in.Size, Connections: in.Connections,
		})
	}
	return st
}

func (d *destination) status(q *queue.Queue) DestinationStatus {
	cur, forwarder := d.parts()
	st := forwarder.Stats()
	committed := max(st.Committed, cur.began-1)
	out := DestinationStatus{
		ID: d.config.ID, Type: d.config.Type, Format: d.config.Format,
		State: st.State.String(), Since: st.Since.UTC(), Committed: uint64(committed), Lag: q.Next() - 1 - uint64(committed),
		LastError: st.LastError, Retries: st.Retries, Resent: st.Resent,
		Replayed: replayedBefore(q, d.config.ID),
	}
	if !st.LastErrorAt.IsZero() {
		at := st.LastErrorAt.UTC()
		out.LastErrorAt = &at
	}
	if replay := d.replay.Load(); replay != nil {
		progress := replay.Progress()
		out.Replaying = &progress
	}
	return out
}

func queueStatus(q *queue.Queue, maxBytes int64) QueueStatus {
	st := q.Stats()
	out := QueueStatus{
		Log: audit.LogID(q.LogID()).String(), First: st.First, Next: st.Next, Segments: st.Segments, DiskBytes: st.DiskBytes,
		BacklogBytes: backlogBytes(q), MaxBytes: maxBytes, Waiting: st.Waiting, Full: waitsForSpace(&st),
		DamagedRanges: st.DamagedRanges, DamagedEntries: st.DamagedEntries, TornBytes: st.TornBytes,
	}
	if st.Err != nil && (out.Full || !st.Full || errors.Is(st.Err, queue.ErrStopped)) {
		out.Error = st.Err.Error()
	}
	return out
}

// waitsForSpace says whether the queue is full now. Stats.Full alone stays set until the next append has worked, also when
// those that waited have gone.
func waitsForSpace(st *queue.Stats) bool { return st.Full && st.Waiting > 0 }

// backlogBytes is the size of the segments that some cursor still needs: the others go when space is wanted, so they do
// not count as fullness. Without a cursor nothing goes.
func backlogBytes(q *queue.Queue) (n int64) {
	least := uint64(0)
	cursors, err := q.Cursors()
	if err != nil {
		return 0 // the queue is closed
	}
	for i, c := range cursors {
		if i == 0 || c.Next < least {
			least = c.Next
		}
	}
	for _, seg := range q.Segments() {
		if seg.Last >= least || len(cursors) == 0 {
			n += seg.Bytes
		}
	}
	return n
}
