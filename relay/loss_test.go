package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

func TestLossesAreCountedOncePerNumber(t *testing.T) {
	l := newLosses(10, 4)
	require.Equal(t, uint64(4), l.upTo(10))
	l.add(11, 10) // no gap
	l.add(15, 19)
	l.add(15, 19) // met again after a Rewind
	l.add(18, 22) // as far as it is new
	require.Equal(t, uint64(4), l.upTo(14))
	require.Equal(t, uint64(9), l.upTo(19))
	require.Equal(t, uint64(9), l.upTo(21))
	require.Equal(t, uint64(12), l.upTo(22))
	require.Equal(t, uint64(12), l.upTo(1000))
	for i := range audit.Number(2 * lossSteps) {
		l.add(100+2*i, 100+2*i)
	}
	require.Len(t, l.steps, lossSteps)
	require.Equal(t, uint64(12+2*lossSteps), l.upTo(1<<40))
	require.Equal(t, uint64(12+2*lossSteps-1), l.upTo(100+2*(2*lossSteps-1)-1), "recent commits stay exact")
}

func TestStoredCursorState(t *testing.T) {
	want := cursorState{began: 1<<56 - 1, damaged: 300}
	got, rest, err := decodeCursorState(append(want.encode(nil), "forwarder"...))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Equal(t, "forwarder", string(rest))

	old := append(binary.BigEndian.AppendUint64(nil, 7), "forwarder"...)
	got, rest, err = decodeCursorState(old)
	require.NoError(t, err)
	require.Equal(t, cursorState{began: 7}, got)
	require.Equal(t, "forwarder", string(rest))

	for _, bad := range [][]byte{{}, {3, 1, 1}, {cursorStateVersion}, {cursorStateVersion, 1}, {0, 0, 0}} {
		_, _, err := decodeCursorState(bad)
		require.Error(t, err, "%x", bad)
	}
}

func FuzzCursorState(f *testing.F) {
	f.Add([]byte{cursorStateVersion, 1, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 7, 1})
	f.Add([]byte{cursorStateVersion, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, rest, err := decodeCursorState(b)
		if err != nil {
			return
		}
		again, restAgain, err := decodeCursorState(append(got.encode(nil), rest...))
		require.NoError(t, err)
		require.Equal(t, got, again)
		require.Equal(t, string(rest), string(restAgain))
	})
}

// runOnce runs the configuration once and returns its sheet.
func runOnce(t *testing.T, text string) *Sheet {
	t.Helper()
	r, log := build(t, parse(t, text))
	sheet, err := r.RunOnce(context.Background(), 20*time.Second)
	require.NoError(t, err, "%s", log)
	return sheet
}

// TestDamageIsNamedByAnEventAndTheSheetCloses breaks an event in the backlog of a destination. The others arrive, an
// event names what is lost, and the equations close, also after a restart, which names nothing again.
func TestDamageIsNamedByAnEventAndTheSheetCloses(t *testing.T) {
	dir := t.TempDir()
	text := oneFile(t, dir, 0)
	report := filepath.Join(dir, "report.csv")
	for i := range 5 { // one frame each
		f, err := os.OpenFile(report, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString(netopRow(i))
		require.NoError(t, errors.Join(err, f.Close()))
		runOnce(t, text)
	}
	breakEvent(t, filepath.Join(dir, "data/queue"), "portal,s-2,")

	late := filepath.Join(dir, "late.json")
	text += fmt.Sprintf("  late: {type: file, path: %q, format: json, start_at: oldest}\n", late)
	var content []byte
	for round := range 3 {
		sheet := runOnce(t, text)
		require.Equal(t, "late", sheet.Destinations[1].ID)
		d := sheet.Destinations[1].DestinationSheet
		require.Equal(t, [4]uint64{6, 5, 1, 0}, [4]uint64{d.Stored, d.Delivered, d.Damaged, d.Queued}, "round %d", round)
		require.Zero(t, d.Remainder())
		require.Zero(t, sheet.Destinations[0].Damaged, "it was past the damage")
		require.Equal(t, NamedSource{"auditrelay", SourceSheet{Accepted: 1, Stored: 1}}, sheet.Sources[1])
		now, err := os.ReadFile(late)
		require.NoError(t, err)
		if round > 0 {
			require.Equal(t, string(content), string(now), "a restart names nothing again")
		}
		content = now
	}
	require.Equal(t, []string{"1", "2", "4", "5", "6"}, numbersIn(t, late))
	named := bytes.Split(content, []byte("\n"))[4]
	for _, part := range []string{
		`"class":"queue_damaged"`, `"product":"auditrelay"`, `"vendor":"auditrelay"`, `"severity":"error"`, `"first":"3"`, `"last":"3"`,
		`"file":"00000000000000000001.seg"`, `"possible_loss"`, `events 3 to 3 are lost`, `"collector":"auditrelay"`,
	} {
		require.Contains(t, string(named), part)
	}
}

func TestTheOldCursorStateGoesOn(t *testing.T) {
	dir := t.TempDir()
	text := oneFile(t, dir, 3)
	runOnce(t, text)
	r, _ := build(t, parse(t, text))
	q, err := queue.Open(r.queueDir(), r.queueOptions())
	require.NoError(t, err)
	reader, err := q.Reader("archive")
	require.NoError(t, err)
	_, forwarder, err := decodeCursorState(reader.State())
	require.NoError(t, err)
	require.NoError(t, reader.CommitState(3, append(binary.BigEndian.AppendUint64(nil, 1), forwarder...)))
	require.NoError(t, errors.Join(reader.Close(), q.Close()))

	d := runOnce(t, text).Destinations[0].DestinationSheet
	require.Equal(t, [3]uint64{1, 3, 3}, [3]uint64{d.Began, d.Stored, d.Delivered})
	require.Zero(t, d.Remainder())
}

// TestACursorCountsDamageAtTheEndOfASegment reads over two damaged ranges, goes back over both, commits between them, and
// is opened again: each number counts once.
func TestACursorCountsDamageAtTheEndOfASegment(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, oneFile(t, dir, 0), 200)
	segments := s.queue.Segments()
	require.Greater(t, len(segments), 2)
	last := segments[0].Last
	breakEvent(t, s.relay.queueDir(), fmt.Sprintf("record %d ", last))
	breakEvent(t, s.relay.queueDir(), "record 150 ")

	open := func() *cursor {
		c, err := newCursor(s.queue, "late", true, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		return c
	}
	readTo := func(c *cursor, end audit.Number) (n int) {
		for batch := audit.GetEvents(); c.next <= end; batch.Reset() {
			require.NoError(t, c.Read(context.Background(), batch))
			n += len(batch.List)
		}
		return n
	}
	c := open()
	require.Equal(t, 198, readTo(c, 200))
	require.NoError(t, c.Rewind(2))
	require.Equal(t, 197, readTo(c, 200))
	require.Equal(t, uint64(0), c.losses.upTo(audit.Number(last)-1))
	require.Equal(t, uint64(1), c.losses.upTo(100))
	require.Equal(t, uint64(2), c.losses.upTo(200))
	require.NoError(t, c.Commit(100, []byte("state")))
	require.NoError(t, c.reader.Close())

	c = open()
	require.Equal(t, "state", string(c.forwarderState()))
	require.Equal(t, audit.Number(1), c.began)
	require.Equal(t, uint64(1), c.losses.upTo(100))
	require.Equal(t, 99, readTo(c, 200))
	require.NoError(t, c.Commit(200, nil))
	require.Equal(t, uint64(2), c.losses.upTo(200))
	require.NoError(t, c.reader.Close())
	c = open()
	require.Equal(t, uint64(2), c.losses.upTo(200))
	require.NoError(t, c.reader.Close())
}

func TestTooMuchDamageAtOnceIsCountedAndLogged(t *testing.T) {
	log := new(syncBuffer)
	o := newOwnEvents(slog.New(slog.NewTextHandler(log, nil)), func() {})
	for i := range uint64(damagePending + 3) {
		o.damaged(queue.Damage{File: "x.seg", First: i + 1, Last: i + 1})
	}
	require.Equal(t, uint64(3), o.dropped.Load())
	require.Equal(t, int64(damagePending), o.unwritten.Load())
	require.Equal(t, 3, strings.Count(log.String(), "too many damaged ranges"))
}

func TestDamageIsNamedOncePerRangeAndForgottenWithItsSegment(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, oneFile(t, dir, 0), 5)
	gone := queue.Damage{File: "00000000000000000000.seg", First: 1, Last: 1}
	here := queue.Damage{File: s.queue.Segments()[0].File, First: 2, Last: 2}
	slots := queue.Damage{File: "cursors/soc", Bytes: 10}
	o := newOwnEvents(slog.New(slog.DiscardHandler), func() {})
	o.queue = s.queue
	require.NoError(t, o.intake.open(s.queue))
	named := func(list ...queue.Damage) uint64 {
		before := s.queue.Next()
		for _, d := range list {
			o.unwritten.Add(1)
			o.write(context.Background(), d)
		}
		require.Zero(t, o.unwritten.Load())
		return s.queue.Next() - before
	}
	require.Equal(t, uint64(3), named(gone, here, slots))
	require.Equal(t, uint64(1), named(gone, here, slots), "the slots were made anew and are damaged again")
	o.forgetOld()
	require.Equal(t, 1, o.knownRanges())
	require.Equal(t, uint64(0), named(here))
	require.Equal(t, SourceSheet{Accepted: 4, Stored: 4}, o.intake.Sheet())
}
