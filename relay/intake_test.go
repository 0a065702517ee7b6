package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/normalize"
)

// fakeLog counts appends. While it is full it waits for room or for the end of the context.
type fakeLog struct {
	mu      sync.Mutex
	entries int
	appends int
	sheet   []byte
	full    chan struct{} // nil = there is room; closed when room comes
	entered chan struct{}
	err     error
}

func (f *fakeLog) Append(ctx context.Context, entries, marks [][]byte) (uint64, error) {
	if f.full != nil {
		f.entered <- struct{}{}
		select {
		case <-f.full:
		case <-ctx.Done():
			return 0, fmt.Errorf("queue is full: %w", context.Canceled)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, f.err
	}
	first := uint64(f.entries + 1)
	f.entries += len(entries)
	f.appends++
	f.sheet = append(f.sheet[:0], marks[len(marks)-1]...)
	return first, nil
}

func testIntake(t *testing.T, log Appender) *intake {
	t.Helper()
	normalizer, err := normalize.New(normalize.Options{})
	require.NoError(t, err)
	return &intake{source: "s", normalizer: normalizer, log: log}
}

func putOne(ctx context.Context, in *intake, text string) (audit.Number, error) {
	batch := audit.GetRecords("s")
	defer batch.Release()
	batch.Add([]byte(text))
	return in.put(ctx, batch)
}

func TestPutsOfOneSourceAreAppendedInOneOrder(t *testing.T) {
	log := new(fakeLog)
	in := testIntake(t, log)
	var putters sync.WaitGroup
	numbers := make([]map[audit.Number]bool, 8)
	for i := range numbers {
		numbers[i] = map[audit.Number]bool{}
		putters.Go(func() {
			for j := range 500 {
				n, err := putOne(context.Background(), in, fmt.Sprint("record ", j))
				if err != nil {
					t.Error(err)
					return
				}
				numbers[i][n] = true
			}
		})
	}
	putters.Wait()
	all := map[audit.Number]bool{}
	for _, own := range numbers {
		for n := range own {
			require.False(t, all[n], "number %d was given twice", n)
			all[n] = true
		}
	}
	require.Len(t, all, 4000)
	require.Equal(t, SourceSheet{Accepted: 4000, Stored: 4000}, in.Sheet())
	require.LessOrEqual(t, log.appends, 4000)
}

func TestAPutThatEndsWhileTheQueueIsFullTakesNothingAndHoldsNobody(t *testing.T) {
	log := &fakeLog{full: make(chan struct{}), entered: make(chan struct{}, 100)}
	in := testIntake(t, log)
	impatient, cancel := context.WithCancel(context.Background())
	first := make(chan error, 1)
	go func() {
		_, err := putOne(impatient, in, "gives up")
		first <- err
	}()
	<-log.entered // it leads and waits for space
	second := make(chan error, 1)
	go func() {
		_, err := putOne(context.Background(), in, "stays")
		second <- err
	}()
	cancel()
	require.ErrorIs(t, <-first, context.Canceled)
	<-log.entered // the second leads now
	close(log.full)
	require.NoError(t, <-second)
	require.Equal(t, SourceSheet{Accepted: 1, Stored: 1}, in.Sheet())
	require.Equal(t, 1, log.entries)
}

func TestAnErrorOfTheQueueGoesToEverybodyAndIsCountedNowhere(t *testing.T) {
	broken := errors.New("disk is gone")
	log := &fakeLog{err: broken}
	in := testIntake(t, log)
	var putters sync.WaitGroup
	for range 4 {
		putters.Go(func() {
			if _, err := putOne(context.Background(), in, "x"); !errors.Is(err, broken) {
				t.Errorf("got %v", err)
			}
		})
	}
	putters.Wait()
	require.Equal(t, SourceSheet{}, in.Sheet())
}

func TestStoredSheetRoundTrip(t *testing.T) {
	want := SourceSheet{Accepted: 1 << 40, Stored: 1<<40 - 3, Duplicate: 1, Filtered: 2}
	got, err := decodeSourceSheet(want.encode(nil))
	require.NoError(t, err)
	require.Equal(t, want, got)
	require.Zero(t, got.Remainder())
	got.Stored--
	require.Equal(t, int64(1), got.Remainder())
	for n := range want.encode(nil) {
		_, err := decodeSourceSheet(want.encode(nil)[:n])
		require.Error(t, err)
	}
}
