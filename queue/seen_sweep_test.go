package queue_test

import (
	"context"
	"fmt"
	"maps"
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

// seenAccount is what a workload with ids asked for and what it was promised.
type seenAccount struct {
	tried map[string]int // the last attempt at each content
	acked map[string]bool
	calls int
}

func (a seenAccount) clone() seenAccount {
	return seenAccount{tried: maps.Clone(a.tried), acked: maps.Clone(a.acked), calls: a.calls}
}

// seenWorkload brings numbered contents, each of them several times over as a source does after a restart, through
// three starts, full segments and deletion.
type seenWorkload struct {
	t  *testing.T
	mu sync.Mutex // guards what follows: a hook looks at it from the queue's goroutines
	seenAccount
}

func newSeenWorkload(t *testing.T) *seenWorkload {
	return &seenWorkload{t: t, seenAccount: seenAccount{tried: map[string]int{}, acked: map[string]bool{}}}
}

func seenContent(i int) string {
	return fmt.Sprintf("record %d %s", i, strings.Repeat("x", 60+i*53%200))
}

func (w *seenWorkload) run(fs queue.FS) {
	for round := range 3 {
		var q *queue.Queue
		var err error
		for range 4 { // a fault that passes
			if q, err = queue.Open("data/queue", sweepOptions(fs, w.damaged)); err == nil {
				break
			}
		}
		require.NoError(w.t, err)
		r, _ := q.ReaderFrom("a", true)
		// Each round begins again behind the records of the one before the last.
		for at := max(0, 6*(round-1)); at < 6*(round+2); at += 3 {
			w.bring(q, at, 4)
			if r != nil && at%2 == 0 {
				consumeAll(r)
			}
			synctest.Wait()
		}
		_ = q.Close() // the error of a file that is not needed any more
	}
}

func (w *seenWorkload) damaged(d queue.Damage) { w.t.Errorf("damage: %+v", d) }

// bring is what a source does with some records.
func (w *seenWorkload) bring(q *queue.Queue, at, count int) {
	var list [][]byte
	for i := at; i < at+count; i++ {
		list = append(list, []byte(seenContent(i)))
	}
	ids, dup := idsOf(list), make([]bool, count)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := q.Reserve(ctx, ids, dup); err != nil {
		w.t.Errorf("reserve: %v", err)
		return
	}
	var fresh [][]byte
	w.mu.Lock()
	w.calls++
	for i, e := range list {
		if dup[i] {
			w.acked[string(e)] = true // a double is durable
			continue
		}
		fresh = append(fresh, e)
		w.tried[string(e)] = w.calls
	}
	w.mu.Unlock()
	if _, err := q.AppendSeen(ctx, fresh, nil, idsOf(fresh)); err != nil {
		q.Release(idsOf(fresh))
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range fresh {
		w.acked[string(e)] = true
	}
}

func consumeAll(r *queue.Reader) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var b queue.Batch
	if err := r.Read(ctx, &b); err == nil {
		_ = r.Commit(b.First + uint64(len(b.Entries)) - 1) // a failed one is done again
	}
}

// verify opens what is left on disk: each record is in the log at most once, what was acknowledged is there or was
// delivered and deleted, and an id is seen if its record is in the log, and only then.
func (a seenAccount) verify(fs *crashfs.FS) (err error) {
	fs.Inject(crashfs.Fault{})
	var damages []queue.Damage
	q, err := queue.Open("data/queue", sweepOptions(fs, func(d queue.Damage) { damages = append(damages, d) }))
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	defer func() { _ = q.Close() }() // only read
	synctest.Wait()                  // what is to be deleted is deleted now
	in := map[string]uint64{}
	oldest := 0 // the oldest attempt of which a record is in the log
	if first, next := q.First(), q.Next(); next > first {
		if err := q.Range(context.Background(), first, next-1, func(n uint64, e []byte) error {
			if before, twice := in[string(e)]; twice {
				return fmt.Errorf("%d and %d are both %.12q", before, n, e)
			}
			if in[string(e)] = n; oldest == 0 {
				oldest = a.tried[string(e)]
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if len(damages) > 0 {
		return fmt.Errorf("damage reported: %+v", damages)
	}
	for e, attempt := range a.tried {
		dup := make([]bool, 1)
		if err := q.Reserve(context.Background(), [][16]byte{idOf([]byte(e))}, dup); err != nil {
			return err
		}
		_, there := in[e]
		switch {
		case (there || a.acked[e]) && !dup[0]:
			return fmt.Errorf("%.12q is in the log (%v) or acknowledged (%v), its id is not seen", e, there, a.acked[e])
		case !there && dup[0] && !a.acked[e] && (q.First() == 1 || attempt > oldest && oldest > 0):
			return fmt.Errorf("the id of %.12q is seen, and it is not in the log", e)
		case a.acked[e] && !there && q.First() == 1:
			return fmt.Errorf("%.12q was acknowledged and is lost", e)
		}
	}
	return nil
}

func (a seenAccount) verifyCrash(fs *crashfs.FS, loss crashfs.Loss, seed uint64) error {
	left := fs.Crash(loss, seed)
	if loss == crashfs.Keep {
		for _, then := range crashfs.Losses {
			if err := a.verify(left.Crash(then, seed)); err != nil {
				return fmt.Errorf("process died, then crash %d: %w", then, err)
			}
		}
	}
	if err := a.verify(left); err != nil {
		return fmt.Errorf("crash %d: %w", loss, err)
	}
	return nil
}

func seenCalls(t *testing.T) (calls int) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		w := newSeenWorkload(t)
		w.run(fs)
		calls = fs.Calls()
		require.NoError(t, w.verify(fs))
		require.Len(t, w.acked, 25)
		require.NotEmpty(t, idFiles(fs))
		require.NotContains(t, fs.Files(), "data/queue/00000000000000000001.seg", "segments are deleted too")
	})
	t.Logf("%d calls", calls)
	return calls
}

// TestEachCallFailsWithIDs lets every file-system call of the workload fail, and then the power go as well.
func TestEachCallFailsWithIDs(t *testing.T) {
	calls := seenCalls(t)
	for name, fault := range map[string]crashfs.Fault{
		"EIO before": {Err: syscall.EIO}, "EIO after": {Err: syscall.EIO, After: true},
		"EIO three times": {Err: syscall.EIO, Times: 3}, "EIO after half a write": {Err: syscall.EIO, Short: true},
		"ENOSPC before": {Err: syscall.ENOSPC}, "ENOSPC after": {Err: syscall.ENOSPC, After: true},
		"ENOSPC after half a write": {Err: syscall.ENOSPC, Short: true}, "EINTR before": {Err: syscall.EINTR},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for call := 1; call <= calls; call += thinning {
					fs := crashfs.New()
					fault.Call = call
					fs.Inject(fault)
					w := newSeenWorkload(t)
					w.run(fs)
					loss := crashfs.Losses[call%len(crashfs.Losses)]
					require.NoError(t, w.verifyCrash(fs, loss, uint64(call)), "call %d", call)
				}
			})
		})
	}
}

// TestPowerCutAtEachCallWithIDs stops the machine before every call of the workload.
func TestPowerCutAtEachCallWithIDs(t *testing.T) {
	calls := seenCalls(t)
	synctest.Test(t, func(t *testing.T) {
		for call := 1; call <= calls; call += thinning {
			fs := crashfs.New()
			w := newSeenWorkload(t)
			var left *crashfs.FS
			var then seenAccount
			fs.Hook(func(n int, _, _ string) {
				if n == call {
					w.mu.Lock()
					defer w.mu.Unlock()
					then, left = w.clone(), fs.Crash(crashfs.Keep, 0)
				}
			})
			w.run(fs)
			for _, loss := range crashfs.Losses {
				require.NoError(t, then.verifyCrash(left, loss, uint64(call)), "call %d", call)
			}
		}
	})
}

// TestControlOfIDsLosesWithoutSync shows that the checks above can fail.
func TestControlOfIDsLosesWithoutSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		w := newSeenWorkload(t)
		w.run(lazy{fs})
		require.Error(t, w.verify(fs.Crash(crashfs.Forget, 1)))
		require.Error(t, w.verify(fs.Crash(crashfs.Subset, 1)))
	})
}

// TestIDsOfALostEndAreDropped: what is not in the log any more may come again, also under numbers that are used again.
func TestIDsOfALostEndAreDropped(t *testing.T) {
	fs, next := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	segs := segments(fs)
	for _, path := range segs[len(segs)-2:] {
		require.NoError(t, fs.Remove(path))
	}
	opt := queue.Options{FS: fs, SegmentBytes: 1 << 10}
	q := mustOpen(t, opt)
	left := q.Next()
	require.Less(t, left, next-5)
	require.Equal(t, numbers(1, left), seenOf(t, q, 1, next))
	require.Equal(t, numbers(1, left), collect(t, q, 1, left-1))
	for q.Next() < next {
		putSeen(t, q, 5)
	}
	require.NoError(t, q.Close())
	q = mustOpen(t, opt)
	require.Equal(t, numbers(1, next), seenOf(t, q, 1, next+9))
}
