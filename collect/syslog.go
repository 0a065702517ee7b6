package collect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

// Limits that need no setting.
const (
	listenInterval = 5 * time.Second // between two attempts to open a listener
	stopTime       = 5 * time.Second // at the end, for handing over what was read
	putInterval    = time.Second     // between two attempts to hand over the same batch
	batchBytes     = 256 << 10
	batchRecords   = 8 << 10
	starvedTime    = 5 * time.Minute // for how long the state tells of connections that were closed for want of buffers
	batchesMax     = 16              // of all connections at a time: 4 MiB
	buffersMax     = int64(32 << 20) // of all connections together, beyond connectionBytes each
)

// SyslogSettings are the settings of kind syslog.
type SyslogSettings struct {
	Listen []config.URL `yaml:"listen" required:"true" schemes:"udp tcp" example:"[\"udp://[::]:514\"]" doc:"Where."`
	// auto: by the first bytes of each message.
	Framing string `yaml:"framing" oneof:"auto newline octet_counting" doc:"How a TCP stream is cut into messages."`
	// A UDP message has at most 64 KiB by nature.
	MaxMessage config.Bytes `yaml:"max_message" min:"1KiB" max:"8MiB" doc:"Longest; a longer line comes in parts."`
	// Of all listeners together. Another connection is closed at once.
	MaxConnections int `yaml:"max_connections" min:"1" max:"65536" doc:"TCP connections at a time."`
	// 0s: never. A sender may lose the message with which it finds out that its connection is closed.
	IdleTimeout config.Duration `yaml:"idle_timeout" doc:"Age at which a silent TCP connection is closed."`
	// More than net.core.rmem_max needs the capability CAP_NET_ADMIN.
	ReceiveBuffer config.Bytes `yaml:"receive_buffer" min:"64KiB" max:"1GiB" doc:"Kernel's room for UDP messages."`
}

// NewSyslogSettings returns the settings with their defaults.
func NewSyslogSettings() *SyslogSettings {
	return &SyslogSettings{Framing: "auto", MaxMessage: config.MiB, MaxConnections: 1000, ReceiveBuffer: 8 * config.MiB}
}

// Validate checks that no address is given twice.
func (s *SyslogSettings) Validate() []config.Invalid {
	var list []config.Invalid
	for i, u := range s.Listen {
		if u.Port != 0 && slices.Contains(s.Listen[:i], u) {
			key := fmt.Sprintf("listen[%d]", i)
			list = append(list, config.Invalid{Key: key, Message: "the same address twice: remove one"})
		}
	}
	return list
}

func (s *SyslogSettings) framing() framing {
	switch s.Framing {
	case "newline":
		return framingNewline
	case "octet_counting":
		return framingCounted
	default:
		return framingAuto
	}
}

// Syslog is the collector of kind syslog: listeners on UDP and TCP. Messages come out as they were sent. Nothing tells
// a sender that a message is safe, so what was sent and not handed over yet is lost if the process ends suddenly. A TCP
// connection whose messages cannot be handed over is not read on.
type Syslog struct {
	env       Env
	log       *slog.Logger
	settings  SyslogSettings
	listeners []*listener

	connections chan struct{} // one token for each open connection
	batches     chan struct{} // one token for each batch of a connection that is being filled or put
	buffers     buffers       // of the connections
}

// listener is one of the addresses. Its counters are read by Inputs at any time.
type listener struct {
	url    config.URL
	origin *audit.Origin

	mu     sync.Mutex
	addr   net.Addr // while it is open
	reason string   // why it is not, or what is wrong with it

	records, bytes, skipped, parts, partials, framingErrors, refused, dropped atomic.Uint64
	open, starving                                                            atomic.Int64
	starvedAt                                                                 atomic.Int64
}

// NewSyslog makes a collector of kind syslog.
func NewSyslog(env Env, s *SyslogSettings) (*Syslog, error) {
	c := &Syslog{
		env:         env,
		log:         env.logger(),
		settings:    *s,
		connections: make(chan struct{}, s.MaxConnections),
		batches:     make(chan struct{}, batchesMax),
		buffers:     buffers{limit: buffersMax},
	}
	for _, u := range s.Listen {
		if u.Scheme != "udp" && u.Scheme != "tcp" {
			return nil, fmt.Errorf("listen on %s: use udp or tcp", u)
		}
		origin := &audit.Origin{Path: u.String(), Format: audit.FormatSyslog}
		c.listeners = append(c.listeners, &listener{url: u, origin: origin})
	}
	return c, nil
}

// Run implements Collector. A listener that cannot be opened is tried again; the others go on.
func (c *Syslog) Run(ctx context.Context, put PutFunc) error {
	if c.env.Once {
		return nil
	}
	final, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(stopTime, cancel) })
	defer stop()
	put = c.lasting(final, put)
	var group sync.WaitGroup
	for _, l := range c.listeners {
		group.Go(func() { c.listen(ctx, l, put) })
	}
	group.Wait()
	return nil
}

// listen keeps the listener open until ctx is done.
func (c *Syslog) listen(ctx context.Context, l *listener, put PutFunc) {
	for ctx.Err() == nil {
		err := c.serve(ctx, l, put)
		l.set(nil, explainListen(err))
		if ctx.Err() != nil {
			return
		}
		c.log.Error("listener is closed, trying again", "listener", l.url.String(), "error", explainListen(err))
		select {
		case <-ctx.Done():
		case <-time.After(listenInterval):
		}
	}
}

func (c *Syslog) serve(ctx context.Context, l *listener, put PutFunc) error {
	var config net.ListenConfig
	if l.url.Network() == "udp" {
		conn, err := config.ListenPacket(ctx, "udp", l.url.Address())
		if err != nil {
			return err
		}
		return c.serveUDP(ctx, l, conn.(*net.UDPConn), put)
	}
	socket, err := config.Listen(ctx, "tcp", l.url.Address())
	if err != nil {
		return err
	}
	return c.serveTCP(ctx, l, socket, put)
}

// explainListen adds to an error what the operator can do about it.
func explainListen(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.EADDRINUSE):
		return err.Error() + ": another program listens there"
	case errors.Is(err, syscall.EACCES):
		return err.Error() + ": ports below 1024 need the capability CAP_NET_BIND_SERVICE"
	default:
		return err.Error()
	}
}

func (l *listener) set(addr net.Addr, reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addr, l.reason = addr, reason
}

// Addrs returns the addresses of the listeners in the order of the settings, nil for one that is not open now. It tells
// the port where the settings leave it to the system. Safe for concurrent use.
func (c *Syslog) Addrs() []net.Addr {
	list := make([]net.Addr, len(c.listeners))
	for i, l := range c.listeners {
		l.mu.Lock()
		list[i] = l.addr
		l.mu.Unlock()
	}
	return list
}

// Inputs implements Reporter: one for each listener.
func (c *Syslog) Inputs() []Input {
	list := make([]Input, len(c.listeners))
	for i, l := range c.listeners {
		in := Input{
			Name: l.url.String(), Offset: -1, Size: -1, Connections: int(l.open.Load()),
			Records: l.records.Load(), Bytes: l.bytes.Load(), Skipped: l.skipped.Load(),
			Parts: l.parts.Load(), Partials: l.partials.Load(),
			FramingErrors: l.framingErrors.Load(), Refused: l.refused.Load(), Dropped: l.dropped.Load(),
		}
		l.mu.Lock()
		in.Reason = l.reason
		if in.Reason == "" {
			in.Reason = l.starvation()
		}
		switch {
		case in.Reason != "":
			in.State = StateDegraded
		case l.addr == nil:
			in.State = StateWaiting
		}
		l.mu.Unlock()
		list[i] = in
	}
	return list
}

// starvation says whether connections wait for buffers, or were closed for want of them not long ago.
func (l *listener) starvation() string {
	at := l.starvedAt.Load()
	switch {
	case at > 0 && time.Since(time.Unix(0, at)) < starvedTime:
		return "connections were closed, too many long messages at a time: lower max_message or max_connections"
	case l.starving.Load() > 0:
		return "connections wait for room, too many long messages at a time: lower max_message or max_connections"
	default:
		return ""
	}
}

// deliver hands the batch over and empties it. It reports whether the batch was taken. What was not is counted: a
// sender of plain syslog cannot be told.
func (c *Syslog) deliver(ctx context.Context, l *listener, put PutFunc, batch *audit.Records) (taken bool) {
	defer batch.Reset()
	if len(batch.List) == 0 {
		return true
	}
	if _, err := put(ctx, batch); err != nil {
		l.dropped.Add(uint64(len(batch.List)))
		c.log.Error("messages lost at the end", "listener", l.url.String(), "records", len(batch.List), "error", err)
		return false
	}
	n := 0
	for i := range batch.List {
		n += len(batch.List[i].Raw)
	}
	l.records.Add(uint64(len(batch.List)))
	l.bytes.Add(uint64(n))
	return true
}

// lasting returns a put that tries until the batch is taken, as long as ctx lasts, and then once more until final ends.
func (c *Syslog) lasting(final context.Context, put PutFunc) PutFunc {
	return func(ctx context.Context, batch *audit.Records) (through audit.Number, err error) {
		var last string
		for ctx.Err() == nil {
			if through, err = put(ctx, batch); err == nil {
				return through, nil
			}
			if ctx.Err() == nil && err.Error() != last {
				last = err.Error()
				c.log.Warn("messages not taken, trying again", "error", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(putInterval):
			}
		}
		return put(final, batch)
	}
}

// add appends a message to the batch and counts what is odd about it.
func (c *Syslog) add(batch *audit.Records, l *listener, f frame) *audit.Record {
	rec := appendFrame(batch, l.origin, f)
	rec.Product = c.env.Product
	if f.part > 0 {
		l.parts.Add(1)
	}
	if f.marks&(audit.MarkPartial|audit.MarkTruncated) != 0 {
		l.partials.Add(1)
	}
	if f.marks.Has(audit.MarkFramingError) {
		l.framingErrors.Add(1)
	}
	return rec
}

func appendFrame(batch *audit.Records, origin *audit.Origin, f frame) *audit.Record {
	rec := batch.Add(f.raw)
	rec.Origin = origin
	rec.Part = f.part
	rec.Marks = f.marks
	if bytes.IndexByte(f.raw, 0) >= 0 {
		rec.Marks |= audit.MarkBinary
	}
	return rec
}
