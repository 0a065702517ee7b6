package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

func listenOn(t *testing.T, change func(*SyslogSettings), urls ...string) *Syslog {
	t.Helper()
	settings := NewSyslogSettings()
	for _, text := range urls {
		var u config.URL
		require.NoError(t, u.UnmarshalText([]byte(text)))
		settings.Listen = append(settings.Listen, u)
	}
	if change != nil {
		change(settings)
	}
	c, err := NewSyslog(Env{ID: "net", Product: "sofie"}, settings)
	require.NoError(t, err)
	return c
}

func dial(t *testing.T, c *Syslog, i int) net.Conn {
	t.Helper()
	eventually(t, func() bool { return c.Addrs()[i] != nil }, "listening")
	addr := c.Addrs()[i]
	conn, err := net.Dial(addr.Network(), addr.String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	_, err := io.WriteString(conn, text)
	require.NoError(t, err)
}

func TestSyslogListeners(t *testing.T) {
	for _, c := range []struct {
		url  string
		peer string
	}{
		{"udp://127.0.0.1:0", "127.0.0.1"},
		{"tcp://127.0.0.1:0", "127.0.0.1"},
		{"udp://[::1]:0", "::1"},
		{"tcp://[::1]:0", "::1"},
	} {
		t.Run(c.url, func(t *testing.T) {
			l := listenOn(t, nil, c.url)
			s := &store{}
			stop := run(t, l, s.put)
			conn := dial(t, l, 0)
			send(t, conn, "<34>one\n")
			s.wait(t, "<34>one")
			send(t, conn, "<34>two \x00 \xff\r\n")
			s.wait(t, "<34>one", "<34>two \x00 \xff")
			send(t, conn, "\n")
			eventually(t, func() bool { return l.Inputs()[0].Skipped == 1 }, "empty messages are counted")
			rec := s.all()[0]
			peer := netip.MustParseAddr(c.peer)
			want := got{Raw: "<34>one", Product: "sofie", Peer: peer, Path: c.url, Format: audit.FormatSyslog}
			require.Equal(t, want, rec)
			require.Equal(t, audit.MarkBinary, s.all()[1].Marks)
			stop()
			in := l.Inputs()[0]
			require.Equal(t, uint64(2), in.Records)
			require.Equal(t, uint64(18), in.Bytes)
			require.Nil(t, l.Addrs()[0])
		})
	}
}

func TestIPv4SenderOnADualStackListener(t *testing.T) {
	l := listenOn(t, nil, "udp://[::]:0", "tcp://[::]:0")
	s := &store{}
	run(t, l, s.put)
	for i, network := range []string{"udp", "tcp"} {
		eventually(t, func() bool { return l.Addrs()[i] != nil }, "listening")
		_, port, err := net.SplitHostPort(l.Addrs()[i].String())
		require.NoError(t, err)
		conn, err := net.Dial(network, net.JoinHostPort("127.0.0.1", port))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		send(t, conn, "<34>x\n")
		eventually(t, func() bool { return s.count() == i+1 }, "received")
		require.Equal(t, netip.MustParseAddr("127.0.0.1"), s.all()[i].Peer)
	}
}

func TestTCPStreamInAllSizes(t *testing.T) {
	l := listenOn(t, nil, "tcp://127.0.0.1:0")
	s := &store{}
	stop := run(t, l, s.put)
	var want []string
	var stream bytes.Buffer
	for i := range 30 {
		message := fmt.Sprintf("<34>%d %s", i, strings.Repeat("x", i*i*i*10)) // up to 240 KiB
		if i%3 == 0 {
			fmt.Fprintf(&stream, "%d %s", len(message), message)
		} else {
			stream.WriteString(message + "\n")
		}
		want = append(want, message)
	}
	big := "<34>" + strings.Repeat("y", 1<<20-4)
	fmt.Fprintf(&stream, "%d %s", len(big), big)
	want = append(want, big)
	conn := dial(t, l, 0)
	send(t, conn, stream.String()[:10])
	send(t, conn, stream.String()[10:70_000])
	send(t, conn, stream.String()[70_000:])
	s.wait(t, want...)
	require.NoError(t, conn.Close())
	eventually(t, func() bool { return l.Inputs()[0].Connections == 0 }, "closed")
	used, _ := l.buffers.state()
	require.Zero(t, used, "all buffers were given back")
	stop()
}

func TestLineWithoutEndKeepsMemoryFlat(t *testing.T) {
	l := listenOn(t, func(s *SyslogSettings) { s.MaxMessage = 64 * config.KiB }, "tcp://127.0.0.1:0")
	s := &store{}
	stop := run(t, l, s.put)
	conn := dial(t, l, 0)
	block := strings.Repeat("x", 1<<20)
	for range 16 {
		send(t, conn, block)
	}
	send(t, conn, "\n<34>after\n")
	eventually(t, func() bool { return s.count() == 257 }, "parts")
	all := s.all()
	require.Equal(t, "<34>after", all[256].Raw)
	for i, r := range all[:256] {
		require.Equal(t, i+1, r.Part)
		require.Len(t, r.Raw, 64<<10)
	}
	used, _ := l.buffers.state()
	require.LessOrEqual(t, used, int64(busyBytes))
	require.Equal(t, uint64(256), l.Inputs()[0].Parts)
	stop()
}

func TestConnectionWithoutSenseIsClosed(t *testing.T) {
	l := listenOn(t, nil, "tcp://127.0.0.1:0")
	s := &store{}
	run(t, l, s.put)
	conn := dial(t, l, 0)
	send(t, conn, "99999999999999999999 <34>x\n<34>y\n")
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err, "closed")
	s.wait(t, "99999999999999999999 <34>x", "<34>y")
	require.Equal(t, uint64(1), l.Inputs()[0].FramingErrors)

	endless := dial(t, l, 0)
	_, err = io.WriteString(endless, strings.Repeat("1", 64)) // 256 MiB would be written until the connection is reset
	require.NoError(t, err)
	_, err = endless.Read(make([]byte, 1))
	require.Error(t, err, "closed")
	s.wait(t, "99999999999999999999 <34>x", "<34>y", strings.Repeat("1", 64))
}

func TestBackPressure(t *testing.T) {
	l := listenOn(t, nil, "tcp://127.0.0.1:0")
	s := &store{}
	full, space := make(chan struct{}), make(chan struct{})
	s.gate = func(_ context.Context, batch int) error {
		if batch == 1 {
			close(full)
			<-space
		}
		return nil
	}
	run(t, l, s.put)
	conn := dial(t, l, 0)
	line := "<34>" + strings.Repeat("x", 995) + "\n"
	send(t, conn, line)
	<-full
	const more = 64 << 10
	written := make(chan error, 1)
	go func() {
		_, err := io.WriteString(conn, strings.Repeat(line, more))
		written <- err
	}()
	// 64 MiB are more than the kernel keeps, so the sender has to wait.
	select {
	case err := <-written:
		require.Fail(t, "the sender was not held back", "write returned %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	require.Zero(t, s.count())
	close(space)
	require.NoError(t, <-written)
	eventually(t, func() bool { return s.count() == more+1 }, "nothing is lost")
	require.Less(t, s.batches, more/50, "batches are large")
}

func TestConnectionsOverTheLimit(t *testing.T) {
	l := listenOn(t, func(s *SyslogSettings) { s.MaxConnections = 1 }, "tcp://127.0.0.1:0")
	s := &store{}
	run(t, l, s.put)
	first := dial(t, l, 0)
	send(t, first, "<34>one\n")
	s.wait(t, "<34>one")
	second := dial(t, l, 0)
	_, err := second.Read(make([]byte, 1))
	require.Error(t, err)
	in := l.Inputs()[0]
	require.Equal(t, uint64(1), in.Refused)
	require.Equal(t, StateDegraded, in.State)
	require.Contains(t, in.Reason, "max_connections")
	require.NoError(t, first.Close())
	eventually(t, func() bool { return l.Inputs()[0].Connections == 0 }, "closed")
	send(t, dial(t, l, 0), "<34>two\n")
	s.wait(t, "<34>one", "<34>two")
	require.Equal(t, StateOK, l.Inputs()[0].State)
}

func TestIdleConnectionIsClosed(t *testing.T) {
	idle := config.Duration(20 * time.Millisecond)
	l := listenOn(t, func(s *SyslogSettings) { s.IdleTimeout = idle }, "tcp://127.0.0.1:0")
	s := &store{}
	run(t, l, s.put)
	conn := dial(t, l, 0)
	send(t, conn, "<34>half")
	_, err := conn.Read(make([]byte, 1))
	require.Error(t, err)
	s.wait(t, "<34>half")
	require.Equal(t, audit.MarkPartial, s.all()[0].Marks)
	require.Equal(t, uint64(1), l.Inputs()[0].Partials)
}

func TestWhatWasReadIsHandedOverAtTheEnd(t *testing.T) {
	for _, taken := range []bool{true, false} {
		t.Run(fmt.Sprint(taken), func(t *testing.T) {
			l := listenOn(t, nil, "tcp://127.0.0.1:0", "udp://127.0.0.1:0")
			s := &store{}
			waiting := make(chan struct{}, 2)
			s.gate = func(ctx context.Context, batch int) error {
				if batch <= 2 { // no space until the end
					waiting <- struct{}{}
					<-ctx.Done()
					return ctx.Err()
				}
				if !taken {
					return errors.New("disk is full")
				}
				return ctx.Err()
			}
			stop := run(t, l, s.put)
			send(t, dial(t, l, 0), "<34>tcp\n")
			send(t, dial(t, l, 1), "<34>udp")
			<-waiting
			<-waiting
			stop()
			if taken {
				require.ElementsMatch(t, []string{"<34>tcp", "<34>udp"}, s.raws())
			}
			for _, in := range l.Inputs() {
				require.Equal(t, taken, in.Records == 1)
				require.Equal(t, !taken, in.Dropped == 1, "what is lost is counted")
			}
		})
	}
}

func TestBatchOfMessagesIsPutAgain(t *testing.T) {
	l := listenOn(t, nil, "udp://127.0.0.1:0")
	s := &store{}
	s.gate = func(_ context.Context, batch int) error {
		if batch == 1 {
			return errors.New("not now")
		}
		return nil
	}
	run(t, l, s.put)
	send(t, dial(t, l, 0), "<34>one")
	s.wait(t, "<34>one")
	require.Equal(t, 2, s.batches)
	require.Zero(t, l.Inputs()[0].Dropped)
}

func TestDatagramsThatTheKernelDropsAreCounted(t *testing.T) {
	l := listenOn(t, func(s *SyslogSettings) { s.ReceiveBuffer = 64 * config.KiB }, "udp://127.0.0.1:0")
	s := &store{}
	full, space := make(chan struct{}), make(chan struct{})
	s.gate = func(_ context.Context, batch int) error {
		if batch == 1 {
			close(full)
			<-space
		}
		return nil
	}
	stop := run(t, l, s.put)
	conn := dial(t, l, 0)
	send(t, conn, "<34>first")
	<-full
	const sent = 2000
	for i := range sent {
		send(t, conn, fmt.Sprintf("<34>%d %s", i, strings.Repeat("x", 1000)))
	}
	eventually(t, func() bool { return l.Inputs()[0].Dropped > 0 }, "drops are seen while put waits")
	close(space)
	dropped := func() int { return int(l.Inputs()[0].Dropped) }
	eventually(t, func() bool { return s.count()+dropped() == sent+1 }, "every datagram is a record or a drop")
	send(t, conn, "<34>last")
	eventually(t, func() bool { return s.count()+dropped() == sent+2 }, "it goes on")
	marked := 0
	for _, r := range s.all() {
		if r.Marks.Has(audit.MarkPossibleLoss) {
			marked++
		}
	}
	require.Positive(t, marked)
	stop()
}

func TestListenerThatCannotOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = taken.Close() }()
	l := listenOn(t, nil, "tcp://"+taken.Addr().String(), "udp://127.0.0.1:0")
	s := &store{}
	run(t, l, s.put)
	send(t, dial(t, l, 1), "<34>one")
	s.wait(t, "<34>one")
	eventually(t, func() bool { return l.Inputs()[0].State == StateDegraded }, "shown")
	require.Contains(t, l.Inputs()[0].Reason, "another program listens there")
	require.Equal(t, StateOK, l.Inputs()[1].State)
}

func TestListenersReturnAtOnceInASingleRun(t *testing.T) {
	settings := NewSyslogSettings()
	settings.Listen = []config.URL{{Scheme: "udp", Host: "127.0.0.1"}}
	c, err := NewSyslog(Env{Once: true}, settings)
	require.NoError(t, err)
	require.NoError(t, c.Run(t.Context(), nil))
}

func BenchmarkSyslogTCP(b *testing.B) {
	settings := NewSyslogSettings()
	settings.Listen = []config.URL{{Scheme: "tcp", Host: "127.0.0.1"}}
	c, err := NewSyslog(Env{ID: "net"}, settings)
	require.NoError(b, err)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	records := make(chan int, 1024)
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(ctx, func(_ context.Context, batch *audit.Records) (audit.Number, error) {
			records <- len(batch.List)
			return 0, nil
		})
	}()
	require.Eventually(b, func() bool { return c.Addrs()[0] != nil }, 5*time.Second, time.Millisecond)
	conn, err := net.Dial("tcp", c.Addrs()[0].String())
	require.NoError(b, err)
	defer func() { _ = conn.Close() }()
	const lines = 1000
	line := "<34>Nov  5 09:12:33 host1 sshd[4711]: Accepted publickey for root from 192.0.2.80 port 50222\n"
	block := bytes.Repeat([]byte(line), lines)
	b.ReportAllocs()
	go func() {
		for {
			if _, err := conn.Write(block); err != nil {
				return
			}
		}
	}()
	for b.Loop() {
		for n := 0; n < lines; {
			n += <-records
		}
	}
	b.ReportMetric(lines*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	go func() {
		for range records {
		}
	}()
	cancel()
	require.NoError(b, <-ended)
	close(records)
}
