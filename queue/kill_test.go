package queue

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// childEnv names the directory that a killed child works in.
const childEnv = "QUEUE_TEST_CHILD"

// TestKillNine kills a process in the middle of appends and commits, and finds all that it said was done. An id is
// seen if its entry is in the log.
func TestKillNine(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(t, dir)
		return
	}
	dir := t.TempDir()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 10 {
		acked, committed := killAfter(t, dir, 1+rnd.IntN(60))
		q, err := Open(dir, Options{SegmentBytes: 4 << 10, Damaged: func(d Damage) { t.Errorf("damage: %+v", d) }})
		require.NoError(t, err)
		require.Greater(t, q.Next(), acked)
		r := reader(t, q, "a")
		require.GreaterOrEqual(t, r.Committed(), committed)
		require.Equal(t, span(r.Committed()+1, q.Next()), readAll(t, r))
		mark, _ := q.Mark([]byte("last"))
		require.Equal(t, fmt.Sprint(q.Next()-1), string(mark), "marks are in the same write")
		ids := testIDs(1, q.Next()+2)
		dup := make([]bool, len(ids))
		require.NoError(t, q.Reserve(context.Background(), ids, dup))
		for i, d := range dup {
			require.Equal(t, uint64(i+1) < q.Next(), d, "id %d, next is %d", i+1, q.Next())
		}
		require.NoError(t, q.Close())
	}
}

// testIDs are the ids of entries.
func testIDs(from, count uint64) (ids [][16]byte) {
	for n := from; n < from+count; n++ {
		ids = append(ids, testID(n))
	}
	return ids
}

// killAfter runs the child until it has said so many lines, and returns the last numbers that it said.
func killAfter(t *testing.T, dir string, lines int) (acked, committed uint64) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKillNine$")
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	scanner := bufio.NewScanner(out)
	for scanner.Scan() {
		if _, err := fmt.Sscanf(scanner.Text(), "acked %d committed %d", &acked, &committed); err != nil {
			continue
		}
		if lines--; lines == 0 {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait(), "it was killed")
	require.Less(t, lines, 1)
	return acked, committed
}

func child(t *testing.T, dir string) {
	q, err := Open(dir, Options{SegmentBytes: 4 << 10})
	require.NoError(t, err)
	r := reader(t, q, "a")
	var b Batch
	for n := 0; ; n++ {
		first, count := q.Next(), uint64(1+n%5)
		mark := AppendMark(nil, []byte("last"), fmt.Append(nil, first+count-1))
		_, err := q.AppendSeen(context.Background(), entries(first, count), [][]byte{mark}, testIDs(first, count))
		require.NoError(t, err)
		fmt.Printf("acked %d committed %d\n", q.Next()-1, r.Committed())
		require.NoError(t, r.Read(context.Background(), &b))
		require.NoError(t, r.Commit(b.First))
		fmt.Printf("acked %d committed %d\n", q.Next()-1, r.Committed())
	}
}
