package queue_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
)

// update writes the golden directories of the current format anew. Those of older formats were written by the programs
// of their time and are never changed.
var update = flag.Bool("update", false, "write the golden directories of the current format")

// goldenCases make a directory each.
func goldenCases() map[string]func(t *testing.T, dir string) {
	return map[string]func(t *testing.T, dir string){
		"ids": func(t *testing.T, dir string) {
			q := goldenQueue(t, dir, 12)
			for range 8 {
				putSeen(t, q, 2)
			}
			list := q.Segments()
			path := filepath.Join(dir, strings.TrimSuffix(list[len(list)-2].File, ".seg")+".ids")
			require.Eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, 5*time.Second, time.Millisecond)
			require.NoError(t, q.Close())
		},
		"normal": func(t *testing.T, dir string) { require.NoError(t, goldenQueue(t, dir, 30).Close()) },
		"cursors-and-marks": func(t *testing.T, dir string) {
			q := goldenQueue(t, dir, 20)
			for i, name := range []string{"splunk", "soc/two"} {
				r, err := q.ReaderFrom(name, true)
				require.NoError(t, err)
				require.NoError(t, r.CommitState(uint64(7+i), fmt.Appendf(nil, "state of %s", name)))
				require.NoError(t, r.CommitState(uint64(9+i), fmt.Appendf(nil, "newer state of %s", name)))
			}
			require.NoError(t, q.Close())
		},
		"torn-tail": func(t *testing.T, dir string) {
			require.NoError(t, goldenQueue(t, dir, 12).Close())
			list := segmentFiles(t, dir)
			path := list[len(list)-1]
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, data[:len(data)-11], 0o600))
		},
		"damaged-middle": func(t *testing.T, dir string) {
			require.NoError(t, goldenQueue(t, dir, 30).Close())
			path := segmentFiles(t, dir)[0]
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			data[frames(data)[2].off+50] ^= 8
			require.NoError(t, os.WriteFile(path, data, 0o600))
		},
	}
}

// goldenQueue appends so many entries, two in each frame, with a mark.
func goldenQueue(t *testing.T, dir string, count uint64) *queue.Queue {
	q, err := queue.Open(dir, queue.Options{SegmentBytes: 1 << 10, Now: func() time.Time { return goldenDay(12) }})
	require.NoError(t, err)
	for n := uint64(1); n <= count; n += 2 {
		mark := queue.AppendMark(nil, fmt.Appendf(nil, "source %d", n%3), fmt.Appendf(nil, "%d", n+1))
		_, err := q.Append(context.Background(), contents(n, 2), [][]byte{mark})
		require.NoError(t, err)
	}
	return q
}

// goldenDay is when the golden directories are written and read.
func goldenDay(hour int) time.Time { return time.Date(2026, 11, 22, hour, 0, 0, 0, time.UTC) }

func segmentFiles(t *testing.T, dir string) []string {
	list, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	require.NoError(t, err)
	require.NotEmpty(t, list)
	return list
}

// describe opens a directory and says in text what is in it.
func describe(t *testing.T, dir string) string {
	var damages []string
	now := func() time.Time { return goldenDay(13) }
	q, err := queue.Open(dir, queue.Options{KeepDelivered: time.Hour, Now: now, Damaged: func(d queue.Damage) {
		where := fmt.Sprintf("%s at %d, %d bytes", d.File, d.Offset, d.Bytes)
		damages = append(damages, fmt.Sprintf("damage %d to %d: %s", d.First, d.Last, where))
	}})
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	var out strings.Builder
	fmt.Fprintf(&out, "log id %d, next %d, torn %d\n", q.LogID(), q.Next(), q.Stats().TornBytes)
	list, err := q.Cursors()
	require.NoError(t, err)
	for _, c := range list {
		r, err := q.Reader(c.Name)
		require.NoError(t, err)
		fmt.Fprintf(&out, "cursor %q is done with %d, state %q\n", c.Name, r.Committed(), r.State())
	}
	if seen := seenOf(t, q, 1, q.Next()); len(seen) > 0 {
		fmt.Fprintf(&out, "seen %d\n", seen)
	}
	var marks []string
	for key, value := range q.Marks() {
		marks = append(marks, fmt.Sprintf("mark %q is %q", key, value))
	}
	slices.Sort(marks)
	last, err := q.Append(context.Background(), [][]byte{[]byte("appended by this program")}, nil)
	require.NoError(t, err)
	r, err := q.ReaderFrom("all of it", true)
	require.NoError(t, err)
	var b queue.Batch
	var entries []string
	for n := uint64(0); n < last; n = b.First + uint64(len(b.Entries)) - 1 {
		require.NoError(t, r.Read(context.Background(), &b))
		for i, e := range b.Entries {
			entries = append(entries, fmt.Sprintf("entry %d is %q", b.First+uint64(i), e))
		}
	}
	return out.String() + strings.Join(slices.Concat(marks, damages, entries), "\n") + "\n"
}

// TestGoldenDirectoriesAreRead reads directories that were written by programs of each format version.
func TestGoldenDirectoriesAreRead(t *testing.T) {
	if *update {
		for name, build := range goldenCases() {
			dir := filepath.Join("testdata", fmt.Sprintf("v%d", queue.FormatVersion), name)
			require.NoError(t, os.RemoveAll(dir))
			build(t, dir)
			require.NoError(t, os.Remove(filepath.Join(dir, "LOCK")))
			require.NoError(t, os.WriteFile(dir+".txt", []byte(describe(t, copyOf(t, dir))), 0o600))
		}
	}
	for version := 1; version <= queue.FormatVersion; version++ {
		list, err := filepath.Glob(fmt.Sprintf("testdata/v%d/*.txt", version))
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(list), 4)
		for _, path := range list {
			t.Run(path, func(t *testing.T) {
				want, err := os.ReadFile(path)
				require.NoError(t, err)
				require.Equal(t, string(want), describe(t, copyOf(t, strings.TrimSuffix(path, ".txt"))))
				// The text itself says the right thing: the contents follow from the numbers.
				for line := range bytes.Lines(want) {
					var n uint64
					var e string
					if _, err := fmt.Sscanf(string(line), "entry %d is %q", &n, &e); err == nil && e != "appended by this program" {
						require.Equal(t, content(n), e)
					}
				}
			})
		}
	}
}

func copyOf(t *testing.T, dir string) string {
	to := filepath.Join(t.TempDir(), "queue")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}
