package relay

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/queue"
)

// received is when test events begin to come in.
var received = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// storeOf returns a store with small segments around n events; event i was received i seconds after received.
func storeOf(t *testing.T, dir, text string, n int) *Store {
	t.Helper()
	r, _ := build(t, parse(t, text))
	opt := r.queueOptions()
	opt.SegmentBytes = 8 << 10
	q, err := queue.Open(r.queueDir(), opt)
	require.NoError(t, err)
	r.queue = q
	for i := 1; i <= n; i++ {
		ev := testEvent(i)
		_, err := q.Append(context.Background(), [][]byte{ev.AppendBinary(nil)}, nil)
		require.NoError(t, err)
	}
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return &Store{relay: r, queue: q}
}

func testEvent(i int) audit.Event {
	at := received.Add(time.Duration(i) * time.Second)
	return audit.Event{
		Time: at, Received: at, Source: "portal", Product: "generic", Class: "text", Severity: audit.SeverityInfo,
		Raw: []byte(fmt.Sprintf("record %d %s", i, strings.Repeat("x", 100))),
	}
}

// numbersIn returns the numbers of the events in a file of native JSON.
func numbersIn(t *testing.T, path string) (list []string) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.Lines(string(content)) {
		_, rest, ok := strings.Cut(line, `"number":`)
		require.True(t, ok)
		number, _, _ := strings.Cut(rest, ",")
		list = append(list, number)
	}
	return list
}

func TestAReplaySendsTheSameBytesAndMovesNothing(t *testing.T) {
	dir := t.TempDir()
	cfg := parse(t, oneFile(t, dir, 10))
	out := filepath.Join(dir, "out.json")
	for round := 1; round <= 2; round++ {
		r, log := build(t, cfg)
		stop := running(t, r)
		client, before := awaitStatus(t, dir, log, allDelivered(10))
		content, err := os.ReadFile(out)
		require.NoError(t, err)
		result, err := client.Replay(context.Background(), "archive", "4", "6", func(Progress) {})
		require.NoError(t, err, "%s", log)
		require.Equal(t, &ReplayResult{Destination: "archive", Delivered: 3, Complete: true, Missing: []Missing{}}, result)
		again, err := os.ReadFile(out)
		require.NoError(t, err)
		lines := bytes.SplitAfter(content, []byte("\n"))
		require.Equal(t, string(content)+string(bytes.Join(lines[3:6], nil)), string(again))
		_, after := awaitStatus(t, dir, log, func(s *Status) bool { return s.Destinations[0].Replaying == nil })
		require.Equal(t, before.Sheet, after.Sheet)
		require.Equal(t, uint64(3*round), after.Destinations[0].Replayed, "kept across restarts")
		stop()
		require.NoError(t, os.WriteFile(out, content, 0o600))
	}
}

func TestAReplayToADeadDestinationStopsWhenItIsTold(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	text := oneFile(t, dir, 10) + fmt.Sprintf("  soc: {type: syslog, endpoints: [\"tcp://%s\"], start_at: oldest}\n", address)
	r, log := build(t, parse(t, text))
	stop := running(t, r)
	client, _ := awaitStatus(t, dir, log, allDelivered(10))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		_, err := client.Replay(ctx, "soc", "", "", func(Progress) {})
		ended <- err
	}()
	awaitStatus(t, dir, log, func(s *Status) bool {
		return s.Destinations[1].Replaying != nil && strings.Contains(s.Destinations[1].Replaying.Error, "refused")
	})
	_, err = client.Replay(context.Background(), "soc", "", "", func(Progress) {})
	require.ErrorContains(t, err, ErrReplaying.Error())
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, status := awaitStatus(t, dir, log, func(s *Status) bool { return s.Destinations[1].Replaying == nil })
	require.Equal(t, uint64(0), status.Destinations[1].Replayed)
	require.Equal(t, HealthYellow, status.Health.Level)
	require.Equal(t, "destination_retrying", status.Health.Reasons[0].Code)
	stop()
}

// TestAReplayThatIsStoppedSaysHowFarItCame stops one in this process, whose destination is down, and one whose daemon
// stops.
func TestAReplayThatIsStoppedSaysHowFarItCame(t *testing.T) {
	dir := t.TempDir()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	text := oneFile(t, dir, 10) + fmt.Sprintf("  soc: {type: syslog, endpoints: [\"tcp://%s\"], start_at: oldest}\n", address)
	r, log := build(t, parse(t, text))
	stop := running(t, r)
	client, _ := awaitStatus(t, dir, log, allDelivered(10))
	ended := make(chan error, 1)
	go func() {
		_, err := client.Replay(context.Background(), "soc", "", "", func(Progress) {})
		ended <- err
	}()
	awaitStatus(t, dir, log, func(s *Status) bool { return s.Destinations[1].Replaying != nil })
	stop()
	require.ErrorContains(t, <-ended, "stopped at event 0 of 1..10")

	r, _ = build(t, parse(t, text))
	store, err := r.OpenStoreForChange()
	require.NoError(t, err)
	pass, err := store.NewReplay("soc", Selection{})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	result, err := pass.RunWatched(ctx, time.Millisecond, func(p Progress) {
		if p.Error != "" {
			cancel()
		}
	})
	require.ErrorIs(t, err, context.Canceled)
	require.ErrorContains(t, err, "stopped at event 0 of 1..10")
	require.Equal(t, &ReplayResult{Destination: "soc", Missing: []Missing{}}, result)
	require.NoError(t, store.Close())
}

func TestAReplayByTimeTakesWhatWasReceivedThen(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, oneFile(t, dir, 0), 50)
	replay, err := s.NewReplay("archive", Selection{From: Place{Time: received.Add(5 * time.Second)}, To: Place{Time: received.Add(7 * time.Second)}})
	require.NoError(t, err)
	require.Equal(t, Progress{State: "starting"}, replay.Progress())
	result, err := replay.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint64(3), result.Delivered)
	require.True(t, result.Complete)
	require.Equal(t, []string{"5", "6", "7"}, numbersIn(t, filepath.Join(dir, "out.json")))
	require.Equal(t, uint64(3), replayedBefore(s.queue, "archive"))

	none, err := s.NewReplay("archive", Selection{To: Place{Time: received}})
	require.NoError(t, err)
	result, err = none.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, &ReplayResult{Destination: "archive", Complete: true, Missing: []Missing{}}, result)
	_, err = s.NewReplay("nobody", Selection{})
	require.ErrorIs(t, err, ErrNoDestination)
}

func TestAReplayNamesWhatRetentionDeleted(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, strings.Replace(oneFile(t, dir, 0), "collect:", "queue: {keep_delivered: 0s}\ncollect:", 1), 300)
	reader, err := s.queue.ReaderFrom("archive", true)
	require.NoError(t, err)
	require.NoError(t, reader.Commit(200))
	require.Eventually(t, func() bool { return s.queue.Segments()[0].Last > 200 }, 10*time.Second, time.Millisecond)
	first := audit.Number(s.queue.First())

	replay, err := s.NewReplay("archive", Selection{From: Place{Number: 10}, To: Place{Number: 250}})
	require.NoError(t, err)
	result, err := replay.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint64(250-first+1), result.Delivered)
	require.Equal(t, []Missing{{First: 10, Last: first - 1, Reason: notStored}}, result.Missing)
	require.Equal(t, fmt.Sprintf("events 10..%d are no longer stored", first-1), result.Missing[0].String())

	gone, err := s.NewReplay("archive", Selection{To: Place{Number: 5}, From: Place{Number: 1}})
	require.NoError(t, err)
	_, err = gone.Run(context.Background())
	require.ErrorIs(t, err, ErrNothingStored)
	require.ErrorContains(t, err, "events 1..5 are no longer stored")
	require.NoError(t, reader.Close())
}

func TestAReplayNamesWhatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, oneFile(t, dir, 0), 30)
	breakEvent(t, s.relay.queueDir(), "record 20 ")
	replay, err := s.NewReplay("archive", Selection{})
	require.NoError(t, err)
	result, err := replay.Run(context.Background())
	require.NoError(t, err)
	require.Equal(t, uint64(29), result.Delivered)
	require.Equal(t, []Missing{{First: 20, Last: 20, Reason: areLost}}, result.Missing)
	require.True(t, result.Complete)
}

// breakEvent flips a bit in the one segment that has the text.
func breakEvent(t *testing.T, queueDir, text string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(queueDir, "*.seg"))
	require.NoError(t, err)
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		if i := bytes.Index(content, []byte(text)); i >= 0 {
			content[i] ^= 1
			require.NoError(t, os.WriteFile(file, content, 0o600))
			return
		}
	}
	t.Fatalf("no segment has %q", text)
}

func TestAReplayLogKeepsTheContractOfALog(t *testing.T) {
	dir := t.TempDir()
	s := storeOf(t, dir, oneFile(t, dir, 0), 3000)
	ended := 0
	log := &replayLog{store: s, found: new(Selected), from: 1, to: 3000, next: 1, end: func() { ended++ }}
	batch := audit.GetEvents()
	defer batch.Release()
	require.NoError(t, log.Read(context.Background(), batch))
	n := len(batch.List)
	require.Greater(t, n, 500)
	require.Less(t, n, 3000, "a batch has a limit")
	require.Equal(t, audit.Number(1), batch.List[0].Number)
	require.Equal(t, audit.PlaceID(audit.LogID(s.queue.LogID()), 1), batch.List[0].ID, "the id is that of the place in the log")
	want := testEvent(n)
	require.Equal(t, string(want.Raw), string(batch.List[n-1].Raw))

	require.NoError(t, log.Rewind(3))
	batch.Reset()
	require.NoError(t, log.Read(context.Background(), batch))
	require.Equal(t, audit.Number(3), batch.List[0].Number)
	last := batch.List[len(batch.List)-1].Number
	for last < 3000 {
		batch.Reset()
		require.NoError(t, log.Read(context.Background(), batch))
		require.Equal(t, last+1, batch.List[0].Number)
		last = batch.List[len(batch.List)-1].Number
	}
	require.NoError(t, log.Commit(2999, nil))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	batch.Reset()
	require.ErrorIs(t, log.Read(ctx, batch), context.Canceled)
	require.Empty(t, batch.List)
	require.Zero(t, ended, "not before all is committed")
	require.NoError(t, log.Commit(3000, nil))
	require.Equal(t, 1, ended)
}
