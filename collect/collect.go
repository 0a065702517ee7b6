// Package collect takes records from where they are written: files and network listeners. Each kind of source is a
// Collector. It hands over batches of records as they were written, with what it knows about where each one came from,
// and learns from the return value whether they are safe. It does not know what a record means.
//
// CSV: a collector finds where records begin and end, keeps the header row in audit.Origin.Header and the delimiter in
// audit.Origin.Comma, and does not deliver the header as a record, unless it does not look like a header. A quote opens
// a cell only at the cell's start. Syslog: a collector does the framing; a record's bytes are the whole message with
// its header.
package collect

import (
	"context"
	"log/slog"

	"github.com/auditrelay/auditrelay/audit"
)

// PutFunc hands a batch over. nil means that it is durable: only now may the source forget its records. An error means
// that nothing was taken. ctx bounds the wait for space only: a batch that was admitted is finished whatever happens to
// ctx. The batch is borrowed until PutFunc returns. It may hold positions and no records. Safe for concurrent use.
type PutFunc func(ctx context.Context, batch *audit.Records) (through audit.Number, err error)

// Collector is one source. Run collects until ctx is done, then hands over what it has already read and returns nil,
// when all that it started has ended. It is called once. It blocks as long as put blocks, and keeps a batch that was
// not taken until it is. What is wrong with a file, a listener or a sender never ends Run: Reporter tells of it.
type Collector interface {
	Run(ctx context.Context, put PutFunc) error
}

// Reporter tells how a collector's inputs are doing. All collectors of this package are one. Safe for concurrent
// use, before, during and after Run; it does not block on I/O.
type Reporter interface {
	Inputs() []Input
}

// State says how an input is doing.
type State uint8

// The states.
const (
	StateOK       State = iota // it is read
	StateWaiting               // there is nothing to read yet, and nothing is wrong
	StateDegraded              // something is wrong: the reason says what; it is tried again
)

// String returns "ok", "waiting" or "degraded".
func (s State) String() string {
	switch s {
	case StateWaiting:
		return "waiting"
	case StateDegraded:
		return "degraded"
	default:
		return "ok"
	}
}

// Input is one file, pattern or listener of a collector. All counts are since Run began and go up only.
type Input struct {
	Name   string // path, pattern, or the listener's URL
	State  State
	Reason string // why the state is not ok

	Records uint64 // durable
	Bytes   uint64 // of these records

	Offset, Size int64 // files: bytes that are durable, bytes that there are; else -1
	Connections  int   // listeners: open ones

	Skipped       uint64 // empty lines and messages, repeated CSV header rows
	Parts         uint64 // numbered parts of records that were too long
	Partials      uint64 // records delivered without their end
	Truncations   uint64 // files: how often it was found truncated
	SkippedZeros  uint64 // files: bytes of holes
	FramingErrors uint64 // streams: records marked framing_error
	Refused       uint64 // streams: connections that were over a limit
	Dropped       uint64 // listeners: datagrams that the kernel dropped, records that were not taken at the end
}

// Env is what a collector gets from whoever builds it.
type Env struct {
	ID        string           // the collector's name in the configuration
	Product   string           // for its records; empty = find out
	Logger    *slog.Logger     // nil discards
	Once      bool             // Run returns by itself when all that is there was put; listeners return at once
	Positions []audit.Position // what was durable at the start, this collector's own
}

func (e Env) logger() *slog.Logger {
	if e.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Logger
}
