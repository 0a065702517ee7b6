package forwardtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// End says how a receiver ends a connection.
type End uint8

// The ends.
const (
	Stay  End = iota // not at all
	Close            // in order, with FIN
	Reset            // with RST, throwing away what was not read
)

// Turn is what a TCP receiver does with one connection.
type Turn struct {
	Messages int  // how many messages it reads before it ends the connection; ignored with Stay
	Bytes    int  // if set, it reads so many bytes instead and ends the connection in the middle of a message
	End      End  // how it ends the connection
	Deaf     bool // it never reads
	Slow     bool // it reads a little every few milliseconds
}

// smallBuffer makes the system take little that the receiver has not read: 4 KiB are asked for.
const smallBuffer = 4 << 10

// TCP is a syslog receiver on 127.0.0.1. It takes both framings of RFC 6587, told apart by the first byte of a
// message.
type TCP struct {
	Addr string

	listener net.Listener
	wg       sync.WaitGroup

	mu       sync.Mutex
	turns    []Turn
	conns    map[net.Conn]bool
	messages []string
	rests    []string
	accepted int
	closed   bool
}

// ListenTCP starts a receiver at addr, "" for any port, which ends with the test. The n-th connection gets the n-th
// turn, and all that come after are read to their end.
func ListenTCP(tb testing.TB, addr string, turns ...Turn) *TCP {
	tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	control := func(_, _ string, raw syscall.RawConn) error {
		if !slices.ContainsFunc(turns, func(t Turn) bool { return t.Deaf || t.Slow || t.Bytes > 0 }) {
			return nil
		}
		var err error
		ctlErr := raw.Control(func(fd uintptr) {
			err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, smallBuffer)
		})
		return errors.Join(ctlErr, err)
	}
	config := net.ListenConfig{Control: control}
	listener, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	r := &TCP{Addr: listener.Addr().String(), listener: listener, turns: turns, conns: map[net.Conn]bool{}}
	r.wg.Go(r.accept)
	tb.Cleanup(r.Stop)
	return r
}

// Stop closes the listener and all connections and waits until all has ended. It may be called twice.
func (r *TCP) Stop() {
	_ = r.listener.Close()
	r.mu.Lock()
	r.closed = true
	for conn := range r.conns {
		_ = conn.Close()
	}
	r.mu.Unlock()
	r.wg.Wait()
}

// Messages returns the messages that came, in their order, without framing.
func (r *TCP) Messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

// Rests returns the unfinished messages with which connections ended.
func (r *TCP) Rests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.rests)
}

// Accepted returns how many connections there were.
func (r *TCP) Accepted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

func (r *TCP) accept() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		var turn Turn
		if len(r.turns) > 0 {
			turn, r.turns = r.turns[0], r.turns[1:]
		}
		r.accepted++
		if r.closed {
			_ = conn.Close()
		}
		r.conns[conn] = true
		r.mu.Unlock()
		r.wg.Go(func() { r.serve(conn, turn) })
	}
}

func (r *TCP) serve(conn net.Conn, turn Turn) {
	if turn.Deaf {
		return // Stop closes it
	}
	var in io.Reader = conn
	if turn.Slow {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		in = slowReader{conn, ticker.C}
	}
	if turn.Bytes > 0 {
		_, _ = io.CopyN(io.Discard, in, int64(turn.Bytes))
	} else {
		r.read(bufio.NewReaderSize(in, 64<<10), turn)
	}
	if turn.End == Reset {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	r.mu.Lock()
	delete(r.conns, conn)
	r.mu.Unlock()
	_ = conn.Close()
}

func (r *TCP) read(in *bufio.Reader, turn Turn) {
	for n := 0; turn.End == Stay || n < turn.Messages; n++ {
		message, err := ReadMessage(in)
		r.mu.Lock()
		if err == nil {
			r.messages = append(r.messages, message)
		} else if message != "" {
			r.rests = append(r.rests, message)
		}
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// slowReader reads at most 16 KiB for each tick.
type slowReader struct {
	r     io.Reader
	ticks <-chan time.Time
}

func (s slowReader) Read(p []byte) (int, error) {
	<-s.ticks
	return s.r.Read(p[:min(len(p), 16<<10)])
}

// ReadMessage reads one message of a syslog stream: "LEN SP MSG" if it begins with a digit, else a line (RFC 6587
// section 3.4). If the stream ends within the message, it returns what there was with an error.
func ReadMessage(in *bufio.Reader) (string, error) {
	first, err := in.Peek(1)
	if err != nil {
		return "", err
	}
	if first[0] < '1' || first[0] > '9' {
		line, err := in.ReadString('\n')
		if err != nil {
			return line, err
		}
		return line[:len(line)-1], nil
	}
	head, err := in.ReadString(' ')
	if err != nil {
		return head, err
	}
	size, err := strconv.Atoi(head[:len(head)-1])
	if err != nil {
		return head, fmt.Errorf("length of a frame: %w", err)
	}
	message := make([]byte, size)
	n, err := io.ReadFull(in, message)
	return string(message[:n]), err
}

// UDP is a syslog receiver on 127.0.0.1: one message a datagram.
type UDP struct {
	Addr string

	conn *net.UDPConn
	wg   sync.WaitGroup

	mu       sync.Mutex
	messages []string
}

// ListenUDP starts a receiver at addr, "" for any port, which ends with the test.
func ListenUDP(tb testing.TB, addr string) *UDP {
	tb.Helper()
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	at, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		tb.Fatalf("resolve: %v", err)
	}
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		tb.Fatalf("listen: %v", err)
	}
	_ = conn.SetReadBuffer(4 << 20) // the system gives what it allows; tests send little at once
	r := &UDP{Addr: conn.LocalAddr().String(), conn: conn}
	r.wg.Go(r.read)
	tb.Cleanup(r.Stop)
	return r
}

// Stop closes the socket and waits until all has ended. It may be called twice.
func (r *UDP) Stop() {
	_ = r.conn.Close()
	r.wg.Wait()
}

// Messages returns the datagrams that came.
func (r *UDP) Messages() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.messages)
}

func (r *UDP) read() {
	buf := make([]byte, 64<<10)
	for {
		n, _, err := r.conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		r.mu.Lock()
		r.messages = append(r.messages, string(buf[:n]))
		r.mu.Unlock()
	}
}
