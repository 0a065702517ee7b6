package relay

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

const (
	// whenFullShed is the word of queue.when_full that allows shedding.
	whenFullShed     = "shed"
	classRecordsShed = "records_shed"
	// shedEvery is how often a source that shed is named by an event.
	shedEvery = time.Minute
	// takeAll is below every severity, also that of an event without one.
	takeAll = audit.Severity(0)
	// shedWait is how long a batch waits for space before all of it that may be shed is.
	shedWait = 500 * time.Millisecond
)

// shedding is what one source may refuse while the queue is nearly full, because the operator wrote when_full: shed.
// What was refused is counted in the source's line of the sheet, in the same frame as the events that stayed, and named
// by an event. Nothing is removed from the log.
type shedding struct {
	source string
	lowest func() audit.Severity // the lowest severity that is taken now

	mu  sync.Mutex
	run shedRun // since it was last named; guarded by mu
}

// shedRun is what was refused in some time.
type shedRun struct {
	count       uint64
	bySeverity  [audit.SeverityCritical + 1]uint64
	first, last time.Time // received
}

func (r *shedRun) add(ev *audit.Event) {
	r.merge(&shedRun{count: 1, first: ev.Received, last: ev.Received})
	severity := ev.Severity
	if severity == 0 {
		severity = audit.SeverityInfo // as it is shown everywhere
	}
	r.bySeverity[severity]++
}

func (r *shedRun) merge(o *shedRun) {
	if o.count == 0 {
		return
	}
	if r.count == 0 || o.first.Before(r.first) {
		r.first = o.first
	}
	if r.count == 0 || o.last.After(r.last) {
		r.last = o.last
	}
	r.count += o.count
	for i, n := range o.bySeverity {
		r.bySeverity[i] += n
	}
}

func (s *shedding) note(run *shedRun) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run.merge(run)
}

// take returns what was refused since the last call.
func (s *shedding) take() shedRun {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.run
	s.run = shedRun{}
	return run
}

// lowestTaken returns the lowest severity that the queue takes when it may shed: notice from 95 % of maxBytes on, warning
// from 97 %, error from 99 % and while it is full. Delivered segments do not count: they go when space is needed. Errors
// and critical events are never refused.
func lowestTaken(q *queue.Queue, maxBytes int64) audit.Severity {
	st := q.Stats()
	if waitsForSpace(&st) {
		return audit.SeverityError
	}
	limit := func(percent int64) int64 { return maxBytes/100*percent + maxBytes%100*percent/100 }
	if maxBytes <= 0 || st.DiskBytes < limit(95) {
		return takeAll
	}
	switch backlog := backlogBytes(q); {
	case backlog >= limit(99):
		return audit.SeverityError
	case backlog >= limit(97):
		return audit.SeverityWarning
	case backlog >= limit(95):
		return audit.SeverityNotice
	default:
		return takeAll
	}
}

// openShedding lets the sources shed if the configuration says so.
func (r *Relay) openShedding() {
	if r.config.Queue.WhenFull != whenFullShed {
		return
	}
	for _, s := range r.sources {
		s.intake.shedding = &shedding{
			source: s.config.ID, lowest: func() audit.Severity { return lowestTaken(r.queue, int64(r.config.Queue.MaxSize)) },
		}
		r.own.shedding = append(r.own.shedding, s.intake.shedding)
	}
}

// nameShed writes one event for each source that shed since the last call. What cannot be written is named next time.
func (o *ownEvents) nameShed(ctx context.Context) {
	for _, s := range o.shedding {
		run := s.take()
		if run.count == 0 {
			continue
		}
		ev := shedEvent(s.source, &run, time.Now())
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ownWait)
		_, err := o.intake.putEvent(ctx, &ev, nil)
		cancel()
		if err != nil {
			s.note(&run)
			o.logger.Error("records that were shed could not be named by an event", "collect", s.source, "records", run.count, "error", err)
		}
	}
}

func shedEvent(source string, run *shedRun, now time.Time) audit.Event {
	facts := []string{
		"source", source, "count", strconv.FormatUint(run.count, 10),
		"first", run.first.UTC().Format(time.RFC3339Nano), "last", run.last.UTC().Format(time.RFC3339Nano),
	}
	var parts []string
	for severity := audit.SeverityDebug; severity <= audit.SeverityCritical; severity++ {
		if n := run.bySeverity[severity]; n > 0 {
			facts = append(facts, severity.String(), strconv.FormatUint(n, 10))
			parts = append(parts, fmt.Sprintf("%s %d", severity, n))
		}
	}
	message := fmt.Sprintf("%d records of source %s, received from %s to %s, were refused because the queue is nearly full: %s",
		run.count, source, facts[5], facts[7], strings.Join(parts, ", "))
	return ownEvent(now, classRecordsShed, audit.SeverityError, "Records shed", message, facts)
}
