package forward_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

// countingReader counts events by their line ends and signals when all have come.
type countingReader struct {
	lines, want int
	done        chan struct{}
}

func (r *countingReader) Write(p []byte) (int, error) {
	r.lines += bytes.Count(p, []byte{'\n'})
	if r.lines >= r.want && r.done != nil {
		close(r.done)
		r.done = nil
	}
	return len(p), nil
}

// benchLog serves the same events again and again, as a log does that decodes into a batch.
type benchLog struct {
	next, last audit.Number
	raw        []byte
	at         time.Time
}

func (l *benchLog) Read(ctx context.Context, batch *audit.Events) error {
	if l.next > l.last {
		<-ctx.Done()
		return ctx.Err()
	}
	for n := 0; n < 1000 && l.next <= l.last; n++ {
		ev := batch.Add()
		ev.Number, ev.Time, ev.Received = l.next, l.at, l.at
		ev.Source, ev.Product, ev.Class, ev.Severity = "portal", "netop", "USER/LOGIN", audit.SeverityNotice
		ev.Raw = batch.Copy(l.raw)
		l.next++
	}
	return nil
}
func (l *benchLog) Commit(audit.Number, []byte) error { return nil }
func (l *benchLog) Rewind(audit.Number) error         { return errors.New("not in this benchmark") }

// BenchmarkForwardSyslogTCP measures events of 300 bytes on the wire, from the log through a Forwarder and the syslog
// kind to a receiver that counts them.
func BenchmarkForwardSyslogTCP(b *testing.B) {
	for _, framing := range []string{"newline", "octet_counting"} {
		b.Run(framing, func(b *testing.B) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer func() { _ = listener.Close() }()
			done := make(chan struct{})
			go func() {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				defer func() { _ = conn.Close() }()
				_, _ = io.CopyBuffer(struct{ io.Writer }{&countingReader{want: b.N, done: done}},
					struct{ io.Reader }{conn}, make([]byte, 256<<10))
			}()
			s := forward.Kinds()[0].Settings().(*forward.SyslogSettings)
			var url config.URL
			require.NoError(b, url.UnmarshalText([]byte("tcp://"+listener.Addr().String())))
			s.Endpoints, s.Framing = []config.URL{url}, framing
			sink, err := forward.Kinds()[0].New(forward.Env{Host: "prg-01", Encoder: forwardtest.RawEncoder{}}, s)
			require.NoError(b, err)
			defer func() { _ = sink.Close() }()
			raw := bytes.Repeat([]byte("x"), 164) // 300 bytes with the header
			if framing == "octet_counting" {
				raw[163] = '\n' // for the counting receiver
			}
			log := &benchLog{next: 1, last: audit.Number(b.N), raw: raw, at: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)}
			f := forward.New("soc", log, sink, forward.Options{})
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			b.ReportAllocs()
			b.ResetTimer()
			go func() { ended <- f.Run(ctx) }()
			<-done
			b.StopTimer()
			cancel()
			require.NoError(b, <-ended)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.ReportMetric(float64(f.Stats().Sink.Bytes)/float64(b.N), "bytes/event")
		})
	}
}
