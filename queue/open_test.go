package queue_test

import (
	"context"
	"io"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// counted counts what is read.
type counted struct {
	*crashfs.FS
	read  atomic.Int64
	opens atomic.Int64
}

func (c *counted) OpenFile(path string, flag int) (queue.File, error) {
	f, err := c.FS.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	c.opens.Add(1)
	return countedFile{f, c}, nil
}

func (c *counted) Lock(path string) (io.Closer, error) { return c.FS.Lock(path) }

type countedFile struct {
	queue.File
	c *counted
}

func (f countedFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.c.read.Add(int64(n))
	return n, err
}

// backlog makes a queue of so many segments of 256 KiB, in the middle of which a cursor stands.
func backlog(t *testing.T, segments int, ids bool) *crashfs.FS {
	fs := crashfs.New()
	q, err := queue.Open("q", queue.Options{FS: fs, SegmentBytes: 256 << 10})
	require.NoError(t, err)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	entry := make([]byte, 8<<10)
	for i := 0; len(q.Segments()) < segments || q.Segments()[segments-1].Bytes < 200<<10; i++ {
		if ids {
			entry[0], entry[1], entry[2] = byte(i), byte(i>>8), 1
			_, err = q.AppendSeen(context.Background(), [][]byte{entry}, nil, [][16]byte{idOf(entry)})
		} else {
			_, err = q.Append(context.Background(), [][]byte{entry}, nil)
		}
		require.NoError(t, err)
		if i == 20 {
			require.NoError(t, r.Commit(10))
		}
	}
	require.NoError(t, q.Close())
	return fs.Crash(crashfs.Forget, 0)
}

// TestOpenReadsTheNewestSegmentOnly: what is read, and what is kept in memory, does not grow with the backlog.
func TestOpenReadsTheNewestSegmentOnly(t *testing.T) {
	for _, ids := range []bool{false, true} {
		var heaps, reads [2]int64
		for i, segments := range []int{4, 64} {
			fs := &counted{FS: backlog(t, segments, ids)}
			opt := queue.Options{FS: fs, SegmentBytes: 256 << 10}
			before := heap()
			q, err := queue.Open("q", opt)
			require.NoError(t, err)
			heaps[i] = heap() - before
			reads[i] = fs.read.Load()
			list := q.Segments()
			require.Len(t, list, segments)
			newest := list[segments-1].Bytes
			require.LessOrEqual(t, reads[i], 2*newest+int64(segments)*(2<<10), "a header of each, and its ids")
			require.LessOrEqual(t, fs.opens.Load(), int64(20+3*segments))
			require.Equal(t, uint64(11), firstRead(t, q))
			require.NoError(t, q.Close())

			fs.read.Store(0)
			v, err := queue.View("q", opt)
			require.NoError(t, err)
			require.LessOrEqual(t, fs.read.Load(), newest+int64(segments)*(1<<10)+(16<<10), "and the cursor")
			require.NoError(t, v.Close())
		}
		require.Less(t, reads[1]-reads[0], int64(60*(2<<10)))
		require.Less(t, heaps[1]-heaps[0], int64(128<<10), "16 times the backlog, 15 MiB more: %v", heaps)
	}
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// firstRead is the number at which a cursor goes on.
func firstRead(t *testing.T, q *queue.Queue) uint64 {
	r, err := q.Reader("a")
	require.NoError(t, err)
	var b queue.Batch
	require.NoError(t, r.Read(context.Background(), &b))
	return b.First
}

// TestRangeAndCheckDoNotGrowWithTheBacklog reads 16 MiB through a bounded memory.
func TestRangeAndCheckDoNotGrowWithTheBacklog(t *testing.T) {
	fs := backlog(t, 64, true)
	v, err := queue.View("q", queue.Options{FS: fs})
	require.NoError(t, err)
	before, most := heap(), int64(0)
	measure := func() {
		most = max(most, heap()-before)
	}
	require.NoError(t, v.Range(context.Background(), 1, v.Next()-1, func(n uint64, _ []byte) error {
		if n%500 == 0 {
			measure()
		}
		return nil
	}))
	calls := 0
	_, err = v.Check(context.Background(), func(_, _ int64) {
		if calls++; calls%4 == 0 {
			measure()
		}
	})
	require.NoError(t, err)
	require.Less(t, most, int64(2<<20))
	require.NoError(t, v.Close())
}

// TestIDFilesAreNamedLikeTheirSegments: so that a person sees what belongs together.
func TestIDFilesAreNamedLikeTheirSegments(t *testing.T) {
	fs := backlog(t, 4, true)
	require.Len(t, idFiles(fs), 3)
	for i, path := range idFiles(fs) {
		require.Equal(t, filepath.Base(segments(fs)[i][:len(segments(fs)[i])-4]), filepath.Base(path[:len(path)-4]))
	}
}
