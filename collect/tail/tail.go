// Package tail follows files: it reads what a set of path patterns matches, through rotation, truncation and restarts,
// and hands over each record once, in batches that carry the positions behind their records. It knows lines and CSV
// records; it does not know what they mean. DESIGN.md beside this file says how it works and what it cannot do.
package tail

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Sizes and times that need no setting.
const (
	blockBytes      = 256 << 10 // one read: the size of a piece of a batch's memory
	batchBytes      = 128 << 10 // a batch that holds this much is handed over
	batchRecords    = 8 << 10
	retryInterval   = time.Second // between two attempts to hand over the same batch
	wakeInterval    = 25 * time.Millisecond
	siblingTime     = 30 * time.Second       // between two searches for closed files that grow again
	siblingHaste    = 5 * time.Second        // after a rotation each scan searches: a listing may miss what is renamed
	forgetAfter     = 24 * time.Hour         // a file system that is not mounted for a while must not cost the positions
	scanPause       = 100 * time.Microsecond // for each path that a scan looked at: some ten times what that takes
	problemsShown   = 1000
	failureInterval = 5 * time.Second // between two attempts to read a file that could not be read
	headerRowBytes  = 1 << 20
)

// Defaults of Options.
const (
	DefaultMaxRecord    = 1 << 20
	DefaultMaxFiles     = 10_000
	DefaultPollInterval = 250 * time.Millisecond
	DefaultPartialAfter = 10 * time.Second
	DefaultCloseAfter   = 30 * time.Second
)

// Options say what to follow. Zero values stand for the defaults.
type Options struct {
	Source  string // id of the collector, for the batches
	Product string // for the records

	Paths   []string // patterns as in path/filepath.Match; a name that begins with a dot needs a pattern that does
	Exclude []string // patterns for whole paths, or for names if they hold no slash

	Format     audit.Format // FormatAuto looks at name and first line
	StartAtEnd bool         // files that are there when a pattern is seen for the first time begin at their end

	MaxRecord    int           // bytes; a longer record comes out in parts
	MaxFiles     int           // files open at once
	PollInterval time.Duration // between two looks at the files
	PartialAfter time.Duration // a record that does not grow for so long comes out without its end
	CloseAfter   time.Duration // a rotated file that does not grow for so long is closed

	Once      bool             // read what is there to its end, then return
	Positions []audit.Position // what was durable at the start
	Logger    *slog.Logger     // nil discards
}

// PutFunc hands over a batch; nil means durable. ctx bounds the wait for space only. The batch is borrowed until it
// returns.
type PutFunc = func(ctx context.Context, batch *audit.Records) (through audit.Number, err error)

// File is what can be told of one file or pattern.
type File struct {
	Path    string // the pattern's text where no file is to be told of
	Problem string // why it is not read; empty if it is
	Missing bool   // the problem is only that nothing matches the pattern yet
	Rotated bool   // the path leads elsewhere by now

	Offset, Size int64 // bytes that are durable, bytes that there are
	Counts
}

// Counts are counted per file since it was opened.
type Counts struct {
	Records     uint64
	Bytes       uint64 // of records
	Blank       uint64 // empty lines, and repeated header rows
	Parts       uint64 // numbered parts of records that were too long
	Partials    uint64 // records delivered without their end
	Truncations uint64
	Zeros       uint64 // bytes of holes that were skipped
}

// Follower follows files. Make one with New; Run it once.
type Follower struct {
	opt Options
	log *slog.Logger

	// Owned by the goroutine of Run; under mu where Files reads them.
	files      map[inode]*file
	ring       []*file              // the same files in the order of birth; each gets its turn
	turns      []*file              // the ring as it was when the round began
	next       int                  // whose turn is first in the next round
	parked     map[uint64][]*parked // by inode number
	ghosts     map[string]*parked   // by path: a file that is gone and whose inode number another one got
	lost       map[string]bool      // paths of which a generation was gone at the start; the next one tells of it
	occupants  map[string]inode     // what stood at each matched path in the last scan
	patterns   []pattern
	headers    map[string]keptHeader // by path
	problems   map[string]problem
	removals   []fileID // positions to remove with the next batch
	notes      []string // patterns to note as seen with the next batch
	scans      int
	looked     int       // how many paths the last scan looked at
	searchTill time.Time // siblings are searched in every scan until then
	searchNext time.Time
	touched    []*file // files that have records in the batch
	scratch    []byte  // headBytes + tailBytes
	blockBytes int     // of one read
	birthOf    func(fd int) int64
	headerRow  []byte // for looking at the start of a file

	mu sync.Mutex // guards ring, problems, and in each file path, rotated, size, durable, counts and problem
}

// parked is the position of a file that is not open.
type parked struct {
	position
	lastPath   string // where it was seen last
	recognized status // of the file when it was compared last
	goneSince  time.Time
}

type problem struct {
	text    string
	missing bool
}

// New checks the options and reads the positions. It opens nothing. An error means that a pattern is malformed or that
// a position cannot be read; then following would read files again or leave something out.
func New(opt Options) (*Follower, error) {
	setDefaults(&opt)
	f := &Follower{
		opt:        opt,
		log:        opt.Logger,
		files:      make(map[inode]*file),
		parked:     make(map[uint64][]*parked),
		ghosts:     make(map[string]*parked),
		lost:       make(map[string]bool),
		occupants:  make(map[string]inode),
		headers:    make(map[string]keptHeader),
		problems:   make(map[string]problem),
		scratch:    make([]byte, headBytes+tailBytes),
		blockBytes: blockBytes,
		birthOf:    birthOf,
	}
	for _, text := range opt.Paths {
		p, err := parsePattern(text)
		if err != nil {
			return nil, err
		}
		f.patterns = append(f.patterns, p)
	}
	for _, text := range opt.Exclude {
		if _, err := parsePattern(text); err != nil {
			return nil, err
		}
	}
	for _, pos := range opt.Positions {
		if len(pos.Value) == 0 {
			continue
		}
		if err := f.restore(pos); err != nil {
			return nil, fmt.Errorf("stored position %q: %w", pos.Key, err)
		}
	}
	return f, nil
}

func setDefaults(opt *Options) {
	positive(&opt.MaxRecord, DefaultMaxRecord)
	positive(&opt.MaxFiles, DefaultMaxFiles)
	positive(&opt.PollInterval, DefaultPollInterval)
	positive(&opt.PartialAfter, DefaultPartialAfter)
	positive(&opt.CloseAfter, DefaultCloseAfter)
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
}

func positive[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

func (f *Follower) restore(pos audit.Position) error {
	if len(pos.Key) > 0 && pos.Key[0] == keyPattern {
		for i := range f.patterns {
			if f.patterns[i].text == string(pos.Key[1:]) {
				f.patterns[i].seen = true
			}
		}
		return nil
	}
	p, err := decodePosition(pos.Key, pos.Value)
	if err != nil {
		return err
	}
	f.restoreHeader(p)
	f.park(&parked{position: *p, lastPath: p.path})
	return nil
}

// Run follows the files until ctx is done, then returns nil, with everything closed. With Options.Once it returns by
// itself when all files were read to their end. It blocks as long as put blocks, but goes on looking for files
// meanwhile.
func (f *Follower) Run(ctx context.Context, put PutFunc) error {
	batch := audit.GetRecords(f.opt.Source)
	defer batch.Release()
	defer f.closeAll()
	w := startWatch(f.log, f.opt.Once)
	defer w.stop()

	var nextScan, soonest time.Time
	for ctx.Err() == nil {
		if began := time.Now(); !began.Before(nextScan) {
			f.scan(began)
			w.follow(f.directories())
			rest := time.Duration(f.looked) * scanPause
			nextScan = began.Add(max(f.opt.PollInterval, rest))
			soonest = began.Add(max(wakeInterval, rest))
		}
		more, err := f.round(ctx, put, batch)
		if err != nil || f.opt.Once && !more && f.finished() {
			break
		}
		if !more {
			nextScan = w.wait(ctx, nextScan, soonest)
		}
	}
	return nil
}

// round gives each file that has something new one turn and hands over what they read. more says that some file has
// more. The only error is that ctx ended.
func (f *Follower) round(ctx context.Context, put PutFunc, batch *audit.Records) (more bool, err error) {
	now := time.Now()
	f.closeIdle(now)
	f.turns = append(f.turns[:0], f.ring...) // scanning while put waits changes the ring
	for i := range f.turns {
		fl := f.turns[(f.next+i)%len(f.turns)]
		if !f.ready(fl, now) {
			continue
		}
		if f.turn(fl, batch, now) {
			more = true
		}
		if batch.Bytes() >= batchBytes || len(batch.List) >= batchRecords {
			if err := f.deliver(ctx, put, batch); err != nil {
				return false, err
			}
			now = time.Now()
		}
	}
	f.next++
	return more, f.deliver(ctx, put, batch)
}

// deliver puts the batch, with the positions behind its records, until it is durable or ctx ends. Then the batch is
// empty.
func (f *Follower) deliver(ctx context.Context, put PutFunc, batch *audit.Records) error {
	removals, notes := len(f.removals), len(f.notes)
	if len(f.touched)+removals+notes == 0 {
		batch.Reset()
		return nil
	}
	for _, id := range f.removals {
		batch.Positions = append(batch.Positions, audit.Position{Key: id.appendKey(nil)})
	}
	for _, fl := range f.touched {
		batch.Positions = append(batch.Positions, audit.Position{
			Key:   fl.id.appendKey(batch.Alloc(1 + len(fl.id))[:0]),
			Value: fl.position.append(batch.Alloc(positionBytes(fl))[:0]),
		})
	}
	for _, text := range f.notes {
		batch.Positions = append(batch.Positions, audit.Position{
			Key: append([]byte{keyPattern}, text...), Value: []byte{positionVersion},
		})
	}
	if err := f.putUntilTaken(ctx, put, batch); err != nil {
		return err
	}
	f.mu.Lock()
	for _, fl := range f.touched {
		fl.commit()
	}
	f.mu.Unlock()
	f.touched = f.touched[:0]
	f.removals = append(f.removals[:0], f.removals[removals:]...)
	f.notes = append(f.notes[:0], f.notes[notes:]...)
	batch.Reset()
	return nil
}

func (f *Follower) putUntilTaken(ctx context.Context, put PutFunc, batch *audit.Records) error {
	var last string
	for {
		err := f.putAndScan(ctx, put, batch)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if err.Error() != last {
			last = err.Error()
			f.log.Warn("records not taken, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryInterval):
		}
	}
}

// putAndScan waits for put and scans meanwhile, so that files which are rotated away and deleted are held open.
func (f *Follower) putAndScan(ctx context.Context, put PutFunc, batch *audit.Records) error {
	taken := make(chan error, 1)
	go func() {
		_, err := put(ctx, batch)
		taken <- err
	}()
	poll := time.NewTimer(f.opt.PollInterval)
	defer poll.Stop()
	for {
		select {
		case err := <-taken:
			return err
		case <-poll.C:
			f.scan(time.Now())
			poll.Reset(max(f.opt.PollInterval, time.Duration(f.looked)*scanPause))
		}
	}
}

// finished reports whether a run with Options.Once has nothing left to do.
func (f *Follower) finished() bool {
	for _, fl := range f.ring {
		if !fl.atRest && fl.problem == "" {
			return false
		}
	}
	return true
}

func (f *Follower) closeAll() {
	for _, fl := range f.ring {
		closeFile(fl.fd)
	}
}

// Files returns what can be told of each file that is followed, of each pattern without files, and of each path that is
// refused. Safe for concurrent use; it waits for no I/O.
func (f *Follower) Files() []File {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]File, 0, len(f.ring)+len(f.problems))
	for _, fl := range f.ring {
		list = append(list, File{
			Path: fl.seenAt, Problem: fl.problem, Rotated: fl.rotated,
			Offset: fl.durable, Size: fl.size, Counts: fl.counts,
		})
	}
	for path, p := range f.problems {
		list = append(list, File{Path: path, Problem: p.text, Missing: p.missing})
	}
	return list
}

// ErrPattern says that a path pattern is malformed.
var ErrPattern = errors.New("malformed pattern")
