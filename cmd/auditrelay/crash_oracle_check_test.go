package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestCrashOracleFindsWhatIsWrong gives the oracle of the crash tests files that are wrong in one way each.
func TestCrashOracleFindsWhatIsWrong(t *testing.T) {
	sent := &ledger{}
	for range 4 {
		sent.next("a")
		sent.next("b")
	}
	line := func(number int, id, raw string) string {
		data, err := json.Marshal(map[string]any{"number": number, "id": id, "raw": raw})
		require.NoError(t, err)
		return string(data)
	}
	good := []string{
		line(1, "i1", auditLine("a", 0)), line(2, "i2", auditLine("b", 0)), line(3, "i3", auditLine("a", 1)), line(4, "i4", auditLine("a", 2)),
	}
	replaced := func(i int, with string) []string {
		lines := append([]string(nil), good...)
		lines[i] = with
		return lines
	}
	read := func(lines []string) (*account, error) {
		path := filepath.Join(t.TempDir(), "out.json")
		require.NoError(t, os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600))
		return readAccount(path, sent)
	}

	a, err := read(append(append(good[:3:3], good[3][:30]), good[2], good[3]))
	require.NoError(t, err)
	require.Equal(t, &account{streams: map[string]int{"a": 3, "b": 1}, events: 4, resent: 1, torn: 1}, a)

	for name, lines := range map[string][]string{
		"missing":             append(good[:1:1], good[2:]...),
		"changed":             replaced(2, line(3, "i3", auditLine("a", 1)+" ")),
		"never sent":          append(good[:4:4], line(5, "i5", auditLine("b", 4))),
		"twice in the log":    append(good[:4:4], line(5, "i2", auditLine("b", 0))),
		"twice with two ids":  append(good[:4:4], line(5, "i5", auditLine("b", 0))),
		"a number used twice": append(good[:4:4], line(4, "i5", auditLine("b", 1))),
		"out of order":        {good[0], good[1], line(3, "i4", auditLine("a", 2)), line(4, "i3", auditLine("a", 1))},
		"a gap in its stream": replaced(3, line(4, "i5", auditLine("a", 3))),
	} {
		_, err := read(lines)
		require.Error(t, err, name)
	}
}
