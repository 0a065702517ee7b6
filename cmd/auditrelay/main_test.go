package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/stretchr/testify/require"
)

// asProgram is set in the environment of a child that is to be the program instead of the tests.
const asProgram = "AUDITRELAY_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
	}
	testscript.Main(m, map[string]func(){
		"auditrelay": func() {
			os.Exit(run(context.Background(), os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
		},
	})
}

// TestScripts runs the command lines of testdata/script and compares what they print and how they end.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exitcode": exitCode,
			"make10mib": func(ts *testscript.TestScript, _ bool, args []string) {
				line := strings.Repeat("x", 10<<20)
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("before\n"+line+"\nafter\n"), 0o600))
			},
			"makebinary": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("a\x00b\xff\xfe\x01\n\x7fELF\x02\n"), 0o600))
			},
		},
	})
}

// exitCode runs the program and compares its exit code: exitcode N ARGS….
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("auditrelay", args[1:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// program returns the program as a child process: the code of this test binary, in a process that can be killed.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	return cmd
}

// writeFile writes a file of the test and returns its path.
func writeFile(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// netopHeader is the header row of a Netop log report (seeds, "Report column").
const netopHeader = "Source,Session,User Id,User Name,Account Id,Entity Type,Action,Entity Id,Entity Name,Result Code,Data,Action timestamp,Action date,Environment\r\n"

// writeNetopReport writes a log report of n records; record i has session "s-i" and a Data cell whose text can be recomputed
// from i. About 385 bytes each.
func writeNetopReport(t testing.TB, path string, n int) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	w := bufio.NewWriterSize(f, 1<<20)
	_, err = w.WriteString(netopHeader)
	require.NoError(t, err)
	for i := range n {
		fmt.Fprintf(w, "HOST,s-%d,700,tom.baker@example.com,5001,DEVICE,NRC_SESSION_STARTED,d-%d,LON-PC-%02d,0,"+
			`"{""host"": {""computer_name"": ""LON-PC-%02d"", ""nrc_id"": ""H-%d"", ""public_ip"": ""192.0.2.%d"", ""operating_system"": ""Windows 11 Pro""}, `+
			`""guest"": {""gam_username"": ""tom.baker@example.com"", ""computer_name"": ""SUP-04"", ""public_ip"": ""198.51.100.8"", ""nrc_buildnumber"": ""20301""}}",`+
			"%d,,live\r\n", i, i%97, i%97, i%97, 2000+i%97, 1+i%250, 1735722000+i)
	}
	require.NoError(t, w.Flush())
	require.NoError(t, f.Close())
}

// delivered is what a file destination of format json holds: for each number of the log the session of its record.
type delivered struct {
	sessions map[uint64]string
	ids      map[string]uint64 // event id to number
	torn     int               // lines that a kill cut
	resent   int               // events that stand there twice
}

// readDelivered reads such a file and fails the test if one number has two events or one event two numbers.
func readDelivered(t *testing.T, path string) delivered {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	d := delivered{sessions: map[uint64]string{}, ids: map[string]uint64{}}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var ev struct {
			ID      string `json:"id"`
			Number  uint64 `json:"number"`
			Session struct {
				ID string `json:"id"`
			} `json:"session"`
		}
		if json.Unmarshal(lines.Bytes(), &ev) != nil {
			d.torn++
			continue
		}
		if session, twice := d.sessions[ev.Number]; twice {
			d.resent++
			require.Equal(t, session, ev.Session.ID, "number %d has two events", ev.Number)
		}
		if number, twice := d.ids[ev.ID]; twice {
			require.Equal(t, number, ev.Number, "event %s is twice in the queue", ev.ID)
		}
		d.sessions[ev.Number], d.ids[ev.ID] = ev.Session.ID, ev.Number
	}
	require.NoError(t, lines.Err())
	return d
}

// requireAll fails unless exactly the records 0 … n-1 are there, in the order of the file: record i under number i+1.
func (d delivered) requireAll(t *testing.T, n int) {
	t.Helper()
	require.Equal(t, n, len(d.sessions), "numbers")
	require.Equal(t, n, len(d.ids), "events")
	for i := range n {
		require.Equal(t, fmt.Sprint("s-", i), d.sessions[uint64(i+1)], "number %d", i+1)
	}
}

// stderrOf runs cmd to its end and returns what it wrote to standard error.
func stderrOf(cmd *exec.Cmd) (string, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	err := cmd.Run()
	return stderr.String(), err
}
