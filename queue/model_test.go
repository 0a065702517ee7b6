package queue_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

const (
	modelSteps = 100 // in each of rapid's 100 runs: 10,000 steps
	cursors    = 3
)

// model is what the queue must be: a list, the lowest number that may be on disk, and three positions.
type model struct {
	entries []string // entries[n-1] is entry n
	done    [cursors]uint64
	pos     [cursors]uint64 // the next number that a Read returns
	mark    string
}

// machine is the queue under test beside its model.
type machine struct {
	t       *rapid.T
	fs      *crashfs.FS
	q       *queue.Queue
	readers [cursors]*queue.Reader
	m       model
	written int // distinguishes contents
}

func (x *machine) open() {
	opt := queue.Options{FS: x.fs, SegmentBytes: 1 << 10, Damaged: func(d queue.Damage) { x.t.Fatalf("damage: %+v", d) }}
	q, err := queue.Open("q", opt)
	require.NoError(x.t, err)
	x.q = q
	for i := range x.readers {
		x.readers[i], err = q.ReaderFrom(fmt.Sprint("cursor ", i), true)
		require.NoError(x.t, err)
		x.m.pos[i] = x.m.done[i] + 1
	}
}

// check compares what can be seen without reading.
func (x *machine) check() {
	require.Equal(x.t, uint64(len(x.m.entries))+1, x.q.Next())
	least := x.m.done[0]
	for i, r := range x.readers {
		require.Equal(x.t, x.m.done[i], r.Committed())
		require.Equal(x.t, x.q.Next()-1-x.m.done[i], r.Lag())
		least = min(least, x.m.done[i])
	}
	require.LessOrEqual(x.t, x.q.First(), least+1, "nothing undelivered is deleted")
	mark, _ := x.q.Mark([]byte("mark"))
	require.Equal(x.t, x.m.mark, string(mark))
	require.NoError(x.t, x.q.Stats().Err)
	x.checkSeen()
}

// checkSeen holds some ids of the list, and one that is not in it, against the index.
func (x *machine) checkSeen() {
	var list [][]byte
	for i := len(x.m.entries) - 1; i >= 0; i = i/2 - 1 {
		list = append(list, []byte(x.m.entries[i]))
	}
	ids := append(idsOf(list), idOf([]byte("never appended")))
	dup := make([]bool, len(ids))
	require.NoError(x.t, x.q.Reserve(context.Background(), ids, dup))
	for i, d := range dup {
		require.Equal(x.t, i < len(list), d, "id %d of %d entries, %+v", i, len(x.m.entries), x.q.Stats())
	}
	x.q.Release(ids)
}

// put appends with ids, as long as there is time.
func (x *machine) put(ctx context.Context, list [][]byte, mark string) (first uint64, err error) {
	return x.q.AppendSeen(ctx, list, [][]byte{queue.AppendMark(nil, []byte("mark"), []byte(mark))}, idsOf(list))
}

func (x *machine) batch(rt *rapid.T) (list [][]byte, mark string) {
	count := rapid.IntRange(1, 5).Draw(rt, "entries")
	size := rapid.SampledFrom([]int{0, 10, 300, 2000}).Draw(rt, "size")
	x.written++
	for i := range count {
		list = append(list, fmt.Appendf(nil, "%d.%d.%0*d", x.written, i, size, 0))
	}
	return list, fmt.Sprint(x.written)
}

func (x *machine) took(list [][]byte, mark string) {
	for _, e := range list {
		x.m.entries = append(x.m.entries, string(e))
	}
	x.m.mark = mark
}

func (x *machine) append(rt *rapid.T) {
	list, mark := x.batch(rt)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first, err := x.put(ctx, list, mark)
	require.NoError(rt, err)
	require.Equal(rt, uint64(len(x.m.entries))+1, first)
	x.took(list, mark)
}

// read reads one batch, if there is something to read, or checks that Read waits.
func (x *machine) read(rt *rapid.T) {
	i := rapid.IntRange(0, cursors-1).Draw(rt, "cursor")
	r := x.readers[i]
	r.SetLimit(rapid.IntRange(1, 20).Draw(rt, "limit"), rapid.SampledFrom([]int{1, 500, 100_000}).Draw(rt, "bytes"))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var b queue.Batch
	err := r.Read(ctx, &b)
	if x.m.pos[i] > uint64(len(x.m.entries)) {
		require.ErrorIs(rt, err, context.DeadlineExceeded)
		return
	}
	require.NoError(rt, err)
	require.Equal(rt, x.m.pos[i], b.First)
	for k, e := range b.Entries {
		require.Equal(rt, x.m.entries[b.First-1+uint64(k)], string(e))
	}
	x.m.pos[i] += uint64(len(b.Entries))
}

func (x *machine) commit(rt *rapid.T) {
	i := rapid.IntRange(0, cursors-1).Draw(rt, "cursor")
	upTo := rapid.Uint64Range(x.m.done[i], x.m.pos[i]-1).Draw(rt, "commit")
	require.NoError(rt, x.readers[i].Commit(upTo))
	x.m.done[i] = upTo
}

func (x *machine) seek(rt *rapid.T) {
	i := rapid.IntRange(0, cursors-1).Draw(rt, "cursor")
	synctest.Wait() // a deletion that is due happens before First is asked
	to := rapid.Uint64Range(x.q.First(), x.q.Next()).Draw(rt, "seek")
	require.NoError(rt, x.readers[i].Seek(to))
	x.m.done[i], x.m.pos[i] = to-1, to
}

func (x *machine) rewind(rt *rapid.T) {
	i := rapid.IntRange(0, cursors-1).Draw(rt, "cursor")
	to := rapid.Uint64Range(x.m.done[i]+1, x.m.pos[i]).Draw(rt, "rewind")
	require.NoError(rt, x.readers[i].Rewind(to))
	x.m.pos[i] = to
}

// restart closes the queue and opens it again, after a clean end or after a crash at a moment when all calls were
// answered.
func (x *machine) restart(rt *rapid.T, crash bool) {
	if crash {
		loss := rapid.SampledFrom(crashfs.Losses).Draw(rt, "loss")
		after := x.fs.Crash(loss, rapid.Uint64().Draw(rt, "seed"))
		require.NoError(rt, x.q.Close())
		x.fs = after
	} else {
		require.NoError(rt, x.q.Close())
	}
	x.open()
}

// crashDuringAppend cuts the power at one of the calls of an append: it is there whole or not at all.
func (x *machine) crashDuringAppend(rt *rapid.T) {
	list, mark := x.batch(rt)
	loss := rapid.SampledFrom(crashfs.Losses).Draw(rt, "loss")
	seed := rapid.Uint64().Draw(rt, "seed")
	at := x.fs.Calls() + rapid.IntRange(1, 8).Draw(rt, "call")
	var left *crashfs.FS
	x.fs.Hook(func(call int, _, _ string) {
		if call == at {
			left = x.fs.Crash(loss, seed)
		}
	})
	_, err := x.put(context.Background(), list, mark)
	require.NoError(rt, err)
	synctest.Wait()
	x.fs.Hook(nil)
	there := left == nil
	if there {
		x.took(list, mark) // it was done earlier
		left = x.fs.Crash(loss, seed)
	}
	require.NoError(rt, x.q.Close())
	x.fs = left
	x.open()
	if x.q.Next() > uint64(len(x.m.entries))+1 {
		x.took(list, mark)
		there = true
	}
	dup := make([]bool, len(list))
	require.NoError(rt, x.q.Reserve(context.Background(), idsOf(list), dup))
	for _, d := range dup {
		require.Equal(rt, there, d, "an id is seen if its entry is in the log, and only then")
	}
	x.q.Release(idsOf(list))
}

// fill lets the disk run full: appends are refused whole, and go on when there is space.
func (x *machine) fill(rt *rapid.T) {
	x.fs.SetCapacity(x.fs.Used() + int64(rapid.IntRange(0, 3000).Draw(rt, "room")))
	for {
		list, mark := x.batch(rt)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_, err := x.put(ctx, list, mark)
		cancel()
		if err != nil {
			require.ErrorIs(rt, err, queue.ErrFull)
			require.True(rt, errors.Is(err, context.DeadlineExceeded))
			require.True(rt, x.q.Stats().Full)
			break
		}
		x.took(list, mark)
	}
	i := rapid.IntRange(0, cursors-1).Draw(rt, "cursor")
	if x.m.pos[i] > x.m.done[i]+1 {
		require.NoError(rt, x.readers[i].Commit(x.m.pos[i]-1), "a commit needs no space")
		x.m.done[i] = x.m.pos[i] - 1
	}
	if rapid.Bool().Draw(rt, "restart while full") {
		x.restart(rt, true)
	}
	x.fs.SetCapacity(0)
	x.append(rt)
}

// inBubble hides from rapid that it could ask for a deadline, which synctest does not allow.
type inBubble struct{ *testing.T }

// TestModel compares the queue with a list, through 10,000 steps with crashes at any moment. All entries have ids.
func TestModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(inBubble{t}, func(rt *rapid.T) {
			x := &machine{t: rt, fs: crashfs.New()}
			x.open()
			defer func() { _ = x.q.Close() }()
			steps := []func(*rapid.T){
				x.append, x.append, x.append, x.read, x.read, x.read, x.commit, x.commit, x.seek, x.rewind,
				func(rt *rapid.T) { x.restart(rt, false) }, func(rt *rapid.T) { x.restart(rt, true) },
				x.crashDuringAppend, x.fill,
			}
			for range modelSteps {
				steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")](rt)
				x.check()
			}
		})
	})
}
