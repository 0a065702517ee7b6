package queue_test

import (
	"context"
	"fmt"
	"maps"
	"strconv"
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

// account is what a workload asked for and what it was promised.
type account struct {
	acked     map[uint64]string // by number
	tried     map[string]bool   // every content that was ever handed to Append
	mark      int               // newest acknowledged mark
	markTried int
	committed map[string]uint64 // newest acknowledged commit
	tries     map[string]uint64 // newest commit that was tried
}

func newAccount() *account {
	return &account{
		acked: map[uint64]string{}, tried: map[string]bool{}, committed: map[string]uint64{}, tries: map[string]uint64{},
	}
}

func (a *account) clone() *account {
	return &account{
		acked: maps.Clone(a.acked), tried: maps.Clone(a.tried), mark: a.mark, markTried: a.markTried,
		committed: maps.Clone(a.committed), tries: maps.Clone(a.tries),
	}
}

// workload does the same things each time: three starts, appends with marks, segments that fill up, two cursors,
// deletion.
type workload struct {
	mu      sync.Mutex // guards account: a hook looks at it from the queue's goroutines
	account *account
}

func sweepOptions(fs queue.FS, damaged func(queue.Damage)) queue.Options {
	return queue.Options{FS: fs, SegmentBytes: 2 << 10, Damaged: damaged}
}

func (w *workload) run(t *testing.T, fs queue.FS, damaged func(queue.Damage)) {
	for round := range 3 {
		var q *queue.Queue
		var err error
		for range 4 { // a fault that passes
			if q, err = queue.Open("data/queue", sweepOptions(fs, damaged)); err == nil {
				break
			}
		}
		require.NoError(t, err)
		a, _ := q.ReaderFrom("a", true)
		b, _ := q.ReaderFrom("b", true)
		for i := range 6 {
			w.append(q, 1+i%3, 150+100*i)
			if i%2 == round%2 {
				w.consume(a, "a")
			}
			if i == 4 {
				w.consume(b, "b")
			}
			synctest.Wait() // deletion happens now or never
		}
		_ = q.Close() // the error of a lock or a file that is not needed any more
	}
}

func (w *workload) append(q *queue.Queue, count, size int) {
	w.mu.Lock()
	w.account.markTried++
	number := w.account.markTried
	list := make([][]byte, count)
	for i := range list {
		list[i] = fmt.Appendf(nil, "append %d part %d %s", number, i, strings.Repeat("x", size))
		w.account.tried[string(list[i])] = true
	}
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	first, err := q.Append(ctx, list, [][]byte{queue.AppendMark(nil, []byte("source"), []byte(strconv.Itoa(number)))})
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		return
	}
	w.account.mark = number
	for i, e := range list {
		w.account.acked[first+uint64(i)] = string(e)
	}
}

func (w *workload) consume(r *queue.Reader, name string) {
	if r == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var b queue.Batch
	if err := r.Read(ctx, &b); err != nil {
		return
	}
	upTo := b.First + uint64(len(b.Entries)) - 1
	w.mu.Lock()
	w.account.tries[name] = max(w.account.tries[name], upTo)
	w.mu.Unlock()
	if err := r.Commit(upTo); err == nil {
		w.mu.Lock()
		w.account.committed[name] = upTo
		w.mu.Unlock()
	}
}

// verifyCrash lets the machine crash and holds what is left against the account; then, if only the process had died,
// the power goes as well.
func (a *account) verifyCrash(fs *crashfs.FS, loss crashfs.Loss, seed uint64) error {
	a = a.clone()
	left := fs.Crash(loss, seed)
	if err := a.verify(left); err != nil {
		return fmt.Errorf("crash %d: %w", loss, err)
	}
	if loss != crashfs.Keep {
		return nil
	}
	for _, then := range crashfs.Losses[1:] {
		if err := a.clone().verify(left.Crash(then, seed)); err != nil {
			return fmt.Errorf("process died, then crash %d: %w", then, err)
		}
	}
	return nil
}

// verify opens what is left on disk and holds it against the account.
func (a *account) verify(fs *crashfs.FS) (err error) {
	fs.Inject(crashfs.Fault{})
	var damages []queue.Damage
	q, err := queue.Open("data/queue", sweepOptions(fs, func(d queue.Damage) { damages = append(damages, d) }))
	if err != nil {
		return fmt.Errorf("reopen: %w", err)
	}
	defer func() {
		if e := q.Close(); err == nil {
			err = e
		}
	}()
	synctest.Wait() // what is to be deleted is deleted now
	done, err := a.verifyCursors(q)
	if err != nil {
		return err
	}
	if mark, _ := q.Mark([]byte("source")); string(mark) != "" || a.mark > 0 {
		if n, err := strconv.Atoi(string(mark)); err != nil || n < a.mark || n > a.markTried {
			return fmt.Errorf("mark is %q, acknowledged was %d, tried %d", mark, a.mark, a.markTried)
		}
	}
	// The queue still works.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	last, err := q.Append(ctx, [][]byte{[]byte("last")}, nil)
	if err != nil {
		return fmt.Errorf("append after reopen: %w", err)
	}
	a.acked[last], a.tried["last"] = "last", true
	for n := range a.acked {
		if n < q.First() && n > done {
			return fmt.Errorf("%d was deleted, the cursors are at %d", n, done)
		}
		if n > last {
			return fmt.Errorf("%d was acknowledged, but %d is the end", n, last)
		}
	}
	if err := a.verifyEntries(ctx, q); err != nil {
		return err
	}
	if len(damages) > 0 {
		return fmt.Errorf("damage reported: %+v", damages)
	}
	return nil
}

func (a *account) verifyCursors(q *queue.Queue) (done uint64, err error) {
	list, err := q.Cursors()
	if err != nil {
		return 0, err
	}
	at := map[string]uint64{}
	for _, c := range list {
		at[c.Name] = c.Next - 1
		if c.Next < q.First() {
			return 0, fmt.Errorf("cursor %s is at %d, and what it wants is deleted up to %d", c.Name, c.Next, q.First())
		}
	}
	done = 1 << 62
	for _, name := range []string{"a", "b"} {
		if at[name] < a.committed[name] || at[name] > a.tries[name] {
			return 0, fmt.Errorf("cursor %s is at %d, acknowledged was %d, tried %d",
				name, at[name], a.committed[name], a.tries[name])
		}
		done = min(done, a.tries[name])
	}
	return done, nil
}

// verifyEntries reads everything on disk: what was acknowledged is there with its bytes, and nothing is there that
// nobody wrote.
func (a *account) verifyEntries(ctx context.Context, q *queue.Queue) error {
	r, err := q.ReaderFrom("verify", true)
	if err != nil {
		return err
	}
	var b queue.Batch
	for n := q.First(); n < q.Next(); {
		if err := r.Read(ctx, &b); err != nil {
			return fmt.Errorf("read %d: %w", n, err)
		}
		if b.First != n {
			return fmt.Errorf("%d to %d are missing", n, b.First-1)
		}
		for _, e := range b.Entries {
			if want, ok := a.acked[n]; ok && want != string(e) {
				return fmt.Errorf("%d is %.20q, acknowledged was %.20q", n, e, want)
			}
			if !a.tried[string(e)] {
				return fmt.Errorf("%d is %.20q, which nobody wrote", n, e)
			}
			a.acked[n] = string(e) // what a reader has seen stays
			n++
		}
	}
	return nil
}

// fullRun returns the number of calls of a workload without faults.
func fullRun(t *testing.T) (calls int) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		w := &workload{account: newAccount()}
		w.run(t, fs, func(d queue.Damage) { t.Errorf("damage: %+v", d) })
		calls = fs.Calls()
		require.NoError(t, w.account.verify(fs))
		require.Greater(t, len(w.account.acked), 30)
		require.Greater(t, w.account.committed["b"], uint64(5))
	})
	return calls
}

// TestEachCallFails lets every file-system call of the workload fail in every way, and then the power go as well.
func TestEachCallFails(t *testing.T) {
	calls := fullRun(t)
	t.Logf("%d calls", calls)
	faults := map[string]crashfs.Fault{}
	errnos := map[string]syscall.Errno{"EIO": syscall.EIO, "ENOSPC": syscall.ENOSPC, "EINTR": syscall.EINTR}
	for name, errno := range errnos {
		faults[name+" before"] = crashfs.Fault{Err: errno}
		faults[name+" after"] = crashfs.Fault{Err: errno, After: true}
		faults[name+" after half a write"] = crashfs.Fault{Err: errno, Short: true}
		faults[name+" three times"] = crashfs.Fault{Err: errno, Times: 3}
	}
	faults["short write"] = crashfs.Fault{Short: true}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for call := 1; call <= calls; call += thinning {
					fs := crashfs.New()
					fault.Call = call
					fs.Inject(fault)
					w := &workload{account: newAccount()}
					w.run(t, fs, func(d queue.Damage) { t.Errorf("call %d: damage: %+v", call, d) })
					losses := crashfs.Losses
					if fault.Err != syscall.EIO || fault.Short || fault.Times > 1 { // one kind of crash each, to save time
						losses = losses[call%len(losses):][:1]
					}
					for _, loss := range losses {
						require.NoError(t, w.account.verifyCrash(fs, loss, uint64(call)), "call %d", call)
					}
				}
			})
		})
	}
}

// TestPowerCutAtEachCall stops the machine before every call of the workload.
func TestPowerCutAtEachCall(t *testing.T) {
	calls := fullRun(t)
	synctest.Test(t, func(t *testing.T) {
		for call := 1; call <= calls; call += thinning {
			fs := crashfs.New()
			w := &workload{account: newAccount()}
			var left *crashfs.FS
			var then *account
			fs.Hook(func(n int, _, _ string) {
				if n != call {
					return
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				then, left = w.account.clone(), fs.Crash(crashfs.Keep, 0)
			})
			w.run(t, fs, func(d queue.Damage) { t.Errorf("call %d: damage: %+v", call, d) })
			for _, loss := range crashfs.Losses {
				require.NoError(t, then.verifyCrash(left, loss, uint64(call)), "call %d", call)
			}
		}
	})
}

// TestControlLosesWithoutSync shows that the checks above can fail: the same workload on a disk that does not sync.
func TestControlLosesWithoutSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := crashfs.New()
		w := &workload{account: newAccount()}
		w.run(t, lazy{fs}, func(queue.Damage) {})
		require.Error(t, w.account.clone().verify(fs.Crash(crashfs.Forget, 1)))
		require.Error(t, w.account.clone().verify(fs.Crash(crashfs.Subset, 1)))
	})
}

// lazy says that everything is synced.
type lazy struct{ *crashfs.FS }

func (lazy) SyncDir(string) error { return nil }

func (l lazy) OpenFile(path string, flag int) (queue.File, error) {
	f, err := l.FS.OpenFile(path, flag)
	return lazyFile{f}, err
}

type lazyFile struct{ queue.File }

func (lazyFile) Sync() error { return nil }
