// Package forwardtest holds what tests of package forward and of its users put in place of the world: a log in memory,
// an encoder that does as little as possible, and receivers that follow a script. The receivers take messages apart
// with code of their own, so that a mistake in the sender cannot hide behind the same mistake in its test.
package forwardtest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// LogID is the id of every Log.
const LogID audit.LogID = 12345678

// Commit is one commit that a Log was asked for.
type Commit struct {
	UpTo  audit.Number
	State []byte
	At    time.Time
}

// Fault makes one call of a Log fail.
type Fault struct {
	Err      error
	Happened bool // the call did its work and reported an error all the same
}

// Log is a destination's cursor on a log in memory. It checks the contract of forward.Log: a breach is a panic. Its
// own methods are safe for concurrent use.
type Log struct {
	// BatchEvents is how many events a Read appends at most; 0 = 100. Set it before use.
	BatchEvents int
	// OnRead, if set, is called at the end of each Read that came back with events, with how many there were so far. It
	// must not call the log. Set it before use.
	OnRead func(reads int)

	mu           sync.Mutex
	events       []audit.Event
	next         audit.Number // of the next Read
	committed    audit.Number
	commits      []Commit
	rewinds      []audit.Number
	reads        int
	more         chan struct{} // closed when an event is added
	calls        int           // calls of forward.Log's methods under way
	readFaults   []Fault
	commitFaults []Fault
	rewindFaults []Fault
}

// NewLog returns an empty log. Numbers begin at 1.
func NewLog() *Log { return &Log{next: 1, more: make(chan struct{})} }

// Add appends events. It gives them their numbers and, if they have none, their ids.
func (l *Log) Add(events ...audit.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, ev := range events {
		ev.Number = audit.Number(len(l.events) + 1)
		if ev.ID.IsZero() {
			ev.ID = audit.PlaceID(LogID, ev.Number)
		}
		l.events = append(l.events, ev)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// AddRaw appends one event for each raw record.
func (l *Log) AddRaw(raws ...[]byte) {
	events := make([]audit.Event, len(raws))
	for i, raw := range raws {
		events[i] = Event(raw)
	}
	l.Add(events...)
}

// Event returns an event that has all that envelopes need.
func Event(raw []byte) audit.Event {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89e6, time.UTC)
	return audit.Event{
		Time: at, Received: at, Source: "portal", Product: "netop", Class: "USER/LOGIN", Severity: audit.SeverityNotice,
		Known: true, Raw: raw,
	}
}

// FailReads, FailCommits and FailRewinds make the next calls fail, one for each fault.
func (l *Log) FailReads(faults ...Fault) { l.fail(&l.readFaults, faults) }

// FailCommits makes the next commits fail.
func (l *Log) FailCommits(faults ...Fault) { l.fail(&l.commitFaults, faults) }

// FailRewinds makes the next rewinds fail.
func (l *Log) FailRewinds(faults ...Fault) { l.fail(&l.rewindFaults, faults) }

func (l *Log) fail(list *[]Fault, faults []Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*list = append(*list, faults...)
}

// Restart sets the cursor to the last commit, as a new process finds it.
func (l *Log) Restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = l.committed + 1
}

// SetBack sets the cursor, and what is committed, back, as a replay does.
func (l *Log) SetBack(committed audit.Number) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.committed, l.next = committed, committed+1
}

// Committed returns the last number committed.
func (l *Log) Committed() audit.Number {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// Commits returns all commits that took place.
func (l *Log) Commits() []Commit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.commits)
}

// State returns what the last commit stored, nil if there was none.
func (l *Log) State() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.commits) == 0 {
		return nil
	}
	return l.commits[len(l.commits)-1].State
}

// Rewinds returns the numbers that the log was set back to.
func (l *Log) Rewinds() []audit.Number {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.rewinds)
}

// Reads returns how many times Read came back with events.
func (l *Log) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// enterLocked notes the begin of a call of one of forward.Log's methods.
func (l *Log) enterLocked(what string) {
	l.calls++
	if l.calls > 1 {
		panic("BUG: " + what + " was called while another call was under way")
	}
}

// Read is forward.Log's.
func (l *Log) Read(ctx context.Context, batch *audit.Events) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterLocked("Read")
	defer func() { l.calls-- }()
	if len(batch.List) > 0 {
		panic("BUG: Read was given a batch that is not empty")
	}
	if fault, ok := pop(&l.readFaults); ok {
		return fault.Err
	}
	for int(l.next) > len(l.events) {
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		}
		l.mu.Lock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	limit := l.BatchEvents
	if limit <= 0 {
		limit = 100
	}
	for ; limit > 0 && int(l.next) <= len(l.events); limit-- {
		copyEvent(batch, &l.events[l.next-1])
		l.next++
	}
	l.reads++
	if l.OnRead != nil {
		l.OnRead(l.reads)
	}
	return nil
}

// copyEvent copies an event and its bytes, so that who uses it after its batch was released is found out.
func copyEvent(batch *audit.Events, src *audit.Event) {
	ev := batch.Add()
	*ev = *src
	ev.Raw = batch.Copy(src.Raw)
	batch.StartFields(ev)
	for _, f := range src.Fields {
		batch.AddField(ev, audit.Field{Key: f.Key, Name: batch.Copy(f.Name), Value: batch.Copy(f.Value)})
	}
	batch.EndFields(ev)
}

// Commit is forward.Log's.
func (l *Log) Commit(upTo audit.Number, state []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterLocked("Commit")
	defer func() { l.calls-- }()
	if upTo <= l.committed || upTo >= l.next {
		panic(fmt.Sprintf("BUG: commit of %d, committed is %d and read is up to %d", upTo, l.committed, l.next-1))
	}
	fault, failed := pop(&l.commitFaults)
	if failed && !fault.Happened {
		return fault.Err
	}
	l.committed = upTo
	l.commits = append(l.commits, Commit{UpTo: upTo, State: slices.Clone(state), At: time.Now()})
	return fault.Err
}

// Rewind is forward.Log's.
func (l *Log) Rewind(to audit.Number) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterLocked("Rewind")
	defer func() { l.calls-- }()
	if to <= l.committed || to >= l.next {
		panic(fmt.Sprintf("BUG: rewind to %d, committed is %d and read is up to %d", to, l.committed, l.next-1))
	}
	fault, failed := pop(&l.rewindFaults)
	if failed && !fault.Happened {
		return fault.Err
	}
	l.next = to
	l.rewinds = append(l.rewinds, to)
	return fault.Err
}

func pop(faults *[]Fault) (Fault, bool) {
	if len(*faults) == 0 {
		return Fault{}, false
	}
	f := (*faults)[0]
	*faults = (*faults)[1:]
	return f, true
}

// RawEncoder writes an event's Raw and nothing else.
type RawEncoder struct{}

// Append appends ev.Raw.
func (RawEncoder) Append(dst []byte, ev *audit.Event) []byte { return append(dst, ev.Raw...) }
