package queue_test

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

func check(t testing.TB, q *queue.Queue) queue.CheckReport {
	t.Helper()
	report, err := q.Check(context.Background(), nil)
	require.NoError(t, err)
	return report
}

func TestCheckCountsAllFrames(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs, SegmentBytes: 1 << 10})
	for range 20 {
		put(t, q, 5)
	}
	var done []int64
	report, err := q.Check(context.Background(), func(d, total int64) {
		require.Equal(t, q.Stats().DiskBytes, total)
		done = append(done, d)
	})
	require.NoError(t, err)
	require.Equal(t, q.Stats().DiskBytes, done[len(done)-1])
	require.Equal(t, queue.CheckReport{
		Segments: q.Stats().Segments, Frames: 20 + uint64(q.Stats().Segments), Entries: 100,
		Bytes: q.Stats().DiskBytes - 64*int64(q.Stats().Segments),
	}, report, "a snapshot frame at the head of each segment")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = q.Check(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	failNext(fs, "read", 1, crashfs.Fault{Err: syscall.EIO})
	_, err = q.Check(context.Background(), nil)
	require.ErrorIs(t, err, syscall.EIO)
}

func TestCheckTellsItsProgress(t *testing.T) {
	q, err := queue.Open(t.TempDir(), queue.Options{SegmentBytes: 3 << 20})
	require.NoError(t, err)
	for range 80 {
		_, err := q.Append(context.Background(), [][]byte{make([]byte, 100<<10)}, nil)
		require.NoError(t, err)
	}
	told, before := 0, int64(0)
	_, err = q.Check(context.Background(), func(done, total int64) {
		require.Greater(t, done, before)
		require.LessOrEqual(t, done, total)
		before = done
		told++
	})
	require.NoError(t, err)
	require.InDelta(t, 8, told, 3)
	require.NoError(t, q.Close())
}

// TestCheckNamesDamageAndLeavesIt damages one place of a sealed or of the newest segment, in a running or a stopped
// queue.
func TestCheckNamesDamageAndLeavesIt(t *testing.T) {
	im := build(t, 60, 1<<10)
	newest := len(im.segments) - 1
	for _, at := range []int{1, newest} {
		data := im.data(t, at)
		list := frames(data)
		hit := list[len(list)-2]
		data[hit.off+40] ^= 4
		want := queue.Damage{
			First: hit.first, Last: hit.past - 1, File: filepath.Base(im.segments[at]),
			Offset: int64(hit.off), Bytes: int64(hit.end - hit.off), Reason: "bytes that are no frame between intact ones",
		}
		fs := im.with(at, data)
		before := snapshot(t, fs)
		v := mustView(t, queue.Options{FS: fs})
		stats := v.Stats()
		report := check(t, v)
		require.Equal(t, []queue.Damage{want}, report.Damage)
		require.Equal(t, 60-(hit.past-hit.first), report.Entries)
		require.Equal(t, stats, v.Stats(), "not counted as found by reading")
		require.Equal(t, report, check(t, v), "again the same")
		require.Equal(t, before, snapshot(t, fs))

		fs = im.fs.Crash(crashfs.Forget, 0)
		q := mustOpen(t, queue.Options{FS: fs})
		fs.WriteFile(im.segments[at], data) // under the running queue
		before = snapshot(t, fs)
		require.Equal(t, []queue.Damage{want}, check(t, q).Damage)
		require.Equal(t, before, snapshot(t, fs))
	}
}

func TestCheckNamesLostFilesHeadsAndEnds(t *testing.T) {
	im := build(t, 60, 1<<10)
	whole := im.data(t, 1)
	cut := frames(whole)[2]
	name := filepath.Base(im.segments[1])
	lost := queue.Damage{First: first(t, im, 1), Last: first(t, im, 2) - 1, File: name}
	head := queue.Damage{File: name, Bytes: 64, Reason: "the file header is damaged"}
	for _, c := range []struct {
		name   string
		damage func(fs *crashfs.FS)
		want   []queue.Damage
	}{
		{"cut", func(fs *crashfs.FS) { fs.WriteFile(im.segments[1], whole[:cut.off+7]) }, []queue.Damage{{
			First: cut.first, Last: lost.Last, File: name, Offset: int64(cut.off), Bytes: 7,
			Reason: "the end of the segment is missing or damaged",
		}}},
		{
			"head", func(fs *crashfs.FS) { fs.WriteFile(im.segments[1], append(make([]byte, 64), whole[64:]...)) },
			[]queue.Damage{head},
		},
		{"empty", func(fs *crashfs.FS) { fs.WriteFile(im.segments[1], nil) }, []queue.Damage{head, {
			First: lost.First, Last: lost.Last, File: name, Reason: "no frame can be read",
		}}},
		{"missing", func(fs *crashfs.FS) { require.NoError(t, fs.Remove(im.segments[1])) }, []queue.Damage{{
			First: lost.First, Last: lost.Last, File: filepath.Base(im.segments[0]), Offset: int64(len(im.data(t, 0))),
			Reason: "the segment behind it is missing: " + name,
		}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := im.fs.Crash(crashfs.Forget, 0)
			c.damage(fs)
			require.Equal(t, c.want, check(t, mustView(t, queue.Options{FS: fs})).Damage)
		})
	}
	t.Run("removed under a running queue", func(t *testing.T) {
		fs := im.fs.Crash(crashfs.Forget, 0)
		q := mustOpen(t, queue.Options{FS: fs})
		require.NoError(t, fs.Remove(im.segments[1]))
		lost.Reason = "the segment is missing"
		require.Equal(t, []queue.Damage{lost}, check(t, q).Damage)
	})
}

// TestCheckSeesNoDamageInWhatWasNeverAcknowledged: an abandoned segment ends in a void frame.
func TestCheckSeesNoDamageInWhatWasNeverAcknowledged(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	put(t, q, 3)
	failNext(fs, "sync", 1, crashfs.Fault{Err: syscall.EIO, After: true})
	put(t, q, 2)
	put(t, q, 2)
	require.Len(t, q.Segments(), 2)
	report := check(t, q)
	require.Empty(t, report.Damage)
	require.Equal(t, uint64(7), report.Entries)
	report = check(t, mustView(t, queue.Options{FS: fs.Crash(crashfs.Keep, 0)}))
	require.Empty(t, report.Damage)
	require.Equal(t, uint64(7), report.Entries)
}

func TestCheckLeavesOutWhatIsDeletedMeanwhile(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs, SegmentBytes: 1 << 10})
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	for range 20 {
		put(t, q, 5)
	}
	segs := q.Segments()
	opened := 0
	fs.Hook(func(_ int, op, _ string) {
		if op != "open" {
			return
		}
		if opened++; opened == 1 {
			require.NoError(t, r.Commit(segs[3].Last))
			require.Eventually(t, func() bool { return q.First() == segs[4].First }, 5*time.Second, time.Millisecond)
		}
	})
	report := check(t, q)
	require.Empty(t, report.Damage)
	require.Equal(t, len(segs)-4, report.Segments)
	require.Equal(t, 101-segs[4].First, report.Entries)
}
