package relay

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestADestinationGoesOnAfterItsCursorFailed takes the cursors' directory away for a moment, as a disk may.
func TestADestinationGoesOnAfterItsCursorFailed(t *testing.T) {
	dir := t.TempDir()
	report := filepath.Join(dir, "report.csv")
	require.NoError(t, os.WriteFile(report, []byte(netopHeader+netopRow(0)), 0o600))
	cfg := parse(t, fmt.Sprintf(`
version: 1
data_dir: %[1]s/data
collect:
  portal: {type: file, paths: ["%[1]s/*.csv"], product: netop, poll_interval: 20ms}
forward:
  archive: {type: file, path: "%[1]s/out.cef", format: cef, start_at: oldest}
`, dir))
	r, log := build(t, cfg)
	stop := running(t, r)
	delivered := func(n int) func() bool {
		return func() bool {
			content, err := os.ReadFile(filepath.Join(dir, "out.cef"))
			return err == nil && len(sessionsIn(string(content))) == n
		}
	}
	require.Eventually(t, delivered(1), 20*time.Second, 10*time.Millisecond, "%s", log)

	cursors := filepath.Join(dir, "data/queue/cursors")
	require.NoError(t, os.Rename(cursors, cursors+".away"))
	appendRow := func(i int) {
		f, err := os.OpenFile(report, os.O_APPEND|os.O_WRONLY, 0)
		require.NoError(t, err)
		_, err = f.WriteString(netopRow(i))
		require.NoError(t, err)
		require.NoError(t, f.Close())
	}
	appendRow(1)
	require.Eventually(t, func() bool { return log.contains("destination cannot go on") }, 20*time.Second, 10*time.Millisecond, "%s", log)
	require.NoError(t, os.Rename(cursors+".away", cursors))
	appendRow(2)
	require.Eventually(t, delivered(3), 20*time.Second, 10*time.Millisecond, "%s", log)
	stop()
	require.NotContains(t, log.String(), "does not close")
}
