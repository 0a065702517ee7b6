package collect

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

// cutAll runs a stream through a framer as a connection does, in pieces of the given size. It returns the frames that
// hold something, how many bytes they took, and how much had to be kept at most.
func cutAll(t testing.TB, s *framer, stream []byte, piece int) (frames []frame, used, kept int) {
	var buf []byte
	for len(stream) > 0 && !s.broken {
		n := min(piece, len(stream))
		buf = append(buf, stream[:n]...)
		stream = stream[n:]
		for last := false; len(buf) > 0; {
			last = s.broken || len(stream) == 0
			f := s.next(buf, last)
			if f.used == 0 {
				require.False(t, last, "bytes are left over: %q", buf)
				break
			}
			require.LessOrEqual(t, f.used, len(buf))
			require.Contains(t, string(buf[:f.used]), string(f.raw))
			used += f.used
			if len(f.raw) > 0 {
				f.raw = bytes.Clone(f.raw)
				frames = append(frames, f)
			}
			buf = buf[f.used:]
		}
		kept = max(kept, len(buf))
	}
	return frames, used, kept
}

func texts(frames []frame) (list []string) {
	for _, f := range frames {
		list = append(list, string(f.raw))
	}
	return list
}

func TestFraming(t *testing.T) {
	const wrong, part, partial = audit.MarkFramingError, audit.MarkPart, audit.MarkPartial
	for _, c := range []struct {
		name   string
		mode   framing
		max    int
		stream string
		want   []string
		marks  []audit.Marks
		broken bool
	}{
		{
			name:   "lines",
			stream: "<34>a\n<34>b\r\n<34>c\x00\n\n\n<34>d\n",
			want:   []string{"<34>a", "<34>b", "<34>c", "<34>d"},
		},
		{
			name:   "octet counts",
			stream: "5 <34>a6 <34>b\n6 <3>\x00c\r\x00",
			want:   []string{"<34>a", "<34>b\n", "<3>\x00c\r"},
		},
		{
			name:   "octet counts with line feeds between",
			stream: "5 <34>a\n5 <34>b\r\n5 <34>c\x00",
			want:   []string{"<34>a", "<34>b", "<34>c"},
		},
		{name: "both in one stream", stream: "5 <34>a<34>b\n5 <34>c", want: []string{"<34>a", "<34>b", "<34>c"}},
		{name: "no PRI on a line stream", stream: "hello\n<34>b\nagain\n", want: []string{"hello", "<34>b", "again"}},
		{
			name:   "lines that begin with a number",
			stream: "2025-01-02 x\n1735722000 y\n12 z\n7\n",
			want:   []string{"2025-01-02 x", "1735722000 y", "12 z", "7"},
		},
		{
			name:   "lines that begin with a number and an angle bracket",
			stream: "404 <b>hello\nnext line\n3 <\n4 <1\n5 <1234>x\n6 <>\n",
			want:   []string{"404 <b>hello", "next line", "3 <", "4 <1", "5 <1234>x", "6 <>"},
		},
		{
			name:   "octet counts without PRI where they are set",
			mode:   framingCounted,
			stream: "2 {}2 []",
			want:   []string{"{}", "[]"},
		},
		{
			name:   "counts are text where lines are set",
			mode:   framingNewline,
			stream: "5 <34>a\n",
			want:   []string{"5 <34>a"},
		},
		{
			name:   "last line without its end",
			stream: "<34>a\n<34>b",
			want:   []string{"<34>a", "<34>b"},
			marks:  []audit.Marks{0, partial},
		},
		{
			name:   "last frame cut",
			stream: "5 <34>a9 <34>b",
			want:   []string{"<34>a", "<34>b"},
			marks:  []audit.Marks{0, audit.MarkTruncated},
		},
		{
			name:   "only a count",
			stream: "5 <34>a12 ",
			want:   []string{"<34>a", "12 "},
			marks:  []audit.Marks{0, wrong | partial},
		},
		{
			name: "huge octet count", stream: "99999999999999999999 <34>a\n<34>b\n",
			want: []string{"99999999999999999999 <34>a", "<34>b"}, marks: []audit.Marks{wrong, 0}, broken: true,
		},
		{
			name: "endless digits", stream: strings.Repeat("1", 5000), want: []string{strings.Repeat("1", 1024)},
			marks: []audit.Marks{wrong | part}, broken: true,
		},
		{
			name:   "digits where octets are counted",
			stream: "5 <34>a12345678",
			want:   []string{"<34>a", "12345678"},
			marks:  []audit.Marks{0, wrong | partial},
			broken: true,
		},
		{
			name:   "count over the limit, once",
			stream: "2000 <34>a\n<34>b\n<34>c\n",
			want:   []string{"2000 <34>a", "<34>b", "<34>c"},
			marks:  []audit.Marks{wrong, 0, 0},
		},
		{
			name:   "count over the limit, again",
			stream: "2000 <34>a\n2000 <34>b\n",
			want:   []string{"2000 <34>a", "2000 <34>b"},
			marks:  []audit.Marks{wrong, wrong}, broken: true,
		},
		{
			name: "count too small", stream: "4 <34>a\n5 <34>b5 <34>c", want: []string{"<34>", "a", "<34>b", "<34>c"},
			marks: []audit.Marks{0, wrong, 0, 0},
		},
		{
			name: "count too large", stream: "7 <34>a5 <34>b\n5 <34>c", want: []string{"<34>a5 ", "<34>b", "<34>c"},
		},
		{
			name:   "count too large by one",
			stream: "6 <34>a15 <34>b\n5 <34>c",
			want:   []string{"<34>a1", "<34>b", "<34>c"},
			marks:  []audit.Marks{0, 0, 0},
		},
		{
			name:   "line too long",
			max:    10,
			stream: "<34>" + strings.Repeat("x", 19) + "\n<34>b\n",
			want:   []string{"<34>xxxxxx", "xxxxxxxxxx", "xxx", "<34>b"},
			marks:  []audit.Marks{part, part, part, 0},
		},
		{
			name:   "line of exactly the limit",
			max:    10,
			stream: "<34>xxxxxx\r\n<34>b\n",
			want:   []string{"<34>xxxxxx", "<34>b"},
		},
		{
			name:   "line too long, cut between characters",
			max:    8,
			stream: "<34>abcř\n",
			want:   []string{"<34>abc", "ř"},
			marks:  []audit.Marks{part, part},
		},
		{
			name:   "line too long by what is stripped",
			max:    8,
			stream: "<34>abcd" + strings.Repeat("\x00", 70) + "\n<34>b\n",
			want:   []string{"<34>abcd", "<34>b"},
			marks:  []audit.Marks{part, 0},
		},
		{name: "lone CR and odd bytes", stream: "<34>a\rb\xff\x1b[2J\n", want: []string{"<34>a\rb\xff\x1b[2J"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, piece := range []int{1, 2, 3, 7, 1 << 20} {
				if c.max == 0 {
					c.max = 1024
				}
				s := &framer{mode: c.mode, max: c.max}
				frames, used, kept := cutAll(t, s, []byte(c.stream), piece)
				got := texts(frames)
				if c.broken && piece < len(c.stream) {
					got = got[:min(len(got), len(c.want))] // what was not read any more depends on the pieces
					require.Equal(t, strings.Join(c.want, "")[:len(strings.Join(got, ""))], strings.Join(got, ""))
				} else {
					require.Equal(t, c.want, got[:min(len(got), len(c.want))], "pieces of %d", piece)
					for i, f := range frames[:len(c.want)] {
						if c.marks != nil {
							require.Equal(t, c.marks[i], f.marks, "frame %d", i)
						} else {
							require.Zero(t, f.marks, "frame %d", i)
						}
					}
				}
				require.Equal(t, c.broken, s.broken)
				if !c.broken {
					require.Equal(t, len(c.stream), used)
				}
				require.LessOrEqual(t, kept, c.max+frameOverhead)
			}
		})
	}
}

// TestCountsThatAreOff: whatever a count is off by, every byte is in some record, and what follows the next line feed
// is whole again.
func TestCountsThatAreOff(t *testing.T) {
	message := "<34>1 2025-01-01T00:00:00Z host app - - - some text that is long enough for this"
	for off := -50; off <= 50; off++ {
		stream := fmt.Sprintf("%d %s", len(message)+off, message) + "\n<34>" + strings.Repeat("x", 60) + "\n<34>three\n"
		s := &framer{max: 1024}
		frames, used, _ := cutAll(t, s, []byte(stream), 1<<20)
		require.Equal(t, len(stream), used)
		list := texts(frames)
		require.Equal(t, "<34>three", list[len(list)-1], "off by %d: %q", off, list)
		require.Contains(t, strings.Join(list, ""), message[:len(message)-50])
	}
}

func TestGibibyteLineNeedsLittleMemory(t *testing.T) {
	const maxMessage = 64 << 10
	s := &framer{max: maxMessage}
	block := bytes.Repeat([]byte("x"), maxMessage+frameOverhead)
	var held []byte
	total, parts := 0, 0
	for total < 1<<30 {
		held = append(held, block[:cap(block)-len(held)]...)
		f := s.next(held, false)
		require.Equal(t, maxMessage, f.used)
		parts++
		require.Equal(t, parts, f.part)
		total += f.used
		held = append(held[:0], held[f.used:]...)
	}
	require.LessOrEqual(t, cap(held), 2*len(block))
}

// FuzzFraming: no byte of a stream is lost, whatever is in it, and how it came in pieces changes nothing.
func FuzzFraming(f *testing.F) {
	for _, seed := range []string{
		"<34>a\n<34>b\r\n", "5 <34>a6 <34>b\n", "99999999999999999999 <", "4 <34>a\n5 <34>b",
		"2000 <34>a\n2000 <34>b\n", "\x00\r\n12", "12 \n\n", "1 <2 <3\x00\r\x00",
	} {
		for mode := range 3 {
			f.Add([]byte(seed), uint8(mode), uint8(20), uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, stream []byte, mode, limit, piece uint8) {
		whole := &framer{mode: framing(mode % 3), max: int(limit) + 1}
		pieces := &framer{mode: framing(mode % 3), max: int(limit) + 1}
		frames, used, _ := cutAll(t, whole, stream, len(stream)+1)
		require.Equal(t, len(stream), used)
		held := 0
		for _, fr := range frames {
			held += len(fr.raw)
			require.LessOrEqual(t, len(fr.raw), whole.max+frameOverhead)
		}
		overhead := 0 // what may be outside of records: line endings, and octet counts
		for _, b := range stream {
			if strings.IndexByte("\r\n\x00 0123456789", b) >= 0 {
				overhead++
			}
		}
		require.GreaterOrEqual(t, held, len(stream)-overhead)
		inPieces, _, kept := cutAll(t, pieces, stream, int(piece)+1)
		require.LessOrEqual(t, kept, pieces.max+frameOverhead+int(piece)+1)
		if !whole.broken {
			require.Equal(t, frames, inPieces)
		}
	})
}
