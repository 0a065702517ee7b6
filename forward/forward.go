// Package forward brings events from a log to the places that want them. A Forwarder reads a destination's own cursor
// on the log, hands batches to a Sink, tries again for as long as it takes, and moves the cursor when the destination
// has them. A Sink knows one protocol (the table in kinds.go); an Encoder writes one event in the format that the
// destination reads.
//
// What holds: events are sent in the order of their numbers. A number is committed only when the destination has the
// event, when it lies in the dead letters, or when a filter left it out. An event comes twice only after an error, and
// every event that was sent again is counted. The package does not encode events, does not keep the log and reads no
// configuration.
package forward

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Encoder writes one event in a destination's format.
type Encoder interface {
	// Append appends the event to dst and returns the longer slice. It cannot fail: what the format cannot hold is
	// escaped or cut, and counted by the encoder. It keeps neither dst nor ev. It is called by one goroutine at a
	// time.
	Append(dst []byte, ev *audit.Event) []byte
}

// Sink is the way to one destination. A Forwarder calls it from one goroutine at a time.
type Sink interface {
	// Send makes one pass at delivering the batch, in order, and borrows it until it returns. It blocks until the
	// destination has taken the batch, until it failed, or until ctx is done, and does not try again by itself.
	//
	// A nil error with a nil Receipt means that the destination has all of it, as far as the protocol can tell; with a
	// Receipt, that it was taken and will be confirmed. A RejectedError names events that the destination will never
	// take; all others of the batch were delivered (or, with a Receipt, taken). After a BusyError the whole batch is
	// sent again when the time is over, after any other error when the back-off is. An error within which an
	// UnsentError lies tells that no part of the batch arrived.
	Send(ctx context.Context, batch *audit.Events) (Receipt, error)
	// Close gives up connections and files. It may be called twice and at any time when no Send is under way. Who made
	// the sink closes it, after the Forwarder's Run has returned.
	Close() error
}

// Receipt stands for a batch that a destination took but has not confirmed yet.
type Receipt interface {
	// Wait blocks until the destination has confirmed the batch or ctx is done. After any error, also a RejectedError,
	// the events are read again from the log and sent again. It is called once, from a goroutine of its own.
	Wait(ctx context.Context) error
}

// Log is a destination's own durable cursor on the log of events. A Forwarder never calls two of its methods at once.
type Log interface {
	// Read waits for at least one event and appends events, with their numbers, in rising order, to an empty batch,
	// which then owns all their memory. How many it appends is its own choice: it bounds the memory of a destination,
	// which holds two batches at most. If it returns an error, as it does when ctx is done, it has appended nothing
	// and the next Read starts at the same place.
	Read(ctx context.Context, batch *audit.Events) error
	// Commit makes it durable, before it returns, that all events up to and with upTo are done with, and state with
	// it. The numbers rise from commit to commit. It must not keep state.
	Commit(upTo audit.Number, state []byte) error
	// Rewind makes the next Read start at the event with the number to, which is above the last commit.
	Rewind(to audit.Number) error
}

// RejectedError says that a destination refuses some events of a batch for good, and that it has all the others.
type RejectedError struct {
	Indexes []int  // places in the batch, from 0
	Reason  string // the destination's words
}

// Error returns the reason with the number of events.
func (e *RejectedError) Error() string {
	return fmt.Sprintf("%d events were refused for good: %s", len(e.Indexes), e.Reason)
}

// BusyError says that the destination wants to be left alone for a while.
type BusyError struct {
	After time.Duration // how long; 0 = it did not say, the usual back-off holds
	Err   error         // what it answered
}

// Error returns the destination's answer.
func (e *BusyError) Error() string { return "destination is busy: " + e.Err.Error() }

// Unwrap returns the destination's answer.
func (e *BusyError) Unwrap() error { return e.Err }

// UnsentError says that no part of the batch reached the destination, so that sending it again doubles nothing.
type UnsentError struct{ Err error }

// Error returns the cause.
func (e *UnsentError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UnsentError) Unwrap() error { return e.Err }

// Counts is what a sink counts since it was made. What has no meaning for a kind stays 0.
type Counts struct {
	Messages  uint64 // events written, those sent again included
	Bytes     uint64 // bytes written for them, framing included
	Cut       uint64 // messages cut because they were longer than the limit
	Connects  uint64 // connections that were made
	Closed    uint64 // connections that the other side was seen to close
	Rotations uint64 // files that were set aside because they were full
	Torn      uint64 // unfinished last lines, left by a crash, that were ended before writing on
}

// Counter is implemented by sinks that count. Counts is safe for concurrent use.
type Counter interface{ Counts() Counts }

// Renderer is implemented by sinks that can show what they would send.
type Renderer interface {
	// Render appends the message for ev, with its envelope and as it is escaped and cut, but without what separates it
	// from the next. It sends nothing and may not be called while a Send is under way.
	Render(dst []byte, ev *audit.Event) []byte
}

// Env is what a sink gets besides its settings.
type Env struct {
	ID      string // the destination's id in the configuration
	Encoder Encoder
	Logger  *slog.Logger // nil = no log
	Host    string       // the relay's own host name, for envelopes
	Stdout  io.Writer    // standard output, for the file kind with path "-"
}

// Kind is one row of the table of kinds.
type Kind struct {
	Name, Doc string
	Settings  func() any // a pointer to the kind's settings with their defaults
	// New makes a sink from settings of the type that Settings returns. It opens nothing: the first Send does.
	New func(env Env, settings any) (Sink, error)
}
