//go:build e2e

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests run the real binary against programs that others wrote. They install nothing: what is missing is named, and
// the test fails. .ci/run shows where Debian has them.

// binary returns the program that make builds.
func binary(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../auditrelay")
	require.NoError(t, err)
	require.FileExists(t, path, "run make build first")
	return path
}

// peer returns the path of a program of somebody else's.
func peer(t *testing.T, name, pkg string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is missing: install Debian's package %s", name, pkg)
	return ""
}

// freePort returns a port that was free a moment ago, for programs that cannot say which one they got.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().(*net.TCPAddr).Port
}

// start runs a program until the end of the test.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		_ = cmd.Wait()                          // how it ended is not the question
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, &log)
		}
	})
}

// awaitPort waits until something listens on a TCP port.
func awaitPort(t *testing.T, port int) {
	t.Helper()
	require.Eventually(t, func() bool {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		return conn.Close() == nil
	}, 20*time.Second, 20*time.Millisecond, "nothing listens on port %d", port)
}

// documents reads the JSON documents of a file, one a line; lines that are not yet whole are left out.
func documents(path string) (docs []map[string]any) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	for _, line := range bytes.Split(content, []byte{'\n'}) {
		var doc map[string]any
		if json.Unmarshal(line, &doc) == nil {
			docs = append(docs, doc)
		}
	}
	return docs
}

func awaitDocuments(t *testing.T, path string, n int) []map[string]any {
	t.Helper()
	require.Eventually(t, func() bool { return len(documents(path)) >= n }, 20*time.Second, 50*time.Millisecond,
		"%d documents wanted, %d there", n, len(documents(path)))
	return documents(path)
}

func TestE2ELoggerAndNetcatReachIt(t *testing.T) {
	logger, nc := peer(t, "logger", "bsdutils"), peer(t, "nc", "netcat-openbsd")
	dir := t.TempDir()
	port, out := freePort(t), filepath.Join(dir, "out.json")
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: e2e}
data_dir: %s/data
collect:
  syslog: {type: syslog, listen: ["udp://127.0.0.1:%[2]d", "tcp://127.0.0.1:%[2]d"]}
forward:
  archive: {type: file, path: %[3]s, format: json, start_at: oldest}
`, dir, port, out))
	start(t, exec.Command(binary(t), "run", "-c", cfg))
	awaitPort(t, port)

	want := 0
	send := func(text string, cmd *exec.Cmd, stdin string) {
		t.Helper()
		cmd.Stdin = strings.NewReader(stdin)
		output, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", output)
		want++
		docs := awaitDocuments(t, out, want)
		require.Equal(t, text, docs[want-1]["message"], "%v", cmd.Args)
		require.Equal(t, "generic", docs[want-1]["product"])
	}
	p := fmt.Sprint(port)
	args := []string{"-n", "127.0.0.1", "-P", p, "-p", "auth.warning", "-t", "portal"}
	send("over tcp in 5424", exec.Command(logger, append(args, "-T", "over tcp in 5424")...), "")
	send("counted octets", exec.Command(logger, append(args, "-T", "--octet-count", "counted octets")...), "")
	send("over tcp in 3164", exec.Command(logger, append(args, "-T", "--rfc3164", "over tcp in 3164")...), "")
	send("over udp", exec.Command(logger, append(args, "-d", "--rfc3164", "over udp")...), "")
	send("from netcat", exec.Command(nc, "-q", "1", "127.0.0.1", p), "<36>1 2025-01-01T10:00:00Z host portal 7 - - from netcat\n")
	send("no header at all", exec.Command(nc, "-q", "1", "127.0.0.1", p), "no header at all\n")
	send("datagram", exec.Command(nc, "-u", "-q", "1", "-w", "1", "127.0.0.1", p), "<36>1 2025-01-01T10:00:00Z host portal 7 - - datagram")

	for i, doc := range documents(out)[:5] {
		require.Equal(t, "warning", doc["severity"], "event %d", i)
		require.Equal(t, map[string]any{"name": "portal"}, doc["app"], "event %d", i)
	}
}

// receiver is a syslog server of somebody else's that writes what it understood as JSON.
type receiver struct {
	name  string
	start func(t *testing.T, dir string, tcp, udp int, envelope, framing string)
}

// syslogNG returns the program and its environment: installed, or unpacked beside by .ci/peers because the packages of the
// two servers conflict.
func syslogNG(t *testing.T) (path, modules string, env []string) {
	t.Helper()
	root, err := filepath.Abs("../../.peers/tree")
	require.NoError(t, err)
	path = filepath.Join(root, "usr/sbin/syslog-ng")
	if _, err := os.Stat(path); err != nil {
		return peer(t, "syslog-ng", "syslog-ng-core, or unpack it beside rsyslog with .ci/peers"), "", os.Environ()
	}
	libraries := []string{"lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib/syslog-ng"}
	for i := range libraries {
		libraries[i] = filepath.Join(root, libraries[i])
	}
	found, err := filepath.Glob(filepath.Join(root, "usr/lib/syslog-ng/[0-9]*"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	return path, found[0], append(os.Environ(), "LD_LIBRARY_PATH="+strings.Join(libraries, ":"))
}

func startSyslogNG(t *testing.T, dir string, tcp, udp int, envelope, framing string) {
	path, modules, env := syslogNG(t)
	tcpSource := fmt.Sprintf(`network(ip("127.0.0.1") port(%d) transport("tcp") log-msg-size(1048576)`, tcp)
	udpSource := fmt.Sprintf(`network(ip("127.0.0.1") port(%d) transport("udp")`, udp)
	if framing == "octet_counting" {
		tcpSource = fmt.Sprintf(`syslog(ip("127.0.0.1") port(%d) transport("tcp") log-msg-size(1048576)`, tcp)
	}
	if envelope == "rfc5424" {
		tcpSource += ` flags(syslog-protocol)`
		udpSource += ` flags(syslog-protocol)`
	}
	conf := fmt.Sprintf(`@version: 3.38
options { keep-hostname(yes); time-reopen(1); };
source s { %s); %s); };
destination d { file("%s/out.json" template("$(format-json --pair host=$HOST --pair app=$PROGRAM --pair severity=$SEVERITY --pair facility=$FACILITY --pair time=$ISODATE --pair msgid=$MSGID --pair id=\"${.SDATA.auditrelay@32473.id}\" --pair number=\"${.SDATA.auditrelay@32473.number}\" --pair msg=$MSGHDR$MSG --pair text=$MSG)\n") flush-lines(1)); };
log { source(s); destination(d); };
`, tcpSource, udpSource, dir)
	args := []string{
		"-F", "--no-caps", "-f", writeFile(t, dir, "syslog-ng.conf", conf),
		"-R", filepath.Join(dir, "persist"), "-p", filepath.Join(dir, "pid"), "-c", filepath.Join(dir, "ctl"), "-e",
	}
	if modules != "" {
		args = append(args, "--module-path="+modules)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = env
	start(t, cmd)
}

func startRsyslog(t *testing.T, dir string, tcp, udp int, _, _ string) {
	path := peer(t, "rsyslogd", "rsyslog")
	conf := fmt.Sprintf(`global(workDirectory="%[3]s" maxMessageSize="1m")
module(load="imtcp")
module(load="imudp")
input(type="imtcp" address="127.0.0.1" port="%[1]d")
input(type="imudp" address="127.0.0.1" port="%[2]d")
template(name="json" type="list" option.jsonf="on") {
  property(outname="host" name="hostname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="facility" name="syslogfacility-text" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="sd" name="structured-data" format="jsonf")
  property(outname="raw" name="rawmsg" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}
action(type="omfile" file="%[3]s/out.json" template="json")
`, tcp, udp, dir)
	start(t, exec.Command(path, "-n", "-f", writeFile(t, dir, "rsyslog.conf", conf), "-i", filepath.Join(dir, "rsyslog.pid")))
}

// TestE2EReceiversUnderstandIt sends the bundled SOFiE and UCX records in both envelopes, over UDP and over TCP in both
// framings, and compares what the receivers read with what a file destination of the same run holds.
func TestE2EReceiversUnderstandIt(t *testing.T) {
	for _, r := range []receiver{{"rsyslog", startRsyslog}, {"syslog-ng", startSyslogNG}} {
		for _, envelope := range []string{"rfc5424", "rfc3164"} {
			for _, way := range []string{"tcp newline", "tcp octet_counting", "udp newline"} {
				t.Run(strings.ReplaceAll(r.name+" "+envelope+" "+way, " ", "/"), func(t *testing.T) {
					scheme, framing, _ := strings.Cut(way, " ")
					deliverTo(t, r, envelope, scheme, framing)
				})
			}
		}
	}
}

func deliverTo(t *testing.T, r receiver, envelope, scheme, framing string) {
	dir := t.TempDir()
	tcp, udp := freePort(t), freePort(t)
	r.start(t, dir, tcp, udp, envelope, framing)
	awaitPort(t, tcp)
	port := map[string]int{"tcp": tcp, "udp": udp}[scheme]
	samples, err := filepath.Abs("../../examples/audit")
	require.NoError(t, err)
	tag := ""
	if envelope == "rfc3164" {
		tag = `, tag: auditrelay`
	}
	cfg := writeFile(t, dir, "auditrelay.yaml", fmt.Sprintf(`
version: 1
relay: {id: e2e-host}
data_dir: %[1]s/data
collect:
  sofie: {type: file, paths: ["%[2]s/sofie-events.jsonl"], product: sofie}
  ucx: {type: file, paths: ["%[2]s/ucx-audit.csv"], product: ucx, timezone: Europe/Rome}
forward:
  soc: {type: syslog, endpoints: ["%[3]s://127.0.0.1:%[4]d"], envelope: %[5]s, framing: %[6]s, facility: local4, format: cef, start_at: oldest%[7]s}
  cef: {type: file, path: %[1]s/cef.log, format: cef, start_at: oldest}
  json: {type: file, path: %[1]s/events.json, format: json, start_at: oldest}
`, dir, samples, scheme, port, envelope, framing, tag))
	report, err := stderrOf(exec.Command(binary(t), "run", "--once", "--timeout", "30s", "-c", cfg))
	require.NoError(t, err, report)

	const events = 26
	got := awaitDocuments(t, filepath.Join(dir, "out.json"), events)
	require.Len(t, got, events)
	cefLog, err := os.ReadFile(filepath.Join(dir, "cef.log"))
	require.NoError(t, err)
	lines := strings.Split(strings.TrimSuffix(string(cefLog), "\n"), "\n")
	own := documents(filepath.Join(dir, "events.json"))
	require.Len(t, lines, events)
	require.Len(t, own, events)
	byText := map[string]int{}
	for i, line := range lines {
		byText[line] = i
	}
	for _, doc := range got {
		text := strings.TrimPrefix(doc["text"].(string), " ")
		i, ok := byText[text]
		require.True(t, ok, "not one of our lines: %q", text)
		delete(byText, text)
		requireHeader(t, doc, own[i], envelope)
	}
}

// requireHeader compares what the receiver made of the syslog header with our own event.
func requireHeader(t *testing.T, doc, own map[string]any, envelope string) {
	t.Helper()
	require.Equal(t, "e2e-host", doc["host"])
	require.Equal(t, "auditrelay", doc["app"])
	require.Equal(t, "local4", doc["facility"])
	severity := own["severity"].(string)
	require.Contains(t, []string{severity, map[string]string{"error": "err", "critical": "crit"}[severity]}, doc["severity"])
	wantTime, err := time.Parse(time.RFC3339, own["time"].(string))
	require.NoError(t, err)
	gotTime, err := time.Parse(time.RFC3339, doc["time"].(string))
	require.NoError(t, err)
	if envelope == "rfc3164" {
		// No year and no zone on the wire: day and clock must be ours, the zone both take from the machine.
		require.Equal(t, wantTime.Local().Format("Jan _2 15:04:05"), gotTime.Local().Format("Jan _2 15:04:05"))
		return
	}
	require.True(t, wantTime.Truncate(time.Second).Equal(gotTime.Truncate(time.Second)), "%s %s", wantTime, gotTime)
	id, number := own["id"].(string), fmt.Sprint(own["number"])
	if sd, ok := doc["sd"].(string); ok {
		require.Equal(t, fmt.Sprintf(`[auditrelay@32473 id="%s" number="%s"]`, id, number), sd)
		return
	}
	require.Equal(t, id, doc["id"])
	require.Equal(t, number, doc["number"])
}
