package collect

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/config"
)

// More halves of long messages than there is room for: the connections wait for each other and none is closed.
func TestManyLongMessagesAtATime(t *testing.T) {
	l := listenOn(t, nil, "tcp://127.0.0.1:0")
	l.buffers.limit = 1 << 20
	s := &store{}
	stop := run(t, l, s.put)
	const senders = 12
	written := make(chan error, senders)
	begun := make(chan struct{}, senders)
	goOn := make(chan struct{})
	var want []string
	for i := range senders {
		message := fmt.Sprintf("<34>%d ", i) + strings.Repeat("x", 900<<10)
		want = append(want, message)
		conn := dial(t, l, 0)
		go func() {
			text := fmt.Sprintf("%d %s", len(message), message)
			_, err := io.WriteString(conn, text[:10<<10]) // fits into what the kernel keeps
			begun <- struct{}{}
			<-goOn
			if err == nil {
				_, err = io.WriteString(conn, text[10<<10:])
			}
			written <- err
		}()
	}
	for range senders {
		<-begun
	}
	close(goOn)
	for range senders {
		require.NoError(t, <-written)
	}
	eventually(t, func() bool { return s.count() == senders }, "all messages")
	require.ElementsMatch(t, want, s.raws())
	in := l.Inputs()[0]
	require.Zero(t, in.Refused)
	require.Equal(t, StateOK, in.State)
	stop()
	used, waiting := l.buffers.state()
	require.Zero(t, used)
	require.Zero(t, waiting)
}

func TestSilentConnectionGivesItsBufferBack(t *testing.T) {
	l := listenOn(t, nil, "tcp://127.0.0.1:0")
	s := &store{}
	stop := run(t, l, s.put)
	conn := dial(t, l, 0)
	message := "<34>" + strings.Repeat("x", 300<<10)
	send(t, conn, message+"\n"+message+"\n<34>half")
	s.wait(t, message, message)
	eventually(t, func() bool { used, _ := l.buffers.state(); return used == 0 }, "given back")
	send(t, conn, " and half\n")
	s.wait(t, message, message, "<34>half and half")
	stop()
}

func TestConnectionThatGetsNoRoomIsClosedWithAReason(t *testing.T) {
	var out bytes.Buffer
	l := listenOn(t, func(s *SyslogSettings) { s.IdleTimeout = config.Duration(10 * time.Millisecond) }, "tcp://[::1]:0")
	l.log = slog.New(slog.NewTextHandler(&out, nil))
	l.buffers.limit = 0
	l.buffers.overdraw = &connection{}
	k := &connection{Syslog: l, l: l.listeners[0], buf: make([]byte, 10)}
	require.ErrorIs(t, k.grow(t.Context(), 20), errNoRoom)
	require.Len(t, k.buf, 10)
	in := l.Inputs()[0]
	require.Equal(t, uint64(1), in.Refused)
	require.Equal(t, StateDegraded, in.State)
	require.Contains(t, in.Reason, "too many long messages")
	require.Contains(t, out.String(), "connection closed: too many long messages")
}

func TestRoomForBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &buffers{limit: 10}
		first, second := &connection{}, &connection{}
		require.True(t, b.take(10))
		require.False(t, b.take(1))
		require.NoError(t, b.wait(t.Context(), first, 5, time.Second), "one may go beyond the limit")
		require.NoError(t, b.wait(t.Context(), first, 5, time.Second), "and once more")
		began := time.Now()
		require.ErrorIs(t, b.wait(t.Context(), second, 5, time.Minute), errNoRoom)
		require.Equal(t, time.Minute, time.Since(began))

		waited := make(chan error)
		go func() { waited <- b.wait(t.Context(), second, 5, time.Minute) }()
		synctest.Wait()
		_, waiting := b.state()
		require.Equal(t, 1, waiting)
		require.True(t, b.take(-5))
		synctest.Wait()
		require.Equal(t, first, b.overdraw, "still beyond the limit")
		require.True(t, b.take(-5))
		require.NoError(t, <-waited)
		used, waiting := b.state()
		require.Equal(t, int64(15), used)
		require.Zero(t, waiting)

		ctx, cancel := context.WithCancel(t.Context())
		go func() { waited <- b.wait(ctx, first, 5, time.Minute) }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-waited, context.Canceled)
		require.True(t, b.take(-15))
		require.True(t, b.take(10))
	})
}
