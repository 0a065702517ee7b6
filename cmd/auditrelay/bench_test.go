//go:build bench

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestBenchmarkWholePath runs the real binary: a CSV report of 1,000,000 records, understood, durable with fsync, as CEF over
// TCP to a receiver that counts lines. It prints events/s, CPU per event and peak memory of the whole process.
func TestBenchmarkWholePath(t *testing.T) {
	const records, rounds = 1_000_000, 3
	dir := t.TempDir()
	report := filepath.Join(dir, "report.csv")
	writeNetopReport(t, report, records)
	binary, err := filepath.Abs("../../auditrelay")
	require.NoError(t, err)
	info, err := os.Stat(report)
	require.NoError(t, err)
	t.Logf("%d records, %d MB, %d cores, %s", records, info.Size()/1e6, runtime.NumCPU(), runtime.Version())
	for _, format := range []string{"cef", "json"} {
		for round := range rounds {
			benchOnce(t, binary, report, filepath.Join(dir, fmt.Sprint(format, round)), format, records)
		}
	}
}

func benchOnce(t *testing.T, binary, report, dir, format string, records int) {
	require.NoError(t, os.Mkdir(dir, 0o700))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	counted := make(chan int, 1)
	go func() { counted <- countLines(listener) }()
	cfg := writeFile(t, dir, "bench.yaml", fmt.Sprintf(`
version: 1
relay: {id: bench}
data_dir: %s/data
collect:
  portal: {type: file, paths: [%s], product: netop}
forward:
  receiver: {type: syslog, endpoints: ["tcp://%s"], format: %s, start_at: oldest}
`, dir, report, listener.Addr(), format))
	cmd := exec.Command(binary, "run", "--once", "--log-level", "error", "-c", cfg)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	require.NoError(t, cmd.Run(), &stderr)
	took := time.Since(start)
	require.NoError(t, listener.Close())
	require.Equal(t, records, <-counted)
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	t.Logf("%s: %d events/s, %.2f µs of CPU each, peak memory %d MiB",
		format, int(float64(records)/took.Seconds()), float64(cpu.Microseconds())/float64(records), usage.Maxrss/1024)
	require.NoError(t, os.RemoveAll(dir))
}

// countLines accepts one connection after the other until the listener closes and counts line ends.
func countLines(listener net.Listener) (lines int) {
	buf := make([]byte, 256<<10)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return lines
		}
		for {
			n, err := conn.Read(buf)
			lines += bytes.Count(buf[:n], []byte{'\n'})
			if err == io.EOF {
				break
			}
			if err != nil {
				return -1
			}
		}
		_ = conn.Close() // the peer has closed already
	}
}
