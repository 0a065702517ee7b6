package relay

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/queue"
)

// ErrReplaying says that one replay is under way already.
var ErrReplaying = errors.New("a replay to this destination is under way: wait for its end")

// ErrNoDestination says that the configuration has no such destination.
var ErrNoDestination = errors.New("no such destination")

// Replay sends stored events to one destination once more, with the ids and numbers that they have. It is a pass of its
// own: it has its own sink, moves no cursor and stands in no equation. Events that the destination refuses go to dead
// letters of their own, in a directory beside the destination's.
type Replay struct {
	relay       *Relay
	store       *Store
	destination config.Destination
	turn        turn
	selection   Selection

	mu        sync.Mutex
	forwarder *forward.Forwarder // nil before the pass; guarded by mu
	log       *replayLog         // nil before the pass; guarded by mu
}

// Progress says how far a replay is.
type Progress struct {
	First     audit.Number `json:"first"` // of the range on disk; 0 before the pass
	Last      audit.Number `json:"last"`
	Through   audit.Number `json:"through"` // done up to here
	Delivered uint64       `json:"delivered"`
	State     string       `json:"state"`
	Error     string       `json:"error,omitempty"` // of the last try, while it is retried
}

// ReplayResult is what a replay did. It is also returned with the error of one that was stopped.
type ReplayResult struct {
	Destination  string    `json:"destination"`
	Delivered    uint64    `json:"delivered"`
	DeadLettered uint64    `json:"dead_lettered"` // refused for good
	Resent       uint64    `json:"resent"`        // sent more than once within the replay
	Complete     bool      `json:"complete"`      // the end of the range was reached
	Missing      []Missing `json:"missing"`
}

// NewReplay prepares a replay. It sends nothing.
func (s *Store) NewReplay(destination string, sel Selection) (*Replay, error) {
	for _, cfg := range s.relay.config.Forward {
		if cfg.ID == destination {
			return &Replay{relay: s.relay, store: s, destination: cfg, turn: s.relay.turnOf(destination), selection: sel}, nil
		}
	}
	return nil, fmt.Errorf("replay to %q: %w", destination, ErrNoDestination)
}

// turnOf returns what the destination's own sink and a replay's take turns by.
func (r *Relay) turnOf(destination string) turn {
	for _, d := range r.destinations {
		if d.config.ID == destination {
			return d.turn
		}
	}
	return newTurn()
}

// Progress returns how far the replay is. Safe for concurrent use.
func (p *Replay) Progress() Progress {
	p.mu.Lock()
	f, log := p.forwarder, p.log
	p.mu.Unlock()
	if f == nil {
		return Progress{State: "starting"}
	}
	st := f.Stats()
	out := Progress{
		First: log.from, Last: log.to, Through: max(st.Committed, log.from-1), Delivered: st.Delivered, State: st.State.String(),
	}
	if st.State == forward.StateRetrying || st.State == forward.StateStopped {
		out.Error = st.LastError
	}
	return out
}

// Run sends the range and returns when the destination has all of it, or when ctx is done. It retries like the
// destination itself does. What was sent is added to the destination's count of replayed events.
func (p *Replay) Run(ctx context.Context) (result *ReplayResult, err error) {
	result = &ReplayResult{Destination: p.destination.ID, Missing: []Missing{}}
	found := new(Selected)
	from, to, err := p.store.bounds(p.selection, found)
	if err != nil {
		return result, err
	}
	own, _, err := p.relay.newSink(p.destination, audit.LogID(p.store.queue.LogID()))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	log := &replayLog{store: p.store, selection: p.selection, found: found, from: from, to: to, next: from, end: cancel}
	dead := filepath.Join(p.relay.config.DataDir, "deadletters", p.destination.ID+".replay")
	f := forward.New(p.destination.ID, log, &sharedSink{sink: own, turn: p.turn}, forward.Options{
		Logger:      p.relay.opt.Logger.With("replay", true),
		DeadLetters: forward.NewDeadLetters(dead, p.destination.ID, 0),
		Grace:       replayGrace,
	})
	p.mu.Lock()
	p.forwarder, p.log = f, log
	p.mu.Unlock()
	runErr := f.Run(ctx)
	st := f.Stats()
	result.Delivered, result.DeadLettered, result.Resent = st.Delivered, st.DeadLettered, st.Resent
	result.Complete, result.Missing = log.complete(), append(result.Missing, found.Missing...)
	if runErr == nil && !result.Complete {
		runErr = fmt.Errorf("stopped at event %d of %d..%d: %w", max(st.Committed, from-1), from, to, context.Canceled)
	}
	return result, errors.Join(runErr, p.count(st.Delivered))
}

// RunWatched is Run, with a call of progress every so often, by the goroutine that called.
func (p *Replay) RunWatched(ctx context.Context, every time.Duration, progress func(Progress)) (result *ReplayResult, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		result, err = p.Run(ctx)
	}()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			progress(p.Progress())
		case <-ended:
			return result, err
		}
	}
}

const (
	// replayGrace is how long the batch under way may go on when a replay is stopped. A daemon that stops waits for it.
	replayGrace = 2 * time.Second
	// countWait bounds how long the end of a replay waits for space in the queue, to store its count.
	countWait = 2 * time.Second
)

// count adds to the destination's count of replayed events. A crash before it returns loses the count of this replay:
// no equation has it.
func (p *Replay) count(delivered uint64) error {
	if delivered == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), countWait)
	defer cancel()
	q := p.store.queue
	total := binary.AppendUvarint([]byte{replayedVersion}, replayedBefore(q, p.destination.ID)+delivered)
	if _, err := q.Append(ctx, nil, [][]byte{queue.AppendMark(nil, replayedKey(p.destination.ID), total)}); err != nil {
		return fmt.Errorf("the events were sent, but their count could not be stored: %w", err)
	}
	return nil
}

// replayedKey is the queue mark that counts a destination's replayed events.
func replayedKey(destination string) []byte { return []byte("r/" + destination) }

// replayedVersion is the first byte of that mark; then follows the count as uvarint.
const replayedVersion = 1

// replayedBefore returns how many events were sent to a destination by replays that ended.
func replayedBefore(q *queue.Queue, destination string) uint64 {
	value, _ := q.Mark(replayedKey(destination))
	if len(value) < 2 || value[0] != replayedVersion {
		return 0
	}
	n, _ := binary.Uvarint(value[1:])
	return n
}

// replayLog is a part of the queue as a forward.Log. Its commits are in memory only.
type replayLog struct {
	store     *Store
	selection Selection
	from, to  audit.Number
	end       func() // called when all is committed

	mu        sync.Mutex
	found     *Selected    // guarded by mu
	next      audit.Number // the next to look at; guarded by mu
	read      audit.Number // the last that was handed out; guarded by mu
	committed audit.Number // guarded by mu
}

// What one Read takes at most.
const (
	replayBatchEvents = 1024
	replayBatchBytes  = 256 << 10
)

var errEnough = errors.New("the batch is full")

// Read appends the next events of the range. At its end it waits for ctx.
func (l *replayLog) Read(ctx context.Context, batch *audit.Events) error {
	l.mu.Lock()
	next := l.next
	l.mu.Unlock()
	var found Selected
	size := 0
	decoder := audit.NewDecoder()
	if next <= l.to {
		err := l.store.each(ctx, l.selection, next, l.to, &found, func(ev *audit.Event) error {
			// The stored form is the copy: its bytes are all that the event's slices point to.
			own := batch.Alloc(ev.EncodedSize())[:0]
			own = ev.AppendBinary(own)
			if err := decoder.Decode(batch, own, 0, ev.Number); err != nil {
				return err
			}
			next = ev.Number + 1
			if size += len(own); len(batch.List) >= replayBatchEvents || size >= replayBatchBytes {
				return errEnough
			}
			return nil
		})
		if err != nil && !errors.Is(err, errEnough) {
			batch.Reset()
			return err
		}
		if err == nil {
			next = l.to + 1
		}
	}
	l.mu.Lock()
	// After a Rewind the same gaps are met again.
	for _, m := range found.Missing {
		if n := len(l.found.Missing); n == 0 || m.First > l.found.Missing[n-1].Last {
			l.found.miss(m.First, m.Last, m.Reason)
		}
	}
	l.next = next
	if n := len(batch.List); n > 0 {
		l.read = batch.List[n-1].Number
	}
	l.endIfCompleteLocked()
	l.mu.Unlock()
	if len(batch.List) > 0 {
		return nil
	}
	<-ctx.Done()
	return ctx.Err()
}

// Commit notes how far the destination has the events.
func (l *replayLog) Commit(upTo audit.Number, _ []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed = upTo
	l.endIfCompleteLocked()
	return nil
}

// Rewind lets the next Read start at the given number again.
func (l *replayLog) Rewind(to audit.Number) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next, l.read = to, l.committed
	return nil
}

func (l *replayLog) complete() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.completeLocked()
}

func (l *replayLog) completeLocked() bool { return l.next > l.to && l.committed >= l.read }

func (l *replayLog) endIfCompleteLocked() {
	if l.completeLocked() {
		l.end()
	}
}

// turn lets two sinks to one destination send one after the other: two writers of one file would cut each other's lines
// off when a write fails.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// sharedSink is a sink that waits for its turn.
type sharedSink struct {
	sink forward.Sink
	turn turn
}

// Send waits for its turn and sends.
func (s *sharedSink) Send(ctx context.Context, batch *audit.Events) (forward.Receipt, error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, &forward.UnsentError{Err: ctx.Err()}
	}
	defer func() { <-s.turn }()
	return s.sink.Send(ctx, batch)
}

// Close closes the sink.
func (s *sharedSink) Close() error { return s.sink.Close() }

// Counts implements forward.Counter; all are zero if the sink does not count.
func (s *sharedSink) Counts() forward.Counts {
	if c, ok := s.sink.(forward.Counter); ok {
		return c.Counts()
	}
	return forward.Counts{}
}
