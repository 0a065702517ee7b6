package forward

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/auditrelay/auditrelay/audit"
)

func letters(t *testing.T, d *DeadLetters) (all []deadLetter) {
	t.Helper()
	for line := range strings.Lines(content(t, d.Path())) {
		var letter deadLetter
		require.NoError(t, json.Unmarshal([]byte(line), &letter), line)
		all = append(all, letter)
	}
	return all
}

func TestADeadLetterHoldsAllThatIsNeededToSendItAgain(t *testing.T) {
	d := NewDeadLetters(filepath.Join(t.TempDir(), "dead", "soc"), "soc", 0)
	batch := batchOf(t, "fine", "mapping <&> \u2028 \"x\"\n", "\xff\x00")
	batch.List[1].ID = audit.KeyID("netop", []byte("k"))
	require.NoError(t, d.Add(batch, []int{1, 2}, "mapper_parsing_exception"))
	require.NoError(t, d.Add(batch, []int{0}, "later"))
	got := letters(t, d)
	require.Len(t, got, 3)
	require.Equal(t, "mapping <&> \u2028 \"x\"\n", got[0].Raw)
	require.Empty(t, got[0].RawBase64)
	require.Equal(t, []byte("\xff\x00"), got[1].RawBase64, "not UTF-8")
	require.Empty(t, got[1].Raw)
	require.EqualValues(t, 2, got[0].Number)
	require.Equal(t, batch.List[1].ID.String(), got[0].ID)
	require.Equal(t, []string{"mapper_parsing_exception", "soc", "USER/LOGIN", "netop"},
		[]string{got[0].Reason, got[0].Destination, got[0].Class, got[0].Product})
	at, err := time.Parse(time.RFC3339, got[0].Time)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)

	again := audit.GetEvents()
	defer again.Release()
	require.NoError(t, audit.NewDecoder().Decode(again, got[0].Event, 1, got[0].Number))
	require.Equal(t, batch.List[1].Raw, again.List[0].Raw)
	require.Equal(t, batch.List[1].ID, again.List[0].ID)

	info, err := os.Stat(d.Path())
	require.NoError(t, err)
	require.EqualValues(t, 0o600, info.Mode().Perm(), "they hold what was refused, for nobody else to read")
}

func TestDeadLettersAreBounded(t *testing.T) {
	d := NewDeadLetters(t.TempDir(), "soc", 4000)
	batch := batchOf(t, strings.Repeat("x", 500), strings.Repeat("y", 500))
	require.NoError(t, d.Add(batch, []int{0}, "r"))
	size := len(content(t, d.Path()))
	require.NoError(t, d.Add(batch, []int{0}, "r"))
	err := d.Add(batch, []int{0, 1}, "r")
	require.ErrorIs(t, err, ErrDeadLettersFull)
	require.ErrorContains(t, err, d.Path())
	require.Len(t, content(t, d.Path()), 2*size, "all or none")
	require.NoError(t, os.Rename(d.Path(), d.Path()+".seen"))
	require.NoError(t, d.Add(batch, []int{0, 1}, "r"), "room again when the file was moved away")
	require.Len(t, letters(t, d), 2)
}

func TestADeadLetterThatACrashCutStaysAlone(t *testing.T) {
	d := NewDeadLetters(t.TempDir(), "soc", 0)
	require.NoError(t, os.WriteFile(d.Path(), []byte(`{"time":"2026`), 0o600))
	require.NoError(t, d.Add(batchOf(t, "x"), []int{0}, "r"))
	lines := strings.Split(content(t, d.Path()), "\n")
	require.Equal(t, `{"time":"2026`, lines[0])
	require.True(t, json.Valid([]byte(lines[1])))
}

func TestDeadLettersThatCannotBeWrittenSaySo(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "occupied"), nil, 0o600))
	for name, d := range map[string]*DeadLetters{
		"no directory can be made": NewDeadLetters(filepath.Join(dir, "occupied", "soc"), "soc", 0),
		"a file is in the way":     NewDeadLetters(filepath.Join(dir, "occupied"), "soc", 0),
	} {
		require.ErrorContains(t, d.Add(batchOf(t, "x"), []int{0}, "r"), "make the directory of the dead letters", name)
	}
	link := NewDeadLetters(t.TempDir(), "soc", 0)
	require.NoError(t, os.Symlink("/dev/null", link.Path()))
	require.ErrorContains(t, link.Add(batchOf(t, "x"), []int{0}, "r"), "symbolic link")
	var none *DeadLetters
	require.ErrorIs(t, none.Add(batchOf(t, "x"), []int{0}, "r"), ErrNoDeadLetters)
}

func TestAFailedWriteOfDeadLettersIsUndone(t *testing.T) {
	for _, fault := range []faultyFile{
		{failWrite: true, partial: 10}, {failSync: true}, {failSync: true, happened: true},
	} {
		path := filepath.Join(t.TempDir(), "x")
		lines, err := openLines(path, 0o600)
		require.NoError(t, err)
		_, err = lines.write([]byte("first\n"), true)
		require.NoError(t, err)
		fault.appendFile = lines.file
		lines.file = &fault
		undone, err := lines.write([]byte("second line\n"), true)
		require.Error(t, err)
		require.True(t, undone)
		require.NoError(t, lines.file.Close())
		require.Equal(t, "first\n", content(t, path))
	}
}
