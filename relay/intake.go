package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/normalize"
	"github.com/auditrelay/auditrelay/queue"
)

// groupBytes is how much waiting work of one source goes into one append. The queue's own group commit is as large.
const groupBytes = 256 << 10

// Appender is what the intake needs of the queue; see queue.Queue.Append.
type Appender interface {
	Append(ctx context.Context, entries, marks [][]byte) (first uint64, err error)
}

// intake is where one source's records become durable events: normalize, encode, append. Its put may be called by many
// goroutines at once; what they bring is normalized side by side and appended in one order, because the source's line of
// the balance sheet is stored in the same frame as the events it counts.
type intake struct {
	source     string
	normalizer *normalize.Normalizer
	log        Appender
	shedding   *shedding // nil: every record waits for space

	spare sync.Pool // of *submission, for the next put

	mu      sync.Mutex
	waiting []*submission // in order of arrival; guarded by mu
	leading bool          // some put is appending for all; guarded by mu
	sheet   SourceSheet   // as last stored; guarded by mu
}

// open connects the intake with the queue and reads its line of the sheet.
func (in *intake) open(q *queue.Queue) error {
	in.log = q
	value, ok := q.Mark(sheetKey(in.source))
	if !ok {
		return nil
	}
	var err error
	if in.sheet, err = decodeSourceSheet(value); err != nil {
		return fmt.Errorf("source %s: %w", in.source, err)
	}
	return nil
}

// submission is one batch on its way into the log.
type submission struct {
	ctx     context.Context // the submission is the call: it lives as long as its put
	buf     []byte          // the encoded events, one after the other
	ends    []int           // where each ends in buf
	marks   [][]byte
	counts  SourceSheet   // what this batch adds
	shed    shedRun       // what was refused of it
	mayShed bool          // some of it may still be refused
	outcome chan appended // capacity 1: the leader never waits for a follower
}

// appended is what became of a submission.
type appended struct {
	through audit.Number
	err     error
	lead    bool // no outcome yet: the caller is to append for all that wait
	again   bool // another caller's context ended while all waited for space: nothing was taken
	full    bool // with again: there is no space, what may be shed is to be
}

// put is the collect.PutFunc of this source.
func (in *intake) put(ctx context.Context, batch *audit.Records) (audit.Number, error) {
	lowest := takeAll
	if in.shedding != nil {
		lowest = in.shedding.lowest()
	}
	for {
		s := in.encode(ctx, batch, lowest)
		done := in.submit(ctx, s)
		in.release(s)
		if !done.full {
			return done.through, done.err
		}
		lowest = audit.SeverityError
	}
}

// putEvent stores one event of the relay's own, with marks.
func (in *intake) putEvent(ctx context.Context, ev *audit.Event, marks [][]byte) (audit.Number, error) {
	s := in.submission()
	defer in.release(s)
	s.ctx = ctx
	s.counts = SourceSheet{Accepted: 1, Stored: 1}
	s.add(ev)
	s.marks = append(s.marks, marks...)
	done := in.submit(ctx, s)
	return done.through, done.err
}

// submit waits until s is durable, ctx is done, or s is to be encoded with less in it.
func (in *intake) submit(ctx context.Context, s *submission) appended {
	for {
		if err := ctx.Err(); err != nil {
			return appended{err: err}
		}
		in.mu.Lock()
		in.waiting = append(in.waiting, s)
		lead := !in.leading
		in.leading = true
		in.mu.Unlock()
		if lead {
			in.lead()
		}
		if done := in.await(s); !done.again || done.full {
			return done
		}
	}
}

// encode normalizes the batch and encodes what is neither filtered nor of a severity below lowest.
func (in *intake) encode(ctx context.Context, batch *audit.Records, lowest audit.Severity) *submission {
	s := in.submission()
	s.ctx = ctx
	events := audit.GetEvents()
	defer events.Release()
	in.normalizer.Normalize(events, batch)
	for i := range events.List {
		ev := &events.List[i]
		s.counts.Accepted++
		switch {
		case ev.Filtered:
			s.counts.Filtered++
		case ev.Severity < lowest:
			s.counts.Shed++
			s.shed.add(ev)
		default:
			s.counts.Stored++
			s.mayShed = s.mayShed || ev.Severity < audit.SeverityError
			s.add(ev)
		}
	}
	for _, p := range batch.Positions {
		s.marks = append(s.marks, queue.AppendMark(nil, positionKey(in.source, p.Key), p.Value))
	}
	return s
}

func (s *submission) add(ev *audit.Event) {
	fit(ev)
	s.buf = ev.AppendBinary(s.buf)
	s.ends = append(s.ends, len(s.buf))
}

// fit leaves the long fields of an event out if it would be larger than an entry of the queue may be. They are in its raw
// record, which is smaller by the limits of every collector.
func fit(ev *audit.Event) {
	const longBytes = 4 << 10
	if len(ev.Raw) < queue.MaxEntryBytes/4 || ev.EncodedSize() <= queue.MaxEntryBytes {
		return
	}
	ev.Fields = slices.DeleteFunc(ev.Fields, func(f audit.Field) bool { return len(f.Value)+len(f.Name) > longBytes })
	ev.Marks |= audit.MarkFieldsCut
}

// submission returns an empty one.
func (in *intake) submission() *submission {
	if s, ok := in.spare.Get().(*submission); ok {
		return s
	}
	return &submission{outcome: make(chan appended, 1)}
}

func (in *intake) release(s *submission) {
	const keptBytes = 1 << 20 // a rare huge batch must not be kept for ever
	if cap(s.buf) > keptBytes {
		return
	}
	*s = submission{buf: s.buf[:0], ends: s.ends[:0], marks: s.marks[:0], outcome: s.outcome}
	in.spare.Put(s)
}

// await waits for what became of s. If its context ends before a leader took it, it is withdrawn.
func (in *intake) await(s *submission) appended {
	for {
		select {
		case done := <-s.outcome:
			if !done.lead {
				return done
			}
			in.lead()
			continue
		case <-s.ctx.Done():
		}
		if in.withdraw(s) {
			return appended{err: s.ctx.Err()}
		}
		if done := <-s.outcome; !done.lead {
			return done
		}
		in.lead()
	}
}

// withdraw takes s out of the line, unless a leader has it already. A leadership that had just been handed to it goes on
// to the next.
func (in *intake) withdraw(s *submission) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	i := slices.Index(in.waiting, s)
	if i < 0 {
		return false
	}
	in.waiting = slices.Delete(in.waiting, i, i+1)
	select {
	case <-s.outcome:
		in.handOverLocked()
	default:
	}
	return true
}

// lead appends one group, the first in line, and hands over to the next that waits.
func (in *intake) lead() {
	in.mu.Lock()
	group, sheet := in.takeGroupLocked(), in.sheet
	in.mu.Unlock()
	in.appendGroup(group, sheet)
	in.mu.Lock()
	in.handOverLocked()
	in.mu.Unlock()
}

// handOverLocked makes the first in line the leader, or nobody. Its channel is empty: it holds an outcome only after it
// was taken out of the line, and leadership goes to one at a time.
func (in *intake) handOverLocked() {
	if in.leading = len(in.waiting) > 0; in.leading {
		in.waiting[0].outcome <- appended{lead: true}
	}
}

func (in *intake) takeGroupLocked() []*submission {
	n, size := 0, 0
	for n < len(in.waiting) && (n == 0 || size+len(in.waiting[n].buf) <= groupBytes) {
		size += len(in.waiting[n].buf)
		n++
	}
	group := in.waiting[:n:n]
	in.waiting = in.waiting[n:]
	if len(in.waiting) == 0 {
		in.waiting = nil
	}
	return group
}

// appendGroup makes one group durable and tells its members. While it waits for space it ends as soon as one of their
// contexts does: nothing was taken then, and the others come again.
func (in *intake) appendGroup(group []*submission, sheet SourceSheet) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(group[0].ctx))
	defer cancel()
	var entries, marks [][]byte
	mayShed := false
	for _, s := range group {
		stop := context.AfterFunc(s.ctx, cancel)
		defer stop()
		start := 0
		for _, end := range s.ends {
			entries = append(entries, s.buf[start:end:end])
			start = end
		}
		marks = append(marks, s.marks...)
		sheet.add(s.counts)
		mayShed = mayShed || s.mayShed
	}
	if in.shedding != nil && mayShed {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, shedWait)
		defer stop()
	}
	marks = append(marks, queue.AppendMark(nil, sheetKey(in.source), sheet.encode(nil)))
	first, err := in.log.Append(ctx, entries, marks)
	if err == nil {
		in.mu.Lock()
		in.sheet = sheet
		in.mu.Unlock()
		in.noteShed(group)
	}
	full := errors.Is(err, context.DeadlineExceeded)
	refused := err != nil && (errors.Is(err, context.Canceled) || full)
	through := first - 1
	for _, s := range group {
		through += uint64(len(s.ends))
		switch {
		case err == nil:
			s.outcome <- appended{through: audit.Number(through)}
		case refused && s.ctx.Err() == nil:
			s.outcome <- appended{again: true, full: full}
		case refused:
			s.outcome <- appended{err: s.ctx.Err()}
		default:
			s.outcome <- appended{err: err}
		}
	}
}

// noteShed notes what the sheet counts now.
func (in *intake) noteShed(group []*submission) {
	if in.shedding == nil {
		return
	}
	for _, s := range group {
		in.shedding.note(&s.shed)
	}
}

// Sheet returns the source's line as last stored.
func (in *intake) Sheet() SourceSheet {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.sheet
}
