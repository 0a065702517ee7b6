package queue_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// idOf is the id of a content.
func idOf(content []byte) [16]byte {
	sum := sha256.Sum256(content)
	return [16]byte(sum[:])
}

func idsOf(list [][]byte) (ids [][16]byte) {
	for _, e := range list {
		ids = append(ids, idOf(e))
	}
	return ids
}

// putSeen appends entries with their ids.
func putSeen(t testing.TB, q *queue.Queue, count uint64) {
	t.Helper()
	list := contents(q.Next(), count)
	_, err := q.AppendSeen(context.Background(), list, nil, idsOf(list))
	require.NoError(t, err)
}

// seenOf returns which numbers' ids are seen, without reserving anything.
func seenOf(t testing.TB, q *queue.Queue, from, past uint64) (list []uint64) {
	t.Helper()
	ids := idsOf(contents(from, past-from))
	dup := make([]bool, len(ids))
	require.NoError(t, q.Reserve(context.Background(), ids, dup))
	for i, d := range dup {
		if d {
			list = append(list, from+uint64(i))
		}
	}
	q.Release(ids)
	return list
}

func idFiles(fs *crashfs.FS) (list []string) {
	for _, path := range fs.Files() {
		if filepath.Ext(path) == ".ids" {
			list = append(list, path)
		}
	}
	return list
}

func TestReserveFindsWhatWasAppendedAndWhatComesTwice(t *testing.T) {
	q := mustOpen(t, queue.Options{FS: crashfs.New()})
	list := contents(1, 4)
	ids := idsOf(list)
	batch := [][16]byte{ids[0], ids[1], ids[0], {}, {}, ids[2]}
	dup := []bool{true, true, true, true, true, true}
	require.NoError(t, q.Reserve(context.Background(), batch, dup))
	require.Equal(t, []bool{false, false, true, false, false, false}, dup)
	first, err := q.AppendSeen(context.Background(), list[:3], nil, [][16]byte{ids[0], ids[1], {}})
	require.NoError(t, err)
	require.Equal(t, uint64(1), first)
	q.Release([][16]byte{ids[2]})
	dup = make([]bool, 4)
	require.NoError(t, q.Reserve(context.Background(), ids, dup))
	require.Equal(t, []bool{true, true, false, false}, dup, "released and never reserved ones are new")
	require.Equal(t, 2, q.Stats().SeenIDs)
	require.Error(t, q.Reserve(context.Background(), ids, dup[:2]))
	const many = 1<<20 + 1
	require.ErrorIs(t, q.Reserve(context.Background(), make([][16]byte, many), make([]bool, many)), queue.ErrTooLarge)
	_, err = q.AppendSeen(context.Background(), list[:1], nil, ids)
	require.Error(t, err, "an id without an entry")
	require.Equal(t, uint64(4), q.Next())
	_, err = q.AppendSeen(context.Background(), list[3:], nil, nil)
	require.NoError(t, err, "without ids it is Append")
	_, err = q.AppendSeen(context.Background(), list[3:], nil, make([][16]byte, 1))
	require.NoError(t, err)
	require.Equal(t, 2, q.Stats().SeenIDs)
	require.Equal(t, uint64(6), q.Next())
}

func TestReserveOfAReservedIDWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, err := queue.Open("q", queue.Options{FS: crashfs.New()})
		require.NoError(t, err)
		list := contents(1, 3)
		ids := idsOf(list)
		require.NoError(t, q.Reserve(context.Background(), ids[:2], make([]bool, 2)))
		type answer struct {
			dup []bool
			err error
		}
		ask := func(ctx context.Context, ids ...[16]byte) chan answer {
			c := make(chan answer, 1)
			go func() {
				dup := make([]bool, len(ids))
				err := q.Reserve(ctx, ids, dup)
				c <- answer{dup, err}
			}()
			synctest.Wait()
			return c
		}
		first := ask(context.Background(), ids[1], ids[2])
		require.Empty(t, first, "it waits")
		require.Equal(t, []bool{false}, (<-ask(context.Background(), ids[2])).dup, "and holds nothing while it waits")
		q.Release(ids[2:])
		short, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		require.ErrorIs(t, (<-ask(short, ids[0])).err, context.DeadlineExceeded)
		_, err = q.AppendSeen(context.Background(), list[1:2], nil, ids[1:2])
		require.NoError(t, err)
		require.Equal(t, answer{dup: []bool{true, false}}, <-first, "seen now")
		q.Release(ids[2:])
		second := ask(context.Background(), ids[0])
		require.Empty(t, second)
		q.Release(ids[:1])
		require.Equal(t, answer{dup: []bool{false}}, <-second, "released")
		third := ask(context.Background(), ids[0])
		require.Empty(t, third)
		require.NoError(t, q.Close())
		require.ErrorIs(t, (<-third).err, queue.ErrClosed)
		require.ErrorIs(t, q.Reserve(context.Background(), ids, make([]bool, 3)), queue.ErrClosed)
	})
}

// TestConcurrentSourcesEnterEachIDOnce: eight sources bring the same entries in overlapping pieces, some fail.
func TestConcurrentSourcesEnterEachIDOnce(t *testing.T) {
	fs := crashfs.New()
	q := mustOpen(t, queue.Options{FS: fs, SegmentBytes: 8 << 10})
	all := contents(1, 400)
	var group sync.WaitGroup
	for s := range 8 {
		group.Go(func() {
			for at := s * 7; at < len(all)+50; at += 10 {
				piece := slices.Clone(all[min(at%450, 399):min(at%450+25, 400)])
				if s%2 == 1 {
					slices.Reverse(piece)
				}
				ids, dup := idsOf(piece), make([]bool, len(piece))
				if err := q.Reserve(context.Background(), ids, dup); err != nil {
					t.Error(err)
					return
				}
				var fresh [][]byte
				for i, e := range piece {
					if !dup[i] {
						fresh = append(fresh, e)
					}
				}
				if s == 3 && at%3 == 0 {
					q.Release(idsOf(fresh))
					continue
				}
				if _, err := q.AppendSeen(context.Background(), fresh, nil, idsOf(fresh)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	count := map[string]int{}
	require.NoError(t, q.Range(context.Background(), 1, q.Next()-1, func(_ uint64, e []byte) error {
		count[string(e)]++
		return nil
	}))
	for e, n := range count {
		require.Equal(t, 1, n, "%.12s", e)
	}
	require.Greater(t, len(count), 390)
	require.Equal(t, uint64(len(count)+1), q.Next())
}

func TestIDsAreSeenAfterARestartAlsoOfDeletedSegments(t *testing.T) {
	fs := crashfs.New()
	opt := queue.Options{FS: fs, SegmentBytes: 1 << 10}
	q := mustOpen(t, opt)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	for range 10 {
		putSeen(t, q, 5)
		put(t, q, 2) // these have no ids
	}
	require.NoError(t, r.Commit(40))
	want := slices.DeleteFunc(numbers(1, 71), func(n uint64) bool { return (n-1)%7 >= 5 })
	require.Equal(t, want, seenOf(t, q, 1, 71))
	require.Eventually(t, func() bool { return q.First() > 20 }, 5*time.Second, time.Millisecond)
	for _, loss := range crashfs.Losses {
		left := fs.Crash(loss, 1)
		opt.FS = left
		again := mustOpen(t, opt)
		require.Equal(t, want, seenOf(t, again, 1, 71))
		require.Zero(t, again.Stats().SeenForgotten)
		putSeen(t, again, 3)
		require.Equal(t, append(slices.Clone(want), 71, 72, 73), seenOf(t, again, 1, 80))
		require.NoError(t, again.Close())
	}
}

// sealedWithIDs makes a queue with ids in every segment and returns what is on disk when all id files are there.
func sealedWithIDs(t *testing.T, opt queue.Options) (fs *crashfs.FS, next uint64) {
	fs = crashfs.New()
	opt.FS = fs
	q, err := queue.Open("q", opt)
	require.NoError(t, err)
	for range 12 {
		putSeen(t, q, 5)
	}
	require.Eventually(t, func() bool { return len(idFiles(fs)) == len(segments(fs))-1 }, 5*time.Second, time.Millisecond)
	next = q.Next()
	require.NoError(t, q.Close())
	require.Greater(t, len(segments(fs)), 4)
	return fs.Crash(crashfs.Forget, 0), next
}

// TestLostIDFilesAreMadeAgain: as long as the segment is there, nothing is lost with the file.
func TestLostIDFilesAreMadeAgain(t *testing.T) {
	whole, next := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	path := idFiles(whole)[1]
	data, err := whole.ReadFile(path)
	require.NoError(t, err)
	other, err := whole.ReadFile(idFiles(whole)[0])
	require.NoError(t, err)
	changed := func(at int) []byte { c := slices.Clone(data); c[at] ^= 1; return c }
	copy(other[24:32], data[24:32]) // the first number
	other = queue.Resealed(other)
	for name, content := range map[string][]byte{
		"missing": nil, "empty": {}, "cut": data[:len(data)-1], "longer": append(slices.Clone(data), 0),
		"head": changed(20), "time": changed(70), "id": changed(len(data) - 1), "of another": other,
	} {
		t.Run(name, func(t *testing.T) {
			fs := whole.Crash(crashfs.Forget, 0)
			if content == nil {
				require.NoError(t, fs.Remove(path))
			} else {
				fs.WriteFile(path, content)
			}
			var damages []queue.Damage
			opt := queue.Options{FS: fs, SegmentBytes: 1 << 10, Damaged: func(d queue.Damage) { damages = append(damages, d) }}
			q := mustOpen(t, opt)
			require.Equal(t, numbers(1, next), seenOf(t, q, 1, next))
			if content != nil {
				require.Len(t, damages, 1)
				require.Equal(t, filepath.Base(path), damages[0].File)
				kept, err := fs.ReadFile("q/quarantine/" + filepath.Base(path))
				require.NoError(t, err)
				require.Equal(t, string(content), string(kept))
			} else {
				require.Empty(t, damages)
			}
			require.Eventually(t, func() bool {
				again, err := fs.ReadFile(path)
				return err == nil && len(again) == len(data)
			}, 5*time.Second, time.Millisecond)
		})
	}
}

// TestASegmentThatIsReplacedStillKnowsTheIDsBeforeIt: the first frame of a new segment fails, so that another one takes
// its place, and the id file of the segment before is lost.
func TestASegmentThatIsReplacedStillKnowsTheIDsBeforeIt(t *testing.T) {
	fs := crashfs.New()
	opt := queue.Options{FS: fs, SegmentBytes: 1 << 10}
	q := mustOpen(t, opt)
	for len(segments(fs)) < 2 {
		synced := 0
		fs.Hook(func(call int, op, path string) {
			if op == "sync" && strings.Contains(path, ".seg.") {
				// The head of the new segment is synced, then its first frame through the same descriptor.
				if synced++; synced == 2 {
					fs.Inject(crashfs.Fault{Call: call, Err: syscall.EIO})
				}
			}
		})
		putSeen(t, q, 5)
	}
	fs.Hook(nil)
	next := q.Next()
	require.Eventually(t, func() bool { return len(idFiles(fs)) == 1 }, 5*time.Second, time.Millisecond)
	require.NoError(t, q.Close())
	require.Equal(t, 2, len(segments(fs)))
	require.NoError(t, fs.Remove(idFiles(fs)[0]))
	q = mustOpen(t, opt)
	require.Equal(t, numbers(1, next), seenOf(t, q, 1, next))
}

func TestADamagedIDFileOfADeletedSegmentIsNamed(t *testing.T) {
	fs, next := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	require.NoError(t, fs.Remove(segments(fs)[0]))
	path := idFiles(fs)[0]
	fs.WriteFile(path, []byte("nonsense"))
	var damages []queue.Damage
	q := mustOpen(t, queue.Options{FS: fs, Damaged: func(d queue.Damage) { damages = append(damages, d) }})
	require.Len(t, damages, 1)
	require.Contains(t, damages[0].Reason, "doubles of its entries are possible")
	require.Equal(t, numbers(q.First(), next), seenOf(t, q, 1, next), "the others are known")
}

func TestManyLostIDFilesDoNotKeepOpenBusy(t *testing.T) {
	fs, next := sealedWithIDs(t, queue.Options{SegmentBytes: 512})
	require.Greater(t, len(idFiles(fs)), 6)
	for _, path := range idFiles(fs) {
		require.NoError(t, fs.Remove(path))
	}
	q := mustOpen(t, queue.LimitRebuild(queue.Options{FS: fs, SegmentBytes: 512}, 4<<10))
	segs := q.Segments()
	read, bytes := len(segs)-1, int64(0)
	for ; bytes+segs[read-1].Bytes <= 4<<10; read-- {
		bytes += segs[read-1].Bytes
	}
	from := segs[read].First
	require.Greater(t, from, uint64(1))
	require.Equal(t, numbers(from, next), seenOf(t, q, 1, next), "as many as may be read, the newest ones")
	require.Equal(t, from-1, q.Stats().SeenForgotten)
}

func TestIDsOfDamagedFramesAreNotMadeUp(t *testing.T) {
	fs, next := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	require.NoError(t, fs.Remove(idFiles(fs)[0]))
	path := segments(fs)[0]
	data, err := fs.ReadFile(path)
	require.NoError(t, err)
	hit := frames(data)[1]
	data[hit.off+50] ^= 1
	fs.WriteFile(path, data)
	q := mustOpen(t, queue.Options{FS: fs})
	want := slices.DeleteFunc(numbers(1, next), func(n uint64) bool { return n >= hit.first && n < hit.past })
	require.Equal(t, want, seenOf(t, q, 1, next))
	require.Equal(t, want, collect(t, q, 1, next-1))
}

func TestIDsAreForgottenWhenTheirWindowHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		opt := queue.Options{FS: fs, SegmentBytes: 512, SeenWindow: 10 * time.Hour}
		q, err := queue.Open("q", opt)
		require.NoError(t, err)
		for range 10 {
			putSeen(t, q, 4)
			<-time.After(time.Hour)
		}
		want := numbers(5, 41)
		require.Equal(t, want, seenOf(t, q, 1, 41), "the first four are ten hours old")
		require.Equal(t, 36, q.Stats().SeenIDs)
		require.Zero(t, q.Stats().SeenForgotten, "that is no loss")
		require.NoError(t, q.Close())
		<-time.After(3 * time.Hour)
		q, err = queue.Open("q", opt)
		require.NoError(t, err)
		require.Equal(t, numbers(17, 41), seenOf(t, q, 1, 41), "it passes while nobody runs, too")
		<-time.After(20 * time.Hour)
		require.Empty(t, seenOf(t, q, 1, 41))
		synctest.Wait()
		require.Empty(t, idFiles(fs), "files go with their last id")
		require.NoError(t, q.Close())
	})
}

// TestClockThatJumpsDoesNotKeepIDsForEver sets the clock back by a year.
func TestClockThatJumpsDoesNotKeepIDsForEver(t *testing.T) {
	start := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	var now atomic.Pointer[time.Time]
	now.Store(&start)
	opt := queue.Options{FS: crashfs.New(), SeenWindow: time.Hour, Now: func() time.Time { return *now.Load() }}
	q := mustOpen(t, opt)
	putSeen(t, q, 2)
	back := start.AddDate(-1, 0, 0)
	now.Store(&back)
	putSeen(t, q, 2)
	require.Equal(t, numbers(1, 5), seenOf(t, q, 1, 5))
	later := back.Add(time.Hour + time.Second)
	now.Store(&later)
	require.Empty(t, seenOf(t, q, 1, 5))
}

func TestIDsAreBoundedByEntries(t *testing.T) {
	for _, delivered := range []bool{false, true} {
		t.Run(fmt.Sprintf("delivered=%v", delivered), func(t *testing.T) {
			fs := crashfs.New()
			opt := queue.Options{FS: fs, SegmentBytes: 1 << 10, SeenEntries: 12}
			q := mustOpen(t, opt)
			r, err := q.ReaderFrom("a", true)
			require.NoError(t, err)
			for range 10 {
				putSeen(t, q, 5)
				if delivered {
					require.NoError(t, r.Commit(q.Next()-1))
				}
			}
			require.Equal(t, numbers(39, 51), seenOf(t, q, 1, 51), "the newest twelve")
			require.Equal(t, 12, q.Stats().SeenIDs)
			require.Equal(t, uint64(38), q.Stats().SeenForgotten)
			require.Eventually(t, func() bool {
				return len(idFiles(fs)) <= 3 && (len(segments(fs)) == 1) == delivered
			}, 5*time.Second, time.Millisecond)
			require.NoError(t, q.Close())
			q = mustOpen(t, opt)
			require.Equal(t, numbers(39, 51), seenOf(t, q, 1, 51))
			require.Zero(t, q.Stats().SeenForgotten, "counted once")
			putSeen(t, q, 3)
			require.Equal(t, numbers(42, 54), seenOf(t, q, 1, 54))
			require.Equal(t, uint64(3), q.Stats().SeenForgotten)
		})
	}
}

// TestAFullDiskGivesUpIDsRatherThanAppends: there is no space for the id file of a segment that must go.
func TestAFullDiskGivesUpIDsRatherThanAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		opt := queue.Options{FS: fs, SegmentBytes: 1 << 10, KeepDelivered: time.Hour}
		q, err := queue.Open("q", opt)
		require.NoError(t, err)
		r, err := q.ReaderFrom("a", true)
		require.NoError(t, err)
		fs.Hook(func(call int, op, path string) {
			if strings.Contains(path, ".ids") && op == "open" {
				fs.Inject(crashfs.Fault{Call: call, Err: syscall.ENOSPC})
			}
		})
		for range 10 {
			putSeen(t, q, 5)
		}
		require.NoError(t, r.Commit(50))
		synctest.Wait()
		fs.SetCapacity(fs.Used() + 50)
		put(t, q, 5)
		require.Greater(t, q.First(), uint64(1))
		require.Equal(t, numbers(1, 51), seenOf(t, q, 1, 51), "known until the next start")
		require.NotZero(t, q.Stats().SeenForgotten)
		fs.Hook(nil)
		fs.SetCapacity(0)
		left := q.First()
		require.NoError(t, q.Close())
		q, err = queue.Open("q", queue.Options{FS: fs, SegmentBytes: 1 << 10})
		require.NoError(t, err)
		require.Equal(t, numbers(left, 51), seenOf(t, q, 1, 51))
		require.NoError(t, q.Close())
	})
}

// TestIDsNeverGoIntoASegmentOfAnOlderFormat: a program that knows only format 1 would take their frames for damage.
func TestIDsNeverGoIntoASegmentOfAnOlderFormat(t *testing.T) {
	dir := copyOf(t, "testdata/v1/normal")
	q, err := queue.Open(dir, queue.Options{})
	require.NoError(t, err)
	before := len(q.Segments())
	put(t, q, 1)
	require.Len(t, q.Segments(), before, "without ids it goes on in the old one")
	putSeen(t, q, 2)
	require.Len(t, q.Segments(), before+1)
	require.NoError(t, q.Close())
	q, err = queue.Open(dir, queue.Options{})
	require.NoError(t, err)
	require.Equal(t, []uint64{32, 33}, seenOf(t, q, 1, 34))
	require.Equal(t, numbers(1, 34), collect(t, q, 1, 33))
	require.Empty(t, check(t, q).Damage)
	require.NoError(t, q.Close())
}

func TestAViewReservesNothing(t *testing.T) {
	fs, _ := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	before := snapshot(t, fs)
	v := mustView(t, queue.Options{FS: fs})
	require.ErrorIs(t, v.Reserve(context.Background(), make([][16]byte, 1), make([]bool, 1)), queue.ErrReadOnly)
	_, err := v.AppendSeen(context.Background(), contents(1, 1), nil, idsOf(contents(1, 1)))
	require.ErrorIs(t, err, queue.ErrReadOnly)
	require.Empty(t, check(t, v).Damage)
	require.Equal(t, before, snapshot(t, fs))
}
