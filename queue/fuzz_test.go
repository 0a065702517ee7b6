package queue_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/queue"
)

// FuzzRecover opens a queue whose only segment is anything, alone or behind an intact beginning. It must open, deliver
// the intact frames, and take an append that is delivered too.
func FuzzRecover(f *testing.F) {
	im := build(f, 9, 1<<20)
	data := im.data(f, 0)
	f.Add(data, 0)
	f.Add(data[:len(data)-5], 0)
	f.Add(data[64:], len(data))
	f.Add(append(bytes.Clone(data[:150]), data[151:]...), 0)
	f.Add([]byte{}, 64)
	withIDs, err := os.ReadFile("testdata/v2/ids/00000000000000000021.seg")
	require.NoError(f, err)
	f.Add(withIDs, 0)
	f.Add(withIDs[64:], 0)
	f.Add([]byte("\xa7\xc5\x01\x00\xff\xff\xff\xff"), len(data))
	f.Add(bytes.Repeat([]byte("\xa7\xc5\x01"), 100), 100)
	f.Fuzz(func(t *testing.T, tail []byte, keep int) {
		keep = max(0, min(keep, len(data)))
		fs := im.with(0, append(bytes.Clone(data[:keep]), tail...))
		q, err := queue.Open("q", queue.Options{FS: fs})
		if err != nil {
			require.ErrorIs(t, err, queue.ErrNewerFormat)
			return
		}
		defer func() { require.NoError(t, q.Close()) }()
		r, err := q.ReaderFrom("a", true)
		require.NoError(t, err)
		first, err := q.Append(context.Background(), [][]byte{[]byte("new")}, nil)
		require.NoError(t, err)
		intact := uint64(0)
		for _, s := range frames(data) {
			if s.end <= keep {
				intact = s.past - 1
			}
		}
		var b queue.Batch
		for last := uint64(0); last < first; last = b.First + uint64(len(b.Entries)) - 1 {
			require.NoError(t, r.Read(context.Background(), &b))
			require.Greater(t, b.First, last)
			for i, e := range b.Entries {
				if n := b.First + uint64(i); n <= intact {
					require.Equal(t, content(n), string(e))
				}
			}
			if last < intact {
				require.Equal(t, last+1, b.First, "intact frames are delivered")
			}
		}
		require.Equal(t, "new", string(b.Entries[len(b.Entries)-1]))
	})
}
