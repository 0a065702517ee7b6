package forward

import (
	"bufio"
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

func FuzzEscapeLines(f *testing.F) {
	f.Add("before\n", []byte("a\r\nb\x00"))
	f.Add("", []byte("\n\n\n"))
	f.Fuzz(func(t *testing.T, before string, text []byte) {
		dst := append([]byte(before), text...)
		got := escapeLines(dst, len(before))
		want := strings.NewReplacer("\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(string(text))
		require.Equal(t, before+want, string(got), "what stands before is left alone")
	})
}

func FuzzCutText(f *testing.F) {
	f.Add("příliš žluťoučký kůň 🐎", 4)
	f.Add("\xbf\xbf\xbf\xbf\xbf", 4)
	f.Fuzz(func(t *testing.T, text string, limit int) {
		limit = max(limit, 0) % 100
		got := cutText([]byte(text), limit)
		require.LessOrEqual(t, len(got), limit)
		require.True(t, strings.HasPrefix(text, string(got)))
		require.GreaterOrEqual(t, len(got), min(len(text), limit)-3)
		if utf8.ValidString(text) {
			require.True(t, utf8.Valid(got))
		}
	})
}

// FuzzFraming sends three messages through each framing and takes the stream apart with a reader of its own: no bytes
// in one message may make it two, or swallow the next.
func FuzzFraming(f *testing.F) {
	f.Add([]byte("one"), []byte("two\n<13>1 forged"), []byte("\x00"))
	f.Add([]byte{}, []byte("12 abc"), bytes.Repeat([]byte("9"), 1000))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		for _, envelope := range []string{envelope5424, envelope3164} {
			settings := newSyslogSettings()
			settings.Envelope = envelope
			s := &syslogSink{settings: settings, encoder: forwardtest.RawEncoder{}, envelope: newEnvelope(settings, "h")}
			var lines, frames []byte
			for _, raw := range [][]byte{a, b, c} {
				ev := forwardtest.Event(raw)
				lines = append(s.appendMessage(lines, &ev, 0, true), '\n')
				frames = s.appendCounted(frames, &ev)
			}
			for _, stream := range [][]byte{lines, frames} {
				in := bufio.NewReader(bytes.NewReader(stream))
				for _, raw := range [][]byte{a, b, c} {
					message, err := forwardtest.ReadMessage(in)
					require.NoError(t, err)
					want := string(raw)
					if stream[0] == '<' {
						want = string(escapeLines(bytes.Clone(raw), 0))
					}
					require.True(t, strings.HasSuffix(message, want))
					require.True(t, strings.HasPrefix(message, "<133>"))
				}
				_, err := in.ReadByte()
				require.Error(t, err, "nothing is left")
			}
		}
	})
}

func FuzzProgress(f *testing.F) {
	p := progress{Totals: Totals{1, 2, 300, 4, 5, 1 << 40}, through: 7, handed: 1 << 63}
	f.Add(p.append(nil))
	f.Add([]byte{1})
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{1, 0x80, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProgress(b)
		if err != nil {
			require.ErrorIs(t, err, ErrState)
			require.Zero(t, p)
			return
		}
		if len(b) > 0 {
			require.Equal(t, b, p.append(nil), "one state has one form")
		}
	})
}

func TestProgressRoundTrip(t *testing.T) {
	p := progress{Totals: Totals{1, 2, 3, 4, 5, 6}, through: 7, handed: audit.Number(1 << 62)}
	got, err := parseProgress(p.append(nil))
	require.NoError(t, err)
	require.Equal(t, p, got)
	for i := 1; i < len(p.append(nil)); i++ {
		_, err := parseProgress(p.append(nil)[:i])
		require.ErrorIs(t, err, ErrState)
	}
}
