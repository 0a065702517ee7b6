package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

func expandText(text string) (string, []Problem) {
	found := &problems{}
	x := expander{problems: found, env: testMachine()}
	e, _ := x.expand(&yaml.Node{Value: text}, "")
	return e.text, found.list
}

func TestExpand(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                     "plain",
		"$ {x} $x $$ }":             "$ {x} $x $$ }",
		"${env:TOKEN}":              "tok-7f3a",
		"a${env:SHORT}b${env:ON}c":  "axbTruec",
		"${env:EMPTY}":              "",
		"$${env:TOKEN}":             "${env:TOKEN}",
		"$$${env:TOKEN}":            "$${env:TOKEN}",
		"$${${env:SHORT}}":          "${x}",
		"${env:SHORT}$${env:SHORT}": "x${env:SHORT}",
		"${file:/secrets/token}":    "from-a-file",
		"${file:/secrets/crlf}":     "two\nlines\r\n",
		"${cred:hec}":               "from-systemd",
	} {
		got, found := expandText(text)
		require.Empty(t, found, text)
		require.Equal(t, want, got)
	}
}

// TestValuesAddNoStructure shows that what comes in is text, whatever it looks like.
func TestValuesAddNoStructure(t *testing.T) {
	env := testMachine()
	env.variable = func(string) (string, bool) { return "a, ${env:OTHER}]\nversion: 2", true }
	cfg, err := parse("x", []byte(strings.Replace(minimal, "/tmp/x", `"${env:X}"`, 1)), testKinds(), env)
	require.NoError(t, err)
	require.Equal(t, "a, ${env:OTHER}]\nversion: 2", cfg.Forward[0].Settings.(*writeSettings).Path)
}

func TestAReferenceIsReadOnce(t *testing.T) {
	env, reads := testMachine(), 0
	inner := env.file
	env.file = func(path string) ([]byte, os.FileMode, error) { reads++; return inner(path) }
	x := expander{problems: &problems{}, env: env}
	for range 3 {
		e, ok := x.expand(&yaml.Node{Value: "${file:/secrets/token}${file:/secrets/token}"}, "")
		require.True(t, ok)
		require.Equal(t, "from-a-filefrom-a-file", e.text)
	}
	require.Equal(t, 1, reads)
}

func TestReferencesTogetherAreBounded(t *testing.T) {
	env, reads := testMachine(), 0
	env.file = func(string) ([]byte, os.FileMode, error) { reads++; return make([]byte, maxValueBytes), 0o600, nil }
	var list strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&list, "      - ${file:/%d}\n", i)
	}
	paths := "\n    type: file\n    paths:\n" + list.String()
	text := strings.Replace(minimal, "{type: file, paths: [/var/log/a]}", paths, 1)
	_, err := parse("x", []byte(text), testKinds(), env)
	require.ErrorContains(t, err, "collect.logs.paths[16]: too long with ${file:/16} put in")
	require.Equal(t, maxExpandedBytes/maxValueBytes+1, reads, "nothing is read after the limit was passed")
}

func TestScrub(t *testing.T) {
	refs := []reference{
		{text: "${env:A}", value: "pass"},
		{text: "${env:B}", value: "password123"},
		{text: "${env:C}", value: `a"b\c`},
		{text: "${env:D}", value: "7"},
		{text: "${env:E}", value: ""},
	}
	for message, want := range map[string]string{
		"no password123 here": "no ${env:B} here",
		"no pass here":        "no ${env:A} here",
		`"a\"b\\c" is bad`:    `"${env:C}" is bad`,
		"7 is not 77 or x7":   "${env:D} is not 77 or x7",
	} {
		require.Equal(t, want, newScrubber(refs).scrub(message))
	}
}

func TestValueFilesOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(data), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		return path
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("AUDITRELAY_TEST", "from the environment")
	write("good", "s3cret\n", 0o600)
	write("cred", "s3cret\n", 0o440)
	write("longest", strings.Repeat("x", maxValueBytes), 0o600)
	write("too-long", strings.Repeat("x", maxValueBytes+1), 0o600)
	for _, mode := range []os.FileMode{0o640, 0o620, 0o604, 0o602, 0o666} {
		write(fmt.Sprintf("mode%o", mode), "s3cret", mode)
	}
	require.NoError(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	require.NoError(t, os.Symlink("good", filepath.Join(dir, "link")))

	parseToken := func(token string) (string, error) {
		text := "version: 1\ncollect: {a: {type: nothing}}\nforward:\n  soc: {type: syslog, endpoints: [\"tcp://h:1\"], " +
			"token: \"" + strings.ReplaceAll(token, "DIR", dir) + "\"}\n"
		cfg, err := Parse("x", []byte(text), testKinds())
		if err != nil {
			return "", err
		}
		return cfg.Forward[0].Settings.(*sendSettings).Token.Reveal(), nil
	}
	for token, want := range map[string]string{
		"${file:DIR/good}": "s3cret", "${file:DIR/link}": "s3cret", "${cred:cred}": "s3cret", "${cred:good}": "s3cret",
		"${env:AUDITRELAY_TEST}": "from the environment", "${file:DIR/longest}": strings.Repeat("x", maxValueBytes),
	} {
		got, err := parseToken(token)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for token, want := range map[string]string{
		"${file:DIR/fifo}":     "it is not a regular file: ",
		"${file:DIR}":          "it is not a regular file: ",
		"${file:/dev/zero}":    "it is not a regular file: ",
		"${file:DIR/none}":     "no such file or directory: ",
		"${file:DIR/too-long}": "it is longer than 64KiB: ",
		"${file:DIR/mode640}":  "(mode 0640): chmod 600 " + dir + "/mode640",
		"${file:DIR/mode620}":  "(mode 0620): chmod 600 ",
		"${file:DIR/mode604}":  "(mode 0604): chmod 600 ",
		"${file:DIR/mode602}":  "(mode 0602): chmod 600 ",
		"${cred:mode620}":      "(mode 0620): chmod 600 ",
		"${cred:mode666}":      "(mode 0666): chmod 600 ",
	} {
		_, err := parseToken(token)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "s3cret")
	}
	t.Setenv("CREDENTIALS_DIRECTORY", "")
	_, err := parseToken("${cred:good}")
	require.ErrorContains(t, err, "LoadCredential=good:/path")
}

// TestOpenFilesAreGoodEnoughForWhatIsNoSecret: the mode matters for Secret only.
func TestOpenFilesAreGoodEnoughForWhatIsNoSecret(t *testing.T) {
	cfg := mustParse(t, strings.Replace(minimal, "/tmp/x", `"/${file:/secrets/open}"`, 1))
	require.Equal(t, "/seen-by-all", cfg.Forward[0].Settings.(*writeSettings).Path)
}
