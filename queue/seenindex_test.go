package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testID(n uint64) (id [idBytes]byte) {
	binary.BigEndian.PutUint64(id[8:], n+1)
	return id
}

// TestSeenIndexAgainstAList compares the index with a list, through growth, eviction, expiry and ids that come again.
func TestSeenIndexAgainstAList(t *testing.T) {
	type entry struct {
		n  uint64
		at int64
	}
	for _, limit := range []int{1, 2, 3, 100, 1024, 5000} {
		rnd := rand.New(rand.NewPCG(uint64(limit), 3))
		x := newSeenIndex(limit, time.Hour)
		now := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
		var list []entry // each id's newest is the last one
		forgotten := uint64(0)
		for step := range 12_000 {
			now = now.Add(time.Duration(rnd.IntN(3)) * time.Second)
			x.expire(now)
			grain := time.Hour / seenGrains
			for len(list) > 0 && now.Sub(time.Unix(0, list[0].at)) > time.Hour+grain {
				list = list[1:]
			}
			id := testID(rnd.Uint64N(uint64(3 * limit)))
			if rnd.IntN(2) == 0 || step < limit {
				n := binary.BigEndian.Uint64(id[8:])
				x.add(&id, now.UnixNano())
				list = append(list, entry{n, now.UnixNano()})
			}
			for len(list) > limit {
				list = list[1:]
			}
			if step%999 > 0 && step < 11_990 {
				continue
			}
			newest := map[uint64]int64{}
			for _, e := range list {
				newest[e.n] = e.at
			}
			for n := range uint64(3 * limit) {
				id := testID(n)
				at, ok := newest[n+1]
				if ok && now.Sub(time.Unix(0, at)) > time.Hour-grain {
					continue // on the edge of the window
				}
				require.Equal(t, ok, x.has(&id), "limit %d, step %d, id %d", limit, step, n)
			}
			require.LessOrEqual(t, int(x.head-x.tail), limit)
			require.GreaterOrEqual(t, x.forgotten, forgotten)
			forgotten = x.forgotten
		}
		require.Equal(t, limit == 5000, forgotten == 0, "so many do not come within the window")
		require.LessOrEqual(t, len(x.runs), seenGrains+2)
	}
}

// TestSeenIndexMemory holds the documented figure.
func TestSeenIndexMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const entries = DefaultSeenEntries / 8
	x := newSeenIndex(entries, DefaultSeenWindow)
	start := time.Now().UnixNano()
	for n := range uint64(entries + 1000) {
		id := testID(n)
		x.add(&id, start+int64(n)*int64(time.Millisecond))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := after.HeapAlloc - before.HeapAlloc
	require.Less(t, grown, uint64(entries*27), "about 25 bytes for each id")
	require.Equal(t, uint64(1000), x.forgotten)
	runtime.KeepAlive(&x)
}

// FuzzIDFile reads anything as an id file, and anything with right CRCs around it.
func FuzzIDFile(f *testing.F) {
	x := newSeenIndex(100, time.Hour)
	for n := range uint64(5) {
		id := testID(n)
		x.add(&id, int64(n)*int64(time.Minute))
	}
	body, count, newest := x.appendRuns(nil, 0, 5)
	whole := idFile{first: 1, segment: 7, count: count, newest: newest}
	file := append(whole.head(body), body...)
	f.Add(file, false)
	f.Add(file[:70], true)
	f.Add(append(file[:64:64], make([]byte, 12)...), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal && len(data) >= segmentHead {
			h := idFile{first: 1}
			copy(data, h.head(data[segmentHead:]))
		}
		dir := t.TempDir()
		q := newQueue(dir, Options{})
		require.NoError(t, os.WriteFile(q.path(idsName(1)), data, 0o600))
		got, err := q.readIDs(1, func(idFile) bool { return true })
		if err != nil {
			require.True(t, errors.Is(err, errIDFile) || errors.Is(err, ErrNewerFormat), "%v", err)
			return
		}
		// What passes is exactly what was written.
		var again []byte
		for _, s := range got.sections {
			again = append(again, s[:seenHead]...)
			again = binary.LittleEndian.AppendUint32(again, uint32((len(s)-seenHead)/idBytes))
			again = append(again, s[seenHead:]...)
		}
		require.True(t, bytes.Equal(again, data[segmentHead:]))
	})
}

// BenchmarkAppendSeen is BenchmarkAppend of 64 KiB with an id for each entry, reserved first.
func BenchmarkAppendSeen(b *testing.B) {
	q := open(b, b.TempDir(), Options{})
	list := records(64 << 10)
	ids, dup := make([][16]byte, len(list)), make([]bool, len(list))
	b.SetBytes(int64(len(list) * recordBytes))
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		for i := range ids {
			ids[i] = testID(n)
			n++
		}
		require.NoError(b, q.Reserve(context.Background(), ids, dup))
		_, err := q.AppendSeen(context.Background(), list, nil, ids)
		require.NoError(b, err)
	}
	b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkSeen is the cost of one id in a full index: Reserve and what publishing it does.
func BenchmarkSeen(b *testing.B) {
	for _, entries := range []int{10_000, DefaultSeenEntries} {
		b.Run(fmt.Sprint(entries), func(b *testing.B) {
			x := newSeenIndex(entries, DefaultSeenWindow)
			for n := range uint64(entries) {
				id := testID(n)
				x.add(&id, int64(n))
			}
			n := uint64(entries)
			for b.Loop() {
				id := testID(n)
				if !x.has(&id) {
					x.add(&id, int64(n))
				}
				n++
			}
		})
	}
}
