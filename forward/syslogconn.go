package forward

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/auditrelay/auditrelay/config"
)

// watchedConn is a connection on which only we speak. On TCP a goroutine reads and throws away what comes, because the
// end of the other side shows only there: the first write after it succeeds.
type watchedConn struct {
	conn      net.Conn
	endpoint  int  // which endpoint it leads to
	datagrams bool // UDP
	timeout   time.Duration
	gone      chan struct{} // closed when the goroutine ends; nil for UDP
	closing   atomic.Bool   // close was called
}

// dial connects and starts watching. close ends both. When the other side ends the connection, closed is counted up.
func dial(ctx context.Context, url config.URL, timeout time.Duration, closed *atomic.Uint64) (*watchedConn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, url.Network(), url.Address())
	if err != nil {
		return nil, err
	}
	c := &watchedConn{conn: conn, timeout: timeout, datagrams: url.Network() == "udp"}
	if !c.datagrams {
		c.gone = make(chan struct{})
		go c.watch(closed)
	}
	return c, nil
}

// watch ends when the other side closed or reset the connection, or when close was called.
func (c *watchedConn) watch(closed *atomic.Uint64) {
	defer close(c.gone)
	var nothing [512]byte
	for {
		if _, err := c.conn.Read(nothing[:]); err != nil {
			if !c.closing.Load() {
				closed.Add(1)
			}
			return
		}
	}
}

// alive reports whether the other side has not been seen to close.
func (c *watchedConn) alive() bool {
	select {
	case <-c.gone:
		return false
	default:
		return true
	}
}

func (c *watchedConn) close() {
	c.closing.Store(true)
	_ = c.conn.Close() // there is nothing to be done about an error: what was not taken yet is the receiver's loss
	if c.gone != nil {
		<-c.gone
	}
}

// interrupt makes a write under way return.
func (c *watchedConn) interrupt() {
	_ = c.conn.SetWriteDeadline(time.Unix(1, 0)) // fails only on a closed connection
}

// writeAll writes p. The time limit begins anew whenever the other side has taken something: a slow receiver is not a
// dead one. It returns how many bytes were written.
func (c *watchedConn) writeAll(ctx context.Context, p []byte) (written int, err error) {
	for {
		if err := c.conn.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
			return written, err
		}
		// In this order: a ctx that is done from here on interrupts the write.
		if ctx.Err() != nil {
			return written, ctx.Err()
		}
		n, err := c.conn.Write(p[written:])
		written += n
		switch {
		case err == nil:
			return written, nil
		case ctx.Err() != nil:
			return written, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded) && n > 0:
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			return written, fmt.Errorf("the receiver took nothing for %s: %w", c.timeout, err)
		default:
			return written, err
		}
	}
}

// pendingError returns the error that a datagram written before has come back with, if it has. The port that nobody
// listens on shows so at once on the same machine, and soon on others.
func (c *watchedConn) pendingError() error {
	raw, err := c.conn.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var pending int
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		pending, sockErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	})
	if err = errors.Join(err, sockErr); err != nil || pending == 0 {
		return err
	}
	return unix.Errno(pending)
}

func datagramHint(err error) error {
	if errors.Is(err, unix.EMSGSIZE) {
		return fmt.Errorf("%w: lower max_message", err)
	}
	return err
}
