package tail

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func TestRecordEndings(t *testing.T) {
	for _, c := range []struct {
		name, file, text string
		want             []string
		header           string
		comma            byte
		format           audit.Format
		blank            uint64
	}{
		{
			name:  "lines with LF and CRLF",
			file:  "a.log",
			text:  "one\ntwo\r\n\nthree\n",
			want:  []string{"one", "two", "three"},
			blank: 1,
		},
		{name: "byte order mark", file: "a.log", text: "\xEF\xBB\xBFone\n", want: []string{"one"}},
		{
			name:   "JSON lines",
			file:   "a.log",
			text:   "{\"a\":1}\n{\"b\":\"c\"}\n",
			want:   []string{`{"a":1}`, `{"b":"c"}`},
			format: audit.FormatJSON,
		},
		{
			name: "CSV", file: "a.csv", text: "A,B\r\n1,2\r\n\r\n3,4\r\n", want: []string{"1,2", "3,4"},
			header: "A,B", comma: ',', format: audit.FormatCSV, blank: 1,
		},
		{
			name: "CSV with quoted line breaks and quotes", file: "a.csv",
			text:   "A,B\n1,\"two\nlines\"\n2,\"a \"\"quoted\"\"\r\n\"\n3,5\" disk\n\"x\"\"\n\",4\n",
			want:   []string{"1,\"two\nlines\"", "2,\"a \"\"quoted\"\"\r\n\"", `3,5" disk`, "\"x\"\"\n\",4"},
			header: "A,B",
			comma:  ',',
			format: audit.FormatCSV,
		},
		{
			name: "CSV with semicolons, byte order mark and rotated name",
			file: "a.csv.1",
			text: "\xEF\xBB\xBFA;\"B;,,,,\";C\n1;2;3\n",
			want: []string{"1;2;3"}, header: `A;"B;,,,,";C`, comma: ';', format: audit.FormatCSV,
		},
		{
			name: "separator line", file: "a.csv", text: "sep=|\r\nA|B,C\r\n1|2\r\n", want: []string{"1|2"},
			header: "A|B,C", comma: '|', format: audit.FormatCSV,
		},
		{
			name: "tabs", file: "a.csv", text: "A\tB\n1\t\"2\n3\"\n", want: []string{"1\t\"2\n3\""},
			header: "A\tB", comma: '\t', format: audit.FormatCSV,
		},
		{
			name: "header with a line break", file: "a.csv", text: "A,\"B\nb\",C\n1,2,3\n", want: []string{"1,2,3"},
			header: "A,\"B\nb\",C", comma: ',', format: audit.FormatCSV,
		},
		{
			name: "header row repeated", file: "a.csv", text: "A,B\n1,2\nA,B\n3,4\n", want: []string{"1,2", "3,4"},
			header: "A,B", comma: ',', format: audit.FormatCSV, blank: 1,
		},
		{
			name: "known header under another name", file: "export.txt",
			text:   "Application Id;Timestamp (Server Time Zone);Username;Action;Client IP\nSuite;2025;u;login;::1\n",
			want:   []string{"Suite;2025;u;login;::1"},
			header: "Application Id;Timestamp (Server Time Zone);Username;Action;Client IP",
			comma:  ';',
			format: audit.FormatCSV,
		},
		{
			name:   "known header in snake case",
			file:   "export.txt",
			text:   "source,session,user_id,action,entity_type\nportal,,1,LOGIN,USER\n",
			want:   []string{"portal,,1,LOGIN,USER"},
			header: "source,session,user_id,action,entity_type",
			comma:  ',',
			format: audit.FormatCSV,
		},
		{
			name: "prose with commas is no header",
			file: "a.log",
			text: "one, two, three, four\n",
			want: []string{"one, two, three, four"},
		},
		{
			name: "zero bytes before the text",
			file: "a.log",
			text: strings.Repeat("\x00", 9000) + "one\n",
			want: []string{"one"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), c.file)
			write(t, path, c.text)
			for block := 1; block < 40; block += 3 {
				s := newStore()
				opt := fast(path)
				f, err := New(opt)
				require.NoError(t, err)
				f.blockBytes = block
				runOnce(t, f, s)
				require.Equal(t, c.want, s.raws(), "blocks of %d bytes", block)
				row := int64(0)
				for _, r := range s.all() {
					row++
					require.Equal(t, row, r.Row)
					require.Equal(t, c.header, r.Header)
					require.Equal(t, c.comma, r.Comma)
					require.Equal(t, c.format, r.Format)
					require.Equal(t, r.Raw, c.text[r.Offset:r.Offset+int64(len(r.Raw))])
				}
				require.Equal(t, c.blank, f.Files()[0].Blank)
				require.Equal(t, int64(len(c.text)), f.Files()[0].Offset)
			}
		})
	}
}

func TestFormatSettingWinsOverName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, "A,B\n1,\"2\n")
	s := newStore()
	opt := fast(path)
	opt.Format = audit.FormatText
	once(t, opt, s)
	require.Equal(t, []string{"A,B", `1,"2`}, s.raws())
	require.Equal(t, audit.FormatText, s.all()[0].Format)
}

func TestTenMebibyteLine(t *testing.T) {
	path := logPath(t)
	long := bytes.Repeat([]byte("0123456789abcdeř"), 10<<20/17+1)[:10<<20]
	write(t, path, "before\n"+string(long)+"\nafter\n")
	for _, c := range []struct{ max, records int }{{1 << 20, 2 + 11}, {16 << 20, 3}} {
		s := newStore()
		opt := fast(path)
		opt.MaxRecord = c.max
		f := once(t, opt, s)
		all := s.all()
		require.Equal(t, "before", all[0].Raw)
		require.Equal(t, "after", all[len(all)-1].Raw)
		require.Equal(t, int64(3), all[len(all)-1].Row)
		var joined []byte
		offset := int64(len("before\n"))
		for i, r := range all[1 : len(all)-1] {
			require.Equal(t, offset, r.Offset)
			require.Equal(t, int64(2), r.Row)
			require.Equal(t, all[1].Key[:24], r.Key[:24], "parts share the start of their keys")
			require.LessOrEqual(t, len(r.Raw), c.max)
			if c.max < len(long) {
				require.Equal(t, i+1, r.Part)
				require.True(t, r.Marks.Has(audit.MarkPart))
			} else {
				require.Zero(t, r.Part)
			}
			joined = append(joined, r.Raw...)
			offset += int64(len(r.Raw))
		}
		require.True(t, bytes.Equal(long, joined))
		require.Len(t, all, c.records)
		require.Equal(t, len(all), len(keys(all)), "every key occurs once")
		require.LessOrEqual(t, cap(f.headerRow), headerRowBytes)
	}
}

func keys(all []got) map[string]bool {
	set := make(map[string]bool)
	for _, r := range all {
		set[r.Key] = true
	}
	return set
}

func TestQuoteThatNeverCloses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	var text strings.Builder
	text.WriteString("A,B\n1,2\n3,\"oops\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "%d,fine\n", i)
	}
	write(t, path, text.String())
	check := func(t *testing.T, s *store) {
		all := s.all()
		require.Len(t, all, 1002)
		require.Equal(t, "1,2", all[0].Raw)
		require.Equal(t, `3,"oops`, all[1].Raw)
		require.Equal(t, 1, all[1].Part)
		require.True(t, all[1].Marks.Has(audit.MarkPart))
		for i, r := range all[2:] {
			require.Equal(t, fmt.Sprintf("%d,fine", i), r.Raw)
			require.Zero(t, r.Part)
			require.Equal(t, int64(i+3), r.Row)
		}
	}
	t.Run("cut at the longest record", func(t *testing.T) {
		s := newStore()
		opt := fast(path)
		opt.MaxRecord = 100
		once(t, opt, s)
		check(t, s)
	})
	t.Run("cut after waiting", func(t *testing.T) {
		old(t, path)
		s := newStore()
		once(t, fast(path), s)
		check(t, s)
		require.True(t, s.all()[1].Marks.Has(audit.MarkPartial), "it was cut because it had waited long enough")
	})
}

// TestQuotesThatOpenInEveryLine: the cost of a file is bounded by its size, whatever is in it. Without a bound on how
// often the same bytes are looked at for a closing quote this takes hours.
func TestQuotesThatOpenInEveryLine(t *testing.T) {
	const lines = 1_000_000
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, "a,b,c,d\n"+strings.Repeat("a\",\"\n", lines))
	for _, limit := range []int{1 << 10, DefaultMaxRecord} {
		old(t, path)
		count, bytes := 0, 0
		began := time.Now()
		opt := fast(path)
		opt.MaxRecord, opt.Once = limit, true
		f, err := New(opt)
		require.NoError(t, err)
		require.NoError(t, f.Run(t.Context(), func(_ context.Context, b *audit.Records) (audit.Number, error) {
			count += len(b.List)
			for i := range b.List {
				bytes += len(b.List[i].Raw)
			}
			return 0, nil
		}))
		require.Less(t, time.Since(began), 10*time.Second)
		require.Equal(t, lines, count)
		require.Equal(t, lines*len(`a","`), bytes, "nothing is lost")
	}
}

// TestQuotesAreForgivenWithinAWindow: a few quotes that stay open do no harm to records behind them; with many of them
// lines are taken as they are up to the end of the window, and records are told apart again behind it.
func TestQuotesAreForgivenWithinAWindow(t *testing.T) {
	const limit, chain = 1000, 20
	path := filepath.Join(t.TempDir(), "a.csv")
	open, whole := `a","`, "y,\"two\nlines\""
	filling := strings.Repeat("z,z\n", limit/2)
	write(t, path, "A,B\n"+strings.Repeat(open+"\n", 2)+filling+whole+"\n"+
		strings.Repeat(open+"\n", chain)+filling+whole+"\n"+strings.Repeat(open+"\n", 1)+filling+whole+"\n")
	opt := fast(path)
	opt.MaxRecord = limit
	for _, block := range []int{blockBytes, 7, 1001, 2500} {
		var list []string
		var cuts []int
		s := newStore()
		f, err := New(opt)
		require.NoError(t, err)
		f.blockBytes = block
		runOnce(t, f, s)
		for _, r := range s.all() {
			if r.Raw == open {
				cuts = append(cuts, r.Part)
			} else if r.Raw != "z,z" {
				list = append(list, r.Raw)
			}
		}
		require.Equal(t, []string{whole, whole, whole}, list)
		want := make([]int, 2+chain+1)
		for _, i := range []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, len(want) - 1} {
			want[i] = 1
		}
		require.Equal(t, want, cuts)
	}
}

func TestQuotedRecordThatIsTooLong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, "A,B\n1,\""+strings.Repeat("x", 300)+"\nmore\"\n2,3\n")
	s := newStore()
	opt := fast(path)
	opt.MaxRecord = 100
	once(t, opt, s)
	full := strings.Repeat("x", 100)
	want := []string{`1,"` + full[:97], full, full, "xxx", `more"`, "2,3"}
	require.Equal(t, want, s.raws())
	require.Equal(t, []int{1, 2, 3, 4, 0, 0}, parts(s.all()))
}

func parts(all []got) (list []int) {
	for _, r := range all {
		list = append(list, r.Part)
	}
	return list
}

func TestUnfinishedRecordWaits(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\ntw")
	s := newStore()
	r := start(t, fast(path), s)
	s.wait(t, "one")
	appendTo(t, path, "o\r")
	appendTo(t, path, "\nthree\n")
	s.wait(t, "one", "two", "three")
	require.Zero(t, s.all()[1].Marks)
	r.stop(t)
}

func TestUnfinishedRecordComesOutAfterWaiting(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\ntw")
	s := newStore()
	opt := fast(path)
	opt.PartialAfter = 20 * time.Millisecond
	r := start(t, opt, s)
	s.wait(t, "one", "tw")
	appendTo(t, path, "o\nthree\n")
	s.wait(t, "one", "tw", "o", "three")
	appendTo(t, path, "four")
	s.wait(t, "one", "tw", "o", "three", "four")
	appendTo(t, path, "\nfive\n")
	s.wait(t, "one", "tw", "o", "three", "four", "five")
	var marked []bool
	var rows, offsets []int64
	for _, r := range s.all() {
		marked = append(marked, r.Marks.Has(audit.MarkPartial))
		rows, offsets = append(rows, r.Row), append(offsets, r.Offset)
	}
	require.Equal(t, []bool{false, true, true, false, true, false}, marked)
	require.Equal(t, []int64{1, 2, 2, 3, 4, 5}, rows)
	require.Equal(t, []int64{0, 4, 6, 8, 14, 19}, offsets)
	require.Len(t, keys(s.all()), 6)
	r.stop(t)
	file, _ := r.file(path)
	require.Equal(t, uint64(3), file.Partials)
}

func TestPartialRecordGoesOnAfterRestart(t *testing.T) {
	path := logPath(t)
	write(t, path, "on")
	old(t, path)
	s := newStore()
	once(t, fast(path), s)
	require.Equal(t, []string{"on"}, s.raws())
	appendTo(t, path, "e\ntwo\n")
	once(t, fast(path), s)
	require.Equal(t, []string{"on", "e", "two"}, s.raws())
	require.True(t, s.all()[1].Marks.Has(audit.MarkPartial))
	require.Equal(t, s.all()[0].Key[:16], s.all()[2].Key[:16], "the file keeps its id although its first line grew")
}

func TestCarriageReturnAtTheEndIsNotLost(t *testing.T) {
	path := logPath(t)
	write(t, path, "one\r")
	old(t, path)
	s := newStore()
	once(t, fast(path), s)
	require.Equal(t, []string{"one"}, s.raws())
	appendTo(t, path, "two\nthree\n")
	once(t, fast(path), s)
	require.Equal(t, []string{"one", "\rtwo", "three"}, s.raws())
}

func TestBinaryContent(t *testing.T) {
	path := logPath(t)
	text := "a\x00b\nplain\n\xff\xfe\x80\n"
	write(t, path, text)
	s := newStore()
	once(t, fast(path), s)
	require.Equal(t, []string{"a\x00b", "plain", "\xff\xfe\x80"}, s.raws())
	require.Equal(t, audit.MarkBinary, s.all()[0].Marks)
	require.Zero(t, s.all()[1].Marks)
	require.Zero(t, s.all()[2].Marks)
}

func TestHeaderWithoutLineEndWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.csv")
	write(t, path, "A,B")
	old(t, path)
	s := newStore()
	once(t, fast(path), s)
	require.Empty(t, s.raws())
	appendTo(t, path, ",C\n1,2,3\n")
	once(t, fast(path), s)
	require.Equal(t, []string{"1,2,3"}, s.raws())
	require.Equal(t, "A,B,C", s.all()[0].Header)
}

func TestShortRecordsDoNotMakeHugeBatches(t *testing.T) {
	path := logPath(t)
	write(t, path, strings.Repeat("x\n", 100_000))
	s := newStore()
	s.before = func(int) error { return nil }
	most, last := 0, 0
	s.after = func(int) error { most, last = max(most, len(s.records)-last), len(s.records); return nil }
	once(t, fast(path), s)
	require.Equal(t, 100_000, s.count())
	require.LessOrEqual(t, most, batchRecords)
	require.Len(t, keys(s.all()), 100_000)
}

// FuzzCSVFraming: the records of a CSV file do not depend on how its bytes fell into blocks, and no byte is left out.
func FuzzCSVFraming(f *testing.F) {
	for _, seed := range []string{
		"A,B\n1,2\n", "A;B\r\n\"x\"\"y\r\nz\";2\r\n", "sep=;\nA;B\n\"open\n1;2\n",
		"A\n\n\n\"\"\n\"a\"b\"\n,\"\"\"\n\"\n", "\xEF\xBB\xBFA\tB\n\"\x00\"\t\n",
	} {
		f.Add([]byte(seed), uint16(3), uint16(9))
	}
	f.Fuzz(func(t *testing.T, data []byte, block, limit uint16) {
		if len(data) > 4<<10 {
			return
		}
		path := filepath.Join(t.TempDir(), "a.csv")
		require.NoError(t, os.WriteFile(path, data, 0o600))
		old(t, path)
		read := func(block int) []got {
			s := newStore()
			opt := fast(path)
			opt.MaxRecord = int(limit%200) + 1
			fl, err := New(opt)
			require.NoError(t, err)
			fl.blockBytes = block
			runOnce(t, fl, s)
			return s.all()
		}
		want := read(blockBytes)
		require.Equal(t, want, read(int(block%500)+1))
		at := int64(0)
		if len(want) > 0 {
			at = want[0].Offset // behind the header
		}
		for _, r := range want {
			between := withoutHeader(string(data[at:r.Offset]), r.Header)
			require.Empty(t, strings.Trim(between, "\r\n"), "only line ends between records")
			require.Equal(t, string(data[r.Offset:r.Offset+int64(len(r.Raw))]), r.Raw)
			at = r.Offset + int64(len(r.Raw))
		}
		if len(want) > 0 {
			behind := withoutHeader(string(data[at:]), want[0].Header)
			require.Empty(t, strings.Trim(behind, "\r\n"), "nothing left behind the last record")
		}
	})
}

func withoutHeader(s, header string) string { return strings.ReplaceAll(s, header, "") }
