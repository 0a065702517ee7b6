package relay

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/auditrelay/auditrelay/collect"
	"github.com/auditrelay/auditrelay/forward"
)

// watchEvery is how often a running relay looks at its own health.
const watchEvery = 30 * time.Second

// The levels of health.
const (
	HealthGreen  = "green"
	HealthYellow = "yellow" // something is slower, missing or near a limit; nothing is lost by us
	HealthRed    = "red"    // records are not taken, or the balance does not close
)

// Health is the worst level of all reasons, green without any.
type Health struct {
	Level   string   `json:"level"`
	Reasons []Reason `json:"reasons"`
}

// Reason is one thing that is not as it should be.
type Reason struct {
	Level   string `json:"level"`
	Code    string `json:"code"`              // one word for machines; see the calls of add
	Subject string `json:"subject,omitempty"` // id of the source or destination, name of the input
	Text    string `json:"text"`
}

func (h *Health) add(level, code, subject, format string, args ...any) {
	if h.Level != HealthRed {
		h.Level = level
	}
	h.Reasons = append(h.Reasons, Reason{Level: level, Code: code, Subject: subject, Text: fmt.Sprintf(format, args...)})
}

// assess finds everything in a status that is not as it should be.
func (r *Relay) assess(s *Status) Health {
	h := Health{Level: HealthGreen, Reasons: []Reason{}}
	h.sheet(s.Sheet)
	h.queue(&s.Queue, int64(r.config.Queue.WarnAt))
	for i := range s.Destinations {
		h.destination(&s.Destinations[i])
	}
	for i := range s.Sources {
		h.source(&s.Sources[i])
	}
	return h
}

func (h *Health) sheet(s *Sheet) {
	for _, x := range s.Sources {
		if n := x.Remainder(); n != 0 {
			h.add(HealthRed, "remainder", "collect."+x.ID, "the balance of source %s does not close, remainder %d", x.ID, n)
		}
	}
	for _, x := range s.Destinations {
		if n := x.Remainder(); n != 0 {
			h.add(HealthRed, "remainder", "forward."+x.ID, "the balance of destination %s does not close, remainder %d", x.ID, n)
		}
	}
}

func (h *Health) queue(q *QueueStatus, warnAt int64) {
	switch {
	case q.Full:
		h.add(HealthRed, "queue_full", "", "the queue is full, sources wait: %s", q.Error)
	case q.Error != "":
		h.add(HealthRed, "queue_stopped", "", "the queue takes nothing: %s", q.Error)
	}
	// Division first: the product of a large size and 100 would not fit.
	if limit := q.MaxBytes / 100 * warnAt; q.MaxBytes > 0 && q.BacklogBytes >= limit {
		h.add(HealthYellow, "queue_soft_limit", "", "%d of %d bytes of the queue are not delivered, which is over warn_at (%d%%)",
			q.BacklogBytes, q.MaxBytes, warnAt)
	}
	if q.DamagedRanges > 0 {
		h.add(HealthYellow, "queue_damaged", "",
			"%d damaged ranges were found in the queue since the start, %d events are lost in them: see queue check",
			q.DamagedRanges, q.DamagedEntries)
	}
	if q.SheddingBelow != "" {
		h.add(HealthYellow, "shedding", "", "the queue is nearly full, new records below %s are refused and counted", q.SheddingBelow)
	}
	if q.DamagedUnnamed > 0 {
		h.add(HealthYellow, "damage_unnamed", "", "%d damaged ranges are named by no event, only in the log of the daemon", q.DamagedUnnamed)
	}
}

func (h *Health) destination(d *DestinationStatus) {
	switch d.State {
	case forward.StateRetrying.String():
		h.add(HealthYellow, "destination_retrying", d.ID, "destination %s: %s", d.ID, d.LastError)
	case forward.StateStopped.String():
		if d.LastError != "" { // without an error it is just being started
			h.add(HealthRed, "destination_stopped", d.ID, "destination %s: %s", d.ID, d.LastError)
		}
	}
}

func (h *Health) source(s *SourceStatus) {
	if s.Failure != "" {
		h.add(HealthYellow, "input_degraded", s.ID, "source %s does not run: %s", s.ID, s.Failure)
	}
	for _, in := range s.Inputs {
		if in.State == collect.StateDegraded.String() {
			h.add(HealthYellow, "input_degraded", s.ID+" "+in.Name, "source %s, %s: %s", s.ID, in.Name, in.Reason)
		}
	}
}

// watch looks at the health every watchEvery until ctx is done and logs what changed.
func (r *Relay) watch(ctx context.Context) {
	w := watcher{logger: r.opt.Logger}
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		w.note(r.Status().Health)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// watcher remembers which reasons were logged.
type watcher struct {
	logger *slog.Logger
	known  map[reasonKey]string // text as logged
}

type reasonKey struct{ code, subject string }

// note logs reasons that are new and those that are over, each once. A remainder is logged again when it changes, and as
// an error: records were lost or doubled.
func (w *watcher) note(h Health) {
	now := make(map[reasonKey]string, len(h.Reasons))
	for _, reason := range h.Reasons {
		key := reasonKey{reason.Code, reason.Subject}
		before, logged := w.known[key]
		if !logged || reason.Code == "remainder" && before != reason.Text {
			level := slog.LevelWarn
			if reason.Level == HealthRed {
				level = slog.LevelError
			}
			w.logger.Log(context.Background(), level, "health", "level", reason.Level, "code", reason.Code, "reason", reason.Text)
		}
		now[key] = reason.Text
	}
	for key, text := range w.known {
		if _, still := now[key]; !still {
			w.logger.Info("health: this is over", "code", key.code, "reason", text)
		}
	}
	w.known = now
}
