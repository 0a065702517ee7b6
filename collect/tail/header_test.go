package tail

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func csvPath(t *testing.T) string { return filepath.Join(t.TempDir(), "a.csv") }

func logInto(opt *Options) *bytes.Buffer {
	var out bytes.Buffer
	opt.Logger = slog.New(slog.NewTextHandler(&out, nil))
	return &out
}

func TestHeaderWithAnOpenQuote(t *testing.T) {
	const text = "\"Source,Session\n1,2\n3,4\n"
	check := func(t *testing.T, s *store) {
		require.Equal(t, []string{"1,2", "3,4"}, s.raws())
		require.Equal(t, `"Source,Session`, s.all()[0].Header, "it is the header as it is")
		require.Equal(t, byte(','), s.all()[0].Comma)
		require.Equal(t, audit.MarkColumnsDiffer, s.all()[0].Marks)
		require.Zero(t, s.all()[1].Marks)
	}
	t.Run("a single run, the file is old", func(t *testing.T) {
		path := csvPath(t)
		write(t, path, text)
		old(t, path)
		s := newStore()
		opt := fast(path)
		out := logInto(&opt)
		once(t, opt, s)
		check(t, s)
		require.Contains(t, out.String(), "quote that is not closed")
		require.Contains(t, out.String(), path)

		appendTo(t, path, "\"5\",6\n")
		once(t, fast(path), s)
		require.Equal(t, []string{"1,2", "3,4", "\"5\",6"}, s.raws())
		require.Equal(t, `"Source,Session`, s.all()[2].Header, "the header does not change with what comes behind it")
	})
	t.Run("a file that does not stop growing", func(t *testing.T) {
		path := csvPath(t)
		write(t, path, text)
		opt := fast(path)
		opt.PartialAfter = 100 * time.Millisecond
		s := newStore()
		r := start(t, opt, s)
		eventually(t, func() bool { appendTo(t, path, "5,6\n"); return s.count() > 2 })
		r.stop(t)
		require.Equal(t, []string{"1,2", "3,4", "5,6"}, s.raws()[:3])
	})
	t.Run("semicolons behind a separator line", func(t *testing.T) {
		path := csvPath(t)
		write(t, path, "sep=;\n\"Source;Session\r\n1;2\n")
		old(t, path)
		s := newStore()
		once(t, fast(path), s)
		require.Equal(t, []string{"1;2"}, s.raws())
		require.Equal(t, byte(';'), s.all()[0].Comma)
		require.Equal(t, `"Source;Session`, s.all()[0].Header)
	})
	t.Run("more than is looked at for a header", func(t *testing.T) {
		path := csvPath(t)
		_, lines := numbered(0, headerRowBytes/10)
		write(t, path, "\"Source,Session\n"+lines)
		s := newStore()
		once(t, fast(path), s)
		require.Equal(t, headerRowBytes/10, s.count())
		require.Equal(t, `"Source,Session`, s.all()[0].Header)
	})
}

func TestHeaderWithAnOpenQuoteIsWaitedForInASingleRun(t *testing.T) {
	path := csvPath(t)
	synctest.Test(t, func(t *testing.T) {
		write(t, path, "\"Source,Session\n1,2\n")
		now := time.Now() // of the bubble
		require.NoError(t, os.Chtimes(path, now, now))
		s := newStore()
		opt := fast(path)
		opt.PartialAfter = 10 * time.Second
		opt.Once = true
		f, err := New(opt)
		require.NoError(t, err)
		require.NoError(t, f.Run(t.Context(), s.put))
		require.Equal(t, []string{"1,2"}, s.raws())
		require.GreaterOrEqual(t, time.Since(now), 10*time.Second)
	})
}

func TestFirstRowThatIsNoHeader(t *testing.T) {
	for _, row := range []string{
		"1,alice", "x,", ",x", "2025-01-02 03:04:05,alice", "alice,10.0.0.7", "\"\",x", "alice,\" 17 \"", "-,x",
	} {
		t.Run(row, func(t *testing.T) {
			path := csvPath(t)
			write(t, path, row+"\n2,bob\n"+row+"\n")
			s := newStore()
			opt := fast(path)
			out := logInto(&opt)
			f := once(t, opt, s)
			require.Equal(t, []string{row, "2,bob", row}, s.raws(), "the first row is a record, and so is its repetition")
			require.Equal(t, audit.MarkColumnsDiffer, s.all()[0].Marks)
			require.Zero(t, s.all()[1].Marks)
			require.Equal(t, row, s.all()[1].Header)
			require.Zero(t, f.Files()[0].Blank)
			require.Contains(t, out.String(), "does not look like a header")
			require.Contains(t, out.String(), path)

			appendTo(t, path, row+"\n")
			once(t, fast(path), s)
			require.Equal(t, []string{row, "2,bob", row, row}, s.raws())
		})
	}
	for _, row := range []string{"A,B", "Name,T1", "\"Client IP\",Größe", "date;email;ip_address;"} {
		path := csvPath(t)
		write(t, path, row+"\nx,y\n")
		s := newStore()
		opt := fast(path)
		out := logInto(&opt)
		once(t, opt, s)
		require.Equal(t, []string{"x,y"}, s.raws(), row)
		require.Zero(t, s.all()[0].Marks)
		require.NotContains(t, out.String(), "level=WARN")
	}
}

// A writer that puts the header only into the first generation.
func TestGenerationWithoutAHeaderKeepsTheOneBefore(t *testing.T) {
	replace := map[string]func(t *testing.T, path, text string){
		"truncated": func(t *testing.T, path, text string) { write(t, path, text) },
		"rotated": func(t *testing.T, path, text string) {
			require.NoError(t, os.Rename(path, path+".1"))
			write(t, path, text)
		},
		"deleted": func(t *testing.T, path, text string) {
			require.NoError(t, os.Remove(path))
			write(t, path, text)
		},
	}
	for name, next := range replace {
		for _, down := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				path := csvPath(t)
				write(t, path, "Number,Name\n1,ann\n2,bob\n")
				s := newStore()
				r := start(t, fast(path), s)
				s.wait(t, "1,ann", "2,bob")
				step := func(text string, want ...string) {
					if down {
						r.stop(t)
					}
					next(t, path, text)
					if down {
						r = start(t, fast(path), s)
					}
					s.wait(t, want...)
				}
				step("3,cid\n", "1,ann", "2,bob", "3,cid")
				step("4,\n", "1,ann", "2,bob", "3,cid", "4,")
				step("Number,Name\n5,e\n", "1,ann", "2,bob", "3,cid", "4,", "5,e")
				for _, rec := range s.all() {
					require.Equal(t, "Number,Name", rec.Header)
					require.False(t, rec.Marks.Has(audit.MarkColumnsDiffer))
				}
				step("Name,Number\nf,6\n", "1,ann", "2,bob", "3,cid", "4,", "5,e", "f,6")
				require.Equal(t, "Name,Number", s.all()[5].Header, "what looks like a header is one")
				r.stop(t)
			})
		}
	}
}

func TestGenerationWithOtherColumnsHasNoHeader(t *testing.T) {
	path := csvPath(t)
	write(t, path, "Number,Name\n1,ann\n")
	s := newStore()
	r := start(t, fast(path), s)
	s.wait(t, "1,ann")
	write(t, path, "2,bob,more\n3,cid,more\n")
	s.wait(t, "1,ann", "2,bob,more", "3,cid,more")
	require.Equal(t, "2,bob,more", s.all()[1].Header)
	require.True(t, s.all()[1].Marks.Has(audit.MarkColumnsDiffer|audit.MarkPossibleLoss))
	r.stop(t)
}

func TestHeaderThatIsTooLongToKeep(t *testing.T) {
	path := csvPath(t)
	header := "Number," + strings.Repeat("x", headerKeptBytes)
	write(t, path, header+"\n1,ann\n")
	s := newStore()
	once(t, fast(path), s)
	appendTo(t, path, "2,bob\n")
	f := once(t, fast(path), s)
	require.Equal(t, []string{"1,ann", "2,bob"}, s.raws())
	require.Equal(t, header, s.all()[1].Header, "it is read again from the file")
	require.Empty(t, f.headers)
}

func TestKeptHeadersAreBounded(t *testing.T) {
	f, err := New(Options{Paths: []string{"/x"}, MaxFiles: 2})
	require.NoError(t, err)
	f.occupants["/there"] = inode{}
	p := &position{header: []byte("A,B"), comma: ','}
	for _, path := range []string{"/there", "/1", "/2", "/3", "/4", "/5", "/6"} {
		f.keepHeader(path, p)
		require.LessOrEqual(t, len(f.headers), 4)
	}
	require.Contains(t, f.headers, "/there")
}

func TestPositionOfTheVersionBefore(t *testing.T) {
	path := csvPath(t)
	write(t, path, "A,B\nx,y\n")
	s := newStore()
	f := once(t, fast(path), s)
	p := f.ring[0].position
	p.header, p.comma = nil, 0
	value := p.append(nil)
	value = value[:len(value)-4]
	value[0] = 1
	s.positions = map[string][]byte{string(p.id.appendKey(nil)): value}
	appendTo(t, path, "z,z\n")
	once(t, fast(path), s)
	require.Equal(t, []string{"x,y", "z,z"}, s.raws())
	require.Equal(t, "A,B", s.all()[1].Header)
}
