package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// tightLog has space for marks, but for entries only while roomy.
type tightLog struct {
	fakeLog
	roomy    chan struct{} // closed when there is space
	timeouts int           // appends that gave up waiting
}

func (l *tightLog) Append(ctx context.Context, entries, marks [][]byte) (uint64, error) {
	if len(entries) > 0 {
		select {
		case <-l.roomy:
		case <-ctx.Done():
			l.timeouts++
			return 0, fmt.Errorf("%w: %w", queue.ErrFull, ctx.Err())
		}
	}
	return l.fakeLog.Append(ctx, entries, marks)
}

func putSeverities(ctx context.Context, in *intake, priorities ...int) error {
	batch := audit.GetRecords("s")
	defer batch.Release()
	for _, p := range priorities { // syslog PRI: facility 16, severity p
		rec := batch.Add([]byte(fmt.Sprintf("<%d>1 2026-01-01T00:00:00Z host app - - - text", 128+p)))
		rec.Origin = &audit.Origin{Format: audit.FormatSyslog}
	}
	_, err := in.put(ctx, batch)
	return err
}

func TestAFullQueueShedsAllButErrorsAndTheSheetCloses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &tightLog{roomy: make(chan struct{})}
		in := testIntake(t, log)
		in.shedding = &shedding{source: "s", lowest: func() audit.Severity { return takeAll }}
		began := time.Now()
		require.NoError(t, putSeverities(context.Background(), in, 7, 6, 6, 5, 4))
		require.Equal(t, shedWait, time.Since(began), "nothing is refused before it has waited")
		require.Equal(t, SourceSheet{Accepted: 5, Shed: 5}, in.Sheet())

		waits := make(chan error, 1)
		go func() { waits <- putSeverities(context.Background(), in, 6, 3, 2) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, waits, "errors wait for space")
		close(log.roomy)
		require.NoError(t, <-waits)
		require.Equal(t, SourceSheet{Accepted: 8, Stored: 2, Shed: 6}, in.Sheet())
		require.Zero(t, in.Sheet().Remainder())
		require.Equal(t, 2, log.entries)
		require.Equal(t, 2, log.timeouts)

		run := in.shedding.take()
		require.Equal(t, uint64(6), run.count)
		require.Equal(t, [7]uint64{0, 1, 3, 1, 1, 0, 0}, run.bySeverity)
		require.Zero(t, in.shedding.take().count, "each is named once")
	})
}

func TestWithBlockEverythingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &tightLog{roomy: make(chan struct{})}
		in := testIntake(t, log)
		waits := make(chan error, 1)
		go func() { waits <- putSeverities(context.Background(), in, 7) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Empty(t, waits)
		close(log.roomy)
		require.NoError(t, <-waits)
		require.Equal(t, SourceSheet{Accepted: 1, Stored: 1}, in.Sheet())
	})
}

func TestABatchIsShedFromTheSeverityThatTheQueueSays(t *testing.T) {
	log := new(tightLog)
	log.roomy = make(chan struct{})
	close(log.roomy)
	in := testIntake(t, log)
	lowest := takeAll
	in.shedding = &shedding{source: "s", lowest: func() audit.Severity { return lowest }}
	for _, c := range []struct {
		lowest audit.Severity
		shed   uint64
	}{{takeAll, 0}, {audit.SeverityNotice, 2}, {audit.SeverityWarning, 3}, {audit.SeverityError, 4}} {
		before := in.Sheet().Shed
		lowest = c.lowest
		require.NoError(t, putSeverities(context.Background(), in, 7, 6, 5, 4, 3, 2))
		require.Equal(t, c.shed, in.Sheet().Shed-before)
		require.Zero(t, in.Sheet().Remainder())
	}
}

func TestTheLowestSeverityRisesAsTheQueueFills(t *testing.T) {
	dir := t.TempDir()
	const maxBytes = 1 << 20
	q, err := queue.Open(filepath.Join(dir, "queue"), queue.Options{MaxBytes: maxBytes, KeepDelivered: time.Hour})
	require.NoError(t, err)
	reader, err := q.ReaderFrom("soc", true)
	require.NoError(t, err)
	entry := make([]byte, 2<<10)
	seen := []audit.Severity{takeAll}
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond) // bounds the wait for space only
		_, err := q.Append(ctx, [][]byte{entry, entry}, nil)
		cancel()
		if err != nil {
			require.ErrorIs(t, err, queue.ErrFull)
			break
		}
		if now := lowestTaken(q, maxBytes); now != seen[len(seen)-1] {
			seen = append(seen, now)
		}
	}
	require.Equal(t, []audit.Severity{takeAll, audit.SeverityNotice, audit.SeverityWarning, audit.SeverityError}, seen)
	require.NoError(t, reader.Commit(q.Next()-1))
	require.Eventually(t, func() bool { return lowestTaken(q, maxBytes) == takeAll }, 5*time.Second, time.Millisecond,
		"what is delivered does not count, though it may still take space")
	require.NoError(t, errors.Join(reader.Close(), q.Close()))
}

// TestShedNamesWhatItRefused runs into a queue of 1 MiB with a destination that is down: the source is read to its end,
// the sheet closes, and an event of the stream says how many are missing.
func TestShedNamesWhatItRefused(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	text := oneFile(t, dir, 8000)
	text = strings.Replace(text, "poll_interval", "max_record: 64KiB, poll_interval", 1)
	text = text[:strings.Index(text, "forward:")] + fmt.Sprintf(`queue: {max_size: 1MiB, when_full: shed}
forward:
  soc: {type: syslog, endpoints: ["tcp://%s"], start_at: oldest}
`, address)
	r, log := build(t, parse(t, text))
	stop := running(t, r)
	_, status := awaitStatus(t, dir, log, func(s *Status) bool { return s.Sheet.Sources[0].Accepted == 8000 })
	sheet := status.Sheet.Sources[0].SourceSheet
	require.Zero(t, sheet.Remainder())
	require.Positive(t, sheet.Shed)
	require.Positive(t, sheet.Stored)
	stop()

	r, _ = build(t, parse(t, text))
	store, err := r.OpenStore()
	require.NoError(t, err)
	var named []string
	_, err = store.Entries(context.Background(), Selection{}, "json", func(e Entry) error {
		if strings.Contains(string(e.Line), `"class":"records_shed"`) {
			named = append(named, string(e.Line))
		}
		return nil
	})
	require.NoError(t, err)
	require.Len(t, named, 1, "%s", log)
	require.Contains(t, named[0], fmt.Sprintf(`"count":"%d"`, sheet.Shed))
	require.Contains(t, named[0], `"source":"portal"`)
	require.NoError(t, store.Close())
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "data")))
}
