package tail

import (
	"slices"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// file is one open file. Its position is where reading goes on; it runs ahead of what is durable only while a batch is
// being filled or put.
type file struct {
	position
	fd int

	// What is known of the name and the neighbours.
	seenAt  string // where it is or was last; guarded by Follower.mu
	family  string // the path of which it is one generation
	rotated bool   // seenAt leads elsewhere; guarded by Follower.mu
	scan    int    // the last scan that saw it at a matched path
	after   *file  // the generation before it, until that one is read to its end

	// What is known of its content.
	known     bool          // the start was looked at: origin is set, offset is behind the header
	fromEnd   bool          // begin at the end once the start was looked at
	hasID     bool          // position.id is drawn
	replaces  []fileID      // positions of what the file was before it was truncated
	origin    *audit.Origin // shared by its records
	repeats   bool          // CSV: a row that is equal to the header repeats it and is no record
	firstByte int64         // where the first record can begin: behind holes, byte order mark and header
	marks     audit.Marks   // for the next record

	size, mtime           int64 // as of the last look; size is guarded by Follower.mu
	triedSize, triedMtime int64 // as of the last turn; the file gets no turn before one of them changed
	limit                 int64 // Options.Once: where the file ended when it was opened; -1 otherwise
	atRest                bool  // the last turn left nothing to do
	unfinished            bool  // there are bytes behind the last record end
	quoteOpen             bool  // … with line ends in them, that a quote made part of the record
	grownAt               time.Time
	unfinishedAt          time.Time // since when the record at offset waits for its end
	waitsFor              int64     // the offset of that record

	failedAt time.Time // when the problem was met last
	problem  string    // why it is not read; guarded by Follower.mu
	durable  int64     // offset that is durable; guarded by Follower.mu
	counts   Counts    // of what is durable; guarded by Follower.mu
	fresh    Counts    // of what is in the batch
	touched  bool      // has records in the batch
}

// newFile makes what is known of a file that was just opened. A record in it that has no end may be older than we are.
func newFile(fd int, st status, birth int64, path string, now time.Time) *file {
	grownAt := now
	if age := now.UnixNano() - st.mtime; age > 0 {
		grownAt = now.Add(-time.Duration(age))
	}
	return &file{
		position:  position{node: st.inode, birth: birth, mtime: st.mtime, path: path},
		fd:        fd,
		seenAt:    path,
		size:      st.size,
		mtime:     st.mtime,
		triedSize: -1,
		limit:     -1,
		grownAt:   grownAt,
		waitsFor:  -1,
	}
}

// resume makes the file go on where p says.
func (fl *file) resume(p *position) {
	node, birth := fl.node, fl.birth
	fl.position = *p
	fl.node, fl.hasID, fl.durable = node, true, p.offset
	if birth != 0 {
		fl.birth = birth
	}
}

// restart makes the file begin again at its start, as another file: records that come now must not get old keys.
func (fl *file) restart() {
	if fl.hasID {
		fl.replaces = append(fl.replaces, fl.id)
	}
	fl.position = position{
		node: fl.node, birth: fl.birth, mtime: fl.mtime, truncations: fl.truncations + 1, path: fl.path,
	}
	fl.hasID, fl.known, fl.origin, fl.firstByte, fl.fromEnd = false, false, nil, 0, false
	fl.unfinished, fl.quoteOpen, fl.waitsFor, fl.triedSize = false, false, -1, -1
	fl.marks |= audit.MarkPossibleLoss
	fl.fresh.Truncations++
}

// look notes what fstat or lstat said.
func (f *Follower) look(fl *file, st status, now time.Time) {
	if st.size == fl.size && st.mtime == fl.mtime {
		return
	}
	fl.grownAt = now
	fl.mtime = st.mtime
	f.mu.Lock()
	fl.size = st.size
	f.mu.Unlock()
}

// trouble notes why the file is not read, or with an empty text that it is, and logs the change.
func (f *Follower) trouble(fl *file, text string) {
	if fl.problem == text {
		return
	}
	f.mu.Lock()
	fl.problem = text
	f.mu.Unlock()
	if text == "" {
		f.log.Info("file is read again", "path", fl.seenAt)
	} else {
		f.log.Warn("file is not read", "path", fl.seenAt, "reason", text)
	}
}

// ready reports whether a turn may find something: the file changed, or its last record waited long enough.
func (f *Follower) ready(fl *file, now time.Time) bool {
	if fl.after != nil {
		if !f.drained(fl.after, now) {
			return false
		}
		fl.after = nil
	}
	return fl.size != fl.triedSize || fl.mtime != fl.triedMtime ||
		fl.unfinished && !fl.atRest && f.due(fl, now) ||
		fl.problem != "" && now.Sub(fl.failedAt) >= failureInterval
}

// due reports whether the record without an end at the file's offset waited long enough. One that goes over several
// lines need not stop growing: a quote that was never closed would swallow what comes after it.
func (f *Follower) due(fl *file, now time.Time) bool {
	return now.Sub(fl.grownAt) >= f.opt.PartialAfter ||
		fl.quoteOpen && now.Sub(fl.unfinishedAt) >= f.opt.PartialAfter
}

// drained reports whether a generation was read to its end, so that the next one may be read.
func (f *Follower) drained(fl *file, now time.Time) bool {
	if fl.fd < 0 || fl.problem != "" {
		return true
	}
	st, err := statFile(fl.fd)
	if err != nil {
		return true
	}
	f.look(fl, st, now)
	return fl.after == nil && st.size == fl.triedSize && st.mtime == fl.triedMtime
}

// closeIdle closes rotated files that were read to their end and did not grow for long enough.
func (f *Follower) closeIdle(now time.Time) {
	closed := false
	for _, fl := range f.ring {
		if !fl.rotated {
			continue
		}
		st, err := statFile(fl.fd)
		if err == nil {
			f.look(fl, st, now)
		}
		read := fl.atRest && fl.triedSize == fl.size && fl.triedMtime == fl.mtime
		if (err != nil || read) && now.Sub(fl.grownAt) >= f.opt.CloseAfter {
			f.close(fl, err == nil && st.links == 0 && fl.problem == "")
			closed = true
		}
	}
	if closed {
		f.mu.Lock()
		f.ring = slices.DeleteFunc(f.ring, func(fl *file) bool { return fl.fd < 0 })
		f.mu.Unlock()
	}
}

// close closes a file. What has no name any more and was read is forgotten; of anything else the position is kept.
func (f *Follower) close(fl *file, gone bool) {
	closeFile(fl.fd)
	fl.fd = -1
	delete(f.files, fl.node)
	f.log.Debug("rotated file closed", "path", fl.seenAt, "offset", fl.offset, "deleted", gone)
	switch {
	case !fl.hasID:
	case gone:
		f.removals = append(f.removals, fl.id)
	default:
		f.park(&parked{position: fl.position, lastPath: fl.seenAt})
	}
}

// draw gives the file its id. first is the start of the file up to the end of its first record.
func (fl *file) draw(first []byte) {
	if !fl.hasID {
		fl.id = newFileID(fl.node, fl.birth, fl.truncations, first)
		fl.hasID = true
	}
}

// touch says that the next batch carries the file's position. Older positions of the file go in the same batch: until
// then they tell that it was truncated.
func (f *Follower) touch(fl *file) {
	if !fl.touched {
		fl.touched = true
		f.touched = append(f.touched, fl)
		f.removals = append(f.removals, fl.replaces...)
		fl.replaces = nil
	}
}

// commit notes that the batch is durable. The caller holds Follower.mu.
func (fl *file) commit() {
	fl.touched = false
	fl.durable = fl.offset
	c, n := &fl.counts, &fl.fresh
	c.Records += n.Records
	c.Bytes += n.Bytes
	c.Blank += n.Blank
	c.Parts += n.Parts
	c.Partials += n.Partials
	c.Truncations += n.Truncations
	c.Zeros += n.Zeros
	fl.fresh = Counts{}
}

// positionBytes is at least what position.append needs.
func positionBytes(fl *file) int { return 192 + len(fl.path) + len(fl.header) }
