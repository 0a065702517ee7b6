package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

// aboveSocketBuffers is more than the system takes for a receiver that does not read: tcp_wmem ends at 4 or 6 MiB.
const aboveSocketBuffers = 16 << 20

func syslogTo(t *testing.T, set func(s *forward.SyslogSettings), urls ...config.URL) forward.Sink {
	t.Helper()
	return newSink(t, "syslog", forward.Env{Host: "prg-01.example.org"}, func(settings any) {
		s := settings.(*forward.SyslogSettings)
		s.Endpoints = urls
		s.Timeout = config.Duration(2 * time.Second)
		if set != nil {
			set(s)
		}
	})
}

// bigBatch returns a log whose first batch is more than the socket buffers take.
func bigBatch() *forwardtest.Log {
	log := forwardtest.NewLog()
	log.BatchEvents = aboveSocketBuffers / (64 << 10)
	log.AddRaw(raws(1, log.BatchEvents+10, strings.Repeat("x", 64<<10))...)
	return log
}

func TestAResetInTheMiddleSendsTheWholeBatchAgain(t *testing.T) {
	t.Parallel()
	for _, end := range []forwardtest.End{forwardtest.Reset, forwardtest.Close} {
		receiver := forwardtest.ListenTCP(t, "", forwardtest.Turn{Bytes: 300_000, End: end})
		log := bigBatch()
		d := deliver(t, log, syslogTo(t, nil, endpoint(t, "tcp", receiver.Addr)))
		total := log.BatchEvents + 10
		d.awaitCommit(t, total)
		d.stop()
		eventually(t, "arrival", func() bool { return len(receiver.Messages()) >= total })
		require.Equal(t, upTo(total), numbersIn(t, receiver.Messages()), "on the second connection all come in order")
		s := d.Stats()
		require.EqualValues(t, total, s.Delivered)
		require.EqualValues(t, log.BatchEvents, s.Resent)
		require.EqualValues(t, 1, s.Retries)
	}
}

func TestAReceiverThatResetsAfterTakingAllGetsTheNextOnANewConnection(t *testing.T) {
	receiver := forwardtest.ListenTCP(t, "",
		forwardtest.Turn{Messages: 50, End: forwardtest.Reset}, forwardtest.Turn{Messages: 50, End: forwardtest.Close})
	log := forwardtest.NewLog()
	d := deliver(t, log, syslogTo(t, nil, endpoint(t, "tcp", receiver.Addr)))
	for i := range 3 {
		log.AddRaw(raws(50*i+1, 50*i+50, "x")...)
		d.awaitCommit(t, 50*i+50)
		eventually(t, "noticing", func() bool { return i == 2 || d.Stats().Sink.Closed == uint64(i+1) })
	}
	d.stop()
	eventually(t, "arrival", func() bool { return len(receiver.Messages()) >= 150 })
	require.Equal(t, upTo(150), numbersIn(t, receiver.Messages()))
	require.Equal(t, forward.Totals{Delivered: 150}, d.Stats().Totals, "nothing was written into a closed connection")
	require.EqualValues(t, 3, d.Stats().Sink.Connects)
}

func TestAReceiverThatNeverReadsIsGivenUpForTheNext(t *testing.T) {
	t.Parallel()
	deaf := forwardtest.ListenTCP(t, "", forwardtest.Turn{Deaf: true}, forwardtest.Turn{Deaf: true})
	good := forwardtest.ListenTCP(t, "")
	log := bigBatch()
	sink := syslogTo(t, func(s *forward.SyslogSettings) { s.Timeout = config.Duration(150 * time.Millisecond) },
		endpoint(t, "tcp", deaf.Addr), endpoint(t, "tcp", good.Addr))
	d := deliver(t, log, sink)
	total := log.BatchEvents + 10
	d.awaitCommit(t, total)
	d.stop()
	eventually(t, "arrival", func() bool { return len(good.Messages()) >= total })
	require.Equal(t, upTo(total), numbersIn(t, good.Messages()))
	require.Contains(t, d.Stats().LastError, "the receiver took nothing for 150ms")
	require.Equal(t, 1, deaf.Accepted())
}

func TestASlowReceiverIsNotADeadOne(t *testing.T) {
	t.Parallel()
	receiver := forwardtest.ListenTCP(t, "", forwardtest.Turn{Slow: true})
	log := forwardtest.NewLog()
	log.AddRaw(raws(1, 40, strings.Repeat("x", 100<<10))...) // about a second of reading
	sink := syslogTo(t, func(s *forward.SyslogSettings) { s.Timeout = config.Duration(200 * time.Millisecond) },
		endpoint(t, "tcp", receiver.Addr))
	d := deliver(t, log, sink)
	d.awaitCommit(t, 40)
	eventually(t, "arrival", func() bool { return len(receiver.Messages()) == 40 })
	d.stop()
	require.Equal(t, forward.Totals{Delivered: 40}, d.Stats().Totals)
	require.Equal(t, 1, receiver.Accepted())
}

func TestEndpointsAreUsedInTheirOrder(t *testing.T) {
	second, third := forwardtest.ListenTCP(t, ""), forwardtest.ListenTCP(t, "")
	log := forwardtest.NewLog()
	sink := syslogTo(t, nil,
		endpoint(t, "tcp", freeAddr(t)), endpoint(t, "tcp", second.Addr), endpoint(t, "tcp", third.Addr))
	d := deliver(t, log, sink)
	log.AddRaw(raws(1, 10, "x")...)
	d.awaitCommit(t, 10)
	eventually(t, "arrival", func() bool { return len(second.Messages()) == 10 })
	second.Stop()
	eventually(t, "noticing", func() bool { return d.Stats().Sink.Closed == 1 })
	log.AddRaw(raws(11, 20, "x")...)
	d.awaitCommit(t, 20)
	eventually(t, "arrival", func() bool { return len(third.Messages()) == 10 })
	d.stop()
	require.Equal(t, forward.Totals{Delivered: 20}, d.Stats().Totals, "failing over needs no retry")
}

func oneEvent(raw string) *audit.Events {
	batch := audit.GetEvents()
	*batch.Add() = forwardtest.Event([]byte(raw))
	batch.List[0].Number = 7
	return batch
}

func TestUnreachableReceiversAreAnErrorThatSentNothing(t *testing.T) {
	sink := syslogTo(t, nil, endpoint(t, "tcp", freeAddr(t)), endpoint(t, "tcp", freeAddr(t)))
	batch := oneEvent("x")
	defer batch.Release()
	_, err := sink.Send(t.Context(), batch)
	var unsent *forward.UnsentError
	require.ErrorAs(t, err, &unsent)
	require.Equal(t, 2, strings.Count(err.Error(), "connect to tcp://127.0.0.1:"), err)
}

func TestADatagramToAPortThatNobodyListensOnIsAnError(t *testing.T) {
	sink := syslogTo(t, nil, endpoint(t, "udp", freeAddr(t)))
	batch := oneEvent("the only one")
	defer batch.Release()
	for range 3 {
		_, err := sink.Send(t.Context(), batch)
		require.ErrorContains(t, err, "connection refused")
	}
}

func TestSendEndsWhenItsContextDoes(t *testing.T) {
	t.Parallel()
	deaf := forwardtest.ListenTCP(t, "", forwardtest.Turn{Deaf: true})
	sink := syslogTo(t, func(s *forward.SyslogSettings) { s.Timeout = config.Duration(time.Hour) },
		endpoint(t, "tcp", deaf.Addr))
	batch := oneEvent(strings.Repeat("x", aboveSocketBuffers))
	defer batch.Release()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := sink.Send(ctx, batch)
		ended <- err
	}()
	eventually(t, "connection", func() bool { return deaf.Accepted() == 1 })
	select {
	case err := <-ended:
		t.Fatalf("Send returned before it could: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	cancel()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(5 * time.Second):
		t.Fatal("Send did not end")
	}
}

func TestLongMessagesAreCutAtTheEndOfACharacter(t *testing.T) {
	for _, framing := range []string{"newline", "octet_counting"} {
		receiver := forwardtest.ListenTCP(t, "")
		sink := syslogTo(t, func(s *forward.SyslogSettings) { s.MaxMessage, s.Framing = 1000, framing },
			endpoint(t, "tcp", receiver.Addr))
		for _, raw := range []string{strings.Repeat("€", 400), strings.Repeat("\xbf", 1200), "short"} {
			batch := oneEvent(raw)
			_, err := sink.Send(t.Context(), batch)
			require.NoError(t, err)
			batch.Release()
		}
		eventually(t, "arrival", func() bool { return len(receiver.Messages()) == 3 })
		got := receiver.Messages()
		require.InDelta(t, 999, len(got[0]), 1)
		require.True(t, strings.HasSuffix(got[0], "€"))
		require.Len(t, got[1], 1000)
		require.True(t, strings.HasSuffix(got[2], "] short"))
		require.EqualValues(t, 2, sink.(forward.Counter).Counts().Cut)
	}
}

func TestSyslogSettingsThatCannotWork(t *testing.T) {
	for _, c := range []struct {
		key string
		set func(s *forward.SyslogSettings)
	}{
		{"app_name", func(s *forward.SyslogSettings) { s.AppName = "audit relay" }},
		{"host", func(s *forward.SyslogSettings) { s.Host = "prg\n01" }},
		{"tag", func(s *forward.SyslogSettings) { s.Tag = "relay:" }},
		{"structured_data_id", func(s *forward.SyslogSettings) { s.StructuredDataID = "auditrelay" }},
		{"structured_data_id", func(s *forward.SyslogSettings) { s.StructuredDataID = `a"b@1` }},
		{"max_message", func(s *forward.SyslogSettings) { s.MaxMessage = 100 }},
		{"endpoints[0]", func(s *forward.SyslogSettings) { s.Endpoints = []config.URL{{Scheme: "tcp", Host: "h"}} }},
	} {
		s := forward.Kinds()[0].Settings().(*forward.SyslogSettings)
		require.Empty(t, s.Validate())
		c.set(s)
		invalid := s.Validate()
		require.Len(t, invalid, 1)
		require.Equal(t, c.key, invalid[0].Key)
	}
}

// discardTCP accepts connections and throws away what comes.
func discardTCP(tb testing.TB) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				buf := make([]byte, 256<<10)
				for {
					if _, err := conn.Read(buf); err != nil {
						return
					}
				}
			}()
		}
	}()
	tb.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// discardUDP takes datagrams and throws them away.
func discardUDP(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 64<<10)
		for {
			if _, _, err := conn.ReadFromUDPAddrPort(buf); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-done
	})
	return conn.LocalAddr().String()
}

func TestSendingAllocatesNothingPerEvent(t *testing.T) {
	for _, c := range []struct{ scheme, envelope, framing string }{
		{"tcp", "rfc5424", "newline"},
		{"tcp", "rfc3164", "newline"},
		{"tcp", "rfc5424", "octet_counting"},
		{"tcp", "none", "newline"},
		{"udp", "rfc5424", "auto"},
	} {
		addr := discardTCP(t)
		if c.scheme == "udp" {
			addr = discardUDP(t)
		}
		env := forward.Env{Host: "prg-01", Encoder: forwardtest.RawEncoder{}}
		s := forward.Kinds()[0].Settings().(*forward.SyslogSettings)
		s.Endpoints, s.Envelope, s.Framing = []config.URL{endpoint(t, c.scheme, addr)}, c.envelope, c.framing
		sink, err := forward.Kinds()[0].New(env, s)
		require.NoError(t, err)
		batch := audit.GetEvents()
		for i := range 2000 {
			*batch.Add() = forwardtest.Event(bytes.Repeat([]byte("x"), 200))
			batch.List[i].Time = batch.List[i].Time.Add(time.Duration(i) * 100 * time.Millisecond)
		}
		allocs := testing.AllocsPerRun(5, func() { _, err = sink.Send(t.Context(), batch) })
		require.NoError(t, err)
		require.Less(t, allocs, 20.0, "%+v", c)
		require.NoError(t, sink.Close())
		batch.Release()
	}
}

func ExampleKinds() {
	for _, kind := range forward.Kinds() {
		fmt.Println(kind.Name)
	}
	// Output:
	// syslog
	// file
}
