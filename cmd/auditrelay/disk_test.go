package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// What the queue logs when it has no space, and when it has again.
const (
	logFull  = "queue is full"
	logSpace = "queue has space again"
)

// goesOnWithin is how soon the program must take records again by itself when there is space.
const goesOnWithin = 5 * time.Second

// diskDaemon is the program with a destination on its standard output, behind a gate that the test closes: a destination
// that is dead, and alive again at once.
type diskDaemon struct {
	cmd       *exec.Cmd
	log       sharedLog
	gate      sync.Mutex
	delivered atomic.Int64 // lines
	copied    chan error
	stopped   bool
}

// sharedLog is a buffer that a child writes to while the test reads it.
type sharedLog struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *sharedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *sharedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *sharedLog) count(text string) int { return strings.Count(l.String(), text) }

// startDiskDaemon starts the program; what it delivers is appended to out.
func startDiskDaemon(t *testing.T, cfg, out string) *diskDaemon {
	t.Helper()
	file, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	d := &diskDaemon{cmd: program(t, "run", "-c", cfg), copied: make(chan error, 1)}
	d.cmd.Stderr = &d.log
	stdout, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	go func() { d.copied <- errors.Join(d.copy(file, stdout), file.Close()) }()
	t.Cleanup(func() {
		if !d.stopped {
			t.Logf("it holds open %q and said:\n%s", openDeleted(d.cmd.Process.Pid), &d.log)
			_ = d.cmd.Process.Kill() // the test has failed
			_ = d.cmd.Wait()
		}
	})
	return d
}

// openDeleted returns the files that a process holds open although they are deleted: their space is not free.
func openDeleted(pid int) (list []string) {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // only for a message
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && strings.HasSuffix(path, "(deleted)") {
			list = append(list, path)
		}
	}
	return list
}

func (d *diskDaemon) copy(file *os.File, stdout io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := stdout.Read(buf)
		d.gate.Lock() // waits while the gate is closed
		_, writeErr := file.Write(buf[:n])
		d.gate.Unlock()
		if writeErr != nil {
			return writeErr
		}
		d.delivered.Add(int64(strings.Count(string(buf[:n]), "\n")))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// stop ends the program and returns when all that it delivered is written.
func (d *diskDaemon) stop(t *testing.T) {
	t.Helper()
	require.NoError(t, d.cmd.Process.Signal(syscall.SIGTERM), "it had ended by itself")
	require.NoError(t, <-d.copied)
	require.NoError(t, d.cmd.Wait())
	d.stopped = true
	requireSoundLog(t, d.log.String())
}

// await waits until the condition holds and fails with the daemon's log otherwise.
func (d *diskDaemon) await(t *testing.T, within time.Duration, what string, condition func() bool) (took time.Duration) {
	t.Helper()
	start := time.Now()
	if !assertEventually(condition, within) {
		t.Fatalf("not within %v: %s; %d delivered", within, what, d.delivered.Load())
	}
	return time.Since(start)
}

// mountSmallDisk mounts a tmpfs for the time of the test.
func mountSmallDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "disk")
	require.NoError(t, os.Mkdir(dir, 0o700))
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		skipUnlessCI(t, "a small disk cannot be mounted (%v): run as root", err)
	}
	t.Cleanup(func() {
		if unix.Unmount(dir, 0) != nil {
			require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH))
		}
	})
	return dir
}

// fillDisk writes a file until there is no space, or of the given size.
func fillDisk(t *testing.T, path string, size int) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	block := make([]byte, 64<<10)
	for written := 0; size < 0 || written < size; {
		n, err := f.Write(block)
		written += n
		if errors.Is(err, syscall.ENOSPC) && size < 0 {
			break
		}
		require.NoError(t, err)
	}
	require.NoError(t, f.Close())
}

func diskConfig(t *testing.T, dir, data, in, maxSize string) string {
	t.Helper()
	return writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: disk}
data_dir: %s
collect:
  in: {type: file, paths: ["%s"], format: text, product: generic, max_record: 64KiB, poll_interval: 20ms}
queue: {max_size: %s}
forward:
  out: {type: file, path: "-", format: json, start_at: oldest}
`, data, in, maxSize))
}

func fullRounds() int {
	if testing.Short() {
		return 5
	}
	return 20
}

// TestDiskFullFillAndFree fills a disk of 24 MiB 20 times, by what others write and by a backlog for a dead destination. The
// program lives, the file waits, and it goes on by itself when somebody deletes a file or the destination comes back.
func TestDiskFullFillAndFree(t *testing.T) {
	dir, disk := t.TempDir(), mountSmallDisk(t, "24m")
	fillDisk(t, filepath.Join(disk, "others"), 23<<20)
	in, out, ballast := filepath.Join(dir, "in.log"), filepath.Join(dir, "out.json"), filepath.Join(disk, "ballast")
	cfg := diskConfig(t, dir, filepath.Join(disk, "data"), in, "1GiB")
	sent := &ledger{}
	d := startDiskDaemon(t, cfg, out)
	var slowest time.Duration
	for round := range fullRounds() {
		full, space := d.log.count(logFull), d.log.count(logSpace)
		if round%2 == 0 {
			d.gate.Lock()
			appendRecords(t, in, "in", 4500, sent)
			d.await(t, 20*time.Second, "full of its backlog", func() bool { return d.log.count(logFull) > full })
			require.Less(t, d.delivered.Load(), int64(sent.total()))
			d.gate.Unlock()
		} else {
			fillDisk(t, ballast, -1)
			appendRecords(t, in, "in", 2000, sent)
			d.await(t, 20*time.Second, "full of other files", func() bool { return d.log.count(logFull) > full })
			require.NoError(t, os.Remove(ballast))
		}
		slowest = max(slowest, d.await(t, goesOnWithin, "space again", func() bool { return d.log.count(logSpace) > space }))
		d.await(t, 30*time.Second, "all delivered", func() bool { return d.delivered.Load() >= int64(sent.total()) })
	}
	d.stop(t)
	requireEachOnce(t, out, sent)
	require.Zero(t, runOnce(t, cfg).Undelivered())
	t.Logf("%d times full, %d records, went on after %v at most", fullRounds(), sent.total(), slowest.Round(time.Millisecond))
}

// TestDiskFullOfMaxSize does the same with queue.max_size as the limit.
func TestDiskFullOfMaxSize(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.log"), filepath.Join(dir, "out.json")
	cfg := diskConfig(t, dir, filepath.Join(dir, "data"), in, "1MiB")
	sent := &ledger{}
	d := startDiskDaemon(t, cfg, out)
	var slowest time.Duration
	for range fullRounds() {
		full, space := d.log.count(logFull), d.log.count(logSpace)
		d.gate.Lock()
		appendRecords(t, in, "in", 4500, sent)
		d.await(t, 20*time.Second, "full of its backlog", func() bool { return d.log.count(logFull) > full })
		require.Less(t, d.delivered.Load(), int64(sent.total()))
		require.LessOrEqual(t, diskUsage(t, filepath.Join(dir, "data", "queue")), int64(1<<20))
		d.gate.Unlock()
		slowest = max(slowest, d.await(t, goesOnWithin, "space again", func() bool { return d.log.count(logSpace) > space }))
		d.await(t, 30*time.Second, "all delivered", func() bool { return d.delivered.Load() >= int64(sent.total()) })
	}
	d.stop(t)
	requireEachOnce(t, out, sent)
	require.Zero(t, runOnce(t, cfg).Undelivered())
	t.Logf("%d times full, %d records, went on after %v at most", fullRounds(), sent.total(), slowest.Round(time.Millisecond))
}

// TestDiskFullToTheLastByte fills the disk with one small message after the other over many TCP connections while the
// destination is dead: the large appends of a file leave some space behind, these leave nothing. When the destination
// comes back, all that is on the disk is delivered and can go, so the program must find a way to make room.
func TestDiskFullToTheLastByte(t *testing.T) {
	dir, disk := t.TempDir(), mountSmallDisk(t, "24m")
	fillDisk(t, filepath.Join(disk, "others"), 23<<20)
	out := filepath.Join(dir, "out.json")
	address := ownAddress(rand.New(rand.NewPCG(crashSeed(t), 7)))
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: disk}
data_dir: %s/data
collect:
  wire: {type: syslog, listen: ["tcp://%s"], product: generic}
queue: {max_size: 1GiB}
forward:
  out: {type: file, path: "-", format: json, start_at: oldest}
`, disk, address))
	sent := &ledger{}
	d := startDiskDaemon(t, cfg, out)
	d.gate.Lock()
	opened := false
	defer func() {
		if !opened {
			d.gate.Unlock()
		}
	}()
	stop := make(chan struct{})
	var senders sync.WaitGroup
	for i := range 8 {
		senders.Go(func() { sendSlowly(t, address, fmt.Sprint("tcp", i), sent, stop) })
	}
	d.await(t, 40*time.Second, "full of its backlog", func() bool { return d.log.count(logFull) > 0 })
	d.await(t, 20*time.Second, "not a page left", func() bool {
		var st unix.Statfs_t
		return unix.Statfs(disk, &st) == nil && st.Bavail == 0
	})
	close(stop)
	senders.Wait()
	space := d.log.count(logSpace)
	opened = true
	d.gate.Unlock()
	took := d.await(t, goesOnWithin, "space again", func() bool { return d.log.count(logSpace) > space })
	d.await(t, 30*time.Second, "all delivered", func() bool { return d.delivered.Load() >= int64(sent.total()) })
	d.stop(t)
	requireEachOnce(t, out, sent)
	t.Logf("%d records, went on after %v", sent.total(), took.Round(time.Millisecond))
}

// sendSlowly sends one record after the other over one connection, so that most come into an append of their own.
func sendSlowly(t *testing.T, address, stream string, sent *ledger, stop <-chan struct{}) {
	var conn net.Conn
	if !assertEventually(func() (ok bool) {
		var err error
		conn, err = net.Dial("tcp", address)
		return err == nil
	}, 20*time.Second) {
		t.Errorf("nobody listens on %s", address)
		return
	}
	ticker := time.NewTicker(200 * time.Microsecond)
	defer ticker.Stop()
	for {
		select {
		case <-stop:
			if err := conn.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			return
		case <-ticker.C:
		}
		if _, err := conn.Write([]byte(sent.next(stream) + "\n")); err != nil {
			t.Errorf("send: %v", err)
			return
		}
	}
}

// diskUsage returns the bytes of the segments in a queue directory.
func diskUsage(t *testing.T, queue string) (n int64) {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(queue, "*.seg"))
	require.NoError(t, err)
	for _, path := range segments {
		if info, err := os.Stat(path); err == nil { // it may be gone by now
			n += info.Size()
		}
	}
	return n
}

// requireEachOnce fails unless out holds every record that was sent, in order, and none twice.
func requireEachOnce(t *testing.T, out string, sent *ledger) {
	t.Helper()
	a, err := readAccount(out, sent)
	require.NoError(t, err)
	require.Equal(t, sent.sent, a.streams)
	require.Zero(t, a.resent, "delivered again")
	require.Zero(t, a.torn, "torn lines")
}
