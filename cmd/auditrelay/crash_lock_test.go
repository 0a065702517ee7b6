package main

import (
	"bytes"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCrashSecondDaemonOnOneDataDir starts a second daemon, and a run --once, beside one that runs: both end with exit code
// 75 and say who is there, and the first goes on. When it was killed another one can start at once.
func TestCrashSecondDaemonOnOneDataDir(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.log"), filepath.Join(dir, "out.json")
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: crash}
data_dir: %[1]s/data
collect:
  in: {type: file, paths: ["%[2]s"], format: text, product: generic, poll_interval: 20ms}
forward:
  archive: {type: file, path: "%[3]s", format: json, start_at: oldest}
`, dir, in, out))
	sent := &ledger{}
	awaitAll := func() {
		t.Helper()
		require.True(t, assertEventually(func() bool {
			a, err := readAccount(out, sent)
			return err == nil && a.events == sent.total()
		}, 20*time.Second), "not all is delivered")
	}

	appendRecords(t, in, "in", 100, sent)
	first := program(t, "run", "--log-level", "warn", "-c", cfg)
	var log bytes.Buffer
	first.Stderr = &log
	require.NoError(t, first.Start())
	killed := false
	t.Cleanup(func() {
		if !killed {
			_ = first.Process.Kill() // the test has failed
			_ = first.Wait()
		}
	})
	awaitAll()

	for _, args := range [][]string{{"run"}, {"run", "--once"}} {
		text, err := stderrOf(program(t, append(args, "-c", cfg)...))
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, text)
		require.Equal(t, exitLocked, exit.ExitCode(), text)
		require.Contains(t, text, "another auditrelay uses this data_dir")
		require.Contains(t, text, strconv.Itoa(first.Process.Pid))
		appendRecords(t, in, "in", 100, sent)
		awaitAll()
	}

	require.NoError(t, first.Process.Kill())
	require.Error(t, first.Wait())
	killed = true
	requireSoundLog(t, log.String())
	require.FileExists(t, filepath.Join(dir, "data", "queue", "LOCK"), "what the dead daemon leaves behind")
	appendRecords(t, in, "in", 100, sent)
	requireStored(t, runOnce(t, cfg), "in", 400)
	awaitAll()
	quarantine, err := filepath.Glob(filepath.Join(dir, "data", "queue", "quarantine", "*"))
	require.NoError(t, err)
	require.Empty(t, quarantine)
}
