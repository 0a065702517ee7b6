package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDiskErrorsInjected lets system calls of the program fail while it collects and delivers: strace gives them an error
// instead of doing them, from the n-th call of a thread on or again and again. Whatever becomes of that run, it ends with
// an exit code and a word that say so, and the next one goes on: nothing is lost, nothing is twice in the log.
func TestDiskErrorsInjected(t *testing.T) {
	strace := findStrace(t)
	cases := []string{
		"fdatasync:error=EIO:when=3",
		"pwrite64:error=ENOSPC:when=3..5",
		"fsync:error=EIO:when=2",
		"fdatasync:error=EIO:when=1", "fdatasync:error=EIO:when=2", "fdatasync:error=EIO:when=5", "fdatasync:error=EIO:when=2+4",
		"fsync:error=EIO:when=1", "fsync:error=EIO:when=3+3",
		"pwrite64:error=ENOSPC:when=1", "pwrite64:error=ENOSPC:when=2", "pwrite64:error=ENOSPC:when=2+3",
		"ftruncate:error=EIO:when=1+2",
		"rename,renameat,renameat2:error=EIO:when=1+2",
	}
	if testing.Short() {
		cases = cases[:3]
	}
	for _, inject := range cases {
		t.Run(strings.ReplaceAll(inject, ":", " "), func(t *testing.T) {
			t.Parallel()                           // most of the time is waiting
			_, _ = injectErrors(t, strace, inject) // it judges by itself
		})
	}
}

// TestDiskErrorOnceIsGotOver asks for more: after an error that does not come again the same process delivers everything,
// unless it ended because it could not open its queue, or says that it stopped accepting.
func TestDiskErrorOnceIsGotOver(t *testing.T) {
	strace := findStrace(t)
	cases := []string{
		"pwrite64:error=ENOSPC:when=1", "pwrite64:error=ENOSPC:when=2", "pwrite64:error=ENOSPC:when=3", "pwrite64:error=ENOSPC:when=4",
		"fdatasync:error=EIO:when=1", "fdatasync:error=EIO:when=2", "fdatasync:error=EIO:when=3",
		"rename,renameat,renameat2:error=EIO:when=1", "unlink,unlinkat:error=EIO:when=1",
	}
	if testing.Short() {
		cases = cases[1:3]
	}
	for _, inject := range cases {
		t.Run(strings.ReplaceAll(inject, ":", " "), func(t *testing.T) {
			t.Parallel() // most of the time is waiting
			text, err := injectErrors(t, strace, inject)
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == exitDisk || strings.Contains(text, "queue stopped accepting") {
				return
			}
			require.NoError(t, err, text)
		})
	}
}

// findStrace skips the test where there is no strace, or none that may trace.
func findStrace(t *testing.T) string {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		skipUnlessCI(t, "strace is missing: install Debian's package strace")
	}
	if output, err := exec.Command(strace, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		skipUnlessCI(t, "strace may not trace here: %v: %s", err, output)
	}
	return strace
}

// injectErrors does one run with errors and one without. It returns what the first said and how it ended.
func injectErrors(t *testing.T, strace, inject string) (text string, ended error) {
	t.Helper()
	dir := t.TempDir()
	in, out, trace := filepath.Join(dir, "in.log"), filepath.Join(dir, "out.json"), filepath.Join(dir, "trace")
	// A small queue that is cut short now and then, so that segments begin and end.
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: disk}
data_dir: %[1]s/data
collect:
  in: {type: file, paths: ["%[2]s"], format: text, product: generic, max_record: 64KiB, poll_interval: 20ms}
queue: {max_size: 1MiB}
forward:
  archive: {type: file, path: "%[3]s", format: json, start_at: oldest}
`, dir, in, out))
	sent := &ledger{}
	appendRecords(t, in, "in", 500, sent)
	runOnce(t, cfg) // so that the errors come at work, not while the first files are made
	appendRecords(t, in, "in", 4500, sent)

	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	calls, _, _ := strings.Cut(inject, ":")
	cmd := exec.CommandContext(ctx, strace, "-f", "--seccomp-bpf", "-o", trace, "-e", "trace="+calls, "-e", "inject="+inject)
	child := program(t, "run", "--once", "--timeout", "4s", "--log-level", "warn", "-c", cfg)
	cmd.Args, cmd.Env = append(cmd.Args, child.Args...), child.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // strace alone would leave the program behind
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	text, ended = stderrOf(cmd)
	require.NoError(t, ctx.Err(), text)
	requireClearEnd(t, ended, text)
	traced, err := os.ReadFile(trace)
	require.NoError(t, err)
	injected := strings.Count(string(traced), "(INJECTED)")
	if injected == 0 {
		t.Log("no thread made so many calls")
	}
	before := recordsIn(out)["in"]

	appendRecords(t, in, "in", 500, sent)
	requireStored(t, runOnce(t, cfg), "in", sent.total())
	a, err := readAccount(out, sent)
	require.NoError(t, err)
	require.Equal(t, sent.sent, a.streams)
	t.Logf("%d calls failed; %d of %d records delivered all the same, the others by the next run; %d delivered again, %d torn lines",
		injected, before, sent.total(), a.resent, a.torn)
	return text, ended
}

// requireClearEnd fails unless the program ended well, or with one of its exit codes and a word about what was wrong.
func requireClearEnd(t *testing.T, err error, text string) {
	t.Helper()
	for _, word := range []string{"panic", "DATA RACE", "goroutine ", "does not close"} {
		require.NotContains(t, text, word)
	}
	if err == nil {
		return
	}
	var exit *exec.ExitError
	require.True(t, errors.As(err, &exit), "%v: %s", err, text)
	require.Contains(t, []int{exitFailed, exitUnreachable, exitDisk}, exit.ExitCode(), text)
	require.Regexp(t, "input/output error|no space left on device|queue is full", text)
}
