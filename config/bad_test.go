package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the wanted problems into testdata/bad anew; then read the diff")

const wantPrefix = "# want: "

// TestBadFiles reads every file of testdata/bad. Its first lines are the problems that must be found in it, all of them
// and no others, as "# want: line:column path: message".
func TestBadFiles(t *testing.T) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	require.NoError(t, err)
	require.Greater(t, len(names), 25)
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			require.NoError(t, err)
			if *update {
				data = withWants(t, name, data)
			}
			var want []string
			for line := range strings.Lines(string(data)) {
				text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), wantPrefix)
				if !ok {
					break
				}
				want = append(want, text)
			}
			require.NotEmpty(t, want)
			require.Equal(t, want, problemsOf(t, data))
		})
	}
}

// problemsOf parses data, which must be bad, and returns its problems as "line:column path: message".
func problemsOf(t *testing.T, data []byte) []string {
	t.Helper()
	cfg, err := parse("x", data, testKinds(), testMachine())
	require.Nil(t, cfg)
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Zero(t, e.Left)
	var list []string
	for _, p := range e.Problems {
		text := fmt.Sprintf("%d:%d ", p.Line, p.Column)
		if p.Path != "" {
			text += p.Path + ": "
		}
		list = append(list, text+p.Message)
		require.NotContains(t, p.Message, "\n")
		requireNoSecret(t, p.String())
	}
	return list
}

// requireNoSecret fails if text shows a value of the test machine or of a secret in the files.
func requireNoSecret(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{
		"hush-hush", "tok-7f3a", "rel-secret", "from-a-file", "from-systemd", "seen-by-all", "hunter2", "pass-word",
	} {
		require.NotContains(t, text, secret)
	}
}

// withWants puts the problems found into the file. The wanted lines count as lines of the file, so they are put in
// first.
func withWants(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	body := string(data)
	for strings.HasPrefix(body, wantPrefix) {
		_, body, _ = strings.Cut(body, "\n")
	}
	count := len(problemsOf(t, []byte(body)))
	shifted := strings.Repeat(wantPrefix+"\n", count) + body
	var b strings.Builder
	for _, text := range problemsOf(t, []byte(shifted)) {
		b.WriteString(wantPrefix + text + "\n")
	}
	b.WriteString(body)
	require.NoError(t, os.WriteFile(name, []byte(b.String()), 0o644))
	return []byte(b.String())
}

func TestTooManyProblemsAreCounted(t *testing.T) {
	_, err := parse("x", []byte("version: 1\n"+strings.Repeat("{a: b}: c\n", 150)), testKinds(), testMachine())
	var e *Error
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Problems, maxProblems)
	require.Equal(t, 52, e.Left, "150 keys, and no collect and forward")
	require.True(t, strings.HasSuffix(err.Error(), "\nand 52 more: mend these first"))
}

func TestFileTooLong(t *testing.T) {
	_, err := parse("x", make([]byte, maxFileBytes+1), testKinds(), testMachine())
	require.EqualError(t, err, "x:1:1: the file is longer than 1 MiB: is it a configuration file?")
}

func TestLoadSaysWhyTheFileIsNotRead(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"), testKinds())
	require.ErrorIs(t, err, os.ErrNotExist)
	require.ErrorContains(t, err, "--config")
	var e *Error
	require.False(t, errors.As(err, &e))

	_, err = Load(t.TempDir(), testKinds())
	require.ErrorContains(t, err, "read configuration: ")
}
