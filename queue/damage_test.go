package queue_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
	"github.com/auditrelay/auditrelay/queue/crashfs"
)

// image is a queue directory in memory, to be damaged.
type image struct {
	fs       *crashfs.FS
	segments []string // paths
	end      uint64   // next number
}

// span is one frame in a segment file.
type span struct {
	off, end    int
	first, past uint64 // numbers
}

// content is the entry with a number.
func content(n uint64) string {
	return fmt.Sprintf("entry %d %s", n, strings.Repeat(string(rune('a'+n%26)), int(n*7%90)))
}

func contents(first, count uint64) (list [][]byte) {
	for n := first; n < first+count; n++ {
		list = append(list, []byte(content(n)))
	}
	return list
}

// build makes a queue with frames of 1 to 4 entries and a mark each, until it has so many entries.
func build(t testing.TB, entries uint64, segmentBytes int64) *image {
	fs := crashfs.New()
	q, err := queue.Open("q", queue.Options{FS: fs, SegmentBytes: segmentBytes})
	require.NoError(t, err)
	for n := uint64(1); n <= entries; {
		count := min(1+n%4, entries+1-n)
		mark := queue.AppendMark(nil, []byte("source"), fmt.Appendf(nil, "%d", n+count-1))
		_, err := q.Append(context.Background(), contents(n, count), [][]byte{mark})
		require.NoError(t, err)
		n += count
	}
	require.NoError(t, q.Close())
	im := &image{fs: fs, end: entries + 1}
	for _, path := range fs.Files() {
		if strings.HasSuffix(path, ".seg") {
			im.segments = append(im.segments, path)
		}
	}
	return im
}

// frames returns the frames of an undamaged segment.
func frames(data []byte) (list []span) {
	for off := 64; off < len(data); {
		n := 36 + int(binary.LittleEndian.Uint32(data[off+4:]))
		first := binary.LittleEndian.Uint64(data[off+8:])
		list = append(list, span{off, off + n, first, first + uint64(binary.LittleEndian.Uint32(data[off+16:]))})
		off += n
	}
	return list
}

func (im *image) data(t testing.TB, i int) []byte {
	data, err := im.fs.ReadFile(im.segments[i])
	require.NoError(t, err)
	return data
}

// with returns a copy of the directory with another content of a segment.
func (im *image) with(i int, data []byte) *crashfs.FS {
	fs := im.fs.Crash(crashfs.Forget, 0)
	fs.WriteFile(im.segments[i], data)
	return fs
}

// outcome is what comes out of a damaged queue.
type outcome struct {
	missing  []uint64
	damages  []queue.Damage
	reported map[uint64]bool // numbers in damages
	next     uint64
	mark     string
}

// drain opens a damaged queue, appends one entry, reads everything and fails on any wrong byte.
func drain(t testing.TB, fs *crashfs.FS, end uint64) (o outcome) {
	o.reported = map[uint64]bool{}
	opt := queue.Options{FS: fs, SegmentBytes: 2 << 10, KeepDelivered: time.Hour}
	opt.Damaged = func(d queue.Damage) {
		o.damages = append(o.damages, d)
		for n := d.First; n > 0 && n <= d.Last && n < end+10; n++ {
			require.False(t, o.reported[n], "%d is reported twice", n)
			o.reported[n] = true
		}
	}
	q, err := queue.Open("q", opt)
	require.NoError(t, err)
	o.next = q.Next()
	require.LessOrEqual(t, o.next, end+1)
	mark, _ := q.Mark([]byte("source"))
	o.mark = string(mark)
	last, err := q.Append(context.Background(), contents(o.next, 1), nil)
	require.NoError(t, err)
	require.Equal(t, o.next, last)
	r, err := q.ReaderFrom("all", true)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var b queue.Batch
	for n := uint64(1); n <= last; {
		require.NoError(t, r.Read(ctx, &b))
		for ; n < b.First; n++ {
			o.missing = append(o.missing, n)
		}
		for _, e := range b.Entries {
			if content(n) != string(e) {
				require.Equal(t, content(n), string(e), "entry %d", n)
			}
			n++
		}
	}
	require.NoError(t, q.Close())
	return o
}

func numbers(from, past uint64) (list []uint64) {
	for ; from < past; from++ {
		list = append(list, from)
	}
	return list
}

func TestSegmentCutAtEveryByte(t *testing.T) {
	im := build(t, 12, 1<<20)
	data := im.data(t, 0)
	list := frames(data)
	for _, zeroed := range []bool{false, true} {
		for cut := range data {
			if zeroed && data[cut] == 0 {
				continue // the same file as with the next cut
			}
			left := append([]byte(nil), data[:cut]...)
			if zeroed {
				left = append(left, make([]byte, len(data)-cut)...)
			}
			fs := im.with(0, left)
			o := drain(t, fs, im.end)
			if cut < 64 {
				// Without its header and without a frame it is a segment with at least one lost entry.
				require.Equal(t, []uint64{1}, o.missing, "cut at %d", cut)
				require.True(t, o.reported[1])
				continue
			}
			want := uint64(1)
			for _, f := range list {
				if f.end <= cut {
					want = f.past
				}
			}
			require.Equal(t, want, o.next, "cut at %d", cut)
			require.Empty(t, o.missing)
			whole := cut >= list[0].end
			require.Equal(t, whole, len(o.damages) == 0 || o.damages[0].Offset != 64, "cut at %d: %+v", cut, o.damages)
		}
	}
}

func TestTornTailIsKeptInQuarantine(t *testing.T) {
	im := build(t, 12, 1<<20)
	data := im.data(t, 0)
	list := frames(data)
	last := list[len(list)-1]
	fs := im.with(0, data[:last.end-3])
	drain(t, fs, im.end)
	name := fmt.Sprintf("%s@%d+%d", filepath.Base(im.segments[0]), last.off, last.end-3-last.off)
	kept, err := fs.ReadFile("q/quarantine/" + name)
	require.NoError(t, err)
	require.Equal(t, data[last.off:last.end-3], kept)
}

// checkFlip says what must come out after damage within one frame.
func checkFlip(t *testing.T, im *image, segment int, at int, o outcome) {
	var hit span
	list := frames(im.data(t, segment))
	for _, f := range list {
		if at >= f.off && at < f.end {
			hit = f
		}
	}
	newest := segment == len(im.segments)-1
	switch {
	case at < 64:
		require.Empty(t, o.missing, "a damaged header costs nothing (byte %d)", at)
		require.NotEmpty(t, o.damages)
	case newest && hit == list[len(list)-1]:
		require.Empty(t, o.missing)
		require.Equal(t, hit.first, o.next, "the last frame looks like a torn write")
	default:
		require.Equal(t, numbers(hit.first, hit.past), o.missing, "byte %d of segment %d", at, segment)
		for _, n := range o.missing {
			require.True(t, o.reported[n], "%d is lost without a report", n)
		}
		require.Len(t, o.reported, len(o.missing))
		if !newest || hit.first == hit.past {
			require.Equal(t, im.end, o.next)
		}
	}
}

func TestEveryBitOfThreeRecordsFlipped(t *testing.T) {
	im := build(t, 20, 1<<20)
	data := im.data(t, 0)
	list := frames(data)
	require.Greater(t, len(list), 5)
	for bit := 8 * list[1].off; bit < 8*list[3].end; bit += thinning {
		at := bit / 8
		bad := append([]byte(nil), data...)
		bad[at] ^= 1 << (bit % 8)
		o := drain(t, im.with(0, bad), im.end)
		checkFlip(t, im, 0, at, o)
		require.Equal(t, "20", o.mark)
	}
}

func TestTenThousandRandomFlips(t *testing.T) {
	const flips = 10_000 / thinning
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	im := build(t, 60, 2<<10)
	require.Greater(t, len(im.segments), 2)
	for range flips {
		segment := rnd.IntN(len(im.segments))
		data := im.data(t, segment)
		at := rnd.IntN(len(data))
		data[at] ^= 1 << rnd.IntN(8)
		checkFlip(t, im, segment, at, drain(t, im.with(segment, data), im.end))
	}
}

func TestZeroedPages(t *testing.T) {
	im := build(t, 600, 16<<10)
	require.Greater(t, len(im.segments), 2)
	for segment := range im.segments {
		data := im.data(t, segment)
		for page := 0; page+4096 < len(data); page += 4096 {
			bad := append([]byte(nil), data...)
			clear(bad[page : page+4096])
			o := drain(t, im.with(segment, bad), im.end)
			var want []uint64
			for _, f := range frames(data) {
				if f.off < page+4096 && f.end > page {
					want = append(want, numbers(f.first, f.past)...)
				}
			}
			require.Equal(t, want, o.missing, "segment %d page at %d", segment, page)
			require.Len(t, o.reported, len(want))
			if page > 0 || segment > 0 {
				require.Equal(t, "600", o.mark)
			}
		}
	}
}

func TestMarksComeFromTheSegmentBeforeIfTheSnapshotIsDamaged(t *testing.T) {
	im := build(t, 30, 1<<10)
	last := len(im.segments) - 1
	data := im.data(t, last)[:64+40] // only the snapshot is left, and it is damaged
	data[70] ^= 1
	fs := im.with(last, data)
	first := frames(im.data(t, last))[0].first
	o := drain(t, fs, im.end)
	require.Equal(t, fmt.Sprint(first-1), o.mark)
}

func TestMissingSegmentIsReportedAndSkipped(t *testing.T) {
	im := build(t, 60, 1<<10)
	for gone := range len(im.segments) - 1 {
		fs := im.fs.Crash(crashfs.Forget, 0)
		require.NoError(t, fs.Remove(im.segments[gone]))
		here, after := frames(im.data(t, gone)), frames(im.data(t, gone+1))
		want := numbers(here[0].first, after[0].first)
		o := drain(t, fs, im.end)
		require.Equal(t, want, o.missing)
		if gone > 0 {
			require.Len(t, o.reported, len(want))
			require.Len(t, o.damages, 1)
		}
	}
}

func TestCopiedSegmentGoesToQuarantine(t *testing.T) {
	im := build(t, 60, 1<<10)
	for _, name := range []string{"00000000000000000002.seg", "00000000000000009999.seg"} {
		fs := im.fs.Crash(crashfs.Forget, 0)
		fs.WriteFile("q/"+name, im.data(t, 1))
		o := drain(t, fs, im.end)
		require.Empty(t, o.missing)
		require.Len(t, o.damages, 1)
		kept, err := fs.ReadFile("q/quarantine/" + name)
		require.NoError(t, err)
		require.Equal(t, im.data(t, 1), kept)
	}
}

func TestForeignFilesAreLeftAlone(t *testing.T) {
	im := build(t, 10, 1<<20)
	fs := im.fs.Crash(crashfs.Forget, 0)
	foreign := []string{
		"q/notes.txt", "q/1.seg", "q/00000000000000000001.seg.bak", "q/cursors/x.c", "q/00000000000000000000.seg",
	}
	for _, path := range foreign {
		fs.WriteFile(path, []byte("not ours"))
	}
	o := drain(t, fs, im.end)
	require.Empty(t, o.missing)
	require.Empty(t, o.damages)
	for _, path := range foreign {
		data, err := fs.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, "not ours", string(data))
	}
}

func TestNewerFormatIsRefusedAndNothingTouched(t *testing.T) {
	im := build(t, 60, 1<<10)
	r, err := queue.Open("q", queue.Options{FS: im.fs})
	require.NoError(t, err)
	c, err := r.ReaderFrom("a", true)
	require.NoError(t, err)
	require.NoError(t, c.Commit(1))
	require.NoError(t, r.Close())
	for _, path := range []string{im.segments[0], im.segments[len(im.segments)-1], "q/meta", "q/cursors/a.a"} {
		fs := im.fs.Crash(crashfs.Forget, 0)
		data, err := fs.ReadFile(path)
		require.NoError(t, err)
		fs.WriteFile(path, queue.NewerVersion(data, path))
		fs.WriteFile("q/0.seg.new", nil)
		before := fs.Files()
		_, err = queue.Open("q", queue.Options{FS: fs})
		require.ErrorIs(t, err, queue.ErrNewerFormat, path)
		require.Contains(t, err.Error(), "start the newer program again")
		require.Equal(t, before, fs.Files())
		_, err = queue.View("q", queue.Options{FS: fs})
		require.ErrorIs(t, err, queue.ErrNewerFormat, path)
	}
	fs, _ := sealedWithIDs(t, queue.Options{SegmentBytes: 1 << 10})
	path := idFiles(fs)[0]
	data, err := fs.ReadFile(path)
	require.NoError(t, err)
	fs.WriteFile(path, queue.NewerVersion(data, path))
	before := snapshot(t, fs)
	_, err = queue.Open("q", queue.Options{FS: fs})
	require.ErrorIs(t, err, queue.ErrNewerFormat, path)
	require.Equal(t, before, snapshot(t, fs))
}

func TestDamagedMetaTakesTheLogIDFromASegment(t *testing.T) {
	im := build(t, 10, 1<<20)
	q, err := queue.Open("q", queue.Options{FS: im.fs})
	require.NoError(t, err)
	id := q.LogID()
	require.NoError(t, q.Close())
	meta, err := im.fs.ReadFile("q/meta")
	require.NoError(t, err)
	meta[13] ^= 4
	im.fs.WriteFile("q/meta", meta)
	damages := 0
	for want := 1; want >= 0; want-- {
		damages = 0
		q, err = queue.Open("q", queue.Options{FS: im.fs, Damaged: func(queue.Damage) { damages++ }})
		require.NoError(t, err)
		require.Equal(t, id, q.LogID())
		require.NoError(t, q.Close())
		require.Equal(t, want, damages)
	}
}

func TestDamagedCursorSlots(t *testing.T) {
	im := build(t, 10, 1<<20)
	q, err := queue.Open("q", queue.Options{FS: im.fs})
	require.NoError(t, err)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	require.NoError(t, r.Commit(3))
	require.NoError(t, r.Commit(7))
	require.NoError(t, q.Close())
	committed := func(damage ...string) (uint64, []queue.Damage) {
		fs := im.fs.Crash(crashfs.Forget, 0)
		for _, path := range damage {
			data, err := fs.ReadFile(path)
			require.NoError(t, err)
			data[20] ^= 1
			fs.WriteFile(path, data)
		}
		var damages []queue.Damage
		q, err := queue.Open("q", queue.Options{FS: fs, Damaged: func(d queue.Damage) { damages = append(damages, d) }})
		require.NoError(t, err)
		r, err := q.Reader("a")
		require.NoError(t, err)
		defer func() { require.NoError(t, q.Close()) }()
		return r.Committed(), damages
	}
	at, damages := committed()
	require.Equal(t, uint64(7), at)
	require.Empty(t, damages)
	a, _ := committed("q/cursors/a.a")
	b, _ := committed("q/cursors/a.b")
	require.ElementsMatch(t, []uint64{3, 7}, []uint64{a, b}, "the other slot is used")
	at, damages = committed("q/cursors/a.a", "q/cursors/a.b")
	require.Equal(t, uint64(0), at, "the oldest entry: doubles, not loss")
	require.Len(t, damages, 1)
}

func TestLostEndNeverReusesNumbersThatACursorPassed(t *testing.T) {
	im := build(t, 20, 1<<20)
	q, err := queue.Open("q", queue.Options{FS: im.fs})
	require.NoError(t, err)
	r, err := q.ReaderFrom("a", true)
	require.NoError(t, err)
	require.NoError(t, r.Commit(18))
	require.NoError(t, q.Close())
	data := im.data(t, 0)
	list := frames(data)
	o := drain(t, im.with(0, data[:list[3].end]), im.end)
	require.Equal(t, uint64(19), o.next)
	require.Equal(t, numbers(list[3].past, 19), o.missing)
	require.Len(t, o.reported, len(o.missing))
	require.Len(t, o.damages, 1)
}

// TestDamageWhileRunning flips bits below an open queue: readers skip the range, later appends are read.
func TestDamageWhileRunning(t *testing.T) {
	im := build(t, 20, 1<<20)
	var damages []queue.Damage
	q, err := queue.Open("q", queue.Options{FS: im.fs, Damaged: func(d queue.Damage) { damages = append(damages, d) }})
	require.NoError(t, err)
	data := im.data(t, 0)
	f := frames(data)[3]
	file, err := im.fs.OpenFile(im.segments[0], 2)
	require.NoError(t, err)
	_, err = file.WriteAt([]byte{^data[f.off+50]}, int64(f.off+50))
	require.NoError(t, err)
	_, err = q.Append(context.Background(), contents(21, 2), nil)
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		r, err := q.ReaderFrom(name, true)
		require.NoError(t, err)
		var b queue.Batch
		var got []uint64
		for len(got) == 0 || got[len(got)-1] < 22 {
			require.NoError(t, r.Read(context.Background(), &b))
			for i, e := range b.Entries {
				got = append(got, b.First+uint64(i))
				require.Equal(t, content(b.First+uint64(i)), string(e))
			}
		}
		require.Equal(t, append(numbers(1, f.first), numbers(f.past, 23)...), got)
	}
	require.Len(t, damages, 1, "each range once, also with two readers")
	require.Equal(t, queue.Damage{
		First: f.first, Last: f.past - 1, File: filepath.Base(im.segments[0]),
		Offset: int64(f.off), Bytes: int64(f.end - f.off), Reason: damages[0].Reason,
	}, damages[0])
	require.Equal(t, uint64(1), q.Stats().DamagedRanges)
	require.NoError(t, q.Close())
}
