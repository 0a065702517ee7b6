package forward

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/auditrelay/auditrelay/audit"
	"github.com/auditrelay/auditrelay/forward/forwardtest"
)

// faultyFile fails at its n-th operation, before it (did not happen) or after it (happened but reported failed).
type faultyFile struct {
	appendFile
	failWrite, failSync, failTruncate, happened bool
	partial                                     int // bytes that a failing write leaves
	syncs                                       int
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if !f.failWrite {
		return f.appendFile.Write(p)
	}
	n, err := f.appendFile.Write(p[:f.partial])
	return n, errors.Join(err, unix.ENOSPC)
}

func (f *faultyFile) Sync() error {
	f.syncs++
	if !f.failSync {
		return f.appendFile.Sync()
	}
	if f.happened {
		return errors.Join(f.appendFile.Sync(), unix.EIO)
	}
	return unix.EIO
}

func (f *faultyFile) Truncate(size int64) error {
	if f.failTruncate {
		return unix.EIO
	}
	return f.appendFile.Truncate(size)
}

func fileIn(t *testing.T, set func(s *FileSettings)) (*fileSink, string) {
	t.Helper()
	s := newFileSettings()
	s.Path = filepath.Join(t.TempDir(), "events.ndjson")
	if set != nil {
		set(s)
	}
	sink, err := newFile(Env{Encoder: forwardtest.RawEncoder{}}, s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sink.Close()) })
	return sink.(*fileSink), s.Path
}

func batchOf(t *testing.T, raws ...string) *audit.Events {
	t.Helper()
	batch := audit.GetEvents()
	for i, raw := range raws {
		*batch.Add() = forwardtest.Event([]byte(raw))
		batch.List[i].Number = audit.Number(i + 1)
	}
	t.Cleanup(batch.Release)
	return batch
}

func sendTo(t *testing.T, sink Sink, raws ...string) {
	t.Helper()
	_, err := sink.Send(t.Context(), batchOf(t, raws...))
	require.NoError(t, err)
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func TestAFullFileIsSetAside(t *testing.T) {
	sink, path := fileIn(t, func(s *FileSettings) { s.MaxSize, s.Keep = 1024, 3 })
	for i := range 9 {
		sendTo(t, sink, fmt.Sprint(i)+strings.Repeat("x", 598)) // one fits, two do not
	}
	for name, first := range map[string]string{path: "8", path + ".1": "7", path + ".2": "6", path + ".3": "5"} {
		got := content(t, name)
		require.Equal(t, first, got[:1], name)
		require.Len(t, got, 600)
	}
	require.NoFileExists(t, path+".4")
	require.EqualValues(t, 8, sink.Counts().Rotations)
	require.EqualValues(t, 9*600, sink.Counts().Bytes)
}

func TestARotationThatACrashBrokeOffIsFinished(t *testing.T) {
	sink, path := fileIn(t, func(s *FileSettings) { s.MaxSize, s.Keep = 1024, 3 })
	line := strings.Repeat("x", 899)
	sendTo(t, sink, "0"+line)
	require.NoError(t, os.WriteFile(path+".2", []byte("older"), 0o600)) // .1 had moved to .2, path not yet to .1
	sendTo(t, sink, "1"+line)
	require.Equal(t, "0", content(t, path+".1")[:1])
	require.Equal(t, "older", content(t, path+".2"))
}

func TestAnUnfinishedLastLineStaysAlone(t *testing.T) {
	sink, path := fileIn(t, nil)
	require.NoError(t, os.WriteFile(path, []byte("whole\ntor"), 0o600))
	sendTo(t, sink, "torn", "next")
	require.Equal(t, "whole\ntor\ntorn\nnext\n", content(t, path))
	require.EqualValues(t, 1, sink.Counts().Torn)
}

func TestAFileThatIsMovedAwayIsMadeAnew(t *testing.T) {
	sink, path := fileIn(t, func(s *FileSettings) { s.Mode = 0o600 })
	sendTo(t, sink, "one")
	require.NoError(t, os.Rename(path, path+".moved"))
	sendTo(t, sink, "two")
	require.NoError(t, os.Remove(path))
	sendTo(t, sink, "three")
	require.NoError(t, os.Truncate(path, 0))
	sendTo(t, sink, "four")
	require.Equal(t, "one\n", content(t, path+".moved"))
	require.Equal(t, "four\n", content(t, path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
}

func TestOnlyRegularFilesAreWrittenTo(t *testing.T) {
	for name, plant := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink("/dev/null", path) },
		"fifo":          func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		sink, path := fileIn(t, nil)
		require.NoError(t, plant(path))
		_, err := sink.Send(t.Context(), batchOf(t, "x"))
		var unsent *UnsentError
		require.ErrorAs(t, err, &unsent, name)
		require.ErrorContains(t, err, path)
	}
}

func TestAFailedWriteLeavesNothingBehind(t *testing.T) {
	const (
		once  = "one\ntwo\nthree\n"
		twice = "one\ntwo\nthree\ntwo\nthree\n"
		torn  = "one\ntwo\nth\ntwo\nthree\n"
	)
	for name, c := range map[string]struct {
		fault  faultyFile
		unsent bool
		after  string // what the next Send leaves in the file
	}{
		"disk full":                  {faultyFile{failWrite: true}, true, once},
		"disk full in the middle":    {faultyFile{failWrite: true, partial: 6}, true, once},
		"disk full and no way back":  {faultyFile{failWrite: true, partial: 6, failTruncate: true}, false, torn},
		"fsync did not happen":       {faultyFile{failSync: true}, true, once},
		"fsync happened, but failed": {faultyFile{failSync: true, happened: true}, true, once},
		"fsync failed, no way back":  {faultyFile{failSync: true, failTruncate: true}, false, twice},
	} {
		t.Run(name, func(t *testing.T) {
			sink, path := fileIn(t, nil)
			sendTo(t, sink, "one")
			fault := c.fault
			fault.appendFile = sink.lines.file
			sink.lines.file = &fault
			_, err := sink.Send(t.Context(), batchOf(t, "two", "three"))
			require.ErrorContains(t, err, "write "+path)
			var unsent *UnsentError
			require.Equal(t, c.unsent, errors.As(err, &unsent), "only what left nothing behind doubles nothing")
			require.Nil(t, sink.lines, "an fsync that failed is not tried again on the same descriptor")
			require.LessOrEqual(t, fault.syncs, 1)
			sendTo(t, sink, "two", "three")
			require.Equal(t, c.after, content(t, path))
		})
	}
}

func TestSyncIsASetting(t *testing.T) {
	for _, sync := range []bool{true, false} {
		sink, _ := fileIn(t, func(s *FileSettings) { s.Sync = sync })
		sendTo(t, sink, "one")
		watched := &faultyFile{appendFile: sink.lines.file}
		sink.lines.file = watched
		sendTo(t, sink, "two", "three")
		require.Equal(t, sync, watched.syncs == 1)
	}
}

func TestFileSettings(t *testing.T) {
	s := newFileSettings()
	s.Path = "events.ndjson"
	require.Equal(t, "path", s.Validate()[0].Key)
	s.Path = "-"
	require.Empty(t, s.Validate())
	_, err := newFile(Env{}, s)
	require.ErrorContains(t, err, "no standard output")
	for text, want := range map[string]FileMode{"0640": 0o640, "600": 0o600} {
		var m FileMode
		require.NoError(t, m.UnmarshalText([]byte(text)))
		require.Equal(t, want, m)
	}
	for _, text := range []string{"", "0800", "01777", "rw-r-----", "0440"} {
		require.ErrorContains(t, new(FileMode).UnmarshalText([]byte(text)), "use octal digits", text)
	}
	require.Equal(t, "0640", FileMode(0o640).String())
}

func TestFileAllocatesNothingPerEvent(t *testing.T) {
	sink, _ := fileIn(t, func(s *FileSettings) { s.Sync = false })
	raws := make([]string, 2000)
	for i := range raws {
		raws[i] = strings.Repeat("x", 100)
	}
	batch := batchOf(t, raws...)
	allocs := testing.AllocsPerRun(5, func() {
		if _, err := sink.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, allocs, 20.0)
}
