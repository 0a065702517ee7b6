// Package queue keeps opaque entries on disk until every reader has finished with them.
//
// It is one append-only log, numbered 1, 2, 3 … without gaps. Append is durable when it returns; concurrent appends
// share one fsync. A reader is a name with a durable cursor: an entry is stored once, however many readers there are,
// and a slow one delays nobody. What a crash, a full disk, a failing fsync or a damaged file means for each byte is
// described in DESIGN.md beside this file.
//
// Entries may carry ids, by which one that comes again is found (Reserve, AppendSeen). Range reads without a cursor,
// View looks at the directory of a process that is stopped, Check reads all of it.
//
// The package does not know what the entries mean, does not compress and does not encrypt.
package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"time"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrLocked: another process has the directory open.
	ErrLocked = errors.New("queue directory is in use")
	// ErrClosed: the queue or the reader was closed.
	ErrClosed = errors.New("queue is closed")
	// ErrFull: the disk or MaxBytes is full and the context ended while waiting; nothing was taken.
	ErrFull = errors.New("queue is full, nothing was taken")
	// ErrTooLarge: the entries are over a limit and will never fit; nothing was taken.
	ErrTooLarge = errors.New("append is too large, nothing was taken")
	// ErrStopped: syncing failed twice, the queue takes nothing until it is opened again; readers go on.
	ErrStopped = errors.New("queue stopped accepting after a failed sync")
	// ErrNewerFormat: a newer version of this program wrote the directory.
	ErrNewerFormat = errors.New("queue has a newer format")
	// ErrInUse: the cursor has an open reader.
	ErrInUse = errors.New("cursor is in use")
	// ErrRange: a number outside of what the call allows.
	ErrRange = errors.New("number is out of range")
	// ErrReadOnly: the queue was opened by View.
	ErrReadOnly = errors.New("queue is open for looking only")

	// errSpace: MaxBytes is reached. It never leaves the package.
	errSpace = errors.New("max size reached")
)

// Options of a queue. The zero value is usable.
type Options struct {
	FS            FS               // nil: the operating system's
	SegmentBytes  int64            // size of a segment file, 0: 64 MiB; under MaxBytes at most an eighth of it
	GroupBytes    int              // what one group commit takes at most, 0: 256 KiB; one larger append goes alone
	GroupDelay    time.Duration    // how long the writer waits for appenders of the last group to come back; 0: not at all
	MaxBytes      int64            // hard limit on the disk use of segments, 0: none
	ReserveBytes  int64            // a file of so many bytes is kept and given up when a full disk has no room for one more segment, 0: none
	KeepDelivered time.Duration    // how long delivered segments are kept for replay, if there is space
	SeenWindow    time.Duration    // how long ids of AppendSeen are remembered, 0: DefaultSeenWindow
	SeenEntries   int              // how many of them at most, 0: DefaultSeenEntries; about 25 bytes of memory each
	Logger        *slog.Logger     // nil: discard
	Now           func() time.Time // nil: time.Now
	// Damaged is called once for each damaged range that is found, by the goroutine that finds it. It must return soon
	// and not call the queue.
	Damaged func(Damage)

	rebuildBytes int64 // 0: the constant
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = osFS{}
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 64 << 20
	}
	if o.GroupBytes <= 0 {
		o.GroupBytes = 256 << 10
	}
	if o.MaxBytes > 0 {
		// Small pieces, so that space comes back while a reader is in the middle of the backlog.
		o.SegmentBytes = min(o.SegmentBytes, max(o.MaxBytes/8, 4<<10))
	}
	if o.SeenWindow <= 0 {
		o.SeenWindow = DefaultSeenWindow
	}
	if o.SeenEntries <= 0 {
		o.SeenEntries = DefaultSeenEntries
	}
	if o.rebuildBytes <= 0 {
		o.rebuildBytes = rebuildBytes
	}
	o.SeenEntries = min(o.SeenEntries, maxSeenEntries)
	o.GroupBytes = int(min(int64(o.GroupBytes), o.SegmentBytes))
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Queue is an open queue directory. All methods may be called concurrently.
type Queue struct {
	dir      string
	opt      Options
	fs       FS
	log      *slog.Logger
	lock     io.Closer
	logID    uint32
	readOnly bool // made by View

	mu       sync.Mutex // guards what follows
	next     uint64     // number of the next entry; all below are durable
	segments []*segment // in order; while active is set, the last one is being written
	marks    marks      // durable ones; changed by the writer only
	waiting  []*request
	full     error // why the writer waits for space, or nil
	failed   error // why nothing is accepted any more, or nil
	closing  bool
	changed  chan struct{} // closed and replaced when next grows, if somebody waits for it
	listened bool          // somebody took changed
	cursors  map[string]*cursor
	readers  map[*Reader]struct{}
	stats    Stats
	reported map[rangeKey]struct{}

	seen seen

	retainMu sync.Mutex // one deletion, or one cursor moving back, at a time; taken before mu

	// Owned by the writer goroutine.
	active       *output
	reserved     bool      // the reserve is there; see reserve.go
	reserveTried time.Time // when there was last no room for it
	frame        []byte
	stamp        time.Time // of the ids in frame
	lastGroup    int

	work   chan struct{} // capacity 1: there may be something in waiting
	space  chan struct{} // capacity 1: space may have come back
	retire chan struct{} // capacity 1: a segment may be past its time
	stop   chan struct{} // closed by Close
	ended  sync.WaitGroup
}

// output is the segment that is being written.
type output struct {
	seg  *segment
	file File
	at   place // where the next frame goes
	head int64 // end of the snapshot: there are entries if at.off is past it
}

// Open opens or makes a queue directory and recovers it. It takes a lock (ErrLocked), refuses a newer format
// (ErrNewerFormat) and never deletes what it cannot read. It starts the writer; Close ends it.
func Open(dir string, opt Options) (*Queue, error) {
	q := newQueue(dir, opt)
	if err := q.makeDirs(); err != nil {
		return nil, fmt.Errorf("make queue directory: %w", err)
	}
	lock, err := q.fs.Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		return nil, fmt.Errorf("lock queue directory %s: %w", dir, err)
	}
	q.lock = lock
	if err := q.recover(); err != nil {
		q.closeFiles()
		return nil, fmt.Errorf("open queue %s: %w", dir, err)
	}
	q.keepReserve()
	q.ended.Add(2)
	go q.write()
	go q.retain()
	return q, nil
}

func newQueue(dir string, opt Options) *Queue {
	opt.setDefaults()
	return &Queue{
		dir: dir, opt: opt, fs: opt.FS, log: opt.Logger,
		marks:    marks{values: map[string][]byte{}},
		seen:     newSeen(opt),
		changed:  make(chan struct{}),
		cursors:  map[string]*cursor{},
		readers:  map[*Reader]struct{}{},
		reported: map[rangeKey]struct{}{},
		work:     make(chan struct{}, 1), space: make(chan struct{}, 1), retire: make(chan struct{}, 1),
		stop: make(chan struct{}),
	}
}

// Close finishes the appends that were admitted, answers those that wait for space with ErrClosed, ends all readers and
// lets go of the directory. The second call returns nil.
func (q *Queue) Close() error {
	q.mu.Lock()
	if q.closing {
		q.mu.Unlock()
		q.ended.Wait()
		return nil
	}
	q.closing = true
	close(q.stop)
	close(q.changed)
	q.changed = make(chan struct{})
	q.mu.Unlock()
	q.ended.Wait()
	return q.closeFiles()
}

// closeFiles is the end of Close, and of an Open that failed.
func (q *Queue) closeFiles() error {
	q.mu.Lock()
	readers := make([]*Reader, 0, len(q.readers))
	for r := range q.readers {
		readers = append(readers, r)
	}
	cursors := make([]*cursor, 0, len(q.cursors))
	for _, c := range q.cursors {
		cursors = append(cursors, c)
	}
	q.mu.Unlock()
	var errs []error
	for _, r := range readers {
		errs = append(errs, r.Close())
	}
	for _, c := range cursors {
		c.mu.Lock()
		c.closeFiles()
		c.mu.Unlock()
	}
	if q.active != nil {
		errs = append(errs, q.active.file.Close())
		q.active = nil
	}
	return errors.Join(append(errs, q.lock.Close())...)
}

// LogID is a random number from 10000000 to 99999999, made with the directory. With an entry's number it names the
// entry for ever.
func (q *Queue) LogID() uint32 { return q.logID }

// newLogID draws a log id.
func newLogID() uint32 { return 10_000_000 + rand.Uint32N(90_000_000) }

// First is the oldest number that is still on disk; it equals Next if there is none.
func (q *Queue) First() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.firstLocked()
}

func (q *Queue) firstLocked() uint64 {
	if len(q.segments) == 0 {
		return q.next
	}
	return q.segments[0].first
}

// Next is the number that the next entry gets. All below are durable.
func (q *Queue) Next() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next
}

// endLocked is the number after the last entry of segment i.
func (q *Queue) endLocked(i int) uint64 {
	if i == len(q.segments)-1 {
		return q.next
	}
	return q.segments[i].end
}

// Stats are figures of the queue; counters begin at Open.
type Stats struct {
	First, Next    uint64
	Entries        uint64 // appended
	Bytes          uint64 // of appended entries, without overhead
	Frames         uint64 // group commits
	Syncs          uint64 // fsyncs of frames, also failed ones
	Segments       int
	DiskBytes      int64 // of segment files
	Waiting        int   // appends that are waiting now
	Full           bool  // the writer waits for space
	Err            error // why nothing is accepted, or why the writer waits; nil if all is well
	DamagedRanges  uint64
	DamagedEntries uint64 // numbers known to be lost in them
	TornBytes      uint64 // cut from the end at Open: writes that were never acknowledged
	SeenIDs        int    // ids that are remembered
	SeenForgotten  uint64 // ids that had to be forgotten before their window passed: doubles of them are not found
}

// Stats returns the figures as of now.
func (q *Queue) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.stats
	s.First, s.Next = q.firstLocked(), q.next
	s.Segments, s.DiskBytes = len(q.segments), q.diskLocked()
	s.Waiting, s.Full = len(q.waiting), q.full != nil
	if s.Err = q.failed; s.Err == nil {
		s.Err = q.full
	}
	q.seen.mu.Lock()
	s.SeenIDs, s.SeenForgotten = int(q.seen.index.head-q.seen.index.tail), q.seen.index.forgotten+q.seen.lost
	q.seen.mu.Unlock()
	return s
}

func (q *Queue) diskLocked() (n int64) {
	for _, s := range q.segments {
		n += s.disk
	}
	return n
}

func (q *Queue) path(elem ...string) string {
	return filepath.Join(append([]string{q.dir}, elem...)...)
}

// signal wakes the goroutine behind a channel of capacity 1.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// contextError says why a wait ended.
func contextError(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}
