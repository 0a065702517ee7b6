package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/queue"
)

// Product and classes of the relay's own events.
const (
	ownProduct        = "auditrelay"
	classQueueDamaged = "queue_damaged"
)

const (
	// damagePending bounds the damaged ranges that wait to become events.
	damagePending = 256
	// damageKnown bounds the marks that keep a range from being named again at each start.
	damageKnown = 1000
	// ownWait bounds how long one of the relay's own events waits for space.
	ownWait = 10 * time.Second
)

// ownEvents writes events about the relay itself into the log, as a source of its own: what went missing is named in the
// stream that has the gap.
type ownEvents struct {
	intake    *intake
	queue     *queue.Queue // from open on
	logger    *slog.Logger
	pending   chan queue.Damage
	unwritten atomic.Int64  // found and not yet in the log
	dropped   atomic.Uint64 // found while pending was full, or not written for another reason: only in our own log
	written   func()        // told when unwritten has changed
	shedding  []*shedding   // of the sources that may shed
}

func newOwnEvents(logger *slog.Logger, written func()) *ownEvents {
	return &ownEvents{
		intake: &intake{source: config.OwnSource}, logger: logger, written: written,
		pending: make(chan queue.Damage, damagePending),
	}
}

// damaged is queue.Options.Damaged: it returns at once and does not call the queue.
func (o *ownEvents) damaged(d queue.Damage) {
	o.unwritten.Add(1)
	select {
	case o.pending <- d:
	default:
		o.unwritten.Add(-1)
		o.dropped.Add(1)
		o.logger.Error("too many damaged ranges at once, this one is not named by an event",
			"file", d.File, "offset", d.Offset, "first", d.First, "last", d.Last, "reason", d.Reason)
	}
}

// run writes events until ctx is done, and then what was found until then.
func (o *ownEvents) run(ctx context.Context) {
	o.forgetOld()
	ticker := time.NewTicker(shedEvery)
	defer ticker.Stop()
	for {
		select {
		case d := <-o.pending:
			o.write(ctx, d)
			continue
		case <-ticker.C:
			o.nameShed(ctx)
			continue
		case <-ctx.Done():
		}
		select {
		case d := <-o.pending:
			o.write(ctx, d)
		default:
			o.nameShed(ctx)
			return
		}
	}
}

// write makes an event of a range, unless an earlier start did.
func (o *ownEvents) write(ctx context.Context, d queue.Damage) {
	defer func() {
		o.unwritten.Add(-1)
		o.written()
	}()
	key := damageKey(d)
	if _, known := o.queue.Mark(key); known {
		return
	}
	var marks [][]byte
	// Damage in other files than segments is repaired when it is found, so the next one is new.
	if strings.HasSuffix(d.File, segmentSuffix) && o.knownRanges() < damageKnown {
		marks = append(marks, queue.AppendMark(nil, key, []byte{1}))
	}
	ev := damageEvent(d, time.Now())
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ownWait)
	defer cancel()
	if _, err := o.intake.putEvent(ctx, &ev, marks); err != nil {
		o.dropped.Add(1)
		o.logger.Error("a damaged range of the queue could not be named by an event",
			"file", d.File, "offset", d.Offset, "first", d.First, "last", d.Last, "reason", d.Reason, "error", err)
	}
}

const (
	// damagePrefix begins the queue marks of ranges that were named by an event.
	damagePrefix = "d/"
	// segmentSuffix ends the names of segments.
	segmentSuffix = ".seg"
)

// damageKey names a range: file, offset and first number.
func damageKey(d queue.Damage) []byte {
	return fmt.Appendf(nil, "%s%s@%d+%d", damagePrefix, d.File, d.Offset, d.First)
}

func (o *ownEvents) knownRanges() (n int) {
	for key := range o.queue.Marks() {
		if bytes.HasPrefix(key, []byte(damagePrefix)) {
			n++
		}
	}
	return n
}

// forgetOld removes the marks of ranges in segments that are deleted.
func (o *ownEvents) forgetOld() {
	files := map[string]bool{}
	for _, seg := range o.queue.Segments() {
		files[seg.File] = true
	}
	var marks [][]byte
	for key := range o.queue.Marks() {
		rest, ok := bytes.CutPrefix(key, []byte(damagePrefix))
		file, _, _ := bytes.Cut(rest, []byte("@"))
		if ok && !files[string(file)] {
			marks = append(marks, queue.AppendMark(nil, key, nil))
		}
	}
	if len(marks) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), ownWait)
	defer cancel()
	if _, err := o.queue.Append(ctx, nil, marks); err != nil {
		o.logger.Warn("marks of damage in deleted segments were not removed, it is tried again at the next start", "error", err)
	}
}

// damageEvent says what is damaged, and which numbers are lost.
func damageEvent(d queue.Damage, now time.Time) audit.Event {
	message := fmt.Sprintf("%s at byte %d: %s; no event is known to be lost", d.File, d.Offset, d.Reason)
	facts := []string{"file", d.File, "offset", strconv.FormatInt(d.Offset, 10), "bytes", strconv.FormatInt(d.Bytes, 10), "reason", d.Reason}
	if d.First > 0 {
		message = fmt.Sprintf("events %d to %d are lost: %s at byte %d: %s", d.First, d.Last, d.File, d.Offset, d.Reason)
		facts = append(facts, "first", strconv.FormatUint(d.First, 10), "last", strconv.FormatUint(d.Last, 10))
	}
	return ownEvent(now, classQueueDamaged, audit.SeverityError, "Queue damaged", message, facts)
}

// ownEvent makes an event about the relay itself. facts are names and values in turn.
func ownEvent(now time.Time, class string, severity audit.Severity, name, message string, facts []string) audit.Event {
	now = now.UTC().Truncate(time.Millisecond)
	ev := audit.Event{
		Time: now, Received: now, Source: config.OwnSource, Product: ownProduct, Class: class,
		Severity: severity, Outcome: audit.OutcomeFailure, Known: true, Marks: audit.MarkPossibleLoss,
	}
	_, _ = rand.Read(ev.Salt[:]) // crypto/rand.Read never fails: it ends the process if the system has no randomness
	ev.Fields = append(ev.Fields,
		audit.Field{Key: audit.KeyName, Value: []byte(name)}, audit.Field{Key: audit.KeyMessage, Value: []byte(message)})
	for pair := range slices.Chunk(facts, 2) {
		ev.Fields = append(ev.Fields, audit.Field{Key: audit.KeyAttribute, Name: []byte(pair[0]), Value: []byte(pair[1])})
	}
	ev.SortFields()
	return ev
}
