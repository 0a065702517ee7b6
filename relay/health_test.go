package relay

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/queue"
)

// wellStatus is a status without any reason.
func wellStatus() *Status {
	return &Status{
		Sheet: &Sheet{
			Sources:      []NamedSource{{"portal", SourceSheet{Accepted: 5, Stored: 3, Filtered: 2}}},
			Destinations: []NamedDestination{{"soc", DestinationSheet{Stored: 5, Delivered: 4, Queued: 1}}},
		},
		Sources:      []SourceStatus{{ID: "portal", Inputs: []InputStatus{{Name: "/a", State: "ok"}, {Name: "/b", State: "waiting"}}}},
		Destinations: []DestinationStatus{{ID: "soc", State: "ok", LastError: "long over"}},
		Queue:        QueueStatus{MaxBytes: 1000, BacklogBytes: 799},
	}
}

func TestHealth(t *testing.T) {
	r := &Relay{config: &config.Config{Queue: config.Queue{WarnAt: 80}}}
	require.Equal(t, Health{Level: HealthGreen, Reasons: []Reason{}}, r.assess(wellStatus()))
	for name, c := range map[string]struct {
		change             func(s *Status)
		level, code, about string
	}{
		"remainder of a source":        {func(s *Status) { s.Sheet.Sources[0].Accepted++ }, HealthRed, "remainder", "collect.portal"},
		"remainder of a destination":   {func(s *Status) { s.Sheet.Destinations[0].Delivered-- }, HealthRed, "remainder", "forward.soc"},
		"queue full":                   {func(s *Status) { s.Queue.Full, s.Queue.Error = true, "x" }, HealthRed, "queue_full", ""},
		"queue stopped":                {func(s *Status) { s.Queue.Error = "x" }, HealthRed, "queue_stopped", ""},
		"queue over the soft limit":    {func(s *Status) { s.Queue.BacklogBytes = 800 }, HealthYellow, "queue_soft_limit", ""},
		"damage":                       {func(s *Status) { s.Queue.DamagedRanges = 1 }, HealthYellow, "queue_damaged", ""},
		"shedding":                     {func(s *Status) { s.Queue.SheddingBelow = "notice" }, HealthYellow, "shedding", ""},
		"damage without an event":      {func(s *Status) { s.Queue.DamagedUnnamed = 1 }, HealthYellow, "damage_unnamed", ""},
		"destination retrying":         {func(s *Status) { s.Destinations[0].State = "retrying" }, HealthYellow, "destination_retrying", "soc"},
		"destination with full letter": {func(s *Status) { s.Destinations[0].State = "stopped" }, HealthRed, "destination_stopped", "soc"},
		"input degraded":               {func(s *Status) { s.Sources[0].Inputs[1].State = "degraded" }, HealthYellow, "input_degraded", "portal /b"},
		"collector failed":             {func(s *Status) { s.Sources[0].Failure = "x" }, HealthYellow, "input_degraded", "portal"},
	} {
		s := wellStatus()
		c.change(s)
		h := r.assess(s)
		require.Equal(t, c.level, h.Level, name)
		require.Len(t, h.Reasons, 1, name)
		require.Equal(t, [3]string{c.level, c.code, c.about}, [3]string{h.Reasons[0].Level, h.Reasons[0].Code, h.Reasons[0].Subject}, name)
	}
	s := wellStatus()
	s.Sheet.Sources[0].Accepted++
	s.Queue.DamagedRanges = 1
	require.Equal(t, HealthRed, r.assess(s).Level, "the worst one counts")
}

func TestEachReasonIsLoggedOnceAndSoIsItsEnd(t *testing.T) {
	log := new(syncBuffer)
	w := watcher{logger: slog.New(slog.NewTextHandler(log, nil))}
	lines := func(h Health) string {
		log.mu.Lock()
		log.buf.Reset()
		log.mu.Unlock()
		w.note(h)
		return log.String()
	}
	var open, changed, dead Health
	open.add(HealthRed, "remainder", "forward.soc", "remainder 1")
	changed.add(HealthRed, "remainder", "forward.soc", "remainder 2")
	dead.add(HealthYellow, "destination_retrying", "soc", "refused")
	deadToo := Health{}
	deadToo.add(HealthYellow, "destination_retrying", "soc", "timeout")

	require.Contains(t, lines(open), "level=ERROR")
	require.Empty(t, lines(open), "once")
	require.Contains(t, lines(changed), "remainder 2", "again when it changes")
	require.Contains(t, lines(Health{}), "over")
	require.Contains(t, lines(dead), "level=WARN")
	require.Empty(t, lines(deadToo), "the text of an error may change with each try")
	require.Contains(t, lines(Health{}), "over")
	require.Empty(t, lines(Health{}))
}

// TestARemainderIsAnAlarm stores a line of the sheet that counts one record more than there are.
func TestARemainderIsAnAlarm(t *testing.T) {
	dir := t.TempDir()
	text := oneFile(t, dir, 3)
	runOnce(t, text)
	r, _ := build(t, parse(t, text))
	q, err := queue.Open(r.queueDir(), r.queueOptions())
	require.NoError(t, err)
	wrong := SourceSheet{Accepted: 4, Stored: 3}
	_, err = q.Append(context.Background(), nil, [][]byte{queue.AppendMark(nil, sheetKey("portal"), wrong.encode(nil))})
	require.NoError(t, errors.Join(err, q.Close()))

	r, log := build(t, parse(t, text))
	stop := running(t, r)
	_, status := awaitStatus(t, dir, log, func(s *Status) bool { return s.Health.Level == HealthRed })
	require.Equal(t, []Reason{{
		Level: HealthRed, Code: "remainder", Subject: "collect.portal",
		Text: "the balance of source portal does not close, remainder 1",
	}}, status.Health.Reasons)
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "code=remainder") }, 10*time.Second, time.Millisecond)
	stop()
	require.Contains(t, log.String(), "does not close")
}
