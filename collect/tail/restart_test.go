package tail

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// records of every kind that matters for going on: quoted line breaks, empty lines, one that is too long.
func mixedCSV(rows int) string {
	var text strings.Builder
	text.WriteString("\xEF\xBB\xBFNumber;Text\r\n")
	random := rand.New(rand.NewPCG(1, 2))
	for i := range rows {
		switch random.IntN(6) {
		case 0:
			fmt.Fprintf(&text, "%d;\"two\nlines; and \"\"quotes\"\"\"\r\n", i)
		case 1:
			fmt.Fprintf(&text, "%d;plain\n\n", i)
		default:
			fmt.Fprintf(&text, "%d;%s\r\n", i, strings.Repeat("x", random.IntN(80)))
		}
		if i == rows/2 {
			fmt.Fprintf(&text, "%d;%s\n", i, strings.Repeat("ř", 400))
		}
	}
	return text.String()
}

// TestKilledAtEveryBatch ends the process at each batch in turn, once before the batch was stored and once after it was
// stored but before the follower could learn it, and starts another one with what was stored.
func TestKilledAtEveryBatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, mixedCSV(300))
	opt := fast(path)
	opt.MaxRecord = 150
	run := func(s *store, ctx context.Context) {
		opt := opt
		opt.Positions = s.list()
		opt.Once = true
		f, err := New(opt)
		require.NoError(t, err)
		f.blockBytes = 200
		require.NoError(t, f.Run(ctx, s.put))
	}
	whole := newStore()
	run(whole, t.Context())
	require.Greater(t, whole.batches, 50)

	for kill := 1; kill <= whole.batches; kill++ {
		for _, stored := range []bool{false, true} {
			s := newStore()
			ctx, cancel := context.WithCancel(t.Context())
			die := func(batch int) error {
				if batch == kill {
					cancel()
					return errKilled
				}
				return nil
			}
			if stored {
				s.after = die
			} else {
				s.before = die
			}
			run(s, ctx)
			cancel()
			s.before, s.after = nil, nil
			run(s, t.Context())
			require.Equal(t, whole.all(), s.all(), "killed at batch %d, stored %v", kill, stored)
		}
	}
}

func TestBatchThatIsRefusedIsPutAgain(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	s.before = func(batch int) error {
		if batch == 1 {
			return errKilled
		}
		return nil
	}
	r := start(t, fast(path), s)
	s.wait(t, "one")
	require.Equal(t, 2, s.batches)
	r.stop(t)
}

func TestKeysStayWhenTheFileGrows(t *testing.T) {
	path := logPath(t)
	lines, text := numbered(0, 200)
	write(t, path, text[:len(lines[0])+4]) // one line and the start of another
	first := newStore()
	opt := fast(path)
	r := start(t, opt, first)
	first.wait(t, lines[0])
	r.stop(t)

	write(t, path, text) // beyond 1 KiB; nothing of the first run was kept
	second := newStore()
	once(t, opt, second)
	require.Equal(t, first.all()[0], second.all()[0])

	once(t, opt, first) // and with what was kept
	require.Equal(t, second.all(), first.all())
}

func TestDeviceNumberChangesWithAReboot(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	f := once(t, fast(path), s)
	p := f.ring[0].position
	p.node.dev++
	s.positions[string(p.id.appendKey(nil))] = p.append(nil)
	appendTo(t, path, "two\n")
	once(t, fast(path), s)
	require.Equal(t, []string{"one", "two"}, s.raws())
	require.Equal(t, s.all()[0].Key[:16], s.all()[1].Key[:16])
}

func TestInodeNumberIsUsedAgainWhileDown(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	f := once(t, fast(path), s)
	p := f.ring[0].position
	p.birth-- // what was read is not this file, although it looks the same
	p.id[0]++
	s.positions = map[string][]byte{string(p.id.appendKey(nil)): p.append(nil)}
	once(t, fast(path), s)
	require.Equal(t, []string{"one", "one"}, s.raws())
	require.Equal(t, audit.MarkPossibleLoss, s.all()[1].Marks, "more may have been in the file that is gone")
	require.Len(t, s.list(), 1, "the position of the other file is removed")
}

func TestFileIsGoneAtTheStart(t *testing.T) {
	prepare := func(t *testing.T) (path string, s *store) {
		path = logPath(t)
		s = newStore()
		write(t, path, "one\n")
		r := start(t, fast(path), s)
		s.wait(t, "one")
		r.stop(t)
		return path, s
	}
	t.Run("and its successor is there", func(t *testing.T) {
		path, s := prepare(t)
		appendTo(t, path, "never read\n")
		require.NoError(t, os.Rename(path, path+".1"))
		write(t, path+".1.gz", "\x1F\x8B\x08packed")
		write(t, path, "two\nthree\n")
		require.NoError(t, os.Remove(path+".1"))
		opt := fast(path)
		out := logInto(&opt)
		once(t, opt, s)
		require.Equal(t, []string{"one", "two", "three"}, s.raws())
		require.Equal(t, audit.MarkPossibleLoss, s.all()[1].Marks)
		require.Zero(t, s.all()[2].Marks)
		require.Equal(t, 1, strings.Count(out.String(), "a file that was being read is gone"))
		require.Contains(t, out.String(), "path="+path+" offset=4")

		opt = fast(path)
		out = logInto(&opt)
		appendTo(t, path, "four\n")
		once(t, opt, s)
		require.Zero(t, s.all()[3].Marks)
		require.NotContains(t, out.String(), "level=WARN", "it was told once")
	})
	t.Run("and its successor comes later", func(t *testing.T) {
		path, s := prepare(t)
		require.NoError(t, os.Remove(path))
		opt := fast(path)
		out := logInto(&opt)
		r := start(t, opt, s)
		eventually(t, func() bool { fl, ok := r.file(path); return ok && fl.Problem != "" })
		write(t, path, "two\n")
		s.wait(t, "one", "two")
		require.NoError(t, os.Rename(path, path+".1"))
		write(t, path, "three\n")
		s.wait(t, "one", "two", "three")
		r.stop(t)
		require.Contains(t, out.String(), "a file that was being read is gone")
		require.Equal(t, audit.MarkPossibleLoss, s.all()[1].Marks)
		require.Zero(t, s.all()[2].Marks)
	})
	t.Run("but it was read to its end", func(t *testing.T) {
		path, s := prepare(t)
		opt := fast(path)
		opt.CloseAfter = time.Millisecond
		r := start(t, opt, s)
		require.NoError(t, os.Rename(path, path+".1"))
		write(t, path, "two\n")
		s.wait(t, "one", "two")
		eventually(t, func() bool { return len(r.Files()) == 1 })
		r.stop(t)
		require.NoError(t, os.Remove(path+".1"))
		opt = fast(path)
		out := logInto(&opt)
		appendTo(t, path, "three\n")
		once(t, opt, s)
		require.Equal(t, []string{"one", "two", "three"}, s.raws())
		require.Zero(t, s.all()[2].Marks)
		require.NotContains(t, out.String(), "level=WARN")
	})
	t.Run("or only its directory", func(t *testing.T) {
		path, s := prepare(t)
		dir := filepath.Dir(path)
		require.NoError(t, os.Rename(dir, dir+"-away"))
		opt := fast(path)
		out := logInto(&opt)
		once(t, opt, s)
		require.NotContains(t, out.String(), "is gone")
		require.NoError(t, os.Rename(dir+"-away", dir))
		appendTo(t, path, "two\n")
		once(t, fast(path), s)
		require.Equal(t, []string{"one", "two"}, s.raws())
		require.Zero(t, s.all()[1].Marks)
	})
}

func TestStartAtEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.csv")
	write(t, path, "A,B\nold,1\nhalf")
	empty := filepath.Join(dir, "empty.csv")
	write(t, empty, "A,B\n")
	opt := fast(filepath.Join(dir, "*.csv"))
	opt.StartAtEnd = true
	s := newStore()
	r := start(t, opt, s)
	require.Eventually(t, func() bool { return len(s.list()) == 3 }, 10*time.Second, time.Millisecond,
		"a position for each file and a note for the pattern")
	r.stop(t)
	appendTo(t, path, " new,2\n")
	appendTo(t, empty, "empty,3\n")
	write(t, filepath.Join(dir, "later.csv"), "A,B\nlater,4\n")
	once(t, opt, s)
	require.ElementsMatch(t, []string{"half new,2", "empty,3", "later,4"}, s.raws())
	for _, r := range s.all() {
		require.Equal(t, "A,B", r.Header)
		if r.Raw == "half new,2" {
			require.Zero(t, r.Row, "nobody counted the rows before it")
		}
	}
}

func TestPositionsFromAnotherVersion(t *testing.T) {
	p := &position{path: "/x"}
	value := p.append(nil)
	value[0] = positionVersion + 1
	_, err := New(Options{Paths: []string{"/x"}, Positions: []audit.Position{{Key: p.id.appendKey(nil), Value: value}}})
	require.ErrorContains(t, err, "newer auditrelay")
}

func TestPatternsAreChecked(t *testing.T) {
	for _, text := range []string{"", "/x/[a", "/x/**/y"} {
		_, err := New(Options{Paths: []string{text}})
		require.ErrorIs(t, err, ErrPattern)
	}
}

func TestNoGoroutineScansAfterRun(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\n")
	s := newStore()
	r := start(t, fast(path), s)
	s.wait(t, "one")
	r.stop(t)
	descriptors, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	for _, d := range descriptors {
		target, _ := os.Readlink("/proc/self/fd/" + d.Name())
		require.NotEqual(t, path, target)
	}
}

// FuzzPosition: what is decoded is encoded to the same bytes, and nothing panics.
func FuzzPosition(f *testing.F) {
	p := &position{
		node: inode{5, 7}, birth: -3, offset: 1 << 40, rows: -1, cut: cut{open: true, part: 3, start: 9},
		format: audit.FormatCSV, path: "/var/log/ř.log", head: headOf([]byte("abc")), tail: tailOf(nil, []byte("bc")),
	}
	f.Add(p.append(nil))
	f.Add((&position{}).append(nil))
	f.Add([]byte{positionVersion})
	f.Fuzz(func(t *testing.T, value []byte) {
		var id fileID
		p, err := decodePosition(id.appendKey(nil), value)
		if err != nil {
			return
		}
		again, err := decodePosition(id.appendKey(nil), p.append(nil))
		require.NoError(t, err)
		require.Equal(t, p, again)
	})
}
