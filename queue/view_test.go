package queue_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// collect returns what Range yields and checks every byte.
func collect(t testing.TB, q *queue.Queue, from, to uint64) (got []uint64) {
	t.Helper()
	err := q.Range(context.Background(), from, to, func(n uint64, e []byte) error {
		require.Equal(t, content(n), string(e))
		got = append(got, n)
		return nil
	})
	require.NoError(t, err)
	return got
}

// snapshot returns all files of a directory in memory.
func snapshot(t testing.TB, fs *crashfs.FS) map[string]string {
	files := map[string]string{}
	for _, path := range fs.Files() {
		data, err := fs.ReadFile(path)
		require.NoError(t, err)
		files[path] = string(data)
	}
	return files
}

func mustView(t testing.TB, opt queue.Options) *queue.Queue {
	t.Helper()
	q, err := queue.View("q", opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

func TestSegmentsNameWhatIsOnDisk(t *testing.T) {
	fs := crashfs.New()
	now := time.Unix(1_800_000_000, 0)
	opt := queue.Options{FS: fs, SegmentBytes: 1 << 10, KeepDelivered: time.Hour, Now: func() time.Time { return now }}
	q := mustOpen(t, opt)
	require.Empty(t, q.Segments())
	for range 20 {
		put(t, q, 5)
	}
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	list := q.Segments()
	require.Greater(t, len(list), 4)
	require.NoError(t, r.Commit(list[1].Last))
	list = q.Segments()
	states, next := []string{}, uint64(1)
	for _, s := range list {
		require.Equal(t, next, s.First)
		next = s.Last + 1
		data, err := fs.ReadFile("q/" + s.File)
		require.NoError(t, err)
		require.Equal(t, int64(len(data)), s.Bytes)
		require.True(t, now.Equal(s.Created))
		states = append(states, s.State)
	}
	require.Equal(t, uint64(101), next)
	require.Equal(t, "delivered delivered sealed", strings.Join(states[:3], " "))
	require.Equal(t, "active", states[len(states)-1])
	require.NotContains(t, states[:len(states)-1], "active")

	left := fs.Crash(crashfs.Keep, 0)
	v := mustView(t, queue.Options{FS: left})
	require.Equal(t, list, v.Segments(), "a view says the same")
}

func TestRangeIsInclusiveAndNeedsNoCursor(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs, SegmentBytes: 1 << 10})
	require.ErrorIs(t, q.Range(context.Background(), 1, 1, nil), queue.ErrRange, "the queue is empty")
	for range 20 {
		put(t, q, 5)
	}
	for _, r := range [][2]uint64{{1, 100}, {1, 1}, {100, 100}, {17, 63}, {50, 51}} {
		require.Equal(t, numbers(r[0], r[1]+1), collect(t, q, r[0], r[1]))
	}
	list, err := q.Cursors()
	require.NoError(t, err)
	require.Empty(t, list)
	for _, r := range [][2]uint64{{0, 5}, {1, 101}, {101, 101}, {7, 6}} {
		require.ErrorIs(t, q.Range(context.Background(), r[0], r[1], nil), queue.ErrRange)
	}
	stop := errors.New("enough")
	calls := 0
	err = q.Range(context.Background(), 1, 100, func(uint64, []byte) error { calls++; return stop })
	require.Equal(t, stop, err)
	require.Equal(t, 1, calls)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, q.Range(ctx, 1, 100, nil), context.Canceled)
	failNext(fs, "read", 1, crashfs.Fault{Err: syscall.EIO})
	require.ErrorIs(t, q.Range(context.Background(), 1, 100, nil), syscall.EIO, "never skipped")
	require.Zero(t, q.Stats().DamagedRanges)
}

func TestRangeOverDeletedNumbersNamesWhatExists(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{
		FS: fs, SegmentBytes: 1 << 10, Damaged: func(d queue.Damage) { t.Errorf("damage: %+v", d) },
	})
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	for range 20 {
		put(t, q, 5)
	}
	segs := q.Segments()
	// The segments go while Range is on its way: what it has is delivered, then it says what is left.
	var got []uint64
	err = q.Range(context.Background(), 1, 100, func(n uint64, e []byte) error {
		got = append(got, n)
		if n == 1 {
			require.NoError(t, r.Commit(segs[3].Last))
			require.Eventually(t, func() bool { return q.First() == segs[4].First }, 5*time.Second, time.Millisecond)
		}
		return nil
	})
	require.ErrorIs(t, err, queue.ErrRange)
	require.ErrorContains(t, err, fmt.Sprintf("the queue has %d to 100", segs[4].First))
	require.NotEmpty(t, got)
	require.Equal(t, numbers(1, got[len(got)-1]+1), got)
	err = q.Range(context.Background(), 1, 100, nil)
	require.ErrorIs(t, err, queue.ErrRange)
	require.ErrorContains(t, err, fmt.Sprintf("the queue has %d to 100", segs[4].First))
	require.Equal(t, numbers(segs[4].First, 101), collect(t, q, segs[4].First, 100))
}

func TestRangeSkipsDamageAndReportsIt(t *testing.T) {
	im := build(t, 60, 1<<10)
	require.Greater(t, len(im.segments), 3)
	data := im.data(t, 1)
	hit := frames(data)[2]
	data[hit.off+40] ^= 1
	fs := im.with(1, data)
	fs.WriteFile(im.segments[2], nil)
	lost := numbers(hit.first, hit.past)
	lost = append(lost, numbers(first(t, im, 2), first(t, im, 3))...)
	var reported []uint64
	q := mustView(t, queue.Options{FS: fs, Damaged: func(d queue.Damage) {
		if d.First > 0 {
			reported = append(reported, numbers(d.First, d.Last+1)...)
		}
	}})
	before := snapshot(t, fs)
	want := slices.DeleteFunc(numbers(1, 61), func(n uint64) bool { return slices.Contains(lost, n) })
	require.Equal(t, want, collect(t, q, 1, 60))
	require.Equal(t, lost, reported)
	require.Equal(t, before, snapshot(t, fs), "a view keeps no copies")
	require.Equal(t, numbers(lost[len(lost)-1]+1, 61), collect(t, q, lost[len(lost)-1], 60), "it may begin in the damage")
	require.Empty(t, collect(t, q, hit.first, hit.past-1), "and lie in it")
	require.Len(t, reported, len(lost), "once")
}

// first is the first number of a segment.
func first(t testing.TB, im *image, i int) (n uint64) {
	_, err := fmt.Sscanf(filepath.Base(im.segments[i]), "%d.seg", &n)
	require.NoError(t, err)
	return n
}

func TestViewRefusesWhatWouldChangeSomething(t *testing.T) {
	im := build(t, 12, 1<<20)
	fs := im.with(0, im.data(t, 0))
	before := snapshot(t, fs)
	v := mustView(t, queue.Options{FS: fs})
	again := mustView(t, queue.Options{FS: fs})
	require.Equal(t, numbers(1, 13), collect(t, again, 1, 12), "two may look at once")
	_, err := queue.Open("q", queue.Options{FS: fs})
	require.ErrorIs(t, err, queue.ErrLocked, "nobody writes meanwhile")
	_, err = v.Append(context.Background(), contents(13, 1), nil)
	require.ErrorIs(t, err, queue.ErrReadOnly)
	_, err = v.Append(context.Background(), nil, nil)
	require.ErrorIs(t, err, queue.ErrReadOnly)
	_, err = v.Reader("a")
	require.ErrorIs(t, err, queue.ErrReadOnly)
	require.ErrorIs(t, v.Forget("a"), queue.ErrReadOnly)
	require.Equal(t, before, snapshot(t, fs))
	require.Equal(t, uint64(13), v.Next())
	mark, _ := v.Mark([]byte("source"))
	require.Equal(t, "12", string(mark))
	require.NoError(t, v.Close())
	require.NoError(t, again.Close())
	require.ErrorIs(t, v.Range(context.Background(), 1, 1, nil), queue.ErrClosed)
	_, err = v.Check(context.Background(), nil)
	require.ErrorIs(t, err, queue.ErrClosed)
	q := mustOpen(t, queue.Options{FS: fs})
	_, err = queue.View("q", queue.Options{FS: fs})
	require.ErrorIs(t, err, queue.ErrLocked)
	require.NoError(t, q.Close())
	_, err = queue.View("elsewhere", queue.Options{FS: fs})
	require.ErrorIs(t, err, os.ErrNotExist)
}

// TestViewChangesNothingWhateverItFinds looks at directories that Open would bring into order.
func TestViewChangesNothingWhateverItFinds(t *testing.T) {
	im := build(t, 60, 1<<10)
	newest := len(im.segments) - 1
	whole := im.data(t, newest)
	list := frames(whole)
	last := list[len(list)-1]
	for name, c := range map[string]struct {
		damage func(fs *crashfs.FS)
		next   uint64
		torn   int
	}{
		"torn tail": {
			func(fs *crashfs.FS) { fs.WriteFile(im.segments[newest], whole[:last.end-3]) },
			last.first, last.end - 3 - last.off,
		},
		"no newest head": {func(fs *crashfs.FS) { fs.WriteFile(im.segments[newest], whole[:30]) }, list[0].first + 1, 0},
		"no meta":        {func(fs *crashfs.FS) { require.NoError(t, fs.Remove("q/meta")) }, 61, 0},
		"damaged meta":   {func(fs *crashfs.FS) { fs.WriteFile("q/meta", []byte("nonsense")) }, 61, 0},
		"stray":          {func(fs *crashfs.FS) { fs.WriteFile("q/00000000000000000099.seg", whole) }, 61, 0},
		"leftovers": {func(fs *crashfs.FS) {
			fs.WriteFile("q/00000000000000000099.seg.1.new", whole)
			fs.WriteFile("q/cursors/x.a.new", whole)
		}, 61, 0},
		"lost cursor":     {func(fs *crashfs.FS) { fs.WriteFile("q/cursors/x.a", make([]byte, 99)) }, 61, 0},
		"missing segment": {func(fs *crashfs.FS) { require.NoError(t, fs.Remove(im.segments[1])) }, 61, 0},
	} {
		t.Run(name, func(t *testing.T) {
			fs := im.fs.Crash(crashfs.Forget, 0)
			c.damage(fs)
			before := snapshot(t, fs)
			fs.Hook(func(_ int, op, path string) {
				if !slices.Contains([]string{"open", "read", "stat", "list", "lock"}, op) {
					t.Errorf("%s %s", op, path)
				}
			})
			v := mustView(t, queue.Options{FS: fs})
			require.Equal(t, c.next, v.Next())
			require.Equal(t, uint64(c.torn), v.Stats().TornBytes)
			_, err := v.Check(context.Background(), nil)
			require.NoError(t, err)
			_ = collect(t, v, v.First(), v.Next()-1)
			_, err = v.Cursors()
			require.NoError(t, err)
			require.NoError(t, v.Close())
			require.Equal(t, before, snapshot(t, fs))
		})
	}
}

// TestViewOnTheRealFileSystem holds names, contents and times of all files before and after a look at a torn directory.
func TestViewOnTheRealFileSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q, err := queue.Open(dir, queue.Options{})
	require.NoError(t, err)
	put(t, q, 9)
	put(t, q, 3)
	_, err = queue.View(dir, queue.Options{})
	require.ErrorIs(t, err, queue.ErrLocked)
	require.NoError(t, q.Close())
	path := filepath.Join(dir, q.Segments()[0].File)
	require.NoError(t, os.Truncate(path, q.Segments()[0].Bytes-5))
	state := func() (list []string) {
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := d.Info()
			require.NoError(t, err)
			var data []byte
			if !d.IsDir() {
				data, err = os.ReadFile(path)
				require.NoError(t, err)
			}
			list = append(list, fmt.Sprintf("%s %s %x", path, info.ModTime(), data))
			return nil
		}))
		return list
	}
	before := state()
	v, err := queue.View(dir, queue.Options{})
	require.NoError(t, err)
	require.Equal(t, numbers(1, 10), collect(t, v, 1, 9))
	_, err = queue.Open(dir, queue.Options{})
	require.ErrorIs(t, err, queue.ErrLocked)
	require.NoError(t, v.Close())
	require.Equal(t, before, state())
	require.NoError(t, os.Remove(filepath.Join(dir, "LOCK")))
	v, err = queue.View(dir, queue.Options{})
	require.NoError(t, err, "a copy without the lock file")
	require.NoError(t, v.Close())
	require.NoFileExists(t, filepath.Join(dir, "LOCK"))
	_, err = queue.View(filepath.Join(dir, "cursors"), queue.Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}
