package relay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Limits of the control socket. Only the daemon's own user and root can open it, so they guard against mistakes.
const (
	adminHeaderTimeout = 5 * time.Second
	adminIdleTimeout   = time.Minute
	adminHeaderBytes   = 16 << 10
	adminBodyBytes     = 64 << 10
	adminConnections   = 32
	adminWriteTimeout  = 30 * time.Second // for each piece of an answer
	adminStopTimeout   = 5 * time.Second  // how long answers under way may go on when the daemon stops
	socketMode         = 0o600
)

// ErrSocketInUse says that another process answers on the control socket.
var ErrSocketInUse = errors.New("another process answers on the control socket: stop it, or give this daemon an admin.socket of its own")

// admin answers commands on the control socket, as HTTP/1.1 with JSON.
type admin struct {
	store    *Store
	listener net.Listener
	logger   *slog.Logger

	working sync.RWMutex // held for reading by each command that is being answered
	closed  bool         // guarded by working
}

// openAdmin makes the control socket. Without a usable directory, and if the configuration does not name the socket, it
// logs that and returns nil.
func (r *Relay) openAdmin(ctx context.Context) (*admin, error) {
	path := r.config.Admin.Socket
	if path == "" {
		return nil, nil // a configuration that was not read from a file
	}
	listener, err := listenControl(ctx, path)
	if err == nil {
		return &admin{
			store: &Store{relay: r, queue: r.queue}, listener: limitConnections(listener, adminConnections),
			logger: r.opt.Logger.With("part", "admin"),
		}, nil
	}
	unusable := errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) ||
		errors.Is(err, syscall.ENOTDIR)
	if unusable && !r.config.Admin.SocketGiven {
		r.opt.Logger.Warn("no control socket: commands cannot reach this daemon; set admin.socket to a path that it can make",
			"socket", path, "error", err)
		return nil, nil
	}
	return nil, fmt.Errorf("make the control socket: %w", err)
}

// listenControl makes a Unix socket that only our own user can open. A socket file that nobody answers on was left by a
// process that died, and is replaced.
func listenControl(ctx context.Context, path string) (net.Listener, error) {
	if err := clearSocket(ctx, path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{
		// bind gives the file the mode that the socket has, so that it is never open to others, not for a moment.
		Control: func(_, _ string, conn syscall.RawConn) error {
			var modeErr error
			err := conn.Control(func(fd uintptr) { modeErr = syscall.Fchmod(int(fd), socketMode) })
			return errors.Join(err, modeErr)
		},
	}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

// clearSocket removes a socket file that nobody answers on.
func clearSocket(ctx context.Context, path string) error {
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there and is not a socket: remove it, or change admin.socket", path)
	}
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = conn.Close() // nothing was sent
		return fmt.Errorf("%s: %w", path, ErrSocketInUse)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// run answers until ctx is done, lets what is under way end, and removes the socket.
func (a *admin) run(ctx context.Context) {
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           a.counted(a.routes()),
		ReadHeaderTimeout: adminHeaderTimeout, ReadTimeout: 2 * adminHeaderTimeout, IdleTimeout: adminIdleTimeout,
		MaxHeaderBytes: adminHeaderBytes,
		BaseContext:    func(net.Listener) context.Context { return requests },
		ErrorLog:       slog.NewLogLogger(a.logger.Handler(), slog.LevelWarn),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(a.listener) }()
	select {
	case err := <-ended:
		a.logger.Error("the control socket does not answer any more", "error", err)
		ended <- http.ErrServerClosed
		<-ctx.Done()
	case <-ctx.Done():
	}
	stop, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), adminStopTimeout)
	defer cancelStop()
	if err := server.Shutdown(stop); err != nil {
		a.logger.Warn("commands were cut off", "error", errors.Join(err, server.Close()))
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		a.logger.Warn("the control socket ended with an error", "error", err)
	}
	// Cutting a connection ends the command's context, not yet the command: it uses the queue, which is closed next.
	a.working.Lock()
	a.closed = true
	a.working.Unlock()
}

// counted lets run wait for the commands that are being answered.
func (a *admin) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		a.working.RLock()
		defer a.working.RUnlock()
		if a.closed {
			a.refuse(w, http.StatusServiceUnavailable, errors.New("the daemon stops"))
			return
		}
		next.ServeHTTP(w, req)
	})
}

// limitedListener accepts while fewer than cap(slots) connections are open; the others wait in the kernel's queue.
type limitedListener struct {
	net.Listener
	slots  chan struct{}
	closed chan struct{}
}

func limitConnections(l net.Listener, n int) net.Listener {
	return &limitedListener{Listener: l, slots: make(chan struct{}, n), closed: make(chan struct{})}
}

// Accept waits for a free slot and a connection.
func (l *limitedListener) Accept() (net.Conn, error) {
	select {
	case l.slots <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.slots
		return nil, err
	}
	return &limitedConn{Conn: conn, release: sync.OnceFunc(func() { <-l.slots })}, nil
}

// Close stops accepting. It is called once, by the server.
func (l *limitedListener) Close() error {
	close(l.closed)
	return l.Listener.Close()
}

// limitedConn gives its slot back when it is closed.
type limitedConn struct {
	net.Conn
	release func()
}

// Close closes the connection.
func (c *limitedConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}
