package tail

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func TestRenameAndCreate(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	r := start(t, fast(path), s)
	s.wait(t, "one")
	require.NoError(t, os.Rename(path, path+".1"))
	write(t, path, "two\n")
	s.wait(t, "one", "two")
	require.Equal(t, path, s.all()[1].Path)
	r.stop(t)
}

func TestWriterStaysOnTheRenamedFile(t *testing.T) {
	path := logPath(t)
	writer, err := os.Create(path)
	require.NoError(t, err)
	defer func() { _ = writer.Close() }()
	fmt.Fprintln(writer, "one")
	s := newStore()
	opt := fast(path)
	opt.CloseAfter = 50 * time.Millisecond
	r := start(t, opt, s)
	s.wait(t, "one")
	require.NoError(t, os.Rename(path, path+".1"))
	write(t, path, "new one\n")
	s.wait(t, "one", "new one")
	fmt.Fprintln(writer, "two")
	s.wait(t, "one", "new one", "two")
	closed := func() bool { return !open(r.Follower, path+".1") && !open(r.Follower, path) || len(r.Files()) == 1 }
	eventually(t, closed, "the rotated file is closed when it is idle")
	fmt.Fprintln(writer, "late")
	r.stop(t)

	s.before = nil
	again := start(t, opt, s)
	s.wait(t, "one", "new one", "two", "late")
	require.Equal(t, path, s.all()[3].Path, "the record was written to the path, whatever the file is called now")
	again.stop(t)
}

func open(f *Follower, path string) bool {
	for _, fl := range f.Files() {
		if fl.Path == path && fl.Rotated {
			return true
		}
	}
	return false
}

func TestClosedFileIsReadAgainWhenItGrows(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	opt := fast(path)
	opt.CloseAfter = time.Millisecond
	f, err := New(opt)
	require.NoError(t, err)
	r := startFollower(t, f, s)
	s.wait(t, "one")
	require.NoError(t, os.Rename(path, path+".1"))
	write(t, path, "two\n")
	s.wait(t, "one", "two")
	eventually(t, func() bool { return len(r.Files()) == 1 }, "closed")
	appendTo(t, path+".1", "late\n") // still within siblingHaste
	s.wait(t, "one", "two", "late")
	r.stop(t)
}

func TestSuccessorWaitsForPredecessor(t *testing.T) {
	path := logPath(t)
	lines, text := numbered(0, 40_000)
	write(t, path, text)
	s := newStore()
	reached, goOn := make(chan struct{}), make(chan struct{})
	s.before = func(batch int) error {
		if batch == 1 {
			close(reached)
			<-goOn
		}
		return nil
	}
	r := start(t, fast(path), s)
	<-reached // the first of several batches is being put
	require.NoError(t, os.Rename(path, path+".1"))
	more, text := numbered(40_000, 50_000)
	write(t, path, text)
	close(goOn)
	s.wait(t, append(lines, more...)...)
	r.stop(t)
}

func TestDeleteAndRecreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.csv")
	write(t, path, "A,B\n1,1\n")
	s := newStore()
	opt := fast(path)
	opt.CloseAfter = 10 * time.Millisecond
	r := start(t, opt, s)
	s.wait(t, "1,1")
	for i := 2; i < 6; i++ {
		appendTo(t, path, fmt.Sprintf("%d,last\n", i))
		require.NoError(t, os.Remove(path))
		write(t, path, "A,B\n1,1\n")
		eventually(t, func() bool { return s.count() == 2*i-1 })
	}
	require.Eventually(t, func() bool { return len(s.list()) == 1 }, 10*time.Second, time.Millisecond,
		"positions of deleted files are removed")
	require.Len(t, keys(s.all()), s.count(), "equal files one after the other do not share keys")
	r.stop(t)
}

func TestDeletedWhilePutWaits(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	reached, goOn := make(chan struct{}), make(chan struct{})
	s.before = func(batch int) error {
		if batch == 1 {
			close(reached)
			<-goOn
		}
		return nil
	}
	r := start(t, fast(path), s)
	<-reached
	for i := range 3 {
		require.NoError(t, os.Rename(path, path+".1"))
		write(t, path, fmt.Sprintf("generation %d\n", i))
		require.Eventually(t, func() bool { return len(r.Files()) == i+2 }, 10*time.Second, time.Millisecond,
			"the queue is full, but the file is held open")
	}
	require.NoError(t, os.Remove(path+".1"))
	close(goOn)
	s.wait(t, "one", "generation 0", "generation 1", "generation 2")
	r.stop(t)
}

func TestTruncation(t *testing.T) {
	for _, c := range []struct {
		name    string
		rewrite func(t *testing.T, path string)
		want    []string
	}{
		{"to nothing, then shorter", func(t *testing.T, path string) {
			require.NoError(t, os.Truncate(path, 0))
			appendTo(t, path, "three\n")
		}, []string{"one", "two", "three"}},
		{"regrown beyond the offset", func(t *testing.T, path string) {
			write(t, path, "Ane\nand\nmore\n")
		}, []string{"one", "two", "Ane", "and", "more"}},
		{"other content of the same size", func(t *testing.T, path string) {
			write(t, path, "six\nten\n")
		}, []string{"one", "two", "six", "ten"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, down := range []bool{false, true} {
				path := logPath(t)
				write(t, path, "one\ntwo\n")
				s := newStore()
				r := start(t, fast(path), s)
				s.wait(t, "one", "two")
				if down {
					r.stop(t)
				}
				c.rewrite(t, path)
				if down {
					r = start(t, fast(path), s)
				}
				s.wait(t, c.want...)
				for i, got := range s.all() {
					require.Equal(t, i == 2, got.Marks.Has(audit.MarkPossibleLoss), "record %d", i)
				}
				require.Len(t, keys(s.all()), len(c.want))
				eventually(t, func() bool { fl, _ := r.file(path); return fl.Truncations == 1 })
				require.Len(t, s.list(), 1, "the position of what is gone is removed")
				r.stop(t)
			}
		})
	}
}

func TestHoleLeftByAWriterThatDoesNotAppend(t *testing.T) {
	path := logPath(t)
	writer, err := os.Create(path)
	require.NoError(t, err)
	defer func() { _ = writer.Close() }()
	_, err = writer.WriteString(strings.Repeat("before\n", 100_000))
	require.NoError(t, err)
	s := newStore()
	r := start(t, fast(path), s)
	eventually(t, func() bool { return s.count() == 100_000 })
	require.NoError(t, os.Truncate(path, 0))
	fmt.Fprintln(writer, "after")
	eventually(t, func() bool { return s.count() == 100_001 })
	require.Equal(t, "after", s.all()[100_000].Raw)
	eventually(t, func() bool { fl, _ := r.file(path); return fl.Zeros == 700_000 })
	r.stop(t)
}

func TestRotatedWhileDown(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.log")
	write(t, path, "one\n")
	write(t, filepath.Join(dir, "app.log.err"), "not ours\n")
	write(t, filepath.Join(dir, "other.log.1"), "not ours\n")
	s := newStore()
	r := start(t, fast(path), s)
	s.wait(t, "one")
	r.stop(t)
	appendTo(t, path, "two\n")
	require.NoError(t, os.Rename(path, path+".3"))
	write(t, path+".2", "three\n")
	write(t, path+".1", "four\n")
	write(t, filepath.Join(dir, "app.log.bak"), "not ours\n")
	write(t, path, "five\n")
	r = start(t, fast(path), s)
	s.wait(t, "one", "two", "three", "four", "five")
	r.stop(t)
	once(t, fast(path), s)
	require.Equal(t, 5, s.count(), "nothing is read twice after another restart")
}

func TestRotatedTwiceBetweenTwoScans(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	opt := fast(path)
	f, err := New(opt)
	require.NoError(t, err)
	now := time.Now()
	scan := func() {
		f.scan(now)
		_, err := f.round(t.Context(), s.put, records(t))
		require.NoError(t, err)
	}
	scan()
	require.NoError(t, os.Rename(path, path+".2"))
	write(t, path+".1", "two\n")
	write(t, path, "three\n")
	for range 5 {
		scan()
	}
	require.Equal(t, []string{"one", "two", "three"}, s.raws())
	f.closeAll()
}

func records(t *testing.T) *audit.Records {
	b := audit.GetRecords("test")
	t.Cleanup(b.Release)
	return b
}

func TestCopyOfALogIsNotAGeneration(t *testing.T) {
	path := logPath(t)
	_, text := numbered(0, 100)
	write(t, path, text)
	s := newStore()
	once(t, fast(path), s)
	require.Equal(t, 100, s.count())
	write(t, path+".1", text) // copied, then moved away, then another one comes
	require.NoError(t, os.Rename(path, path+".2"))
	write(t, path, "new\n")
	once(t, fast(path), s)
	require.Equal(t, 101, s.count())
	require.Equal(t, "new", s.raws()[100])
}

func TestPatternThatMatchesRotatedNames(t *testing.T) {
	path := logPath(t)
	write(t, path+".2", "one\n")
	write(t, path+".1", "two\n")
	write(t, path, "three\n")
	s := newStore()
	r := start(t, fast(path+"*"), s)
	s.wait(t, "one", "two", "three")
	require.NoError(t, os.Remove(path+".2"))
	require.NoError(t, os.Rename(path+".1", path+".2"))
	require.NoError(t, os.Rename(path, path+".1"))
	write(t, path, "four\n")
	s.wait(t, "one", "two", "three", "four")
	r.stop(t)
}

// TestRotationStorm writes numbered lines while the file is rotated all the time, in every style that keeps the bytes.
func TestRotationStorm(t *testing.T) {
	for _, style := range []string{"rename", "writer stays", "delete", "keep two"} {
		t.Run(style, func(t *testing.T) {
			t.Parallel()
			path := logPath(t)
			write(t, path, "first\n")
			s := newStore()
			opt := fast(path)
			opt.PollInterval = 5 * time.Millisecond
			deletes := style == "delete" || style == "keep two"
			if !deletes {
				opt.CloseAfter = 100 * time.Millisecond
			}
			r := start(t, opt, s)
			s.wait(t, "first")
			total := storm(t, path, style, func(generation int) {
				// A file that is made and deleted between two polls cannot be seen by anybody.
				if deletes {
					eventually(t, func() bool { return len(r.Files()) >= generation })
				}
			})
			eventually(t, func() bool { return s.count() > total }, "%d lines", total)
			seen := make(map[string]int)
			for _, raw := range s.raws() {
				seen[raw]++
			}
			for i := range total {
				require.Equal(t, 1, seen[fmt.Sprintf("line %08d", i)], "line %d", i)
			}
			require.Len(t, keys(s.all()), total+1)
			r.stop(t)
		})
	}
}

// storm rotates 25 times within about a second and returns how many lines it wrote. seen is called before each
// rotation.
func storm(t *testing.T, path, style string, seen func(generation int)) (total int) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	lines := func(w *os.File, n int) {
		for range n {
			fmt.Fprintf(w, "line %08d\n", total)
			total++
		}
	}
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for i := range 25 {
		lines(file, 400)
		seen(i + 1)
		switch style {
		case "delete":
			require.NoError(t, os.Remove(path))
		case "keep two":
			require.NoError(t, os.RemoveAll(path+".2"))
			if i > 0 {
				require.NoError(t, os.Rename(path+".1", path+".2"))
			}
			require.NoError(t, os.Rename(path, path+".1"))
		default:
			require.NoError(t, os.Rename(path, fmt.Sprintf("%s.%d", path, i)))
		}
		if style == "writer stays" {
			lines(file, 50)
		}
		next, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		require.NoError(t, err)
		if style == "writer stays" {
			lines(next, 10)
			lines(file, 50)
		}
		require.NoError(t, file.Close())
		file = next
		<-tick.C
	}
	lines(file, 100)
	require.NoError(t, file.Close())
	return total
}
