package collect

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func TestReadFile(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	lines := NewFileSettings()
	lines.Format = "text"
	lines.StartAt = "end"
	stream := NewSyslogSettings()
	for _, c := range []struct {
		name, path string
		settings   any
		want       []string
		marks      audit.Marks // of the last
	}{
		{"CSV", file("a[1].csv", "A,B\n1,\"x\ny\"\n2,z"), nil, []string{"1,\"x\ny\"", "2,z"}, audit.MarkPartial},
		{"with a collector's settings", file("b.csv", "A,B\n1,2\n"), lines, []string{"A,B", "1,2"}, 0},
		{
			"as a stream", file("c.log", "<34>a\n5 <34>b<34>c"), stream,
			[]string{"<34>a", "<34>b", "<34>c"},
			audit.MarkPartial,
		},
		{"empty", file("d.log", ""), nil, nil, 0},
		{"empty stream", file("e.log", ""), stream, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &store{}
			require.NoError(t, ReadFile(t.Context(), c.path, c.settings, s.put))
			require.Equal(t, c.want, s.raws())
			if all := s.all(); len(all) > 0 {
				require.Equal(t, c.marks, all[len(all)-1].Marks)
			}
		})
	}
}

func TestReadFileThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for _, settings := range []any{nil, NewSyslogSettings()} {
		s := &store{}
		require.ErrorContains(t, ReadFile(t.Context(), filepath.Join(dir, "missing"), settings, s.put), "no such file")
		require.ErrorContains(t, ReadFile(t.Context(), dir, settings, s.put), "is a directory")
	}
	require.ErrorContains(t, ReadFile(t.Context(), dir, 1, nil), "BUG")
}

func TestReadFileReturnsTheErrorOfPut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("<34>x\n", 100_000)), 0o600))
	full := errors.New("enough")
	for _, settings := range []any{nil, NewSyslogSettings()} {
		puts := 0
		err := ReadFile(t.Context(), path, settings, func(context.Context, *audit.Records) (audit.Number, error) {
			puts++
			if puts == 2 {
				return 0, full
			}
			return 0, nil
		})
		require.ErrorIs(t, err, full)
		require.Equal(t, 2, puts)
	}
}
