package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/relay"
)

// daemonConfig writes a configuration with a control socket: one report of n records to one archive.
func daemonConfig(t *testing.T, dir string, n int) (path string) {
	t.Helper()
	writeNetopReport(t, filepath.Join(dir, "report.csv"), n)
	return writeFile(t, dir, "relay.yaml", fmt.Sprintf(`
version: 1
relay: {id: test}
data_dir: %[1]s/data
admin: {socket: %[1]s/control.sock}
collect:
  portal: {type: file, paths: ["%[1]s/report.csv"], product: netop}
forward:
  archive: {type: file, format: json, path: "%[1]s/out.json", start_at: oldest}
`, dir))
}

// command runs one command line to its end and returns what it printed and its exit code.
func command(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(t, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		exit := new(exec.ExitError)
		require.ErrorAs(t, err, &exit)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// startDaemon starts one and waits until it has delivered n events. The returned function stops it and waits.
func startDaemon(t *testing.T, config string, n uint64) (stop func()) {
	t.Helper()
	cmd := program(t, "run", "-c", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // in case the test failed before it stopped
	require.Eventually(t, func() bool {
		out, _, code := command(t, "status", "--json", "-c", config)
		var status relay.Status
		return code == exitOK && json.Unmarshal([]byte(out), &status) == nil && status.Sheet.Destinations[0].Delivered == n
	}, 30*time.Second, 50*time.Millisecond)
	return func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(t, <-ended, "%s", &log)
	}
}

// TestCommandsSayTheSameOfARunningAndAStoppedDaemon runs each command against both.
func TestCommandsSayTheSameOfARunningAndAStoppedDaemon(t *testing.T) {
	dir := t.TempDir()
	config := daemonConfig(t, dir, 50)
	stop := startDaemon(t, config, 50)
	out, _, code := command(t, "status", "-c", config)
	require.Equal(t, exitOK, code)
	require.Contains(t, out, "health: green")
	require.Contains(t, out, "portal       50 =     50 +")

	export := filepath.Join(dir, "export.ndjson")
	asked := [][]string{
		{"queue", "cat", "--from", "10", "--to", "12", "--format", "cef"},
		{"queue", "cat", "--from", "2000-01-01T00:00:00Z"},
		{"queue", "check"},
		{"queue", "cat", "--from", "60"},
		{"queue", "export", "--from", "5", "--out", export},
		{"queue", "forget", "nobody"},
	}
	var running []string
	for _, args := range asked {
		out, _, code := command(t, append(args, "-c", config)...)
		running = append(running, fmt.Sprint(code, " ", out))
	}
	content, err := os.ReadFile(export)
	require.NoError(t, err)
	require.Equal(t, fmt.Sprintf("0 %s: 46 events, sha256 %x\n", export, sha256.Sum256(content)), running[4])
	require.Equal(t, 46, bytes.Count(content, []byte("\n")))
	require.True(t, strings.HasPrefix(running[0], "0 CEF:0|"), running[0])
	require.Equal(t, "1 ", running[3])
	_, errs, code := command(t, "queue", "adopt", "-c", config)
	require.Equal(t, exitLocked, code, "not while it runs")
	require.Contains(t, errs, "stop it")
	_, errs, code = command(t, "queue", "forget", "archive", "-c", config)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "in use")
	stop()

	for i, args := range asked {
		out, _, code := command(t, append(args, "-c", config)...)
		require.Equal(t, running[i], fmt.Sprint(code, " ", out), "%q", args)
	}
	_, errs, code = command(t, "status", "-c", config)
	require.Equal(t, exitUnreachable, code)
	require.Contains(t, errs, "no daemon answers on "+dir+"/control.sock")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 5, "nothing is left beside report, configuration, data, output and export: %v", entries)
}

func TestReplayInARunningAndAStoppedDaemon(t *testing.T) {
	dir := t.TempDir()
	config := daemonConfig(t, dir, 50)
	stop := startDaemon(t, config, 50)
	replay := func() {
		_, errs, code := command(t, "replay", "--from", "49", "--destination", "archive", "-c", config)
		require.Equal(t, exitOK, code)
		require.Contains(t, errs, "replayed to archive: 2 events sent, 0 refused for good, 0 sent more than once; complete")
	}
	replay()
	stop()
	replay()
	stop = startDaemon(t, config, 50)
	out, _, _ := command(t, "status", "--json", "-c", config)
	var status relay.Status
	require.NoError(t, json.Unmarshal([]byte(out), &status))
	require.Equal(t, uint64(4), status.Destinations[0].Replayed)
	stop()
	d := readDelivered(t, filepath.Join(dir, "out.json"))
	d.requireAll(t, 50)
	require.Equal(t, 4, d.resent)
}

// TestAReplayStopsOnASignalAndSaysHowFarItCame sends SIGINT to a replay whose destination is down, once in a daemon and once
// on its own.
func TestAReplayStopsOnASignalAndSaysHowFarItCame(t *testing.T) {
	dir := t.TempDir()
	config := daemonConfig(t, dir, 5)
	content, err := os.ReadFile(config)
	require.NoError(t, err)
	config = writeFile(t, dir, "relay.yaml", string(content)+
		"  soc: {type: syslog, endpoints: [\"tcp://127.0.0.1:1\"], start_at: oldest}\n") // nobody listens on port 1
	interrupt := func(underway func(printed string) bool) string {
		replay := program(t, "replay", "--destination", "soc", "-c", config)
		var printed sharedText
		replay.Stderr = &printed
		require.NoError(t, replay.Start())
		require.Eventually(t, func() bool { return underway(printed.String()) }, 20*time.Second, 20*time.Millisecond)
		require.NoError(t, replay.Process.Signal(syscall.SIGINT))
		require.Error(t, replay.Wait())
		require.Equal(t, exitFailed, replay.ProcessState.ExitCode(), printed.String())
		return printed.String()
	}
	stop := startDaemon(t, config, 5)
	require.Contains(t, interrupt(func(string) bool {
		text, _, _ := command(t, "status", "--json", "-c", config)
		var status relay.Status
		return json.Unmarshal([]byte(text), &status) == nil && len(status.Destinations) > 1 &&
			status.Destinations[1].Replaying != nil && status.Destinations[1].Replaying.Error != ""
	}), "stopped by a signal")
	stop()
	text := interrupt(func(printed string) bool { return strings.Contains(printed, "will be tried again") })
	require.Contains(t, text, "stopped by a signal: stopped at event 0 of 1..5")
	require.Contains(t, text, "replayed to soc: 0 events sent, 0 refused for good, 0 sent more than once; not complete")
}

// sharedText is what a child printed so far.
type sharedText struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *sharedText) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *sharedText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// TestDamageIsNamedAndAllElseComesOut flips a bit in the queue of a stopped daemon.
func TestDamageIsNamedAndAllElseComesOut(t *testing.T) {
	dir := t.TempDir()
	config := daemonConfig(t, dir, 1)
	for i := 2; i <= 4; i++ { // one frame each
		_, errs, code := command(t, "run", "--once", "--log-level", "error", "-c", config)
		require.Equal(t, exitOK, code, errs)
		writeNetopReport(t, filepath.Join(dir, "report.csv"), i)
	}
	_, errs, code := command(t, "run", "--once", "--log-level", "error", "-c", config)
	require.Equal(t, exitOK, code, errs)
	whole, _, _ := command(t, "queue", "cat", "-c", config)
	lines := strings.SplitAfter(whole, "\n")

	segment := filepath.Join(dir, "data/queue/00000000000000000001.seg")
	content, err := os.ReadFile(segment)
	require.NoError(t, err)
	content[bytes.Index(content, []byte("HOST,s-1,"))] ^= 1
	require.NoError(t, os.WriteFile(segment, content, 0o600))

	out, _, code := command(t, "queue", "check", "-c", config)
	require.Equal(t, exitFailed, code)
	require.Contains(t, out, "1 damaged ranges\n")
	require.Contains(t, out, "events 2..2 are lost: ")
	out, errs, code = command(t, "queue", "cat", "-c", config)
	require.Equal(t, exitFailed, code)
	require.Equal(t, lines[0]+lines[2]+lines[3], out)
	require.Contains(t, errs, "events 2..2 are lost: the queue is damaged there")
	_, errs, code = command(t, "replay", "--destination", "archive", "-c", config)
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "3 events sent")
	require.Contains(t, errs, "events 2..2 are lost")
}
