package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// atAnotherTime is set in the environment of a child that runs the program under another clock: a duration after the
// year 2000, a space, and the configuration's path.
const atAnotherTime = "AUDITRELAY_TEST_AT_ANOTHER_TIME"

// TestCrashClockJumps runs the program again and again on one queue, its clock jumping by years in both directions
// between the runs, while files have modification times and records have event times of other centuries. The clock of a
// jump is the one of a testing/synctest bubble in a child process: every time.Now of the program, of its queue, too, says
// so; the real clock of the machine is left alone. Order, numbers and delivery must not depend on any of it.
func TestCrashClockJumps(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.json")
	// keep_delivered and a small queue: what is kept by age must not stay for ever when the clock goes back.
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: crash}
data_dir: %[1]s/data
collect:
  in: {type: file, paths: ["%[1]s/in*.log"], format: text, product: generic, max_record: 64KiB, poll_interval: 20ms}
queue: {max_size: 1MiB, keep_delivered: 24h}
forward:
  archive: {type: file, path: "%[2]s", format: json, start_at: oldest}
`, dir, out))
	const year = 365 * 24 * time.Hour
	const each = 700
	sent := &ledger{}
	years := map[string]bool{}
	clocks := []time.Duration{-1, 0, 100 * year, -1, 1 * year, 99 * year, -1} // after 2000; -1: the real clock
	if testing.Short() {
		clocks = clocks[:4]
	}
	for i, clock := range clocks {
		for j, modified := range []time.Time{time.Unix(0, 0), time.Now().Add(200 * year)} {
			path := filepath.Join(dir, fmt.Sprintf("in%d.log", j))
			appendRecords(t, path, fmt.Sprint("in", j), each, sent)
			require.NoError(t, os.Chtimes(path, modified, modified))
		}
		if clock < 0 {
			runOnce(t, cfg)
		} else {
			runAt(t, clock, cfg)
		}
		a, err := readAccount(out, sent)
		require.NoError(t, err, "run %d", i)
		require.Equal(t, map[string]int{"in0": (i + 1) * each, "in1": (i + 1) * each}, a.streams, "run %d", i)
		require.Zero(t, a.resent+a.torn, "run %d", i)
		years[lastReceived(t, out)[:4]] = true
	}
	require.Contains(t, years, "2000")
	require.Contains(t, years, "2099") // 100 years of 365 days
	t.Logf("%d records in the years %v, in order", sent.total(), years)
}

// runAt runs run --once in a process whose clock is that long after midnight UTC of 2000-01-01.
func runAt(t *testing.T, after time.Duration, cfg string) {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, "-test.run=^TestCrashProgramAtAnotherTime$", "-test.timeout=60s", "-test.v")
	cmd.Env = append(os.Environ(), atAnotherTime+"="+after.String()+" "+cfg)
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	require.Contains(t, string(output), "--- PASS: TestCrashProgramAtAnotherTime")
}

// TestCrashProgramAtAnotherTime is the child of TestCrashClockJumps; by itself it is nothing.
func TestCrashProgramAtAnotherTime(t *testing.T) {
	value, ok := os.LookupEnv(atAnotherTime)
	if !ok {
		t.Skip("this is the child process of TestCrashClockJumps")
	}
	text, cfg, _ := strings.Cut(value, " ")
	after, err := time.ParseDuration(text)
	require.NoError(t, err)
	// The goroutine that takes signals lives as long as the process, so it must not begin inside the bubble.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	synctest.Test(t, func(t *testing.T) {
		<-time.After(after)
		var log strings.Builder
		code := run(context.Background(), []string{"run", "--once", "--log-level", "warn", "-c", cfg}, streams{nil, os.Stdout, &log})
		require.Equal(t, exitOK, code, "%s", &log)
		requireSoundLog(t, log.String())
	})
}

// lastReceived returns the received time of the last event in a file of native JSON.
func lastReceived(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(content[strings.LastIndexByte(string(content[:len(content)-1]), '\n')+1:]), `"received":"`)
	require.True(t, found)
	return rest
}
