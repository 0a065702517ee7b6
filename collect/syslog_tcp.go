package collect

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/auditrelay/auditrelay/audit"
)

// Sizes of a connection's buffer.
const (
	connectionBytes = 4 << 10   // of an idle one
	busyBytes       = 128 << 10 // of one that sends without pause
)

// Times of a connection's buffer.
const (
	quietTime    = time.Second      // a connection that is silent for so long gives back what of its buffer is empty
	roomPatience = 30 * time.Second // how long a connection waits for a larger buffer if idle_timeout does not say
)

// acceptPause is how long to wait after accept failed, mostly for want of descriptors.
const acceptPause = 100 * time.Millisecond

// serveTCP accepts connections until ctx is done or the socket fails, and returns when all of them are closed.
func (c *Syslog) serveTCP(ctx context.Context, l *listener, socket net.Listener, put PutFunc) error {
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	defer func() { _ = socket.Close() }()
	l.set(socket.Addr(), "")
	c.log.Info("listening", "listener", l.url.String(), "address", socket.Addr().String())
	var group sync.WaitGroup
	defer group.Wait()
	for {
		conn, err := socket.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default:
			l.set(socket.Addr(), err.Error()+": raise LimitNOFILE, or lower max_connections")
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case c.connections <- struct{}{}:
			l.set(socket.Addr(), "")
			group.Go(func() {
				c.receive(ctx, l, conn, put)
				<-c.connections
				l.set(socket.Addr(), "")
			})
		default:
			l.refused.Add(1)
			l.set(socket.Addr(), "connections are refused: raise max_connections")
			_ = conn.Close() // nothing was read from it
		}
	}
}

// connection reads one TCP stream.
type connection struct {
	*Syslog
	l      *listener
	conn   net.Conn
	peer   netip.Addr
	framer framer

	buf        []byte // owned; what of it was read and is not used yet is buf[start:end]
	start, end int
}

// receive takes messages from a connection until the sender closes it, it makes no sense, it is idle for too long, or
// ctx is done.
func (c *Syslog) receive(ctx context.Context, l *listener, conn net.Conn, put PutFunc) {
	l.open.Add(1)
	defer l.open.Add(-1)
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	k := &connection{
		Syslog: c, l: l, conn: conn, peer: addrOf(conn.RemoteAddr()),
		framer: framer{mode: c.settings.framing(), max: int(c.settings.MaxMessage)},
		buf:    make([]byte, connectionBytes),
	}
	defer k.release()
	for {
		err := k.read(ctx)
		k.hand(ctx, put, err != nil)
		if k.framer.broken {
			k.hand(ctx, put, true)
			c.log.Warn("connection closed: its frames make no sense", "listener", l.url.String(), "peer", k.peer)
			return
		}
		if err != nil {
			return
		}
	}
}

// read waits for bytes and takes what there is.
func (k *connection) read(ctx context.Context) error {
	if k.start == k.end {
		k.start, k.end = 0, 0
		if _, waiting := k.buffers.state(); waiting > 0 && len(k.buf) > connectionBytes {
			k.resize(connectionBytes)
		}
	}
	if k.end == len(k.buf) {
		if k.start > 0 {
			k.end = copy(k.buf, k.buf[k.start:k.end])
			k.start = 0
		} else if err := k.grow(ctx, min(2*len(k.buf), max(busyBytes, k.framer.max+frameOverhead))); err != nil {
			return err
		}
	}
	n, space, err := k.receive(ctx)
	k.end += n
	switch {
	case n == space && len(k.buf) < busyBytes && k.start == 0:
		k.resize(min(2*len(k.buf), busyBytes)) // if there is no room, smaller reads do
	case k.end-k.start < connectionBytes/4 && len(k.buf) > connectionBytes && n < connectionBytes:
		k.resize(connectionBytes)
	}
	return err
}

// receive reads once into what is free of the buffer, space bytes. A connection that is silent does not keep a large
// buffer from others while it waits.
func (k *connection) receive(ctx context.Context) (n, space int, err error) {
	idle := time.Duration(k.settings.IdleTimeout)
	began := time.Now()
	for {
		var deadline time.Time
		if idle > 0 {
			deadline = began.Add(idle)
		}
		large := len(k.buf) > connectionBytes && k.end-k.start < len(k.buf)/2
		if quiet := time.Now().Add(quietTime); large && (idle == 0 || quiet.Before(deadline)) {
			deadline = quiet
		} else {
			large = false
		}
		if err := k.conn.SetReadDeadline(deadline); err != nil {
			return 0, 0, err
		}
		if ctx.Err() != nil { // the deadline that ended the waiting may have been overwritten
			return 0, 0, ctx.Err()
		}
		free := k.buf[k.end:]
		n, err := k.conn.Read(free)
		if large && n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() == nil {
			k.resize(max(connectionBytes, k.end-k.start+1))
			continue
		}
		return n, len(free), err
	}
}

// grow gives the connection a buffer of n bytes, as soon as there is room. An error means that the connection has to be
// closed.
func (k *connection) grow(ctx context.Context, n int) error {
	if k.resize(n) {
		return nil
	}
	patience := time.Duration(k.settings.IdleTimeout)
	if patience <= 0 {
		patience = roomPatience
	}
	k.l.starving.Add(1)
	err := k.buffers.wait(ctx, k, n-len(k.buf), patience)
	k.l.starving.Add(-1)
	if err == nil {
		k.replace(n)
		return nil
	}
	if errors.Is(err, errNoRoom) {
		k.l.refused.Add(1)
		k.l.starvedAt.Store(time.Now().UnixNano())
		k.log.Warn("connection closed: too many long messages at a time, lower max_message or max_connections",
			"listener", k.l.url.String(), "peer", k.peer, "waited", patience)
	}
	return err
}

// resize gives the connection a buffer of n bytes with the same content. It reports false, and changes nothing, if all
// connections together would have too much.
func (k *connection) resize(n int) bool {
	if !k.buffers.take(n - len(k.buf)) {
		return false
	}
	k.replace(n)
	return true
}

func (k *connection) replace(n int) {
	buf := make([]byte, n)
	k.end = copy(buf, k.buf[k.start:k.end])
	k.start, k.buf = 0, buf
}

// release gives the buffer back at the end.
func (k *connection) release() { k.buffers.take(connectionBytes - len(k.buf)) }

// hand takes the frames out of the buffer and hands them over. last says that no bytes follow.
func (k *connection) hand(ctx context.Context, put PutFunc, last bool) {
	if k.start == k.end {
		return
	}
	k.batches <- struct{}{}
	batch := audit.GetRecords(k.env.ID)
	defer func() {
		batch.Release()
		<-k.batches
	}()
	now := time.Now()
	for k.start < k.end {
		f := k.framer.next(k.buf[k.start:k.end], last)
		if f.used == 0 {
			break
		}
		k.start += f.used
		if len(f.raw) == 0 {
			k.l.skipped.Add(1)
			continue
		}
		rec := k.add(batch, k.l, f)
		rec.Peer, rec.Received = k.peer, now
		if batch.Bytes() >= batchBytes || len(batch.List) >= batchRecords {
			k.deliver(ctx, k.l, put, batch)
			now = time.Now()
		}
	}
	k.deliver(ctx, k.l, put, batch)
}

func addrOf(addr net.Addr) netip.Addr {
	switch a := addr.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap()
	case *net.UDPAddr:
		return a.AddrPort().Addr().Unmap()
	default:
		return netip.Addr{}
	}
}
