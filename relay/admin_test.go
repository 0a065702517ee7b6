package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// oneFile is a configuration with one report of n records, one archive, and a control socket.
func oneFile(t *testing.T, dir string, n int) string {
	t.Helper()
	var rows strings.Builder
	rows.WriteString(netopHeader)
	for i := range n {
		rows.WriteString(netopRow(i))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "report.csv"), []byte(rows.String()), 0o600))
	return fmt.Sprintf(`
version: 1
relay: {id: test}
data_dir: %[1]s/data
admin: {socket: %[1]s/control.sock}
collect:
  portal: {type: file, paths: ["%[1]s/report.csv"], product: netop, poll_interval: 20ms}
forward:
  archive: {type: file, path: "%[1]s/out.json", format: json, start_at: oldest}
`, dir)
}

// awaitStatus asks until the status is as wanted.
func awaitStatus(t *testing.T, dir string, log fmt.Stringer, wanted func(*Status) bool) (*Client, *Status) {
	t.Helper()
	client := NewClient(filepath.Join(dir, "control.sock"))
	var status *Status
	require.Eventually(t, func() bool {
		var err error
		status, err = client.Status(context.Background())
		return err == nil && wanted(status)
	}, 20*time.Second, 10*time.Millisecond, "%s", log)
	return client, status
}

func allDelivered(n uint64) func(*Status) bool {
	return func(s *Status) bool { return s.Sheet.Destinations[0].Delivered == n }
}

func TestTheControlSocketAnswersWhileTheRelayRuns(t *testing.T) {
	dir := t.TempDir()
	r, log := build(t, parse(t, oneFile(t, dir, 5)))
	r.opt.Version = "v1.2.3"
	stop := running(t, r)
	client, status := awaitStatus(t, dir, log, allDelivered(5))

	require.Equal(t, "v1.2.3", status.Version)
	require.Equal(t, Health{Level: HealthGreen, Reasons: []Reason{}}, status.Health)
	require.Equal(t, SourceSheet{Accepted: 5, Stored: 5}, status.Sheet.Sources[0].SourceSheet)
	require.Equal(t, filepath.Join(dir, "report.csv"), status.Sources[0].Inputs[len(status.Sources[0].Inputs)-1].Name)
	require.Equal(t, uint64(0), status.Destinations[0].Lag)
	require.Equal(t, uint64(6), status.Queue.Next)
	var text strings.Builder
	require.NoError(t, status.WriteText(&text))
	require.Contains(t, text.String(), "health: green")

	list, err := client.List(context.Background())
	require.NoError(t, err)
	require.Equal(t, []ListCursor{{Name: "archive", Next: 6, Open: true, Configured: true}}, list.Cursors)
	require.Equal(t, "active", list.Segments[0].State)

	check, err := client.Check(context.Background(), func(_, _ int64) {})
	require.NoError(t, err)
	require.Equal(t, uint64(5), check.Entries)
	require.Empty(t, check.Damage)

	var lines []string
	found, err := client.Entries(context.Background(), "2", "3", "json", func(e Entry) error {
		lines = append(lines, fmt.Sprint(e.Number, " ", string(e.Line)))
		return nil
	})
	require.NoError(t, err)
	require.Equal(t, &Selected{Entries: 2, Missing: []Missing{}}, found)
	content, err := os.ReadFile(filepath.Join(dir, "out.json"))
	require.NoError(t, err)
	out := strings.Split(string(content), "\n")
	require.Equal(t, []string{"2 " + out[1], "3 " + out[2]}, lines)

	require.ErrorContains(t, client.Forget(context.Background(), "archive"), "in use")
	require.ErrorContains(t, client.Forget(context.Background(), "nobody"), "not exist")
	_, err = client.Entries(context.Background(), "9", "", "json", nil)
	require.ErrorContains(t, err, "nothing of that range is stored: the queue has 1 to 5")
	_, err = client.Entries(context.Background(), "x", "", "json", nil)
	require.ErrorContains(t, err, "neither a number")
	_, err = client.Entries(context.Background(), "", "", "xml", nil)
	require.ErrorContains(t, err, "xml")

	stop()
	_, err = client.Status(context.Background())
	require.ErrorIs(t, err, ErrNoDaemon)
	require.NoFileExists(t, filepath.Join(dir, "control.sock"))
}

func TestTheControlSocketIsForItsOwnerOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control.sock")
	listener, err := listenControl(context.Background(), path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	require.NoError(t, listener.Close())
}

func TestASocketOfADeadProcessIsReplacedALiveOneIsNot(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "control.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	require.NoError(t, err)
	dead.SetUnlinkOnClose(false)
	require.NoError(t, dead.Close())
	require.FileExists(t, path)

	live, err := listenControl(context.Background(), path)
	require.NoError(t, err)
	_, err = listenControl(context.Background(), path)
	require.ErrorIs(t, err, ErrSocketInUse)
	require.NoError(t, live.Close())

	require.NoError(t, os.WriteFile(path, []byte("mine"), 0o600))
	_, err = listenControl(context.Background(), path)
	require.ErrorContains(t, err, "is not a socket")
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "mine", string(content))
}

func TestWithoutADirectoryForTheSocketOnlyANamedOneIsAnError(t *testing.T) {
	dir := t.TempDir()
	text := strings.ReplaceAll(oneFile(t, dir, 1), dir+"/control.sock", dir+"/missing/control.sock")
	r, _ := build(t, parse(t, text))
	require.ErrorContains(t, r.Run(context.Background()), "make the control socket")

	cfg := parse(t, text)
	cfg.Admin.SocketGiven = false
	r, log := build(t, cfg)
	stop := running(t, r)
	require.Eventually(t, func() bool {
		return strings.Contains(log.String(), "no control socket") && strings.Contains(log.String(), "running")
	}, 10*time.Second, 5*time.Millisecond)
	stop()
}

// raw sends one request as it is and returns the status code.
func raw(t *testing.T, socket, request string) int {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
	_, _ = conn.Write([]byte(request)) // the server may answer and close before it has all
	var code int
	var proto string
	_, err = fmt.Fscan(conn, &proto, &code)
	require.NoError(t, err)
	return code
}

func TestTheControlSocketRefusesWhatIsTooLargeOrUnknown(t *testing.T) {
	dir := t.TempDir()
	r, log := build(t, parse(t, oneFile(t, dir, 1)))
	stop := running(t, r)
	awaitStatus(t, dir, log, allDelivered(1))
	socket := filepath.Join(dir, "control.sock")
	post := func(path, body string) int {
		return raw(t, socket, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body))
	}
	require.Equal(t, http.StatusRequestHeaderFieldsTooLarge,
		raw(t, socket, "GET /status HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n"))
	require.Equal(t, http.StatusBadRequest, post("/queue/forget", `{"cursor":"`+strings.Repeat("x", adminBodyBytes)+`"}`))
	require.Equal(t, http.StatusBadRequest, post("/queue/forget", `{"cursor":"a"}{}`))
	require.Equal(t, http.StatusBadRequest, post("/queue/forget", `{"name":"a"}`))
	require.Equal(t, http.StatusBadRequest, post("/replay", `{"from":"x"}`))
	require.Equal(t, http.StatusNotFound, post("/replay", `{"destination":"nobody"}`))
	require.Equal(t, http.StatusMethodNotAllowed, raw(t, socket, "GET /replay HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.Equal(t, http.StatusNotFound, raw(t, socket, "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"))
	stop()
}

func TestConnectionsBeyondTheLimitWaitForAFreeOne(t *testing.T) {
	inner, err := listenControl(context.Background(), filepath.Join(t.TempDir(), "s"))
	require.NoError(t, err)
	limited := limitConnections(inner, 1)
	accepted := make(chan net.Conn, 2)
	ended := make(chan error, 1)
	go func() {
		for {
			conn, err := limited.Accept()
			if err != nil {
				ended <- err
				return
			}
			accepted <- conn
		}
	}()
	for range 2 {
		conn, err := net.Dial("unix", inner.Addr().String())
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
	}
	first := <-accepted
	require.Empty(t, accepted)
	require.NoError(t, first.Close())
	second := <-accepted
	require.NoError(t, limited.Close())
	require.ErrorIs(t, <-ended, net.ErrClosed)
	require.NoError(t, second.Close())
}

func TestPlaces(t *testing.T) {
	for text, want := range map[string]Place{
		"": {}, "1": {Number: 1}, "9223372036854775807": {Number: 1<<63 - 1},
		"2026-01-31T12:00:00.5+01:00": {Time: time.Date(2026, 1, 31, 11, 0, 0, 5e8, time.UTC)},
	} {
		got, err := ParsePlace(text)
		require.NoError(t, err, text)
		require.True(t, want.Number == got.Number && want.Time.Equal(got.Time), text)
	}
	for _, text := range []string{"0", "-1", "1.5", "2026-01-31", "now", "9223372036854775808"} {
		_, err := ParsePlace(text)
		require.ErrorContains(t, err, "neither a number", text)
	}
}

func TestAnAnswerThatIsCutOffIsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		require.NoError(t, json.NewEncoder(w).Encode(message{Number: 1, Text: "x"}))
	}), ReadHeaderTimeout: time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	_, err = NewClient(path).Entries(context.Background(), "", "", "cef", func(Entry) error { return nil })
	require.ErrorContains(t, err, "ended too soon")
	require.NoError(t, server.Close())
	require.ErrorIs(t, <-ended, http.ErrServerClosed)
}
