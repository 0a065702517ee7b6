package queue

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRetentionDeletesOnlyWhatAllCursorsPassed(t *testing.T) {
	dir := t.TempDir()
	now := time.Unix(1000, 0)
	var mu sync.Mutex
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	q := open(t, dir, Options{SegmentBytes: 4 << 10, KeepDelivered: time.Hour, Now: clock})
	for range 100 {
		add(t, q, 10)
	}
	before := q.Stats().Segments
	require.Greater(t, before, 5)
	require.Equal(t, 0, q.releaseDelivered(false), "no cursor: nobody has it")
	fast, slow := reader(t, q, "fast"), reader(t, q, "slow")
	require.NoError(t, slow.Close())
	require.NoError(t, fast.Commit(1000))
	require.Equal(t, 0, q.releaseDelivered(false), "a cursor without a reader holds back too")
	require.NoError(t, q.Forget("slow"))
	require.ErrorIs(t, q.Forget("slow"), os.ErrNotExist)
	require.ErrorIs(t, q.Forget("fast"), ErrInUse)
	require.Equal(t, 0, q.releaseDelivered(false), "kept for replay")
	require.NoError(t, fast.Seek(1))
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	require.Equal(t, 0, q.releaseDelivered(false), "set back in time")
	require.Len(t, readAll(t, fast), 1000)
	require.NoError(t, fast.Commit(1000))
	q.releaseDelivered(false)
	mu.Lock()
	now = now.Add(2 * time.Hour)
	mu.Unlock()
	q.releaseDelivered(false)
	require.Equal(t, 1, q.Stats().Segments, "the newest stays")
	require.Greater(t, q.First(), uint64(900))
	require.ErrorIs(t, fast.Seek(1), ErrRange)
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	add(t, q, 1)
	require.Equal(t, []uint64{1001}, readAll(t, fast))
}

func TestRetentionRunsByItselfAfterCommit(t *testing.T) {
	q := open(t, t.TempDir(), Options{SegmentBytes: 4 << 10})
	r := reader(t, q, "a")
	for range 50 {
		add(t, q, 10)
	}
	require.NoError(t, r.Commit(500))
	require.Eventually(t, func() bool { return q.Stats().Segments == 1 }, 5*time.Second, time.Millisecond)
}

func TestMaxBytesWaitsForDeliveryAndNeverGoesOver(t *testing.T) {
	q := open(t, t.TempDir(), Options{MaxBytes: 64 << 10, KeepDelivered: time.Hour})
	r := reader(t, q, "a")
	short, cancel := context.WithCancel(context.Background())
	defer cancel()
	refused := make(chan error, 1)
	var n uint64
	go func() {
		for {
			_, err := q.Append(short, entries(n+1, 10), nil)
			if err != nil {
				refused <- err
				return
			}
			n += 10
		}
	}()
	require.Eventually(t, func() bool { return q.Stats().Full }, 5*time.Second, time.Millisecond)
	require.Error(t, q.Stats().Err)
	cancel()
	err := <-refused
	require.ErrorIs(t, err, ErrFull)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, n+1, q.Next(), "nothing was taken")
	require.LessOrEqual(t, q.Stats().DiskBytes, int64(64<<10))

	go func() {
		_, err := q.Append(context.Background(), entries(n+1, 10), nil)
		refused <- err
	}()
	require.Len(t, readAll(t, r), int(n))
	require.NoError(t, r.Commit(n))
	require.NoError(t, <-refused, "space comes back by delivery, also from the newest segment and before KeepDelivered")
	require.Equal(t, span(n+1, n+11), readAll(t, r))
	require.False(t, q.Stats().Full)
	for range 300 {
		add(t, q, 10)
		require.NoError(t, r.Commit(q.Next()-1))
		require.LessOrEqual(t, q.Stats().DiskBytes, int64(64<<10))
	}
	_, err = q.Append(context.Background(), [][]byte{make([]byte, 64<<10)}, nil)
	require.ErrorIs(t, err, ErrTooLarge)
}

func TestCloseAnswersAppendsThatWaitForSpace(t *testing.T) {
	q, err := Open(t.TempDir(), Options{MaxBytes: 16 << 10})
	require.NoError(t, err)
	reader(t, q, "a")
	ended := make(chan error, 1)
	go func() {
		for {
			if _, err := q.Append(context.Background(), [][]byte{make([]byte, 1000)}, nil); err != nil {
				ended <- err
				return
			}
		}
	}()
	require.Eventually(t, func() bool { return q.Stats().Full }, 5*time.Second, time.Millisecond)
	require.NoError(t, q.Close())
	require.ErrorIs(t, <-ended, ErrClosed)
}
