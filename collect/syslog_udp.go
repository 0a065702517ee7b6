package collect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

const (
	datagramBytes = 64 << 10             // more than a UDP message can have
	gatherTime    = 2 * time.Millisecond // how long a batch waits for more messages
	drainBytes    = 64 << 20             // taken at the end of what the kernel has kept
	dropInterval  = time.Second          // between two looks at what the kernel dropped
)

// serveUDP receives messages until ctx is done or the socket fails. While a batch is handed over the kernel keeps what
// comes, and drops what it has no room for; that is counted, and the next message is marked.
func (c *Syslog) serveUDP(ctx context.Context, l *listener, conn *net.UDPConn, put PutFunc) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	room, err := setReceiveBuffer(conn, int(c.settings.ReceiveBuffer))
	if err != nil {
		return err
	}
	socket, err := socketInode(conn)
	if err != nil {
		return err
	}
	l.set(conn.LocalAddr(), "")
	c.log.Info("listening", "listener", l.url.String(), "address", conn.LocalAddr().String(), "receive_buffer", room)

	r := datagrams{Syslog: c, l: l, conn: conn, socket: socket, buf: make([]byte, datagramBytes)}
	batch := audit.GetRecords(c.env.ID)
	defer batch.Release()
	counting := make(chan struct{})
	defer func() { <-counting }()
	done, cancel := context.WithCancel(context.WithoutCancel(ctx)) // counted until the last message was taken
	defer cancel()
	go func() {
		defer close(counting)
		r.countDrops(done)
	}()
	for {
		err := r.gather(ctx, batch)
		c.deliver(ctx, l, put, batch)
		switch {
		case ctx.Err() != nil:
			return r.drain(ctx, batch, put)
		case err != nil && !errors.Is(err, syscall.ECONNREFUSED): // an ICMP message about something that we never sent
			return err
		}
	}
}

// datagrams reads one UDP socket.
type datagrams struct {
	*Syslog
	l      *listener
	conn   *net.UDPConn
	socket string // its inode number
	buf    []byte
	marked uint64 // how many of the drops a message told of
}

// gather waits for a message and takes those that come right after it, too.
func (r *datagrams) gather(ctx context.Context, batch *audit.Records) error {
	var deadline time.Time
	for len(batch.List) < batchRecords && batch.Bytes() < batchBytes {
		if err := r.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		if ctx.Err() != nil { // the deadline that ended the waiting may have been overwritten
			return nil
		}
		more, err := r.receive(batch, deadline.IsZero())
		if err != nil || !more {
			return err
		}
		deadline = time.Now().Add(gatherTime)
	}
	return nil
}

// receive reads messages for as long as the deadline lasts; only one if the wait was for the first.
func (r *datagrams) receive(batch *audit.Records, first bool) (more bool, err error) {
	for len(batch.List) < batchRecords && batch.Bytes() < batchBytes {
		n, peer, err := r.conn.ReadFromUDPAddrPort(r.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("receive: %w", err)
		}
		r.take(batch, n, peer.Addr().Unmap())
		if first {
			return true, nil
		}
	}
	return true, nil
}

// take appends the message that was read into the buffer.
func (r *datagrams) take(batch *audit.Records, n int, peer netip.Addr) {
	raw := bytes.TrimRight(r.buf[:n], "\r\n\x00")
	if len(raw) == 0 {
		r.l.skipped.Add(1)
		return
	}
	rec := r.add(batch, r.l, frame{raw: raw})
	rec.Peer, rec.Received = peer, time.Now()
	if dropped := r.l.dropped.Load(); dropped > r.marked {
		rec.Marks |= audit.MarkPossibleLoss
		r.marked = dropped
	}
}

// drain takes at the end what the kernel has kept, without waiting for more, at most drainBytes and for at most
// stopTime. Once something was not taken the rest is only counted as dropped.
func (r *datagrams) drain(ctx context.Context, batch *audit.Records, put PutFunc) error {
	raw, err := r.conn.SyscallConn()
	if err != nil {
		return err
	}
	end := time.Now().Add(stopTime)
	taken, total, lost := true, 0, uint64(0)
	more := true
	for more && time.Now().Before(end) {
		n, peer, err := r.receiveNow(raw)
		if more = err == nil; more {
			total += n
			if taken = taken && total <= drainBytes; taken {
				r.take(batch, n, peer)
			} else {
				lost++
			}
		}
		if !more || !taken || len(batch.List) >= batchRecords || batch.Bytes() >= batchBytes {
			taken = r.deliver(ctx, r.l, put, batch) && taken
		}
	}
	r.deliver(ctx, r.l, put, batch)
	if more {
		r.log.Error("messages still come at the end, leaving them", "listener", r.l.url.String())
	}
	if lost > 0 {
		r.l.dropped.Add(lost)
		r.log.Error("messages in the kernel's buffer lost at the end", "listener", r.l.url.String(), "messages", lost)
	}
	return nil
}

// receiveNow reads a message that is there already. An error says that there is none. It is no call of the connection
// because the deadline that ended the waiting is set on that.
func (r *datagrams) receiveNow(raw syscall.RawConn) (n int, peer netip.Addr, err error) {
	var from syscall.Sockaddr
	var failed error
	err = raw.Control(func(fd uintptr) {
		for failed = syscall.EINTR; errors.Is(failed, syscall.EINTR); {
			n, from, failed = syscall.Recvfrom(int(fd), r.buf, syscall.MSG_DONTWAIT)
		}
	})
	switch a := from.(type) {
	case *syscall.SockaddrInet4:
		peer = netip.AddrFrom4(a.Addr)
	case *syscall.SockaddrInet6:
		peer = netip.AddrFrom16(a.Addr).Unmap()
	}
	return n, peer, errors.Join(err, failed)
}

// countDrops notes once a second how many messages the kernel dropped, also while a batch is handed over.
func (r *datagrams) countDrops(ctx context.Context) {
	tick := time.NewTicker(dropInterval)
	defer tick.Stop()
	var before uint64
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if now, ok := kernelDrops(r.socket); ok && now > before {
			r.l.dropped.Add(now - before)
			r.log.Warn("the kernel dropped messages: raise receive_buffer",
				"listener", r.l.url.String(), "messages", now-before)
			before = now
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// kernelDrops returns the drops column of the socket's line in /proc/net/udp and udp6 (proc_net_udp.rst of the Linux
// documentation: the tenth column is the inode, the last one the drops).
func kernelDrops(socket string) (drops uint64, ok bool) {
	for _, path := range []string{"/proc/self/net/udp", "/proc/self/net/udp6"} {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(file)
		for lines.Scan() {
			if column := strings.Fields(lines.Text()); len(column) >= 13 && column[9] == socket {
				drops, err = strconv.ParseUint(column[len(column)-1], 10, 64)
				ok = err == nil
			}
		}
		_ = file.Close() // it was only read
		if ok {
			break
		}
	}
	return drops, ok
}

// setReceiveBuffer asks for room and returns what the kernel gives, which it counts double for its own needs
// (socket(7), SO_RCVBUF). Only a process with CAP_NET_ADMIN gets more than net.core.rmem_max.
func setReceiveBuffer(conn *net.UDPConn, size int) (room int, err error) {
	if err := conn.SetReadBuffer(size); err != nil {
		return 0, fmt.Errorf("set receive buffer: %w", err)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		const level, option = syscall.SOL_SOCKET, syscall.SO_RCVBUF
		if room, failed = syscall.GetsockoptInt(int(fd), level, option); failed == nil && room < 2*size {
			// Without the capability this changes nothing, and the smaller buffer has to do: the size is logged, and
			// drops are counted.
			_ = syscall.SetsockoptInt(int(fd), level, syscall.SO_RCVBUFFORCE, size)
			room, failed = syscall.GetsockoptInt(int(fd), level, option)
		}
	})
	return room, errors.Join(err, failed)
}

// socketInode returns the number by which /proc/net knows the socket.
func socketInode(conn *net.UDPConn) (string, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return "", err
	}
	var st syscall.Stat_t
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = syscall.Fstat(int(fd), &st) }); err != nil {
		return "", err
	}
	return strconv.FormatUint(st.Ino, 10), failed
}
