package forward_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/forward"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

// The conformance suite: what every kind of destination must do, run against each of them with real sockets and files.
// A new kind adds one function to conformers.

// world is one destination and a receiver for it.
type world interface {
	sink(t *testing.T) forward.Sink // a new sink that leads to the receiver
	up(t *testing.T)                // the receiver begins to take events
	down(t *testing.T)              // it is gone; what it had taken stays
	arrived(t *testing.T) []string  // the messages that came, envelope included
}

type conformer struct {
	name     string
	make     func(t *testing.T) world
	escapes  bool // line breaks and zero bytes do not come as they are
	sizeMax  int  // larger events are cut; 0 = none are
	noticing bool // the sink notices that the receiver went away before it sends again (Counts.Closed)
}

func conformers() []conformer {
	stream := func(envelope, framing string) func(*testing.T) world {
		return func(*testing.T) world { return &tcpWorld{envelope: envelope, framing: framing, addr: ""} }
	}
	return []conformer{
		{name: "syslog tcp rfc5424 newline", make: stream("rfc5424", "auto"), escapes: true, noticing: true},
		{name: "syslog tcp rfc5424 octets", make: stream("rfc5424", "octet_counting"), noticing: true},
		{name: "syslog tcp rfc3164 newline", make: stream("rfc3164", "newline"), escapes: true, noticing: true},
		{name: "syslog tcp none newline", make: stream("none", "newline"), escapes: true, noticing: true},
		{name: "syslog udp", make: func(*testing.T) world { return &udpWorld{} }, sizeMax: 65507},
		{name: "file", make: newFileWorld, escapes: true},
		{name: "standard output", make: func(*testing.T) world { return &stdoutWorld{} }, escapes: true},
	}
}

// forEach runs a scenario against each kind.
func forEach(t *testing.T, scenario func(t *testing.T, c conformer, w world)) {
	for _, c := range conformers() {
		t.Run(c.name, func(t *testing.T) { scenario(t, c, c.make(t)) })
	}
}

func newSink(t *testing.T, kind string, env forward.Env, set func(settings any)) forward.Sink {
	t.Helper()
	env.ID, env.Encoder = "soc", forwardtest.RawEncoder{}
	for _, k := range forward.Kinds() {
		if k.Name == kind {
			settings := k.Settings()
			set(settings)
			sink, err := k.New(env, settings)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, sink.Close()) })
			return sink
		}
	}
	t.Fatalf("no kind %s", kind)
	return nil
}

func endpoint(t *testing.T, scheme, addr string) config.URL {
	t.Helper()
	var url config.URL
	require.NoError(t, url.UnmarshalText([]byte(scheme+"://"+addr)))
	return url
}

// freeAddr returns an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	return listener.Addr().String()
}

type tcpWorld struct {
	envelope, framing, addr string
	receivers               []*forwardtest.TCP
}

func (w *tcpWorld) sink(t *testing.T) forward.Sink {
	if w.addr == "" {
		w.addr = freeAddr(t)
	}
	return newSink(t, "syslog", forward.Env{Host: "prg-01"}, func(settings any) {
		s := settings.(*forward.SyslogSettings)
		s.Endpoints = []config.URL{endpoint(t, "tcp", w.addr)}
		s.Envelope, s.Framing = w.envelope, w.framing
	})
}

func (w *tcpWorld) up(t *testing.T) {
	w.receivers = append(w.receivers, forwardtest.ListenTCP(t, w.addr))
}
func (w *tcpWorld) down(t *testing.T) { w.receivers[len(w.receivers)-1].Stop() }
func (w *tcpWorld) arrived(*testing.T) (all []string) {
	for _, r := range w.receivers {
		all = append(all, r.Messages()...)
	}
	return all
}

type udpWorld struct {
	addr      string
	receivers []*forwardtest.UDP
}

func (w *udpWorld) sink(t *testing.T) forward.Sink {
	if w.addr == "" {
		w.addr = freeAddr(t)
	}
	return newSink(t, "syslog", forward.Env{Host: "prg-01"}, func(settings any) {
		settings.(*forward.SyslogSettings).Endpoints = []config.URL{endpoint(t, "udp", w.addr)}
	})
}

func (w *udpWorld) up(t *testing.T) {
	w.receivers = append(w.receivers, forwardtest.ListenUDP(t, w.addr))
}
func (w *udpWorld) down(t *testing.T) { w.receivers[len(w.receivers)-1].Stop() }
func (w *udpWorld) arrived(*testing.T) (all []string) {
	for _, r := range w.receivers {
		all = append(all, r.Messages()...)
	}
	return all
}

// fileWorld is a file in a directory that comes and goes, as a mount does.
type fileWorld struct {
	dir string
}

func newFileWorld(t *testing.T) world { return &fileWorld{dir: filepath.Join(t.TempDir(), "out")} }

func (w *fileWorld) sink(t *testing.T) forward.Sink {
	return newSink(t, "file", forward.Env{}, func(settings any) {
		settings.(*forward.FileSettings).Path = filepath.Join(w.dir, "events.ndjson")
	})
}

func (w *fileWorld) up(t *testing.T) {
	if os.Rename(w.dir+".away", w.dir) != nil {
		require.NoError(t, os.Mkdir(w.dir, 0o700))
	}
}
func (w *fileWorld) down(t *testing.T) { require.NoError(t, os.Rename(w.dir, w.dir+".away")) }
func (w *fileWorld) arrived(t *testing.T) []string {
	for _, dir := range []string{w.dir, w.dir + ".away"} {
		if data, err := os.ReadFile(filepath.Join(dir, "events.ndjson")); err == nil {
			return splitLines(t, data)
		}
	}
	return nil
}

// splitLines splits whole lines; a rest without an end is not there yet.
func splitLines(t *testing.T, data []byte) []string {
	t.Helper()
	lines := strings.Split(string(data), "\n")
	return lines[:len(lines)-1]
}

// stdoutWorld is a pipe whose reader comes and goes.
type stdoutWorld struct {
	mu  sync.Mutex
	out bytes.Buffer
	on  bool
}

func (w *stdoutWorld) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.on {
		return 0, os.ErrClosed
	}
	return w.out.Write(p)
}

func (w *stdoutWorld) sink(t *testing.T) forward.Sink {
	return newSink(t, "file", forward.Env{Stdout: w}, func(settings any) { settings.(*forward.FileSettings).Path = "-" })
}
func (w *stdoutWorld) up(*testing.T)   { w.set(true) }
func (w *stdoutWorld) down(*testing.T) { w.set(false) }
func (w *stdoutWorld) set(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.on = on
}

func (w *stdoutWorld) arrived(t *testing.T) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return splitLines(t, w.out.Bytes())
}

// raws returns records that tell their number, so that they are found whatever stands before them.
func raws(from, to int, payload string) (all [][]byte) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Appendf(nil, "event=%d;%s", i, payload))
	}
	return all
}

var eventNumber = regexp.MustCompile(`event=(\d+);`)

func numbersIn(t *testing.T, messages []string) (all []int) {
	t.Helper()
	for _, message := range messages {
		found := eventNumber.FindStringSubmatch(message)
		require.NotNil(t, found, message[:min(len(message), 200)])
		n, err := strconv.Atoi(found[1])
		require.NoError(t, err)
		all = append(all, n)
	}
	return all
}

func upTo(n int) (all []int) {
	for i := 1; i <= n; i++ {
		all = append(all, i)
	}
	return all
}

// delivery is a running Forwarder.
type delivery struct {
	*forward.Forwarder
	log  *forwardtest.Log
	stop func()
}

func deliver(t *testing.T, log *forwardtest.Log, sink forward.Sink) *delivery {
	t.Helper()
	f := forward.New("soc", log, sink, forward.Options{
		State: log.State(), Retry: forward.Retry{Min: 5 * time.Millisecond, Max: 20 * time.Millisecond}, Grace: time.Second,
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(stop)
	return &delivery{Forwarder: f, log: log, stop: stop}
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, 10*time.Second, 2*time.Millisecond, what)
}

func (d *delivery) awaitCommit(t *testing.T, n int) {
	t.Helper()
	eventually(t, "commit", func() bool { return d.log.Committed() == audit.Number(n) })
}

func TestConformanceEveryEventArrivesOnceInOrder(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		log := forwardtest.NewLog()
		log.BatchEvents = 20
		log.AddRaw(raws(1, 500, "said \"hello\"")...)
		sink := w.sink(t)
		w.up(t)
		d := deliver(t, log, sink)
		d.awaitCommit(t, 500)
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= 500 })
		d.stop()
		require.Equal(t, upTo(500), numbersIn(t, w.arrived(t)))
		require.Equal(t, forward.Totals{Delivered: 500}, d.Stats().Totals)
		if _, ok := w.(*stdoutWorld); !ok {
			require.EqualValues(t, 500, d.Stats().Sink.Messages)
		}
	})
}

func TestConformanceOddBytesForgeNothing(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		var every []byte
		for b := range 256 {
			every = append(every, byte(b))
		}
		odd := [][]byte{
			every, []byte("a\n<13>1 forged"), []byte("a\r\nb"), []byte("\x00"), []byte("\xff\xfe\xc3"), []byte("12 34"),
			[]byte("\u2028\u0085\x1b[2J"), []byte(`back\slash`), []byte("\n"), []byte("end\n"),
			{},
		}
		log := forwardtest.NewLog()
		for i, o := range odd {
			log.AddRaw(append(fmt.Appendf(nil, "event=%d;", i+1), o...))
		}
		sink := w.sink(t)
		w.up(t)
		d := deliver(t, log, sink)
		d.awaitCommit(t, len(odd))
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= len(odd) })
		d.stop()
		messages := w.arrived(t)
		require.Equal(t, upTo(len(odd)), numbersIn(t, messages))
		for i, message := range messages {
			want := string(odd[i])
			if c.escapes {
				want = strings.NewReplacer("\n", `\n`, "\r", `\r`, "\x00", `\0`).Replace(want)
			}
			_, got, _ := strings.Cut(message, fmt.Sprintf("event=%d;", i+1))
			require.Equal(t, want, got)
		}
	})
}

func TestConformanceADestinationThatIsDownGetsAllWhenItIsBack(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		log := forwardtest.NewLog()
		log.BatchEvents = 20
		log.AddRaw(raws(1, 100, "before")...)
		d := deliver(t, log, w.sink(t))
		began := time.Now()
		eventually(t, "retries", func() bool { return d.Stats().Retries >= 3 })
		require.Equal(t, forward.StateRetrying, d.Stats().State)
		require.NotEmpty(t, d.Stats().LastError)
		require.Zero(t, log.Committed())
		retries := d.Stats().Retries
		require.LessOrEqual(t, retries, uint64(time.Since(began)/(5*time.Millisecond))+1, "back-off")
		w.up(t)
		d.awaitCommit(t, 100)
		eventually(t, "recovery", func() bool { return d.Stats().State == forward.StateOK })
		d.stop()
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= 100 })
		requireAllInOrder(t, d, w, 100)
	})
}

func TestConformanceAnOutageInTheMiddleLosesNothing(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		log := forwardtest.NewLog()
		log.BatchEvents = 20
		log.AddRaw(raws(1, 100, "before")...)
		sink := w.sink(t)
		w.up(t)
		d := deliver(t, log, sink)
		d.awaitCommit(t, 100)
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) == 100 })
		w.down(t)
		if c.noticing {
			eventually(t, "noticing", func() bool { return d.Stats().Sink.Closed == 1 })
		}
		log.AddRaw(raws(101, 200, "after")...)
		retries := d.Stats().Retries
		eventually(t, "retries", func() bool { return d.Stats().Retries > retries+1 })
		w.up(t)
		d.awaitCommit(t, 200)
		d.stop()
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= 200 })
		requireAllInOrder(t, d, w, 200)
	})
}

// requireAllInOrder requires that all n events arrived, in order but for what came again, and that what came again was
// counted.
func requireAllInOrder(t *testing.T, d *delivery, w world, n int) {
	t.Helper()
	highest, doubles := 0, 0
	for _, number := range numbersIn(t, w.arrived(t)) {
		if number <= highest {
			doubles++
			continue
		}
		require.Equal(t, highest+1, number, "a gap")
		highest = number
	}
	require.Equal(t, n, highest)
	s := d.Stats()
	require.EqualValues(t, n, s.Delivered)
	require.LessOrEqual(t, uint64(doubles), s.Resent)
	if s.Retries == 0 {
		require.Zero(t, doubles, "doubles come after errors only")
	}
}

func TestConformanceAStopInTheMiddleNeitherLosesNorDoubles(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		log := forwardtest.NewLog()
		log.BatchEvents = 7
		log.AddRaw(raws(1, 400, "steady")...)
		w.sink(t) // fixes the address
		w.up(t)
		rounds := 0
		for ; log.Committed() < 300; rounds++ {
			require.Less(t, rounds, 100)
			log.Restart()
			sink := w.sink(t)
			f := forward.New("soc", log, sink, forward.Options{State: log.State()})
			ctx, cancel := context.WithCancel(t.Context())
			log.OnRead = func(reads int) { // the stop comes while a batch is being sent and another was just read
				if reads%6 == 0 {
					cancel()
				}
			}
			require.NoError(t, f.Run(ctx))
			cancel()
			require.NoError(t, sink.Close())
			require.EqualValues(t, f.Stats().Delivered, log.Committed(), "what was delivered is committed")
			// A receiver reads its connections side by side, so the next one waits for this one's messages.
			eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= int(log.Committed()) })
		}
		require.Greater(t, rounds, 3)
		log.OnRead = nil
		log.Restart()
		d := deliver(t, log, w.sink(t))
		d.awaitCommit(t, 400)
		d.stop()
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= 400 })
		require.Equal(t, upTo(400), numbersIn(t, w.arrived(t)))
		require.Equal(t, forward.Totals{Delivered: 400}, d.Stats().Totals)
	})
}

func TestConformanceRenderShowsWhatIsSent(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		log := forwardtest.NewLog()
		log.AddRaw([]byte("event=1;\r\n\x00\xff"))
		sink := w.sink(t)
		ev := forwardtest.Event([]byte("event=1;\r\n\x00\xff"))
		ev.Number, ev.ID = 1, audit.PlaceID(forwardtest.LogID, 1)
		want := sink.(forward.Renderer).Render([]byte("before "), &ev)
		w.up(t)
		d := deliver(t, log, sink)
		d.awaitCommit(t, 1)
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) == 1 })
		d.stop()
		require.Equal(t, string(want), "before "+w.arrived(t)[0])
	})
}

func TestConformanceBigEvents(t *testing.T) {
	forEach(t, func(t *testing.T, c conformer, w world) {
		payload := strings.Repeat("š", 512<<10) // 1 MiB of two-byte characters
		log := forwardtest.NewLog()
		log.BatchEvents = 3
		log.AddRaw(raws(1, 5, payload)...)
		sink := w.sink(t)
		w.up(t)
		d := deliver(t, log, sink)
		d.awaitCommit(t, 5)
		eventually(t, "arrival", func() bool { return len(w.arrived(t)) >= 5 })
		d.stop()
		messages := w.arrived(t)
		require.Equal(t, upTo(5), numbersIn(t, messages))
		for _, message := range messages {
			if c.sizeMax > 0 {
				require.LessOrEqual(t, len(message), c.sizeMax)
				require.GreaterOrEqual(t, len(message), c.sizeMax-1)
				require.True(t, strings.HasSuffix(message, "š"), "cut at the end of a character")
				continue
			}
			require.True(t, strings.HasSuffix(message, payload))
		}
		if c.sizeMax > 0 {
			require.EqualValues(t, 5, d.Stats().Sink.Cut)
		}
	})
}
