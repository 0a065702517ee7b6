package queue

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// open opens a queue that is closed at the end of the test.
func open(t testing.TB, dir string, opt Options) *Queue {
	t.Helper()
	q, err := Open(dir, opt)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	return q
}

func reader(t testing.TB, q *Queue, name string) *Reader {
	t.Helper()
	r, err := q.ReaderFrom(name, true)
	require.NoError(t, err)
	return r
}

// entry is the content of entry n: its size and bytes follow from n, so that a wrong byte shows.
func entry(n uint64) []byte {
	rnd := rand.New(rand.NewPCG(n, 1))
	b := fmt.Appendf(nil, "entry %d ", n)
	for range rnd.IntN(60) {
		b = append(b, byte(rnd.Uint32()))
	}
	return b
}

func entries(from, count uint64) (list [][]byte) {
	for n := from; n < from+count; n++ {
		list = append(list, entry(n))
	}
	return list
}

// add appends count entries that carry their number.
func add(t testing.TB, q *Queue, count uint64) {
	t.Helper()
	from := q.Next()
	first, err := q.Append(context.Background(), entries(from, count), nil)
	require.NoError(t, err)
	require.Equal(t, from, first)
	require.Equal(t, from+count, q.Next())
}

// readAll reads from the reader's position to the end of the log, and checks every byte.
func readAll(t testing.TB, r *Reader) (numbers []uint64) {
	t.Helper()
	var b Batch
	for {
		wait, err := r.fetch(&b)
		require.NoError(t, err)
		if wait != nil {
			return numbers
		}
		for i, e := range b.Entries {
			n := b.First + uint64(i)
			require.Equal(t, string(entry(n)), string(e), "entry %d", n)
			numbers = append(numbers, n)
		}
	}
}

func span(from, to uint64) (list []uint64) {
	for ; from < to; from++ {
		list = append(list, from)
	}
	return list
}

func TestAppendReadCommitReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q, err := Open(dir, Options{})
	require.NoError(t, err)
	id := q.LogID()
	require.GreaterOrEqual(t, id, uint32(10_000_000))
	require.Less(t, id, uint32(100_000_000))
	require.Equal(t, uint64(1), q.First())
	add(t, q, 3)
	add(t, q, 1)
	r := reader(t, q, "splunk")
	require.Equal(t, span(1, 5), readAll(t, r))
	require.Equal(t, uint64(4), r.Lag())
	require.NoError(t, r.CommitState(2, []byte("ack 17")))
	require.Equal(t, uint64(2), r.Committed())
	require.NoError(t, q.Close())
	require.NoError(t, q.Close())
	require.ErrorIs(t, r.Commit(3), ErrClosed)
	_, err = q.Append(context.Background(), entries(5, 1), nil)
	require.ErrorIs(t, err, ErrClosed)

	q = open(t, dir, Options{})
	require.Equal(t, id, q.LogID())
	require.Equal(t, uint64(5), q.Next())
	r = reader(t, q, "splunk")
	require.Equal(t, "ack 17", string(r.State()))
	require.Equal(t, span(3, 5), readAll(t, r))
	require.NoError(t, r.Commit(3))
	require.Equal(t, "ack 17", string(r.State()), "Commit keeps the state")
	add(t, q, 2)
	require.Equal(t, span(5, 7), readAll(t, r))
}

func TestNewReaderStartsAtNowOrOldest(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	add(t, q, 5)
	now, err := q.Reader("now")
	require.NoError(t, err)
	require.Equal(t, uint64(5), now.Committed())
	require.Equal(t, uint64(0), reader(t, q, "oldest").Committed())
	_, err = q.Reader("now")
	require.ErrorIs(t, err, ErrInUse)
	require.NoError(t, now.Close())
	_, err = q.ReaderFrom("now", true)
	require.NoError(t, err)
	list, err := q.Cursors()
	require.NoError(t, err)
	require.Equal(t, []Cursor{{Name: "now", Next: 6, Open: true}, {Name: "oldest", Next: 1, Open: true}}, list)
}

func TestCommitRules(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	add(t, q, 10)
	r := reader(t, q, "a")
	require.NoError(t, r.Commit(4))
	require.NoError(t, r.Commit(4))
	require.ErrorIs(t, r.Commit(3), ErrRange)
	require.ErrorIs(t, r.Commit(11), ErrRange)
	require.Equal(t, span(5, 11), readAll(t, r), "entries committed unread are skipped")
	require.ErrorIs(t, r.Rewind(4), ErrRange)
	require.NoError(t, r.Rewind(7))
	require.Equal(t, span(7, 11), readAll(t, r))
	require.ErrorIs(t, r.Seek(12), ErrRange)
	require.NoError(t, r.Seek(2))
	require.Equal(t, uint64(1), r.Committed())
	require.Equal(t, span(2, 11), readAll(t, r))
	require.ErrorIs(t, r.CommitState(5, make([]byte, MaxStateBytes+1)), ErrTooLarge)
	require.NoError(t, r.CommitState(5, make([]byte, MaxStateBytes)))
}

func TestReadWaitsAndWakes(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	r := reader(t, q, "a")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	var b Batch
	go func() { ended <- r.Read(ctx, &b) }()
	add(t, q, 1)
	require.NoError(t, <-ended)
	require.Equal(t, uint64(1), b.First)
	go func() { ended <- r.Read(ctx, &b) }()
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	go func() { ended <- r.Read(context.Background(), &b) }()
	require.NoError(t, r.Rewind(1))
	require.NoError(t, <-ended, "a rewind wakes a waiting Read")
	go func() { ended <- r.Read(context.Background(), &b) }()
	require.NoError(t, q.Close())
	require.ErrorIs(t, <-ended, ErrClosed)
}

func TestBatchLimits(t *testing.T) {
	q := open(t, t.TempDir(), Options{})
	add(t, q, 100)
	add(t, q, 100)
	r := reader(t, q, "a")
	r.SetLimit(7, 0)
	var b Batch
	for n := uint64(1); n <= 200; {
		require.NoError(t, r.Read(context.Background(), &b))
		require.Equal(t, n, b.First)
		require.LessOrEqual(t, len(b.Entries), 7)
		n += uint64(len(b.Entries))
	}
	require.NoError(t, r.Rewind(1))
	r.SetLimit(0, 1000)
	require.NoError(t, r.Read(context.Background(), &b))
	total := 0
	for _, e := range b.Entries {
		total += len(e)
	}
	require.Less(t, total, 1100)
	require.Greater(t, total, 500)
	require.NoError(t, r.Rewind(1))
	r.SetLimit(0, 1)
	require.Len(t, readAll(t, r), 200, "at least one entry each time")
}

func TestLargeEntriesAndLimits(t *testing.T) {
	dir := t.TempDir()
	q := open(t, dir, Options{SegmentBytes: 1 << 20})
	big := bytes.Repeat([]byte("0123456789abcdef"), MaxEntryBytes/16)
	_, err := q.Append(context.Background(), [][]byte{big, {1}}, nil)
	require.NoError(t, err)
	_, err = q.Append(context.Background(), [][]byte{{}, append(big, 0)}, nil)
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = q.Append(context.Background(), [][]byte{big, big}, nil)
	require.ErrorIs(t, err, ErrTooLarge)
	require.Equal(t, uint64(3), q.Next(), "nothing of a refused append is stored")
	first, err := q.Append(context.Background(), [][]byte{{}, nil, []byte("x")}, nil)
	require.NoError(t, err)
	require.Equal(t, uint64(3), first)
	r := reader(t, q, "a")
	var got [][]byte
	var b Batch
	for len(got) < 5 {
		require.NoError(t, r.Read(context.Background(), &b))
		for _, e := range b.Entries {
			got = append(got, bytes.Clone(e))
		}
	}
	require.True(t, bytes.Equal(big, got[0]))
	require.Equal(t, [][]byte{{1}, {}, {}, []byte("x")}, got[1:])
}

func TestConcurrentAppendersShareSyncs(t *testing.T) {
	q := open(t, t.TempDir(), Options{GroupDelay: 5 * time.Millisecond})
	const appenders, each = 8, 40
	var group sync.WaitGroup
	seen := make([]map[uint64]string, appenders)
	for a := range appenders {
		seen[a] = map[uint64]string{}
		group.Go(func() {
			for i := range each {
				text := fmt.Sprintf("%d/%d", a, i)
				first, err := q.Append(context.Background(), [][]byte{[]byte(text), []byte(text + "'")}, nil)
				if err == nil {
					seen[a][first], seen[a][first+1] = text, text+"'"
				}
			}
		})
	}
	group.Wait()
	r := reader(t, q, "a")
	var b Batch
	count := 0
	for count < 2*appenders*each {
		require.NoError(t, r.Read(context.Background(), &b))
		for i, e := range b.Entries {
			var a, k int
			_, err := fmt.Sscanf(string(e), "%d/%d", &a, &k)
			require.NoError(t, err)
			require.Equal(t, seen[a][b.First+uint64(i)], string(e))
			count++
		}
	}
	s := q.Stats()
	require.Equal(t, uint64(2*appenders*each), s.Entries)
	require.Less(t, s.Syncs, uint64(appenders*each/2), "fsyncs are shared")
}

func TestMarks(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{SegmentBytes: 4 << 10})
	require.NoError(t, err)
	first, err := q.Append(context.Background(), nil, [][]byte{
		AppendMark(nil, []byte("a"), []byte("1")), AppendMark(nil, []byte("gone"), []byte("1")),
	})
	require.NoError(t, err)
	require.Equal(t, uint64(1), first)
	reader(t, q, "r")
	for i := range 100 {
		both := AppendMark(AppendMark(nil, []byte("a"), fmt.Appendf(nil, "%d", i)), []byte("gone"), nil)
		_, err := q.Append(context.Background(), [][]byte{entry(q.Next())}, [][]byte{both})
		require.NoError(t, err)
	}
	tooLong := AppendMark(nil, []byte("k"), make([]byte, maxMarkValueBytes+1))
	for _, bad := range [][]byte{{5, 'a'}, AppendMark(nil, nil, []byte("v")), tooLong} {
		_, err = q.Append(context.Background(), nil, [][]byte{bad})
		require.ErrorIs(t, err, errMark)
	}
	require.Greater(t, q.Stats().Segments, 2)
	require.NoError(t, q.Close())
	names, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	for _, name := range names[:len(names)-1] {
		require.NoError(t, os.Remove(name))
	}
	q = open(t, dir, Options{})
	got := map[string]string{}
	for key, value := range q.Marks() {
		got[string(key)] = string(value)
	}
	require.Equal(t, map[string]string{"a": "99"}, got, "the newest segment alone has all marks")
	value, ok := q.Mark([]byte("a"))
	require.True(t, ok)
	require.Equal(t, "99", string(value))
	_, ok = q.Mark([]byte("gone"))
	require.False(t, ok)
}

func TestManyMarksMakeSeveralSnapshotFrames(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{SegmentBytes: 1 << 20})
	require.NoError(t, err)
	want := map[string]string{}
	for i := range 50 {
		key, value := fmt.Sprintf("source %d", i), strings.Repeat("x", 20_000+i)
		want[key] = value
		_, err := q.Append(context.Background(), nil, [][]byte{AppendMark(nil, []byte(key), []byte(value))})
		require.NoError(t, err)
	}
	add(t, q, 30_000)
	add(t, q, 30_000)
	require.Greater(t, q.Stats().Segments, 1)
	require.NoError(t, q.Close())
	q = open(t, dir, Options{})
	got := map[string]string{}
	for key, value := range q.Marks() {
		got[string(key)] = string(value)
	}
	require.Equal(t, want, got)
	require.Len(t, readAll(t, reader(t, q, "a")), 60_000)
}

func TestSecondOpenIsRefused(t *testing.T) {
	dir := t.TempDir()
	open(t, dir, Options{})
	_, err := Open(dir, Options{})
	require.ErrorIs(t, err, ErrLocked)
}

func TestAdoptGivesANewLogID(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{})
	require.NoError(t, err)
	add(t, q, 3)
	old := q.LogID()
	_, err = Adopt(dir, Options{})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, q.Close())
	id, err := Adopt(dir, Options{})
	require.NoError(t, err)
	require.NotEqual(t, old, id)
	q = open(t, dir, Options{})
	require.Equal(t, id, q.LogID())
	require.Len(t, readAll(t, reader(t, q, "a")), 3)
}

func TestCursorNames(t *testing.T) {
	dir := t.TempDir()
	names := []string{
		"splunk", "Splunk", "a.b", "../../etc/passwd", "a/b", "%41", "A", "ü", ".", "x y\x00", strings.Repeat("é", 40),
	}
	q, err := Open(dir, Options{})
	require.NoError(t, err)
	add(t, q, 100)
	for i, name := range names {
		require.NoError(t, reader(t, q, name).Commit(uint64(i+1)))
	}
	for _, bad := range []string{"", strings.Repeat("x", 81)} {
		_, err := q.Reader(bad)
		require.Error(t, err)
	}
	require.NoError(t, q.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, cursorDir, "README"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, cursorDir, "a%2f.a"), nil, 0o600))
	q = open(t, dir, Options{})
	for i, name := range names {
		require.Equal(t, uint64(i+1), reader(t, q, name).Committed(), "%q", name)
	}
	list, err := q.Cursors()
	require.NoError(t, err)
	require.Len(t, list, len(names))
	require.FileExists(t, filepath.Join(dir, cursorDir, "README"))
}

func TestReadersSeeTheSameAcrossSegments(t *testing.T) {
	dir := t.TempDir()
	q, err := Open(dir, Options{SegmentBytes: 16 << 10})
	require.NoError(t, err)
	rnd := rand.New(rand.NewPCG(7, 7))
	for q.Next() < 5000 {
		add(t, q, 1+rnd.Uint64N(40))
	}
	require.NoError(t, q.Close())
	q = open(t, dir, Options{SegmentBytes: 16 << 10})
	r := reader(t, q, "a")
	require.Equal(t, span(1, q.Next()), readAll(t, r))
	for range 50 {
		to := 1 + rnd.Uint64N(q.Next()-1)
		require.NoError(t, r.Rewind(to))
		var b Batch
		require.NoError(t, r.Read(context.Background(), &b))
		require.Equal(t, to, b.First)
		require.Equal(t, entry(to), b.Entries[0])
	}
}
