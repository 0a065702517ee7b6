package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/relay"
)

// TestKilledInTheMiddleOfAFile kills the program with SIGKILL while it reads and delivers a report of 200,000 records,
// several times, then lets it finish: every record arrives, none is twice in the queue, the equations close.
func TestKilledInTheMiddleOfAFile(t *testing.T) {
	records := 200_000
	if testing.Short() {
		records = 20_000
	}
	dir := t.TempDir()
	writeNetopReport(t, filepath.Join(dir, "report.csv"), records)
	out := filepath.Join(dir, "out.json")
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: test}
data_dir: %[1]s/data
collect:
  portal: {type: file, paths: [%[1]s/report.csv], product: netop}
forward:
  archive: {type: file, path: %[2]s, format: json, max_size: 10GiB, start_at: oldest}
`, dir, out))

	size := func() int64 {
		if info, err := os.Stat(out); err == nil {
			return info.Size()
		}
		return 0
	}
	kills := 0
	for range 5 {
		before := size()
		cmd := program(t, "run", "-c", cfg)
		var log bytes.Buffer
		cmd.Stderr = &log
		require.NoError(t, cmd.Start())
		// Some way further than the last time, so that each kill finds it at work.
		require.Eventually(t, func() bool { return size() > before+int64(records)*20 || size() > int64(records)*1400 },
			60*time.Second, time.Millisecond, "no progress: %s", &log)
		require.NoError(t, cmd.Process.Kill())
		require.Error(t, cmd.Wait())
		kills++
	}

	cmd := program(t, "run", "--once", "--json", "--log-level", "error", "-c", cfg)
	sheetJSON, err := stderrOf(cmd)
	require.NoError(t, err, sheetJSON)
	var sheet relay.Sheet
	require.NoError(t, json.Unmarshal([]byte(sheetJSON), &sheet), sheetJSON)
	require.True(t, sheet.Closes())
	require.Equal(t, uint64(records), sheet.Sources[0].Accepted)
	require.Equal(t, uint64(records), sheet.Sources[0].Stored)
	require.Equal(t, uint64(records), sheet.Destinations[0].Delivered)

	d := readDelivered(t, out)
	d.requireAll(t, records)
	t.Logf("%d kills: %d records, %d delivered again, %d torn lines", kills, records, d.resent, d.torn)
}
