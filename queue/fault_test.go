package queue_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// failNext lets the next calls of one kind fail.
func failNext(fs *crashfs.FS, op string, times int, fault crashfs.Fault) {
	fs.Hook(func(call int, name, path string) {
		if name == op && strings.Contains(path, ".seg") && times > 0 {
			times--
			fault.Call = call
			fs.Inject(fault)
		}
	})
}

func mustOpen(t *testing.T, opt queue.Options) *queue.Queue {
	t.Helper()
	q, err := queue.Open("q", opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

func put(t *testing.T, q *queue.Queue, count uint64) {
	t.Helper()
	first := q.Next()
	got, err := q.Append(context.Background(), contents(first, count), nil)
	require.NoError(t, err)
	require.Equal(t, first, got)
}

// wants reads the entries from first on to the end.
func wants(t *testing.T, q *queue.Queue, r *queue.Reader, first uint64) {
	t.Helper()
	var b queue.Batch
	for n := first; n < q.Next(); {
		require.NoError(t, r.Read(context.Background(), &b))
		require.Equal(t, n, b.First)
		for _, e := range b.Entries {
			require.Equal(t, content(n), string(e))
			n++
		}
	}
}

func segments(fs *crashfs.FS) (list []string) {
	for _, path := range fs.Files() {
		if strings.HasSuffix(path, ".seg") {
			list = append(list, path)
		}
	}
	return list
}

func TestFailedSyncMovesTheBatchToANewSegment(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("happened=%v", after), func(t *testing.T) {
			fs := crashfs.New()
			q := mustOpen(t, queue.Options{FS: fs})
			r, err := q.ReaderFrom("a", true)
			require.NoError(t, err)
			put(t, q, 3)
			failNext(fs, "sync", 1, crashfs.Fault{Err: syscall.EIO, After: after})
			put(t, q, 2)
			require.Equal(t, []string{"q/00000000000000000001.seg", "q/00000000000000000004.seg"}, segments(fs))
			old, err := fs.ReadFile("q/00000000000000000001.seg")
			require.NoError(t, err)
			require.Equal(t, uint64(6), frames(old)[2].past, "the void frame is still in the old segment")
			put(t, q, 1)
			wants(t, q, r, 1)
			require.NoError(t, q.Stats().Err)
			left := fs.Crash(crashfs.Forget, 1)
			o := drain(t, left, 7)
			require.Empty(t, o.missing)
			require.Empty(t, o.damages)
			require.Equal(t, uint64(7), o.next)
		})
	}
}

func TestFailedSyncOfTheFirstFrameReplacesTheSegment(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	failed := 0
	fs.Hook(func(call int, op, path string) {
		if op == "sync" && strings.HasSuffix(path, ".new") {
			failed++
		}
		if op == "sync" && failed == 1 && !strings.HasSuffix(path, ".new") {
			fs.Inject(crashfs.Fault{Call: call, Err: syscall.EIO})
		}
		// The descriptor keeps the name it was made with; the second sync through it is that of the first frame.
		if op == "sync" && strings.HasSuffix(path, ".new") && failed == 2 {
			fs.Inject(crashfs.Fault{Call: call, Err: syscall.EIO})
		}
	})
	put(t, q, 3)
	require.Equal(t, []string{"q/00000000000000000001.seg"}, segments(fs))
	fs.Hook(nil)
	put(t, q, 2)
	o := drain(t, fs.Crash(crashfs.Forget, 1), 6)
	require.Empty(t, o.missing)
	require.Equal(t, uint64(6), o.next)
}

func TestSecondFailedSyncStopsAcceptingAndReadersGoOn(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	put(t, q, 3)
	failNext(fs, "sync", 1000, crashfs.Fault{Err: syscall.EIO})
	for range 3 {
		_, err = q.Append(context.Background(), contents(4, 2), nil)
		require.ErrorIs(t, err, queue.ErrStopped)
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorIs(t, q.Stats().Err, queue.ErrStopped)
	}
	wants(t, q, r, 1)
	require.NoError(t, r.Commit(3))
	fs.Hook(nil)
	_, err = q.Append(context.Background(), contents(4, 2), nil)
	require.ErrorIs(t, err, queue.ErrStopped, "until it is opened again")
	o := drain(t, fs.Crash(crashfs.Forget, 1), 6)
	require.Empty(t, o.missing)
	require.Equal(t, uint64(4), o.next)
}

func TestFailedWriteIsCutBackAndAnswered(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	put(t, q, 3)
	before, err := fs.ReadFile("q/00000000000000000001.seg")
	require.NoError(t, err)
	faults := []crashfs.Fault{{Err: syscall.EIO}, {Err: syscall.EIO, Short: true}, {Err: syscall.EIO, After: true}}
	for _, fault := range faults {
		failNext(fs, "write", 1, fault)
		_, err = q.Append(context.Background(), contents(4, 2), nil)
		require.ErrorIs(t, err, syscall.EIO)
		after, err := fs.ReadFile("q/00000000000000000001.seg")
		require.NoError(t, err)
		require.Equal(t, before, after, "nothing of it is left")
	}
	put(t, q, 2)
	require.Len(t, segments(fs), 1)
}

func TestCutThatFailsAbandonsTheSegment(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	put(t, q, 3)
	fs.Hook(func(call int, op, path string) {
		if op == "write" && strings.Contains(path, "01.seg") {
			fs.Inject(crashfs.Fault{Call: call, Times: 2, Err: syscall.EIO, After: true})
		}
	})
	_, err = q.Append(context.Background(), contents(4, 2), nil)
	require.ErrorIs(t, err, syscall.EIO)
	fs.Hook(nil)
	require.Len(t, segments(fs), 2, "the new segment makes the tail void before anybody hears of the error")
	put(t, q, 4)
	wants(t, q, r, 1)
	require.Empty(t, drain(t, fs.Crash(crashfs.Keep, 0), 8).missing)
}

func TestReadErrorIsReturnedAndNothingSkipped(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs, Damaged: func(d queue.Damage) { t.Errorf("damage: %+v", d) }})
	put(t, q, 3)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	failNext(fs, "read", 5, crashfs.Fault{Err: syscall.EIO})
	var b queue.Batch
	for range 5 {
		require.ErrorIs(t, r.Read(context.Background(), &b), syscall.EIO)
	}
	wants(t, q, r, 1)
}

func TestFullDiskWaitsAndGoesOnByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		q, err := queue.Open("q", queue.Options{FS: fs})
		require.NoError(t, err)
		put(t, q, 3)
		before, err := fs.ReadFile("q/00000000000000000001.seg")
		require.NoError(t, err)
		fs.SetCapacity(fs.Used() + 20)
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		_, err = q.Append(ctx, contents(4, 2), nil)
		require.ErrorIs(t, err, queue.ErrFull)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, syscall.ENOSPC)
		after, err := fs.ReadFile("q/00000000000000000001.seg")
		require.NoError(t, err)
		require.Equal(t, before, after)
		require.True(t, q.Stats().Full)
		require.ErrorIs(t, q.Stats().Err, syscall.ENOSPC)

		start := time.Now()
		time.AfterFunc(time.Minute, func() { fs.SetCapacity(0) })
		put(t, q, 2)
		require.InDelta(t, time.Minute.Seconds(), time.Since(start).Seconds(), 1)
		require.False(t, q.Stats().Full)
		require.NoError(t, q.Stats().Err)
		require.NoError(t, q.Close())
	})
}

func TestFullDiskDeletesDeliveredSegmentsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		q, err := queue.Open("q", queue.Options{FS: fs, SegmentBytes: 1 << 10, KeepDelivered: 1000 * time.Hour})
		require.NoError(t, err)
		r, err := q.ReaderFrom("a", true)
		require.NoError(t, err)
		for range 20 {
			put(t, q, 5)
		}
		require.NoError(t, r.Commit(50))
		synctest.Wait()
		require.Equal(t, uint64(1), q.First())
		fs.SetCapacity(fs.Used() + 20)
		put(t, q, 5)
		require.Greater(t, q.First(), uint64(1))
		require.LessOrEqual(t, q.First(), uint64(51))
		require.NoError(t, q.Close())
	})
}

// TestAdmittedAppendIsFinished: a context that ends during the write does not matter, one that ends while waiting does.
func TestAdmittedAppendIsFinished(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	put(t, q, 1)
	ctx, cancel := context.WithCancel(context.Background())
	fs.Hook(func(_ int, op, _ string) {
		if op == "write" {
			cancel()
		}
	})
	first, err := q.Append(ctx, contents(2, 1), nil)
	require.NoError(t, err)
	require.Equal(t, uint64(2), first)
	first, err = q.Append(ctx, contents(3, 1), nil)
	require.NoError(t, err, "there is no wait for space")
	require.Equal(t, uint64(3), first)
}

// TestOneOfAGroupGivesUp: while the disk is full, appends leave one by one and the others stay in order.
func TestOneOfAGroupGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		q, err := queue.Open("q", queue.Options{FS: fs})
		require.NoError(t, err)
		put(t, q, 1)
		fs.SetCapacity(fs.Used())
		var group sync.WaitGroup
		errs := make([]error, 6)
		for i := range errs {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+i%2)*time.Hour)
			defer cancel()
			group.Go(func() { _, errs[i] = q.Append(ctx, [][]byte{fmt.Append(nil, i)}, nil) })
		}
		time.AfterFunc(90*time.Minute, func() { fs.SetCapacity(0) })
		group.Wait()
		for i, err := range errs {
			if i%2 == 0 {
				require.ErrorIs(t, err, queue.ErrFull)
			} else {
				require.NoError(t, err)
			}
		}
		require.Equal(t, uint64(5), q.Next())
		require.NoError(t, q.Close())
	})
}

func TestSetBackThatFailedStillHoldsBackDeletion(t *testing.T) {
	fs := crashfs.New()
	still := func() time.Time { return time.Unix(1, 0) }
	q := mustOpen(t, queue.Options{FS: fs, SegmentBytes: 1 << 10, KeepDelivered: time.Nanosecond, Now: still})
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	for range 20 {
		put(t, q, 5)
	}
	require.NoError(t, r.Commit(100)) // delivered, but the clock stands still
	fs.Hook(func(call int, op, path string) {
		if op == "sync" && strings.Contains(path, "cursors") {
			fs.Inject(crashfs.Fault{Call: call, Err: syscall.EIO, After: true})
		}
	})
	require.ErrorIs(t, r.Seek(7), syscall.EIO)
	fs.Hook(nil)
	require.Equal(t, uint64(100), r.Committed())
	fs.SetCapacity(fs.Used()) // space is needed now
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = q.Append(ctx, contents(101, 1), nil)
	require.ErrorIs(t, err, queue.ErrFull)
	left := fs.Crash(crashfs.Forget, 1)
	o := drain(t, left, 101)
	require.Empty(t, o.damages, "the cursor may be back at 7 after a crash, so that is still there")
	require.LessOrEqual(t, q.First(), uint64(7))
	fs.SetCapacity(0)
}

func TestCommitThatFailedIsDoneAgain(t *testing.T) {
	for _, op := range []string{"write", "sync"} {
		for _, after := range []bool{false, true} {
			fs := crashfs.New()
			q := mustOpen(t, queue.Options{FS: fs})
			put(t, q, 9)
			r, err := q.ReaderFrom("a", true)
			require.NoError(t, err)
			require.NoError(t, r.CommitState(3, []byte("three")))
			fs.Hook(func(call int, name, _ string) {
				if name == op {
					fs.Inject(crashfs.Fault{Call: call, Err: syscall.EIO, After: after})
				}
			})
			require.ErrorIs(t, r.CommitState(5, []byte("five")), syscall.EIO)
			require.Equal(t, uint64(3), r.Committed())
			require.Equal(t, "three", string(r.State()))
			fs.Hook(nil)
			require.NoError(t, r.CommitState(6, []byte("six")))
			again, err := queue.Open("q", queue.Options{FS: fs.Crash(crashfs.Forget, 1)})
			require.NoError(t, err)
			r, err = again.Reader("a")
			require.NoError(t, err)
			require.Equal(t, uint64(6), r.Committed())
			require.Equal(t, "six", string(r.State()))
			require.NoError(t, again.Close())
		}
	}
}

func TestGroupDelayWaitsOnlyForKnownCompany(t *testing.T) {
	frames := func(delay time.Duration) (n uint64) {
		synctest.Test(t, func(t *testing.T) {
			fs := crashfs.New()
			q, err := queue.Open("q", queue.Options{FS: fs, GroupDelay: delay})
			require.NoError(t, err)
			start := time.Now()
			put(t, q, 1)
			put(t, q, 1)
			require.Equal(t, start, time.Now(), "an idle queue never waits")
			fs.Hook(func(_ int, op, _ string) {
				if op == "sync" {
					<-time.After(5 * time.Millisecond)
				}
			})
			var group sync.WaitGroup
			appender := func(after ...time.Duration) {
				group.Go(func() {
					for _, wait := range after {
						<-time.After(wait)
						if _, err := q.Append(context.Background(), [][]byte{{1}}, nil); err != nil {
							t.Error(err)
						}
					}
				})
			}
			appender(0)
			appender(time.Millisecond, 0)                    // waits for the sync of the first one,
			appender(2*time.Millisecond, 3*time.Millisecond) // together with this one, which comes back later
			group.Wait()
			n = q.Stats().Frames
			require.Equal(t, uint64(7), q.Stats().Entries)
			require.NoError(t, q.Close())
		})
		return n
	}
	require.Equal(t, uint64(6), frames(0))
	require.Equal(t, uint64(5), frames(20*time.Millisecond), "the two come back together")
}

func TestErrorsOfOpenNameTheFile(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs})
	put(t, q, 1)
	left := fs.Crash(crashfs.Keep, 0)
	failNext(left, "read", 9, crashfs.Fault{Err: syscall.EIO})
	_, err := queue.Open("q", queue.Options{FS: left})
	require.ErrorIs(t, err, syscall.EIO)
	require.Contains(t, err.Error(), "00000000000000000001.seg")
	left.Hook(nil)
	again, err := queue.Open("q", queue.Options{FS: left})
	require.NoError(t, err, "the lock was let go")
	require.NoError(t, again.Close())
	_, err = queue.Open("q", queue.Options{FS: fs})
	require.ErrorIs(t, err, queue.ErrLocked)
	require.False(t, errors.Is(err, os.ErrNotExist))
}
