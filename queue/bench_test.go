package queue

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// recordBytes is the size of an entry in the benchmarks.
const recordBytes = 400

func records(bytes int) (list [][]byte) {
	for range bytes / recordBytes {
		list = append(list, make([]byte, recordBytes))
	}
	return list
}

// percentile reports a latency in microseconds.
func percentile(b *testing.B, took []time.Duration, p int, unit string) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1e3, unit)
}

// plain writes the same bytes with write and fdatasync and nothing else: what the disk can do.
func plain(b *testing.B, bytes int) {
	f, err := os.Create(filepath.Join(b.TempDir(), "plain"))
	require.NoError(b, err)
	defer f.Close()
	data := make([]byte, bytes)
	took := make([]time.Duration, 0, b.N)
	b.SetBytes(int64(bytes))
	for b.Loop() {
		start := time.Now()
		_, err := f.Write(data)
		require.NoError(b, err)
		require.NoError(b, unix.Fdatasync(int(f.Fd())))
		took = append(took, time.Since(start))
	}
	percentile(b, took, 50, "p50-us")
	percentile(b, took, 99, "p99-us")
}

// appends appends batches, one after the other, each of them durable when it returns.
func appends(b *testing.B, bytes int) {
	q := open(b, b.TempDir(), Options{})
	list := records(bytes)
	took := make([]time.Duration, 0, b.N)
	b.SetBytes(int64(len(list) * recordBytes))
	for b.Loop() {
		start := time.Now()
		_, err := q.Append(context.Background(), list, nil)
		require.NoError(b, err)
		took = append(took, time.Since(start))
	}
	percentile(b, took, 50, "p50-us")
	percentile(b, took, 99, "p99-us")
	b.ReportMetric(float64(len(list)*b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkAppend shows appends beside the same bytes written plainly, in the same run.
func BenchmarkAppend(b *testing.B) {
	for _, bytes := range []int{recordBytes, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("plain/%d", bytes), func(b *testing.B) { plain(b, bytes) })
		b.Run(fmt.Sprintf("queue/%d", bytes), func(b *testing.B) { appends(b, bytes) })
	}
}

// BenchmarkAppendShared has 8 appenders with one entry each, which share syncs.
func BenchmarkAppendShared(b *testing.B) {
	q := open(b, b.TempDir(), Options{})
	list := records(recordBytes)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := q.Append(context.Background(), list, nil); err != nil {
				b.Error(err)
			}
		}
	})
	s := q.Stats()
	b.ReportMetric(float64(s.Entries)/float64(s.Syncs), "entries/sync")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkRead has 1 and 3 cursors that read 128 MiB from the page cache.
func BenchmarkRead(b *testing.B) {
	for _, readers := range []int{1, 3} {
		b.Run(fmt.Sprint(readers), func(b *testing.B) {
			q := open(b, b.TempDir(), Options{})
			list := records(256 << 10)
			for range 512 {
				_, err := q.Append(context.Background(), list, nil)
				require.NoError(b, err)
			}
			total := q.Next() - 1
			names := make([]*Reader, readers)
			for i := range names {
				names[i] = reader(b, q, fmt.Sprint(i))
			}
			b.ReportAllocs()
			for b.Loop() {
				var group sync.WaitGroup
				for _, r := range names {
					group.Go(func() { readThrough(b, r, total) })
				}
				group.Wait()
			}
			b.ReportMetric(float64(int(total)*readers*b.N)/b.Elapsed().Seconds(), "entries/s")
		})
	}
}

func readThrough(b *testing.B, r *Reader, total uint64) {
	if err := r.Rewind(1); err != nil {
		b.Error(err)
	}
	var batch Batch
	for n := uint64(0); n < total; n += uint64(len(batch.Entries)) {
		if err := r.Read(context.Background(), &batch); err != nil {
			b.Error(err)
			return
		}
	}
}

// BenchmarkOpen opens a queue with a full newest segment.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	q, err := Open(dir, Options{})
	require.NoError(b, err)
	list := records(256 << 10)
	for range 240 { // 63 MB: all of it is scanned
		_, err := q.Append(context.Background(), list, nil)
		require.NoError(b, err)
	}
	require.NoError(b, q.Close())
	for b.Loop() {
		q, err := Open(dir, Options{})
		require.NoError(b, err)
		require.NoError(b, q.Close())
	}
}
