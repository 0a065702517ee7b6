package relay

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/config"
)

// parse reads a configuration of the test.
func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), Kinds())
	require.NoError(t, err)
	return cfg
}

// build makes a relay whose log goes to the returned buffer.
func build(t *testing.T, cfg *config.Config) (*Relay, *syncBuffer) {
	t.Helper()
	log := new(syncBuffer)
	r, err := New(cfg, Options{Logger: slog.New(slog.NewTextHandler(log, nil)), Stdout: log})
	require.NoError(t, err)
	return r, log
}

// syncBuffer is a buffer that several goroutines may write to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) contains(text string) bool { return strings.Contains(b.String(), text) }

// running starts a relay and returns the function that stops it and waits for its end.
func running(t *testing.T, r *Relay) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() {
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(30 * time.Second):
			t.Fatal("the relay did not stop")
		}
	}
}

// lineReceiver takes lines on one TCP address, as often as it is opened.
type lineReceiver struct {
	mu    sync.Mutex
	lines []string
}

// open accepts until the returned function is called, which returns when all that was sent is read.
func (l *lineReceiver) open(t *testing.T, address string) (closeAll func(), bound string) {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	require.NoError(t, err)
	var conns sync.WaitGroup
	conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns.Go(func() {
				scanner := bufio.NewScanner(conn)
				scanner.Buffer(nil, 4<<20)
				for scanner.Scan() {
					l.mu.Lock()
					l.lines = append(l.lines, scanner.Text())
					l.mu.Unlock()
				}
			})
		}
	})
	return func() {
		require.NoError(t, listener.Close())
		conns.Wait()
	}, listener.Addr().String()
}

func (l *lineReceiver) sessions() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return sessionsIn(strings.Join(l.lines, "\n"))
}

var sessionPattern = regexp.MustCompile(`cs1=(s-\d+) `)

func sessionsIn(text string) map[string]int {
	found := map[string]int{}
	for _, m := range sessionPattern.FindAllStringSubmatch(text, -1) {
		found[m[1]]++
	}
	return found
}

const netopHeader = "Source,Session,User Id,User Name,Account Id,Entity Type,Action,Entity Id,Entity Name,Result Code,Data,Action timestamp,Action date,Environment\n"

func netopRow(i int) string {
	return fmt.Sprintf("portal,s-%d,700,tom,5001,USER,LOGIN,700,Tom,0,\"{\"\"public_ip\"\": \"\"198.51.100.8\"\"}\",%d,,live\n", i, 1735722000+i)
}

// TestNothingLostAcrossRestartsAndAnOutage appends to a file while the relay is stopped and started, one destination being
// down for most of the time: both get every record once.
func TestNothingLostAcrossRestartsAndAnOutage(t *testing.T) {
	dir := t.TempDir()
	report := filepath.Join(dir, "report.csv")
	require.NoError(t, os.WriteFile(report, []byte(netopHeader), 0o600))
	var receiver lineReceiver
	closeReceiver, address := receiver.open(t, "127.0.0.1:0")
	closeReceiver() // the destination is down until the last round
	cfg := parse(t, fmt.Sprintf(`
version: 1
relay: {id: test}
data_dir: %[1]s/data
collect:
  portal: {type: file, paths: ["%[1]s/report*.csv"], product: netop, poll_interval: 20ms}
forward:
  soc: {type: syslog, endpoints: ["tcp://%[2]s"], format: cef, start_at: oldest}
  archive: {type: file, path: "%[1]s/out.cef", format: cef, start_at: oldest}
`, dir, address))

	const rounds, each = 4, 500
	written := 0
	for round := range rounds {
		if round == rounds-1 {
			closeReceiver, _ = receiver.open(t, address)
		}
		r, log := build(t, cfg)
		stop := running(t, r)
		f, err := os.OpenFile(report, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		for range each {
			_, err := f.WriteString(netopRow(written))
			require.NoError(t, err)
			written++
		}
		require.NoError(t, f.Close())
		out := filepath.Join(dir, "out.cef")
		require.Eventually(t, func() bool {
			content, err := os.ReadFile(out)
			return err == nil && len(sessionsIn(string(content))) == written
		}, 20*time.Second, 20*time.Millisecond, "%s", log)
		if round == rounds-1 {
			require.Eventually(t, func() bool { return len(receiver.sessions()) == written }, 20*time.Second, 20*time.Millisecond, "%s", log)
		}
		stop()
		require.NotContains(t, log.String(), "does not close")
	}
	closeReceiver()

	content, err := os.ReadFile(filepath.Join(dir, "out.cef"))
	require.NoError(t, err)
	for name, got := range map[string]map[string]int{"archive": sessionsIn(string(content)), "soc": receiver.sessions()} {
		require.Len(t, got, rounds*each, name)
		for i := range rounds * each {
			require.Equal(t, 1, got[fmt.Sprint("s-", i)], "%s, record %d", name, i)
		}
	}
}

// TestASecondRunDeliversNothingTwice is what make demo promises.
func TestASecondRunDeliversNothingTwice(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.csv"), []byte(netopHeader+netopRow(0)+netopRow(1)), 0o600))
	cfg := parse(t, fmt.Sprintf(`
version: 1
data_dir: %[1]s/data
collect:
  portal: {type: file, paths: ["%[1]s/*.csv"], product: netop}
forward:
  archive: {type: file, path: "%[1]s/out.json", format: json, start_at: oldest}
`, dir))
	var before []byte
	for round := range 2 {
		r, log := build(t, cfg)
		sheet, err := r.RunOnce(context.Background(), 20*time.Second)
		require.NoError(t, err, "%s", log)
		require.Equal(t, SourceSheet{Accepted: 2, Stored: 2}, sheet.Sources[0].SourceSheet)
		require.Equal(t, uint64(2), sheet.Destinations[0].Delivered)
		after, err := os.ReadFile(filepath.Join(dir, "out.json"))
		require.NoError(t, err)
		if round > 0 {
			require.Equal(t, string(before), string(after))
		}
		before = after
	}
}

// TestRunOnceSaysWhatItCouldNotDeliver keeps the backlog of a dead destination and names it.
func TestRunOnceSaysWhatItCouldNotDeliver(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.csv"), []byte(netopHeader+netopRow(0)), 0o600))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	cfg := parse(t, fmt.Sprintf(`
version: 1
data_dir: %[1]s/data
collect:
  portal: {type: file, paths: ["%[1]s/*.csv", "%[1]s/missing.csv"], product: netop}
forward:
  soc: {type: syslog, endpoints: ["tcp://%[2]s"], format: cef, start_at: oldest}
`, dir, address))
	r, log := build(t, cfg)
	sheet, err := r.RunOnce(context.Background(), 2*time.Second)
	require.ErrorIs(t, err, ErrUndelivered, "%s", log)
	require.Equal(t, uint64(1), sheet.Destinations[0].Queued)
	require.True(t, sheet.Closes())
	var text strings.Builder
	require.NoError(t, sheet.WriteText(&text))
	require.Contains(t, text.String(), "connection refused")
	require.Contains(t, text.String(), "missing.csv")
}
