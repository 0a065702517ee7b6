package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// killsPerRound is after how many kills everything is checked and a new queue is begun.
const killsPerRound = 25

// TestCrashKilledUnderLoad kills the program with SIGKILL at random moments, during its start as well as at work, while a
// file grows and several senders talk syslog over TCP to it, and starts it again each time. In the end a file destination
// and a syslog destination must hold each record of the file once and in order, and of each TCP connection a beginning
// without gaps: plain TCP has no acknowledgement, so what a dead process had not stored is gone, and nothing else.
func TestCrashKilledUnderLoad(t *testing.T) {
	random := rand.New(rand.NewPCG(crashSeed(t), 1))
	for kills := crashes(t, 12, 3); kills > 0; kills -= killsPerRound {
		crashRound(t, random, min(kills, killsPerRound))
	}
}

func crashRound(t *testing.T, random *rand.Rand, kills int) {
	dir := t.TempDir()
	in, out, soc := filepath.Join(dir, "growing.log"), filepath.Join(dir, "out.json"), filepath.Join(dir, "soc.json")
	receiver := startCrashReceiver(t, soc)
	address := ownAddress(random)
	// A small queue, so that segments begin and go all the time.
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: crash}
data_dir: %[1]s/data
collect:
  growing: {type: file, paths: ["%[2]s"], format: text, product: generic, poll_interval: 20ms, partial_after: 1h}
  wire: {type: syslog, listen: ["tcp://%[3]s"], product: generic}
queue: {max_size: 16MiB}
forward:
  archive: {type: file, path: "%[4]s", format: json, max_size: 10GiB, start_at: oldest}
  soc: {type: syslog, endpoints: ["tcp://%[5]s"], envelope: none, format: json, start_at: oldest}
`, dir, in, address, out, receiver.address))

	sent := &ledger{}
	stop := make(chan struct{})
	var load sync.WaitGroup
	writer := rand.New(rand.NewPCG(random.Uint64(), 2))
	load.Go(func() {
		if err := growFile(in, "growing", 5000, sent, writer, stop); err != nil {
			t.Errorf("write the file: %v", err)
		}
	})
	for i := range 4 {
		source := rand.New(rand.NewPCG(random.Uint64(), 3))
		load.Go(func() { talkSyslog(address, fmt.Sprint("tcp", i), sent, source, stop) })
	}
	for i := range kills {
		killOnce(t, random, cfg, out, i)
	}
	close(stop)
	load.Wait()

	sheet := runOnce(t, cfg)
	receiver.close(t)
	archive, err := readAccount(out, sent)
	require.NoError(t, err, "archive")
	atSoc, err := readAccount(soc, sent)
	require.NoError(t, err, "soc")
	require.Equal(t, archive.streams, atSoc.streams)
	archive.requireFiles(t, "growing", sent)
	fromFile := sent.of("growing")
	requireStored(t, sheet, "growing", fromFile)
	requireStored(t, sheet, "wire", archive.events-fromFile)
	require.Greater(t, archive.events, fromFile, "nothing came over TCP")
	require.LessOrEqual(t, archive.torn, kills)
	for _, d := range sheet.Destinations {
		require.Equal(t, uint64(archive.events), d.Delivered, d.ID)
	}
	t.Logf("%d kills: %d records of the file, %d over %d TCP connections (%d of those sent were lost with the dead process); "+
		"delivered again: file %d, syslog %d; %d torn lines", kills, fromFile, archive.events-fromFile, len(archive.streams)-1,
		sent.total()-archive.events, archive.resent, atSoc.resent, archive.torn)
}

// ownAddress returns an address of this machine where nobody else takes the port while the program is down.
func ownAddress(random *rand.Rand) string {
	return fmt.Sprintf("127.%d.%d.%d:5514", 2+random.IntN(250), 1+random.IntN(250), 1+random.IntN(250))
}

// killOnce starts the program and kills it: each fourth time while it starts, else at work.
func killOnce(t *testing.T, random *rand.Rand, cfg, out string, i int) {
	t.Helper()
	size := func() int64 {
		if info, err := os.Stat(out); err == nil {
			return info.Size()
		}
		return 0
	}
	before := size()
	cmd := program(t, "run", "--log-level", "warn", "-c", cfg)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	if i%4 == 3 {
		<-time.After(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
	} else {
		worked := assertEventually(func() bool { return size() > before }, 30*time.Second)
		<-time.After(time.Duration(random.Int64N(int64(250 * time.Millisecond))))
		defer func() { require.True(t, worked, "no progress: %s", &log) }()
	}
	require.NoError(t, cmd.Process.Kill(), "it ended by itself: %s", &log)
	require.ErrorContains(t, cmd.Wait(), "killed", "it ended by itself: %s", &log)
	requireSoundLog(t, log.String())
}

// requireSoundLog fails if the program said that it was not well.
func requireSoundLog(t *testing.T, log string) {
	t.Helper()
	for _, word := range []string{"panic", "DATA RACE", "queue damaged", "are missing", "does not close", "cannot be read", "level=ERROR"} {
		require.NotContains(t, log, word)
	}
}

// assertEventually waits until the condition holds and reports whether it did in time.
func assertEventually(condition func() bool, within time.Duration) bool {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(within); time.Now().Before(end); <-ticker.C {
		if condition() {
			return true
		}
	}
	return false
}

func (l *ledger) total() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sent := range l.sent {
		n += sent
	}
	return n
}

// talkSyslog sends records over one TCP connection after the other until stop is closed; each connection is a stream. It
// sends whole lines, about 1,500 a second.
func talkSyslog(address, name string, sent *ledger, random *rand.Rand, stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { <-stop; cancel() }()
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	for connection := 0; ctx.Err() == nil; connection++ {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		for bursts := random.IntN(200); err == nil && bursts > 0; bursts-- {
			var lines strings.Builder
			for range random.IntN(6) {
				lines.WriteString(sent.next(fmt.Sprint(name, "-", connection)) + "\n")
			}
			_, err = conn.Write([]byte(lines.String()))
			select {
			case <-ctx.Done():
				err = ctx.Err()
			case <-ticker.C:
			}
		}
		if conn != nil {
			_ = conn.Close() // mostly the program is dead
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// crashReceiver takes lines over TCP and writes them to a file.
type crashReceiver struct {
	address  string
	listener net.Listener
	conns    sync.WaitGroup

	mu   sync.Mutex
	file *os.File
	err  error
}

func startCrashReceiver(t *testing.T, path string) *crashReceiver {
	t.Helper()
	file, err := os.Create(path)
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() }) // a second time does no harm
	r := &crashReceiver{address: listener.Addr().String(), listener: listener, file: file}
	r.conns.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			r.conns.Go(func() { r.receive(conn) })
		}
	})
	return r
}

func (r *crashReceiver) receive(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	lines := bufio.NewScanner(conn) // a line that a kill cut comes as a line of its own
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		r.mu.Lock()
		_, err := r.file.WriteString(lines.Text() + "\n")
		if r.err == nil {
			r.err = err
		}
		r.mu.Unlock()
	}
}

// close returns when all that was sent is in the file. The senders must have ended.
func (r *crashReceiver) close(t *testing.T) {
	t.Helper()
	require.NoError(t, r.listener.Close())
	r.conns.Wait()
	require.NoError(t, r.err)
	require.NoError(t, r.file.Close())
}
