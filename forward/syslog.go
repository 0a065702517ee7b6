package forward

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
)

// Words of the settings.
const (
	envelope5424 = "rfc5424"
	envelope3164 = "rfc3164"
	envelopeNone = "none"

	framingAuto    = "auto"
	framingNewline = "newline"
	framingOctets  = "octet_counting"
)

// datagramMax is the largest payload of a UDP datagram over IPv4 (RFC 5426 section 3.2).
const datagramMax = 65507

// SyslogSettings are the keys of the kind syslog.
//
// What can be lost: syslog over TCP has no confirmation. A batch counts as delivered when the system's socket buffer
// has it. If the receiver or the way to it dies then, what lay in both machines' socket buffers is gone, without an
// error: measured with messages of 300 bytes and a receiver that was killed, up to 1,600 of them if it was fast and up
// to 13,600, which is 4 MB, if it was slow. A receiver that closes its connection while nothing is being written is
// noticed before the next batch. After any error while writing the whole batch is sent again. UDP loses whatever the
// network or the receiver drops; only a port that nobody listens on is noticed. Where nothing may be lost, use a kind
// that confirms.
type SyslogSettings struct {
	// The first endpoint that takes a connection is used until it fails; then the next one is tried.
	Endpoints []config.URL `yaml:"endpoints" required:"true" max:"16" schemes:"udp tcp" doc:"Receivers, the best first."`

	Envelope string   `yaml:"envelope" oneof:"rfc5424 rfc3164 none" doc:"Header before the event."`
	Facility Facility `yaml:"facility" doc:"Syslog facility, by name or number."`
	Host     string   `yaml:"host" min:"1" max:"255" default:"the relay's host name" doc:"Host name in the header."`
	AppName  string   `yaml:"app_name" min:"1" max:"48" doc:"APP-NAME of RFC 5424."`
	Tag      string   `yaml:"tag" min:"1" max:"32" default:"none" doc:"Tag before the message, RFC 3164 only."`
	// Only RFC 5424. 32473 is the enterprise number for examples.
	StructuredDataID string `yaml:"structured_data_id" min:"1" max:"32" doc:"SD-ID of the event's id and number."`
	// Only RFC 3164, whose times have no zone.
	Timezone config.Location `yaml:"timezone" default:"the machine's local zone" doc:"Zone of times in RFC 3164."`
	// Only RFC 5424. Some receivers take the mark for a part of the message.
	BOM bool `yaml:"bom" doc:"Put the byte order mark of UTF-8 before the message."`

	// Only TCP. In newline framing, line breaks and zero bytes in a message become \n, \r and \0; auto means newline.
	Framing string `yaml:"framing" oneof:"auto newline octet_counting" doc:"What separates messages on TCP."`
	// Header included. What is longer is cut at the end of a character, and counted.
	MaxMessage config.Bytes `yaml:"max_message" default:"none; 65507B on UDP" doc:"Longest message; the rest is cut."`
	// For connecting, and for how long a receiver may take nothing.
	Timeout config.Duration `yaml:"timeout" min:"100ms" max:"10m" doc:"When a silent receiver counts as dead."`
}

func newSyslogSettings() *SyslogSettings {
	return &SyslogSettings{
		Envelope: envelope5424, Framing: framingAuto, Facility: facilityLocal0, AppName: "auditrelay",
		StructuredDataID: "auditrelay@32473", Timeout: config.Duration(10 * time.Second),
	}
}

// messageMin is the shortest limit for messages that makes sense: it leaves room for the longest header. Receivers
// must take 480 bytes and should take 2048 (RFC 5424 section 6.1).
const messageMin = 512

// Validate says what is wrong with the settings.
func (s *SyslogSettings) Validate() (invalid []config.Invalid) {
	bad := func(key, message string) { invalid = append(invalid, config.Invalid{Key: key, Message: message}) }
	for _, c := range [...]struct{ key, word string }{{"app_name", s.AppName}, {"host", s.Host}, {"tag", s.Tag}} {
		if c.word != headerWord(c.word, len(c.word)) && c.word != "" {
			bad(c.key, "has a character that a syslog header cannot have: use printable ASCII without spaces")
		}
	}
	if strings.ContainsAny(s.Tag, ":[]") {
		bad("tag", "has a character that ends a tag: leave out colons and brackets")
	}
	if !validSDID(s.StructuredDataID) {
		bad("structured_data_id", "is not of the form name@number, as auditrelay@32473")
	}
	if s.MaxMessage != 0 && s.MaxMessage < messageMin {
		bad("max_message", fmt.Sprintf("is too short for a header and a message: use at least %dB", messageMin))
	}
	for i, url := range s.Endpoints {
		if url.Port == 0 {
			bad("endpoints["+strconv.Itoa(i)+"]", "has port 0, on which nobody can listen: write the receiver's port")
		}
	}
	return invalid
}

// validSDID reports whether id is a private SD-ID (RFC 5424 section 6.3.2). Without "@" only registered ones are
// allowed.
func validSDID(id string) bool {
	name, number, found := strings.Cut(id, "@")
	if !found || name == "" || number == "" || strings.Trim(number, "0123456789.") != "" {
		return false
	}
	return name == headerWord(name, len(name)) && !strings.ContainsAny(name, `=]"`)
}

// syslogSink sends syslog messages to the first of its endpoints that works.
type syslogSink struct {
	settings *SyslogSettings
	encoder  Encoder
	envelope envelope
	timeout  time.Duration

	// Owned by Send.
	conn  *watchedConn
	first int // endpoint to begin with when connecting
	buf   []byte

	messages, bytes, cut, connects, closed atomic.Uint64
}

func newSyslog(env Env, settings any) (Sink, error) {
	s, ok := settings.(*SyslogSettings)
	if !ok || len(s.Endpoints) == 0 {
		return nil, errors.New("syslog destination has no endpoints: set endpoints")
	}
	host := s.Host
	if host == "" {
		host = env.Host
	}
	return &syslogSink{
		settings: s, encoder: env.Encoder, envelope: newEnvelope(s, host), timeout: time.Duration(s.Timeout),
	}, nil
}

// Send writes the batch to the endpoint that is connected, or connects first.
func (s *syslogSink) Send(ctx context.Context, batch *audit.Events) (Receipt, error) {
	if err := s.connect(ctx); err != nil {
		return nil, &UnsentError{Err: err}
	}
	conn := s.conn
	forget := context.AfterFunc(ctx, conn.interrupt)
	defer forget()
	var err error
	if conn.datagrams {
		err = s.sendDatagrams(ctx, batch)
	} else {
		err = s.sendStream(ctx, batch)
	}
	if cap(s.buf) > keepBytes {
		s.buf = nil
	}
	if err != nil {
		s.disconnect()
		s.first = (conn.endpoint + 1) % len(s.settings.Endpoints)
		return nil, fmt.Errorf("send to %s: %w", s.settings.Endpoints[conn.endpoint], err)
	}
	return nil, nil
}

// Close closes the connection.
func (s *syslogSink) Close() error {
	s.disconnect()
	return nil
}

// Render implements Renderer, for the first endpoint.
func (s *syslogSink) Render(dst []byte, ev *audit.Event) []byte {
	if s.settings.Endpoints[0].Network() == "udp" {
		return s.appendMessage(dst, ev, s.datagramLimit(), false)
	}
	return s.appendMessage(dst, ev, int(s.settings.MaxMessage), s.settings.Framing != framingOctets)
}

// Counts implements Counter.
func (s *syslogSink) Counts() Counts {
	return Counts{
		Messages: s.messages.Load(), Bytes: s.bytes.Load(), Cut: s.cut.Load(), Connects: s.connects.Load(),
		Closed: s.closed.Load(),
	}
}

// connect makes sure that there is a connection which the other side was not seen to close.
func (s *syslogSink) connect(ctx context.Context) error {
	if s.conn != nil {
		if s.conn.alive() {
			return nil
		}
		s.disconnect()
		s.first = 0
	}
	var errs []error
	for i := range s.settings.Endpoints {
		at := (s.first + i) % len(s.settings.Endpoints)
		conn, err := dial(ctx, s.settings.Endpoints[at], s.timeout, &s.closed)
		if err == nil {
			conn.endpoint, s.conn = at, conn
			s.connects.Add(1)
			return nil
		}
		errs = append(errs, fmt.Errorf("connect to %s: %w", s.settings.Endpoints[at], err))
		if ctx.Err() != nil {
			break
		}
	}
	s.first = 0
	return errors.Join(errs...)
}

func (s *syslogSink) disconnect() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// sendStream writes the batch with one write, or with one for each MiB.
func (s *syslogSink) sendStream(ctx context.Context, batch *audit.Events) error {
	counted := s.settings.Framing == framingOctets
	s.buf = s.buf[:0]
	gathered := 0
	for i := range batch.List {
		if counted {
			s.buf = s.appendCounted(s.buf, &batch.List[i])
		} else {
			s.buf = append(s.appendMessage(s.buf, &batch.List[i], int(s.settings.MaxMessage), true), '\n')
		}
		gathered++
		if len(s.buf) >= flushBytes || i == len(batch.List)-1 {
			n, err := s.conn.writeAll(ctx, s.buf)
			s.bytes.Add(uint64(n))
			if err != nil {
				return err
			}
			s.messages.Add(uint64(gathered))
			s.buf, gathered = s.buf[:0], 0
		}
	}
	return nil
}

// sendDatagrams writes one datagram for each event (RFC 5426 section 3.1).
func (s *syslogSink) sendDatagrams(ctx context.Context, batch *audit.Events) error {
	limit := s.datagramLimit()
	for i := range batch.List {
		s.buf = s.appendMessage(s.buf[:0], &batch.List[i], limit, false)
		n, err := s.conn.writeAll(ctx, s.buf)
		if err != nil {
			return datagramHint(err)
		}
		s.bytes.Add(uint64(n))
		s.messages.Add(1)
	}
	return s.conn.pendingError()
}

func (s *syslogSink) datagramLimit() int {
	if limit := int(s.settings.MaxMessage); limit > 0 {
		return min(limit, datagramMax)
	}
	return datagramMax
}

// appendCounted appends a frame of RFC 6587 section 3.4.1: the message's length in bytes, a space, the message.
func (s *syslogSink) appendCounted(dst []byte, ev *audit.Event) []byte {
	const room = len("9999999999 ") // for the length, which is known only afterwards; no message is so long
	start := len(dst)
	dst = append(dst, "9999999999 "...)
	dst = s.appendMessage(dst, ev, int(s.settings.MaxMessage), false)
	var digits [20]byte
	head := append(strconv.AppendUint(digits[:0], uint64(len(dst)-start-room), 10), ' ')
	copy(dst[start:], head)
	n := copy(dst[start+len(head):], dst[start+room:])
	return dst[:start+len(head)+n]
}

// appendMessage appends one message with its header, at most limit bytes (0 = no limit).
func (s *syslogSink) appendMessage(dst []byte, ev *audit.Event, limit int, escape bool) []byte {
	start := len(dst)
	dst = s.envelope.appendHeader(dst, ev)
	text := len(dst)
	dst = s.encoder.Append(dst, ev)
	if escape {
		dst = escapeLines(dst, text)
	}
	if limit > 0 && len(dst)-start > limit {
		s.cut.Add(1)
		return dst[:text+len(cutText(dst[text:], max(0, limit-(text-start))))]
	}
	return dst
}
