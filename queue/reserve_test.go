package queue_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// TestAFullDiskGivesTheNewestSegmentBack: everything is delivered and lies in the newest segment, and there is no byte left
// for the head of another one. The reserve makes the way; without it the queue stays full for ever.
func TestAFullDiskGivesTheNewestSegmentBack(t *testing.T) {
	for name, reserve := range map[string]int64{"with the reserve": 4 << 10, "without": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { fullNewestSegment(t, reserve) })
		})
	}
}

func fullNewestSegment(t *testing.T, reserve int64) {
	fs := crashfs.New()
	q, err := queue.Open("q", queue.Options{FS: fs, ReserveBytes: reserve})
	require.NoError(t, err)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	put(t, q, 50)
	fs.SetCapacity(fs.Used())
	var b queue.Batch
	for read := 0; read < 50; read += len(b.Entries) {
		require.NoError(t, r.Read(context.Background(), &b))
	}
	require.NoError(t, r.Commit(50))

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = q.Append(ctx, contents(51, 1), nil)
	if reserve == 0 {
		require.ErrorIs(t, err, queue.ErrFull)
	} else {
		require.NoError(t, err)
		kept, err := fs.ReadFile("q/reserve")
		require.NoError(t, err, "it is made again from what was freed")
		require.Len(t, kept, int(reserve))
	}
	require.NoError(t, r.Close())
	require.NoError(t, q.Close())
}
